//! What happened: a running hash of it all, and a timeline for people if asked for.
//!
//! The hash covers the order, the virtual time, the host, the kind and the content of every event, so two runs with
//! the same hash did the same. The code under test adds its own `tracing` events: those whose target is of Sider.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::{self, Write},
    sync::OnceLock,
    time::Duration,
};

use bytes::Bytes;
use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{clock, world::HostId};

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceLine {
    /// Virtual time since the start of the run.
    pub at: Duration,
    /// The host it happened on; `None` for the body of the run.
    pub host: Option<HostId>,
    /// What kind of event.
    pub kind: &'static str,
    /// What happened.
    pub text: String,
}

/// A message on its way from one host to another: kept with a timeline, for pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender.
    pub from: HostId,
    /// Whom it is for.
    pub to: HostId,
    /// When it was sent: virtual time since the start of the run.
    pub sent: Duration,
    /// What became of it.
    pub fate: Fate,
    /// What part of a call it is.
    pub kind: MessageKind,
    /// What it is, for people.
    pub name: String,
    /// The call it belongs to, if it does: a request and its answer belong to the same one.
    pub call: Option<u64>,
    /// Between servers, what it says.
    pub frame: Option<Bytes>,
}

/// What part of a call a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// It asks for a connection, or accepts one.
    Handshake,
    /// The request.
    Request,
    /// The answer.
    Answer,
    /// The end of it: a refusal, a reset, a hang-up.
    End,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The run ended before it arrived.
    UnderWay,
    /// It arrived.
    Arrived(Duration),
    /// It was lost, and how.
    Lost(Duration, &'static str),
}

#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) lines: Option<Vec<TraceLine>>,
    /// By the order in which they were sent; only with lines.
    pub(crate) messages: BTreeMap<u64, Message>,
    /// The names of the hosts, by number; only with lines.
    pub(crate) hosts: Vec<String>,
}

impl Trace {
    fn add(&mut self, at_ns: u64, host: Option<HostId>, kind: &'static str, content: &[u8]) {
        let mut head = [0; 24];
        head[..8].copy_from_slice(&at_ns.to_le_bytes());
        head[8..16].copy_from_slice(&host.map_or(u64::MAX, |host| host.index() as u64).to_le_bytes());
        head[16..].copy_from_slice(&(content.len() as u64).to_le_bytes());
        let hash = xxh3_64_with_seed(&head, self.hash);
        let hash = xxh3_64_with_seed(kind.as_bytes(), hash);
        self.hash = xxh3_64_with_seed(content, hash);
        self.events += 1;
    }
}

/// Adds an event to the trace of the running simulation; without one, nothing happens.
pub fn record(kind: &'static str, text: &str) {
    record_with(kind, text.as_bytes(), || text.to_owned());
}

/// As [`record`], for frequent events: `content` is hashed, `text` is called only if a timeline is kept.
pub fn record_with(kind: &'static str, content: &[u8], text: impl FnOnce() -> String) {
    let Some(at_ns) = clock::try_virtual_ns() else {
        return;
    };
    let host = clock::current_host();
    TRACE.with(|trace| {
        // Text that is formatted while an event is added may itself want to add one; there is no order for that.
        let Ok(mut trace) = trace.try_borrow_mut() else {
            return;
        };
        let Some(trace) = trace.as_mut() else { return };
        trace.add(at_ns, host, kind, content);
        if let Some(lines) = &mut trace.lines {
            lines.push(TraceLine {
                at: Duration::from_nanos(at_ns),
                host,
                kind,
                text: text(),
            });
        }
    });
}

/// Hashes numbers as the content of an event.
pub(crate) fn record_numbers(kind: &'static str, numbers: &[u64], text: impl FnOnce() -> String) {
    let mut content = [0; 64];
    let content = &mut content[..8 * numbers.len()];
    for (bytes, number) in content.chunks_exact_mut(8).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    record_with(kind, content, text);
}

/// The next host has this name.
pub(crate) fn host_named(name: &str) {
    with_kept(|trace| trace.hosts.push(name.to_owned()));
}

/// A message is on its way; `order` tells it from all others.
pub(crate) fn message_sent(order: u64, message: impl FnOnce(Duration) -> Message) {
    let Some(at_ns) = clock::try_virtual_ns() else {
        return;
    };
    with_kept(|trace| {
        let message = message(Duration::from_nanos(at_ns));
        trace.messages.insert(order, message);
    });
}

/// What became of a message: it arrived, or was lost in this way.
pub(crate) fn message_ended(order: u64, lost: Option<&'static str>) {
    let Some(at_ns) = clock::try_virtual_ns() else {
        return;
    };
    let at = Duration::from_nanos(at_ns);
    with_kept(|trace| {
        if let Some(message) = trace.messages.get_mut(&order) {
            message.fate = lost.map_or(Fate::Arrived(at), |how| Fate::Lost(at, how));
        }
    });
}

/// Changes the trace, if it keeps a timeline.
fn with_kept(change: impl FnOnce(&mut Trace)) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace.as_mut().filter(|trace| trace.lines.is_some()) {
            change(trace);
        }
    });
}

/// Starts the trace of a run on this thread.
pub(crate) fn start(keep_lines: bool) {
    TRACE.with_borrow_mut(|trace| {
        *trace = Some(Trace {
            lines: keep_lines.then(Vec::new),
            ..Trace::default()
        });
    });
}

/// Ends the trace of the run on this thread. What is recorded afterwards is lost.
pub(crate) fn finish() -> Trace {
    TRACE.with_borrow_mut(Option::take).unwrap_or_default()
}

/// Where `tracing` goes to during a run. One for all runs: a new one each would rebuild every call site's cache.
pub(crate) fn dispatch() -> &'static Dispatch {
    static DISPATCH: OnceLock<Dispatch> = OnceLock::new();
    DISPATCH.get_or_init(|| Dispatch::new(IntoTrace))
}

/// Feeds Sider's own events into the trace; spans, and what libraries say, are left out.
struct IntoTrace;

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && metadata.target().starts_with("sider") && *metadata.level() <= LevelFilter::DEBUG
}

impl Subscriber for IntoTrace {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_ours(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_ours(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(format!(
            "{} {}:",
            event.metadata().level(),
            event.metadata().target()
        ));
        event.record(&mut text);
        record("log", &text.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        written.expect("writing to a String can't fail");
    }
}
