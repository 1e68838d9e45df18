//! Keys, sessions and transactions: random commands about them, and their laws.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sider_core::registry::{
    Applied, Command, Event, Key, KeyValue, KeyWrite, LockDelayEnd, NewSession, Operation, Query, Registry,
    Session, SessionBehavior, SessionExpiry, SessionId, View,
};

use super::generate::{Generator, NODES};

pub(crate) const KEYS: [&str; 6] = ["a", "a/b", "a/b/c", "a/bc", "a/d/e", "b"];
const SESSIONS: [&str; 3] = ["s1", "s2", "s3"];
const VALUES: [&str; 3] = ["", "one", "two"];

pub(crate) fn key(name: &str) -> Key {
    Key::parse(name.to_owned()).expect("a short key")
}

fn session_id(name: &str) -> SessionId {
    SessionId::parse(name).expect("a valid id")
}

impl Generator {
    pub(crate) fn operation(&mut self, registry: &Registry) -> Operation {
        let key = key(self.pick(&KEYS));
        let index = match registry.key_at(&key, registry.index()).ok().flatten() {
            Some(found) if !self.one_in(4) => found.modify_index,
            _ => self.below(4),
        };
        let there = registry.sessions().nth(self.below(2) as usize);
        let session = match there {
            Some(session) if !self.one_in(4) => Some(session.id.clone()),
            _ => (!self.one_in(10)).then(|| session_id(self.pick(&SESSIONS))),
        };
        let write = KeyWrite {
            key: key.clone(),
            value: self.pick(&VALUES).to_owned().into(),
            flags: self.below(2),
        };
        match self.below(16) {
            0..4 => Operation::SetKey(write),
            4 => Operation::SetKeyIf(write, index),
            5..8 => Operation::Lock(write, session),
            8 => Operation::Unlock(write, session),
            9 => Operation::DeleteKey(key),
            10 => Operation::DeleteKeyIf(key, index),
            11 => Operation::DeleteTree(key),
            12 => Operation::GetTree(key),
            13 => Operation::CheckIndex(key, index),
            14 => Operation::SetNode(self.node()),
            _ => Operation::DestroySession(session_id(self.pick(&SESSIONS))),
        }
    }

    pub(crate) fn of_sessions(&mut self, registry: &Registry) -> Command {
        let id = session_id(self.pick(&SESSIONS));
        match self.below(8) {
            0 => Command::DestroySession(id),
            1 => Command::RenewSessions(vec![id]),
            2 => Command::ExpireSessions(vec![SessionExpiry {
                renewals_seen: registry.session(&id).map_or(0, |session| session.renewals) + self.below(2),
                session: id,
            }]),
            3 => {
                let key = key(self.pick(&KEYS));
                let since = registry.lock_delay(&key).map_or(0, |(_, since)| since);
                Command::EndLockDelays(vec![LockDelayEnd {
                    key,
                    since_seen: since + u64::from(self.one_in(4)),
                }])
            }
            _ => self.create_session(registry, id),
        }
    }

    fn create_session(&mut self, registry: &Registry, id: SessionId) -> Command {
        let check = self.existing_check(registry);
        let (node, check) = match check {
            Some(check) if !self.one_in(3) => (check.node, Some((check.namespace, check.id))),
            _ => (self.node_name(), None),
        };
        let session = Session {
            id,
            name: String::new(),
            node: node.clone(),
            lock_delay: Duration::from_secs(self.below(3)),
            behavior: match self.one_in(2) {
                true => SessionBehavior::Release,
                false => SessionBehavior::Delete,
            },
            ttl: None,
            ttl_text: String::new(),
            node_checks: Vec::new(),
            service_checks: check.into_iter().collect(),
            renewals: 0,
            create_index: 0,
            modify_index: 0,
        };
        let node = self.one_in(2).then(|| {
            let mut given = self.node();
            given.name = node;
            given
        });
        Command::CreateSession(Box::new(NewSession { session, node }))
    }
}

/// Every question about keys and sessions.
pub(crate) fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for name in KEYS.into_iter().chain(["never"]) {
        queries.push(Query::Key(key(name)));
        for end in 0..=name.len() {
            let prefix = key(&name[..end]);
            queries.push(Query::KeyTree(prefix.clone()));
            for separator in ["", "/", "b/"] {
                queries.push(Query::KeyNames {
                    prefix: prefix.clone(),
                    separator: separator.into(),
                });
            }
        }
    }
    queries.extend(SESSIONS.map(|id| Query::Session(session_id(id))));
    queries.extend(NODES.map(|name| {
        let node = sider_core::registry::NodeName::parse(name).expect("a valid name");
        Query::Sessions(Some(node))
    }));
    queries.push(Query::Sessions(None));
    queries
}

/// What the keys hold at a revision, found one by one.
fn tree_at(registry: &Registry, revision: u64) -> Vec<Arc<KeyValue>> {
    let held = KEYS.into_iter().filter_map(|name| {
        let held = registry.key_at(&key(name), revision);
        held.expect("nothing of a short run is compacted")
    });
    held.cloned().map(Arc::new).collect()
}

/// The answer that a look at everything gives to a question about keys or sessions.
pub(crate) fn naive_answer(registry: &Registry, query: &Query) -> View {
    let tree = tree_at(registry, registry.index());
    match query {
        Query::Key(key) => View::Keys(tree.into_iter().filter(|held| held.key == *key).collect()),
        Query::KeyTree(prefix) => View::Keys(
            tree.into_iter()
                .filter(|held| held.key.starts_with(prefix))
                .collect(),
        ),
        Query::KeyNames { prefix, separator } => {
            let text = |key: &Key| key.to_string();
            let (prefix, separator) = (text(prefix), String::from_utf8_lossy(separator));
            let mut names: Vec<String> = Vec::new();
            for name in tree.iter().map(|held| text(&held.key)) {
                let Some(rest) = name.strip_prefix(&prefix) else {
                    continue;
                };
                let name = match rest.split_once(&*separator) {
                    Some((part, _)) if !separator.is_empty() => format!("{prefix}{part}{separator}"),
                    _ => name,
                };
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            View::KeyNames(names.iter().map(|name| key(name)).collect())
        }
        Query::Session(id) => View::Sessions(registry.session(id).cloned().into_iter().collect()),
        Query::Sessions(node) => {
            let of_node = |session: &&Session| node.as_ref().is_none_or(|node| session.node == *node);
            View::Sessions(registry.sessions().filter(of_node).cloned().collect())
        }
        other => unreachable!("not about keys or sessions: {other:?}"),
    }
}

/// What the keys held at each revision, as it was when that was the newest.
#[derive(Default)]
pub(crate) struct Past(BTreeMap<u64, Vec<Arc<KeyValue>>>);

impl Past {
    pub(crate) fn remember(&mut self, registry: &Registry) {
        let View::Keys(tree) = registry.query(&Query::KeyTree(Key::default())) else {
            unreachable!("keys are the answer to a question for keys");
        };
        self.0.insert(registry.index(), tree);
    }

    /// The past stays as it was.
    pub(crate) fn check(&self, place: &str, registry: &Registry) {
        for (revision, tree) in &self.0 {
            assert_eq!(
                tree_at(registry, *revision),
                *tree,
                "{place}: at revision {revision}"
            );
        }
    }
}

/// Sessions and locks hold together, and events tell what became of them.
pub(crate) fn check(place: &str, before: &Registry, after: &Registry, applied: &Applied) {
    for held in tree_at(after, after.index()) {
        if let Some(holder) = &held.session {
            let holds = after.session(holder).is_some();
            assert!(holds, "{place}: {:?} is held by {holder}, who is gone", held.key);
            assert!(
                held.lock_index > 0,
                "{place}: {:?} is held, but was never locked",
                held.key
            );
            let was = before.key_at(&held.key, before.index()).expect("not compacted");
            let is_fresh = was.is_none_or(|was| was.session.as_ref() != Some(holder));
            let delayed = is_fresh && before.lock_delay(&held.key).is_some();
            assert!(!delayed, "{place}: {:?} was taken within its delay", held.key);
        }
    }
    for session in after.sessions() {
        assert!(
            after.node(&session.node).is_some(),
            "{place}: {} has no node",
            session.id
        );
    }
    for id in SESSIONS.map(session_id) {
        let has = |event: Event| applied.events.contains(&event);
        let (was, is) = (before.session(&id), after.session(&id));
        assert_eq!(
            has(Event::SessionDestroyed(id.clone())),
            was.is_some() && is.is_none(),
            "{place}: {id} went"
        );
        if was.is_none() && is.is_some() {
            assert!(has(Event::SessionCreated(id.clone())), "{place}: {id} is new");
        }
        if let (Some(was), Some(is)) = (was, is)
            && was.renewals != is.renewals
        {
            assert!(
                has(Event::SessionRenewed(id.clone())),
                "{place}: {id} was renewed"
            );
        }
    }
    for name in KEYS {
        let key = key(name);
        let (was, is) = (before.lock_delay(&key), after.lock_delay(&key));
        let began = applied.events.contains(&Event::LockDelayBegan(key.clone()));
        let ended = applied.events.contains(&Event::LockDelayEnded(key.clone()));
        assert_eq!(began, is.is_some() && was != is, "{place}: delay of {name}");
        assert_eq!(ended, was.is_some() && is.is_none(), "{place}: delay of {name}");
    }
}
