//! Expiry: not before the TTL, not later than its bound, whatever happens to the leader.

use std::sync::{Arc, Mutex};

use sider_core::{
    limits,
    observe::{Observation, Observer},
    registry::CheckStatus,
    server::standin,
};

use crate::clients::*;

const TTL: std::time::Duration = secs(10);

#[test]
fn an_unrenewed_check_turns_critical_between_its_ttl_and_the_bound() {
    let (server, standin, platform) = standin::server();
    for (id, status) in [
        ("passing", CheckStatus::Passing),
        ("warning", CheckStatus::Warning),
    ] {
        standin.apply(&register_ttl("web", id, TTL, status));
        platform.advance(TTL);
        assert_eq!(status_of(&platform, &server, id), Some(status));
        platform.advance(limits::EXPIRY_BOUND);
        assert_eq!(status_of(&platform, &server, id), Some(CheckStatus::Critical));
    }
}

#[test]
fn thousands_expire_together_in_commands_of_bounded_size() {
    #[derive(Default)]
    struct Proposed(Mutex<Vec<usize>>);
    impl Observer for Proposed {
        fn observe(&self, observation: Observation<'_>) {
            if let Observation::ExpiryProposed { checks } = observation {
                self.0.lock().unwrap().push(checks);
            }
        }
    }
    let platform = standin::TestPlatform::new();
    let proposed = Arc::new(Proposed::default());
    let (server, standin) = standin::member("server-1", &platform, proposed.clone(), false);
    standin.lead(1);
    for id in 0..2_500 {
        standin.apply(&register_ttl(
            "web",
            &format!("web-{id}"),
            TTL,
            CheckStatus::Passing,
        ));
    }
    platform.advance(TTL + limits::EXPIRY_BOUND);
    let critical = platform.run(server.inspect(true, |registry| {
        registry
            .checks()
            .filter(|check| check.status == CheckStatus::Critical)
            .count()
    }));
    assert_eq!(critical, Ok(2_500));
    let proposed = proposed.0.lock().unwrap();
    assert_eq!(proposed.iter().sum::<usize>(), 2_500);
    assert!(
        proposed
            .iter()
            .all(|checks| *checks <= limits::EXPIRIES_PER_COMMAND_MAX)
    );
}

#[test]
fn a_check_that_was_registered_anew_lives_its_ttl_anew() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    platform.advance(secs(9));
    standin.apply(&deregister("web-1"));
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    platform.advance(TTL);
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
    platform.advance(limits::EXPIRY_BOUND);
    assert_eq!(
        status_of(&platform, &server, "web-1"),
        Some(CheckStatus::Critical)
    );
}

#[test]
fn a_new_leader_grants_a_full_ttl() {
    let cluster = cluster();
    let platform = &cluster.platform;
    cluster.standins[0].apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    platform.advance(secs(9));
    cluster.elect(1, 2);
    platform.advance(TTL);
    assert_eq!(
        status_of(platform, &cluster.servers[1], "web-1"),
        Some(CheckStatus::Passing)
    );
    platform.advance(limits::EXPIRY_BOUND);
    assert_eq!(
        status_of(platform, &cluster.servers[1], "web-1"),
        Some(CheckStatus::Critical)
    );
    assert_eq!(
        cluster.servers[0].status().last_log_index,
        1,
        "the deposed leader expired it, too"
    );
}

#[test]
fn the_same_server_elected_again_grants_a_full_ttl() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    platform.advance(secs(9));
    // Too quick for the background work to see that it followed in between.
    standin.follow(2, None);
    standin.lead(3);
    platform.advance(TTL);
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
    platform.advance(limits::EXPIRY_BOUND);
    assert_eq!(
        status_of(&platform, &server, "web-1"),
        Some(CheckStatus::Critical)
    );
}

#[test]
fn a_pause_of_the_leader_is_added_to_every_deadline() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    platform.advance(secs(5));
    platform.pause(secs(60));
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
    platform.advance(secs(5) - millis(200));
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
    platform.advance(limits::EXPIRY_BOUND);
    assert_eq!(
        status_of(&platform, &server, "web-1"),
        Some(CheckStatus::Critical)
    );
}

#[test]
fn a_renewal_that_is_received_right_after_a_pause_is_not_granted_the_pause() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    // The renewal was sent during the pause, and is received before the background work looks at the clock.
    let renewing = server.clone();
    platform.advance(millis(50));
    let renewal = {
        let wake = sider_core::server::Platform::now(&*platform) + secs(60);
        let sleep = sider_core::server::Platform::sleep_until(&*platform, wake);
        platform.start(async move {
            sleep.await;
            renewing.renew(pass("web-1")).await
        })
    };
    platform.pause(secs(60));
    assert_eq!(renewal.take().unwrap().unwrap().outcomes, [Ok(())]);
    platform.advance(TTL);
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
    platform.advance(limits::EXPIRY_BOUND);
    assert_eq!(
        status_of(&platform, &server, "web-1"),
        Some(CheckStatus::Critical)
    );
}

#[test]
fn a_leader_without_a_quorum_does_not_pile_up_expiries() {
    let (_server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    standin.hold_proposals();
    platform.advance(secs(60));
    assert_eq!(standin.held_proposals(), 1);
}

#[test]
fn an_expiry_that_was_lost_is_proposed_again() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    standin.hold_proposals();
    platform.advance(TTL + millis(200));
    assert_eq!(standin.lose_proposals().len(), 1);
    platform.advance(secs(1));
    standin.release_proposals();
    assert_eq!(
        status_of(&platform, &server, "web-1"),
        Some(CheckStatus::Critical)
    );
}

#[test]
fn an_instance_that_stays_critical_is_deregistered() {
    let (server, standin, platform) = standin::server();
    let register = |id: &str, status| {
        register_check("web", id, status, |definition| {
            definition.deregister_critical_service_after = secs(30);
        })
    };
    standin.apply(&register("sick", CheckStatus::Critical));
    standin.apply(&register("well", CheckStatus::Passing));
    standin.apply(&register("revived", CheckStatus::Critical));
    platform.advance(secs(20));
    // Reported again and again: the time goes on.
    platform
        .run(server.renew(vec![report("sick", CheckStatus::Critical, None)]))
        .unwrap();
    platform
        .run(server.renew(vec![report("revived", CheckStatus::Passing, None)]))
        .unwrap();
    platform
        .run(server.renew(vec![report("revived", CheckStatus::Critical, None)]))
        .unwrap();
    platform.advance(secs(9));
    let left = || {
        ids(&platform
            .run(server.read(health("web", &[], false), now()))
            .unwrap())
    };
    assert_eq!(left(), ["revived", "sick", "well"]);
    platform.advance(secs(2));
    assert_eq!(left(), ["revived", "well"]);
    platform.advance(secs(20));
    assert_eq!(left(), ["well"]);
}

#[test]
fn an_instance_that_recovers_while_its_deregistration_is_under_way_stays() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_check(
        "web",
        "web-1",
        CheckStatus::Critical,
        |definition| {
            definition.deregister_critical_service_after = secs(30);
        },
    ));
    standin.hold_proposals();
    platform.advance(secs(29));
    let renewing = server.clone();
    let renewal = platform.start(async move {
        renewing
            .renew(vec![report("web-1", CheckStatus::Passing, None)])
            .await
    });
    platform.advance(secs(2));
    assert_eq!(standin.held_proposals(), 2, "the report, then the deregistration");
    standin.release_proposals();
    platform.settle();
    assert_eq!(renewal.take().unwrap().unwrap().outcomes, [Ok(())]);
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
}
