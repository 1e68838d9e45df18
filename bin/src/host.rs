//! The process of a server or an agent, as its API tells of it and commands it.

use std::{fmt, io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::{
    future::BoxFuture,
    stream::{BoxStream, StreamExt as _},
};
use serde_json::Value;
use sider_core::server::{Host, LogLevel};
use sider_runtime_tokio::{host, telemetry};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::flags::host_name;

/// Reads config files again.
pub(crate) trait Reload: fmt::Debug + Send + Sync + 'static {
    /// As [`Host::reload`].
    fn reload(self: Arc<Self>) -> BoxFuture<'static, Result<(), String>>;
}

/// Reads config files again at each SIGHUP.
///
/// # Errors
/// The signal can't be listened to.
pub(crate) fn on_hangup(files: Arc<dyn Reload>) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            if let Err(reason) = files.clone().reload().await {
                tracing::error!("SIGHUP: not reloaded: {reason}");
            }
        }
    })
}

/// This process.
#[derive(Debug)]
pub(crate) struct ProcessHost {
    name: String,
    /// The folder whose disk is told of.
    data: PathBuf,
    files: Arc<dyn Reload>,
    /// Told when the process is to end.
    leave: Arc<Notify>,
}

impl ProcessHost {
    pub(crate) fn new(data: PathBuf, files: Arc<dyn Reload>, leave: Arc<Notify>) -> ProcessHost {
        ProcessHost {
            name: host_name(),
            data,
            files,
            leave,
        }
    }
}

impl Host for ProcessHost {
    fn name(&self) -> &str {
        &self.name
    }

    fn timestamp(&self) -> String {
        host::timestamp()
    }

    fn describe(&self) -> Value {
        host::describe(&self.data)
    }

    fn gauges(&self) -> Vec<(&'static str, f64)> {
        #[expect(clippy::cast_precision_loss, reason = "a number for people to read")]
        let measured = host::memory_of_process().map(|(resident, space)| {
            vec![
                ("runtime.alloc_bytes", resident as f64),
                ("runtime.sys_bytes", space as f64),
            ]
        });
        measured.unwrap_or_default()
    }

    fn log_lines(&self, level: LogLevel, json: bool) -> BoxStream<'static, Bytes> {
        telemetry::log_lines(level, json).boxed()
    }

    fn reload(&self) -> BoxFuture<'static, Result<(), String>> {
        self.files.clone().reload()
    }

    fn leave(&self) {
        self.leave.notify_one();
    }
}
