use std::time::Duration;

use super::{sources::check_timing, *};

fn peers(ids: &[&str]) -> ConfigFile {
    let peer = |(n, id): (usize, &&str)| {
        let peer = Peer {
            raft: format!("10.0.0.{n}:8501"),
            http: Some(format!("10.0.0.{n}:8500")),
        };
        ((*id).to_owned(), peer)
    };
    ConfigFile {
        peers: ids.iter().enumerate().map(peer).collect(),
        ..ConfigFile::default()
    }
}

fn with(keys: &[(&'static str, &str)]) -> ConfigFile {
    ConfigFile {
        flags: keys
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect(),
        ..ConfigFile::default()
    }
}

fn id(id: &str) -> ServerFlags {
    ServerFlags {
        raft_id: Some(id.to_owned()),
        ..ServerFlags::default()
    }
}

#[test]
fn the_defaults_make_a_server_of_its_own() {
    let settings = Settings::merge(ServerFlags::default(), ConfigFile::default()).unwrap();
    assert_eq!(
        (&*settings.http, &*settings.raft),
        ("127.0.0.1:8500", "127.0.0.1:8501")
    );
    assert_eq!(
        settings.data,
        Some(Path::new("data").join(settings.id.0.as_str()))
    );
    assert_eq!(settings.start, Start::Implicit);
    assert_eq!(settings.missing, ["the etcd v3 API", "DNS"]);
    assert_eq!(settings.members(ServerAddress::default()).len(), 1);
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
    let file = with(&[
        ("http", ":1"),
        ("raft_dir", "x"),
        ("datacenter", "east"),
        ("dev", "true"),
    ]);
    let mut flags = id("a");
    let settings = Settings::merge(flags.clone(), file.clone()).unwrap();
    assert_eq!((&*settings.http, &*settings.server.datacenter), (":1", "east"));
    assert_eq!(settings.data, None);
    flags.http = Some(":2".into());
    flags.dev = Some(false);
    flags.raft_dir = Some("y".into());
    let settings = Settings::merge(flags, file).unwrap();
    assert_eq!(settings.http, ":2");
    assert_eq!(settings.data, Some("y".into()));
}

#[test]
fn one_file_serves_all_servers() {
    let settings = Settings::merge(id("b"), peers(&["a", "b"])).unwrap();
    assert_eq!(
        (&*settings.http, &*settings.raft),
        ("10.0.0.1:8500", "10.0.0.1:8501")
    );
    assert_eq!(settings.raft_advertise.as_deref(), Some("10.0.0.1:8501"));
    assert_eq!(settings.start, Start::Wait);
    let own = ServerAddress {
        raft: "z:1".into(),
        http: "".into(),
    };
    let members = settings.members(own.clone());
    assert_eq!(members[&ServerId("a".into())].raft, "10.0.0.0:8501");
    assert_eq!(members[&ServerId("b".into())], own);

    let mut flags = id("b");
    flags.raft_bind = Some(":7".into());
    flags.http = Some(":8".into());
    flags.raft_bootstrap = Some(true);
    let settings = Settings::merge(flags, peers(&["a", "b"])).unwrap();
    assert_eq!((&*settings.http, &*settings.raft), (":8", ":7"));
    assert_eq!(settings.raft_advertise.as_deref(), Some("10.0.0.1:8501"));
    assert_eq!(settings.start, Start::Bootstrap);
}

#[test]
fn a_server_that_is_not_in_the_list_must_say_where_it_is() {
    let error = Settings::merge(id("c"), peers(&["a", "b"])).unwrap_err();
    assert!(
        error.contains("has no c: -raft-id must be one of a, b"),
        "{error}"
    );
    let mut flags = id("c");
    flags.raft_bind = Some(":7".into());
    let settings = Settings::merge(flags, peers(&["a", "b"])).unwrap();
    assert_eq!((settings.start, settings.raft_advertise), (Start::Wait, None));
}

#[test]
fn whether_to_bootstrap() {
    let start = |bootstrap, join: &[&str], file| {
        let flags = ServerFlags {
            raft_bootstrap: bootstrap,
            join: join.iter().map(|address| (*address).to_owned()).collect(),
            ..id("a")
        };
        Settings::merge(flags, file).unwrap().start
    };
    assert_eq!(start(None, &[], ConfigFile::default()), Start::Implicit);
    assert_eq!(start(None, &["b:1"], ConfigFile::default()), Start::Wait);
    assert_eq!(start(None, &[], peers(&["a"])), Start::Wait);
    assert_eq!(start(Some(false), &[], ConfigFile::default()), Start::Wait);
    assert_eq!(start(Some(true), &["b:1"], peers(&["a"])), Start::Bootstrap);
    assert_eq!(
        start(None, &[], with(&[("raft_bootstrap", "true")])),
        Start::Bootstrap
    );
    assert_eq!(start(None, &[], with(&[("join", "b:1")])), Start::Wait);
}

#[test]
fn addresses_to_join_through_are_understood_as_people_write_them() {
    let mut flags = id("a");
    flags.join = vec![
        "http://b:8500/".into(),
        " :9500".into(),
        String::new(),
        "c:1".into(),
    ];
    let settings = Settings::merge(flags, ConfigFile::default()).unwrap();
    assert_eq!(settings.join, ["b:8500", "127.0.0.1:9500", "c:1"]);
}

#[test]
fn apis_that_are_not_built_in_can_only_be_off() {
    let mut flags = id("a");
    flags.grpc = Some("off".into());
    let file = with(&[("dns", "off")]);
    assert_eq!(
        Settings::merge(flags.clone(), file).unwrap().missing,
        Vec::<&str>::new()
    );
    flags.grpc = Some(":2379".into());
    let error = Settings::merge(flags, ConfigFile::default()).unwrap_err();
    assert!(
        error.contains("-grpc") && error.contains("not built in yet"),
        "{error}"
    );
}

#[test]
fn errors_name_the_flag_or_the_key() {
    let merge = |change: fn(&mut ServerFlags), file| {
        let mut flags = id("a");
        change(&mut flags);
        Settings::merge(flags, file).unwrap_err()
    };
    let none = ConfigFile::default;
    for (error, named) in [
        (
            merge(|flags| flags.raft_id = Some("a/b".into()), none()),
            "-raft-id",
        ),
        (
            merge(|flags| flags.raft_id = Some("..".into()), none()),
            "-raft-id",
        ),
        (merge(|flags| flags.http = Some("8500".into()), none()), "-http"),
        (
            merge(|flags| flags.raft_bind = Some("a:b:c".into()), none()),
            "-raft-bind",
        ),
        (
            merge(|flags| flags.raft_advertise = Some(":1".into()), none()),
            "-raft-advertise",
        ),
        (merge(|flags| flags.join = vec!["b".into()], none()), "-join"),
        (merge(|flags| flags.node = Some(String::new()), none()), "-node"),
        (
            merge(|flags| flags.datacenter = Some("a b".into()), none()),
            "-datacenter",
        ),
        (
            merge(|flags| flags.log_format = Some("xml".into()), none()),
            "-log-format",
        ),
        (merge(|_| {}, with(&[("http", "x")])), "config file : http"),
        (merge(|_| {}, with(&[("dev", "maybe")])), "dev"),
        (
            merge(|_| {}, with(&[("raft_dir", "")])),
            "raft_dir: expected a folder",
        ),
        (
            merge(|_| {}, with(&[("node_id", "7")])),
            "node_id: expected a UUID",
        ),
        (
            merge(
                |_| {},
                ConfigFile {
                    node_meta: (0..65).map(|n| (n.to_string(), String::new())).collect(),
                    ..ConfigFile::default()
                },
            ),
            "cannot contain more than 64 key/value pairs",
        ),
    ] {
        assert!(error.contains(named), "{named}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn limits_of_consuls_files_are_heeded() {
    let file = with(&[
        ("kv_max_value_size", "1048576"),
        ("txn_max_req_len", "2048"),
        ("session_ttl_min", "5s"),
        ("raft_multiplier", "3"),
    ]);
    let settings = Settings::merge(id("a"), file).unwrap();
    let server = &settings.server;
    assert_eq!(
        (server.value_bytes_max, server.transaction_bytes_max),
        (1 << 20, 2048)
    );
    assert_eq!(server.session_ttl_min, Duration::from_secs(5));
    let defaults = RaftConfig::new(ServerId::default(), ServerAddress::default());
    let raft = settings.raft_config(ServerAddress::default());
    assert_eq!(
        (raft.heartbeat, raft.election_min, raft.election_max),
        (
            defaults.heartbeat * 3,
            defaults.election_min * 3,
            defaults.election_max * 3
        )
    );
    for (key, value) in [
        ("kv_max_value_size", "99999999"),
        ("raft_multiplier", "11"),
        ("session_ttl_min", "soon"),
    ] {
        let error = Settings::merge(id("a"), with(&[(key, value)])).unwrap_err();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn times_that_contradict_each_other_are_refused() {
    let timing = |heartbeat, min, max| {
        let ms = |ms: Option<u64>| ms.map(Duration::from_millis);
        check_timing(&Timing {
            heartbeat: ms(heartbeat),
            election_min: ms(min),
            election_max: ms(max),
            ..Timing::default()
        })
    };
    timing(None, None, None).unwrap();
    timing(Some(100), Some(200), Some(201)).unwrap();
    assert!(
        timing(Some(100), None, None)
            .unwrap_err()
            .starts_with("election_timeout_min")
    );
    assert!(
        timing(None, Some(300), None)
            .unwrap_err()
            .starts_with("election_timeout_max")
    );
    assert!(
        timing(None, None, Some(100))
            .unwrap_err()
            .starts_with("election_timeout_max")
    );
}
