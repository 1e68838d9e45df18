//! The laws, each checked after each command.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sider_core::registry::{
    Applied, Check, CheckKey, CheckStatus, Command, Event, Expiry, Filter, Namespace, NodeName, Query,
    Refusal, Registry, Reply, ServiceName, Shape, Topic, TopicVersion, View,
};

use super::{generate, keys, naive};

/// Every how many commands everything is compared with everything.
const SAMPLE: usize = 20;

pub(crate) struct Judge {
    registry: Registry,
    /// What the reported rows add up to.
    rows: BTreeMap<Bytes, Bytes>,
    queries: Vec<Query>,
    answers: Vec<View>,
    topics: BTreeMap<Topic, TopicVersion>,
    canonical: BTreeMap<Topic, Vec<View>>,
    past: keys::Past,
    applied: usize,
    seen: Seen,
}

/// How often each outcome came.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    refused: u64,
    unchanged: u64,
    changed: u64,
    rows_without_index: u64,
    expired: u64,
    renewed_since: u64,
    already_critical: u64,
    passing_untouched_by_change: u64,
    services_moved: u64,
    nodes_gone: u64,
    sessions_gone: u64,
    delays_begun: u64,
    delays_over: u64,
    transactions_refused: u64,
}

impl Seen {
    pub(crate) fn counts(&self) -> [(&'static str, u64); 14] {
        [
            ("a refusal", self.refused),
            ("a command without a change", self.unchanged),
            ("a change", self.changed),
            ("rows without an index", self.rows_without_index),
            ("an expiry", self.expired),
            ("an expiry renewed since", self.renewed_since),
            ("an expiry of what is critical", self.already_critical),
            (
                "a service that changed behind equal passing instances",
                self.passing_untouched_by_change,
            ),
            ("an instance that moved between services", self.services_moved),
            ("a node that went", self.nodes_gone),
            ("a session that ended", self.sessions_gone),
            ("a lock's delay that began", self.delays_begun),
            ("a lock's delay that ended", self.delays_over),
            ("a refused transaction", self.transactions_refused),
        ]
    }
}

impl Default for Judge {
    fn default() -> Self {
        let registry = Registry::default();
        let queries = queries();
        let answers = queries.iter().map(|query| registry.query(query)).collect();
        let canonical: BTreeMap<Topic, Vec<Query>> = queries
            .iter()
            .map(Query::topic)
            .map(|topic| (topic.clone(), canonical(&topic)))
            .collect();
        let topics = canonical
            .keys()
            .map(|topic| (topic.clone(), registry.version(topic)))
            .collect();
        let canonical = canonical
            .into_iter()
            .map(|(topic, queries)| (topic, queries.iter().map(|query| registry.query(query)).collect()))
            .collect();
        Judge {
            registry,
            rows: BTreeMap::new(),
            queries,
            answers,
            topics,
            canonical,
            past: keys::Past::default(),
            applied: 0,
            seen: Seen::default(),
        }
    }
}

impl Judge {
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Applies a command and checks every law.
    pub(crate) fn apply(&mut self, place: &str, command: &Command) {
        let place = &format!("{place}: {command:?}");
        let before = self.registry.clone();
        let applied = self.registry.apply(command);
        for version in command.least_version()..=Command::NEWEST_VERSION {
            let decoded = Command::decode(&command.encode(version, 7), version);
            let decoded = decoded.map(|logged| logged.command);
            assert_eq!(decoded.as_ref(), Ok(command), "{place}: encoding");
        }
        let again = before.clone().apply(command);
        assert_eq!(again, applied, "{place}: not deterministic");

        self.index_rises_at_most_by_one(place, &before, &applied);
        self.rows_are_reported(place, &applied);
        self.answers_and_topics_agree(place, &applied);
        events_tell_the_difference(place, &before, &self.registry, &applied);
        keys::check(place, &before, &self.registry, &applied);
        self.past.remember(&self.registry);
        self.expiries_are_compared(place, &before, command, &applied);

        self.applied += 1;
        if self.applied.is_multiple_of(SAMPLE) {
            self.sample(place);
        }
        self.count(&before, &applied);
    }

    pub(crate) fn finish(self) -> Seen {
        self.sample("at the end");
        self.seen
    }

    fn index_rises_at_most_by_one(&self, place: &str, before: &Registry, applied: &Applied) {
        let expected = if applied.changed {
            before.index().max(1) + 1
        } else {
            before.index()
        };
        assert_eq!(applied.index, self.registry.index(), "{place}");
        assert_eq!(
            applied.index, expected,
            "{place}: the index rises by one, at a change"
        );
        if applied.reply.is_err() {
            assert!(
                !applied.changed && applied.rows.is_empty(),
                "{place}: a refusal changed something"
            );
            assert_eq!(
                self.registry.digest(),
                before.digest(),
                "{place}: a refusal left a trace"
            );
        }
        if !applied.changed {
            assert!(applied.topics.is_empty(), "{place}: topics without an index");
        }
        if applied.rows.is_empty() {
            assert!(applied.events.is_empty(), "{place}: events without a difference");
        }
    }

    fn rows_are_reported(&mut self, place: &str, applied: &Applied) {
        assert!(
            applied.rows.is_sorted_by(|one, next| one.key < next.key),
            "{place}: rows are sorted, each once"
        );
        for row in &applied.rows {
            let before = match &row.value {
                Some(value) => self.rows.insert(row.key.clone(), value.clone()),
                None => self.rows.remove(&row.key),
            };
            assert_ne!(
                before, row.value,
                "{place}: a row was reported that did not change"
            );
        }
    }

    fn answers_and_topics_agree(&mut self, place: &str, applied: &Applied) {
        let (mut risen, mut touched) = (BTreeSet::new(), BTreeSet::new());
        for (topic, version) in &mut self.topics {
            let now = self.registry.version(topic);
            assert!(
                now >= *version,
                "{place}: {topic:?} went back from {version:?} to {now:?}"
            );
            let views: Vec<View> = canonical(topic)
                .iter()
                .map(|query| self.registry.query(query))
                .collect();
            let views_before = self
                .canonical
                .insert(topic.clone(), views.clone())
                .expect("all topics are there");
            let differs = views.iter().map(sight).ne(views_before.iter().map(sight));
            let rose = now.index > version.index;
            assert_eq!(
                rose, differs,
                "{place}: {topic:?} must rise with a difference, and only then"
            );
            if rose {
                let newest = TopicVersion {
                    index: applied.index,
                    touched: 0,
                };
                assert_eq!(now, newest, "{place}: {topic:?} rose to the new index");
                // A prefix has no index of its own: the keys beneath it are reported.
                match topic {
                    Topic::KeyPrefix(prefix) => assert!(
                        applied.topics.iter().any(|topic| match topic {
                            Topic::Key(key) => key.starts_with(prefix),
                            _ => false,
                        }),
                        "{place}: no key wakes who waits for {prefix:?}"
                    ),
                    _ => {
                        risen.insert(topic.clone());
                    }
                }
            } else {
                let differs = views
                    .iter()
                    .map(without_renewals)
                    .ne(views_before.iter().map(without_renewals));
                let is_touched = now.touched > version.touched;
                assert_eq!(
                    is_touched, differs,
                    "{place}: {topic:?} must be touched with an output, and only then"
                );
                touched.extend(is_touched.then(|| topic.clone()));
            }
            *version = now;
        }
        let known = applied
            .topics
            .iter()
            .filter(|topic| self.topics.contains_key(topic));
        // Two spellings of a service's name rise together, and one of them is reported.
        let known: BTreeSet<Topic> = known.map(folded).collect();
        let folded: BTreeSet<Topic> = risen.iter().map(folded).collect();
        assert_eq!(known, folded, "{place}: the topics that rose are those reported");
        assert!(
            applied.topics.is_sorted_by(|one, next| one < next),
            "{place}: topics are sorted, each once"
        );

        for (query, answer) in self.queries.iter().zip(&mut self.answers) {
            let now = self.registry.query(query);
            let topic = query.topic();
            if sight(&now) != sight(answer) {
                assert!(
                    risen.contains(&topic) || matches!(topic, Topic::KeyPrefix(_)),
                    "{place}: {query:?} differs, but its topic did not rise"
                );
            } else if without_renewals(&now) != without_renewals(answer) {
                let is_newer = risen.contains(&topic) || touched.contains(&topic);
                assert!(
                    is_newer,
                    "{place}: {query:?} has another output, but its topic is not newer"
                );
            }
            *answer = now;
        }
    }

    fn expiries_are_compared(&self, place: &str, before: &Registry, command: &Command, applied: &Applied) {
        let (Command::ExpireChecks(expiries), Ok(Reply::Each(outcomes))) = (command, &applied.reply) else {
            return;
        };
        assert_eq!(expiries.len(), outcomes.len(), "{place}: an outcome for each");
        let mut done = BTreeSet::new();
        for (expiry, outcome) in expiries.iter().zip(outcomes) {
            let expected = expected_outcome(before, expiry, done.contains(&expiry.check));
            assert_eq!(*outcome, expected, "{place}: {expiry:?}");
            if outcome.is_ok() {
                done.insert(expiry.check.clone());
                let check = self
                    .registry
                    .check(&expiry.check)
                    .expect("an expired check stays");
                assert_eq!(
                    check.status,
                    CheckStatus::Critical,
                    "{place}: expired is critical"
                );
                assert!(
                    applied
                        .events
                        .contains(&Event::CheckExpired(expiry.check.clone())),
                    "{place}"
                );
            }
        }
    }

    /// What is too dear to be compared at every step.
    fn sample(&self, place: &str) {
        let rows: Vec<(Bytes, Bytes)> = self.registry.rows().collect();
        assert!(
            rows.is_sorted_by(|one, next| one.0 < next.0),
            "{place}: rows come in key order"
        );
        let reported: Vec<(Bytes, Bytes)> = self
            .rows
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(rows, reported, "{place}: the reported rows are not the rows");

        let restored = Registry::from_rows(rows.iter().rev().cloned()).expect("its own rows are sound");
        assert_eq!(
            restored.digest(),
            self.registry.digest(),
            "{place}: digest of the rows"
        );
        assert_eq!(
            restored.index(),
            self.registry.index(),
            "{place}: index of the rows"
        );
        assert_eq!(
            restored.rows().collect::<Vec<_>>(),
            rows,
            "{place}: rows of the rows"
        );
        self.past.check(place, &self.registry);
        self.past.check(place, &restored);
        for topic in self.topics.keys() {
            assert_eq!(
                restored.version(topic).index,
                self.registry.version(topic).index,
                "{place}: {topic:?}"
            );
        }
        for query in &self.queries {
            let answer = naive::answer(&self.registry, query);
            assert_eq!(self.registry.query(query), answer, "{place}: {query:?}");
            assert_eq!(
                restored.query(query),
                answer,
                "{place}: {query:?} of the restored"
            );
        }
    }

    fn count(&mut self, before: &Registry, applied: &Applied) {
        let seen = &mut self.seen;
        seen.refused += u64::from(applied.reply.is_err());
        seen.unchanged += u64::from(applied.reply.is_ok() && applied.rows.is_empty());
        seen.transactions_refused += u64::from(matches!(applied.reply, Err(Refusal::Aborted(_))));
        seen.changed += u64::from(applied.changed);
        seen.rows_without_index += u64::from(!applied.changed && !applied.rows.is_empty());
        if let Ok(Reply::Each(outcomes)) = &applied.reply {
            let count =
                |refusal: Refusal| outcomes.iter().filter(|o| **o == Err(refusal.clone())).count() as u64;
            seen.renewed_since += count(Refusal::RenewedSince);
            seen.already_critical += count(Refusal::AlreadyCritical);
        }
        for event in &applied.events {
            match event {
                Event::CheckExpired(_) => seen.expired += 1,
                Event::NodeDeregistered(_) => seen.nodes_gone += 1,
                Event::SessionDestroyed(_) => seen.sessions_gone += 1,
                Event::LockDelayBegan(_) => seen.delays_begun += 1,
                Event::LockDelayEnded(_) => seen.delays_over += 1,
                Event::InstanceRegistered(key) => {
                    let service = |registry: &Registry| registry.instance(key).map(|i| i.service.clone());
                    let was = service(before);
                    seen.services_moved += u64::from(was.is_some() && was != service(&self.registry));
                }
                _ => {}
            }
        }
        for topic in &applied.topics {
            if let Topic::Service(namespace, service) = topic {
                let passing = Topic::ServicePassing(namespace.clone(), service.clone());
                seen.passing_untouched_by_change += u64::from(!applied.topics.contains(&passing));
            }
        }
    }
}

/// A topic about a service by the name under which it is looked up.
fn folded(topic: &Topic) -> Topic {
    let fold = |name: &ServiceName| {
        ServiceName::parse(&name.as_str().to_ascii_lowercase()).expect("as valid as the name itself")
    };
    match topic {
        Topic::Service(namespace, name) => Topic::Service(namespace.clone(), fold(name)),
        Topic::ServicePassing(namespace, name) => Topic::ServicePassing(namespace.clone(), fold(name)),
        Topic::ServiceInstances(namespace, name) => Topic::ServiceInstances(namespace.clone(), fold(name)),
        Topic::ServiceChecks(namespace, name) => Topic::ServiceChecks(namespace.clone(), fold(name)),
        other => other.clone(),
    }
}

fn expected_outcome(before: &Registry, expiry: &Expiry, expired_just_now: bool) -> Result<(), Refusal> {
    let id = || expiry.check.id.to_string();
    match before.check(&expiry.check) {
        None => Err(Refusal::UnknownCheck(id())),
        Some(check) if check.definition.ttl().is_none() => Err(Refusal::NotTtl(id())),
        Some(check)
            if (check.renewals, check.create_index) != (expiry.renewals_seen, expiry.create_index_seen) =>
        {
            Err(Refusal::RenewedSince)
        }
        Some(check) if check.status == CheckStatus::Critical || expired_just_now => {
            Err(Refusal::AlreadyCritical)
        }
        Some(_) => Ok(()),
    }
}

/// Events are what the leader's timers go by: none may be missing, and a TTL that starts anew must be told apart from
/// what an expiry saw before.
fn events_tell_the_difference(place: &str, before: &Registry, after: &Registry, applied: &Applied) {
    let keys: BTreeSet<CheckKey> = before.checks().chain(after.checks()).map(Check::key).collect();
    for key in keys {
        let has = |event: Event| applied.events.contains(&event);
        let restarts = has(Event::CheckRegistered(key.clone())) || has(Event::CheckRenewed(key.clone()));
        match (before.check(&key), after.check(&key)) {
            (None, Some(_)) => assert!(
                has(Event::CheckRegistered(key.clone())),
                "{place}: {key:?} is new"
            ),
            (Some(_), None) => assert!(
                has(Event::CheckDeregistered(key.clone())),
                "{place}: {key:?} went"
            ),
            (Some(old), Some(new)) => {
                let seen = |check: &Check| (check.create_index, check.renewals);
                assert_eq!(
                    seen(old) != seen(new),
                    restarts,
                    "{place}: {key:?} starts anew if it is renewed"
                );
                if old.definition != new.definition {
                    assert!(
                        has(Event::CheckRegistered(key.clone())),
                        "{place}: {key:?} is defined anew"
                    );
                }
                let changed = Event::CheckStatusChanged {
                    check: key.clone(),
                    from: old.status,
                    to: new.status,
                };
                assert_eq!(
                    has(changed),
                    old.status != new.status,
                    "{place}: {key:?} and its status"
                );
            }
            (None, None) => {}
        }
    }
    let instances = |registry: &Registry| registry.instances().map(|i| (i.key(), i.clone())).collect();
    let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) = (instances(before), instances(after));
    for key in old.keys().chain(new.keys()) {
        let registered = applied.events.contains(&Event::InstanceRegistered(key.clone()));
        let gone = applied.events.contains(&Event::InstanceDeregistered(key.clone()));
        assert_eq!(gone, !new.contains_key(key), "{place}: {key:?}");
        assert_eq!(
            registered,
            new.get(key).is_some_and(|now| Some(now) != old.get(key)),
            "{place}: {key:?}"
        );
    }
}

/// Every kind of query for everything in the universe, and for something that is never there.
fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    let metas = [vec![], vec![("rack".to_owned(), "1".to_owned())]];
    for namespace in generate::NAMESPACES.map(|name| Namespace::parse(name).expect("a valid name")) {
        for node_meta in &metas {
            for service in services() {
                for (passing, tags) in [
                    (false, vec![]),
                    (true, vec![]),
                    (false, vec!["b"]),
                    (true, vec!["A", "c"]),
                ] {
                    queries.push(Query::ServiceHealth {
                        namespace: namespace.clone(),
                        service: service.clone(),
                        passing,
                        tags: tags.into_iter().map(str::to_owned).collect(),
                        node_meta: node_meta.clone(),
                    });
                }
                queries.push(Query::CatalogService {
                    namespace: namespace.clone(),
                    service: service.clone(),
                    tags: vec![],
                    node_meta: node_meta.clone(),
                });
                queries.push(Query::ServiceChecks {
                    namespace: namespace.clone(),
                    service,
                    node_meta: node_meta.clone(),
                });
            }
            queries.push(Query::Services {
                namespace: namespace.clone(),
                node_meta: node_meta.clone(),
            });
            for status in CheckStatus::ALL.map(Some).into_iter().chain([None]) {
                queries.push(Query::ChecksInState {
                    namespace: namespace.clone(),
                    status,
                    node_meta: node_meta.clone(),
                });
            }
            queries.push(Query::Nodes {
                node_meta: node_meta.clone(),
            });
        }
        for node in nodes() {
            queries.push(Query::NodeServices {
                namespace: namespace.clone(),
                node: node.clone(),
            });
            queries.push(Query::NodeChecks {
                namespace: namespace.clone(),
                node,
            });
        }
    }
    for service in services() {
        for (checks, passing) in [(false, false), (true, false), (true, true)] {
            queries.push(Query::Connect {
                service: service.clone(),
                checks,
                passing,
                tags: vec![],
                node_meta: vec![],
            });
        }
    }
    // Each kind now and then: a filter costs, and is the same code for all that a kind lists.
    let filtered: Vec<_> = queries.iter().step_by(7).flat_map(filtered).collect();
    queries.extend(filtered);
    queries.extend(keys::queries());
    queries
}

/// The query with filters over what it lists.
fn filtered(query: &Query) -> Vec<Query> {
    let (shape, texts) = match query {
        Query::ServiceHealth { .. } | Query::Connect { checks: true, .. } => (
            Shape::Health,
            [
                "b in Service.Tags",
                "Checks.Status != passing and Node.Meta.rack == 1",
            ],
        ),
        Query::CatalogService { .. } | Query::Services { .. } | Query::Connect { checks: false, .. } => (
            Shape::CatalogService,
            [
                "b in ServiceTags",
                "not NodeMeta.rack == 1 or ServiceAddress == `10.1.0.2`",
            ],
        ),
        Query::NodeServices { .. } => (Shape::Service, ["b in Tags", "Address matches `2$`"]),
        Query::Nodes { .. } => (Shape::Node, ["Meta.rack == 1", "Address == \"10.0.0.2\""]),
        _ => (
            Shape::Check,
            ["ServiceTags is empty", "Status matches `^(pass|crit)`"],
        ),
    };
    let filter = |text| Filter::parse(text, shape, "dc1").expect("a valid filter");
    let filtered = |text| Query::Filtered {
        query: Box::new(query.clone()),
        filter: filter(text),
    };
    texts.map(filtered).into()
}

fn services() -> impl Iterator<Item = ServiceName> {
    let names = generate::SERVICES.into_iter().chain(["never"]);
    names.map(|name| ServiceName::parse(name).expect("a valid name"))
}

fn nodes() -> impl Iterator<Item = NodeName> {
    let names = generate::NODES.into_iter().chain(["never"]);
    names.map(|name| NodeName::parse(name).expect("a valid name"))
}

/// The questions whose answers together are all that a topic's readers can see.
fn canonical(topic: &Topic) -> Vec<Query> {
    let health = |namespace: &Namespace, service: &ServiceName, passing| Query::ServiceHealth {
        namespace: namespace.clone(),
        service: service.clone(),
        passing,
        tags: vec![],
        node_meta: vec![],
    };
    let checks = |namespace: &Namespace, status| Query::ChecksInState {
        namespace: namespace.clone(),
        status,
        node_meta: vec![],
    };
    let node_services = |namespace: &Namespace, node: NodeName| Query::NodeServices {
        namespace: namespace.clone(),
        node,
    };
    match topic.clone() {
        Topic::Service(namespace, service) => vec![health(&namespace, &service, false)],
        Topic::ServicePassing(namespace, service) => vec![health(&namespace, &service, true)],
        Topic::ServiceInstances(namespace, service) => vec![Query::CatalogService {
            namespace,
            service,
            tags: vec![],
            node_meta: vec![],
        }],
        Topic::ServiceChecks(namespace, service) => vec![Query::ServiceChecks {
            namespace,
            service,
            node_meta: vec![],
        }],
        Topic::Services(namespace) => vec![Query::Services {
            namespace,
            node_meta: vec![],
        }],
        Topic::Nodes => vec![Query::Nodes { node_meta: vec![] }],
        Topic::NodeServices(namespace, node) => vec![node_services(&namespace, node)],
        Topic::NodeChecks(namespace, node) => vec![Query::NodeChecks { namespace, node }],
        Topic::Checks(namespace) => vec![checks(&namespace, None)],
        Topic::ChecksInState(namespace, status) => vec![checks(&namespace, Some(status))],
        Topic::Namespace(namespace) => {
            let nodes = nodes().map(|node| node_services(&namespace, node));
            nodes.chain([checks(&namespace, None)]).collect()
        }
        Topic::Key(key) => vec![Query::Key(key)],
        Topic::KeyPrefix(prefix) => vec![Query::KeyTree(prefix)],
        Topic::Session(id) => vec![Query::Session(id)],
        Topic::SessionsOfNode(node) => vec![Query::Sessions(Some(node))],
        Topic::Sessions => vec![Query::Sessions(None)],
    }
}

/// A view as far as a watcher is woken for it: without outputs, and without counts of renewals (also of sessions).
fn sight(view: &View) -> View {
    each_check(view.clone(), |check| {
        check.output.clear();
        check.renewals = 0;
    })
}

fn without_renewals(view: &View) -> View {
    each_check(view.clone(), |check| check.renewals = 0)
}

fn each_check(mut view: View, change: impl Fn(&mut Check)) -> View {
    match &mut view {
        View::Instances(instances) => {
            instances
                .iter_mut()
                .flat_map(|instance| &mut instance.checks)
                .for_each(change);
        }
        View::Checks(checks) => checks.iter_mut().for_each(|(check, _)| change(check)),
        View::Sessions(sessions) => sessions.iter_mut().for_each(|session| session.renewals = 0),
        View::Services(_) | View::Nodes(_) | View::NodeServices(_) | View::Keys(_) | View::KeyNames(_) => {}
    }
    view
}
