//! What a cluster with an older member is not asked for, and what is left of restores that were given up.

use std::time::Duration;

use bytes::Bytes;
use sider_core::{
    limits,
    registry::{
        CheckStatus, Command, Keeps, Key, KeyWrite, Locality, Node, NodeName, Operation, Registration,
        Restore,
    },
    server::{Platform as _, ServerError, standin},
};

use crate::clients::{register_ttl, report, status_of};

fn set_key() -> Command {
    Command::Transact(vec![Operation::SetKey(KeyWrite {
        key: Key::parse("k").expect("a valid key"),
        value: Bytes::from_static(b"v"),
        flags: 0,
    })])
}

fn lay_down(restore: u64, part: u32) -> Command {
    let rows = vec![1];
    Command::Restore(Restore::Stage { restore, part, rows })
}

#[test]
fn what_an_older_member_can_not_read_is_refused_until_it_is_exchanged() {
    let (server, standin, platform) = standin::server();
    standin.begin_as_first_version();
    let digest = server.digest();
    let refused = platform.run(server.write(set_key()));
    assert_eq!(refused, Err(ServerError::OlderMember(2)));
    assert_eq!(server.digest(), digest, "nothing was proposed");
    standin.set_command_version(2);
    platform.advance(limits::UPGRADE_TICK * 2);
    assert_eq!(server.command_version(), 2);
    assert!(platform.run(server.write(set_key())).is_ok());
}

#[test]
fn a_new_cluster_has_keys_at_once() {
    let (server, standin, platform) = standin::server();
    standin.begin_as_first_version();
    standin.set_command_version(2);
    let before = platform.now();
    assert!(platform.run(server.write(set_key())).is_ok());
    assert!(platform.now().saturating_since(before) < limits::NEWER_COMMAND_WAIT);
}

#[test]
fn the_leader_discards_a_restore_that_does_not_go_on() {
    let (server, standin, platform) = standin::server();
    let staged = || {
        platform
            .run(server.inspect(true, |registry| registry.staged()))
            .expect("it serves")
    };
    standin.apply(&lay_down(7, 0));
    platform.advance(limits::RESTORE_IDLE_MAX - Duration::from_secs(20));
    standin.apply(&lay_down(7, 1));
    platform.advance(limits::RESTORE_IDLE_MAX - Duration::from_secs(20));
    assert_eq!(staged(), Some((7, 2)), "it may go on");
    platform.advance(Duration::from_secs(40));
    assert_eq!(staged(), None);
}

#[test]
fn extras_are_refused_while_an_older_member_can_not_read_them() {
    let (server, standin, platform) = standin::server();
    standin.begin_as_first_version();
    let mut node = Node::plain(NodeName::parse("host").expect("a valid name"), "10.0.0.1");
    node.locality = Some(Locality {
        region: "north".into(),
        zone: String::new(),
    });
    let register = || {
        server.write(Command::Register(vec![Registration {
            node: node.clone(),
            keeps: Keeps::Nothing,
            instance: None,
            checks: Vec::new(),
            replace_checks: false,
        }]))
    };
    // Keys came with version 2, a locality with version 3.
    standin.set_command_version(2);
    platform.advance(limits::UPGRADE_TICK * 2);
    assert!(platform.run(server.write(set_key())).is_ok());
    assert_eq!(platform.run(register()), Err(ServerError::OlderMember(3)));
    standin.set_command_version(3);
    platform.advance(limits::UPGRADE_TICK * 2);
    assert_eq!(server.command_version(), 3);
    assert!(platform.run(register()).is_ok());
}

#[test]
fn statuses_are_kept_as_soon_as_every_member_can_read_that() {
    let (server, standin, platform) = standin::server();
    standin.begin_as_first_version();
    let ttl = Duration::from_secs(60);
    let again = || {
        let Command::Register(mut registrations) = register_ttl("web", "web-1", ttl, CheckStatus::Passing)
        else {
            panic!("it registers")
        };
        registrations[0].keeps = Keeps::NodeAndStatuses;
        assert!(
            platform
                .run(server.write(Command::Register(registrations)))
                .is_ok()
        );
    };
    let fail = || {
        let failed = vec![report("web-1", CheckStatus::Critical, None)];
        assert!(platform.run(server.renew(failed)).is_ok());
    };
    let status = || status_of(&platform, &server, "web-1");
    again();
    fail();
    again();
    assert_eq!(
        status(),
        Some(CheckStatus::Passing),
        "an older member could not say it"
    );
    standin.set_command_version(Command::AS_AGENTS);
    platform.advance(limits::UPGRADE_TICK * 2);
    fail();
    again();
    assert_eq!(status(), Some(CheckStatus::Critical));
}
