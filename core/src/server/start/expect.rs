//! A cluster that begins by itself: each of its servers is told how many there will be and where the others are, and none
//! is told to begin.
//!
//! There must never be two clusters. Each server asks those that it was told of who they are. When it sees just as many
//! as there will be, itself among them, and none of them belongs to a cluster, it says so to whoever asks: it stands by
//! that set of servers, and by no other one. The server of the lowest address begins, once all others stand by the very
//! set that it sees itself; and the beginning itself asks each of them again, over Raft's transport, for its disk (see
//! `raft::founding`). So two sets of which anybody is in both can't both begin, and of one set one server begins.

use std::{collections::BTreeMap, sync::Weak};

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{Inner, belongs};
use crate::{
    limits,
    raft::{ServerAddress, ServerId},
    runtime::Network,
    server::Server,
};

/// What a server says of itself to others that expect it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Introduction {
    /// Its name.
    #[serde(rename = "ID")]
    pub id: ServerId,
    /// Where its Raft transport is reached.
    pub raft: SmolStr,
    /// Where its HTTP API is reached; empty if nobody can.
    #[serde(rename = "HTTP")]
    pub http: SmolStr,
    /// Whether it belongs to a cluster, or did.
    pub used: bool,
    /// The servers of the cluster that it waits for, by their Raft addresses; empty as long as it does not see all of them.
    pub expected: Expected,
}

/// Servers of a cluster that is to begin.
pub(crate) type Expected = BTreeMap<ServerId, SmolStr>;

impl Server {
    /// What this server says of itself to others that expect it.
    pub fn introduction(&self) -> Introduction {
        self.0.introduction()
    }
}

impl Inner {
    fn introduction(&self) -> Introduction {
        let status = self.consensus.status();
        let address = &self.shared.address;
        Introduction {
            used: belongs(&status),
            id: status.id,
            raft: address.raft.clone(),
            http: address.http.clone(),
            expected: self.shared.expected().clone(),
        }
    }
}

/// What a server sees of those that it expects.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    /// Not what it expects, for a reason.
    Incomplete(String),
    /// All, and each is new.
    Complete(Expected),
}

/// Begins a cluster of so many servers as soon as they are there, if it is for this one to do; ends when this server
/// belongs to one.
pub(super) async fn expect<N: Network>(
    inner: Weak<Inner>,
    network: N,
    addresses: Vec<String>,
    servers: usize,
) {
    let mut told = String::new();
    while let Some(inner) = inner.upgrade() {
        if inner.shared.finish().is_some() || belongs(&inner.consensus.status()) {
            inner.shared.expected().clear();
            return;
        }
        let own = inner.introduction();
        let others = ask_all(&network, &addresses).await;
        let obstacle = match see(&own, &others, servers) {
            Sight::Incomplete(reason) => {
                inner.shared.expected().clear();
                Some(reason)
            }
            Sight::Complete(set) => {
                *inner.shared.expected() = set.clone();
                match begins(&own, &others, &set) {
                    Some(Ok(members)) => match inner.consensus.initialize(members).await {
                        Ok(()) => None,
                        Err(error) => Some(error.to_string()),
                    },
                    Some(Err(reason)) => Some(reason),
                    None => None,
                }
            }
        };
        if let Some(reason) = obstacle.filter(|reason| *reason != told) {
            tracing::warn!(
                servers,
                reason,
                "the cluster begins when all of its servers are there and new"
            );
            told = reason;
        }
        let shared = inner.shared.clone();
        drop(inner);
        shared.platform.sleep(limits::EXPECT_PAUSE).await;
    }
}

async fn ask_all<N: Network>(network: &N, addresses: &[String]) -> Vec<Introduction> {
    let mut asked = Vec::new();
    for address in addresses {
        asked.push(ask(network, address));
    }
    join_all(asked).await.into_iter().flatten().collect()
}

/// Who is at an HTTP address; `None` if nobody answers.
async fn ask<N: Network>(network: &N, address: &str) -> Option<Introduction> {
    let request = http::Request::get("/v1/raft/introduction").header(http::header::HOST, address);
    let request = request.body(Bytes::new()).ok()?;
    let answer = network
        .http(address, request, limits::PEER_CALL_TIMEOUT)
        .await
        .ok()?;
    serde_json::from_slice(answer.body()).ok()
}

fn see(own: &Introduction, others: &[Introduction], servers: usize) -> Sight {
    let mut set = Expected::from([(own.id.clone(), own.raft.clone())]);
    for other in others {
        if other.used {
            return Sight::Incomplete(format!(
                "{} belongs to a cluster: this server waits to be added to it",
                other.id
            ));
        }
        if let Some(raft) = set.insert(other.id.clone(), other.raft.clone())
            && raft != other.raft
        {
            return Sight::Incomplete(format!("two servers are called {}", other.id));
        }
    }
    match set.len() {
        seen if seen < servers => Sight::Incomplete(format!("{seen} of {servers} are there")),
        seen if seen > servers => Sight::Incomplete(format!(
            "{seen} are there, more than the {servers} that are expected: nobody knows which of them are meant"
        )),
        _ => Sight::Complete(set),
    }
}

/// Whether it is for this server to begin the cluster: with its members, or why not yet.
fn begins(
    own: &Introduction,
    others: &[Introduction],
    set: &Expected,
) -> Option<Result<BTreeMap<ServerId, ServerAddress>, String>> {
    // Two may claim one address; then the transport finds that one of them is not there.
    let lowest = set.iter().min_by_key(|(id, raft)| (*raft, *id))?;
    if *lowest.0 != own.id {
        return None;
    }
    let mut members = BTreeMap::new();
    for server in others.iter().chain([own]) {
        if server.id != own.id && server.expected != *set {
            return Some(Err(format!("{} does not see the same servers yet", server.id)));
        }
        members.insert(
            server.id.clone(),
            ServerAddress {
                raft: server.raft.clone(),
                http: server.http.clone(),
            },
        );
    }
    Some(Ok(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, expected: &[&str]) -> Introduction {
        let raft = |name: &str| SmolStr::from(format!("{name}:8300"));
        Introduction {
            id: ServerId(name.into()),
            raft: raft(name),
            http: format!("{name}:8500").into(),
            used: false,
            expected: expected
                .iter()
                .map(|name| (ServerId((*name).into()), raft(name)))
                .collect(),
        }
    }

    const ALL: [&str; 3] = ["a", "b", "c"];

    fn set(own: &str, others: &[Introduction], servers: usize) -> Result<Expected, String> {
        match see(&server(own, &[]), others, servers) {
            Sight::Complete(set) => Ok(set),
            Sight::Incomplete(reason) => Err(reason),
        }
    }

    #[test]
    fn one_server_begins_when_all_stand_by_the_same_set() {
        let others = [server("b", &ALL), server("c", &ALL), server("a", &[])];
        let all = set("a", &others, 3).expect("all are there");
        assert_eq!(all, server("", &ALL).expected);
        let members = begins(&server("a", &[]), &others, &all);
        let members = members.expect("the lowest begins").expect("they agree");
        assert_eq!(members.len(), 3);
        assert_eq!(members[&ServerId("b".into())].http, "b:8500");
        // Nobody else does.
        let others = [server("a", &ALL), server("c", &ALL)];
        let all = set("b", &others, 3).expect("all are there");
        assert!(begins(&server("b", &ALL), &others, &all).is_none());
    }

    #[test]
    fn it_waits_for_who_does_not_see_all_or_sees_others() {
        for expected in [vec![], vec!["b", "c", "d"], vec!["a", "b"]] {
            let others = [server("b", &ALL), server("c", &expected)];
            let all = set("a", &others, 3).expect("all are there");
            let begun = begins(&server("a", &ALL), &others, &all).expect("it is for it to begin");
            assert!(begun.is_err_and(|reason| reason.starts_with("c does not see")));
        }
    }

    #[test]
    fn nothing_begins_with_too_few_or_too_many_or_a_used_one_or_two_of_a_name() {
        let b = || server("b", &[]);
        let used = Introduction {
            used: true,
            ..server("c", &[])
        };
        let elsewhere = Introduction {
            raft: "z:1".into(),
            ..server("a", &[])
        };
        for (others, reason) in [
            (vec![b(), b()], "2 of 3"),
            (vec![b(), server("c", &[]), server("d", &[])], "4 are there"),
            (vec![b(), used], "c belongs"),
            (vec![b(), elsewhere], "two servers are called a"),
        ] {
            let told = set("a", &others, 3).expect_err("it is not all of them");
            assert!(told.starts_with(reason), "{told}");
        }
    }
}
