//! Answers, built once for each version of what was asked and shared by all who ask.
//!
//! When a topic's version rises but the answer comes out as before, the old view stays and only its version is
//! renewed: its encoded bytes stay shared, and whoever waits sees by pointer that nothing changed for him.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use crate::registry::{Check, Query, Registry, TopicVersion, View};

/// A view, shared by all who asked the same at the same index.
#[derive(Debug)]
pub struct SharedView {
    /// The typed content.
    pub view: View,
    bytes: OnceLock<Bytes>,
    /// Whether the bytes were given out more than once.
    reused: AtomicBool,
    /// What this view was last compared with: thousands of waiters that parked with one view compare once.
    compared: Mutex<Option<(std::sync::Weak<SharedView>, bool)>>,
}

impl SharedView {
    pub(super) fn new(view: View) -> Self {
        SharedView {
            view,
            bytes: OnceLock::new(),
            reused: AtomicBool::new(false),
            compared: Mutex::new(None),
        }
    }

    /// The content's bytes, encoded by `encode` once. All callers must encode alike.
    pub fn bytes(&self, encode: impl FnOnce(&View) -> Bytes) -> Bytes {
        if let Some(bytes) = self.bytes.get() {
            self.reused.store(true, Ordering::Relaxed);
            return bytes.clone();
        }
        self.bytes.get_or_init(|| encode(&self.view)).clone()
    }

    /// Whether its bytes were given to somebody before the last who asked for them.
    pub fn is_reused(&self) -> bool {
        self.reused.load(Ordering::Relaxed)
    }

    /// Whether both show the same.
    pub(super) fn same_content(self: &Arc<Self>, other: &Arc<SharedView>) -> bool {
        if Arc::ptr_eq(self, other) {
            return true;
        }
        let mut compared = self.compared.lock().expect("no holder of this lock panics");
        if let Some((with, same)) = &*compared
            && std::ptr::eq(with.as_ptr(), Arc::as_ptr(other))
        {
            return *same;
        }
        let same = shown_alike(&self.view, &other.view);
        // A weak reference keeps the address from being used again while it is compared with.
        *compared = Some((Arc::downgrade(other), same));
        same
    }
}

/// Whether two views are shown alike: a check's or session's count of renewals is no part of any answer.
fn shown_alike(one: &View, other: &View) -> bool {
    match (one, other) {
        (View::Instances(ones), View::Instances(others)) => all_alike(ones, others, |one, other| {
            one.node == other.node
                && one.instance == other.instance
                && all_alike(&one.checks, &other.checks, check_alike)
        }),
        (View::Checks(ones), View::Checks(others)) => all_alike(ones, others, |one, other| {
            one.1 == other.1 && check_alike(&one.0, &other.0)
        }),
        (View::Sessions(ones), View::Sessions(others)) => {
            all_alike(ones, others, |one, other| one.looks_like(other))
        }
        _ => one == other,
    }
}

fn all_alike<T>(ones: &[T], others: &[T], alike: impl Fn(&T, &T) -> bool) -> bool {
    ones.len() == others.len() && ones.iter().zip(others).all(|(one, other)| alike(one, other))
}

fn check_alike(one: &Check, other: &Check) -> bool {
    // Most are equal: only one that was renewed by a write is copied for the comparison.
    one == other
        || (one.renewals != other.renewals
            && Check {
                renewals: other.renewals,
                ..one.clone()
            } == *other)
}

/// The views kept by one server; the least recently used go first.
#[derive(Debug)]
pub(super) struct Views {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    uses: u64,
    slots: BTreeMap<Arc<Query>, (u64, Arc<Slot>)>,
    by_use: BTreeMap<u64, Arc<Query>>,
}

/// Holds the newest view of one query. Its lock is held while the view is built, so that it is built once.
type Slot = Mutex<Option<(TopicVersion, Arc<SharedView>)>>;

impl Views {
    /// Keeps at most `limit` views.
    pub(super) fn new(limit: usize) -> Self {
        Views {
            limit,
            state: Mutex::default(),
        }
    }

    /// The answer to `query` on this state, with its index. Whoever builds a view holds the state for reading, so all
    /// who are here at once want the same version.
    pub(super) fn get(&self, registry: &Registry, query: &Query) -> (Arc<SharedView>, u64) {
        let version = registry.version(&query.topic());
        let slot = self.slot(query);
        let mut slot = slot.lock().expect("answering a query does not panic");
        let view = match &*slot {
            Some((known, view)) if *known == version => view.clone(),
            Some((_, view)) => {
                let new = registry.query(query);
                if new == view.view {
                    view.clone()
                } else {
                    Arc::new(SharedView::new(new))
                }
            }
            None => Arc::new(SharedView::new(registry.query(query))),
        };
        *slot = Some((version, view.clone()));
        (view, version.index)
    }

    /// Forgets everything: versions count from anew after the state was replaced.
    pub(super) fn clear(&self) {
        *self.lock() = State::default();
    }

    fn slot(&self, query: &Query) -> Arc<Slot> {
        let mut state = self.lock();
        let state = &mut *state;
        state.uses += 1;
        let known = state.slots.get_mut(query).and_then(|(used, slot)| {
            let query = state.by_use.remove(used)?;
            *used = state.uses;
            Some((query, slot.clone()))
        });
        let (query, slot) = known.unwrap_or_else(|| {
            let (query, slot) = (Arc::new(query.clone()), Arc::<Slot>::default());
            state.slots.insert(query.clone(), (state.uses, slot.clone()));
            (query, slot)
        });
        state.by_use.insert(state.uses, query);
        while state.slots.len() > self.limit {
            let Some((_, oldest)) = state.by_use.pop_first() else {
                break;
            };
            state.slots.remove(&oldest);
        }
        slot
    }

    /// How many views are kept, or are to be forgotten in their turn.
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.slots.len().max(state.by_use.len())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Command, Deregister, Keeps, Node, NodeName, Registration};

    fn node(name: &str) -> Command {
        Command::Register(vec![Registration {
            node: Node {
                name: NodeName::parse(name).expect("a valid name"),
                id: String::new(),
                address: "10.0.0.1".into(),
                tagged_addresses: BTreeMap::new(),
                meta: BTreeMap::from([("rack".into(), name.into())]),
                create_index: 0,
                modify_index: 0,
                locality: None,
            },
            keeps: Keeps::Nothing,
            instance: None,
            checks: Vec::new(),
            replace_checks: false,
        }])
    }

    fn nodes_of(rack: &str) -> Query {
        Query::Nodes {
            node_meta: vec![("rack".into(), rack.into())],
        }
    }

    #[test]
    fn a_view_is_built_once_and_replaced_when_it_differs() {
        let views = Views::new(10);
        let mut registry = Registry::default();
        registry.apply(&node("a"));
        let (first, index) = views.get(&registry, &nodes_of("a"));
        let (again, same_index) = views.get(&registry, &nodes_of("a"));
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(index, same_index);

        // The topic's index rises, but this answer stays as it was, and so do its bytes.
        registry.apply(&node("b"));
        let (kept, higher_index) = views.get(&registry, &nodes_of("a"));
        assert!(Arc::ptr_eq(&first, &kept) && higher_index > index);

        let name = NodeName::parse("a").expect("a valid name");
        registry.apply(&Command::Deregister(Deregister::Node(name)));
        let (gone, _) = views.get(&registry, &nodes_of("a"));
        assert_eq!(gone.view, View::Nodes(Vec::new()));
        assert!(!gone.same_content(&first) && !first.same_content(&gone));
    }

    #[test]
    fn equal_content_is_equal_wherever_it_was_built() {
        let mut registry = Registry::default();
        registry.apply(&node("a"));
        let (one, _) = Views::new(10).get(&registry, &nodes_of("a"));
        let (other, _) = Views::new(10).get(&registry, &nodes_of("a"));
        let (empty, _) = Views::new(10).get(&registry, &nodes_of("b"));
        assert!(!Arc::ptr_eq(&one, &other));
        for _ in 0..2 {
            assert!(one.same_content(&other));
            assert!(!one.same_content(&empty));
        }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let views = Views::new(2);
        let registry = Registry::default();
        let (first, _) = views.get(&registry, &nodes_of("a"));
        views.get(&registry, &nodes_of("b"));
        views.get(&registry, &nodes_of("a"));
        views.get(&registry, &nodes_of("c"));
        assert_eq!(views.lock().slots.len(), 2);
        assert_eq!(views.lock().by_use.len(), 2);
        let (kept, _) = views.get(&registry, &nodes_of("a"));
        assert!(
            Arc::ptr_eq(&first, &kept),
            "it was used more recently than the one that had to go"
        );
    }

    #[test]
    fn what_is_known_of_another_state_is_forgotten() {
        let views = Views::new(2);
        let mut registry = Registry::default();
        let query = Query::Nodes {
            node_meta: Vec::new(),
        };
        registry.apply(&node("a"));
        let (before, _) = views.get(&registry, &query);
        views.clear();
        let (after, _) = views.get(&registry, &query);
        assert!(
            !Arc::ptr_eq(&before, &after),
            "what was known of another state was kept"
        );
        assert!(before.same_content(&after));
    }
}
