//! What leans on clocks, against how wrong they are: checks that expire early or late, and answers that are stale.
//!
//! Sider has no lease reads: a linearizable read costs a round to a quorum, however right the clocks are. What does lean
//! on time are the deadlines of TTL checks, which the leader counts. So each run of the map has a leader whose clock is
//! too fast by some drift while all others are too slow by as much (or the other way round), that stands still for a
//! while and is deposed; checks that are renewed for some time and then no more; and linearizable reads of every server
//! all along. The judges count, with what `limits::CLOCK_DRIFT_PPM_MAX` promises as their measure everywhere: within it
//! they must find nothing, and beyond it the map shows what breaks first.

mod picture;

use std::{fmt::Write as _, time::Duration};

use sider_core::registry::{CheckStatus, Command};

pub use self::picture::picture;
use crate::{
    history::{History, Record},
    invariants::judge,
    operation::{Freshness, Op, RegisterForm, Report, ReportForm, Service, Target, TtlCheck},
    promised::CLOCK_DRIFT_PPM_MAX,
    run::run,
    schedule::{Action, Doing, Fault, Schedule, Shape, Trouble, Who},
    stage,
};

/// How much the leader's clock is too fast, and the others' too slow, in parts per million.
pub const DRIFTS_PPM: [i32; 15] = [
    -200_000, -100_000, -50_000, -20_000, -10_000, -5_000, -1_000, 0, 1_000, 5_000, 10_000, 20_000, 50_000,
    100_000, 200_000,
];
/// How long the leader stands still, in milliseconds.
pub const PAUSES_MS: [u64; 4] = [0, 300, 1_500, 4_000];

const TTLS_MS: [u64; 4] = [1_000, 3_000, 10_000, 20_000];
/// When clients begin, when the leader is paused, when the last renewal is sent, when the run ends.
const BEGIN_MS: u64 = 1_200;
const PAUSE_AT_MS: u64 = 4_000;
const RENEWED_UNTIL_MS: u64 = 11_000;
const END_MS: u64 = 39_000;

/// What the judges found in the runs of one drift and one pause.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// See [`DRIFTS_PPM`].
    pub drift_ppm: i32,
    /// See [`PAUSES_MS`].
    pub pause_ms: u64,
    /// How many runs.
    pub runs: usize,
    /// In how many a check expired early.
    pub early: usize,
    /// In how many a check expired late.
    pub late: usize,
    /// In how many an answer was stale, or a client saw time go back.
    pub stale: usize,
    /// In how many something else was wrong.
    pub other: usize,
    /// The shortest time from a renewal to an expiry, as a share of the TTL.
    pub shortest: Option<f64>,
    /// What was found first.
    pub example: Option<String>,
}

impl Cell {
    /// Whether the promises hold for a drift like this.
    pub fn is_promised(&self) -> bool {
        self.drift_ppm.unsigned_abs() <= CLOCK_DRIFT_PPM_MAX
    }

    /// Whether the judges found nothing.
    pub fn is_sound(&self) -> bool {
        (self.early, self.late, self.stale, self.other) == (0, 0, 0, 0)
    }

    fn add(&mut self, other: Cell) {
        self.runs += other.runs;
        self.early += other.early;
        self.late += other.late;
        self.stale += other.stale;
        self.other += other.other;
        self.shortest = [self.shortest, other.shortest]
            .into_iter()
            .flatten()
            .reduce(f64::min);
        self.example = self.example.take().or(other.example);
    }
}

/// The cells of all drifts and pauses, by pause and then drift; each of so many runs, so many at once.
pub fn lease_map(drifts_ppm: &[i32], pauses_ms: &[u64], runs: u64, jobs: usize) -> Vec<Cell> {
    let wanted: Vec<(u64, i32, u64)> = pauses_ms
        .iter()
        .flat_map(|pause| drifts_ppm.iter().map(|drift| (*pause, *drift)))
        .flat_map(|(pause, drift)| (0..runs).map(move |seed| (pause, drift, seed)))
        .collect();
    let share = wanted.len().div_ceil(jobs.max(1)).max(1);
    let measure_all = |wanted: &[(u64, i32, u64)]| -> Vec<Cell> {
        wanted
            .iter()
            .map(|(pause, drift, seed)| measure(*drift, *pause, *seed))
            .collect()
    };
    let measured: Vec<Cell> = std::thread::scope(|scope| {
        let parts: Vec<_> = wanted
            .chunks(share)
            .map(|part| scope.spawn(move || measure_all(part)))
            .collect();
        let done = parts
            .into_iter()
            .map(|part| part.join().expect("runs do not panic"));
        done.flatten().collect()
    });
    let mut cells: Vec<Cell> = Vec::new();
    for cell in measured {
        match cells.last_mut() {
            Some(last) if (last.drift_ppm, last.pause_ms) == (cell.drift_ppm, cell.pause_ms) => {
                last.add(cell)
            }
            _ => cells.push(cell),
        }
    }
    cells
}

fn measure(drift_ppm: i32, pause_ms: u64, seed: u64) -> Cell {
    let history = run(&schedule(drift_ppm, pause_ms, seed)).history;
    // Elsewhere a schedule whose clocks are worse than promised is judged by what they are; here, by what is promised.
    let mut record = Record::clone(&history);
    record.bounds.drift_ppm = CLOCK_DRIFT_PPM_MAX;
    let violations = judge(&History::new(record));
    let mut cell = Cell {
        drift_ppm,
        pause_ms,
        runs: 1,
        shortest: shortest_life(&history),
        example: violations.first().map(|it| format!("seed {seed}: {it}")),
        ..Cell::default()
    };
    for violation in &violations {
        match violation.invariant {
            "ttl" if violation.what.contains("expired") => cell.early = 1,
            "ttl" => cell.late = 1,
            "linearizability" | "monotonic_index" | "sessions" | "staleness" => cell.stale = 1,
            _ => cell.other = 1,
        }
    }
    cell
}

/// One run of the map.
pub fn schedule(drift_ppm: i32, pause_ms: u64, seed: u64) -> Schedule {
    let fault = |at_ms, for_ms, what| Fault {
        at_ms,
        for_ms,
        what,
        lasts: false,
    };
    let drift = |at_ms| {
        [
            fault(at_ms, 1, Trouble::Drift(Who::All, -drift_ppm)),
            fault(at_ms + 2, 1, Trouble::Drift(Who::Leader, drift_ppm)),
        ]
    };
    let mut faults: Vec<Fault> = drift(BEGIN_MS - 300).into();
    if pause_ms > 0 {
        faults.push(fault(PAUSE_AT_MS, pause_ms, Trouble::Pause(Who::Leader)));
        // Whoever leads then counts with the wrong clock.
        faults.extend(drift(PAUSE_AT_MS + pause_ms + 1_500));
    }
    Schedule {
        seed,
        cluster: Shape {
            drift_ppm: vec![-drift_ppm; 3],
            ..stage::three()
        },
        actions: actions(seed),
        faults,
        agent: None,
        other_agent: None,
        turns: Vec::new(),
        heal_ms: END_MS,
        end_ms: END_MS,
    }
}

fn actions(seed: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut act = |at_ms, client, server, op| {
        actions.push(Action {
            at_ms,
            client,
            patience_ms: 7_000,
            what: Doing::Chain(vec![(server, op)]),
        });
    };
    let server = |nth: u64| u8::try_from((nth + seed) % 3).unwrap_or(0);
    for (nth, ttl_ms) in TTLS_MS.into_iter().enumerate() {
        let id = format!("lease-{nth}");
        let ttl = TtlCheck {
            ttl_ms,
            status: None,
            deregister_after_ms: 0,
        };
        let began = BEGIN_MS + nth as u64;
        act(began, 0, server(nth as u64), register(&id, 1, vec![ttl]));
        let pause = ttl_ms * 7 / 10 + seed % 7;
        for at_ms in (began + 50..RENEWED_UNTIL_MS).step_by(usize::try_from(pause).unwrap_or(usize::MAX)) {
            act(at_ms, 0, server(at_ms), renew(&id));
        }
    }
    // Writes that a stale answer would lack, and reads that must not.
    for (nth, at_ms) in (BEGIN_MS + 100..RENEWED_UNTIL_MS).step_by(130).enumerate() {
        let version = u32::try_from(nth).unwrap_or(0) + 2;
        act(at_ms, 1, server(nth as u64), register("written", version, vec![]));
        act(
            at_ms + 60,
            2,
            server(nth as u64 + 1),
            stage::read_web(Freshness::Default),
        );
    }
    actions.sort_by_key(|action| action.at_ms);
    actions
}

fn register(id: &str, version: u32, checks: Vec<TtlCheck>) -> Op {
    Op::Register {
        form: RegisterForm::Short,
        services: vec![Service::web(id, version, checks)],
    }
}

fn renew(id: &str) -> Op {
    let report = Report {
        target: Target::Check(format!("chk:{id}:0")),
        status: CheckStatus::Passing,
        output: None,
    };
    Op::Report {
        form: ReportForm::Update,
        reports: vec![report],
    }
}

/// The shortest time from a renewal that was acknowledged to the expiry after it, as a share of the TTL.
fn shortest_life(history: &History) -> Option<f64> {
    let mut shortest: Option<f64> = None;
    for entry in &history.truth().entries {
        let Some((Command::ExpireChecks(expiries), effect)) = &entry.command else {
            continue;
        };
        for expiry in expiries.iter().filter(|_| effect.changed) {
            let renews = |it: &&crate::history::Operation| {
                matches!(&it.op, Op::Report { reports, .. }
                    if reports.iter().any(|it| it.target == Target::Check(expiry.check.id.to_string())))
            };
            let renewals = history.operations.iter().filter(renews);
            let last = renewals
                .filter(|it| it.is_done() && it.returned < entry.applied)
                .map(|it| it.invoked)
                .max();
            let nth = expiry
                .check
                .id
                .as_str()
                .trim_start_matches("chk:lease-")
                .trim_end_matches(":0");
            let ttl_ms = nth.parse().ok().and_then(|nth: usize| TTLS_MS.get(nth));
            if let (Some(last), Some(ttl_ms)) = (last, ttl_ms) {
                let share =
                    entry.applied.since(last).as_secs_f64() / Duration::from_millis(*ttl_ms).as_secs_f64();
                shortest = Some(shortest.map_or(share, |it| it.min(share)));
            }
        }
    }
    shortest
}

/// The map as a table in Markdown.
pub fn table(cells: &[Cell]) -> String {
    let mut pauses: Vec<u64> = cells.iter().map(|cell| cell.pause_ms).collect();
    pauses.dedup();
    let mut drifts: Vec<i32> = cells.iter().map(|cell| cell.drift_ppm).collect();
    drifts.sort_unstable();
    drifts.dedup();
    let mut text = String::from("| leader's drift | promised | shortest life |");
    for pause in &pauses {
        let heading = match pause {
            0 => "no pause".to_owned(),
            pause => format!("pause of {} s", *pause as f64 / 1_000.0),
        };
        write!(text, " {heading} |").expect("writing to a String can't fail");
    }
    text += "\n|---|---|---|";
    text += &"---|".repeat(pauses.len());
    for drift in drifts {
        let row: Vec<&Cell> = cells.iter().filter(|cell| cell.drift_ppm == drift).collect();
        let promised = if row.iter().any(|cell| cell.is_promised()) {
            "yes"
        } else {
            "no"
        };
        let shortest = row.iter().filter_map(|cell| cell.shortest).reduce(f64::min);
        let shortest = shortest.map_or("–".into(), |it| format!("{:.1} % of the TTL", it * 100.0));
        write!(text, "\n| {} | {promised} | {shortest} |", percent(drift))
            .expect("writing to a String can't fail");
        for cell in row {
            write!(text, " {} |", told(cell)).expect("writing to a String can't fail");
        }
    }
    text + "\n"
}

fn told(cell: &Cell) -> String {
    let found = [
        ("early", cell.early),
        ("late", cell.late),
        ("stale", cell.stale),
        ("other", cell.other),
    ];
    let found: Vec<String> = found
        .into_iter()
        .filter(|(_, times)| *times > 0)
        .map(|(what, times)| format!("{times} {what}"))
        .collect();
    if found.is_empty() {
        "sound".into()
    } else {
        format!("{} of {}", found.join(", "), cell.runs)
    }
}

fn percent(ppm: i32) -> String {
    match ppm {
        0 => "0".into(),
        ppm => format!("{:+} %", f64::from(ppm) / 10_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_within_the_promise_and_far_beyond_it_checks_expire_early_or_late() {
        let bound = i32::try_from(CLOCK_DRIFT_PPM_MAX).expect("it is small");
        let cells = lease_map(&[-200_000, -bound, bound, 200_000], &[0, 1_500], 1, 2);
        assert_eq!(cells.len(), 8);
        for cell in &cells {
            assert_eq!(cell.is_promised(), cell.is_sound(), "{cell:?}");
            assert_eq!(
                (cell.stale, cell.other),
                (0, 0),
                "reads do not lean on clocks: {cell:?}"
            );
            assert_eq!(cell.early > 0, cell.drift_ppm > bound, "{cell:?}");
            assert_eq!(cell.late > 0, cell.drift_ppm < -bound, "{cell:?}");
        }
        let table = table(&cells);
        assert!(
            table.contains("| +0.1 % | yes |") && table.contains("| -20 % | no |"),
            "{table}"
        );
        let picture = picture(&cells);
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    }
}
