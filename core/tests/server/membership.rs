//! How servers find together.

use std::sync::Arc;

use sider_core::{
    observe::NoObserver,
    raft::{ServerAddress, ServerId},
    server::{
        Server, ServerError,
        standin::{self, Standin, TestPlatform},
    },
};

use crate::clients::*;

/// A leader, and a server that it reaches and that is no member of its cluster.
struct Two {
    platform: Arc<TestPlatform>,
    leader: Server,
    other: Server,
    other_standin: Arc<Standin>,
    leader_standin: Arc<Standin>,
}

fn two(implicit: bool) -> Two {
    let (leader, leader_standin, platform) = standin::server();
    let (other, other_standin) = standin::member("server-2", &platform, Arc::new(NoObserver), implicit);
    leader_standin.reach(&other_standin);
    Two {
        platform,
        leader,
        other,
        other_standin,
        leader_standin,
    }
}

impl Two {
    fn join(&self, id: &str) -> Result<(), ServerError> {
        let address = ServerAddress {
            raft: self.other_standin.identity().1.raft,
            http: "".into(),
        };
        self.platform.run(self.leader.join(ServerId(id.into()), address))
    }
}

#[test]
fn an_empty_server_is_added_and_asked_for_its_http_address() {
    let two = two(false);
    assert_eq!(two.join("server-2"), Ok(()));
    let (id, address) = two.other_standin.identity();
    assert_eq!(two.leader.status().voters.get(&id), Some(&address));
    assert_eq!(two.join("server-2"), Ok(()), "asking again changes nothing");
    let missing = two.platform.run(two.leader.remove(ServerId("server-9".into())));
    assert!(matches!(missing, Err(ServerError::Refused(_))));
    two.platform.run(two.leader.remove(id.clone())).unwrap();
    assert!(!two.leader.status().voters.contains_key(&id));
}

#[test]
fn a_server_of_another_name_is_refused() {
    let two = two(false);
    let refused = two.join("server-3").unwrap_err().to_string();
    assert!(refused.contains("is called server-2, not server-3"), "{refused}");
}

#[test]
fn a_server_that_does_not_answer_is_refused_in_time() {
    let two = two(false);
    two.leader_standin.disconnect(&two.other_standin);
    let refused = two.join("server-2").unwrap_err().to_string();
    assert!(
        refused.contains("can't be added") && refused.contains("nobody listens"),
        "{refused}"
    );
    assert!(
        !two.leader
            .status()
            .voters
            .contains_key(&ServerId("server-2".into()))
    );
}

#[test]
fn a_cluster_of_one_that_nobody_asked_for_gives_way() {
    let two = two(true);
    two.other_standin.lead(1);
    let leader = two.leader.clone();
    let (id, address) = two.other_standin.identity();
    let (joining_id, joining_address) = (id.clone(), address.clone());
    let join = two
        .platform
        .start(async move { leader.join(joining_id, joining_address).await });
    let write = two.platform.run(two.other.write(register("web", "web-1", &[])));
    assert!(matches!(write, Err(ServerError::Stopped(_))), "{write:?}");
    assert!(join.take().is_none(), "it was added before its disk was wiped");
    // Its process starts it again, empty.
    let (_restarted, standin) = standin::member("server-2", &two.platform, Arc::new(NoObserver), true);
    two.leader_standin.reach(&standin);
    two.platform.advance(secs(1));
    assert_eq!(join.take().unwrap(), Ok(()));
    assert_eq!(two.leader.status().voters.get(&id), Some(&address));
}

#[test]
fn a_cluster_with_data_or_one_that_was_asked_for_does_not_give_way() {
    let with_data = two(true);
    with_data.other_standin.lead(1);
    with_data
        .platform
        .run(with_data.other.write(register("web", "web-1", &[])))
        .unwrap();
    let asked_for = two(false);
    asked_for.other_standin.lead(1);
    for two in [with_data, asked_for] {
        let refused = two.join("server-2").unwrap_err().to_string();
        assert!(refused.contains("belongs to a cluster of its own"), "{refused}");
        two.platform
            .run(two.other.write(register("db", "db-1", &[])))
            .unwrap();
    }
}

#[test]
fn a_cluster_does_not_give_way_while_something_is_written_to_it() {
    let two = two(true);
    two.other_standin.lead(1);
    two.other_standin.hold_proposals();
    let server = two.other.clone();
    let write = two
        .platform
        .start(async move { server.write(register("web", "web-1", &[])).await });
    assert!(two.join("server-2").is_err());
    two.other_standin.release_proposals();
    two.platform.settle();
    assert!(write.take().unwrap().is_ok());
}

#[test]
fn every_member_is_asked_for_its_status() {
    let cluster = cluster();
    cluster.standins[0].apply(&register("web", "web-1", &[]));
    cluster.standins[1].silence(&cluster.standins[2]);
    let reports = cluster.platform.run(cluster.servers[1].cluster());
    let ids: Vec<String> = reports.iter().map(|report| report.id.to_string()).collect();
    assert_eq!(ids, ["server-1", "server-2", "server-3"]);
    assert!(reports.iter().all(|report| report.voter));
    assert_eq!(reports[0].digest, reports[1].digest);
    assert_eq!(reports[0].digest, Some(cluster.servers[0].digest().1));
    assert_eq!(reports[0].status.as_ref().unwrap().applied_index, 1);
    assert!(reports[2].status.is_none() && reports[2].digest.is_none());
}
