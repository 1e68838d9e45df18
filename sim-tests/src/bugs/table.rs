//! The table of planted bugs, as text and in the docs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use super::{bug::Bug, hunt::Catch};

const COLUMNS: usize = 8;
const HEAD: [&str; COLUMNS] = [
    "bug",
    "what is wrong",
    "mirrors",
    "meant to be caught by",
    "schedules",
    "fired first",
    "shrunk to",
    "time",
];
const BEGIN: &str = "<!-- The table is written by `cargo sim bugs --bless`. -->\n";
const END: &str = "<!-- The end of the table. -->\n";

/// What came of trying a bug.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) bug: Bug,
    pub(super) outcome: Outcome,
    /// Building and all hunts.
    pub(super) took: Duration,
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// The patch does not apply, or what it makes does not compile.
    Unusable(String),
    /// Hunts from several starting points; one that found nothing is the last.
    Hunted(Vec<Catch>),
}

impl Trial {
    /// Whether each hunt ended with an invariant that is meant to fire.
    pub(super) fn is_caught(&self) -> bool {
        match &self.outcome {
            Outcome::Unusable(_) => false,
            Outcome::Hunted(catches) => {
                !catches.is_empty() && catches.iter().all(|catch| catch.intended.is_some())
            }
        }
    }

    /// Why it is not caught, if it is not.
    pub(super) fn failure(&self) -> Option<String> {
        let catches = match &self.outcome {
            Outcome::Unusable(reason) => return Some(reason.clone()),
            Outcome::Hunted(catches) => catches,
        };
        if let Some(reason) = catches.iter().find_map(|catch| catch.broken.as_ref()) {
            return Some(reason.clone());
        }
        let failed = catches.iter().find(|catch| catch.intended.is_none())?;
        Some(match &failed.first {
            Some((schedules, names)) => format!(
                "caught by others only: {} after {schedules} schedules",
                names.join(", ")
            ),
            None => "missed".to_owned(),
        })
    }

    fn row(&self) -> [String; COLUMNS] {
        let bug = &self.bug;
        [
            bug.name.clone(),
            bug.title.clone(),
            bug.mirrors.clone(),
            bug.invariants.join(", "),
            self.failure().unwrap_or_else(|| self.schedules()),
            self.fired_first(),
            self.shrunk(),
            format!("{:.0} s", self.took.as_secs_f64()),
        ]
    }

    /// The median, and the extremes.
    fn schedules(&self) -> String {
        let Outcome::Hunted(catches) = &self.outcome else {
            return String::new();
        };
        let mut needed: Vec<u64> = catches.iter().filter_map(|catch| catch.intended).collect();
        needed.sort_unstable();
        match needed[..] {
            [] => String::new(),
            [only] => only.to_string(),
            [least, .., most] => format!("{} ({least}–{most})", needed[needed.len() / 2]),
        }
    }

    /// The events that were left of the first schedule.
    fn shrunk(&self) -> String {
        let Outcome::Hunted(catches) = &self.outcome else {
            return String::new();
        };
        let shrunk = catches.iter().find_map(|catch| catch.shrunk);
        shrunk.map_or("-".to_owned(), |events| events.to_string())
    }

    /// What fired in the first schedule that failed, from how many starting points.
    fn fired_first(&self) -> String {
        let Outcome::Hunted(catches) = &self.outcome else {
            return String::new();
        };
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for name in catches
            .iter()
            .filter_map(|catch| catch.first.as_ref())
            .flat_map(|(_, names)| names)
        {
            *times.entry(name).or_default() += 1;
        }
        let mut names: Vec<(&str, usize)> = times.into_iter().collect();
        names.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        let each: Vec<String> = names
            .iter()
            .map(|(name, times)| format!("{name} {times}×"))
            .collect();
        each.join(", ")
    }
}

/// The table of these trials.
pub(super) fn table(trials: &[Trial]) -> String {
    render(&trials.iter().map(Trial::row).collect::<Vec<_>>())
}

/// `page` with the rows of these trials in its table; rows of bugs that are not known go.
///
/// # Errors
/// The page has no place for the table.
pub(super) fn bless(page: &str, trials: &[Trial], known: &[Bug]) -> Result<String, String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .ok_or("the page does not mark where the table begins")?;
    let (old, after) = rest
        .split_once(END)
        .ok_or("the page does not mark where the table ends")?;
    let mut rows: BTreeMap<String, [String; COLUMNS]> = BTreeMap::new();
    for line in old.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<String> = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect();
        let cells: Result<[String; COLUMNS], _> = cells.try_into();
        if let Ok(row) = cells
            && known.iter().any(|bug| bug.name == row[0])
        {
            rows.insert(row[0].clone(), row);
        }
    }
    rows.extend(trials.iter().map(|trial| (trial.bug.name.clone(), trial.row())));
    let rows: Vec<[String; COLUMNS]> = rows.into_values().collect();
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", render(&rows)))
}

/// What of the page is the table: a row elsewhere is none.
pub fn of_table(page: &str) -> &str {
    let table = page.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    table.map_or("", |(table, _)| table)
}

/// The bugs whose rows say how many schedules it took to catch them.
pub(super) fn measured(page: &str) -> BTreeSet<String> {
    let rows = of_table(page)
        .lines()
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let number = |cell: &str| cell.starts_with(|first: char| first.is_ascii_digit());
    rows.filter(|cells| cells.get(5).is_some_and(|schedules| number(schedules)))
        .map(|cells| cells[1].to_owned())
        .collect()
}

fn render(rows: &[[String; COLUMNS]]) -> String {
    let mut text = String::new();
    line(&mut text, &HEAD.map(str::to_owned));
    line(&mut text, &["---"; COLUMNS].map(str::to_owned));
    rows.iter().for_each(|row| line(&mut text, row));
    text
}

fn line(text: &mut String, cells: &[String; COLUMNS]) {
    // A compiler's message has lines, and a cell has none.
    let cells = cells
        .each_ref()
        .map(|cell| cell.lines().next().unwrap_or_default().replace('|', "/"));
    writeln!(text, "| {} |", cells.join(" | ")).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn bug(name: &str) -> Bug {
        Bug {
            name: name.to_owned(),
            title: "A title".to_owned(),
            mirrors: "own".to_owned(),
            invariants: vec!["ttl".to_owned()],
            mechanism: "A mechanism".to_owned(),
            patch: PathBuf::new(),
        }
    }

    fn hunted(name: &str, intended: &[Option<u64>]) -> Trial {
        let catch = |intended: &Option<u64>| Catch {
            first: Some((2, vec!["digest".to_owned()])),
            intended: *intended,
            shrunk: Some(5),
            broken: None,
        };
        Trial {
            bug: bug(name),
            outcome: Outcome::Hunted(intended.iter().map(catch).collect()),
            took: Duration::from_secs(7),
        }
    }

    #[test]
    fn a_bug_is_caught_if_what_is_meant_to_fire_fires_from_every_start() {
        let caught = hunted("001", &[Some(40), Some(3), Some(5)]);
        assert!(caught.is_caught());
        assert_eq!(
            table(&[caught]).lines().nth(2),
            Some("| 001 | A title | own | ttl | 5 (3–40) | digest 3× | 5 | 7 s |")
        );
        let by_others = hunted("002", &[Some(40), None]);
        assert!(!by_others.is_caught());
        assert_eq!(
            by_others.failure(),
            Some("caught by others only: digest after 2 schedules".to_owned())
        );
        let mut missed = hunted("003", &[None]);
        let Outcome::Hunted(catches) = &mut missed.outcome else {
            unreachable!("it was hunted");
        };
        catches[0].first = None;
        assert_eq!(missed.failure(), Some("missed".to_owned()));
        let unusable = Trial {
            outcome: Outcome::Unusable("error: a | b\nin line 1".to_owned()),
            ..hunted("004", &[])
        };
        assert!(!unusable.is_caught() && table(&[unusable]).contains("| error: a / b |"));
        assert!(!hunted("005", &[]).is_caught());
    }

    #[test]
    fn rows_are_replaced_added_and_removed() {
        let page = format!("Before.\n{BEGIN}{END}After.\n");
        let known = [bug("001"), bug("002"), bug("003")];
        let page = bless(
            &page,
            &[hunted("001", &[Some(1)]), hunted("003", &[Some(1)])],
            &known,
        )
        .expect("a page");
        let page = bless(
            &page,
            &[hunted("003", &[Some(9)]), hunted("002", &[Some(1)])],
            &known[1..],
        )
        .expect("a page");
        let names: Vec<&str> = page
            .lines()
            .filter_map(|line| line.split(" | ").next())
            .filter(|it| it.starts_with("| 0"))
            .collect();
        assert_eq!(names, ["| 002", "| 003"]);
        assert_eq!(measured(&page), ["002".to_owned(), "003".to_owned()].into());
        let unmeasured = page.replace("| 9 |", "| to be measured |");
        assert_eq!(measured(&unmeasured), ["002".to_owned()].into());
        assert!(page.contains("| 9 |") && page.starts_with("Before.\n") && page.ends_with("After.\n"));
        assert!(bless("no table", &[], &known).is_err());
    }
}
