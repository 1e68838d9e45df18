use sider_core::registry::CheckStatus::Passing;

use super::{super::story::Story, *};
use crate::{cluster_reads::Seat, history::FaultKind};

/// Three servers, of which the first leads, and which have been calm for long.
fn story() -> Story {
    let mut story = Story::new();
    story.name_voters(0, &[&[1, 2, 3]]);
    story.wait_ms(5_000);
    story
}

fn complaint(story: Story) -> String {
    check(&story.finish()).expect_err("not so").what
}

fn told(server: u8, ask: ClusterAsk, seen: ClusterSeen) -> Story {
    let mut story = story();
    story.ask_of_cluster(server, ask, seen);
    story
}

fn leader(server: u8) -> ClusterSeen {
    ClusterSeen::Leader(Some(ServerNumber(server)))
}

fn peers(servers: &[u8]) -> ClusterSeen {
    ClusterSeen::Peers(servers.iter().copied().map(ServerNumber).collect())
}

fn itself(leads: bool, term: u64, others: u64) -> ClusterSeen {
    ClusterSeen::Itself {
        leads,
        leader: Some(ServerNumber(1)),
        term,
        others,
    }
}

fn seats(leads: &[bool], votes: &[bool]) -> ClusterSeen {
    let seat = |((nth, leads), votes): ((u8, &bool), &bool)| Seat {
        server: ServerNumber(nth),
        leads: *leads,
        votes: *votes,
    };
    ClusterSeen::Configuration((1..).zip(leads).zip(votes).map(seat).collect())
}

#[test]
fn what_is_so_is_fine() {
    let mut story = story();
    let members = (1..=3).map(|server| (ServerNumber(server), true)).collect();
    let of_operators = true;
    for (ask, seen) in [
        (ClusterAsk::Leader, leader(1)),
        (ClusterAsk::Peers, peers(&[1, 2, 3])),
        (
            ClusterAsk::Configuration { of_operators },
            seats(&[true, false, false], &[true; 3]),
        ),
        (ClusterAsk::Itself, itself(true, 1, 2)),
        (ClusterAsk::Members, ClusterSeen::Members(members)),
    ] {
        story.ask_of_cluster(1, ask, seen);
    }
    assert_eq!(check(&story.finish()), Ok(()));
}

#[test]
fn another_leader_or_none_is_not() {
    assert!(complaint(told(2, ClusterAsk::Leader, leader(2))).contains("s1 leads"));
    assert!(complaint(told(2, ClusterAsk::Leader, ClusterSeen::Leader(None))).contains("s1 leads"));
    let mut story = story();
    story.fault(FaultKind::Disturbing, 1, 9_000);
    story.ask_of_cluster(2, ClusterAsk::Leader, ClusterSeen::Leader(None));
    story.ask_of_cluster(2, ClusterAsk::Leader, leader(1));
    let mut other = story;
    other.ask_of_cluster(2, ClusterAsk::Leader, leader(3));
    assert!(complaint(other).contains("s3 is said to lead, and has never led"));
}

#[test]
fn other_voters_are_not() {
    assert!(complaint(told(2, ClusterAsk::Peers, peers(&[1, 2]))).contains("are said to vote"));
    let ask = || ClusterAsk::Configuration { of_operators: true };
    let learner = seats(&[true, false, false], &[true, true, false]);
    assert!(complaint(told(2, ask(), learner)).contains("are said to vote"));
    let both = seats(&[true, true, false], &[true; 3]);
    assert!(complaint(told(2, ask(), both)).contains("two leaders"));
    let mut story = story();
    story.fault(FaultKind::Disturbing, 1, 9_000);
    story.ask_of_cluster(2, ClusterAsk::Peers, peers(&[1, 2]));
    assert!(complaint(story).contains("never did"));
}

#[test]
fn who_says_wrongly_what_it_is_is_not() {
    let itself = |seen| told(2, ClusterAsk::Itself, seen);
    assert_eq!(check(&itself(super::tests::itself(false, 1, 2)).finish()), Ok(()));
    assert!(complaint(itself(super::tests::itself(true, 1, 2))).contains("it says that it leads"));
    assert!(complaint(itself(super::tests::itself(false, 2, 2))).contains("its term"));
    assert!(complaint(itself(super::tests::itself(false, 1, 3))).contains("others are said to vote"));
}

#[test]
fn the_living_and_the_dead_are_told_apart() {
    let members = |third: Option<bool>| {
        let both = [(ServerNumber(1), true), (ServerNumber(2), true)];
        let third = third.map(|alive| (ServerNumber(3), alive));
        ClusterSeen::Members(both.into_iter().chain(third).collect())
    };
    let ask = || ClusterAsk::Members;
    assert!(complaint(told(1, ask(), members(Some(false)))).contains("s3 is said to have failed"));
    assert!(complaint(told(1, ask(), members(None))).contains("s3 is not among them"));
    let mut story = story();
    story.observe(3, Fact::Stopped { by_itself: None });
    story.wait_ms(5_000);
    story.ask_of_cluster(1, ask(), members(Some(false)));
    story.ask_of_cluster(1, ask(), members(Some(true)));
    assert!(complaint(story).contains("s3 is said to be alive, and is down"));
}

#[test]
fn who_hears_nobody_is_not_ready() {
    let ready = |ready: bool, heard: Option<u64>| {
        let mut story = story();
        let id = story.ask_of_cluster(2, ClusterAsk::Ready, ClusterSeen::Ready(ready));
        let operation = story.operation(id);
        operation.heard = Some(heard.map_or(Heard::Never, |ms| Heard::At(Time::ms(ms))));
        story
    };
    assert_eq!(check(&ready(true, Some(60_000)).finish()), Ok(()));
    assert!(complaint(ready(true, Some(100))).contains("nothing came from another server"));
    assert!(complaint(ready(true, None)).contains("nothing came from another server"));
    assert!(complaint(ready(false, Some(60_000))).contains("it is not ready"));
}

#[test]
fn what_was_never_there_is_not_counted() {
    let counts = |index, checks| {
        let mut story = story();
        story.register("web-1", 1);
        story.report("chk:web-1:0", Passing);
        let all = CheckStatus::ALL.map(|status| (status.as_str().to_owned(), 0));
        let mut counts = Counts {
            leads: true,
            index,
            instances: [(("default".to_owned(), "web".to_owned()), 1)].into(),
            checks: all.into(),
        };
        counts.checks.insert("passing".into(), checks);
        story.ask_of_cluster(1, ClusterAsk::Metrics, ClusterSeen::Metrics(Box::new(counts)));
        story
    };
    assert_eq!(check(&counts(3, 1).finish()), Ok(()));
    assert!(complaint(counts(4, 1)).contains("was not so"));
    assert!(complaint(counts(3, 2)).contains("was not so"));
}

/// Two events are fired at the first server, and a server lists what `edit` makes of them.
fn events(server: u8, wait_ms: u64, edit: impl Fn(&mut Vec<EventSeen>)) -> Story {
    let mut story = story();
    let mut heard = Vec::new();
    for nth in 1..=2 {
        let event = EventSeen {
            id: format!("00000000-0000-0000-0000-00000000000{nth}"),
            name: "deploy".into(),
            payload: format!("event-{nth}"),
            ltime: nth,
        };
        let fire = ClusterAsk::Fire {
            name: event.name.clone(),
            payload: event.payload.clone(),
        };
        story.ask_of_cluster(1, fire, ClusterSeen::Fired(event.id.clone()));
        heard.push(event);
    }
    story.wait_ms(wait_ms);
    edit(&mut heard);
    let index = heard.last().map_or(1, EventSeen::index);
    let list = ClusterAsk::Events {
        name: Some("deploy".into()),
    };
    story.ask_of_cluster(server, list, ClusterSeen::Events(index, heard));
    story
}

#[test]
fn events_are_told_by_whoever_was_told() {
    assert_eq!(check(&events(1, 0, |_| ()).finish()), Ok(()));
    assert_eq!(check(&events(2, 1_000, |_| ()).finish()), Ok(()));
    assert_eq!(check(&events(2, 10, Vec::clear).finish()), Ok(()));
    let missing = complaint(events(2, 1_000, Vec::clear));
    assert!(missing.contains("does not tell of \"event-1\""), "{missing}");
    assert!(complaint(events(1, 0, |heard| drop(heard.pop()))).contains("does not tell of \"event-2\""));
}

#[test]
fn events_that_nobody_fired_or_that_come_twice_are_not() {
    let spoilt = |edit: fn(&mut Vec<EventSeen>)| complaint(events(1, 0, edit));
    assert!(spoilt(|heard| heard[0].payload = "other".into()).contains("nobody fired"));
    assert!(spoilt(|heard| heard.push(heard[0].clone())).contains("it tells twice"));
    assert!(spoilt(|heard| heard[1].ltime = 1).contains("has time 1"));
    let mut story = events(1, 0, |_| ());
    let id = story.ask_of_cluster(
        1,
        ClusterAsk::Events { name: None },
        ClusterSeen::Events(7, vec![]),
    );
    assert!(id > 0);
    assert!(complaint(story).contains("its index is 7, should be 1"));
}

#[test]
fn events_of_another_name_are_not() {
    let mut story = events(1, 0, |_| ());
    let last = story.record().operations.last_mut().expect("the list");
    last.op = Op::Cluster(ClusterAsk::Events {
        name: Some("drain".into()),
    });
    assert!(complaint(story).contains("is of another name"));
}
