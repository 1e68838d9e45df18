//! What is kept of a run, and how it is judged: at once, or again later from its folder.
//!
//! Clients' requests and answers are kept as they were. What the servers did is read from their logs after they have
//! stopped, and judged by what [`super::moments`] finds out about when it was. No time counts as calm, so nothing has to
//! happen by any time; what is told of the inside of a server while it runs, is not judged here.

use std::{fs, path::Path};

use bytes::Bytes;
use http::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sider_core::runtime::NetworkError;

use super::{
    log::{self, Replayed},
    moments::{self, Clock},
};
use crate::{
    history::{
        Bounds, Fact, FaultKind, FaultSpan, History, Observed, Operation, Outcome, Record, ServerNumber,
    },
    invariants::{
        Check, Violation, availability, backups, clients_view, digest, durability, exactly_once,
        linearizability, locks, log_matching, monotonic_index, no_panic, reaping, session_ttl, sessions,
        staleness, state_machine, transactions, ttl, watch_guarantees,
    },
    operation::Op,
    time::Time,
    wire,
};

/// The judges that need no more than what is known here.
pub(super) const JUDGES: [Check; 19] = [
    no_panic,
    availability::check,
    log_matching::check,
    digest::check,
    state_machine::check,
    exactly_once::check,
    durability::check,
    linearizability::check,
    transactions::check,
    clients_view::check,
    sessions::check,
    monotonic_index::check,
    staleness::check,
    backups::check,
    watch_guarantees::check,
    ttl::check,
    session_ttl::check,
    reaping::check,
    locks::check,
];
const FILE: &str = "evidence.json";

/// What came back to a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Raw {
    /// An answer.
    Answer {
        status: u16,
        /// Headers whose names begin with `x-`, in small letters.
        headers: Vec<(String, String)>,
        #[serde(with = "hex")]
        body: Vec<u8>,
    },
    /// It was certainly not sent.
    Unreachable(String),
    /// It may have been carried out.
    Unknown(String),
}

impl Raw {
    /// `X-Index`, where there is one.
    pub(super) fn index(&self) -> Option<u64> {
        let Raw::Answer { headers, .. } = self else {
            return None;
        };
        let (_, index) = headers.iter().find(|(name, _)| name == "x-index")?;
        index.parse().ok()
    }
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
    /// The wall clock, which is that of the servers too, by the clients' clock.
    pub(super) clock: Clock,
    pub(super) ended_ns: u64,
    /// What each server said of itself in the end.
    pub(super) stats: Vec<Value>,
    pub(super) operations: Vec<Line>,
    pub(super) faults: Vec<String>,
    /// When processes of servers were started, in nanoseconds.
    pub(super) starts: Vec<(u8, u64)>,
    /// Servers that ended though nothing was done to them, with what they wrote last.
    pub(super) ended: Vec<(u8, String)>,
    /// What servers wrote of panics.
    pub(super) panics: Vec<String>,
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
    let operations = evidence.operations.iter().map(operation).collect();
    let history = history(&evidence, operations)?;
    let entries = history.truth().entries.len();
    Ok((
        JUDGES.iter().filter_map(|judge| judge(&history).err()).collect(),
        entries,
    ))
}

/// The facts of a run, with what its clients did.
///
/// # Errors
/// A log can't be read, or a server did not say what it has applied.
pub(super) fn history(evidence: &Evidence, operations: Vec<Operation>) -> Result<History, String> {
    // Far enough behind all that happened for nobody to be excused by the end of the run.
    let ended = Time(evidence.ended_ns) + Bounds::default().recovery * 2;
    let mut record = Record {
        bounds: Bounds {
            first_voters: vec![ServerNumber(0), ServerNumber(1), ServerNumber(2)],
            ..Bounds::default()
        },
        operations,
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
        panics: evidence.panics.iter().map(|what| (ended, what.clone())).collect(),
        ..Record::default()
    };
    let mut logs = Vec::new();
    for (log, stats) in evidence.logs.iter().zip(&evidence.stats) {
        let applied = stats["applied_index"]
            .as_u64()
            .ok_or("a server did not say what it has applied")?;
        logs.push(log::replay(log, applied)?);
    }
    let longest = logs
        .iter()
        .max_by_key(|log| log.len())
        .ok_or("there are no logs")?;
    let moments = moments::of(longest, &record, evidence.clock);
    record.earliest = moments
        .iter()
        .map(|(log_index, it)| (*log_index, it.earliest))
        .collect();
    for (server, log) in (0..).map(ServerNumber).zip(&logs) {
        let mut see = |at, what| record.observations.push(Observed { at, server, what });
        see(Time(0), Fact::Started);
        for (term, at) in moments::elections(log, &moments) {
            see(at, Fact::BecameLeader { term });
        }
        for Replayed { entry, proposed_ms } in log {
            let latest = moments.get(&entry.log_index).map_or(ended, |it| it.latest);
            if let Some(proposed_ms) = proposed_ms {
                let (_, proposed) = evidence.clock.span_of_ms(*proposed_ms);
                let (index, term, hash) = (entry.log_index, entry.term, entry.hash);
                see(proposed.min(latest), Fact::Appended { index, term, hash });
            }
            see(latest, Fact::Applied(Box::new(entry.clone())));
        }
    }
    // What servers said of their states themselves, behind what follows from their logs: the two must agree.
    for (server, (log, (text, stats))) in
        (0..).zip(logs.iter().zip(evidence.logs.iter().zip(&evidence.stats)))
    {
        for (log_index, index, digest) in log::claimed_states(text, stats, log)? {
            let what = Fact::SnapshotInstalled {
                log_index,
                index,
                digest,
            };
            record.observations.push(Observed {
                at: ended,
                server: ServerNumber(server),
                what,
            });
        }
    }
    for (server, at) in &evidence.starts {
        record.observations.push(Observed {
            at: Time(*at),
            server: ServerNumber(*server),
            what: Fact::Started,
        });
    }
    for (server, reason) in &evidence.ended {
        let what = Fact::Stopped {
            by_itself: Some(reason.clone()),
        };
        record.observations.push(Observed {
            at: ended,
            server: ServerNumber(*server),
            what,
        });
    }
    record.observations.sort_by_key(|seen| match &seen.what {
        Fact::Started => (seen.at, 0, 0),
        Fact::BecameLeader { term } => (seen.at, 1, *term),
        Fact::Appended { index, .. } => (seen.at, 2, *index),
        Fact::Applied(entry) => (seen.at, 3, entry.log_index),
        Fact::SnapshotInstalled { log_index, .. } => (seen.at, 4, *log_index),
        _ => (seen.at, 5, 0),
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
        outcome: outcome(&line.op, &line.raw),
        heard: None,
    }
}

/// What a client makes of what came back.
pub(super) fn outcome(op: &Op, raw: &Raw) -> Outcome {
    let answer = match raw.clone() {
        Raw::Answer {
            status,
            headers,
            body,
        } => {
            let mut answer = Response::new(Bytes::from(body));
            *answer.status_mut() = ::http::StatusCode::from_u16(status).unwrap_or_default();
            for (name, value) in headers {
                let name = ::http::HeaderName::from_bytes(name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, ::http::HeaderValue::from_str(&value)) {
                    answer.headers_mut().insert(name, value);
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

/// Bytes as text.
pub(super) mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        bytes(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }

    pub(in super::super) fn bytes(text: &str) -> Result<Vec<u8>, String> {
        let byte = |at: usize| {
            let two = text.get(at..at + 2).ok_or("half a byte")?;
            u8::from_str_radix(two, 16).map_err(|error| error.to_string())
        };
        (0..text.len()).step_by(2).map(byte).collect()
    }
}
