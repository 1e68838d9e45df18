//! Renewals: what is acknowledged holds, and what changes nothing is not written.

use sider_core::{
    limits,
    registry::{CheckStatus, CheckTarget, Command, Expiry, Refusal},
    server::{Renewal, ServerError, standin},
};

use crate::clients::*;

const TTL: std::time::Duration = secs(10);

/// What the leader would propose to expire the check now.
fn expiry(platform: &standin::TestPlatform, server: &sider_core::server::Server, id: &str) -> Command {
    let key = check_key(id);
    let check = platform
        .run(server.inspect(true, |registry| registry.check(&key).cloned()))
        .unwrap()
        .unwrap();
    Command::ExpireChecks(vec![Expiry {
        check: key,
        renewals_seen: check.renewals,
        create_index_seen: check.create_index,
    }])
}

#[test]
fn a_renewal_moves_the_deadline_and_writes_nothing() {
    let (server, _standin, platform) = standin::server();
    platform
        .run(server.write(register_ttl("web", "web-1", TTL, CheckStatus::Passing)))
        .unwrap();
    for _ in 0..5 {
        platform.advance(secs(8));
        assert_eq!(
            platform.run(server.renew(pass("web-1"))).unwrap().outcomes,
            [Ok(())]
        );
    }
    assert_eq!(
        server.status().last_log_index,
        1,
        "renewals were written to the log"
    );
    platform.advance(TTL);
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
    platform.advance(limits::EXPIRY_BOUND);
    assert_eq!(
        status_of(&platform, &server, "web-1"),
        Some(CheckStatus::Critical)
    );
}

#[test]
fn through_a_follower_too_and_for_all_checks_of_an_instance() {
    let cluster = cluster();
    let platform = &cluster.platform;
    platform
        .run(cluster.servers[0].write(register_ttl("web", "web-1", TTL, CheckStatus::Passing)))
        .unwrap();
    let renewal = || Renewal {
        target: CheckTarget::TtlChecksOf(instance_key("web-1")),
        status: CheckStatus::Passing,
        output: None,
    };
    for _ in 0..3 {
        platform.advance(secs(8));
        let renewed = platform.run(cluster.servers[2].renew(vec![renewal()]));
        assert_eq!(renewed.unwrap().outcomes, [Ok(())]);
    }
    assert_eq!(
        status_of(platform, &cluster.servers[2], "web-1"),
        Some(CheckStatus::Passing)
    );
    assert_eq!(cluster.servers[0].status().last_log_index, 1);
}

#[test]
fn a_critical_check_is_revived_by_a_write() {
    let (server, _standin, platform) = standin::server();
    platform
        .run(server.write(register_ttl("web", "web-1", TTL, CheckStatus::Critical)))
        .unwrap();
    assert_eq!(
        platform.run(server.renew(pass("web-1"))).unwrap().outcomes,
        [Ok(())]
    );
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
    assert_eq!(server.status().last_log_index, 2);
    platform.advance(TTL);
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
}

#[test]
fn each_renewal_of_a_call_has_its_own_outcome() {
    let (server, standin, platform) = standin::server();
    for id in ["web-1", "web-2"] {
        standin.apply(&register_ttl("web", id, TTL, CheckStatus::Passing));
    }
    let renewals = vec![
        report("web-1", CheckStatus::Passing, None),
        report("nobody", CheckStatus::Passing, None),
        report("web-2", CheckStatus::Warning, None),
        Renewal {
            target: CheckTarget::TtlChecksOf(instance_key("nobody")),
            status: CheckStatus::Passing,
            output: None,
        },
    ];
    let rounds = standin.read_rounds();
    let outcomes = platform.run(server.renew(renewals)).unwrap().outcomes;
    assert_eq!(standin.read_rounds(), rounds + 1, "one round for all of a call");
    assert_eq!((&outcomes[0], &outcomes[2]), (&Ok(()), &Ok(())));
    assert!(matches!(outcomes[1], Err(Refusal::UnknownCheck(_))));
    assert!(matches!(outcomes[3], Err(Refusal::UnknownInstance(_))));
    assert_eq!(status_of(&platform, &server, "web-2"), Some(CheckStatus::Warning));
}

#[test]
fn the_last_report_of_a_call_counts() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    let reports = vec![
        report("web-1", CheckStatus::Critical, None),
        report("web-1", CheckStatus::Passing, None),
    ];
    platform.run(server.renew(reports)).unwrap();
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
}

#[test]
fn a_server_that_can_not_confirm_its_leadership_acknowledges_nothing() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    standin.set_confirming(false);
    let renewed = platform.run(server.renew(pass("web-1")));
    assert_eq!(renewed, Err(ServerError::NoLeader));
}

#[test]
fn a_renewal_that_meets_an_expiry_under_way_is_written() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    standin.hold_proposals();
    platform.advance(TTL + limits::EXPIRY_BOUND);
    assert_eq!(standin.held_proposals(), 1, "the expiry");
    let renewing = server.clone();
    let renewal = platform.start(async move { renewing.renew(pass("web-1")).await });
    assert_eq!(
        standin.held_proposals(),
        2,
        "the renewal was not written though the check may turn critical"
    );
    assert!(renewal.take().is_none());
    standin.release_proposals();
    platform.settle();
    assert_eq!(renewal.take().unwrap().unwrap().outcomes, [Ok(())]);
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
    platform.advance(TTL);
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
    platform.advance(limits::EXPIRY_BOUND);
    assert_eq!(
        status_of(&platform, &server, "web-1"),
        Some(CheckStatus::Critical)
    );
}

#[test]
fn an_expiry_of_unknown_outcome_can_not_undo_a_later_renewal() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    standin.hold_proposals();
    platform.advance(TTL + millis(200));
    let lost = standin.lose_proposals();
    assert_eq!(lost.len(), 1);
    platform.settle();
    let renewing = server.clone();
    let renewal = platform.start(async move { renewing.renew(pass("web-1")).await });
    standin.release_proposals();
    platform.settle();
    assert_eq!(renewal.take().unwrap().unwrap().outcomes, [Ok(())]);
    // It was in the log after all.
    standin.apply(&lost[0]);
    assert_eq!(status_of(&platform, &server, "web-1"), Some(CheckStatus::Passing));
}

#[test]
fn an_expiry_that_a_new_leader_inherits_does_not_undo_a_renewal() {
    let cluster = cluster();
    let platform = &cluster.platform;
    cluster.standins[0].apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    let inherited = expiry(platform, &cluster.servers[0], "web-1");
    cluster.elect(1, 2);
    // The new leader applies what it inherited before it gives a read index.
    cluster.standins[1].set_confirming(false);
    let server = cluster.servers[1].clone();
    let renewal = platform.start(async move { server.renew(pass("web-1")).await });
    cluster.standins[1].apply(&inherited);
    cluster.standins[1].set_confirming(true);
    platform.settle();
    assert_eq!(renewal.take().unwrap().unwrap().outcomes, [Ok(())]);
    assert_eq!(
        status_of(platform, &cluster.servers[1], "web-1"),
        Some(CheckStatus::Passing)
    );
}

#[test]
fn a_renewal_that_met_an_expiry_is_not_acknowledged_after_its_term() {
    let cluster = cluster();
    let (platform, standin) = (&cluster.platform, &cluster.standins[0]);
    standin.apply(&register_ttl("web", "web-1", TTL, CheckStatus::Passing));
    standin.hold_proposals();
    platform.advance(TTL + millis(200));
    let expiry = standin.lose_proposals();
    platform.settle();
    // The renewal arrives while that expiry may be on its way, and leadership is confirmed in the same term.
    standin.set_lagging(true);
    let server = cluster.servers[0].clone();
    let renewal = platform.start(async move { server.renew(pass("web-1")).await });
    // Then another server is elected that will apply the expiry: the state here does not show that.
    cluster.elect(1, 2);
    standin.disconnect(&cluster.standins[1]);
    platform.advance(millis(200));
    standin.set_lagging(false);
    platform.settle();
    assert_eq!(
        status_of(platform, &cluster.servers[0], "web-1"),
        Some(CheckStatus::Passing)
    );
    assert!(renewal.take().is_none(), "acknowledged, and about to be undone");
    standin.apply(&expiry[0]);
    platform.advance(limits::WRITE_TIMEOUT);
    assert_eq!(renewal.take().unwrap(), Err(ServerError::NoLeader));
}

#[test]
fn an_output_alone_is_held_back_and_the_newest_is_written() {
    let (server, _standin, platform) = standin::server();
    let registered = platform
        .run(server.write(register_ttl("web", "web-1", TTL, CheckStatus::Passing)))
        .unwrap();
    for output in ["one", "two", "three"] {
        let report = report("web-1", CheckStatus::Passing, Some(output));
        assert_eq!(
            platform.run(server.renew(vec![report])).unwrap().outcomes,
            [Ok(())]
        );
        platform.advance(secs(1));
    }
    assert_eq!(output_of(&platform, &server, "web-1"), "");
    platform.advance(limits::OUTPUT_HOLD - secs(3) + millis(200));
    assert_eq!(output_of(&platform, &server, "web-1"), "three");
    assert_eq!(server.status().last_log_index, 2);
    let index = platform
        .run(server.inspect(true, |registry| registry.index()))
        .unwrap();
    assert_eq!(index, registered.index, "an output takes no index");
}

#[test]
fn an_output_that_turned_back_is_not_written() {
    let (server, _standin, platform) = standin::server();
    platform
        .run(server.write(register_ttl("web", "web-1", TTL, CheckStatus::Passing)))
        .unwrap();
    for output in ["one", ""] {
        let report = report("web-1", CheckStatus::Passing, Some(output));
        platform.run(server.renew(vec![report])).unwrap();
    }
    platform.advance(limits::OUTPUT_HOLD + secs(1));
    assert_eq!(server.status().last_log_index, 1);
}

#[test]
fn a_held_output_never_overwrites_a_newer_one() {
    let (server, _standin, platform) = standin::server();
    platform
        .run(server.write(register_ttl("web", "web-1", TTL, CheckStatus::Passing)))
        .unwrap();
    let renew = |status, output| {
        platform
            .run(server.renew(vec![report("web-1", status, output)]))
            .unwrap()
    };
    renew(CheckStatus::Passing, Some("old"));
    renew(CheckStatus::Warning, Some("new"));
    platform.advance(limits::OUTPUT_HOLD + secs(1));
    assert_eq!(output_of(&platform, &server, "web-1"), "new");
    // Without an output of its own, a change of status brings the one that was held.
    renew(CheckStatus::Warning, Some("held"));
    renew(CheckStatus::Passing, None);
    assert_eq!(output_of(&platform, &server, "web-1"), "held");
}

#[test]
fn a_held_output_does_not_overwrite_what_an_expiry_says() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", secs(1), CheckStatus::Passing));
    let report = report("web-1", CheckStatus::Passing, Some("fine"));
    platform.run(server.renew(vec![report])).unwrap();
    platform.advance(limits::OUTPUT_HOLD + limits::EXPIRY_BOUND);
    assert_eq!(output_of(&platform, &server, "web-1"), "TTL expired");
}

#[test]
fn a_long_output_is_cut_once_and_then_the_same() {
    let (server, _standin, platform) = standin::server();
    platform
        .run(server.write(register_ttl("web", "web-1", TTL, CheckStatus::Critical)))
        .unwrap();
    let long = "ä".repeat(limits::CHECK_OUTPUT_BYTES_MAX);
    for _ in 0..2 {
        let report = report("web-1", CheckStatus::Passing, Some(&long));
        platform.run(server.renew(vec![report])).unwrap();
    }
    platform.advance(limits::OUTPUT_HOLD + secs(1));
    assert_eq!(
        output_of(&platform, &server, "web-1").len(),
        limits::CHECK_OUTPUT_BYTES_MAX
    );
    assert_eq!(server.status().last_log_index, 2);
}

#[test]
fn too_many_renewals_in_one_call_are_refused() {
    let (server, _standin, platform) = standin::server();
    let renewals = vec![report("web-1", CheckStatus::Passing, None); limits::BATCH_RENEWALS_MAX + 1];
    let refused = platform.run(server.renew(renewals));
    assert!(matches!(refused, Err(ServerError::OverLimit { .. })));
}
