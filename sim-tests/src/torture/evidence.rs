//! What is kept of a run, and how it is judged: at once, or again later from its folder.
//!
//! Clients' requests and answers are kept as they were. What the servers did is read from their logs after they have
//! stopped. When an entry was proposed, it says itself (since version 2); when it was applied is not known, but no later
//! than the first answer that shows it. So every entry is taken to be applied at the latest moment that the answers allow:
//! that makes no sound run look broken. What a server had at a moment, and how soon it did something, is not judged here;
//! nor are transactions that only read, for their answers bear no index.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use bytes::Bytes;
use http::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sider_core::{
    registry::{CheckStatus, CheckTarget, CheckUpdate, Command, InstanceId, Registry},
    runtime::NetworkError,
};

use crate::{
    history::{
        AppliedEntry, Bounds, Effect, Fact, FaultKind, FaultSpan, History, Observed, Operation, Outcome,
        Record, ServerNumber,
    },
    invariants::{
        Check, Violation, backups, clients_view, digest, durability, exactly_once, linearizability, locks,
        log_matching, monotonic_index, sessions, state_machine, ttl, watch_guarantees,
    },
    matching::asks_for,
    operation::{Op, Report, Target},
    time::Time,
    wire,
};

/// The judges that need no moment inside a server. That of TTLs judges here what expires too early: nothing is taken for
/// calm, so nothing has to expire by any time.
const JUDGES: [Check; 14] = [
    log_matching::check,
    digest::check,
    state_machine::check,
    exactly_once::check,
    durability::check,
    linearizability::check,
    clients_view::check,
    sessions::check,
    monotonic_index::check,
    backups::check,
    watch_guarantees::check,
    ttl::check,
    locks::check,
    no_server_ended,
];
const FILE: &str = "evidence.json";

/// What came back to a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Raw {
    /// An answer.
    Answer {
        status: u16,
        /// `X-Index`.
        index: Option<u64>,
        #[serde(with = "hex")]
        body: Vec<u8>,
    },
    /// It was certainly not sent.
    Unreachable(String),
    /// It may have been carried out.
    Unknown(String),
}

/// One request of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) id: u32,
    pub(super) client: u8,
    pub(super) server: u8,
    pub(super) op: Op,
    pub(super) invoked_ns: u64,
    pub(super) returned_ns: u64,
    pub(super) raw: Raw,
}

/// See the module's page.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Evidence {
    /// The wall clock when clients began: that of the servers too.
    pub(super) began_ms: u64,
    pub(super) ended_ns: u64,
    /// What each server said of itself in the end.
    pub(super) stats: Vec<Value>,
    pub(super) operations: Vec<Line>,
    pub(super) faults: Vec<String>,
    /// Servers that ended though nothing was done to them, with what they wrote last.
    pub(super) ended: Vec<(u8, String)>,
    /// What `sds debug log` printed of each server.
    pub(super) logs: Vec<String>,
}

impl Evidence {
    pub(super) fn save(&self, folder: &Path) -> Result<(), String> {
        let text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        fs::write(folder.join(FILE), text).map_err(|error| error.to_string())
    }
}

/// Judges what was kept of a run; gives what should not have been, and how many entries there were.
///
/// # Errors
/// The evidence can't be read.
pub fn judge(folder: &Path) -> Result<(Vec<Violation>, usize), String> {
    let path = folder.join(FILE);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let evidence: Evidence =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let history = history(&evidence)?;
    let entries = history.truth().entries.len();
    Ok((
        JUDGES.iter().filter_map(|judge| judge(&history).err()).collect(),
        entries,
    ))
}

/// A server ends only when it is told to, or for want of its disk.
fn no_server_ended(history: &History) -> Result<(), Violation> {
    let ended = history.observations.iter().find_map(|seen| match &seen.what {
        Fact::Stopped {
            by_itself: Some(reason),
        } => Some((seen, reason)),
        _ => None,
    });
    match ended {
        None => Ok(()),
        Some((seen, reason)) => {
            let what = format!("{} stopped by itself: {reason}", seen.server);
            Err(Violation::new("availability", seen.at, what))
        }
    }
}

/// An entry as a server's log has it, with what it makes of the state.
struct Replayed {
    entry: AppliedEntry,
    proposed: Option<Time>,
    /// Statuses that it sets: of which checks, whose they are, and which.
    statuses: Vec<(CheckTarget, Option<InstanceId>, CheckStatus)>,
}

fn history(evidence: &Evidence) -> Result<History, String> {
    let ended = Time(evidence.ended_ns) + Bounds::default().recovery * 2;
    let mut record = Record {
        bounds: Bounds {
            first_voters: vec![ServerNumber(0), ServerNumber(1), ServerNumber(2)],
            ..Bounds::default()
        },
        operations: evidence.operations.iter().map(operation).collect(),
        healed: Time(evidence.ended_ns),
        ended,
        faults: vec![FaultSpan {
            from: Time(0),
            // To the very end, so that no time counts as calm.
            until: ended,
            servers: vec![],
            what: evidence.faults.join("; "),
            kind: FaultKind::BrokenDisk,
        }],
        ..Record::default()
    };
    let mut logs = Vec::new();
    let mut claims = Vec::new();
    for (log, stats) in evidence.logs.iter().zip(&evidence.stats) {
        let applied = stats["applied_index"]
            .as_u64()
            .ok_or("a server did not say what it has applied")?;
        let replayed = replay(log, applied, evidence.began_ms)?;
        claims.push(claimed_states(log, stats, &replayed)?);
        logs.push(replayed);
    }
    let longest = logs
        .iter()
        .max_by_key(|log| log.len())
        .ok_or("there are no logs")?;
    let known_by = latest_moments(longest, &record);
    for (server, log) in (0..).map(ServerNumber).zip(&logs) {
        record.observations.push(Observed {
            at: Time(0),
            server,
            what: Fact::Started,
        });
        // When anyone was elected is not known: early enough, for what is judged here.
        let terms: BTreeSet<u64> = log.iter().map(|replayed| replayed.entry.term).collect();
        for term in terms {
            record.observations.push(Observed {
                at: Time(0),
                server,
                what: Fact::BecameLeader { term },
            });
        }
        for replayed in log {
            let log_index = replayed.entry.log_index;
            let at = known_by.get(&log_index).copied().unwrap_or(record.ended);
            if let Some(proposed) = replayed.proposed {
                record.observations.push(Observed {
                    at: proposed.min(at),
                    server,
                    what: Fact::Appended {
                        index: log_index,
                        term: replayed.entry.term,
                        hash: replayed.entry.hash,
                    },
                });
            }
            record.observations.push(Observed {
                at,
                server,
                what: Fact::Applied(Box::new(replayed.entry.clone())),
            });
        }
    }
    // What servers said of their states themselves, behind what follows from their logs: the two must agree.
    for (server, states) in (0..).map(ServerNumber).zip(claims) {
        for (log_index, index, digest) in states {
            record.observations.push(Observed {
                at: record.ended,
                server,
                what: Fact::SnapshotInstalled {
                    log_index,
                    index,
                    digest,
                },
            });
        }
    }
    for (server, reason) in &evidence.ended {
        record.observations.push(Observed {
            at: record.ended,
            server: ServerNumber(*server),
            what: Fact::Stopped {
                by_itself: Some(reason.clone()),
            },
        });
    }
    record.observations.sort_by_key(|seen| match &seen.what {
        Fact::Applied(entry) => (seen.at, 1, entry.log_index),
        Fact::Appended { index, .. } => (seen.at, 0, *index),
        Fact::Started => (seen.at, 0, 0),
        Fact::SnapshotInstalled { log_index, .. } => (seen.at, 2, *log_index),
        _ => (seen.at, 3, 0),
    });
    Ok(History::new(record))
}

fn operation(line: &Line) -> Operation {
    Operation {
        streamed: None,
        id: line.id,
        client: u32::from(line.client),
        server: ServerNumber(line.server),
        op: line.op.clone(),
        impatient: true,
        invoked: Time(line.invoked_ns),
        returned: Time(line.returned_ns),
        outcome: match outcome(&line.op, &line.raw) {
            // It shows no index, so by when what it says was true is not known.
            Outcome::Refused { reason, .. } if !line.op.is_logged() => Outcome::Unknown(reason),
            outcome => outcome,
        },
        heard: Default::default(),
    }
}

/// What a client makes of what came back.
pub(super) fn outcome(op: &Op, raw: &Raw) -> Outcome {
    let answer = match raw.clone() {
        Raw::Answer { status, index, body } => {
            let mut answer = Response::new(Bytes::from(body));
            *answer.status_mut() = ::http::StatusCode::from_u16(status).unwrap_or_default();
            for name in ["x-index", "x-consul-index"] {
                if let Some(index) = index {
                    answer.headers_mut().insert(name, index.into());
                }
            }
            Ok(answer)
        }
        Raw::Unreachable(reason) => Err(NetworkError::Unreachable {
            address: String::new(),
            reason,
        }),
        Raw::Unknown(reason) => Err(NetworkError::OutcomeUnknown {
            address: String::new(),
            reason,
        }),
    };
    wire::outcome(op, answer)
}

/// Carries a server's log out once more, up to what it had applied.
fn replay(log: &str, applied: u64, began_ms: u64) -> Result<Vec<Replayed>, String> {
    let mut registry = Registry::default();
    let mut replayed = Vec::new();
    for line in log.lines().skip(1) {
        let line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let number = |name: &str| line[name].as_u64().unwrap_or_default();
        let log_index = number("index");
        if log_index > applied {
            break;
        }
        if replayed.is_empty() && log_index > 1 {
            return Err(format!("a log begins with entry {log_index}: it can't be judged"));
        }
        let hash = line["hash"]
            .as_str()
            .and_then(|hash| u64::from_str_radix(hash, 16).ok());
        let logged = match line["bytes"].as_str() {
            None => None,
            Some(bytes) => {
                let bytes = hex::bytes(bytes)?;
                let logged = Command::decode(&bytes, Command::NEWEST_VERSION);
                Some(logged.map_err(|error| format!("entry {log_index}: {error}"))?)
            }
        };
        // To the end of the millisecond: what was asked for in it came before.
        let proposed = logged.as_ref().and_then(|logged| logged.proposed_ms);
        let proposed = proposed.map(|ms| Time::ms((ms + 1).saturating_sub(began_ms)));
        let statuses = logged
            .iter()
            .flat_map(|it| statuses(&registry, &it.command))
            .collect();
        let command = logged.map(|logged| {
            let applied = registry.apply(&logged.command);
            let effect = Effect {
                reply: applied.reply,
                changed: applied.changed,
                topics: applied.topics,
            };
            (logged.command, effect)
        });
        replayed.push(Replayed {
            entry: AppliedEntry {
                log_index,
                term: number("term"),
                hash: hash.unwrap_or_default(),
                command,
                index: registry.index(),
                digest: registry.digest(),
            },
            proposed,
            statuses,
        });
    }
    Ok(replayed)
}

fn statuses(registry: &Registry, command: &Command) -> Vec<(CheckTarget, Option<InstanceId>, CheckStatus)> {
    let Command::UpdateChecks(updates) = command else {
        return Vec::new();
    };
    let status = |update: &CheckUpdate| {
        let owner = match &update.target {
            CheckTarget::Check(key) => registry.check(key).and_then(|check| check.instance.clone()),
            CheckTarget::TtlChecksOf(key) => Some(key.id.clone()),
        };
        Some((update.target.clone(), owner, update.status?))
    };
    updates.iter().filter_map(status).collect()
}

/// The states that a server names itself: its checkpoint's, and its last.
fn claimed_states(log: &str, stats: &Value, replayed: &[Replayed]) -> Result<Vec<(u64, u64, u128)>, String> {
    let summary: Value = serde_json::from_str(log.lines().next().unwrap_or_default())
        .map_err(|error| format!("a log without a summary: {error}"))?;
    let checkpoint = &summary["checkpoint"];
    let digest = |text: &Value| text.as_str().and_then(|text| u128::from_str_radix(text, 16).ok());
    let mut states = Vec::new();
    if let (Some(log_index), Some(index), Some(digest)) = (
        checkpoint["log_index"].as_u64(),
        checkpoint["index"].as_u64(),
        digest(&checkpoint["digest"]),
    ) {
        states.push((log_index, index, digest));
    }
    // What it says of itself while it runs names no index of the registry: there the digest alone is compared.
    if let (Some(log_index), Some(digest)) = (stats["digest_index"].as_u64(), digest(&stats["digest"]))
        && let Some(at) = replayed.iter().find(|it| it.entry.log_index == log_index)
    {
        states.push((log_index, at.entry.index, digest));
    }
    Ok(states)
}

/// By when each entry had certainly been applied somewhere: the first answer that shows it, or one behind it.
fn latest_moments(log: &[Replayed], record: &Record) -> BTreeMap<u64, Time> {
    let mut bounds: Vec<Time> = vec![record.ended; log.len()];
    let mut note = |at: usize, operation: &Operation| bounds[at] = bounds[at].min(operation.returned);
    let mut taken = vec![false; log.len()];
    let mut given: BTreeSet<(usize, usize)> = BTreeSet::new();
    for operation in &record.operations {
        let Some(index) = operation.answer().and_then(|answer| answer.index) else {
            continue;
        };
        let first = log.partition_point(|replayed| replayed.entry.index < index);
        if first < log.len() {
            note(first, operation);
        }
        // A write that changed nothing shows no index of its own.
        let window = (operation.invoked, operation.returned);
        let mut own = (first..log.len())
            .take_while(|at| log[*at].entry.index == index)
            .filter(|at| {
                let proposed = log[*at].proposed;
                proposed.is_some_and(|at| window.0 <= at && at <= window.1 + INEXACT)
            });
        if let Op::Report { reports, .. } = &operation.op {
            let places: Vec<(usize, usize)> = own
                .flat_map(|at| (0..log[at].statuses.len()).map(move |nth| (at, nth)))
                .collect();
            for report in reports {
                let place = places
                    .iter()
                    .find(|place| !given.contains(place) && is_of(report, &log[place.0].statuses[place.1]));
                if let Some(place) = place {
                    given.insert(*place);
                    note(place.0, operation);
                }
            }
            continue;
        }
        let own = own.find(|at| {
            let command = log[*at].entry.command.as_ref();
            !taken[*at] && command.is_some_and(|(command, _)| asks_for(&operation.op, command))
        });
        if let Some(at) = own {
            taken[at] = true;
            note(at, operation);
        }
    }
    let mut latest = record.ended;
    let mut moments = BTreeMap::new();
    for (replayed, bound) in log.iter().zip(bounds).rev() {
        latest = latest.min(bound);
        moments.insert(replayed.entry.log_index, latest);
    }
    moments
}

/// Whether a report asks for this status.
fn is_of(report: &Report, (target, owner, status): &(CheckTarget, Option<InstanceId>, CheckStatus)) -> bool {
    report.status == *status
        && match (&report.target, target) {
            (Target::Check(id), CheckTarget::Check(key)) => key.id.as_str() == id,
            (Target::Check(_), CheckTarget::TtlChecksOf(_)) => false,
            (Target::Instance(id), _) => owner.as_ref().is_some_and(|owner| owner.as_str() == id),
        }
}

/// How inexactly an entry tells when it was proposed: in milliseconds of another clock than that of the clients.
const INEXACT: std::time::Duration = std::time::Duration::from_millis(4);

/// Bytes as text.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        bytes(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }

    pub(super) fn bytes(text: &str) -> Result<Vec<u8>, String> {
        let byte = |at: usize| {
            let two = text.get(at..at + 2).ok_or("half a byte")?;
            u8::from_str_radix(two, 16).map_err(|error| error.to_string())
        };
        (0..text.len()).step_by(2).map(byte).collect()
    }
}
