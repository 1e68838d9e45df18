//! What the process around a server or an agent can tell and do, which the core can't see: its host, its memory, its log, its config
//! files, its end.

use std::fmt;

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use serde_json::Value;

/// The process around a server or an agent. Where there is none (in the simulator, say), what needs it is refused.
pub trait Host: fmt::Debug + Send + Sync + 'static {
    /// The host's name: the second part of the names of gauges, as Consul has it.
    fn name(&self) -> &str;

    /// The time, as Consul's metrics write it: `2026-01-31 12:00:00 +0000 UTC`.
    fn timestamp(&self) -> String;

    /// Memory, processors, disk and operating system as they are now, in the form of `/v1/agent/host`.
    fn describe(&self) -> Value;

    /// What is measured of the process as it is now: names such as `runtime.alloc_bytes`, with their values.
    fn gauges(&self) -> Vec<(&'static str, f64)>;

    /// What this process logs from now on, as long as the stream is kept: a line in each piece, in JSON or as text. A
    /// reader that falls behind is told how many lines it missed.
    fn log_lines(&self, level: LogLevel, json: bool) -> BoxStream<'static, Bytes>;

    /// Reads the config files again, and registers what they say now of services and checks.
    ///
    /// # Errors
    /// One line that says which file, or what in it, can't be used; then nothing has changed.
    fn reload(&self) -> BoxFuture<'static, Result<(), String>>;

    /// Ends the process as a signal would, without breaking off what is under way.
    fn leave(&self);
}

/// How much of a log is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Errors alone.
    Error,
    /// Warnings too.
    Warn,
    /// What an operator wants to read.
    Info,
    /// Each request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// By Consul's word for it, in whatever case.
    pub fn parse(word: &str) -> Option<LogLevel> {
        match word.to_ascii_lowercase().as_str() {
            "err" | "error" => Some(LogLevel::Error),
            "warn" => Some(LogLevel::Warn),
            "info" => Some(LogLevel::Info),
            "debug" => Some(LogLevel::Debug),
            "trace" => Some(LogLevel::Trace),
            _ => None,
        }
    }
}
