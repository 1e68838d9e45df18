//! Changes of the membership, and what servers say of it.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use sider_core::runtime::NetworkError;

use super::{Parts, Saboteur, sync_time};
use crate::{
    cluster::{Client, Cluster},
    history::{Configuration, MembershipChange, ServerNumber},
    recorder::{Recorder, now, number},
    time::Time,
};

/// A membership change or a transfer is waited for this long.
const MEMBERSHIP_PATIENCE: Duration = Duration::from_secs(12);

/// How often, and after what pauses, an operator tries to add a server again that lost its disk.
const ADD_AGAIN_TRIES: usize = 20;
const ADD_AGAIN_PAUSE: Duration = Duration::from_millis(300);

impl Saboteur {
    /// A new server joins; it is down, or not.
    pub(super) async fn join(&self, is_up: bool) {
        let cluster = &self.0.cluster;
        let server = match is_up {
            true => cluster.add_server(),
            false => cluster.add_server_off(),
        };
        cluster
            .host(server)
            .disk()
            .set_sync_time(sync_time(&self.0.shape));
        self.set_network();
        let (id, address) = cluster.identity(server);
        let body = json!({ "ID": id.0.as_str(), "Addr": address.raft });
        self.change(server, true, "/v1/raft/join", body).await;
    }

    /// Removes servers that lost their disks and adds them again, until that was done for sure: an operator goes on, also
    /// after everything else is healed.
    pub(super) async fn add_again(&self, servers: &[usize]) {
        for server in servers {
            let (id, address) = self.0.cluster.identity(*server);
            let (removed, added) = (
                json!({ "ID": id.0.as_str() }),
                json!({ "ID": id.0.as_str(), "Addr": address.raft }),
            );
            for _ in 0..ADD_AGAIN_TRIES {
                self.change(*server, false, "/v1/raft/remove", removed.clone())
                    .await;
                if self.change(*server, true, "/v1/raft/join", added.clone()).await == Some(true) {
                    break;
                }
                self.0.world.sleep(ADD_AGAIN_PAUSE).await;
            }
        }
    }

    pub(super) async fn remove(&self, servers: &[usize]) {
        for server in servers {
            let body = json!({ "ID": self.0.cluster.identity(*server).0.0.as_str() });
            self.change(*server, false, "/v1/raft/remove", body).await;
        }
    }

    async fn change(&self, server: usize, joins: bool, path: &str, body: Value) -> Option<bool> {
        let Parts { world, recorder, .. } = &*self.0;
        let place = recorder.membership_asked(MembershipChange {
            invoked: now(world),
            returned: Time::MAX,
            server: number(server),
            joins,
            done: None,
            answer: "no answer".into(),
        });
        let (done, answer) = self.ask(path, body).await;
        recorder.membership_answered(place, now(world), done, answer);
        done
    }

    /// Asks the leader, or any server that is up: done, certainly not done, or unknown; with the answer in words.
    pub(super) async fn ask(&self, path: &str, body: Value) -> (Option<bool>, String) {
        let cluster = &self.0.cluster;
        let any = (0..cluster.len()).find(|server| cluster.server(*server).is_some());
        let Some(through) = cluster.leads().or(any) else {
            return (Some(false), "no server is up".into());
        };
        let body = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let request = Request::post(path).body(body).expect("a valid path");
        match self.0.client.send(through, request, MEMBERSHIP_PATIENCE).await {
            Ok(answer) => {
                let text = String::from_utf8_lossy(answer.body()).into_owned();
                let refused = answer.status().is_client_error() || text.starts_with("No cluster leader");
                let done = match answer.status().is_success() {
                    true => Some(true),
                    false => refused.then_some(false),
                };
                (done, format!("{} {text}", answer.status().as_u16()))
            }
            Err(error @ NetworkError::Unreachable { .. }) => (Some(false), error.to_string()),
            Err(error) => (None, error.to_string()),
        }
    }
}

/// Asks servers who the members are, and writes down what they say.
pub async fn note_configurations(
    cluster: &Cluster,
    servers: impl IntoIterator<Item = usize>,
    client: &Client,
    recorder: &Recorder,
) {
    for server in servers {
        let mut tries = 0;
        // The first use of an old connection may only show that its other end is gone.
        let answer = loop {
            let request = Request::get("/v1/raft/stats")
                .body(Bytes::new())
                .expect("a valid path");
            tries += 1;
            match client.send(server, request, Duration::from_secs(1)).await {
                Err(_) if tries < 3 => {}
                answer => break answer,
            }
        };
        let Ok(answer) = answer else { continue };
        let Ok(stats) = serde_json::from_slice::<Value>(answer.body()) else {
            continue;
        };
        recorder.configuration(Configuration {
            at: now(cluster.world()),
            server: number(server),
            applied: stats["applied_index"].as_u64().unwrap_or_default(),
            voters: members(&stats["voters"]),
            learners: members(&stats["learners"]),
        });
    }
}

fn members(ids: &Value) -> Vec<ServerNumber> {
    let ids = ids.as_array().map_or(&[][..], Vec::as_slice);
    ids.iter()
        .filter_map(|id| id.as_str()?.strip_prefix('s')?.parse().ok().map(ServerNumber))
        .collect()
}
