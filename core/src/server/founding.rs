//! What the leader stores, under reserved keys, as long as it is not there: a certificate authority of the cluster's own, and
//! autopilot's settings where a file names them. That is when the cluster begins, and after a restore that took them away.
//!
//! A cluster of one that would still give way to another has nothing of it until it is first written to. Core has no
//! certificates of its own: [`ServerConfig::make_authority`](super::ServerConfig::make_authority) makes them.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use serde::{Deserialize, Serialize};

use super::{
    Authority, AutopilotSettings, Server,
    wiring::{Inner, Shared},
};
use crate::{
    limits,
    raft::Role,
    registry::{Command, Key, KeyWrite, Operation, Query, Registry, View},
};

/// A certificate authority as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAuthority {
    /// The name of the cluster that its certificates are for.
    pub trust_domain: String,
    /// The authority itself.
    pub authority: Authority,
}

impl StoredAuthority {
    /// Where it is stored.
    ///
    /// # Panics
    /// Never: the constant is short enough.
    pub fn key() -> Key {
        Key::reserved("connect/ca").expect("a constant that is short enough")
    }
}

/// Begins to look whether it is all there; it ends with the server.
pub(super) fn begin(inner: &Arc<Inner>) {
    let config = &inner.shared.config;
    if config.make_authority.is_some() || config.autopilot.is_some() {
        let work = run(inner.shared.clone(), Arc::downgrade(inner));
        inner.platform().spawn(work.boxed());
    }
}

async fn run(shared: Arc<Shared>, inner: Weak<Inner>) {
    while shared.finish().is_none() {
        let seen = shared.leadership.version();
        match inner.upgrade() {
            Some(inner) => inner.found().await,
            None => return,
        }
        let next = shared.platform.now() + limits::UPKEEP_INTERVAL;
        shared
            .platform
            .until(next, shared.leadership.changed_since(seen))
            .await;
    }
}

impl Inner {
    /// At the leader: stores what is missing.
    async fn found(self: Arc<Self>) {
        let status = self.consensus.status();
        if status.role != Role::Leader || self.shared.halted().is_some() || self.may_give_way(&status) {
            return;
        }
        let (lacks_authority, lacks_settings) = {
            let registry = self.registry();
            // Not before every member reads what has keys.
            if Command::Transact(Vec::new()).least_version() > registry.command_version() {
                return;
            }
            let authority = lacks(&registry, StoredAuthority::key());
            (authority, lacks(&registry, AutopilotSettings::key()))
        };
        let authority = lacks_authority
            .then(|| Server(self.clone()).new_authority())
            .flatten();
        let authority = authority.and_then(|made| {
            made.inspect_err(|error| tracing::warn!(error, "no certificate authority can be made"))
                .ok()
        });
        let settings = self.shared.config.autopilot.as_ref().filter(|_| lacks_settings);
        let settings = settings.map(|settings| stored_if_missing(AutopilotSettings::key(), settings));
        for command in authority.into_iter().chain(settings) {
            let proposed = self.consensus.propose_in_term(status.term, command);
            let deadline = self.platform().now() + limits::WRITE_TIMEOUT;
            // What did not come about is found missing the next time.
            drop(self.platform().until(deadline, proposed).await);
        }
    }
}

fn lacks(registry: &Registry, key: Key) -> bool {
    matches!(registry.query(&Query::Key(key)), View::Keys(found) if found.is_empty())
}

fn stored_if_missing(key: Key, value: &impl Serialize) -> Command {
    let value: Bytes = serde_json::to_vec(value)
        .expect("text and numbers are written as JSON")
        .into();
    let write = KeyWrite { key, value, flags: 0 };
    Command::Transact(vec![Operation::SetKeyIf(write, 0)])
}

impl Server {
    /// The command that stores a new authority unless there is one; `None` where none can be made.
    ///
    /// # Errors
    /// Why it can't be made.
    pub fn new_authority(&self) -> Option<Result<Command, String>> {
        let make = self.config().make_authority?;
        let trust_domain = format!("{}.consul", self.new_uuid());
        Some(make(&trust_domain).map(|authority| {
            let stored = StoredAuthority {
                trust_domain,
                authority,
            };
            stored_if_missing(StoredAuthority::key(), &stored)
        }))
    }
}
