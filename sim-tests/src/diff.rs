//! Where two runs part, and what each did then, in plain words: a run that passes and one that fails, or two runs of one
//! schedule, which must not part at all.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    history::{Fact, History, Operation, ServerNumber},
    run::Report,
    time::Time,
    words,
};

/// So many common lines are shown before the first that differs, and so many of each run after it.
const CONTEXT: usize = 6;

/// A kept run (see [`crate::run::run_and_keep`]) and what to call it.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// Its name.
    pub name: &'a str,
    /// What came of it.
    pub report: &'a Report,
}

/// Whether both did the same, in the same order, at the same times.
pub fn same(one: &Report, other: &Report) -> bool {
    one.trace_hash == other.trace_hash && one.lines == other.lines
}

/// Where they part: in the trace, in what servers do, in the log, in what clients are told, in the verdict.
pub fn compare(one: Side<'_>, other: Side<'_>) -> String {
    let mut text = String::new();
    verdicts(&mut text, one, other);
    trace(&mut text, one, other);
    if !same(one.report, other.report) {
        servers(&mut text, one, other);
        log(&mut text, one, other);
        answers(&mut text, one, other);
    }
    text
}

macro_rules! say {
    ($text:expr, $($arg:tt)*) => {
        writeln!($text, $($arg)*).expect("writing to a String can't fail")
    };
}

fn verdicts(text: &mut String, one: Side<'_>, other: Side<'_>) {
    for side in [one, other] {
        let verdict = match side.report.violations.as_slice() {
            [] => "all invariants hold".to_owned(),
            violations => format!("VIOLATED: {}", words::list(violations)),
        };
        say!(text, "{}: {verdict}", side.name);
    }
}

fn trace(text: &mut String, one: Side<'_>, other: Side<'_>) {
    let (a, b) = (&one.report.lines, &other.report.lines);
    let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    if common == a.len() && common == b.len() {
        say!(text, "\nBoth traces are the same, all {common} lines.");
        return;
    }
    say!(
        text,
        "\nThe first {common} lines of both traces are the same. The last of them:"
    );
    for line in &a[common.saturating_sub(CONTEXT)..common] {
        say!(text, "    {}", words::traced(line, &one.report.hosts));
    }
    for side in [one, other] {
        let next = &side.report.lines[common..];
        say!(text, "  then {}:", side.name);
        for (place, line) in next.iter().take(CONTEXT).enumerate() {
            let mark = if place == 0 { '>' } else { ' ' };
            say!(text, "  {mark} {}", words::traced(line, &side.report.hosts));
        }
        match next.first() {
            Some(line) => {
                let at = Time(0) + line.at;
                say!(text, "    meanwhile: {}", meanwhile(&side.report.history, at));
            }
            None => say!(text, "  > nothing more: the run is over"),
        }
    }
}

/// Who led, what was wrong, and who waited for an answer at a moment.
fn meanwhile(history: &History, at: Time) -> String {
    let mut parts = vec![leader(history, at)];
    let faults = history.faults.iter();
    let faults: Vec<&str> = faults
        .filter(|it| it.from <= at && at < it.until)
        .map(|it| it.what.as_str())
        .collect();
    parts.push(match faults.as_slice() {
        [] => "nothing is wrong".into(),
        faults => format!("faults: {}", faults.join(", ")),
    });
    let waiting = history.operations.iter();
    let waiting: Vec<String> = waiting
        .filter(|it| it.invoked <= at && at < it.returned)
        .map(|it| format!("#{} of c{} at {} ({})", it.id, it.client, it.server, it.op))
        .collect();
    parts.push(match waiting.as_slice() {
        [] => "nobody waits for an answer".into(),
        waiting => format!("under way: {}", waiting.join(", ")),
    });
    parts.join("; ")
}

fn leader(history: &History, at: Time) -> String {
    let mut leading: BTreeMap<ServerNumber, u64> = BTreeMap::new();
    for seen in history.observations.iter().take_while(|seen| seen.at <= at) {
        match seen.what {
            Fact::BecameLeader { term } => {
                leading.insert(seen.server, term);
            }
            Fact::LostLeadership { .. } | Fact::Stopped { .. } => {
                leading.remove(&seen.server);
            }
            _ => {}
        }
    }
    match leading.len() {
        0 => "nobody leads".into(),
        _ => words::list(
            leading
                .iter()
                .map(|(server, term)| format!("{server} leads term {term}")),
        ),
    }
}

/// The first thing that a server did otherwise, whenever it did it.
fn servers(text: &mut String, one: Side<'_>, other: Side<'_>) {
    let (a, b) = (deeds(&one.report.history), deeds(&other.report.history));
    let none = Vec::new();
    let mut first: Option<(Time, String)> = None;
    for server in a.keys().chain(b.keys()) {
        let (a, b) = (a.get(server).unwrap_or(&none), b.get(server).unwrap_or(&none));
        let common = a.iter().zip(b).take_while(|(a, b)| a.1 == b.1).count();
        let told = |side: Side<'_>, deed: Option<&(Time, String)>| match deed {
            Some((at, what)) => format!("    {}: at {at}, {server} {what}", side.name),
            None => format!("    {}: {server} does nothing more", side.name),
        };
        let (next_a, next_b) = (a.get(common), b.get(common));
        let Some(at) = next_a.iter().chain(&next_b).map(|(at, _)| *at).min() else {
            continue;
        };
        if first.as_ref().is_none_or(|(earliest, _)| at < *earliest) {
            first = Some((at, format!("{}\n{}", told(one, next_a), told(other, next_b))));
        }
    }
    match first {
        Some((_, what)) => say!(text, "\nThe first thing that a server does differently:\n{what}"),
        None => say!(text, "\nEvery server does the same, if at other times."),
    }
}

fn deeds(history: &History) -> BTreeMap<ServerNumber, Vec<(Time, String)>> {
    let mut deeds: BTreeMap<ServerNumber, Vec<(Time, String)>> = BTreeMap::new();
    for seen in &history.observations {
        if let Some(what) = words::fact(&seen.what, true) {
            deeds.entry(seen.server).or_default().push((seen.at, what));
        }
    }
    deeds
}

fn log(text: &mut String, one: Side<'_>, other: Side<'_>) {
    let (a, b) = (entries(&one.report.history), entries(&other.report.history));
    let common = a.iter().zip(&b).take_while(|(a, b)| a.1 == b.1).count();
    if common == a.len() && common == b.len() {
        say!(text, "\nThe committed logs are the same.");
        return;
    }
    say!(text, "\nThe committed logs part after {common} entries:");
    for (side, entries) in [(one, &a), (other, &b)] {
        match entries.get(common) {
            Some((at, what)) => say!(text, "    {}: applied at {at}, {what}", side.name),
            None => say!(text, "    {}: nothing more", side.name),
        }
    }
}

fn entries(history: &History) -> Vec<(Time, String)> {
    let entry = |entry: &crate::truth::Entry| {
        let what = entry.command.as_ref();
        let what = what.map_or("blank or membership".into(), |(command, _)| {
            words::command(command)
        });
        (
            entry.applied,
            format!("entry {} of term {}: {what}", entry.log_index, entry.term),
        )
    };
    history.truth().entries.iter().map(entry).collect()
}

/// The first request that both send and that is answered differently. Requests are known by who sends what how often.
fn answers(text: &mut String, one: Side<'_>, other: Side<'_>) {
    let (a, b) = (requests(&one.report.history), requests(&other.report.history));
    let differ = a.iter().filter_map(|(key, first)| {
        let second = b.get(key)?;
        let (one, other) = (words::outcome(&first.outcome), words::outcome(&second.outcome));
        (one != other).then_some((first.returned.min(second.returned), *first, *second))
    });
    let Some((_, first, second)) = differ.min_by_key(|(at, first, _)| (*at, first.id)) else {
        say!(text, "\nEvery request that both send is answered the same.");
        return;
    };
    say!(
        text,
        "\nThe first request that is answered differently: {} of c{} to {}",
        first.op,
        first.client,
        first.server
    );
    for (side, it) in [(one, first), (other, second)] {
        say!(
            text,
            "    {}: #{}, at {} {}",
            side.name,
            it.id,
            it.returned,
            words::outcome(&it.outcome)
        );
    }
}

fn requests(history: &History) -> BTreeMap<(u32, ServerNumber, String, usize), &Operation> {
    let mut seen: BTreeMap<(u32, ServerNumber, String), usize> = BTreeMap::new();
    let keyed = history.operations.iter().map(|it| {
        let who = (it.client, it.server, it.op.to_string());
        let times = seen.entry(who.clone()).or_default();
        *times += 1;
        ((who.0, who.1, who.2, *times), it)
    });
    keyed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{generate::generate, run::run_and_keep, shrink::candidates::put_off_one_event};

    #[test]
    fn two_runs_of_one_schedule_are_the_same() {
        let schedule = generate(3);
        let (one, other) = (run_and_keep(&schedule, true), run_and_keep(&schedule, true));
        assert!(same(&one, &other));
        let side = |name, report| Side { name, report };
        let text = compare(side("once", &one), side("again", &other));
        assert!(text.contains("Both traces are the same"), "{text}");
    }

    #[test]
    fn a_schedule_with_one_fault_less_parts_where_the_fault_begins() {
        let schedule = (0..).map(generate).find(|it| it.faults.len() > 1);
        let schedule = schedule.expect("some seed has faults");
        let fault = schedule.faults.last().expect("it has faults");
        let less = &put_off_one_event(&schedule)[0];
        let (one, other) = (run_and_keep(&schedule, true), run_and_keep(less, true));
        let side = |name, report| Side { name, report };
        let text = compare(side("as it is", &one), side("with one less", &other));
        let what = fault.what.to_string();
        let after = text.split("  then as it is:").nth(1).expect("they part");
        let next = after.lines().nth(1).expect("with a line");
        assert!(next.contains("fault: ") && next.contains(&what), "{next}");
        assert!(text.contains("meanwhile: "), "{text}");
        assert!(!text.contains("{ "), "no structure is printed as such: {text}");
    }
}
