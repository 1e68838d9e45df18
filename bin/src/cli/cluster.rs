//! `sds members`, `join`, `remove`, `transfer`, `stats`, `version`.

use clap::Args;
use serde_json::{Value, json};

use super::{
    CliError, Client,
    output::{self, text},
};

/// Flags of `sds join`.
#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// The new server's id (its `-raft-id`).
    id: String,
    /// The new server's Raft address, `host:port`.
    address: String,
}

/// Flags of `sds remove`.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The server's id.
    id: String,
}

/// Flags of `sds transfer`.
#[derive(Debug, Args)]
pub(super) struct TransferArgs {
    /// The server that shall lead; the most caught-up one if not given.
    id: Option<String>,
}

pub(super) async fn members(client: &Client, as_json: bool) -> Result<(), CliError> {
    let status = client.get("/v1/cluster/status").await?.json()?;
    if as_json {
        output::json(&status);
        return Ok(());
    }
    let servers = status["servers"].as_array();
    let rows = servers.into_iter().flatten().map(|server| {
        [
            "id",
            "role",
            "voter",
            "reachable",
            "raft_addr",
            "http_addr",
            "last_log_index",
            "lag",
            "version",
            "command_version",
        ]
        .iter()
        .map(|field| match *field {
            // What it says of its role is true of no member.
            "role" if server["lost_data"] == true => "lost data".to_owned(),
            field => text(server, field),
        })
        .collect()
    });
    let headings = [
        "ID",
        "ROLE",
        "VOTER",
        "REACHABLE",
        "RAFT",
        "HTTP",
        "LAST INDEX",
        "LAG",
        "VERSION",
        "COMMANDS",
    ];
    output::table(&headings, rows.collect());
    for server in servers.into_iter().flatten() {
        if server["lost_data"] == true {
            let id = text(server, "id");
            println!(
                "{id} lost its data: remove it and add it again (sds remove {id}; sds join {id} {})",
                text(server, "raft_addr")
            );
        }
    }
    Ok(())
}

pub(super) async fn join(client: &Client, args: &JoinArgs, as_json: bool) -> Result<(), CliError> {
    client
        .put("/v1/raft/join", &json!({"ID": args.id, "Addr": args.address}))
        .await?;
    done(as_json, &args.id, "joined")
}

pub(super) async fn remove(client: &Client, args: &RemoveArgs, as_json: bool) -> Result<(), CliError> {
    client.put("/v1/raft/remove", &json!({"ID": args.id})).await?;
    done(as_json, &args.id, "removed")
}

pub(super) async fn transfer(client: &Client, args: &TransferArgs, as_json: bool) -> Result<(), CliError> {
    let body = args.id.as_ref().map_or_else(|| json!({}), |id| json!({"ID": id}));
    client.put("/v1/raft/transfer", &body).await?;
    done(as_json, args.id.as_deref().unwrap_or("leadership"), "transferred")
}

fn done(as_json: bool, id: &str, what: &str) -> Result<(), CliError> {
    if as_json {
        output::json(&json!({ "ID": id, "Result": what }));
    } else {
        println!("{what}: {id}");
    }
    Ok(())
}

pub(super) async fn stats(client: &Client, as_json: bool) -> Result<(), CliError> {
    let stats = client.get("/v1/raft/stats").await?.json()?;
    if as_json {
        output::json(&stats);
        return Ok(());
    }
    let rows = stats.as_object().into_iter().flatten().map(|(name, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        vec![name.clone(), value]
    });
    output::table(&["", ""], rows.collect());
    Ok(())
}

pub(super) async fn version(client: &Client, as_json: bool) -> Result<(), CliError> {
    let own = env!("CARGO_PKG_VERSION");
    // The program's own version is worth printing even if no server answers.
    let server = match client
        .get("/v1/raft/stats")
        .await
        .and_then(|answer| answer.json())
    {
        Ok(stats) => text(&stats, "version"),
        Err(error) => format!("unknown ({error})"),
    };
    if as_json {
        output::json(&json!({"sds": own, "server": server}));
    } else {
        println!("sds {own}\nserver {server}");
    }
    Ok(())
}
