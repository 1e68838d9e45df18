//! The process of a server, as its API tells of it and commands it.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::{
    future::{BoxFuture, FutureExt as _},
    stream::{BoxStream, StreamExt as _},
};
use serde_json::Value;
use sider_core::server::{Host, LogLevel};
use sider_runtime_tokio::{host, telemetry};
use tokio::sync::Notify;

use super::reload::Reloader;
use crate::flags::host_name;

/// This process.
#[derive(Debug)]
pub(super) struct ServerHost {
    name: String,
    /// The folder whose disk is told of.
    data: PathBuf,
    reloader: Arc<Reloader>,
    /// Told when the process is to end.
    leave: Arc<Notify>,
}

impl ServerHost {
    pub(super) fn new(data: PathBuf, reloader: Arc<Reloader>, leave: Arc<Notify>) -> ServerHost {
        ServerHost {
            name: host_name(),
            data,
            reloader,
            leave,
        }
    }
}

impl Host for ServerHost {
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
        let reloader = self.reloader.clone();
        async move { reloader.reload().await }.boxed()
    }

    fn leave(&self) {
        self.leave.notify_one();
    }
}
