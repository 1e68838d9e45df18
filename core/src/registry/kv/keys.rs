//! The newest version of each key, who holds which locks, and which locks can't be taken yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Key, KeyValue};
use crate::registry::SessionId;

/// Why a lock can't be taken: its holder's session ended without giving it back, and may not know that yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct LockDelay {
    /// For how long, on the leader's clock; a new leader begins anew.
    pub(in crate::registry) delay: Duration,
    /// The index of the session's end.
    pub(in crate::registry) since: u64,
}

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub(in crate::registry) struct KeyTable {
    keys: BTreeMap<Key, Arc<KeyValue>>,
    /// The keys that each session holds; no empty sets.
    held: BTreeMap<SessionId, BTreeSet<Key>>,
    delays: BTreeMap<Key, LockDelay>,
}

impl KeyTable {
    pub(in crate::registry) fn get(&self, key: &Key) -> Option<&Arc<KeyValue>> {
        self.keys.get(key)
    }

    /// The keys with a prefix, in order; reserved ones only if the prefix is one of theirs.
    pub(in crate::registry) fn with_prefix<'a>(
        &'a self,
        prefix: &'a Key,
    ) -> impl Iterator<Item = &'a Arc<KeyValue>> + 'a {
        let reserved = prefix.is_reserved();
        self.keys
            .range((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter(move |(key, _)| reserved || !key.is_reserved())
            .map(|(_, value)| value)
    }

    pub(in crate::registry) fn all(&self) -> impl Iterator<Item = &Arc<KeyValue>> {
        self.keys.values()
    }

    /// The keys on which a session holds the lock.
    pub(in crate::registry) fn held_by(&self, session: &SessionId) -> impl Iterator<Item = &Key> {
        self.held.get(session).into_iter().flatten()
    }

    pub(in crate::registry) fn delay(&self, key: &Key) -> Option<LockDelay> {
        self.delays.get(key).copied()
    }

    pub(in crate::registry) fn delays(&self) -> impl Iterator<Item = (&Key, &LockDelay)> {
        self.delays.iter()
    }

    /// Puts a value in its place, or takes it away; gives what was there.
    pub(in crate::registry) fn set(
        &mut self,
        key: &Key,
        value: Option<Arc<KeyValue>>,
    ) -> Option<Arc<KeyValue>> {
        let holder = value.as_ref().and_then(|value| value.session.clone());
        let before = match value {
            Some(value) => self.keys.insert(key.clone(), value),
            None => self.keys.remove(key),
        };
        if let Some(released) = before.as_ref().and_then(|before| before.session.as_ref())
            && let Some(keys) = self.held.get_mut(released)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.held.remove(released);
            }
        }
        if let Some(holder) = holder {
            self.held.entry(holder).or_default().insert(key.clone());
        }
        before
    }

    /// Puts a delay in its place, or takes it away; gives what was there.
    pub(in crate::registry) fn set_delay(
        &mut self,
        key: &Key,
        delay: Option<LockDelay>,
    ) -> Option<LockDelay> {
        match delay {
            Some(delay) => self.delays.insert(key.clone(), delay),
            None => self.delays.remove(key),
        }
    }
}
