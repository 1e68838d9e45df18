//! What an agent wants its servers to hold, and what of it they have yet to be told. Pure: no clock, no network.
//!
//! The rule that keeps this simple: a pending change is only a key. What is sent is read from here at the moment of
//! sending, and whether it is a registration or a removal follows from whether the thing is still here. So changes that
//! overtake each other cannot leave the servers with the older one.

mod aliases;
mod elsewhere;
mod known;
mod over_restarts;
mod pending;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use self::{
    aliases::{Aliases, Target},
    elsewhere::Elsewhere,
    known::service_key,
};
pub(super) use self::{
    elsewhere::{Place, Seen, SeenCheck},
    known::{CheckSpec, LocalCheck, ServiceSpec},
    over_restarts::Kept,
    pending::{Change, Outcome, Pending, Waiters, tell},
};

use crate::{
    limits::{AGENT_NODE_CHECKS_MAX, AGENT_SERVICES_MAX, CHECKS_PER_INSTANCE_MAX},
    probing::{
        check::{Rules, Streak, cut_to, interval_of, probe_of},
        schedule::{Schedule, first_run_delay},
    },
    registry::{CheckId, CheckKey, CheckStatus, Instance, InstanceId, InstanceKey, Namespace, Node},
    runtime::{Instant, Probe},
};

/// Where something comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The configuration file: the agent itself renews its TTL checks, as a heartbeat of the host, if they are written in
    /// the short form.
    Config,
    /// The agent's own API: the service renews its TTL checks.
    Api,
}

/// Why something was not taken on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LocalError {
    /// There is no such service, of which a check is to be.
    #[error("ServiceID \"{0}\" does not exist")]
    UnknownService(InstanceId),
    /// There is no such check.
    #[error("check \"{0}\" does not exist")]
    UnknownCheck(CheckId),
    /// It has no TTL, so nobody reports on it.
    #[error("CheckID \"{0}\" does not have associated TTL")]
    NoTtl(CheckId),
    /// The agent itself keeps a check of this id.
    #[error("check \"{0}\" is the agent's own, by which the servers know that its host is alive")]
    Reserved(CheckId),
    /// A limit was reached.
    #[error("too many {what}: the limit is {limit}")]
    OverLimit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

const TOO_MANY_CHECKS: LocalError = LocalError::OverLimit {
    what: "checks of one service",
    limit: CHECKS_PER_INSTANCE_MAX,
};

/// A service with the keys of its checks.
#[derive(Clone, Debug)]
pub(super) struct LocalService {
    /// What was registered.
    pub(super) instance: Instance,
    /// Its checks, in the order of their registration.
    pub(super) checks: Vec<CheckKey>,
    /// Tells this registration from one that it replaced.
    pub(super) generation: u64,
    /// Since when the servers are known to have had this registration.
    told: Option<Instant>,
}

/// A run of a check to start.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Which check.
    pub(super) key: CheckKey,
    /// What to run.
    pub(super) probe: Probe,
    /// The check as it is now.
    pub(super) spec: CheckSpec,
    generation: u64,
}

/// The agent's state.
#[derive(Debug)]
pub(super) struct Local {
    node: Node,
    services: BTreeMap<InstanceKey, LocalService>,
    checks: BTreeMap<CheckKey, LocalCheck>,
    node_checks: BTreeSet<CheckKey>,
    /// What the servers have yet to be told.
    pub(super) pending: Pending,
    probes: Schedule<CheckKey>,
    aliases: Aliases,
    elsewhere: Elsewhere,
    /// Services of which the registration waits for a comparison, with those who wait for it.
    awaiting: BTreeMap<InstanceKey, Waiters>,
    heartbeats: Schedule<CheckKey>,
    /// When what was known before a restart ends, of which the servers count from that restart on.
    expiries: Schedule<CheckKey>,
    /// When a service is removed because of a check that stays critical.
    removals: Schedule<CheckKey>,
    generations: u64,
    /// Whether a server tells whether this host is alive, and not this agent.
    beside_server: bool,
}

impl Local {
    /// An agent with nothing on its node yet. The node is to be registered.
    pub(super) fn new(node: Node) -> Self {
        let mut pending = Pending::default();
        pending.mark(Change::Node);
        Local {
            node,
            services: BTreeMap::new(),
            checks: BTreeMap::new(),
            node_checks: BTreeSet::new(),
            pending,
            probes: Schedule::default(),
            aliases: Aliases::default(),
            elsewhere: Elsewhere::default(),
            awaiting: BTreeMap::new(),
            heartbeats: Schedule::default(),
            expiries: Schedule::default(),
            removals: Schedule::default(),
            generations: 0,
            beside_server: false,
        }
    }

    /// Gives up the check by which the servers know that this host is alive: a server keeps it. Gives whether that is new.
    pub(super) fn leave_alive_to_server(&mut self) -> bool {
        let own = self.node_checks().find(|(_, check)| check.is_aliveness());
        let own = own.map(|(key, _)| key.clone());
        if let Some(key) = &own {
            self.node_checks.remove(key);
            self.drop_check(key);
        }
        !std::mem::replace(&mut self.beside_server, true) && own.is_some()
    }

    /// Whether a server keeps that check.
    pub(super) fn is_beside_server(&self) -> bool {
        self.beside_server
    }

    /// The node.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// A service.
    pub(super) fn service(&self, key: &InstanceKey) -> Option<&LocalService> {
        self.services.get(key)
    }

    /// All services, by key.
    pub(super) fn services(&self) -> impl Iterator<Item = (&InstanceKey, &LocalService)> {
        self.services.iter()
    }

    /// A check.
    pub(super) fn check(&self, key: &CheckKey) -> Option<&LocalCheck> {
        self.checks.get(key)
    }

    /// All checks, by key.
    pub(super) fn checks(&self) -> impl Iterator<Item = (&CheckKey, &LocalCheck)> {
        self.checks.iter()
    }

    /// The node's own checks, by key.
    pub(super) fn node_checks(&self) -> impl Iterator<Item = (&CheckKey, &LocalCheck)> {
        self.node_checks
            .iter()
            .filter_map(|key| Some((key, self.checks.get(key)?)))
    }

    /// The checks of a service, in the order of their registration.
    pub(super) fn checks_of<'a>(
        &'a self,
        service: &'a LocalService,
    ) -> impl Iterator<Item = (&'a CheckKey, &'a LocalCheck)> {
        service
            .checks
            .iter()
            .filter_map(|key| Some((key, self.checks.get(key)?)))
    }

    /// The namespaces in which something is registered.
    pub(super) fn namespaces(&self) -> BTreeSet<Namespace> {
        self.services.keys().map(|key| key.namespace.clone()).collect()
    }

    /// Whether [`Local::put_service`] would take a service on.
    ///
    /// # Errors
    /// Too many services or checks.
    pub(super) fn refuse_service(&self, spec: &ServiceSpec, replace_checks: bool) -> Result<(), LocalError> {
        let key = spec.instance.key();
        if !self.services.contains_key(&key) && self.services.len() >= AGENT_SERVICES_MAX {
            return Err(LocalError::OverLimit {
                what: "services",
                limit: AGENT_SERVICES_MAX,
            });
        }
        if self.checks_after(spec, replace_checks).len() > CHECKS_PER_INSTANCE_MAX {
            return Err(TOO_MANY_CHECKS);
        }
        spec.checks.iter().try_for_each(|check| self.refuse_other(check))
    }

    /// Refuses another check in the place of the one by which the servers know that this host is alive.
    fn refuse_other(&self, spec: &CheckSpec) -> Result<(), LocalError> {
        let there = self.checks.get(&spec.update.key());
        match there.is_some_and(|there| there.is_aliveness() && there.spec != *spec) {
            true => Err(LocalError::Reserved(spec.update.id.clone())),
            false => Ok(()),
        }
    }

    /// The checks that a service will have.
    fn checks_after(&self, spec: &ServiceSpec, replace_checks: bool) -> Vec<CheckKey> {
        let mut keys: Vec<CheckKey> = spec.checks.iter().map(|check| check.update.key()).collect();
        if !replace_checks && let Some(before) = self.services.get(&spec.instance.key()) {
            let others = before.checks.iter().filter(|key| !keys.contains(key));
            let others: Vec<CheckKey> = others.cloned().collect();
            keys.extend(others);
        }
        keys
    }

    /// Registers a service, replacing any earlier one of its key, and its checks if `replace_checks` says so. A check
    /// that stays as it was keeps what is known of it; one that was another service's is this one's now.
    ///
    /// # Errors
    /// As [`Local::refuse_service`].
    pub(super) fn put_service(
        &mut self,
        spec: ServiceSpec,
        replace_checks: bool,
        origin: Origin,
        now: Instant,
        mut random: impl FnMut() -> u64,
    ) -> Result<(), LocalError> {
        self.refuse_service(&spec, replace_checks)?;
        let key = spec.instance.key();
        let checks = self.checks_after(&spec, replace_checks);
        if let Some(before) = self.services.remove(&key) {
            for check in before.checks.iter().filter(|check| !checks.contains(check)) {
                self.drop_check(check);
            }
        }
        for check in spec.checks {
            self.take_over(&check);
            self.put_check_state(check, origin, now, &mut random);
        }
        self.generations += 1;
        self.services.insert(
            key.clone(),
            LocalService {
                instance: spec.instance,
                checks,
                generation: self.generations,
                told: None,
            },
        );
        self.pending.mark(Change::Service(key.clone()));
        self.stop_awaiting(&key);
        self.target_changed(Some(key), now);
        Ok(())
    }

    /// Whether [`Local::put_check`] would take a check on.
    ///
    /// # Errors
    /// No such service, or too many checks.
    pub(super) fn refuse_check(&self, spec: &CheckSpec) -> Result<(), LocalError> {
        self.refuse_other(spec)?;
        let there = self.checks.get(&spec.update.key());
        let new = there.is_none_or(|there| there.spec.update.instance != spec.update.instance);
        match service_key(&spec.update) {
            None if new && self.node_checks.len() >= AGENT_NODE_CHECKS_MAX => Err(LocalError::OverLimit {
                what: "node checks",
                limit: AGENT_NODE_CHECKS_MAX,
            }),
            None => Ok(()),
            Some(key) => match self.services.get(&key) {
                None => Err(LocalError::UnknownService(key.id)),
                Some(service) if new && service.checks.len() >= CHECKS_PER_INSTANCE_MAX => {
                    Err(TOO_MANY_CHECKS)
                }
                Some(_) => Ok(()),
            },
        }
    }

    /// Registers one check of a service that is here, or of the node.
    ///
    /// # Errors
    /// As [`Local::refuse_check`].
    pub(super) fn put_check(
        &mut self,
        spec: CheckSpec,
        origin: Origin,
        now: Instant,
        random: impl FnMut() -> u64,
    ) -> Result<Change, LocalError> {
        self.refuse_check(&spec)?;
        self.take_over(&spec);
        let key = spec.update.key();
        let owner = service_key(&spec.update);
        let change = match owner.clone() {
            None => {
                self.node_checks.insert(key);
                Change::Node
            }
            Some(service) => {
                if let Some(local) = self.services.get_mut(&service)
                    && !local.checks.contains(&key)
                {
                    local.checks.push(key);
                }
                Change::Service(service)
            }
        };
        self.put_check_state(spec, origin, now, random);
        self.pending.mark(change.clone());
        self.target_changed(owner, now);
        Ok(change)
    }

    /// Removes a service with its checks. Gives whether it was here.
    pub(super) fn remove_service(&mut self, key: &InstanceKey) -> bool {
        let Some(service) = self.services.remove(key) else {
            return false;
        };
        for check in &service.checks {
            self.drop_check(check);
        }
        self.pending.mark(Change::Service(key.clone()));
        self.stop_awaiting(key);
        self.aliases.touch(&Target::Instance(key.clone()));
        true
    }

    /// Removes a check. Gives the change that tells the servers, or `None` when it was not here.
    pub(super) fn remove_check(&mut self, key: &CheckKey) -> Option<Change> {
        let check = self.checks.get(key)?;
        let owner = service_key(&check.spec.update);
        self.aliases.touch(&Target::of(owner.clone()));
        let change = match owner {
            Some(service) => {
                if let Some(local) = self.services.get_mut(&service) {
                    local.checks.retain(|other| other != key);
                }
                Change::Service(service)
            }
            None => {
                self.node_checks.remove(key);
                Change::NodeCheck(key.clone())
            }
        };
        self.drop_check(key);
        self.pending.mark(change.clone());
        Some(change)
    }

    /// Takes a report on a TTL check, from its service.
    ///
    /// # Errors
    /// No such check, or it is not a TTL check.
    pub(super) fn report(
        &mut self,
        key: &CheckKey,
        status: CheckStatus,
        output: Option<String>,
        now: Instant,
    ) -> Result<(), LocalError> {
        let check = self.checks.get_mut(key).filter(|check| !check.is_aliveness());
        let Some(check) = check else {
            return Err(LocalError::UnknownCheck(key.id.clone()));
        };
        if check.spec.update.definition.ttl().is_none() {
            return Err(LocalError::NoTtl(key.id.clone()));
        }
        let stays_critical = check.status_at(now) == CheckStatus::Critical && status == CheckStatus::Critical;
        check.status = Some(status);
        check.set_at = Some(now);
        check.holds_until = None;
        self.expiries.remove(key);
        if let Some(output) = output {
            check.output = cut_to(output, check.spec.update.definition.output_bytes_max());
        }
        let owner = service_key(&check.spec.update);
        if !stays_critical {
            self.plan_removal(key, now);
        }
        self.pending.mark_report(key.clone());
        self.target_changed(owner, now);
        Ok(())
    }

    /// Marks all heartbeats that are due for sending, and plans the next ones.
    pub(super) fn take_heartbeats(&mut self, now: Instant) {
        while let Some(key) = self.heartbeats.pop(now) {
            let Some(check) = self.checks.get_mut(&key) else {
                continue;
            };
            check.set_at = Some(now);
            if let Some(next) = check.next_heartbeat(now) {
                self.heartbeats.set(key.clone(), next);
            }
            self.pending.mark_report(key);
        }
    }

    /// When the next heartbeat is due.
    pub(super) fn next_heartbeat(&self) -> Option<Instant> {
        self.heartbeats.next()
    }

    /// Takes out one run that is due.
    pub(super) fn take_run(&mut self, now: Instant) -> Option<Run> {
        while let Some(key) = self.probes.pop(now) {
            let Some(check) = self.checks.get(&key) else {
                continue;
            };
            if let Some(probe) = probe_of(check.spec.rules, &check.spec.update.definition) {
                return Some(Run {
                    key,
                    probe,
                    spec: check.spec.clone(),
                    generation: check.generation,
                });
            }
        }
        None
    }

    /// Takes the result of a run, if its check is still the one that was run. Gives whether there is something to
    /// report: a change of nothing but the output is left to the next comparison with the servers.
    pub(super) fn finish_run(
        &mut self,
        run: &Run,
        result: CheckStatus,
        output: String,
        now: Instant,
    ) -> bool {
        let Some(check) = self.current(run) else {
            return false;
        };
        let Some(status) = check.streak.count(&run.spec.update.definition, result) else {
            return false;
        };
        let changed = check.status != Some(status);
        // What was only taken on from the servers has planned nothing.
        let first = check.set_at.is_none();
        check.status = Some(status);
        check.output = output;
        check.set_at = Some(now);
        if changed || first {
            self.plan_removal(&run.key, now);
        }
        if changed {
            self.pending.mark_report(run.key.clone());
            self.target_changed(service_key(&run.spec.update), now);
        }
        changed
    }

    /// Plans the next run after one that ended, however it ended.
    pub(super) fn reschedule(&mut self, run: &Run, now: Instant) {
        if self.current(run).is_some() {
            let interval = interval_of(&run.spec.update.definition);
            self.probes.set(run.key.clone(), now + interval);
        }
    }

    /// Removes the services of which a check has been critical for too long. Gives their keys and those of their checks.
    pub(super) fn remove_critical(&mut self, now: Instant) -> Vec<(InstanceKey, Vec<CheckKey>)> {
        let mut removed = Vec::new();
        while let Some(key) = self.removals.pop(now) {
            let service = self
                .checks
                .get(&key)
                .and_then(|check| service_key(&check.spec.update));
            let Some(service) = service else {
                continue;
            };
            let checks = self.services.get(&service).map(|it| it.checks.clone());
            if self.remove_service(&service) {
                removed.push((service, checks.unwrap_or_default()));
            }
        }
        removed
    }

    /// When the next run, look or removal is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = [
            self.probes.next(),
            self.aliases.next(),
            self.removals.next(),
            self.expiries.next(),
        ];
        due.into_iter().flatten().min()
    }

    /// Takes a check away from what else of this host it was of: of two registrations of an id the last one counts, here as
    /// at the servers, which hear of it by that registration.
    fn take_over(&mut self, spec: &CheckSpec) {
        let key = spec.update.key();
        let before = match self.checks.get(&key) {
            Some(there) if there.spec.update.instance != spec.update.instance => {
                service_key(&there.spec.update)
            }
            _ => return,
        };
        let name = |id: Option<&InstanceId>| id.map_or("the node", InstanceId::as_str).to_owned();
        tracing::warn!(
            check = %key.id,
            before = name(before.as_ref().map(|service| &service.id)),
            now = name(spec.update.instance.as_ref()),
            "a check was registered of something else before, and moves: ids of checks are those of the whole host"
        );
        match &before {
            None => {
                self.node_checks.remove(&key);
            }
            Some(service) => {
                if let Some(local) = self.services.get_mut(service) {
                    local.checks.retain(|other| *other != key);
                }
            }
        }
        self.aliases.touch(&Target::of(before));
    }

    /// Takes on a check. One of this id that was here before leaves it its status: what a registration says of that is about
    /// a new check. The agent's own heartbeats begin anew, and so does the time after which a service is removed.
    fn put_check_state(
        &mut self,
        spec: CheckSpec,
        origin: Origin,
        now: Instant,
        mut random: impl FnMut() -> u64,
    ) {
        let key = spec.update.key();
        let (rules, definition) = (spec.rules, spec.update.definition.clone());
        let heartbeat = origin == Origin::Config && rules == Rules::Short && definition.ttl().is_some();
        if let Some(check) = self.checks.get(&key)
            && check.spec == spec
            && check.heartbeat == heartbeat
        {
            return;
        }
        let before = self.checks.get(&key);
        let before = before.filter(|before| before.heartbeat || !heartbeat).cloned();
        self.drop_check(&key);
        self.generations += 1;
        let status = spec.update.status.or(heartbeat.then_some(CheckStatus::Passing));
        let mut check = LocalCheck {
            heartbeat,
            status,
            output: spec.update.output.clone(),
            set_at: status.map(|_| now),
            holds_until: None,
            confirmed: None,
            streak: Streak::UNRUN,
            generation: self.generations,
            spec,
        };
        if let Some(before) = before {
            (check.status, check.output) = (before.status, before.output);
            check.set_at = before.set_at.filter(|_| !heartbeat).or(check.set_at);
            check.holds_until = before.holds_until.filter(|_| !heartbeat);
        }
        if let Some(until) = check.holds_until {
            self.expiries.set(key.clone(), until);
        }
        if let Some(next) = check.next_heartbeat(now) {
            self.heartbeats.set(key.clone(), next);
        }
        self.checks.insert(key.clone(), check);
        if probe_of(rules, &definition).is_some() {
            let delay = first_run_delay(interval_of(&definition), random());
            self.probes.set(key.clone(), now + delay);
        }
        self.put_alias(&key, &definition.probe, now);
        self.plan_removal(&key, now);
    }

    fn drop_check(&mut self, key: &CheckKey) {
        self.checks.remove(key);
        self.probes.remove(key);
        self.aliases.remove(key);
        self.heartbeats.remove(key);
        self.expiries.remove(key);
        self.removals.remove(key);
    }

    /// Plans when a check's service is removed: after its check has been critical for the time that it names. A TTL
    /// check turns critical by itself, so its time begins when its TTL ends.
    fn plan_removal(&mut self, key: &CheckKey, now: Instant) {
        let Some(check) = self.checks.get(key) else {
            return;
        };
        let definition = &check.spec.update.definition;
        let after = definition.deregister_critical_service_after;
        if after.is_zero() || check.spec.update.instance.is_none() {
            return;
        }
        match (check.status, definition.ttl()) {
            (Some(CheckStatus::Critical), _) => self.removals.set(key.clone(), now + after),
            (_, Some(ttl)) if !check.heartbeat => {
                let ends = check.holds_until.unwrap_or(now + ttl);
                self.removals.set(key.clone(), ends + after);
            }
            _ => self.removals.remove(key),
        }
    }

    fn current(&mut self, run: &Run) -> Option<&mut LocalCheck> {
        self.checks
            .get_mut(&run.key)
            .filter(|check| check.generation == run.generation)
    }
}
