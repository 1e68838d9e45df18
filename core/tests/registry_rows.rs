//! Stored bytes: their exact form, bytes that make no sense, and the indexes of what is gone.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use expect_test::{Expect, expect};
use sider_core::{
    limits::{FOLD_DIVISOR, TOMBSTONES_MAX},
    registry::{
        CheckDefinition, CheckDefinitionUpdate, CheckId, CheckKey, CheckStatus, CheckTarget, CheckUpdate,
        Command, Deregister, Expiry, Instance, InstanceId, InstanceKey, Keeps, Namespace, Node, NodeName,
        Probe, Registration, Registry, RowError, ServiceName, Topic, Weights,
    },
};

/// Indexes that fold into the floor at once.
const TOMBSTONES_FOLD: usize = TOMBSTONES_MAX / FOLD_DIVISOR;

// --- The exact form. A difference here means that servers can't read what older ones wrote: it takes a new version.

#[test]
fn commands_are_encoded_like_this() {
    let check = |expected: Expect, command: Command| {
        expected.assert_eq(&hex(&command.encode(1, 0)));
        let decoded = Command::decode(&command.encode(1, 0), 2).map(|logged| logged.command);
        assert_eq!(decoded, Ok(command));
    };
    check(
        expect![
            "010001026e31000831302e302e302e390000000001010764656661756c74026e31057765622d31037765620831302e302e302e31903f010161010776657273696f6e013101010000000001077765622d313a630764656661756c74026e3105616c69766501057765622d31000f0000000000000000000000000001"
        ],
        Command::Register(vec![registration("web-1", "web")]),
    );
    check(
        expect!["010100026e31"],
        Command::Deregister(Deregister::Node(node_name("n1"))),
    );
    check(
        expect!["0101010764656661756c74026e31057765622d310103776562"],
        Command::Deregister(Deregister::Instance {
            key: instance_key("web-1"),
            service: Some(service_name("web")),
        }),
    );
    check(
        expect!["010201000764656661756c74026e31016301010104736c6f77"],
        Command::UpdateChecks(vec![CheckUpdate {
            target: CheckTarget::Check(check_key("c")),
            status: Some(CheckStatus::Warning),
            output: Some("slow".into()),
        }]),
    );
    check(
        expect!["0103010764656661756c74026e31016307ac02"],
        Command::ExpireChecks(vec![Expiry {
            check: check_key("c"),
            renewals_seen: 7,
            create_index_seen: 300,
        }]),
    );
}

#[test]
fn rows_are_encoded_like_this() {
    let rows: Vec<String> = sample()
        .rows()
        .map(|(key, value)| format!("{} = {}", hex(&key), hex(&value)))
        .collect();
    expect![[r#"
        01 = 0103
        106e3100 = 01026e31000831302e302e302e3900000202
        1164656661756c74006e31007765622d3100 = 010764656661756c74026e31057765622d31037765620831302e302e302e31903f010161010776657273696f6e0131010100000202
        1264656661756c74006e31007365726600 = 010764656661756c74026e31047365726605616c69766500000f00000000000000000000030000000202
        1264656661756c74006e31007765622d313a6300 = 010764656661756c74026e31077765622d313a6305616c69766501057765622d31000f00000000000000000000000466696e6500010203
        200064656661756c740077656200 = 01000764656661756c740377656203
        200264656661756c740077656200 = 01020764656661756c740377656202
        200364656661756c740077656200 = 01030764656661756c740377656203
        200464656661756c7400 = 01040764656661756c7402
        2005 = 010502
        200664656661756c74006e3100 = 01060764656661756c74026e3102
        200764656661756c74006e3100 = 01070764656661756c74026e3103
        200864656661756c7400 = 01080764656661756c7403
        200964656661756c740000 = 01090764656661756c740003
        200964656661756c740003 = 01090764656661756c740303
        200a64656661756c7400 = 010a0764656661756c7403
    "#]].assert_eq(&(rows.join("\n") + "\n"));
    expect!["5003e9303a84ab9b527312aef30e7b22"].assert_eq(&format!("{:032x}", sample().digest()));
}

// --- Bytes that make no sense.

#[test]
fn a_newer_command_is_named() {
    let mut bytes = Command::UpdateChecks(vec![]).encode(1, 0).to_vec();
    bytes[0] = 9;
    let error = Command::decode(&bytes, 2).expect_err("version 9 is unknown");
    expect!["command has format version 9; this server reads up to 2"].assert_eq(&error.to_string());
}

#[test]
fn a_command_ends_where_its_bytes_end() {
    let command = Command::Register(vec![registration("web-1", "web")]);
    let bytes = command.encode(1, 0);
    for length in 0..bytes.len() {
        let error = Command::decode(&bytes[..length], 2).expect_err("a part is no command");
        assert!(matches!(error, RowError::Corrupt { .. }), "{length}: {error}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(matches!(
        Command::decode(&longer, 2),
        Err(RowError::Corrupt { .. })
    ));
    assert!(matches!(
        Command::decode(&[0, 2, 0], 2),
        Err(RowError::Corrupt { .. })
    ));
}

#[test]
fn a_bad_name_is_no_command() {
    let good = Command::Deregister(Deregister::Node(node_name("n1"))).encode(1, 0);
    let bad: Vec<u8> = good
        .iter()
        .map(|byte| if *byte == b'1' { 0x07 } else { *byte })
        .collect();
    let error = Command::decode(&bad, 2).expect_err("a control character is no part of a name");
    assert!(matches!(error, RowError::Corrupt { .. }), "{error}");
}

/// Whatever can be decoded can be applied: refused or done, but never a panic, and never a broken state.
#[test]
fn garbled_commands_do_no_harm() {
    let mut random = Random(1);
    let samples = [
        Command::Register(vec![registration("web-1", "web"), registration("web-2", "web")]).encode(1, 0),
        Command::Deregister(Deregister::Check(check_key("web-1:c"))).encode(1, 0),
        Command::UpdateChecks(vec![CheckUpdate {
            target: CheckTarget::TtlChecksOf(instance_key("web-1")),
            status: Some(CheckStatus::Passing),
            output: None,
        }])
        .encode(1, 0),
        Command::ExpireChecks(vec![Expiry {
            check: check_key("web-1:c"),
            renewals_seen: 0,
            create_index_seen: 2,
        }])
        .encode(1, 0),
    ];
    let mut registry = sample();
    let mut decoded = 0;
    for _ in 0..20_000 {
        let mut bytes = samples[random.below(samples.len())].to_vec();
        for _ in 0..1 + random.below(4) {
            let position = 1 + random.below(bytes.len() - 1);
            match random.below(3) {
                0 => bytes[position] = random.below(256) as u8,
                1 => bytes[position] ^= 1 << random.below(8),
                _ => bytes.truncate(position.max(2)),
            }
        }
        if let Ok(logged) = Command::decode(&bytes, 2) {
            registry.apply(&logged.command);
            decoded += 1;
        }
    }
    assert!(decoded > 1_000, "only {decoded} were commands at all");
    let restored = Registry::from_rows(registry.rows()).expect("its own rows are sound");
    assert_eq!(restored.digest(), registry.digest());
}

#[test]
fn random_bytes_are_refused_or_harmless() {
    let mut random = Random(2);
    for _ in 0..50_000 {
        let mut bytes: Vec<u8> = (0..random.below(48)).map(|_| random.below(256) as u8).collect();
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        if let Ok(logged) = Command::decode(&bytes, 2) {
            sample().apply(&logged.command);
        }
        let key = Bytes::from(bytes.clone());
        let error = Registry::from_rows([(key, Bytes::from(bytes))]).expect_err("noise is no row");
        assert!(error.to_string().starts_with("row "), "{error}");
    }
}

/// No change of a stored byte goes unnoticed: it is an error, or another digest.
#[test]
fn garbled_rows_are_noticed() {
    let registry = sample();
    let rows: Vec<(Bytes, Bytes)> = registry.rows().collect();
    let mut refused = 0;
    for nth in 0..rows.len() {
        for position in 0..rows[nth].0.len() + rows[nth].1.len() {
            for bit in 0..8 {
                let mut garbled = rows.clone();
                let (key, value) = &mut garbled[nth];
                let (side, position) = match position.checked_sub(key.len()) {
                    None => (key, position),
                    Some(position) => (value, position),
                };
                let mut bytes = side.to_vec();
                bytes[position] ^= 1 << bit;
                *side = Bytes::from(bytes);
                match Registry::from_rows(garbled) {
                    Ok(other) => assert_ne!(other.digest(), registry.digest(), "row {nth}, byte {position}"),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn rows_that_contradict_each_other_are_refused() {
    let rows: Vec<(Bytes, Bytes)> = sample().rows().collect();
    let error = |rows: Vec<(Bytes, Bytes)>| Registry::from_rows(rows).expect_err("it is unsound").to_string();
    let without = |kind: u8| {
        rows.iter()
            .filter(|(key, _)| key[0] != kind)
            .cloned()
            .collect::<Vec<_>>()
    };
    let (index, node, instance) = (0x01, 0x10, 0x11);
    expect![[r#"row 1164656661756c74006e31007765622d3100 is corrupt: its node "n1" is missing"#]]
        .assert_eq(&error(without(node)));
    expect![[r#"row 1264656661756c74006e31007765622d313a6300 is corrupt: its instance "web-1" is missing"#]]
        .assert_eq(&error(without(instance)));
    expect!["row 106e3100 is corrupt: created at 2 and modified at 2, but the index is 0"]
        .assert_eq(&error(without(index)));

    let mut twice = rows.clone();
    twice.push(rows[2].clone());
    expect!["row 1164656661756c74006e31007765622d3100 is corrupt: it is there twice"]
        .assert_eq(&error(twice));

    let mut newer = rows.clone();
    newer[1].1 = Bytes::from([&[7], &newer[1].1[1..]].concat());
    expect!["row 106e3100 has format version 7; this server reads up to 2"].assert_eq(&error(newer));

    let mut moved = rows.clone();
    moved[1].0 = Bytes::from_static(b"\x10n2\0");
    expect!["row 106e3200 is corrupt: it is not what its content is encoded to"].assert_eq(&error(moved));

    let mut unknown = rows.clone();
    unknown.push((Bytes::from_static(b"\x7fx"), rows[0].1.clone()));
    expect!["row 7f78 is corrupt: its kind is unknown to this server"].assert_eq(&error(unknown));
}

// --- Indexes of what is gone.

/// Thousands of services come and go. Their indexes take bounded room, never go back, and what is alive is not
/// concerned.
#[test]
fn indexes_of_what_is_gone_fold_into_a_floor() {
    const AT_ONCE: usize = 1_000;
    let mut registry = Registry::default();
    let mut stored = BTreeMap::new();
    let mut apply = |registry: &mut Registry, command: Command| {
        let applied = registry.apply(&command);
        assert!(applied.changed);
        for row in applied.rows {
            match row.value {
                Some(value) => stored.insert(row.key, value),
                None => stored.remove(&row.key),
            };
        }
        assert_eq!(stored.len(), registry.rows().count());
        applied.topics
    };
    let mut stays = registration("stays", "stays");
    stays.node = node("other");
    stays.instance.as_mut().expect("it has one").node = node_name("other");
    stays.checks.clear();
    apply(&mut registry, Command::Register(vec![stays]));
    let topic = |nth: usize| Topic::Service(Namespace::default(), service_name(&format!("s{nth}")));
    let alive = Topic::Service(Namespace::default(), service_name("stays"));
    let version_of_alive = registry.version(&alive);

    let mut last: Vec<u64> = Vec::new();
    let mut floors = std::collections::BTreeSet::new();
    for round in 0..TOMBSTONES_MAX / AT_ONCE + 8 {
        let first = round * AT_ONCE;
        let registrations = (first..first + AT_ONCE).map(without_checks);
        apply(&mut registry, Command::Register(registrations.collect()));
        let topics = apply(
            &mut registry,
            Command::Deregister(Deregister::Node(node_name("n1"))),
        );
        assert!(topics.len() < 4 * AT_ONCE, "those that folded were not woken");
        last.extend(std::iter::repeat_n(registry.index(), AT_ONCE));

        for (nth, index) in last.iter().enumerate() {
            let version = registry.version(&topic(nth));
            assert!(version.index >= *index, "the index of s{nth} went back");
        }
        floors.insert(registry.version(&topic(usize::MAX)).index);
        assert_eq!(
            registry.version(&alive),
            version_of_alive,
            "what is alive is not concerned"
        );
    }
    let topic_rows = stored.keys().filter(|key| key.starts_with(&[0x20, 0])).count();
    assert!(
        topic_rows <= TOMBSTONES_MAX + 1,
        "{topic_rows} indexes of services are kept"
    );
    assert!(
        topic_rows > TOMBSTONES_MAX - TOMBSTONES_FOLD,
        "no more than needed was folded"
    );
    let folds = 8 * AT_ONCE / TOMBSTONES_FOLD + 1;
    assert!(
        (2..=folds + 1).contains(&floors.len()),
        "the floor moved seldom: {floors:?}"
    );

    let restored = Registry::from_rows(stored).expect("its own rows are sound");
    assert_eq!(restored.digest(), registry.digest());
    for nth in (0..last.len()).chain([usize::MAX]) {
        assert_eq!(restored.version(&topic(nth)), registry.version(&topic(nth)));
    }
    // What is gone in both must fold alike in both, whatever order they learnt of it in.
    let (mut one, mut other) = (registry.clone(), restored);
    for nth in 0..2 * TOMBSTONES_FOLD {
        let registration = registration(&format!("t{nth}"), &format!("t{nth}"));
        let come = Command::Register(vec![registration]);
        let go = Command::Deregister(Deregister::Node(node_name("n1")));
        assert_eq!(one.apply(&come), other.apply(&come));
        assert_eq!(one.apply(&go), other.apply(&go));
    }
    assert_eq!(one.digest(), other.digest());
}

/// More goes at once than may be remembered: some topics rise and fold in the same command, whose rows still add up.
#[test]
fn more_can_go_at_once_than_is_remembered() {
    let mut registry = Registry::default();
    let mut stored = BTreeMap::new();
    let count = TOMBSTONES_MAX + 2 * TOMBSTONES_FOLD;
    let registrations = (0..count).map(without_checks);
    let come = Command::Register(registrations.collect());
    let go = Command::Deregister(Deregister::Node(node_name("n1")));
    for command in [come, go] {
        let applied = registry.apply(&command);
        assert!(
            applied.rows.is_sorted_by(|one, next| one.key < next.key),
            "each row once"
        );
        for row in applied.rows {
            match row.value {
                Some(value) => stored.insert(row.key, value),
                None => stored.remove(&row.key),
            };
        }
    }
    assert!(
        registry.rows().eq(stored.clone()),
        "the reported rows are the rows"
    );
    let restored = Registry::from_rows(stored).expect("its own rows are sound");
    assert_eq!(restored.digest(), registry.digest());
    for nth in 0..count {
        let topic = Topic::Service(Namespace::default(), service_name(&format!("s{nth}")));
        assert_eq!(registry.version(&topic).index, 3, "s{nth} went with index 3");
    }
}

// --- Samples.

/// One of everything.
fn sample() -> Registry {
    let mut registry = Registry::default();
    let mut own = registration("web-1", "web");
    own.checks.push(CheckDefinitionUpdate {
        id: CheckId::parse("serf").expect("valid"),
        instance: None,
        ..own.checks[0].clone()
    });
    registry.apply(&Command::Register(vec![own]));
    registry.apply(&Command::UpdateChecks(vec![CheckUpdate {
        target: CheckTarget::Check(check_key("web-1:c")),
        status: Some(CheckStatus::Passing),
        output: Some("fine".into()),
    }]));
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
        id: CheckId::parse(&format!("{id}:c")).expect("valid"),
        namespace: Namespace::default(),
        node: node_name("n1"),
        name: "alive".into(),
        instance: Some(instance.id.clone()),
        definition: CheckDefinition {
            probe: Probe::Ttl(Duration::from_secs(15)),
            ..CheckDefinition::default()
        },
        status: None,
        output: String::new(),
        notes: String::new(),
    };
    Registration {
        node: node("n1"),
        keeps: Keeps::Node,
        instance: Some(instance),
        checks: vec![check],
        replace_checks: true,
    }
}

/// A service of its own for each number.
fn without_checks(nth: usize) -> Registration {
    Registration {
        checks: vec![],
        ..registration(&format!("s{nth}"), &format!("s{nth}"))
    }
}

fn node(name: &str) -> Node {
    Node {
        name: node_name(name),
        id: String::new(),
        address: "10.0.0.9".into(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: 0,
        modify_index: 0,
        locality: None,
    }
}

fn node_name(name: &str) -> NodeName {
    NodeName::parse(name).expect("valid")
}

fn service_name(name: &str) -> ServiceName {
    ServiceName::parse(name).expect("valid")
}

fn instance_key(id: &str) -> InstanceKey {
    InstanceKey {
        namespace: Namespace::default(),
        node: node_name("n1"),
        id: InstanceId::parse(id).expect("valid"),
    }
}

fn check_key(id: &str) -> CheckKey {
    CheckKey {
        namespace: Namespace::default(),
        node: node_name("n1"),
        id: CheckId::parse(id).expect("valid"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SplitMix64: small, seeded, and the same for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}
