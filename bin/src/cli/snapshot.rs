//! `sds snapshot save|restore|inspect|verify`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::json;
use sider_core::registry::{CheckStatus, Snapshot};

use super::{
    CliError, Client,
    output::{self, text},
};

/// Flags of `sds snapshot`.
#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Save the cluster's state to a file. An existing file is replaced when the new one is complete and sound.
    Save {
        /// The file.
        file: PathBuf,
        /// Take the state of the server that is asked, without a leader.
        #[arg(long)]
        stale: bool,
    },
    /// Replace the cluster's state by that of a file. What is not in the file is gone afterwards.
    Restore {
        /// The file.
        file: PathBuf,
    },
    /// Show what is in a file. Needs no server.
    Inspect {
        /// The file.
        file: PathBuf,
    },
    /// Check that a file is complete and sound. Needs no server.
    Verify {
        /// The file.
        file: PathBuf,
    },
}

pub(super) async fn run(client: &Client, args: &SnapshotArgs, as_json: bool) -> Result<(), CliError> {
    match &args.command {
        Command::Save { file, stale } => save(client, file, *stale, as_json).await,
        Command::Restore { file } => restore(client, file, as_json).await,
        Command::Inspect { file } => inspect(file, as_json),
        Command::Verify { file } => verify(file, as_json),
    }
}

async fn save(client: &Client, path: &Path, stale: bool, as_json: bool) -> Result<(), CliError> {
    // Beside the file that it will be: a backup that breaks off must not take the place of one that is complete.
    let unfinished = unfinished(path);
    let saved = async {
        let mut file = File::create(&unfinished).map_err(|error| named(&unfinished, &error))?;
        let query = if stale { "?stale" } else { "" };
        client
            .download(&format!("/v1/snapshot{query}"), |piece| {
                file.write_all(piece).map_err(|error| named(&unfinished, &error))
            })
            .await?;
        file.sync_all().map_err(|error| named(&unfinished, &error))?;
        let snapshot = read(&unfinished)?;
        fs::rename(&unfinished, path).map_err(|error| named(path, &error))?;
        Ok(snapshot)
    };
    let saved = saved.await.inspect_err(|_: &CliError| {
        // What is left of it is of no use; should it stay, the next try overwrites it.
        let _ = fs::remove_file(&unfinished);
    })?;
    let index = saved.registry().index();
    if as_json {
        output::json(&json!({ "File": path, "Index": index, "Rows": saved.rows }));
    } else {
        println!("saved: {} (index {index})", path.display());
    }
    Ok(())
}

async fn restore(client: &Client, path: &Path, as_json: bool) -> Result<(), CliError> {
    // Looked at here first: the server's refusal would come only after all of it was sent.
    read(path)?;
    let file = fs::read(path).map_err(|error| named(path, &error))?;
    let answer = client.upload("/v1/snapshot", Bytes::from(file)).await?.json()?;
    if as_json {
        output::json(&answer);
    } else {
        println!("restored: {} (index {})", path.display(), text(&answer, "Index"));
    }
    Ok(())
}

fn inspect(path: &Path, as_json: bool) -> Result<(), CliError> {
    let snapshot = read(path)?;
    let registry = snapshot.registry();
    let mut services: BTreeMap<(String, String), usize> = BTreeMap::new();
    for instance in registry.instances() {
        let name = (instance.namespace.to_string(), instance.service.to_string());
        *services.entry(name).or_default() += 1;
    }
    let checks = |status: CheckStatus| registry.checks().filter(|check| check.status == status).count();
    let by_status: BTreeMap<&str, usize> = CheckStatus::ALL
        .into_iter()
        .map(|status| (status.as_str(), checks(status)))
        .collect();
    if as_json {
        let services: Vec<_> = services
            .iter()
            .map(|((namespace, name), instances)| {
                json!({ "Namespace": namespace, "Service": name, "Instances": instances })
            })
            .collect();
        output::json(&json!({
            "Index": registry.index(),
            "Program": snapshot.program,
            "Rows": snapshot.rows,
            "Digest": format!("{:032x}", snapshot.digest),
            "Nodes": registry.nodes().count(),
            "Instances": registry.instances().count(),
            "Checks": by_status,
            "Services": services,
        }));
        return Ok(());
    }
    let checks: Vec<String> = by_status
        .iter()
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    let facts = [
        ("index", registry.index().to_string()),
        ("written by", format!("version {}", snapshot.program)),
        ("rows", snapshot.rows.to_string()),
        ("digest", format!("{:032x}", snapshot.digest)),
        ("nodes", registry.nodes().count().to_string()),
        ("instances", registry.instances().count().to_string()),
        ("checks", checks.join(", ")),
    ];
    let rows = facts
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value]);
    output::table(&["", ""], rows.collect());
    let rows = services
        .into_iter()
        .map(|((namespace, name), instances)| vec![namespace, name, instances.to_string()]);
    output::table(&["NAMESPACE", "SERVICE", "INSTANCES"], rows.collect());
    Ok(())
}

fn verify(path: &Path, as_json: bool) -> Result<(), CliError> {
    let snapshot = read(path)?;
    let index = snapshot.registry().index();
    if as_json {
        output::json(&json!({ "File": path, "Index": index, "Sound": true }));
    } else {
        println!(
            "sound: {} (index {index}, {} rows)",
            path.display(),
            snapshot.rows
        );
    }
    Ok(())
}

fn read(path: &Path) -> Result<Snapshot, CliError> {
    let file = fs::read(path).map_err(|error| named(path, &error))?;
    Snapshot::parse(&Bytes::from(file)).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &impl ToString) -> CliError {
    CliError::Other(format!("{}: {}", path.display(), error.to_string()))
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".unfinished");
    PathBuf::from(name)
}
