//! `sds watch`: a service or keys each time that they differ, from a stream of server-sent events. Where a stream ends it
//! goes on with the last id at the next server.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    CliError, Client, catalog,
    client::encode,
    output::{self, text},
};

/// Pause before the next stream, after one that ended.
const AGAIN: Duration = Duration::from_secs(1);

/// What `sds watch` watches.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(subcommand)]
    what: Watched,
}

#[derive(Debug, Subcommand)]
enum Watched {
    /// The instances of a service with their checks.
    Service {
        /// The service's name.
        name: String,
        /// Namespace.
        #[arg(long, default_value = "default")]
        ns: String,
        /// Only instances whose checks all pass.
        #[arg(long)]
        passing: bool,
    },
    /// All keys with a prefix.
    Kv {
        /// The prefix; all keys if it is empty.
        #[arg(default_value = "")]
        prefix: String,
    },
}

impl Watched {
    /// Path and query, to which more can be added.
    fn path(&self) -> String {
        match self {
            Watched::Service { name, ns, passing } => {
                let passing = if *passing { "&passing=1" } else { "" };
                format!("/v1/watch/service/{}?ns={}{passing}", encode(name), encode(ns))
            }
            Watched::Kv { prefix } => {
                // Slashes between the parts of a key stay as they are.
                let prefix: Vec<String> = prefix.split('/').map(encode).collect();
                format!("/v1/watch/kv/{}?recurse", prefix.join("/"))
            }
        }
    }

    fn print(&self, id: u64, data: &Value, as_json: bool) {
        if as_json {
            return output::json(data);
        }
        println!("index {id}");
        match self {
            Watched::Service { .. } => catalog::print_health(data, false),
            Watched::Kv { .. } => {
                let rows = data.as_array().into_iter().flatten().map(|key| {
                    let value = STANDARD.decode(text(key, "Value")).unwrap_or_default();
                    vec![
                        text(key, "Key"),
                        String::from_utf8_lossy(&value).into_owned(),
                        text(key, "ModifyIndex"),
                    ]
                });
                output::table(&["KEY", "VALUE", "CHANGED AT"], rows.collect());
            }
        }
        println!();
    }
}

/// Watches until the process is ended.
pub(super) async fn watch(servers: &[String], args: &WatchArgs, as_json: bool) -> Result<(), CliError> {
    let mut last_id = 0;
    let mut servers = servers.to_vec();
    loop {
        let path = match last_id {
            0 => args.what.path(),
            id => format!("{}&index={id}", args.what.path()),
        };
        let mut unread = Vec::new();
        let mut why = "the stream ended".to_owned();
        let ended = Client::new(&servers)
            .download(&path, |piece| {
                unread.extend_from_slice(piece);
                while let Some(event) = next_event(&mut unread) {
                    match event {
                        Event::Update(id, data) => {
                            last_id = id;
                            args.what.print(id, &data, as_json);
                        }
                        Event::End(reason) => why = reason,
                        Event::Other => {}
                    }
                }
                Ok(())
            })
            .await;
        match ended {
            Err(refused @ CliError::Refused { status: 400..500, .. }) => return Err(refused),
            Err(error) => eprintln!("sds: {error}; trying again"),
            Ok(()) => eprintln!("sds: {why}; going on"),
        }
        // What ails one server need not ail the next.
        let next = 1.min(servers.len());
        servers.rotate_left(next);
        tokio::time::sleep(AGAIN).await;
    }
}

#[derive(Debug, PartialEq)]
enum Event {
    Update(u64, Value),
    End(String),
    /// A comment, or what a newer server says.
    Other,
}

/// Takes the first event, if it is complete.
fn next_event(unread: &mut Vec<u8>) -> Option<Event> {
    let length = unread.windows(2).position(|pair| pair == b"\n\n")?;
    let block: Vec<u8> = unread.drain(..length + 2).collect();
    let block = String::from_utf8_lossy(&block);
    let field = |name: &str| {
        let value = |line: &str| {
            Some(
                line.strip_prefix(name)?
                    .strip_prefix(':')?
                    .trim_start()
                    .to_owned(),
            )
        };
        block.lines().find_map(value)
    };
    let data = field("data").and_then(|data| serde_json::from_str::<Value>(&data).ok());
    let id = field("id").and_then(|id| id.parse().ok());
    Some(match (field("event").as_deref(), id, data) {
        (Some("update"), Some(id), Some(data)) => Event::Update(id, data),
        (Some("end"), _, Some(data)) => Event::End(text(&data, "Reason")),
        _ => Event::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_when_they_are_complete() {
        let mut unread = b": nothing differs\n\nid: 7\nevent: update\ndata: [1]\n".to_vec();
        assert_eq!(next_event(&mut unread), Some(Event::Other));
        assert_eq!(next_event(&mut unread), None);
        unread.extend_from_slice(b"\nevent: end\ndata: {\"Reason\":\"No cluster leader\"}\n\n");
        assert_eq!(
            next_event(&mut unread),
            Some(Event::Update(7, serde_json::json!([1])))
        );
        assert_eq!(
            next_event(&mut unread),
            Some(Event::End("No cluster leader".into()))
        );
        assert!(unread.is_empty());
    }

    #[test]
    fn paths_ask_for_what_is_watched() {
        let service = Watched::Service {
            name: "a b".into(),
            ns: "default".into(),
            passing: true,
        };
        assert_eq!(service.path(), "/v1/watch/service/a%20b?ns=default&passing=1");
        let keys = Watched::Kv {
            prefix: "app/a b/".into(),
        };
        assert_eq!(keys.path(), "/v1/watch/kv/app/a%20b/?recurse");
    }
}
