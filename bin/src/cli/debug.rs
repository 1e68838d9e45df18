//! `sds debug log`: a stopped server's log, as JSON lines.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sider_core::{
    raft::{ServerId, StoreSummary, StoredContent, StoredEntry, dump},
    registry::Command,
};
use sider_runtime_tokio::disk::FjallDisk;

use super::CliError;

/// Flags of `sds debug`.
#[derive(Debug, Args)]
pub(super) struct DebugArgs {
    #[command(subcommand)]
    command: DebugCommand,
}

#[derive(Debug, Subcommand)]
enum DebugCommand {
    /// Print what a stopped server's data directory holds, one JSON object a line: first a summary (vote, marks,
    /// checkpoint), then every entry of its log.
    Log {
        /// The server's data directory; no server may be using it.
        data_dir: PathBuf,
    },
}

pub(super) async fn run(args: &DebugArgs) -> Result<(), CliError> {
    let DebugCommand::Log { data_dir } = &args.command;
    let other = |error: &dyn std::fmt::Display| CliError::Other(error.to_string());
    if !data_dir.join("store").is_dir() {
        // To open one that is not there would create it.
        return Err(CliError::Other(format!(
            "{}: no data directory of a server",
            data_dir.display()
        )));
    }
    let disk = FjallDisk::open(data_dir).await.map_err(|error| other(&error))?;
    let mut out = io::BufWriter::new(io::stdout());
    let dumped = dump(
        &disk,
        |summary| writeln!(io::stdout(), "{}", summary_line(&summary)),
        |entry| writeln!(out, "{}", entry_line(&entry)),
    )
    .await;
    disk.close().await;
    dumped.map_err(|error| other(&error))?;
    out.flush().map_err(|error| other(&error))
}

fn summary_line(summary: &StoreSummary) -> Value {
    let checkpoint = summary.checkpoint.map(|(log_index, index, digest)| {
        json!({ "log_index": log_index, "index": index, "digest": format!("{digest:032x}") })
    });
    json!({
        "server": summary.server.as_ref().map(|id| &id.0),
        "term": summary.vote.as_ref().map(|(term, _)| term),
        "voted_for": summary.vote.as_ref().map(|(_, id)| &id.0),
        "committed": summary.committed,
        "purged": summary.purged,
        "checkpoint": checkpoint,
    })
}

fn entry_line(entry: &StoredEntry) -> Value {
    let names = |ids: &[ServerId]| -> Vec<String> { ids.iter().map(ToString::to_string).collect() };
    let content = match &entry.content {
        StoredContent::Blank => json!({ "blank": true }),
        StoredContent::Membership(voters, learners) => {
            json!({ "voters": names(voters), "learners": names(learners) })
        }
        StoredContent::Command(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            match Command::decode(bytes, Command::NEWEST_VERSION) {
                Ok(logged) => json!({
                    "command": format!("{:?}", logged.command),
                    "version": bytes.first(),
                    "proposed_ms": logged.proposed_ms,
                    "bytes": hex,
                }),
                Err(error) => json!({ "unreadable": error.to_string(), "bytes": hex }),
            }
        }
    };
    let mut line = json!({
        "index": entry.index,
        "term": entry.term,
        "hash": format!("{:016x}", entry.hash),
    });
    if let (Value::Object(line), Value::Object(content)) = (&mut line, content) {
        line.extend(content);
    }
    line
}
