//! Logs: text or JSON on standard error, and to whoever asks for them.

mod monitor;

use std::{cell::Cell, panic::PanicHookInfo};

use tracing_subscriber::{
    EnvFilter, Layer, filter::LevelFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

pub use self::monitor::{LogLines, log_lines};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

/// Libraries whose own messages are below what an operator wants to read: what matters of them comes back as errors.
const QUIET: &str = "fjall=off,lsm_tree=off,sfa=off,openraft=off,hyper=warn,hyper_util=warn";

/// Writes the logs of this process to standard error from now on, those about panics included.
///
/// `level` is a level (`error`, `warn`, `info`, `debug`, `trace`, `off`) or a list of directives for parts of the
/// program (`info,sider_core::raft=debug`).
///
/// # Errors
/// `level` can't be understood, or the logs of this process go elsewhere already.
pub fn init(level: &str, format: LogFormat) -> Result<(), String> {
    let filter = filter(level)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let lines = match format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let set = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(monitor::ToReaders.with_filter(monitor::Wanted))
        .try_init();
    set.map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    let expected = "expected error, warn, info, debug, trace, off, or directives like info,sider_core=debug";
    let directives = if level.contains(['=', ',']) {
        level.to_owned()
    } else if !level.is_empty() && level.parse::<LevelFilter>().is_ok() {
        format!("{level},{QUIET}")
    } else {
        return Err(format!("{level:?} is not a log level: {expected}"));
    };
    EnvFilter::try_new(directives)
        .map_err(|error| format!("{level:?} is not a log level ({error}): {expected}"))
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    if PANICS_ARE_SILENT.get() {
        return;
    }
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let text = panic.payload_as_str().unwrap_or("no message");
    let thread = std::thread::current();
    tracing::error!(%place, thread = thread.name().unwrap_or_default(), "panic: {text}");
}

thread_local! {
    static PANICS_ARE_SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `action`; a panic in it, on this thread, is not logged, because the caller catches and reports it.
pub(crate) fn without_panic_messages<T>(action: impl FnOnce() -> T) -> T {
    let before = PANICS_ARE_SILENT.replace(true);
    let result = action();
    PANICS_ARE_SILENT.set(before);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_understood() {
        for level in ["error", "warn", "info", "debug", "trace", "off", "INFO"] {
            filter(level).unwrap();
        }
        filter("info,sider_core::raft=debug").unwrap();
        for level in ["", "loud", "info,sider=loud", "sider=="] {
            let error = filter(level).unwrap_err();
            assert!(error.contains("is not a log level"), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
