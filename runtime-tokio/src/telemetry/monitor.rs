//! The log of this process as streams of lines, for whoever asks a running program for it.
//!
//! Nobody who reads holds anybody up: lines that find a reader's queue full are counted, and the reader is told so. While
//! nobody reads, what is below the program's own level costs what it cost before.

use std::{
    fmt::{self, Write as _},
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use futures_util::stream::Stream;
use serde_json::{Map, Value};
use sider_core::{limits::LOG_LINES_WAITING_MAX, server::LogLevel};
use tokio::sync::mpsc;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer,
    filter::LevelFilter,
    layer::{Context as LayerContext, Filter},
};

/// What begins the targets of this program's own log lines.
const OWN: &str = "sider";

static READERS: Mutex<Vec<Reader>> = Mutex::new(Vec::new());
/// The most that any reader wants: 0 is nothing, 5 is everything.
static MOST: AtomicU8 = AtomicU8::new(0);
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

struct Reader {
    id: u64,
    level: LogLevel,
    json: bool,
    lines: mpsc::Sender<Bytes>,
    missed: u64,
}

fn readers() -> MutexGuard<'static, Vec<Reader>> {
    READERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines of the log from now on.
#[derive(Debug)]
pub struct LogLines {
    id: u64,
    lines: mpsc::Receiver<Bytes>,
}

/// What this process logs from now on, at this level and above: a line in each piece. At most
/// [`LOG_LINES_WAITING_MAX`] wait for their reader.
pub fn log_lines(level: LogLevel, json: bool) -> LogLines {
    let (sender, lines) = mpsc::channel(LOG_LINES_WAITING_MAX);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    readers().push(Reader {
        id,
        level,
        json,
        lines: sender,
        missed: 0,
    });
    levels_changed();
    LogLines { id, lines }
}

/// Lets what is wanted now through, and what is not any more cost nothing.
fn levels_changed() {
    let most = readers().iter().map(|reader| rank(reader.level)).max();
    MOST.store(most.unwrap_or(0), Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

impl Stream for LogLines {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.lines.poll_recv(context)
    }
}

impl Drop for LogLines {
    fn drop(&mut self) {
        readers().retain(|reader| reader.id != self.id);
        levels_changed();
    }
}

fn rank(level: LogLevel) -> u8 {
    match level {
        LogLevel::Error => 1,
        LogLevel::Warn => 2,
        LogLevel::Info => 3,
        LogLevel::Debug => 4,
        LogLevel::Trace => 5,
    }
}

fn rank_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// Lets through what some reader wants.
pub(super) struct Wanted;

impl Wanted {
    fn wants(metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(OWN) && rank_of(*metadata.level()) <= MOST.load(Ordering::Relaxed)
    }
}

impl<S> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &LayerContext<'_, S>) -> bool {
        Wanted::wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        match Wanted::wants(metadata) {
            // Not `always`: then an event is not filtered anew, and goes by what `tracing::enabled!` left behind on its
            // thread when it was asked before there was a reader.
            true => Interest::sometimes(),
            false => Interest::never(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match MOST.load(Ordering::Relaxed) {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }
}

/// Gives each reader the lines that it wants.
pub(super) struct ToReaders;

impl<S: Subscriber> Layer<S> for ToReaders {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let rank = rank_of(*event.metadata().level());
        let mut entry: Option<Entry> = None;
        for reader in readers()
            .iter_mut()
            .filter(|reader| rank_of_reader(reader) >= rank)
        {
            let entry = entry.get_or_insert_with(|| Entry::of(event));
            reader.tell(entry);
        }
    }
}

fn rank_of_reader(reader: &Reader) -> u8 {
    rank(reader.level)
}

impl Reader {
    fn tell(&mut self, entry: &Entry) {
        if self.missed > 0 {
            let notice = Entry::notice(self.missed);
            if self.lines.try_send(notice.line(self.json)).is_err() {
                self.missed += 1;
                return;
            }
            self.missed = 0;
        }
        // A reader that has gone is taken away when its stream is dropped.
        if self.lines.try_send(entry.line(self.json)).is_err() {
            self.missed += 1;
        }
    }
}

/// One entry of the log.
struct Entry {
    level: Level,
    module: String,
    time: SystemTime,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Entry {
    fn of(event: &Event<'_>) -> Entry {
        let metadata = event.metadata();
        let mut entry = Entry {
            level: *metadata.level(),
            module: metadata.target().replace("::", "."),
            time: SystemTime::now(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut entry);
        entry
    }

    fn notice(missed: u64) -> Entry {
        Entry {
            level: Level::WARN,
            module: "monitor".to_owned(),
            time: SystemTime::now(),
            message: "this reader was too slow: lines are missing".to_owned(),
            fields: vec![("lines", missed.into())],
        }
    }

    /// As Consul's logs are written, with a line feed.
    fn line(&self, json: bool) -> Bytes {
        let time = humantime::format_rfc3339_millis(self.time).to_string();
        if json {
            let mut object = Map::new();
            object.insert(
                "@level".to_owned(),
                self.level.as_str().to_ascii_lowercase().into(),
            );
            object.insert("@message".to_owned(), self.message.clone().into());
            object.insert("@module".to_owned(), self.module.clone().into());
            object.insert("@timestamp".to_owned(), time.into());
            for (name, value) in &self.fields {
                object.insert((*name).to_owned(), value.clone());
            }
            return Bytes::from(format!("{}\n", Value::Object(object)));
        }
        let level = format!("[{}]", self.level);
        let mut line = format!("{time} {level:<7} {}: {}", self.module, self.message);
        for (position, (name, value)) in self.fields.iter().enumerate() {
            let before = if position == 0 { ": " } else { " " };
            let text = match value {
                Value::String(text) if text.is_empty() || text.contains(char::is_whitespace) => {
                    format!("{text:?}")
                }
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            // Writing into a text does not fail.
            let _ = write!(line, "{before}{name}={text}");
        }
        // One entry is one line, whatever it is about.
        let line: String = line
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        Bytes::from(line + "\n")
    }

    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// One test, because the readers are those of the process.
    #[tokio::test]
    async fn readers_get_the_lines_of_their_level_and_are_told_what_they_missed() {
        let subscriber = tracing_subscriber::registry().with(ToReaders.with_filter(Wanted));
        let _guard = tracing::subscriber::set_default(subscriber);
        let mut text = log_lines(LogLevel::Info, false);
        let mut json = log_lines(LogLevel::Debug, true);
        tracing::debug!(target: "sider::test", "only one of them wants this");
        tracing::info!(target: "sider::test", port = 8500, name = "a b", "a line\nwithout a break");
        tracing::error!(target: "other", "not this program's");
        let line = String::from_utf8(text.next().await.unwrap().to_vec()).unwrap();
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z'), "{line}");
        assert_eq!(
            rest,
            "[INFO]  sider.test: a line without a break: port=8500 name=\"a b\"\n"
        );
        for (level, message) in [
            ("debug", "only one of them wants this"),
            ("info", "a line\nwithout a break"),
        ] {
            let line: Value = serde_json::from_slice(&json.next().await.unwrap()).unwrap();
            assert_eq!(
                (line["@level"].as_str(), line["@message"].as_str()),
                (Some(level), Some(message))
            );
        }
        drop(json);
        for _ in 0..LOG_LINES_WAITING_MAX + 7 {
            tracing::info!(target: "sider::test", "much");
        }
        for _ in 0..LOG_LINES_WAITING_MAX {
            text.next().await.unwrap();
        }
        tracing::info!(target: "sider::test", "after");
        let line = String::from_utf8(text.next().await.unwrap().to_vec()).unwrap();
        assert!(
            line.contains("[WARN]") && line.ends_with("lines are missing: lines=7\n"),
            "{line}"
        );
        let line = String::from_utf8(text.next().await.unwrap().to_vec()).unwrap();
        assert!(line.ends_with("sider.test: after\n"), "{line}");
        drop(text);
        assert_eq!(MOST.load(Ordering::Relaxed), 0);
    }
}
