//! Streams: the newest state each time that it differs for them, at whatever pace their client takes it.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use sider_core::{
    limits,
    registry::{CheckStatus, Registry},
    server::{
        ReadOptions, Server, ServerError, StreamEnd, StreamEvent, WatchStream,
        standin::{self, Started, TestPlatform},
    },
};

use crate::clients::*;

/// A client that takes every event at once.
struct Reader {
    seen: Arc<Mutex<Vec<StreamEvent>>>,
    _task: Started<()>,
}

impl Reader {
    fn of(platform: &TestPlatform, mut stream: WatchStream) -> Reader {
        let seen = Arc::<Mutex<Vec<StreamEvent>>>::default();
        let told = seen.clone();
        let task = platform.start(async move {
            while let Some(event) = stream.next().await {
                told.lock().unwrap().push(event);
            }
        });
        Reader { seen, _task: task }
    }

    /// What came since it was last asked.
    fn take(&self) -> Vec<StreamEvent> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn open(platform: &TestPlatform, server: &Server, options: ReadOptions) -> Result<WatchStream, ServerError> {
    platform.run(server.watch(health("web", &[], false), options))
}

/// The ids of the instances that an event shows, and its index.
fn shown(event: &StreamEvent) -> (Vec<String>, u64) {
    match event {
        StreamEvent::Changed(answer) => (ids(answer), answer.index),
        other => panic!("{other:?}"),
    }
}

fn only(events: &[StreamEvent]) -> (Vec<String>, u64) {
    assert_eq!(events.len(), 1, "{events:?}");
    shown(&events[0])
}

#[test]
fn what_is_there_comes_first_and_then_what_differs() {
    let (server, _standin, platform) = standin::server();
    platform.run(server.write(register("web", "web-1", &[]))).unwrap();
    let reader = Reader::of(&platform, open(&platform, &server, now()).unwrap());
    let (first, index) = only(&reader.take());
    assert_eq!(first, ["web-1"]);

    platform.run(server.write(register("db", "db-1", &[]))).unwrap();
    platform.run(server.write(register("web", "web-1", &[]))).unwrap();
    platform.advance(secs(1));
    assert!(reader.take().is_empty(), "nothing differs");

    let written = platform.run(server.write(register("web", "web-2", &[]))).unwrap();
    platform.advance(limits::COALESCE_WINDOW);
    let (second, later) = only(&reader.take());
    assert_eq!(second, ["web-1", "web-2"]);
    assert_eq!(later, written.index);
    assert!(later > index);
}

#[test]
fn who_has_it_already_is_given_what_came_since() {
    let (server, _standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &[])))
        .unwrap()
        .index;
    let reader = Reader::of(
        &platform,
        open(&platform, &server, after(index, secs(1))).unwrap(),
    );
    platform.advance(secs(2));
    assert!(
        reader.take().is_empty(),
        "it has that, and the wait of a query means nothing here"
    );

    platform.run(server.write(register("web", "web-2", &[]))).unwrap();
    let late = Reader::of(
        &platform,
        open(&platform, &server, after(index, secs(1))).unwrap(),
    );
    assert_eq!(only(&late.take()).0, ["web-1", "web-2"]);
}

#[test]
fn an_index_of_another_cluster_says_nothing() {
    let (server, _standin, platform) = standin::server();
    let index = platform
        .run(server.write(register("web", "web-1", &[])))
        .unwrap()
        .index;
    let reader = Reader::of(
        &platform,
        open(&platform, &server, after(index + 1_000, secs(1))).unwrap(),
    );
    assert_eq!(only(&reader.take()), (vec!["web-1".to_owned()], index));
}

#[test]
fn a_stale_server_behind_its_client_waits_until_it_is_not() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register("web", "web-1", &[]));
    let had = platform
        .run(server.read(health("web", &[], false), now()))
        .unwrap()
        .index;
    // The client has what comes with the next two writes from another server.
    let options = ReadOptions {
        index: Some(had + 2),
        ..stale(None)
    };
    let reader = Reader::of(&platform, open(&platform, &server, options).unwrap());
    assert!(reader.take().is_empty(), "it would go back");
    for id in ["web-2", "web-3"] {
        standin.apply(&register("web", id, &[]));
        platform.advance(secs(1));
        assert!(reader.take().is_empty(), "the client has that");
    }
    standin.apply(&register("web", "web-4", &[]));
    platform.advance(secs(1));
    assert_eq!(only(&reader.take()).1, had + 3);
}

#[test]
fn a_slow_client_gets_the_newest_state_once_and_holds_nobody_back() {
    let (server, _standin, platform) = standin::server();
    platform.run(server.write(register("web", "web-0", &[]))).unwrap();
    let mut slow = open(&platform, &server, now()).unwrap();
    let quick = Reader::of(&platform, open(&platform, &server, now()).unwrap());
    shown(&platform.run(slow.next()).unwrap());
    quick.take();
    for round in 1..100 {
        platform
            .run(server.write(register("web", &format!("web-{round:02}"), &[])))
            .unwrap();
        platform.advance(secs(1));
        assert_eq!(quick.take().len(), 1);
    }
    let (ids, index) = shown(&platform.run(slow.next()).unwrap());
    assert_eq!(ids.len(), 100);
    let newest = platform
        .run(server.read(health("web", &[], false), now()))
        .unwrap();
    assert_eq!(index, newest.index);
    let event = platform.run(slow.next()).unwrap();
    assert!(matches!(event, StreamEvent::Unchanged), "{event:?}");
}

#[test]
fn a_burst_is_folded() {
    let (server, standin, platform) = standin::server();
    let reader = Reader::of(&platform, open(&platform, &server, now()).unwrap());
    reader.take();
    let rounds = standin.read_rounds();
    for instance in 0..50 {
        standin.apply(&register("web", &format!("web-{instance}"), &[]));
    }
    platform.advance(secs(1));
    assert_eq!(only(&reader.take()).0.len(), 50);
    assert_eq!(standin.read_rounds(), rounds + 1);
}

#[test]
fn it_says_that_nothing_differs_only_after_it_asked() {
    let (server, standin, platform) = standin::server();
    let reader = Reader::of(&platform, open(&platform, &server, now()).unwrap());
    reader.take();
    let rounds = standin.read_rounds();
    platform.advance(limits::STREAM_KEEP_ALIVE);
    assert!(matches!(reader.take()[..], [StreamEvent::Unchanged]));
    assert_eq!(standin.read_rounds(), rounds + 1);

    standin.set_confirming(false);
    platform.advance(limits::STREAM_KEEP_ALIVE);
    assert!(reader.take().is_empty());
    platform.advance(limits::READ_TIMEOUT);
    let seen = reader.take();
    assert!(
        matches!(
            seen[..],
            [StreamEvent::Ended(StreamEnd::Failed(ServerError::NoLeader))]
        ),
        "{seen:?}"
    );
    assert_eq!(server.watchers(), 0);
}

#[test]
fn what_changes_without_a_difference_does_not_keep_it_from_speaking() {
    let (server, standin, platform) = standin::server();
    let query = health("web", &["blue"], false);
    let stream = platform.run(server.watch(query, now())).unwrap();
    let reader = Reader::of(&platform, stream);
    reader.take();
    let mut spoken = 0;
    for round in 0..400_u64 {
        standin.apply(&register(
            "web",
            &format!("web-{}", round % 2),
            &[&format!("tag-{round}")],
        ));
        platform.advance(limits::STREAM_KEEP_ALIVE / 100);
        spoken += reader.take().len();
    }
    assert_eq!(spoken, 4);
}

#[test]
fn one_that_lost_the_leader_shows_nothing_old() {
    let (server, standin, platform) = standin::server();
    let reader = Reader::of(&platform, open(&platform, &server, now()).unwrap());
    reader.take();
    standin.set_confirming(false);
    standin.apply(&register("web", "web-1", &[]));
    platform.advance(secs(1) + limits::READ_TIMEOUT);
    let seen = reader.take();
    assert!(
        matches!(
            seen[..],
            [StreamEvent::Ended(StreamEnd::Failed(ServerError::NoLeader))]
        ),
        "{seen:?}"
    );
    assert!(open(&platform, &server, now()).is_err());
    let stale = Reader::of(&platform, open(&platform, &server, stale(None)).unwrap());
    assert_eq!(only(&stale.take()).0, ["web-1"]);
}

#[test]
fn the_output_of_a_check_alone_is_no_event() {
    let (server, standin, platform) = standin::server();
    standin.apply(&register_ttl("web", "web-1", secs(600), CheckStatus::Critical));
    let reader = Reader::of(&platform, open(&platform, &server, now()).unwrap());
    reader.take();
    let still = report("web-1", CheckStatus::Critical, Some("still"));
    platform.run(server.renew(vec![still])).unwrap();
    platform.advance(limits::OUTPUT_HOLD + secs(1));
    assert_eq!(output_of(&platform, &server, "web-1"), "still");
    assert!(reader.take().is_empty());
    platform.run(server.renew(pass("web-1"))).unwrap();
    platform.advance(secs(1));
    assert_eq!(only(&reader.take()).0, ["web-1"]);
}

#[test]
fn it_ends_when_it_was_open_for_long_enough() {
    let (server, _standin, platform) = standin::server();
    let reader = Reader::of(&platform, open(&platform, &server, now()).unwrap());
    platform.advance(limits::STREAM_LIFE - secs(1));
    let before = reader.take();
    assert!(!before.iter().any(|event| matches!(event, StreamEvent::Ended(_))));
    platform.advance(limits::STREAM_LIFE / limits::WAIT_SPREAD_DIVISOR + secs(1));
    let seen = reader.take();
    assert!(
        matches!(seen.last(), Some(StreamEvent::Ended(StreamEnd::LivedOut))),
        "{seen:?}"
    );
}

#[test]
fn one_that_is_dropped_leaves_nothing() {
    let (server, _standin, platform) = standin::server();
    let streams = |used: usize| {
        let held = server.occupancy();
        let streams = held.iter().find(|held| held.what == "streams").unwrap();
        assert!(streams.passing);
        assert_eq!(streams.used, used);
        assert_eq!(server.watchers(), used);
    };
    streams(0);
    let stream = open(&platform, &server, now()).unwrap();
    let reader = Reader::of(&platform, open(&platform, &server, now()).unwrap());
    streams(2);
    drop(stream);
    streams(1);
    drop(reader);
    streams(0);
}

#[test]
fn a_snapshot_shows_those_who_see_a_difference() {
    let (server, standin, platform) = standin::server();
    platform.run(server.write(register("web", "web-1", &[]))).unwrap();
    let reader = Reader::of(&platform, open(&platform, &server, now()).unwrap());
    reader.take();
    let mut registry = Registry::default();
    registry.apply(&register("web", "web-1", &[]));
    registry.apply(&register("db", "db-1", &[]));
    registry.apply(&register("web", "web-2", &[]));
    standin.install(registry);
    platform.advance(secs(1));
    assert_eq!(only(&reader.take()).0, ["web-1", "web-2"]);
}
