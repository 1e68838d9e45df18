//! The sessions that there are, by what may end them.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::Session;
use crate::registry::{CheckKey, NodeName, SessionId};

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub(in crate::registry) struct SessionTable {
    sessions: BTreeMap<SessionId, Arc<Session>>,
    /// No empty sets.
    of_node: BTreeMap<NodeName, BTreeSet<SessionId>>,
    /// No empty sets.
    of_check: BTreeMap<CheckKey, BTreeSet<SessionId>>,
}

impl SessionTable {
    pub(in crate::registry) fn get(&self, id: &SessionId) -> Option<&Arc<Session>> {
        self.sessions.get(id)
    }

    pub(in crate::registry) fn all(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.values()
    }

    /// The sessions of a node, by id.
    pub(in crate::registry) fn of_node(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Session>> {
        let ids = self.of_node.get(node).into_iter().flatten();
        ids.filter_map(|id| self.sessions.get(id))
    }

    /// The sessions that are bound to a check, by id.
    pub(in crate::registry) fn of_check(&self, check: &CheckKey) -> impl Iterator<Item = &SessionId> {
        self.of_check.get(check).into_iter().flatten()
    }

    /// Puts a session in its place, or takes it away; gives what was there.
    pub(in crate::registry) fn set(
        &mut self,
        id: &SessionId,
        session: Option<Arc<Session>>,
    ) -> Option<Arc<Session>> {
        let before = match &session {
            Some(session) => self.sessions.insert(id.clone(), Arc::clone(session)),
            None => self.sessions.remove(id),
        };
        if let Some(before) = &before {
            unlist(self.of_node.entry(before.node.clone()), id);
            for check in before.checks() {
                unlist(self.of_check.entry(check), id);
            }
        }
        if let Some(session) = session {
            let node = self.of_node.entry(session.node.clone()).or_default();
            node.insert(id.clone());
            for check in session.checks() {
                self.of_check.entry(check).or_default().insert(id.clone());
            }
        }
        before
    }
}

/// Takes a session off a list; an empty list goes.
fn unlist<K: Ord>(entry: Entry<'_, K, BTreeSet<SessionId>>, id: &SessionId) {
    if let Entry::Occupied(mut list) = entry {
        list.get_mut().remove(id);
        if list.get().is_empty() {
            list.remove();
        }
    }
}
