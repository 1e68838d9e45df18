//! Three servers.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};

use crate::support::{Place, Server, until};

const IDS: [&str; 3] = ["node1", "node2", "node3"];

/// Three servers, the first of which was told to bootstrap and was asked to add the others.
async fn joined(folder: &Path) -> (Vec<Place>, Vec<Server>) {
    let places: Vec<Place> = IDS.iter().map(|id| Place::new(id, folder)).collect();
    let mut servers = vec![places[0].start(&["-raft-bootstrap", "true"]).await];
    servers[0].ready().await;
    for place in &places[1..] {
        let server = place.start(&["-raft-bootstrap=false"]).await;
        let join = json!({"ID": place.id, "Addr": place.raft});
        servers[0].put("/v1/raft/join", &join).await.unwrap();
        server.ready().await;
        servers.push(server);
    }
    for server in &servers {
        server.has_voters(&IDS).await;
    }
    (places, servers)
}

/// Waits until one of the servers leads and the others know; gives its position.
async fn leader(servers: &[Server]) -> usize {
    let found = std::cell::Cell::new(usize::MAX);
    until("there is one leader", async || {
        let mut leaders = Vec::new();
        for server in servers {
            leaders.push(server.stats().await["leader"].clone());
        }
        let position = servers.iter().position(|server| json!(server.id) == leaders[0]);
        found.set(position.unwrap_or(usize::MAX));
        position.is_some() && leaders.iter().all(|leader| *leader == leaders[0])
    })
    .await;
    found.get()
}

/// Waits until all servers have applied the same, and checks that it made the same state.
async fn agree(servers: &[Server]) {
    let states = async || {
        let mut states = Vec::new();
        for server in servers {
            let stats = server.stats().await;
            states.push((stats["digest_index"].clone(), stats["digest"].clone()));
        }
        states
    };
    until("all servers have applied the same", async || {
        let states = states().await;
        states.iter().all(|(index, _)| *index == states[0].0)
    })
    .await;
    let states = states().await;
    for (index, digest) in &states {
        if *index == states[0].0 {
            assert_eq!(*digest, states[0].1, "{states:?}");
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_leaders_death() {
    let folder = tempfile::tempdir().unwrap();
    let (places, mut servers) = joined(folder.path()).await;
    let leader = leader(&servers).await;
    let dead = servers.remove(leader);
    let servers = Arc::new(servers);

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (servers, stop) = (servers.clone(), stop.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let id = format!("w{writer}-{n:04}");
                    // What fails may or may not have been carried out: only what was acknowledged counts.
                    if servers[writer % servers.len()]
                        .register("load", &id)
                        .await
                        .is_ok()
                    {
                        acknowledged.push(id);
                    }
                }
                acknowledged
            })
        })
        .collect();
    until("writes go through", async || {
        servers[0].instances("load").await.len() >= 50
    })
    .await;
    dead.kill();
    let before = servers[0].instances("load").await.len();
    until("writes go through again", async || {
        servers[1].instances("load").await.len() >= before + 50
    })
    .await;
    let back = places[leader].start(&[]).await;
    back.ready().await;
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(acknowledged.len() >= 100);

    let mut servers = Arc::try_unwrap(servers).expect("the writers have ended");
    servers.push(back);
    for server in &servers {
        let found = server.instances("load").await;
        let lost: Vec<_> = acknowledged.iter().filter(|id| !found.contains(id)).collect();
        assert!(lost.is_empty(), "{} has lost {lost:?}", server.id);
    }
    agree(&servers).await;

    // And after all of them have died at once.
    for server in servers {
        server.kill();
    }
    let mut servers = Vec::new();
    for place in &places {
        servers.push(place.start(&[]).await);
    }
    for server in &servers {
        server.ready().await;
        let found = server.instances("load").await;
        let lost: Vec<_> = acknowledged.iter().filter(|id| !found.contains(id)).collect();
        assert!(lost.is_empty(), "{} has lost {lost:?}", server.id);
    }
    agree(&servers).await;
}

#[tokio::test]
async fn reads_and_parked_queries_go_on_when_the_leader_dies() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut servers) = joined(folder.path()).await;
    servers[0].register("api", "api-1").await.unwrap();
    let leader = leader(&servers).await;
    let dead = servers.remove(leader);
    // Right after the write, on a follower.
    let answer = servers[0]
        .try_send("GET", "/v1/health/service/api?ns=default&passing=1", "")
        .await
        .unwrap();
    let index = answer.headers()["x-index"].to_str().unwrap().to_owned();
    let path = format!("/v1/health/service/api?index={index}&wait=60s");
    let parked = async {
        let answer = servers[0].try_send("GET", &path, "").await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(crate::support::ids(&body), ["api-1", "api-2"]);
    };
    let change = async {
        dead.kill();
        assert_eq!(servers[0].instances("api?stale").await, ["api-1"]);
        assert_eq!(servers[1].instances("api").await, ["api-1"]);
        until("a write goes through", async || {
            servers[1].register("api", "api-2").await.is_ok()
        })
        .await;
    };
    tokio::join!(parked, change);
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_its_place_on() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut servers) = joined(folder.path()).await;
    let leader = leader(&servers).await;
    let stopping = servers.remove(leader);
    let term = stopping.stats().await["term"].as_u64().unwrap();
    stopping.signal("-INT");
    assert!(stopping.ended().await.success());
    // It was handed on before it ended: no more than one election, and nothing to wait for.
    until("there is a new leader", async || {
        servers[0].stats().await["term"].as_u64() > Some(term)
    })
    .await;
    servers[0].register("api", "api-1").await.unwrap();
    assert_eq!(servers[1].instances("api").await, ["api-1"]);
}

#[tokio::test]
async fn a_server_is_replaced_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut servers) = joined(folder.path()).await;
    servers[1].register("api", "api-1").await.unwrap();
    let gone = servers.remove(2);
    gone.kill();
    let place = Place::new("node4", folder.path());
    // It asks by itself, through any server.
    let fourth = place.start(&["-join", &servers[1].http]).await;
    fourth.ready().await;
    servers[0]
        .put("/v1/raft/remove", &json!({"ID": "node3"}))
        .await
        .unwrap();
    servers.push(fourth);
    for server in &servers {
        server.has_voters(&["node1", "node2", "node4"]).await;
        assert_eq!(server.instances("api").await, ["api-1"]);
    }
    agree(&servers).await;
}

#[tokio::test]
async fn one_file_of_peers_serves_all_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let places: Vec<Place> = IDS.iter().map(|id| Place::new(id, folder.path())).collect();
    let peers: Vec<Value> = places
        .iter()
        .map(|place| json!({"id": place.id, "raft_addr": place.raft, "http_addr": place.http}))
        .collect();
    let file = json!({"peers": peers, "election_timeout_min": "200ms", "election_timeout_max": "400ms"});
    let path = folder.path().join("cluster.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let path = path.display().to_string();
    let start = async |position: usize, more: &[&str]| {
        let place = &places[position];
        let data = place.data.display().to_string();
        let mut flags = vec!["-config", &path, "-raft-id", &place.id, "-raft-dir", &data];
        flags.extend(more);
        Server::start(&flags, &place.id, &place.http).await
    };
    // The one that bootstraps is neither the first nor the last.
    let third = start(2, &[]).await;
    let first = start(0, &["-raft-bootstrap"]).await;
    let second = start(1, &[]).await;
    let mut servers = vec![first, second, third];
    for server in &servers {
        server.ready().await;
        server.has_voters(&IDS).await;
    }
    servers[1].register("api", "api-1").await.unwrap();
    // Again, with the same flags, and in another order.
    servers.drain(..).for_each(Server::kill);
    servers.push(start(1, &[]).await);
    servers.push(start(0, &["-raft-bootstrap"]).await);
    servers.push(start(2, &[]).await);
    for server in &servers {
        server.ready().await;
        server.has_voters(&IDS).await;
        assert_eq!(server.instances("api").await, ["api-1"]);
    }
}

#[tokio::test]
async fn a_server_started_without_flags_gives_way_to_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let first = Place::new("node1", folder.path());
    let second = Place::new("node2", folder.path());
    let third = Place::new("node3", folder.path());
    let servers = [
        first.start(&[]).await,
        second.start(&[]).await,
        third.start(&[]).await,
    ];
    for server in &servers {
        server.ready().await;
    }
    servers[0].register("api", "api-1").await.unwrap();
    // Each leads a cluster of its own. The second one's was never used.
    servers[0]
        .put("/v1/raft/join", &json!({"ID": "node2", "Addr": second.raft}))
        .await
        .unwrap();
    for server in &servers[..2] {
        server.has_voters(&["node1", "node2"]).await;
        assert_eq!(server.instances("api").await, ["api-1"]);
    }
    // The third one's was: it is not taken over, and told so.
    servers[2].register("mine", "mine-1").await.unwrap();
    let refused = servers[0]
        .put("/v1/raft/join", &json!({"ID": "node3", "Addr": third.raft}))
        .await
        .unwrap_err();
    assert!(refused.contains("cluster of its own"), "{refused}");
    assert_eq!(servers[2].instances("mine").await, ["mine-1"]);
    servers[0].has_voters(&["node1", "node2"]).await;
    // A restart of the second one with its old flags does not start a cluster of its own again.
    let [one, two, _] = servers;
    two.kill();
    let two = second.start(&[]).await;
    two.ready().await;
    two.has_voters(&["node1", "node2"]).await;
    agree(&[one, two]).await;
}
