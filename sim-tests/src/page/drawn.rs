//! What a page is given to draw. Times are nanoseconds since the start of the run; lanes are numbers.

use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Page {
    pub(super) title: String,
    pub(super) trace_hash: String,
    pub(super) ended: u64,
    pub(super) healed: u64,
    pub(super) violations: Vec<Violated>,
    pub(super) lanes: Vec<Lane>,
    pub(super) faults: Vec<Fault>,
    pub(super) runs: Vec<Run>,
    pub(super) ops: Vec<Op>,
    pub(super) marks: Vec<Mark>,
    pub(super) calls: Vec<Call>,
    pub(super) log: Vec<Entry>,
}

#[derive(Serialize)]
pub(super) struct Violated {
    pub(super) invariant: String,
    pub(super) at: u64,
    pub(super) what: String,
    pub(super) ops: Vec<u32>,
}

#[derive(Serialize)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) kind: LaneKind,
}

/// In the order from top to bottom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LaneKind {
    Server,
    Client,
    Agent,
    Other,
}

#[derive(Serialize)]
pub(super) struct Fault {
    pub(super) from: u64,
    pub(super) until: u64,
    /// Whom it is about; nobody in particular if empty.
    pub(super) lanes: Vec<usize>,
    pub(super) what: String,
}

/// A span of a server.
#[derive(Serialize)]
pub(super) struct Run {
    pub(super) lane: usize,
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) status: Status,
    pub(super) term: Option<u64>,
    pub(super) text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Leads,
    Down,
    Paused,
}

/// A request of a client.
#[derive(Serialize)]
pub(super) struct Op {
    pub(super) id: u32,
    pub(super) lane: usize,
    pub(super) to: usize,
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) doing: Doing,
    pub(super) what: String,
    pub(super) verdict: &'static str,
    pub(super) outcome: String,
    /// The log entry that it became.
    pub(super) entry: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Doing {
    Read,
    Wait,
    Write,
}

/// Something that happened on one machine at one moment.
#[derive(Serialize)]
pub(super) struct Mark {
    pub(super) lane: usize,
    pub(super) at: u64,
    pub(super) kind: Kind,
    /// A term or a log entry, as the kind has it.
    pub(super) number: Option<u64>,
    /// The registry's index after it.
    pub(super) index: Option<u64>,
    pub(super) text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Vote,
    Leader,
    Append,
    Truncate,
    Apply,
    Checkpoint,
    Snapshot,
    Process,
    Disk,
    Log,
}

/// A message.
#[derive(Serialize)]
pub(super) struct Call {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) sent: u64,
    /// When it arrived or was lost; `None` if the run ended before.
    pub(super) until: Option<u64>,
    pub(super) lost: Option<&'static str>,
    pub(super) kind: &'static str,
    pub(super) call: Option<u64>,
    pub(super) answer: bool,
    pub(super) text: String,
}

/// A committed entry.
#[derive(Serialize)]
pub(super) struct Entry {
    pub(super) entry: u64,
    pub(super) term: u64,
    pub(super) index: u64,
    pub(super) appended: u64,
    pub(super) applied: u64,
    pub(super) what: String,
    /// The operation that it comes from.
    pub(super) op: Option<u32>,
}
