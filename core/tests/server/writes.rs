//! Writes from any server: forwarded, tried again while that is safe, and never carried out twice.

use sider_core::{
    limits,
    registry::{Refusal, Reply},
    server::{Platform as _, ServerError, standin},
};

use crate::clients::*;

#[test]
fn a_write_answers_with_its_index_and_reply() {
    let (server, _standin, platform) = standin::server();
    let first = platform.run(server.write(register("web", "web-1", &[]))).unwrap();
    assert_eq!(first.reply, Ok(Reply::Registered(vec![vec![]])));
    let again = platform.run(server.write(register("web", "web-1", &[]))).unwrap();
    assert_eq!(
        again.index, first.index,
        "the same registration again takes no index"
    );
    let gone = platform.run(server.write(deregister("web-1"))).unwrap();
    assert_eq!(gone.reply, Ok(Reply::Deregistered(true)));
    assert!(gone.index > first.index);
}

#[test]
fn a_refusal_is_an_answer() {
    let (server, _standin, platform) = standin::server();
    platform.run(server.write(register("web", "web-1", &[]))).unwrap();
    let wrong_service =
        sider_core::registry::Command::Deregister(sider_core::registry::Deregister::Instance {
            key: instance_key("web-1"),
            service: Some(service_name("db")),
        });
    let written = platform.run(server.write(wrong_service)).unwrap();
    assert!(matches!(written.reply, Err(Refusal::OtherService { .. })));
}

#[test]
fn a_follower_forwards_to_the_leader() {
    let cluster = cluster();
    let written = cluster
        .platform
        .run(cluster.servers[1].write(register("web", "web-1", &[])));
    assert_eq!(written.unwrap().reply, Ok(Reply::Registered(vec![vec![]])));
    let answer = cluster
        .platform
        .run(cluster.servers[2].read(health("web", &[], false), now()));
    assert_eq!(ids(&answer.unwrap()), ["web-1"]);
}

#[test]
fn without_a_leader_a_write_fails_within_its_time_limit() {
    let (server, standin, platform) = standin::server();
    standin.follow(2, None);
    let began = platform.now();
    let written = platform.run(server.write(register("web", "web-1", &[])));
    assert_eq!(written, Err(ServerError::NoLeader));
    let took = platform.now().saturating_since(began);
    assert!(
        took >= limits::WRITE_TIMEOUT && took < limits::WRITE_TIMEOUT + secs(1),
        "{took:?}"
    );
}

#[test]
fn a_write_waits_for_a_leader() {
    let (server, standin, platform) = standin::server();
    standin.follow(2, None);
    let task = platform.start(async move { server.write(register("web", "web-1", &[])).await });
    platform.advance(secs(2));
    assert!(task.take().is_none());
    standin.lead(3);
    platform.settle();
    assert!(task.take().unwrap().is_ok());
}

#[test]
fn a_write_that_is_not_committed_in_time_has_an_unknown_outcome_and_is_not_tried_again() {
    let (server, standin, platform) = standin::server();
    standin.hold_proposals();
    let began = platform.now();
    let written = platform.run(server.write(register("web", "web-1", &[])));
    assert!(
        matches!(written, Err(ServerError::OutcomeUnknown(_))),
        "{written:?}"
    );
    assert!(platform.now().saturating_since(began) < limits::WRITE_TIMEOUT + secs(1));
    platform.advance(secs(30));
    assert_eq!(standin.held_proposals(), 1);
}

#[test]
fn a_write_whose_leader_falls_silent_is_not_sent_to_the_next_one() {
    let cluster = cluster();
    cluster.standins[1].silence(&cluster.standins[0]);
    let server = cluster.servers[1].clone();
    let task = cluster
        .platform
        .start(async move { server.write(register("web", "web-1", &[])).await });
    cluster.elect(2, 2);
    cluster.platform.advance(limits::WRITE_TIMEOUT + secs(1));
    let written = task.take().unwrap();
    assert!(
        matches!(written, Err(ServerError::OutcomeUnknown(_))),
        "{written:?}"
    );
    assert_eq!(
        cluster.servers[2].status().last_log_index,
        0,
        "it was tried again"
    );
}

#[test]
fn a_write_that_reached_nobody_is_sent_to_the_next_leader() {
    let cluster = cluster();
    cluster.standins[1].disconnect(&cluster.standins[0]);
    let server = cluster.servers[1].clone();
    let task = cluster
        .platform
        .start(async move { server.write(register("web", "web-1", &[])).await });
    cluster.platform.advance(secs(1));
    assert!(task.take().is_none());
    cluster.elect(2, 2);
    cluster.platform.settle();
    assert!(task.take().unwrap().is_ok());
    assert_eq!(cluster.servers[2].status().last_log_index, 1);
}

#[test]
fn a_server_that_does_not_lead_any_more_takes_no_forwarded_write() {
    let cluster = cluster();
    // The second one has not heard that the first one was deposed.
    cluster.standins[0].follow(2, Some(&cluster.standins[2]));
    cluster.standins[2].lead(2);
    let server = cluster.servers[1].clone();
    let task = cluster
        .platform
        .start(async move { server.write(register("web", "web-1", &[])).await });
    cluster.platform.advance(secs(1));
    assert!(task.take().is_none());
    cluster.standins[1].follow(2, Some(&cluster.standins[2]));
    cluster.platform.settle();
    assert!(task.take().unwrap().is_ok());
    assert_eq!(cluster.servers[0].status().last_log_index, 0);
}

#[test]
fn a_message_that_arrives_twice_is_carried_out_once() {
    let cluster = cluster();
    cluster.standins[1].double(&cluster.standins[0]);
    for id in ["web-1", "web-2"] {
        let written = cluster
            .platform
            .run(cluster.servers[1].write(register("web", id, &[])));
        assert!(written.is_ok(), "{written:?}");
    }
    cluster.platform.advance(secs(10));
    assert_eq!(cluster.servers[0].status().last_log_index, 2);
}

#[test]
fn too_many_writes_under_way_are_refused() {
    let (server, standin, platform) = standin::server();
    standin.hold_proposals();
    let write = || {
        let server = server.clone();
        platform.start(async move { server.write(deregister("web-1")).await })
    };
    let _under_way: Vec<_> = (0..limits::PROPOSALS_IN_FLIGHT_MAX).map(|_| write()).collect();
    let refused = write().take().unwrap();
    assert!(
        matches!(refused, Err(ServerError::OverLimit { .. })),
        "{refused:?}"
    );
    standin.release_proposals();
    platform.settle();
    assert!(write().take().unwrap().is_ok());
}

#[test]
fn a_follower_keeps_few_forwarded_writes_under_way() {
    let cluster = cluster();
    cluster.standins[0].hold_proposals();
    let write = |_| {
        let server = cluster.servers[1].clone();
        cluster
            .platform
            .start(async move { server.write(deregister("web-1")).await })
    };
    let writes: Vec<_> = (0..limits::FORWARDS_IN_FLIGHT_MAX + 10).map(write).collect();
    assert_eq!(
        cluster.standins[0].held_proposals(),
        limits::FORWARDS_IN_FLIGHT_MAX
    );
    cluster.standins[0].release_proposals();
    cluster.platform.settle();
    assert!(writes.iter().all(|write| write.take().unwrap().is_ok()));
}

#[test]
fn writes_that_an_old_leader_does_not_answer_are_not_in_the_way_of_others() {
    let cluster = cluster();
    cluster.standins[0].hold_proposals();
    let write = |_| {
        let server = cluster.servers[1].clone();
        cluster
            .platform
            .start(async move { server.write(deregister("web-1")).await })
    };
    let stuck: Vec<_> = (0..limits::FORWARDS_IN_FLIGHT_MAX).map(write).collect();
    let waiting: Vec<_> = (0..10).map(write).collect();
    // The old leader is cut off: it hears nothing of the new one.
    cluster.standins[2].lead(2);
    cluster.standins[1].follow(2, Some(&cluster.standins[2]));
    cluster.platform.settle();
    assert!(waiting.iter().all(|write| write.take().unwrap().is_ok()));
    assert!(stuck.iter().all(|write| write.take().is_none()));
}
