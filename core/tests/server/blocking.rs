//! Blocking queries: woken by what differs for them and by nothing else, never missing anything, never old.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use sider_core::{
    limits,
    registry::CheckStatus,
    server::{Answer, Platform as _, ReadOptions, Server, ServerError, standin},
};

use crate::clients::*;
use sider_core::server::standin::{Started, TestPlatform};

type Watching = Started<Result<Answer, ServerError>>;

fn watch(
    platform: &TestPlatform,
    server: &Server,
    query: sider_core::registry::Query,
    options: ReadOptions,
) -> Watching {
    let server = server.clone();
    platform.start(async move { server.read(query, options).await })
}

#[test]
fn a_change_wakes_at_once() {
    let (server, _standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &[])))
        .unwrap()
        .index;
    let watch = watch(
        &platform,
        &server,
        health("web", &[], false),
        after(index, secs(60)),
    );
    assert_eq!(server.watchers(), 1);
    platform.advance(secs(10));
    assert!(watch.take().is_none());
    platform.run(server.write(register("web", "web-2", &[]))).unwrap();
    platform.advance(limits::COALESCE_WINDOW);
    let answer = watch.take().unwrap().unwrap();
    assert_eq!(ids(&answer), ["web-1", "web-2"]);
    assert!(answer.index > index);
    assert_eq!(server.watchers(), 0);
}

#[test]
fn the_first_write_of_all_wakes_who_saw_nothing() {
    let (server, _standin, platform) = standin::server();
    let empty = platform
        .run(server.read(health("web", &[], false), now()))
        .unwrap();
    let watch = watch(
        &platform,
        &server,
        health("web", &[], false),
        after(empty.index, secs(60)),
    );
    platform.run(server.write(register("web", "web-1", &[]))).unwrap();
    platform.advance(limits::COALESCE_WINDOW);
    assert_eq!(ids(&watch.take().unwrap().unwrap()), ["web-1"]);
}

#[test]
fn what_changed_before_is_answered_without_waiting() {
    let (server, _standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &[])))
        .unwrap()
        .index;
    platform.run(server.write(register("web", "web-2", &[]))).unwrap();
    let began = platform.now();
    let answer = platform
        .run(server.read(health("web", &[], false), after(index, secs(60))))
        .unwrap();
    assert_eq!(ids(&answer), ["web-1", "web-2"]);
    assert_eq!(platform.now(), began);
}

#[test]
fn a_change_while_it_registers_is_not_missed() {
    let (server, standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &[])))
        .unwrap()
        .index;
    // It has registered and waits for its read index when the change comes.
    standin.set_confirming(false);
    let watch = watch(
        &platform,
        &server,
        health("web", &[], false),
        after(index, secs(60)),
    );
    standin.apply(&register("web", "web-2", &[]));
    platform.settle();
    assert!(watch.take().is_none());
    standin.set_confirming(true);
    platform.settle();
    assert_eq!(ids(&watch.take().unwrap().unwrap()), ["web-1", "web-2"]);
}

#[test]
fn churn_elsewhere_wakes_nobody_and_asks_nobody() {
    let (server, standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &["blue"])))
        .unwrap()
        .index;
    let of_service = watch(
        &platform,
        &server,
        health("web", &[], false),
        after(index, secs(60)),
    );
    let of_tag = watch(
        &platform,
        &server,
        health("web", &["blue"], false),
        after(index, secs(60)),
    );
    let rounds = standin.read_rounds();
    standin.apply(&register("db", "db-1", &[]));
    platform.advance(secs(1));
    assert!(of_service.take().is_none() && of_tag.take().is_none());
    // The same topic, but not what this one is shown.
    standin.apply(&register("web", "web-2", &["green"]));
    platform.advance(secs(1));
    assert_eq!(ids(&of_service.take().unwrap().unwrap()).len(), 2);
    assert!(of_tag.take().is_none());
    assert_eq!(
        standin.read_rounds(),
        rounds + 1,
        "only the one that was woken asked for a read index"
    );
    standin.apply(&register("web", "web-3", &["blue"]));
    platform.advance(secs(1));
    assert_eq!(ids(&of_tag.take().unwrap().unwrap()), ["web-1", "web-3"]);
}

#[test]
fn what_changes_and_changes_back_within_the_window_wakes_nobody() {
    let (server, standin, platform) = standin::server();
    platform
        .run(server.write(register_ttl("web", "web-1", secs(3600), CheckStatus::Critical)))
        .unwrap();
    let passing = || health("web", &[], true);
    let index = platform.run(server.read(passing(), now())).unwrap().index;
    let watch = watch(&platform, &server, passing(), after(index, secs(60)));
    let set = |status| {
        standin.apply(&sider_core::registry::Command::UpdateChecks(vec![
            sider_core::registry::CheckUpdate {
                target: sider_core::registry::CheckTarget::Check(check_key("web-1")),
                status: Some(status),
                output: None,
            },
        ]));
    };
    set(CheckStatus::Passing);
    set(CheckStatus::Critical);
    platform.advance(secs(10));
    assert!(watch.take().is_none());
    set(CheckStatus::Passing);
    platform.advance(secs(1));
    assert_eq!(ids(&watch.take().unwrap().unwrap()), ["web-1"]);
}

#[test]
fn a_count_that_no_answer_shows_wakes_nobody() {
    let (server, standin, platform) = standin::server();
    let register = |id: &str| {
        standin.apply(&register_ttl("web", id, secs(3600), CheckStatus::Passing));
    };
    register("web-1");
    register("web-2");
    let passing = || health("web", &[], true);
    let index = platform.run(server.read(passing(), now())).unwrap().index;
    let watch = watch(&platform, &server, passing(), after(index, secs(60)));
    let set = |id, status| {
        standin.apply(&sider_core::registry::Command::UpdateChecks(vec![
            sider_core::registry::CheckUpdate {
                target: sider_core::registry::CheckTarget::Check(check_key(id)),
                status: Some(status),
                output: None,
            },
        ]));
    };
    // Renewed by a write, as when an expiry was under way; the topic's index rises for an instance that comes and goes.
    set("web-1", CheckStatus::Passing);
    register("web-3");
    standin.apply(&deregister("web-3"));
    platform.advance(secs(10));
    assert!(watch.take().is_none());
    set("web-2", CheckStatus::Critical);
    platform.advance(secs(1));
    assert_eq!(ids(&watch.take().unwrap().unwrap()), ["web-1"]);
}

#[test]
fn at_its_timeout_it_answers_with_what_is_there() {
    let (server, _standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &[])))
        .unwrap()
        .index;
    let began = platform.now();
    let answer = platform
        .run(server.read(health("web", &[], false), after(index, secs(16))))
        .unwrap();
    assert_eq!((ids(&answer), answer.index), (vec!["web-1".to_owned()], index));
    let took = platform.now().saturating_since(began);
    assert!(took >= secs(16) && took <= secs(17), "{took:?}");
    assert_eq!(server.watchers(), 0);
}

#[test]
fn an_index_from_elsewhere_waits_to_the_end() {
    let (server, standin, platform) = standin::server();
    platform.run(server.write(register("web", "web-1", &[]))).unwrap();
    let watch = watch(
        &platform,
        &server,
        health("web", &[], false),
        after(1000, secs(16)),
    );
    standin.apply(&register("web", "web-2", &[]));
    platform.advance(secs(15));
    assert!(watch.take().is_none());
    platform.advance(secs(2));
    assert_eq!(ids(&watch.take().unwrap().unwrap()).len(), 2);
}

#[test]
fn at_its_timeout_without_a_leader_it_fails() {
    let (server, standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &[])))
        .unwrap()
        .index;
    let watch = watch(
        &platform,
        &server,
        health("web", &[], false),
        after(index, secs(16)),
    );
    standin.set_confirming(false);
    platform.advance(secs(17) + limits::READ_TIMEOUT);
    assert_eq!(watch.take().unwrap().unwrap_err(), ServerError::NoLeader);
}

#[test]
fn woken_but_not_certain_to_be_up_to_date_it_does_not_answer() {
    let (server, standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &[])))
        .unwrap()
        .index;
    let watch = watch(
        &platform,
        &server,
        health("web", &[], false),
        after(index, secs(60)),
    );
    standin.set_confirming(false);
    standin.apply(&register("web", "web-2", &[]));
    platform.advance(secs(1));
    assert!(watch.take().is_none());
    platform.advance(limits::READ_TIMEOUT);
    assert_eq!(watch.take().unwrap().unwrap_err(), ServerError::NoLeader);
}

#[test]
fn a_stale_one_needs_no_leader() {
    let (server, standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &[])))
        .unwrap()
        .index;
    standin.follow(2, None);
    let options = ReadOptions {
        index: Some(index),
        wait: secs(60),
        ..stale(None)
    };
    let watch = watch(&platform, &server, health("web", &[], false), options);
    platform.advance(secs(1));
    assert!(watch.take().is_none());
    standin.apply(&register("web", "web-2", &[]));
    platform.advance(secs(1));
    assert!(!watch.take().unwrap().unwrap().known_leader);
}

#[test]
fn a_waiter_that_is_dropped_is_forgotten() {
    let (server, _standin, platform) = standin::server();
    let watch = watch(&platform, &server, health("web", &[], false), after(1, secs(60)));
    assert_eq!(server.watchers(), 1);
    drop(watch);
    assert_eq!(server.watchers(), 0);
}

#[test]
fn a_parked_query_is_small() {
    let (server, _standin, _platform) = standin::server();
    let read = server.read(health("web", &[], false), after(1, secs(60)));
    let bytes = std::mem::size_of_val(&read);
    assert!(bytes <= 2_048, "{bytes} bytes");
}

#[test]
fn a_snapshot_wakes_those_who_see_a_difference() {
    let (server, standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &[])))
        .unwrap()
        .index;
    let of_web = watch(
        &platform,
        &server,
        health("web", &[], false),
        after(index, secs(60)),
    );
    let of_db = watch(
        &platform,
        &server,
        health("db", &[], false),
        after(index, secs(60)),
    );
    let mut registry = sider_core::registry::Registry::default();
    registry.apply(&register("web", "web-1", &[]));
    registry.apply(&register("db", "db-1", &[]));
    standin.install(registry);
    platform.advance(secs(1));
    assert!(of_web.take().is_none());
    assert_eq!(ids(&of_db.take().unwrap().unwrap()), ["db-1"]);
}

#[test]
fn thousands_share_one_round_one_view_and_its_bytes() {
    let (server, standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &[])))
        .unwrap()
        .index;
    let watches: Vec<Watching> = (0..5_000)
        .map(|_| {
            watch(
                &platform,
                &server,
                health("web", &[], false),
                after(index, secs(60)),
            )
        })
        .collect();
    let rounds = standin.read_rounds();
    standin.apply(&register("web", "web-2", &[]));
    platform.advance(secs(1));
    assert!(
        standin.read_rounds() <= rounds + 2,
        "{}",
        standin.read_rounds() - rounds
    );
    let encoded = AtomicUsize::new(0);
    let answers: Vec<Answer> = watches
        .iter()
        .map(|watch| watch.take().unwrap().unwrap())
        .collect();
    for answer in &answers {
        assert!(Arc::ptr_eq(&answer.view, &answers[0].view));
        answer.view.bytes(|_| {
            encoded.fetch_add(1, Ordering::Relaxed);
            Bytes::from_static(b"view")
        });
    }
    assert_eq!(encoded.into_inner(), 1);
}
