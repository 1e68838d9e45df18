//! Whether another run shows the same violation: of other servers, keys and times, but not another defect.

use std::{cmp::Reverse, collections::BTreeSet};

use serde_json::Value;

use crate::{history::History, invariants::Violation, run::Report, schedule::Schedule, words};

/// Stands for a name, a number, an id, a value, a request, or several of them.
const SOMETHING: &str = "…";
/// What is said of things as a word, and not what is wrong with them; and units.
const VALUES: [&str; 10] = [
    "true", "false", "passing", "warning", "critical", "unknown", "s", "ms", "µs", "ns",
];
/// How two contents may differ (see [`crate::content::Content::difference`]): lists of other lengths differ in other ways.
const DIFFERENCES: [&str; 4] = ["item … is … not …", "has … too", "lacks …", "no difference"];

/// What a violation says, whomever it is about.
#[derive(Clone, Debug)]
pub struct Kind {
    invariant: &'static str,
    says: String,
    /// Names that the first schedule gives: a word that is one there is one everywhere.
    names: BTreeSet<String>,
}

impl Kind {
    /// That of a violation which a schedule has in this run.
    pub fn of(violation: &Violation, schedule: &Schedule, history: &History) -> Kind {
        let mut names = BTreeSet::new();
        let saved = serde_json::to_value(schedule).expect("a schedule can be written as JSON");
        add_texts(&saved, &mut names);
        Kind {
            invariant: violation.invariant,
            says: says(violation, history, &names),
            names,
        }
    }

    /// The violation of this kind that a run shows, if it does.
    pub fn shown_by<'a>(&self, report: &'a Report) -> Option<&'a Violation> {
        let mut violations = report.violations.iter();
        violations
            .find(|it| it.invariant == self.invariant && says(it, &report.history, &self.names) == self.says)
    }
}

fn add_texts(value: &Value, texts: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            texts.insert(text.clone());
        }
        Value::Array(elements) => elements.iter().for_each(|it| add_texts(it, texts)),
        Value::Object(fields) => fields.values().for_each(|it| add_texts(it, texts)),
        _ => {}
    }
}

/// A violation's text without the requests and commands of its run, and then without any other value.
fn says(violation: &Violation, history: &History, names: &BTreeSet<String>) -> String {
    let requests = history.operations.iter().map(|it| it.op.to_string());
    let entries = history.truth().entries.iter();
    let commands = entries.filter_map(|it| Some(words::command(&it.command.as_ref()?.0)));
    without_values(&violation.what, requests.chain(commands), names)
}

fn without_values(text: &str, told: impl IntoIterator<Item = String>, names: &BTreeSet<String>) -> String {
    let mut told: Vec<String> = told.into_iter().filter(|it| text.contains(it.as_str())).collect();
    // The longest first: one may begin like another.
    told.sort_unstable_by_key(|it| Reverse(it.len()));
    let text = told
        .iter()
        .fold(text.to_owned(), |text, it| text.replace(it.as_str(), SOMETHING));
    let place = text.split([' ', '(', ')']).find(|it| it.contains(".rs:"));
    let mut said: Vec<&str> = Vec::new();
    let bare = without_brackets(&text);
    for word in bare.split_whitespace() {
        let word = word.trim_matches([',', ';', ':', '.']);
        let word = if is_value(word, names) { SOMETHING } else { word };
        // A list is as good as one thing.
        if !word.is_empty() && (word, said.last()) != (SOMETHING, Some(&SOMETHING)) {
            said.push(word);
        }
    }
    // Panics are told apart by their places.
    said.extend(place);
    let said = said.join(" ");
    let ends = DIFFERENCES.iter().find_map(|it| said.strip_suffix(it));
    ends.map_or(said.as_str(), str::trim_end).to_owned()
}

/// Whatever is not a plain word.
fn is_value(word: &str, names: &BTreeSet<String>) -> bool {
    let owner = word.strip_suffix("'s").unwrap_or(word);
    let plain = |it: char| it.is_lowercase() || ['-', '\'', '’'].contains(&it);
    !word.chars().all(plain) || names.contains(owner) || VALUES.contains(&owner)
}

/// With something in place of all that is in quotes or brackets.
fn without_brackets(text: &str) -> String {
    let mut bare = String::new();
    let mut closing: Vec<char> = Vec::new();
    let mut escaped = false;
    for it in text.chars() {
        let quoted = closing.last() == Some(&'"');
        if closing.last() == Some(&it) && !escaped {
            closing.pop();
            continue;
        }
        let closes = match it {
            _ if quoted => None,
            '"' => Some('"'),
            '“' => Some('”'),
            '(' => Some(')'),
            '[' => Some(']'),
            '{' => Some('}'),
            _ => None,
        };
        escaped = quoted && it == '\\' && !escaped;
        if closing.is_empty() {
            match closes {
                // Glued to what stands before it, as `Some(7)` is.
                Some(_) => bare.push_str(SOMETHING),
                None => bare.push(it),
            }
        }
        closing.extend(closes);
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::generate;

    fn said(text: &str) -> String {
        let names = ["web", "k/a", "lock", "db-check"].map(str::to_owned).into();
        let told = [
            "read health of web (default)",
            "read health of web",
            "read key lock (stale)",
        ];
        without_values(text, told.map(str::to_owned), &names)
    }

    fn assert_same(one: &str, other: &str) {
        assert_eq!(said(one), said(other));
    }

    fn assert_another(one: &str, other: &str) {
        assert_ne!(said(one), said(other));
    }

    #[test]
    fn other_servers_and_numbers_make_no_other_kind() {
        assert_same(
            "#7 of c1 at s2 is not woken in 120 ms, though entry 9 shows it web-1",
            "#23 of c0 at s0 is not woken in 310.5ms, though entry 41 shows it db-2",
        );
        assert_same(
            "db-check of web expired early",
            "chk:web-1:0 of k/a expired early",
        );
        assert_same(
            "s0 leads term 1 with the votes of s0",
            "s1 leads term 7 with the votes of s1, s2, s4",
        );
        assert_same(
            "the answer says Some(3), not None",
            "the answer says Some(17), not Some(\"a \\\" b\")",
        );
        assert_same("its check is passing", "its check is critical");
    }

    #[test]
    fn other_requests_make_no_other_kind() {
        assert_same(
            "read health of web (default) of s1: index 7 was not yet there",
            "read key lock (stale) of s0: index 1 was not yet there",
        );
    }

    #[test]
    fn contents_may_differ_in_another_way() {
        let what = |difference: &str| {
            format!("read key lock (stale) of s1: the content is not that of index 9; {difference}")
        };
        let one = what("item 3 is Key { name: \"k\" }, not Key { name: \"l\", tags: [] }");
        assert_same(&one, &what("lacks Key { name: \"k\" }"));
        assert_same(&one, &what("has Key { name: \"k\" } too"));
        let gone = "read key lock (stale) of s1: index 7 was gone: by 3 s it was 9";
        assert_same(gone, &format!("{gone}; lacks Key {{ name: \"k\" }}"));
    }

    #[test]
    fn another_defect_is_another_kind() {
        assert_another(
            "s0 votes in term 1 after it voted in term 2",
            "s0 votes for s1 and s2 in term 1",
        );
        assert_another(
            "read health of web of s1: index 7 was not yet there",
            "read health of web of s1: index 7 was gone: by 3 s it was 9",
        );
        assert_another(
            "the last contact is said to be 3ms ago; the client takes no more than 5 ms",
            "the last contact is said to be 3ms ago; nothing came from another server after 5 ms",
        );
        assert_another(
            "index out of bounds: the len is 3 but the index is 3 (core/src/raft/log.rs:17:5)",
            "index out of bounds: the len is 3 but the index is 3 (core/src/raft/log.rs:99:5)",
        );
    }

    #[test]
    fn a_violation_is_shown_by_its_own_run() {
        let schedule = generate(1);
        let mut report = crate::run::run(&schedule);
        let violation = |invariant, what: &str| Violation::new(invariant, crate::time::Time(0), what);
        let late = violation("ttl", "web-1 expired by entry 3");
        let kind = Kind::of(&late, &schedule, &report.history);
        report.violations = vec![
            violation("watches", "web-1 expired by entry 3"),
            violation("ttl", "web-1 is not critical"),
        ];
        assert_eq!(kind.shown_by(&report), None);
        report
            .violations
            .push(violation("ttl", "db-2 expired by entry 7"));
        assert_eq!(kind.shown_by(&report), report.violations.last());
    }
}
