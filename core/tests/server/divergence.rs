//! A server whose state differs from the majority's stops serving.

use sider_core::{limits, server::ServerError};

use crate::clients::*;

#[test]
fn a_follower_that_differs_stops_and_the_others_go_on() {
    let cluster = cluster();
    let platform = &cluster.platform;
    cluster.standins[0].apply(&register("web", "web-1", &[]));
    platform.advance(limits::DIGEST_INTERVAL + secs(1));
    let read = |server: usize| platform.run(cluster.servers[server].read(health("web", &[], false), now()));
    assert!(
        (0..3).all(|server| read(server).is_ok()),
        "equal states are left alone"
    );

    // The third one applies something else at the next log index.
    cluster.standins[2].apply_instead(&register("db", "db-1", &[]));
    cluster.standins[0].apply(&register("web", "web-2", &[]));
    platform.advance(limits::DIGEST_INTERVAL);
    let stopped = read(2).unwrap_err();
    assert!(
        matches!(&stopped, ServerError::Stopped(reason) if reason.contains("differs")),
        "{stopped}"
    );
    assert!(matches!(
        platform.run(cluster.servers[2].write(deregister("web-1"))),
        Err(ServerError::Stopped(_))
    ));
    assert!(cluster.servers[2].status().fatal.unwrap().contains("differs"));
    assert!(read(0).is_ok() && read(1).is_ok());
}

#[test]
fn a_leader_that_differs_stops_itself() {
    let cluster = cluster();
    let platform = &cluster.platform;
    cluster.standins[0].apply_instead(&register("db", "db-1", &[]));
    cluster.standins[0].apply(&register("web", "web-1", &[]));
    platform.advance(limits::DIGEST_INTERVAL + secs(1));
    let read = platform.run(cluster.servers[0].read(health("web", &[], false), stale(None)));
    assert!(matches!(read, Err(ServerError::Stopped(_))));
    let read = platform.run(cluster.servers[1].read(health("web", &[], false), stale(None)));
    assert_eq!(ids(&read.unwrap()), ["web-1"]);
}
