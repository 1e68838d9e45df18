//! How commands are written to the log, in which version.
//!
//! The versions that there are:
//!
//! | version | since | an entry's bytes behind the version |
//! |---|---|---|
//! | 1 | the first | the command, which is one about the catalog or checks |
//! | 2 | there are keys, sessions, transactions and restores | the leader's wall time at the proposal in milliseconds since 1970, and the command |
//! | 3 | instances have extras, nodes a locality, and there are more kinds of checks | as in version 2 |
//! | 4 | checks have extras | as in version 2 |
//! | 5 | registrations can leave statuses as they are; what expired says so in the words of Consul's agents | as in version 2 |
//!
//! A cluster writes the newest version that every member can read: see [`Registry::command_version`]. It moves on only,
//! by a [`Command::RaiseVersion`] that the leader proposes when it has asked every member. A server of an older version
//! that comes back later meets an entry that it can't read, and stops before it applies it.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    CheckDefinitionUpdate, Command, Instance, Keeps, Node, Operation, Registration, Registry, Restore,
    RowError, rows, unpack,
};

/// A command of the log, with what was written beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedCommand {
    /// The command.
    pub command: Command,
    /// The wall clock of the leader that proposed it, in milliseconds since the Unix epoch; `None` in version 1. For
    /// people who read logs: wall clocks jump, and nothing is decided by it.
    pub proposed_ms: Option<u64>,
}

/// Version 2 and those since, borrowed for writing and owned for reading.
#[derive(Serialize, Deserialize)]
struct Stamped<C> {
    proposed_ms: u64,
    command: C,
}

impl Command {
    /// The newest version of commands that this program writes and reads.
    pub const NEWEST_VERSION: u8 = 5;

    /// Since this version registrations can leave the statuses of checks as they are, and what an expired check says is what
    /// Consul's agents say.
    pub const AS_AGENTS: u8 = 5;

    /// The oldest version that can say this command.
    pub fn least_version(&self) -> u8 {
        match self {
            Command::Register(registrations) => {
                newest(registrations.iter().map(Registration::least_version), 1)
            }
            Command::Transact(operations) => newest(operations.iter().map(Operation::least_version), 2),
            Command::CreateSession(new) => newest(new.node.iter().map(Node::least_version), 2),
            Command::Restore(Restore::Stage { rows, .. }) => {
                // What is no rows is refused when it is committed, by every version alike.
                let rows = unpack(Bytes::copy_from_slice(rows)).unwrap_or_default();
                newest(rows.iter().map(|(_, value)| rows::command_version_of(value)), 2)
            }
            Command::Deregister(_)
            | Command::UpdateChecks(_)
            | Command::ExpireChecks(_)
            | Command::DeregisterCritical(_) => 1,
            Command::DestroySession(_)
            | Command::RenewSessions(_)
            | Command::ExpireSessions(_)
            | Command::EndLockDelays(_)
            | Command::Restore(Restore::Commit { .. } | Restore::Discard { .. })
            | Command::RaiseVersion(_) => 2,
        }
    }

    /// The same for a cluster that writes this version, as far as there is something that comes near it: before version 5 a
    /// registration can't leave statuses as they are, and sets those that it names.
    #[must_use]
    pub fn in_version(mut self, version: u8) -> Command {
        if let Command::Register(registrations) = &mut self
            && version < Command::AS_AGENTS
        {
            let keeping = |it: &&mut Registration| it.keeps == Keeps::NodeAndStatuses;
            for registration in registrations.iter_mut().filter(keeping) {
                registration.keeps = Keeps::Node;
            }
        }
        self
    }

    /// Its bytes in the log, in this version, or in the oldest that can say it: a version byte, then postcard.
    pub fn encode(&self, version: u8, proposed_ms: u64) -> Bytes {
        match version.max(self.least_version()) {
            0 | 1 => rows::encode(1, self),
            version => rows::encode(
                version.min(Command::NEWEST_VERSION),
                &Stamped {
                    proposed_ms,
                    command: self,
                },
            ),
        }
    }

    /// The command that [`Command::encode`] gave, for a server that reads versions up to `known`.
    ///
    /// # Errors
    /// The bytes are corrupt, or of a newer version (the error names it).
    pub fn decode(bytes: &[u8], known: u8) -> Result<LoggedCommand, RowError> {
        let known = known.min(Command::NEWEST_VERSION);
        fn read<T: DeserializeOwned>(known: u8, bytes: &[u8]) -> Result<T, RowError> {
            rows::decode(|| "command".into(), known, bytes)
        }
        let logged = match bytes.first() {
            Some(&version @ 2..) if version <= known => {
                let Stamped { proposed_ms, command } = read::<Stamped<Command>>(known, bytes)?;
                LoggedCommand {
                    command,
                    proposed_ms: Some(proposed_ms),
                }
            }
            _ => LoggedCommand {
                command: read(known, bytes)?,
                proposed_ms: None,
            },
        };
        let version = bytes.first().copied().unwrap_or_default();
        if logged.command.least_version() > version {
            return Err(RowError::Corrupt {
                key: "command".into(),
                reason: format!("there is no such command in version {version}"),
            });
        }
        Ok(logged)
    }
}

fn newest(versions: impl Iterator<Item = u8>, least: u8) -> u8 {
    versions.fold(least, u8::max)
}

impl Registration {
    fn least_version(&self) -> u8 {
        let parts = [
            match self.keeps {
                Keeps::NodeAndStatuses => Command::AS_AGENTS,
                Keeps::Node | Keeps::Nothing => 1,
            },
            self.node.least_version(),
            self.instance.as_ref().map_or(1, Instance::least_version),
        ];
        let checks = self.checks.iter().map(CheckDefinitionUpdate::least_version);
        newest(checks.chain(parts), 1)
    }
}

impl CheckDefinitionUpdate {
    fn least_version(&self) -> u8 {
        self.definition.least_version()
    }
}

impl Operation {
    fn least_version(&self) -> u8 {
        match self {
            Operation::SetNode(node) | Operation::SetNodeIf(node, _) => node.least_version(),
            Operation::SetInstance(instance) | Operation::SetInstanceIf(instance, _) => {
                instance.least_version()
            }
            Operation::SetCheck(check) | Operation::SetCheckIf(check, _) => check.least_version(),
            _ => 2,
        }
    }
}

impl Instance {
    /// The oldest version of commands that can say it.
    pub(super) fn least_version(&self) -> u8 {
        if self.extras.is_some() { 3 } else { 1 }
    }
}

impl Node {
    /// The oldest version of commands that can say it.
    pub(super) fn least_version(&self) -> u8 {
        if self.locality.is_some() { 3 } else { 1 }
    }
}

impl Registry {
    /// The version of commands that every member of the cluster can read: what a leader writes. Never goes back.
    pub fn command_version(&self) -> u8 {
        self.version.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{
        CheckDefinition, CheckExtras, CheckId, Deregister, Locality, Namespace, NodeName, pack,
    };

    fn plain() -> Command {
        Command::Deregister(Deregister::Node(NodeName::parse("host").expect("a valid name")))
    }

    #[test]
    fn a_newer_server_reads_both_versions() {
        let old = Command::decode(&plain().encode(1, 77), 2).expect("version 1 is read");
        assert_eq!((old.command, old.proposed_ms), (plain(), None));
        let new = Command::decode(&plain().encode(2, 77), 2).expect("version 2 is read");
        assert_eq!((new.command, new.proposed_ms), (plain(), Some(77)));
    }

    #[test]
    fn an_older_server_names_the_version_that_it_lacks() {
        let error = Command::decode(&plain().encode(2, 77), 1).expect_err("version 2 is not known");
        let RowError::UnknownVersion { found, known, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!((found, known), (2, 1));
        // A version that is not invented yet, at the newest server.
        let mut bytes = plain().encode(2, 77).to_vec();
        bytes[0] = 6;
        assert!(matches!(
            Command::decode(&bytes, u8::MAX),
            Err(RowError::UnknownVersion {
                found: 6,
                known: 5,
                ..
            })
        ));
    }

    /// A registration of a node with a locality.
    fn with_locality() -> Registration {
        let mut node = Node::plain(NodeName::parse("host").expect("a valid name"), "10.0.0.1");
        node.locality = Some(Locality {
            region: "north".into(),
            zone: String::new(),
        });
        Registration {
            node,
            keeps: Keeps::Nothing,
            instance: None,
            checks: Vec::new(),
            replace_checks: false,
        }
    }

    #[test]
    fn what_came_with_version_3_is_written_in_it_and_the_rest_as_before() {
        let mut registration = with_locality();
        let register = |registration: &Registration| Command::Register(vec![registration.clone()]);
        let set_node = |node: &Node| Command::Transact(vec![Operation::SetNode(node.clone())]);
        for newer in [register(&registration), set_node(&registration.node)] {
            assert_eq!(newer.encode(1, 7)[0], 3);
            let read = Command::decode(&newer.encode(1, 7), 3).expect("version 3 is read");
            assert_eq!((read.command, read.proposed_ms), (newer.clone(), Some(7)));
            let error = Command::decode(&newer.encode(1, 7), 2).expect_err("version 3 is not known");
            assert!(
                matches!(
                    error,
                    RowError::UnknownVersion {
                        found: 3,
                        known: 2,
                        ..
                    }
                ),
                "{error:?}"
            );
        }
        let mut registry = Registry::default();
        registry.apply(&register(&registration));
        let rows: Vec<u8> = packed(&registry);
        assert_eq!(stage(rows).least_version(), 3, "a restore brings it along");

        registration.node.locality = None;
        assert_eq!(register(&registration).encode(1, 7)[0], 1);
        assert_eq!(set_node(&registration.node).encode(1, 7)[0], 2);
        let mut registry = Registry::default();
        registry.apply(&register(&registration));
        assert_eq!(stage(packed(&registry)).least_version(), 2);
    }

    #[test]
    fn what_came_with_version_4_is_written_in_it() {
        let mut registration = with_locality();
        let mut check = CheckDefinitionUpdate {
            id: CheckId::parse("c").expect("a valid id"),
            namespace: Namespace::default(),
            node: registration.node.name.clone(),
            name: String::new(),
            instance: None,
            definition: CheckDefinition::default(),
            status: None,
            output: String::new(),
            notes: String::new(),
        };
        let plain = Command::Transact(vec![Operation::SetCheck(check.clone())]);
        assert_eq!(plain.encode(1, 7)[0], 2);
        check.definition.extras = CheckExtras {
            tls_skip_verify: true,
            ..CheckExtras::default()
        }
        .kept();
        registration.checks = vec![check.clone()];
        let register = Command::Register(vec![registration]);
        for newer in [
            register.clone(),
            Command::Transact(vec![Operation::SetCheck(check)]),
        ] {
            let bytes = newer.encode(1, 7);
            assert_eq!(bytes[0], 4);
            let read = Command::decode(&bytes, 4).expect("version 4 is read");
            assert_eq!(read.command, newer);
            Command::decode(&bytes, 3).expect_err("version 4 is not known");
        }
        let mut registry = Registry::default();
        registry.apply(&register);
        assert_eq!(
            stage(packed(&registry)).least_version(),
            4,
            "a restore brings it along"
        );
        let restored = Registry::from_rows(registry.rows()).expect("its own rows are sound");
        assert_eq!(restored.digest(), registry.digest());
    }

    #[test]
    fn what_came_with_version_5_is_said_otherwise_before() {
        let register = |keeps: Keeps| {
            let node = Node::plain(NodeName::parse("host").expect("a valid name"), "10.0.0.1");
            Command::Register(vec![Registration {
                node,
                keeps,
                instance: None,
                checks: Vec::new(),
                replace_checks: false,
            }])
        };
        let keeping = register(Keeps::NodeAndStatuses);
        assert_eq!(keeping.clone().in_version(5), keeping);
        assert_eq!(keeping.encode(1, 7)[0], 5);
        Command::decode(&keeping.encode(5, 7), 4).expect_err("version 5 is not known");
        let before = keeping.in_version(4);
        assert_eq!(before, register(Keeps::Node));
        assert_eq!(before.encode(4, 7)[0], 4);
        assert_eq!(before.encode(1, 7)[0], 1);
    }

    fn stage(rows: Vec<u8>) -> Command {
        let (restore, part) = (7, 0);
        Command::Restore(Restore::Stage { restore, part, rows })
    }

    fn packed(registry: &Registry) -> Vec<u8> {
        let mut packed = bytes::BytesMut::new();
        for (key, value) in registry.snapshot_rows() {
            pack(&mut packed, &key, &value);
        }
        packed.to_vec()
    }

    #[test]
    fn what_an_older_version_can_not_say_is_written_in_the_newer() {
        let discard = Command::Restore(Restore::Discard { restore: 7 });
        assert_eq!(discard.encode(1, 0)[0], 2);
        assert_eq!(Command::RaiseVersion(2).encode(1, 0)[0], 2);
        // And where it is found in the older all the same, it was not written by us.
        let forged = rows::encode(1, &discard);
        assert!(matches!(
            Command::decode(&forged, 2),
            Err(RowError::Corrupt { .. })
        ));
    }
}
