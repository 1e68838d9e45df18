//! The reference model: the registry once more, as plainly as it can be written. Lists instead of tables, everything
//! computed from scratch, no index kept that could be forgotten. The judges hold the real registry against it.

mod catalog;
mod keys;
mod rename;
mod virtual_address;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use sider_core::registry::{
    Check, CheckDefinitionUpdate, CheckKey, CheckStatus, CheckTarget, CheckUpdate, Command, Deregister,
    Expiry, Instance, InstanceKey, Keeps, Key, KeyValue, Namespace, Node, NodeName, Refusal, Registration,
    Reply, Restore, Session, Topic,
};

/// A state of the registry. Cheap to clone: unchanged things are shared.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The index of the last change.
    pub index: u64,
    /// Nodes, in no order.
    pub nodes: Vec<Arc<Node>>,
    /// Instances, in no order.
    pub instances: Vec<Arc<Instance>>,
    /// Checks, in no order.
    pub checks: Vec<Arc<Check>>,
    /// What keys hold, in no order.
    pub keys: Vec<Arc<KeyValue>>,
    /// Sessions, in no order.
    pub sessions: Vec<Arc<Session>>,
    /// Locks that nobody can take, with their delay and the index at which it began.
    delays: BTreeMap<Key, (Duration, u64)>,
    /// The index that every topic has at least: that of the last restore.
    pub floor: u64,
    /// The version of commands that the cluster writes.
    pub version: u8,
    /// Parts of a snapshot file that is being restored, and of which restore.
    staged: (u64, Vec<Vec<u8>>),
}

impl State {
    /// The restore of which parts are laid down, and how many; `None` while there are none.
    pub fn staged(&self) -> Option<(u64, usize)> {
        let (restore, parts) = &self.staged;
        (!parts.is_empty()).then_some((*restore, parts.len()))
    }

    /// Carries out a command; gives its reply and whether it took an index.
    pub fn apply(&mut self, command: &Command) -> (Result<Reply, Refusal>, bool) {
        let before = self.clone();
        let index = before.next_index();
        let reply = match command {
            Command::Register(registrations) => self.register(registrations, index),
            Command::Deregister(what) => self.deregister(what),
            Command::UpdateChecks(updates) => Ok(Reply::Each(
                updates.iter().map(|update| self.update(update, index)).collect(),
            )),
            Command::ExpireChecks(expiries) => Ok(Reply::Each(
                expiries.iter().map(|expiry| self.expire(expiry, index)).collect(),
            )),
            Command::DeregisterCritical(expiries) => Ok(Reply::Each(
                expiries.iter().map(|expiry| self.reap(expiry)).collect(),
            )),
            Command::Restore(step) => self.restore(step),
            Command::RaiseVersion(version) => {
                self.version = self.version.max(*version);
                Ok(Reply::Done)
            }
            Command::Transact(operations) => self.transact(operations, index),
            Command::CreateSession(new) => self.begin_session(&new.session, new.node.as_ref(), index),
            Command::DestroySession(id) => Ok(Reply::Deregistered(self.end_session(id, index))),
            Command::RenewSessions(ids) => {
                Ok(Reply::Each(ids.iter().map(|id| self.renew_session(id)).collect()))
            }
            Command::ExpireSessions(expiries) => Ok(Reply::Each(
                expiries
                    .iter()
                    .map(|expiry| self.expire_session(expiry, index))
                    .collect(),
            )),
            Command::EndLockDelays(ends) => {
                Ok(Reply::Each(ends.iter().map(|end| self.end_delay(end)).collect()))
            }
        };
        if reply.is_err() {
            *self = before;
            return (reply, false);
        }
        self.end_orphans(&before, index);
        self.keep_what_did_not_change(&before);
        self.keep_keys_that_did_not_change(&before);
        if let Command::Restore(Restore::Commit { index: of_file, .. }) = command {
            // Above the index of either, whatever has changed; and so has every question from then on.
            self.index = index.max(of_file.max(&1) + 1);
            self.floor = self.index;
            for check in &mut self.checks {
                Arc::make_mut(check).renewals = self.index << 20;
            }
            return (reply, true);
        }
        let changed = self.signature() != before.signature();
        if changed {
            self.index = index;
        }
        (reply, changed)
    }

    fn restore(&mut self, step: &Restore) -> Result<Reply, Refusal> {
        let refused = || Err(Refusal::Invalid("the restore was given up".into()));
        match step {
            Restore::Stage { restore, part, rows } => {
                if *part == 0 && self.staged.0 != *restore {
                    self.staged = (*restore, Vec::new());
                }
                if (self.staged.0, self.staged.1.len()) != (*restore, *part as usize) {
                    return refused();
                }
                self.staged.1.push(rows.clone());
            }
            Restore::Discard { restore } => {
                if self.staged.0 == *restore {
                    self.staged.1.clear();
                }
            }
            Restore::Commit {
                restore,
                parts,
                index,
                ..
            } => {
                if (self.staged.0, self.staged.1.len()) != (*restore, *parts as usize) {
                    return refused();
                }
                let (_, parts) = std::mem::take(&mut self.staged);
                let file = parts
                    .iter()
                    .try_fold(State::default(), |file, part| file.with_rows(part));
                let Ok(file) = file else { return refused() };
                self.nodes = file.nodes;
                self.instances = file.instances;
                self.checks = file.checks;
                // Keys are written at the restore's own index; what they held is kept below, where it is the same.
                let at = self.index.max(*index).max(1) + 1;
                let known = std::mem::replace(&mut self.keys, file.keys);
                for held in &mut self.keys {
                    let known = known.iter().find(|it| it.key == held.key);
                    let held = Arc::make_mut(held);
                    held.version = known.map_or(1, |it| it.version + 1);
                    held.create_index = known.map_or(at, |it| it.create_index);
                    held.modify_index = at;
                }
                self.sessions = file.sessions;
                for session in &mut self.sessions {
                    Arc::make_mut(session).renewals = at << 20;
                }
                self.delays = file.delays;
                for (_, since) in self.delays.values_mut() {
                    *since = at;
                }
            }
        }
        Ok(Reply::Done)
    }

    /// With the things in packed rows of a snapshot file: kind and key, then a version and the thing itself.
    fn with_rows(mut self, packed: &[u8]) -> Result<State, String> {
        let mut rest = packed;
        while !rest.is_empty() {
            let (key, value) = (next_part(&mut rest)?, next_part(&mut rest)?);
            let thing = value.get(1..).ok_or("an empty row")?;
            let wrong = |error: postcard::Error| error.to_string();
            match key.first() {
                Some(0x10) => self.nodes.push(postcard::from_bytes(thing).map_err(wrong)?),
                Some(0x11) => self.instances.push(postcard::from_bytes(thing).map_err(wrong)?),
                Some(0x12) => self.checks.push(postcard::from_bytes(thing).map_err(wrong)?),
                Some(0x13) => {
                    let name = key.get(9..).ok_or("a key without a revision")?;
                    let held: Option<Arc<KeyValue>> = postcard::from_bytes(thing).map_err(wrong)?;
                    // Older revisions come first.
                    self.keys.retain(|it| it.key.as_bytes() != name);
                    self.keys.extend(held);
                }
                Some(0x14) => self.sessions.push(postcard::from_bytes(thing).map_err(wrong)?),
                Some(0x15) => {
                    let key = Key::parse(key[1..].to_vec()).map_err(|error| error.to_string())?;
                    self.delays
                        .insert(key, postcard::from_bytes(thing).map_err(wrong)?);
                }
                // Indexes of topics: all of them are new after a restore.
                _ => {}
            }
        }
        Ok(self)
    }

    /// The index that the next change takes. An empty registry already answers with index 1, so its first change
    /// takes 2: else who waits above 1 would miss it.
    fn next_index(&self) -> u64 {
        self.index.max(1) + 1
    }

    fn register(&mut self, registrations: &[Registration], index: u64) -> Result<Reply, Refusal> {
        let mut ids = Vec::new();
        for registration in registrations {
            contradiction(registration).map_or(Ok(()), |what| Err(Refusal::Invalid(what)))?;
            let known = self.node(&registration.node.name).is_some();
            if !known || registration.keeps == Keeps::Nothing {
                self.put_node(&registration.node, index);
            }
            if let Some(instance) = &registration.instance {
                self.put_instance(instance, index);
                if registration.replace_checks {
                    let named =
                        |check: &Check| registration.checks.iter().any(|given| given.key() == check.key());
                    self.checks
                        .retain(|check| !belongs(check, &instance.key()) || named(check));
                }
            }
            for given in &registration.checks {
                self.put_check(given, registration.keeps == Keeps::NodeAndStatuses, index)?;
            }
            ids.push(registration.checks.iter().map(|check| check.id.clone()).collect());
        }
        Ok(Reply::Registered(ids))
    }

    fn put_node(&mut self, given: &Node, index: u64) {
        self.take_over(given, index);
        let create_index = self.node(&given.name).map_or(index, |node| node.create_index);
        self.nodes.retain(|node| node.name != given.name);
        self.nodes.push(Arc::new(Node {
            create_index,
            modify_index: index,
            ..given.clone()
        }));
    }

    fn put_instance(&mut self, given: &Instance, index: u64) {
        let given = self.with_virtual_address(given);
        let key = given.key();
        let create_index = self
            .instance(&key)
            .map_or(index, |instance| instance.create_index);
        self.instances.retain(|instance| instance.key() != key);
        self.instances.push(Arc::new(Instance {
            create_index,
            modify_index: index,
            ..given
        }));
    }

    fn put_check(
        &mut self,
        given: &CheckDefinitionUpdate,
        keep_status: bool,
        index: u64,
    ) -> Result<(), Refusal> {
        if let Some(id) = &given.instance {
            let key = InstanceKey {
                namespace: given.namespace.clone(),
                node: given.node.clone(),
                id: id.clone(),
            };
            self.instance(&key)
                .ok_or_else(|| Refusal::UnknownInstance(id.to_string()))?;
        }
        let old = self.check(&given.key()).cloned();
        let same_thing = |old: &Check| old.definition == given.definition && old.instance == given.instance;
        let kept = old
            .as_deref()
            .filter(|old| keep_status || (same_thing(old) && given.status.is_none()));
        let untouched = |old: &Check| same_thing(old) && old.name == given.name && old.notes == given.notes;
        if given.status.is_none() && old.as_deref().is_some_and(untouched) {
            return Ok(());
        }
        let check = Check {
            namespace: given.namespace.clone(),
            node: given.node.clone(),
            id: given.id.clone(),
            name: given.name.clone(),
            instance: given.instance.clone(),
            definition: given.definition.clone(),
            status: kept.map_or(given.status.unwrap_or(CheckStatus::Critical), |old| old.status),
            output: kept.map_or(given.output.clone(), |old| old.output.clone()),
            notes: given.notes.clone(),
            renewals: old.as_ref().map_or(0, |old| old.renewals + 1),
            create_index: old.as_ref().map_or(index, |old| old.create_index),
            modify_index: index,
        };
        self.checks.retain(|check| check.key() != given.key());
        self.checks.push(Arc::new(check));
        Ok(())
    }

    fn deregister(&mut self, what: &Deregister) -> Result<Reply, Refusal> {
        let before = (self.nodes.len(), self.instances.len(), self.checks.len());
        match what {
            Deregister::Node(name) => {
                if self.node(name).is_some() {
                    self.nodes.retain(|node| node.name != *name);
                    self.instances.retain(|instance| instance.node != *name);
                    self.checks.retain(|check| check.node != *name);
                }
            }
            Deregister::Instance { key, service } => {
                if let (Some(instance), Some(named)) = (self.instance(key), service)
                    && instance.service != *named
                {
                    return Err(Refusal::OtherService {
                        instance: key.id.to_string(),
                        actual: instance.service.to_string(),
                        named: named.to_string(),
                    });
                }
                self.instances.retain(|instance| instance.key() != *key);
                self.checks.retain(|check| !belongs(check, key));
            }
            Deregister::Check(key) => self.checks.retain(|check| check.key() != *key),
        }
        Ok(Reply::Deregistered(
            before != (self.nodes.len(), self.instances.len(), self.checks.len()),
        ))
    }

    fn update(&mut self, update: &CheckUpdate, index: u64) -> Result<(), Refusal> {
        match &update.target {
            CheckTarget::Check(key) if self.check(key).is_none() => {
                return Err(Refusal::UnknownCheck(key.id.to_string()));
            }
            CheckTarget::TtlChecksOf(key) if self.instance(key).is_none() => {
                return Err(Refusal::UnknownInstance(key.id.to_string()));
            }
            _ => {}
        }
        for check in &mut self.checks {
            let meant = match &update.target {
                CheckTarget::Check(key) => check.key() == *key,
                CheckTarget::TtlChecksOf(key) => belongs(check, key) && check.definition.ttl().is_some(),
            };
            if !meant {
                continue;
            }
            let check = Arc::make_mut(check);
            if let Some(status) = update.status {
                check.renewals += 1;
                if check.status != status {
                    check.status = status;
                    check.modify_index = index;
                }
            }
            if let Some(output) = &update.output {
                check.output.clone_from(output);
            }
        }
        Ok(())
    }

    fn expire(&mut self, expiry: &Expiry, index: u64) -> Result<(), Refusal> {
        let unknown = || Refusal::UnknownCheck(expiry.check.id.to_string());
        let as_agents = self.version >= Command::AS_AGENTS;
        let check = self
            .checks
            .iter_mut()
            .find(|check| check.key() == expiry.check)
            .ok_or_else(unknown)?;
        if check.definition.ttl().is_none() {
            return Err(Refusal::NotTtl(expiry.check.id.to_string()));
        }
        if (check.renewals, check.create_index) != (expiry.renewals_seen, expiry.create_index_seen) {
            return Err(Refusal::RenewedSince);
        }
        if check.status == CheckStatus::Critical {
            return Err(Refusal::AlreadyCritical);
        }
        let check = Arc::make_mut(check);
        check.status = CheckStatus::Critical;
        check.modify_index = index;
        check.output = match check.output.as_str() {
            "" => "TTL expired".into(),
            last if last.starts_with("TTL expired") => "TTL expired".into(),
            last if as_agents => format!("TTL expired (last output before timeout follows): {last}"),
            last => format!("TTL expired; last output: {last}"),
        };
        Ok(())
    }

    fn reap(&mut self, expiry: &Expiry) -> Result<(), Refusal> {
        let unknown = || Refusal::UnknownCheck(expiry.check.id.to_string());
        let check = Arc::clone(self.check(&expiry.check).ok_or_else(unknown)?);
        let seen = (expiry.renewals_seen, expiry.create_index_seen);
        if (check.renewals, check.create_index) != seen || check.status != CheckStatus::Critical {
            return Err(Refusal::RenewedSince);
        }
        let id = check
            .instance
            .clone()
            .ok_or_else(|| Refusal::Invalid("no instance".into()))?;
        let key = InstanceKey {
            namespace: check.namespace.clone(),
            node: check.node.clone(),
            id,
        };
        self.instances.retain(|instance| instance.key() != key);
        self.checks.retain(|check| !belongs(check, &key));
        Ok(())
    }

    /// Gives back their indexes to things that are as they were before.
    fn keep_what_did_not_change(&mut self, before: &State) {
        for node in &mut self.nodes {
            if let Some(old) = before.node(&node.name)
                && *old.as_ref()
                    == (Node {
                        create_index: old.create_index,
                        modify_index: old.modify_index,
                        ..Node::clone(node)
                    })
            {
                *node = Arc::clone(old);
            }
        }
        for instance in &mut self.instances {
            if let Some(old) = before.instance(&instance.key())
                && *old.as_ref()
                    == (Instance {
                        create_index: old.create_index,
                        modify_index: old.modify_index,
                        ..Instance::clone(instance)
                    })
            {
                *instance = Arc::clone(old);
            }
        }
        for check in &mut self.checks {
            if let Some(old) = before.check(&check.key())
                && check.modify_index != old.modify_index
            {
                let as_before = Check {
                    output: old.output.clone(),
                    renewals: old.renewals,
                    modify_index: old.modify_index,
                    ..Check::clone(check)
                };
                if as_before == **old {
                    Arc::make_mut(check).modify_index = old.modify_index;
                }
            }
        }
    }

    /// A node.
    pub fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// An instance.
    pub fn instance(&self, key: &InstanceKey) -> Option<&Arc<Instance>> {
        self.instances.iter().find(|instance| instance.key() == *key)
    }

    /// A check.
    pub fn check(&self, key: &CheckKey) -> Option<&Arc<Check>> {
        self.checks.iter().find(|check| check.key() == *key)
    }

    /// The instance that a check belongs to.
    pub fn instance_of(&self, check: &Check) -> Option<&Arc<Instance>> {
        let id = check.instance.clone()?;
        self.instance(&InstanceKey {
            namespace: check.namespace.clone(),
            node: check.node.clone(),
            id,
        })
    }

    /// The checks that count for an instance: its node's own, then its own, each by id.
    pub fn checks_that_count(&self, instance: &Instance) -> Vec<&Arc<Check>> {
        let key = instance.key();
        let of_node = |check: &&Arc<Check>| check.node == instance.node && check.instance.is_none();
        let mut checks: Vec<&Arc<Check>> = self
            .checks
            .iter()
            .filter(|check| of_node(check) || belongs(check, &key))
            .collect();
        checks.sort_by_key(|check| (check.instance.is_some(), check.id.clone()));
        checks
    }

    /// Everything that a watcher of anything could see, in short.
    fn signature(&self) -> u64 {
        let things = self
            .nodes
            .iter()
            .map(|node| mark("node", &node.name, node.create_index, node.modify_index));
        let things = things.chain(
            self.instances
                .iter()
                .map(|it| mark("instance", &it.key(), it.create_index, it.modify_index)),
        );
        let things = things.chain(
            self.checks
                .iter()
                .map(|it| mark("check", &it.key(), it.create_index, it.modify_index)),
        );
        let things = things.chain(
            self.keys
                .iter()
                .map(|it| mark("key", &it.key, it.create_index, it.modify_index)),
        );
        let things = things.chain(
            self.sessions
                .iter()
                .map(|it| mark("session", &it.id, it.create_index, it.modify_index)),
        );
        things.fold(0, u64::wrapping_add)
    }

    /// For each topic that shows anything, a number that differs whenever what it shows differs.
    pub fn topics(&self) -> BTreeMap<Topic, u64> {
        let mut topics = BTreeMap::new();
        let mut show = |topic: Topic, what: u64| {
            let sum: &mut u64 = topics.entry(topic).or_default();
            *sum = sum.wrapping_add(what);
        };
        for node in &self.nodes {
            let what = mark("node", &node.name, node.create_index, node.modify_index);
            show(Topic::Nodes, what);
            for namespace in self.namespaces_of(node) {
                show(Topic::Namespace(namespace.clone()), what);
                show(Topic::NodeServices(namespace, node.name.clone()), what);
            }
        }
        for instance in &self.instances {
            let (namespace, service) = (&instance.namespace, &instance.service);
            let what = mark(
                "instance",
                &instance.key(),
                instance.create_index,
                instance.modify_index,
            );
            let node = self.node(&instance.node).map_or(0, |node| {
                mark("on", &instance.key(), node.create_index, node.modify_index)
            });
            let checks = self.checks_that_count(instance);
            let health = checks.iter().fold(what.wrapping_add(node), |sum, check| {
                sum.wrapping_add(mark(
                    "check",
                    &(instance.key(), check.key()),
                    check.create_index,
                    check.modify_index,
                ))
            });
            show(Topic::Namespace(namespace.clone()), what);
            show(
                Topic::NodeServices(namespace.clone(), instance.node.clone()),
                what,
            );
            show(
                Topic::ServiceInstances(namespace.clone(), service.clone()),
                what.wrapping_add(node),
            );
            show(Topic::Service(namespace.clone(), service.clone()), health);
            if checks.iter().all(|check| check.status == CheckStatus::Passing) {
                show(Topic::ServicePassing(namespace.clone(), service.clone()), health);
            }
        }
        for (namespace, service, tags) in self.services() {
            show(Topic::Services(namespace), hash(&(service, tags)));
        }
        for check in &self.checks {
            let instance = self.instance_of(check);
            let shown_with = instance.map(|instance| (&instance.service, &instance.tags));
            let what = mark(
                "check",
                &(check.key(), shown_with),
                check.create_index,
                check.modify_index,
            );
            if let Some(instance) = instance {
                show(
                    Topic::ServiceChecks(check.namespace.clone(), instance.service.clone()),
                    what,
                );
            }
            for namespace in self.namespaces_of_check(check) {
                show(Topic::NodeChecks(namespace, check.node.clone()), what);
            }
            show(Topic::Namespace(check.namespace.clone()), what);
            show(Topic::Checks(check.namespace.clone()), what);
            show(Topic::ChecksInState(check.namespace.clone(), check.status), what);
        }
        for held in &self.keys {
            let what = mark("key", &held.key, held.create_index, held.modify_index);
            show(Topic::Key(held.key.clone()), what);
            let name = held.key.as_bytes();
            // Of the servers' own keys nobody asks but by the directory that they are in.
            let own = held.key.is_reserved();
            let asked = |end: &usize| !own || *end == name.len() || (*end > 0 && name[end - 1] == b'/');
            for end in (0..=name.len()).filter(asked) {
                let prefix = Key::parse(name[..end].to_vec()).expect("no longer than the key");
                show(Topic::KeyPrefix(prefix), what);
            }
        }
        for session in &self.sessions {
            let what = mark("session", &session.id, session.create_index, session.modify_index);
            show(Topic::Session(session.id.clone()), what);
            show(Topic::SessionsOfNode(session.node.clone()), what);
            show(Topic::Sessions, what);
        }
        topics
    }

    /// Namespaces in which a node is seen: `default`, and wherever it has an instance.
    fn namespaces_of(&self, node: &Node) -> Vec<Namespace> {
        let mut namespaces = vec![Namespace::default()];
        namespaces.extend(
            self.instances
                .iter()
                .filter(|it| it.node == node.name)
                .map(|it| it.namespace.clone()),
        );
        namespaces.sort();
        namespaces.dedup();
        namespaces
    }

    /// Namespaces in which a check is seen among those of its node: its instance's, or for a node's own where the node is
    /// seen.
    pub fn namespaces_of_check(&self, check: &Check) -> Vec<Namespace> {
        match (&check.instance, self.node(&check.node)) {
            (None, Some(node)) => self.namespaces_of(node),
            _ => vec![check.namespace.clone()],
        }
    }

    /// Services with the union of their instances' tags, sorted.
    pub fn services(&self) -> Vec<(Namespace, String, Vec<String>)> {
        let mut services: BTreeMap<(Namespace, String), Vec<String>> = BTreeMap::new();
        for instance in &self.instances {
            let key = (instance.namespace.clone(), instance.service.to_string());
            services
                .entry(key)
                .or_default()
                .extend(instance.tags.iter().cloned());
        }
        let tidy = |((namespace, service), mut tags): ((Namespace, String), Vec<String>)| {
            tags.sort();
            tags.dedup();
            (namespace, service, tags)
        };
        services.into_iter().map(tidy).collect()
    }
}

/// Whether a check is one of an instance's own.
fn belongs(check: &Check, key: &InstanceKey) -> bool {
    check.instance.as_ref() == Some(&key.id) && check.node == key.node && check.namespace == key.namespace
}

/// What a registration says that can't be.
fn contradiction(registration: &Registration) -> Option<String> {
    let node = &registration.node.name;
    if registration
        .instance
        .as_ref()
        .is_some_and(|instance| instance.node != *node)
    {
        return Some("an instance on another node".into());
    }
    let checks = &registration.checks;
    for (at, check) in checks.iter().enumerate() {
        if check.node != *node {
            return Some("a check on another node".into());
        }
        if check.instance.is_none() && check.namespace != Namespace::default() {
            return Some("a node's own check outside of the default namespace".into());
        }
        if checks[..at].iter().any(|other| other.key() == check.key()) {
            return Some("a check twice".into());
        }
    }
    None
}

/// What comes next of a packed row: it stands behind its length in 4 bytes.
fn next_part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let (length, behind) = rest.split_first_chunk::<4>().ok_or("cut off")?;
    let length = u32::from_be_bytes(*length) as usize;
    let (part, behind) = behind.split_at_checked(length).ok_or("cut off")?;
    *rest = behind;
    Ok(part)
}

fn mark(kind: &str, key: &impl Hash, create_index: u64, modify_index: u64) -> u64 {
    hash(&(kind, key, create_index, modify_index))
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
