//! What the leader stores when a cluster begins.

use std::sync::Arc;

use sider_core::{
    observe::NoObserver,
    registry::{Command, Key, KeyWrite, Operation, Query, View},
    server::{
        Authority, AutopilotSettings, Server, ServerConfig, StoredAuthority,
        standin::{self, Standin, TestPlatform},
    },
};

use crate::clients::secs;

fn make(trust_domain: &str) -> Result<Authority, String> {
    Ok(Authority {
        certificate: "c".into(),
        private_key: "k".into(),
        key_id: trust_domain.into(),
        not_before: String::new(),
        not_after: String::new(),
    })
}

fn config() -> ServerConfig {
    ServerConfig {
        make_authority: Some(make),
        autopilot: Some(AutopilotSettings {
            min_quorum: 3,
            ..AutopilotSettings::default()
        }),
        ..ServerConfig::default()
    }
}

fn stored(platform: &TestPlatform, server: &Server, key: &Key) -> Option<bytes::Bytes> {
    let look = server.inspect(true, |registry| match registry.query(&Query::Key(key.clone())) {
        View::Keys(found) => found.first().map(|it| it.value.clone()),
        _ => None,
    });
    platform.run(look).unwrap()
}

fn new(implicit: bool) -> (Server, Arc<Standin>, Arc<TestPlatform>) {
    let platform = TestPlatform::new();
    let (server, standin) =
        standin::member_of(config(), "server-1", &platform, Arc::new(NoObserver), implicit);
    standin.lead(1);
    platform.advance(secs(2));
    (server, standin, platform)
}

#[test]
fn an_authority_and_the_settings_of_a_file_are_stored_once() {
    let (server, standin, platform) = new(false);
    let authority = stored(&platform, &server, &StoredAuthority::key()).expect("it was made");
    let settings = stored(&platform, &server, &AutopilotSettings::key()).expect("they were stored");
    let settings: AutopilotSettings = serde_json::from_slice(&settings).unwrap();
    assert_eq!(Some(settings), config().autopilot);
    // What an operator stores stays, whoever leads.
    let write = KeyWrite {
        key: AutopilotSettings::key(),
        value: "{}".into(),
        flags: 0,
    };
    standin.apply(&Command::Transact(vec![Operation::SetKey(write)]));
    standin.lead(2);
    platform.advance(secs(5));
    assert_eq!(
        stored(&platform, &server, &StoredAuthority::key()),
        Some(authority)
    );
    assert_eq!(
        stored(&platform, &server, &AutopilotSettings::key()).as_deref(),
        Some(&b"{}"[..])
    );
}

#[test]
fn a_cluster_that_may_give_way_has_nothing_before_it_is_written_to() {
    let (server, standin, platform) = new(true);
    assert_eq!(stored(&platform, &server, &StoredAuthority::key()), None);
    let write = KeyWrite {
        key: Key::parse("a".to_owned()).unwrap(),
        value: "1".into(),
        flags: 0,
    };
    standin.apply(&Command::Transact(vec![Operation::SetKey(write)]));
    platform.advance(secs(2));
    assert!(stored(&platform, &server, &StoredAuthority::key()).is_some());
}
