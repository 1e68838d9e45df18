//! A state as a file, and a file as the state.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use sider_core::{
    limits::SNAPSHOT_CHUNK_BYTES,
    registry::{
        CheckDefinition, CheckDefinitionUpdate, CheckId, CheckKey, CheckStatus, CheckTarget, CheckUpdate,
        Command, Deregister, Event, Expiry, Instance, InstanceId, Keeps, Key, KeyValue, KeyWrite, Namespace,
        NewSession, Node, NodeName, Operation, Probe, Registration, Registry, Reply, Restore, ServiceName,
        Session, SessionBehavior, SessionId, Snapshot, SnapshotError, SnapshotWriter, Topic, Weights,
    },
};

// --- The file.

#[test]
fn a_file_holds_the_whole_state_whatever_its_size() {
    for instances in [0, 1, 3_000] {
        let registry = filled(instances);
        let pieces: Vec<Bytes> = SnapshotWriter::new(&registry, "1.2.3").collect();
        assert!(
            pieces
                .iter()
                .all(|piece| piece.len() <= SNAPSHOT_CHUNK_BYTES + 64)
        );
        let snapshot = Snapshot::parse(&Bytes::from(pieces.concat())).expect("what was written is sound");
        assert_eq!(snapshot.program, "1.2.3");
        assert_eq!(snapshot.registry().index(), registry.index());
        assert_eq!(snapshot.digest, registry.digest());
        assert!(snapshot.registry().rows().eq(registry.rows()));
    }
}

#[test]
fn what_is_about_the_servers_is_no_part_of_a_file() {
    let mut registry = filled(2);
    let plain = file(&registry);
    registry.apply(&Command::RaiseVersion(2));
    registry.apply(&Command::Restore(Restore::Stage {
        restore: 1,
        part: 0,
        rows: vec![1, 2, 3],
    }));
    assert_eq!(file(&registry), plain);
}

#[test]
fn every_cut_and_every_flipped_bit_is_noticed() {
    let whole = file(&filled(3));
    for length in 0..whole.len() {
        let error = Snapshot::parse(&whole.slice(..length)).expect_err("a part is no snapshot");
        assert!(
            matches!(
                error,
                SnapshotError::CutOff | SnapshotError::Foreign | SnapshotError::Spoilt(_)
            ),
            "{length}: {error}"
        );
    }
    for bit in 0..whole.len() * 8 {
        let mut spoilt = whole.to_vec();
        spoilt[bit / 8] ^= 1 << (bit % 8);
        assert!(Snapshot::parse(&Bytes::from(spoilt)).is_err(), "bit {bit}");
    }
    let longer = [&whole[..], b"x"].concat();
    assert!(matches!(
        Snapshot::parse(&Bytes::from(longer)),
        Err(SnapshotError::Spoilt(_))
    ));
}

#[test]
fn files_of_others_and_of_newer_programs_are_told_apart() {
    for foreign in [
        "",
        "PK\u{3}\u{4}",
        "{\"index\": 7}",
        "sider-snapshot\n",
        "sider-snapshotted 1 index=2\n",
    ] {
        let error = Snapshot::parse(&Bytes::from(foreign)).expect_err("it is no snapshot");
        assert_eq!(error, SnapshotError::Foreign, "{foreign:?}");
    }
    let newer = file(&filled(1)).to_vec();
    let newer = String::from_utf8_lossy(&newer[..16])
        .replace(" 1", " 2")
        .into_bytes();
    let error = Snapshot::parse(&Bytes::from([&newer[..], b" index=2\n"].concat())).expect_err("it is newer");
    assert_eq!(error, SnapshotError::UnknownVersion("2".into()));
}

// --- The restore.

#[test]
fn a_restore_brings_everything_back_and_takes_the_rest_away() {
    let mut registry = filled(3);
    let saved = snapshot(&registry);
    let before: Vec<Instance> = registry.instances().cloned().collect();
    registry.apply(&Command::Deregister(Deregister::Node(node_name("n1"))));
    registry.apply(&Command::Register(vec![registration("late-1", "late")]));
    let index = registry.index();

    let applied = restore(&mut registry, &saved);
    assert_eq!(applied.reply, Ok(Reply::Done));
    assert_eq!(applied.index, index + 1);
    assert!(
        registry.instances().eq(&before),
        "also with the indexes that they had"
    );
    let web = Topic::Service(Namespace::default(), service_name("web"));
    let late = Topic::Service(Namespace::default(), service_name("late"));
    assert!(applied.topics.contains(&web) && applied.topics.contains(&late));
    let unknown = Topic::Service(Namespace::default(), service_name("never-heard-of"));
    for topic in [&web, &late, &unknown] {
        assert_eq!(registry.version(topic).index, index + 1, "{topic:?}");
    }
    assert!(!applied.topics.contains(&unknown), "nobody is woken for nothing");
    assert_eq!(registry.staged(), None);
    is_consistent(&registry);
}

#[test]
fn the_index_rises_above_that_of_a_file_from_elsewhere() {
    let elsewhere = filled(40);
    let saved = snapshot(&elsewhere);
    let mut registry = Registry::default();
    let applied = restore(&mut registry, &saved);
    assert_eq!(applied.index, elsewhere.index() + 1);
    assert!(registry.instances().eq(elsewhere.instances()));
    // What was gone there, too, is asked for with an index from there.
    let gone = Topic::Service(Namespace::default(), service_name("gone"));
    assert!(registry.version(&gone).index >= elsewhere.version(&gone).index);
    is_consistent(&registry);
    let next = registry.apply(&Command::Deregister(Deregister::Node(node_name("n1"))));
    assert_eq!(next.index, applied.index + 1);
}

#[test]
fn what_is_the_same_stays_and_wakes_nobody_but_takes_an_index() {
    let mut registry = filled(3);
    let saved = snapshot(&registry);
    let before: Vec<Instance> = registry.instances().cloned().collect();
    let applied = restore(&mut registry, &saved);
    assert!(applied.changed);
    assert_eq!(applied.topics, []);
    assert!(registry.instances().eq(&before));
}

#[test]
fn an_expiry_that_was_decided_before_is_refused_however_alike_the_check_is() {
    let mut registry = filled(1);
    registry.apply(&Command::UpdateChecks(vec![CheckUpdate {
        target: CheckTarget::Check(check_key("web-0")),
        status: Some(CheckStatus::Passing),
        output: None,
    }]));
    let saved = snapshot(&registry);
    let check = registry.check(&check_key("web-0")).expect("registered");
    let decided = Command::ExpireChecks(vec![Expiry {
        check: check.key(),
        renewals_seen: check.renewals,
        create_index_seen: check.create_index,
    }]);
    let applied = restore(&mut registry, &saved);
    assert!(
        applied
            .events
            .contains(&Event::CheckRegistered(check_key("web-0"))),
        "its time starts over: {:?}",
        applied.events
    );
    let digest = registry.digest();
    let expired = registry.apply(&decided);
    assert_eq!(
        expired.reply,
        Ok(Reply::Each(vec![Err(
            sider_core::registry::Refusal::RenewedSince
        )]))
    );
    assert_eq!(registry.digest(), digest);
}

#[test]
fn keys_sessions_and_delays_of_locks_come_back() {
    let mut registry = Registry::default();
    for name in ["holder", "gone"] {
        registry.apply(&session(name));
    }
    transact(
        &mut registry,
        Operation::Lock(write("held", "a"), Some(session_id("holder"))),
    );
    transact(
        &mut registry,
        Operation::Lock(write("delayed", "b"), Some(session_id("gone"))),
    );
    registry.apply(&Command::DestroySession(session_id("gone")));
    transact(&mut registry, Operation::SetKey(write("deleted", "c")));
    transact(&mut registry, Operation::DeleteKey(key("deleted")));
    let (saved, before) = (snapshot(&registry), registry.clone());
    transact(&mut registry, Operation::SetKey(write("deleted", "d")));
    registry.apply(&Command::DestroySession(session_id("holder")));
    let delay = registry.lock_delay(&key("held"));
    assert!(delay.is_some(), "its holder is gone");

    let applied = restore(&mut registry, &saved);
    assert!(
        applied
            .events
            .contains(&Event::SessionCreated(session_id("holder")))
    );
    let values = |registry: &Registry| -> Vec<(Key, Bytes, Option<SessionId>)> {
        let value = |held: &KeyValue| (held.key.clone(), held.value.clone(), held.session.clone());
        registry.keys().map(value).collect()
    };
    assert_eq!(values(&registry), values(&before));
    assert_eq!(registry.lock_delay(&key("held")), None);
    let (duration, since) = registry.lock_delay(&key("delayed")).expect("it is delayed");
    assert_eq!(duration, Duration::from_secs(15));
    assert_eq!(since, applied.index, "it is counted anew");
    let taken = Operation::Lock(write("delayed", "e"), Some(session_id("holder")));
    assert!(registry.apply(&Command::Transact(vec![taken])).reply.is_err());
    is_consistent(&registry);
}

#[test]
fn the_history_of_keys_begins_with_a_restore() {
    let mut registry = Registry::default();
    transact(&mut registry, Operation::SetKey(write("same", "a")));
    transact(&mut registry, Operation::SetKey(write("other", "a")));
    let saved = snapshot(&registry);
    let read = registry.index();
    transact(&mut registry, Operation::SetKey(write("other", "b")));
    let restored = restore(&mut registry, &saved).index;
    assert!(
        registry.key_at(&key("other"), read).is_err(),
        "whose past is meant?"
    );
    let other = registry
        .key_at(&key("other"), restored)
        .expect("it is kept")
        .expect("it is there");
    assert_eq!(
        (&other.value[..], other.modify_index, other.version),
        (&b"a"[..], restored, 3)
    );
    let same = registry
        .key_at(&key("same"), restored)
        .expect("it is kept")
        .expect("it is there");
    assert!(same.modify_index < restored, "nothing happened to it");
    // Whoever knew the value of the file, or of the cluster, knows this one not.
    let stale = Operation::SetKeyIf(write("other", "c"), read);
    assert!(registry.apply(&Command::Transact(vec![stale])).reply.is_err());
    is_consistent(&registry);
}

#[test]
fn nothing_is_seen_of_a_restore_before_its_end_nor_if_it_has_none() {
    let saved = snapshot(&filled(3_000));
    assert!(saved.parts().len() > 2);
    let mut registry = filled(1);
    let (before, digest) = (registry.index(), registry.digest());
    for step in &steps(7, &saved)[..2] {
        let applied = registry.apply(step);
        assert_eq!((applied.changed, applied.index), (false, before));
        assert!(applied.events.is_empty() && applied.topics.is_empty());
        is_consistent(&registry);
    }
    assert_eq!(registry.staged(), Some((7, 2)));
    // Too early, and for another.
    for (restore, parts) in [(7, saved.parts().len()), (8, 2)] {
        let commit = Command::Restore(Restore::Commit {
            restore,
            parts: u32::try_from(parts).expect("few"),
            index: saved.registry().index(),
            digest: saved.digest,
        });
        assert!(registry.apply(&commit).reply.is_err());
    }
    registry.apply(&Command::Restore(Restore::Discard { restore: 8 }));
    assert_eq!(registry.staged(), Some((7, 2)), "another one's");
    registry.apply(&Command::Restore(Restore::Discard { restore: 7 }));
    assert_eq!((registry.staged(), registry.digest()), (None, digest));
}

#[test]
fn of_two_restores_at_once_one_is_given_up() {
    let saved = snapshot(&filled(3_000));
    let mut registry = filled(1);
    let (first, second) = (steps(1, &saved), steps(2, &saved));
    assert!(registry.apply(&first[0]).reply.is_ok());
    assert!(
        registry.apply(&second[0]).reply.is_ok(),
        "it takes the other's place"
    );
    assert!(registry.apply(&first[1]).reply.is_err());
    let index = registry.index();
    for step in &second[1..] {
        assert!(registry.apply(step).reply.is_ok());
    }
    assert_eq!(registry.index(), saved.registry().index().max(index) + 1);
    is_consistent(&registry);
}

#[test]
fn rows_that_are_not_those_announced_change_nothing() {
    let saved = snapshot(&filled(3));
    let mut registry = filled(1);
    let digest = registry.digest();
    let mut steps = steps(1, &saved);
    if let Some(Command::Restore(Restore::Commit { index, .. })) = steps.last_mut() {
        *index += 1;
    }
    let last = steps.len() - 1;
    for step in &steps[..last] {
        registry.apply(step);
    }
    assert!(registry.apply(&steps[last]).reply.is_err());
    registry.apply(&Command::Restore(Restore::Discard { restore: 1 }));
    assert_eq!(registry.digest(), digest);
}

#[test]
fn the_version_of_commands_only_rises_and_nobody_sees_it() {
    let mut registry = filled(1);
    assert_eq!(registry.command_version(), 1);
    let applied = registry.apply(&Command::RaiseVersion(2));
    assert_eq!((applied.changed, applied.rows.len()), (false, 1));
    registry.apply(&Command::RaiseVersion(1));
    assert_eq!(registry.command_version(), 2);
    is_consistent(&registry);
    // A file from a cluster of the first version does not take it back.
    let saved = snapshot(&filled(2));
    restore(&mut registry, &saved);
    assert_eq!(registry.command_version(), 2);
}

// --- Helpers.

fn file(registry: &Registry) -> Bytes {
    Bytes::from(
        SnapshotWriter::new(registry, "0.1.0")
            .collect::<Vec<_>>()
            .concat(),
    )
}

fn snapshot(registry: &Registry) -> Snapshot {
    Snapshot::parse(&file(registry)).expect("what was written is sound")
}

fn steps(restore: u64, snapshot: &Snapshot) -> Vec<Command> {
    let stage = |(part, rows): (u32, &Bytes)| Restore::Stage {
        restore,
        part,
        rows: rows.to_vec(),
    };
    let commit = Restore::Commit {
        restore,
        parts: u32::try_from(snapshot.parts().len()).expect("few parts"),
        index: snapshot.registry().index(),
        digest: snapshot.digest,
    };
    let steps = (0..).zip(snapshot.parts()).map(stage).chain([commit]);
    steps.map(Command::Restore).collect()
}

fn restore(registry: &mut Registry, snapshot: &Snapshot) -> sider_core::registry::Applied {
    let applied = steps(99, snapshot).iter().map(|step| registry.apply(step)).last();
    applied.expect("at least one step")
}

/// What it says of itself is what its rows say, and they can be read back.
fn is_consistent(registry: &Registry) {
    let read = Registry::from_rows(registry.rows()).expect("its own rows are sound");
    assert_eq!(read.digest(), registry.digest(), "the digest is kept up to date");
    assert!(read.rows().eq(registry.rows()));
    assert_eq!(read.staged(), registry.staged());
}

/// So many instances of `web` with a check each, and one service that is gone.
fn filled(instances: usize) -> Registry {
    let mut registry = Registry::default();
    if instances > 0 {
        registry.apply(&Command::Register(vec![registration("gone-0", "gone")]));
        registry.apply(&Command::Deregister(Deregister::Node(node_name("n1"))));
    }
    for nth in 0..instances {
        registry.apply(&Command::Register(vec![registration(
            &format!("web-{nth}"),
            "web",
        )]));
    }
    registry
}

fn registration(id: &str, service: &str) -> Registration {
    let instance = Instance {
        namespace: Namespace::default(),
        service: service_name(service),
        id: InstanceId::parse(id).expect("valid"),
        node: node_name("n1"),
        address: "10.0.0.1".into(),
        port: 8080,
        tags: vec!["a".into()],
        meta: BTreeMap::from([("version".into(), "1".into())]),
        weights: Weights::default(),
        tagged_addresses: BTreeMap::new(),
        enable_tag_override: false,
        create_index: 0,
        modify_index: 0,
        extras: None,
    };
    let check = CheckDefinitionUpdate {
        id: CheckId::parse(id).expect("valid"),
        namespace: Namespace::default(),
        node: node_name("n1"),
        name: "alive".into(),
        instance: Some(instance.id.clone()),
        definition: CheckDefinition {
            probe: Probe::Ttl(Duration::from_secs(15)),
            ..CheckDefinition::default()
        },
        status: None,
        output: "x".repeat(64),
        notes: String::new(),
    };
    Registration {
        node: Node {
            name: node_name("n1"),
            id: String::new(),
            address: "10.0.0.9".into(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            create_index: 0,
            modify_index: 0,
            locality: None,
        },
        keeps: Keeps::Node,
        instance: Some(instance),
        checks: vec![check],
        replace_checks: true,
    }
}

fn key(name: &str) -> Key {
    Key::parse(name.to_owned().into_bytes()).expect("a valid key")
}

fn write(name: &str, value: &str) -> KeyWrite {
    KeyWrite {
        key: key(name),
        value: Bytes::from(value.to_owned()),
        flags: 0,
    }
}

fn transact(registry: &mut Registry, operation: Operation) {
    let applied = registry.apply(&Command::Transact(vec![operation]));
    applied.reply.expect("it can be done");
}

fn session_id(name: &str) -> SessionId {
    SessionId::parse(name).expect("a valid id")
}

fn session(name: &str) -> Command {
    let node = registration("web-1", "web").node;
    let session = Session {
        id: session_id(name),
        name: name.into(),
        node: node.name.clone(),
        lock_delay: Duration::from_secs(15),
        behavior: SessionBehavior::Release,
        ttl: None,
        ttl_text: String::new(),
        node_checks: vec![],
        service_checks: vec![],
        renewals: 0,
        create_index: 0,
        modify_index: 0,
    };
    let node = Some(node);
    Command::CreateSession(Box::new(NewSession { session, node }))
}

fn node_name(name: &str) -> NodeName {
    NodeName::parse(name).expect("valid")
}

fn service_name(name: &str) -> ServiceName {
    ServiceName::parse(name).expect("valid")
}

fn check_key(id: &str) -> CheckKey {
    CheckKey {
        namespace: Namespace::default(),
        node: node_name("n1"),
        id: CheckId::parse(id).expect("valid"),
    }
}
