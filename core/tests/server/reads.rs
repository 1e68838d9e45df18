//! Linearizable and stale reads.

use sider_core::{
    limits,
    server::{Platform as _, ServerError, standin},
};

use crate::clients::*;

#[test]
fn a_follower_reads_what_the_leader_wrote_once_it_has_applied_it() {
    let (leader, leading, platform) = standin::server();
    let (follower, following) = standin::member(
        "server-2",
        &platform,
        std::sync::Arc::new(sider_core::observe::NoObserver),
        false,
    );
    leading.connect(&following);
    following.follow(1, Some(&leading));
    let command = register("web", "web-1", &[]);
    platform.run(leader.write(command.clone())).unwrap();

    let reader = follower.clone();
    let read = platform.start(async move { reader.read(health("web", &[], false), now()).await });
    let looking = follower.clone();
    let look = platform.start(async move { looking.inspect(false, |registry| registry.index()).await });
    platform.advance(secs(1));
    assert!(
        read.take().is_none(),
        "it answered from a state that lacks an acknowledged write"
    );
    assert!(look.take().is_none());

    following.apply(&command);
    platform.settle();
    let answer = read.take().unwrap().unwrap();
    assert_eq!(ids(&answer), ["web-1"]);
    assert!(answer.known_leader && answer.last_contact.is_zero());
    assert_eq!(look.take().unwrap().unwrap(), answer.index);
}

#[test]
fn a_follower_that_never_catches_up_says_so_within_its_time_limit() {
    let (leader, leading, platform) = standin::server();
    let (follower, following) = standin::member(
        "server-2",
        &platform,
        std::sync::Arc::new(sider_core::observe::NoObserver),
        false,
    );
    leading.connect(&following);
    following.follow(1, Some(&leading));
    platform.run(leader.write(register("web", "web-1", &[]))).unwrap();
    let began = platform.now();
    let read = platform.run(follower.read(health("web", &[], false), now()));
    assert_eq!(read.unwrap_err(), ServerError::NoLeader);
    assert!(platform.now().saturating_since(began) <= limits::READ_TIMEOUT + millis(10));
    assert!(platform.run(follower.ready()).is_err());
}

#[test]
fn reads_share_a_round_that_began_after_they_came() {
    let cluster = cluster();
    let leader = &cluster.standins[0];
    leader.set_confirming(false);
    let read = || {
        let server = cluster.servers[1].clone();
        cluster
            .platform
            .start(async move { server.read(health("web", &[], false), now()).await })
    };
    let first = read();
    assert_eq!(leader.read_rounds(), 1);
    let others: Vec<_> = (0..100).map(|_| read()).collect();
    assert_eq!(leader.read_rounds(), 1, "they came after it began");
    leader.set_confirming(true);
    cluster.platform.settle();
    assert!(first.take().unwrap().is_ok());
    assert!(others.iter().all(|read| read.take().unwrap().is_ok()));
    assert_eq!(leader.read_rounds(), 2);
}

#[test]
fn a_read_does_not_wait_for_a_leader_that_is_gone() {
    let cluster = cluster();
    cluster.standins[1].silence(&cluster.standins[0]);
    let server = cluster.servers[1].clone();
    let read = cluster
        .platform
        .start(async move { server.read(health("web", &[], false), now()).await });
    cluster.platform.advance(millis(50));
    assert!(read.take().is_none());
    cluster.elect(2, 2);
    cluster.platform.settle();
    assert!(read.take().unwrap().is_ok());
}

#[test]
fn cut_off_from_the_majority_consistent_reads_fail_and_stale_ones_go_on() {
    let (server, standin, platform) = standin::server();
    platform.run(server.write(register("web", "web-1", &[]))).unwrap();
    standin.set_confirming(false);
    let began = platform.now();
    let read = platform.run(server.read(health("web", &[], false), now()));
    assert_eq!(read.unwrap_err(), ServerError::NoLeader);
    assert!(platform.now().saturating_since(began) <= limits::READ_TIMEOUT + millis(10));

    standin.follow(2, None);
    standin.set_last_contact(Some(secs(7)));
    let answer = platform
        .run(server.read(health("web", &[], false), stale(None)))
        .unwrap();
    assert_eq!(ids(&answer), ["web-1"]);
    assert!(!answer.known_leader);
    assert_eq!(answer.last_contact, secs(7));

    // A leader that it only knows from before it was started is none that it knows.
    standin.set_last_contact(None);
    let answer = platform
        .run(server.read(health("web", &[], false), stale(None)))
        .unwrap();
    assert!(!answer.known_leader);
}

#[test]
fn max_stale_asks_the_leader_when_it_was_not_heard_of_for_longer() {
    let cluster = cluster();
    let (follower, standin) = (&cluster.servers[1], &cluster.standins[1]);
    let read = |max| {
        cluster
            .platform
            .run(follower.read(health("web", &[], false), stale(Some(max))))
    };
    standin.set_last_contact(Some(secs(2)));
    assert_eq!(read(secs(3)).unwrap().last_contact, secs(2));
    assert_eq!(cluster.standins[0].read_rounds(), 0);
    assert!(read(secs(1)).unwrap().last_contact.is_zero());
    assert_eq!(cluster.standins[0].read_rounds(), 1);
    standin.set_last_contact(None);
    assert!(
        read(secs(3600)).unwrap().last_contact.is_zero(),
        "never heard of is older than any bound"
    );
    standin.disconnect(&cluster.standins[0]);
    assert_eq!(read(secs(1)).unwrap_err(), ServerError::NoLeader);
}

#[test]
fn an_answer_has_an_index_of_at_least_one() {
    let (server, _standin, platform) = standin::server();
    let answer = platform
        .run(server.read(health("web", &[], false), now()))
        .unwrap();
    assert_eq!(answer.index, 1);
}

#[test]
fn ready_once_a_linearizable_read_succeeds() {
    let cluster = cluster();
    assert_eq!(cluster.platform.run(cluster.servers[1].ready()), Ok(()));
    cluster.standins[1].follow(2, None);
    assert!(cluster.platform.run(cluster.servers[1].ready()).is_err());
    let alone = standin::member(
        "server-9",
        &cluster.platform,
        std::sync::Arc::new(sider_core::observe::NoObserver),
        false,
    );
    let reason = cluster.platform.run(alone.0.ready()).unwrap_err();
    assert_eq!(reason, "not a member of a cluster yet");
}
