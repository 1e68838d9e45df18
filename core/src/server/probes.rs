//! Checks that the servers run themselves: those of the node of registrations through `/v1/agent/…`, which has no agent of
//! its own. The leader runs them, so that each is run by one server, and a new leader carries on.
//!
//! What a run finds goes the way of a report on a check: written if the status differs, held back if only the output does,
//! and not at all if neither does. Results in a row ([`Streak`]) are counted in the leader's memory; a new one counts anew.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, select};

use super::{
    Renewal,
    renewals::Reporter,
    wiring::{Inner, Shared},
};
use crate::{
    limits,
    probing::{
        check::{Rules, Streak, interval_of, judge, of_aliased, probe_of, timeout_of},
        schedule::{Schedule, first_run_delay},
    },
    raft::Role,
    registry::{
        self, Check, CheckDefinition, CheckId, CheckKey, CheckStatus, CheckTarget, Event, InstanceId,
        InstanceKey, Namespace, NodeName, Registry,
    },
    runtime::{Instant, Probe, ProbeOutcome, Prober},
};

/// Runs probes for a server: any [`Prober`], as an object.
pub trait ServerProber: fmt::Debug + Send + Sync + 'static {
    /// As [`Prober::probe`].
    fn probe(&self, probe: Probe, timeout: Duration) -> BoxFuture<'static, ProbeOutcome>;
}

impl<P: Prober + fmt::Debug> ServerProber for P {
    fn probe(&self, probe: Probe, timeout: Duration) -> BoxFuture<'static, ProbeOutcome> {
        let prober = self.clone();
        async move { Prober::probe(&prober, &probe, timeout).await }.boxed()
    }
}

/// Which checks a leader runs, and when. Pure: the clock and chance are passed in.
#[derive(Debug, Default)]
pub(super) struct ProbeTable {
    /// The term that this server leads in, as far as the table knows.
    term: Option<u64>,
    checks: BTreeMap<CheckKey, Watched>,
    /// Those of them that are aliases, with the node of what they stand for.
    aliases: BTreeMap<CheckKey, NodeName>,
    schedule: Schedule<CheckKey>,
    running: usize,
    generations: u64,
}

#[derive(Clone, Debug)]
struct Watched {
    definition: CheckDefinition,
    streak: Streak,
    /// Tells a run of this check from a run of one that it replaced.
    generation: u64,
    /// Whether what it is an alias of changed while it was looked at.
    again: bool,
}

/// How a check's status is found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Means {
    /// By a probe.
    Probe(Probe),
    /// It is that of a node, and of an instance on it if one is named.
    Alias { node: String, instance: String },
}

/// A run of a check.
#[derive(Clone, Debug)]
pub(super) struct Run {
    key: CheckKey,
    means: Means,
    definition: CheckDefinition,
    generation: u64,
    term: u64,
}

/// Whether the servers run a check of this node, and not somebody else.
pub(super) fn is_run_here(check: &Check, node: &NodeName, scripts: bool) -> bool {
    let runs_program = matches!(
        check.definition.probe,
        registry::Probe::Cmd(_) | registry::Probe::Docker { .. }
    );
    check.node == *node && means_of(&check.id, &check.definition).is_some() && (scripts || !runs_program)
}

/// How outcomes of a check are judged, by its form.
fn rules_of(id: &CheckId, definition: &CheckDefinition) -> Rules {
    match definition.is_of_short_form(id) {
        true => Rules::Short,
        false => Rules::Consul,
    }
}

fn means_of(id: &CheckId, definition: &CheckDefinition) -> Option<Means> {
    match &definition.probe {
        registry::Probe::Alias { node, instance } => Some(Means::Alias {
            node: node.clone(),
            instance: instance.clone(),
        }),
        _ => probe_of(rules_of(id, definition), definition).map(Means::Probe),
    }
}

/// Between two runs.
fn period_of(definition: &CheckDefinition) -> Duration {
    match definition.probe {
        registry::Probe::Alias { .. } => limits::ALIAS_INTERVAL,
        _ => interval_of(definition),
    }
}

impl ProbeTable {
    /// Makes this the table of `term`. O(all checks of the node), once for each term.
    fn lead(
        &mut self,
        term: u64,
        registry: &Registry,
        config: (&NodeName, bool),
        now: Instant,
        mut random: impl FnMut() -> u64,
    ) {
        if self.term == Some(term) {
            return;
        }
        *self = ProbeTable {
            term: Some(term),
            running: self.running,
            generations: self.generations,
            ..ProbeTable::default()
        };
        for check in registry.checks().filter(|check| check.node == *config.0) {
            self.look_at(&check.key(), Some(check), config, now, &mut random);
        }
    }

    /// Drops the table: another server may be running the checks now.
    pub(super) fn follow(&mut self) {
        if self.term.is_some() {
            *self = ProbeTable {
                running: self.running,
                generations: self.generations,
                ..ProbeTable::default()
            };
        }
    }

    /// Follows what happened to the registry. Gives whether there is something to run that was not there.
    pub(super) fn applied(
        &mut self,
        registry: &Registry,
        events: &[Event],
        config: (&NodeName, bool),
        now: Instant,
        mut random: impl FnMut() -> u64,
    ) -> bool {
        if self.term.is_none() {
            return false;
        }
        let mut news = false;
        for event in events {
            if let Event::CheckRegistered(key) | Event::CheckDeregistered(key) = event
                && key.node == *config.0
            {
                news |= self.look_at(key, registry.check(key), config, now, &mut random);
            }
            news |= self.look_at_aliases_of(event, now);
        }
        news
    }

    /// Has aliases looked at soon of what something happened to. Gives whether there are any.
    fn look_at_aliases_of(&mut self, event: &Event, now: Instant) -> bool {
        let node = match event {
            // Aliases may stand for each other, in a circle: those are looked at from time to time.
            Event::CheckStatusChanged { check, .. } if self.aliases.contains_key(check) => return false,
            Event::CheckRegistered(check)
            | Event::CheckDeregistered(check)
            | Event::CheckStatusChanged { check, .. } => &check.node,
            Event::InstanceRegistered(instance) | Event::InstanceDeregistered(instance) => &instance.node,
            Event::NodeRegistered(node) | Event::NodeDeregistered(node) => node,
            _ => return false,
        };
        let mut any = false;
        for (alias, _) in self.aliases.iter().filter(|(_, of)| *of == node) {
            any = true;
            if !self.schedule.bring_forward(alias, now + limits::ALIAS_PAUSE)
                && let Some(watched) = self.checks.get_mut(alias)
            {
                watched.again = true;
            }
        }
        any
    }

    /// Takes a check on, or lets it go. One that is defined as before goes on as before. Gives whether it is a new one.
    fn look_at(
        &mut self,
        key: &CheckKey,
        check: Option<&Check>,
        (node, scripts): (&NodeName, bool),
        now: Instant,
        random: &mut impl FnMut() -> u64,
    ) -> bool {
        let Some(check) = check.filter(|check| is_run_here(check, node, scripts)) else {
            self.checks.remove(key);
            self.aliases.remove(key);
            self.schedule.remove(key);
            return false;
        };
        if self
            .checks
            .get(key)
            .is_some_and(|watched| watched.definition == check.definition)
        {
            return false;
        }
        self.generations += 1;
        let watched = Watched {
            definition: check.definition.clone(),
            // One that has ever run says something, or is not critical.
            streak: match check.status == CheckStatus::Critical && check.output.is_empty() {
                true => Streak::UNRUN,
                false => Streak::default(),
            },
            generation: self.generations,
            again: false,
        };
        self.checks.insert(key.clone(), watched);
        match &check.definition.probe {
            registry::Probe::Alias { node, .. } => {
                let of = aliased_node(key, node).unwrap_or_else(|| key.node.clone());
                self.aliases.insert(key.clone(), of);
            }
            _ => drop(self.aliases.remove(key)),
        }
        // An alias asks nobody, so there is nothing to spread over time.
        let delay = match check.definition.probe {
            registry::Probe::Alias { .. } => Duration::ZERO,
            _ => first_run_delay(period_of(&check.definition), random()),
        };
        self.schedule.set(key.clone(), now + delay);
        true
    }

    /// The next run that is due, if not too many are under way.
    fn take_run(&mut self, now: Instant) -> Option<Run> {
        let term = self.term?;
        while self.running < limits::SERVER_PROBES_IN_FLIGHT_MAX {
            let key = self.schedule.pop(now)?;
            let Some(watched) = self.checks.get(&key) else {
                continue;
            };
            let Some(means) = means_of(&key.id, &watched.definition) else {
                continue;
            };
            self.running += 1;
            return Some(Run {
                means,
                definition: watched.definition.clone(),
                generation: watched.generation,
                key,
                term,
            });
        }
        None
    }

    /// Whether a run is of a check that is still the same.
    fn is_current(&self, run: &Run) -> bool {
        let watched = self.checks.get(&run.key);
        self.term == Some(run.term) && watched.is_some_and(|watched| watched.generation == run.generation)
    }

    /// Counts a result; gives the status to take on, if any.
    fn count(&mut self, run: &Run, result: CheckStatus) -> Option<CheckStatus> {
        if !self.is_current(run) {
            return None;
        }
        let watched = self.checks.get_mut(&run.key)?;
        watched.streak.count(&watched.definition, result)
    }

    /// A run has ended, however: plans the next one.
    fn ended(&mut self, run: &Run, now: Instant) {
        self.running = self.running.saturating_sub(1);
        if !self.is_current(run) {
            return;
        }
        let again = self
            .checks
            .get_mut(&run.key)
            .map(|watched| std::mem::take(&mut watched.again));
        let pause = match again {
            Some(true) => limits::ALIAS_PAUSE,
            _ => period_of(&run.definition),
        };
        self.schedule.set(run.key.clone(), now + pause);
    }

    /// When the next run is due that may be begun.
    fn next(&self) -> Option<Instant> {
        let full = self.running >= limits::SERVER_PROBES_IN_FLIGHT_MAX;
        self.schedule.next().filter(|_| !full)
    }
}

/// Begins to run checks, if the settings say by what; it ends with the server.
pub(super) fn begin(inner: &Arc<Inner>) {
    if let Some(prober) = inner.shared.config.prober.clone() {
        let work = run(inner.shared.clone(), Arc::downgrade(inner), prober);
        inner.platform().spawn(work.boxed());
    }
}

async fn run(shared: Arc<Shared>, inner: Weak<Inner>, prober: Arc<dyn ServerProber>) {
    while shared.finish().is_none() {
        let (leadership, table) = (shared.leadership.version(), shared.probes_changed.version());
        let Some(next) = inner.upgrade().map(|inner| inner.begin_probes(&prober)) else {
            return;
        };
        let changed = select(
            shared.leadership.changed_since(leadership),
            shared.probes_changed.changed_since(table),
        );
        shared.platform.until(next, changed).await;
    }
}

impl Inner {
    /// Begins what is due, at the leader; gives the time of the next look.
    fn begin_probes(self: &Arc<Self>, prober: &Arc<dyn ServerProber>) -> Instant {
        let status = self.consensus.status();
        let now = self.platform().now();
        if status.role != Role::Leader || self.shared.halted().is_some() {
            self.shared.probes().follow();
            return now + limits::UPKEEP_INTERVAL;
        }
        let config = self.shared.probed();
        {
            let registry = self.registry();
            let random = || self.platform().random_u64();
            self.shared
                .probes()
                .lead(status.term, &registry, config, now, random);
        }
        let take = || self.shared.probes().take_run(now);
        while let Some(run) = take() {
            let probing = self.clone().carry_out_probe(run, prober.clone());
            self.platform().spawn(probing.boxed());
        }
        let soon = now + limits::UPKEEP_INTERVAL;
        self.shared.probes().next().map_or(soon, |next| next.min(soon))
    }

    async fn carry_out_probe(self: Arc<Self>, run: Run, prober: Arc<dyn ServerProber>) {
        // Also when the platform's prober panics.
        let running = Running {
            shared: self.shared.clone(),
            run,
        };
        let weak = Arc::downgrade(&self);
        // A probe may take long: it does not keep the server.
        drop(self);
        let run = &running.run;
        let probe = match &run.means {
            Means::Probe(probe) => probe.clone(),
            Means::Alias { node, instance } => {
                if let Some(inner) = weak.upgrade() {
                    let (status, output) = alias(&inner.registry(), &run.key, node, instance);
                    inner.report_probe(run, status, output).await;
                }
                return;
            }
        };
        let outcome = prober.probe(probe.clone(), timeout_of(&run.definition)).await;
        let kept = run.definition.output_bytes_max();
        let (result, output) = judge(rules_of(&run.key.id, &run.definition), &probe, outcome, kept);
        let status = running.shared.probes().count(run, result);
        if let (Some(status), Some(inner)) = (status, weak.upgrade()) {
            inner.report_probe(run, status, output).await;
        }
    }

    /// Tells what a run found, if that is news.
    async fn report_probe(&self, run: &Run, status: CheckStatus, output: String) {
        {
            let registry = self.registry();
            let Some(check) = registry.check(&run.key) else {
                return;
            };
            if check.definition != run.definition || (check.status == status && check.output == output) {
                return;
            }
        }
        let renewal = Renewal {
            target: CheckTarget::Check(run.key.clone()),
            status,
            output: Some(output),
        };
        let deadline = self.platform().now() + self.shared.config.write_timeout;
        let reported = self.renew_here(vec![renewal], run.term, Reporter::Prober, deadline);
        if let Err(failure) = reported.await {
            // The next run finds it still to be told, here or at another leader.
            tracing::debug!(check = %run.key.id, ?failure, "what a probe met could not be told");
        }
    }
}

/// The node of what a check is an alias of; `None` if there can be none of that name.
fn aliased_node(own: &CheckKey, node: &str) -> Option<NodeName> {
    match node {
        "" => Some(own.node.clone()),
        node => NodeName::parse(node).ok(),
    }
}

/// The status of what a check is an alias of, and what there is to say about it, in Consul's words.
fn alias(registry: &Registry, own: &CheckKey, node: &str, instance: &str) -> (CheckStatus, String) {
    let Some(node) = aliased_node(own, node) else {
        return (
            CheckStatus::Critical,
            "Aliased node could not be found".to_owned(),
        );
    };
    let key = InstanceId::parse(instance).map(|id| InstanceKey {
        namespace: own.namespace.clone(),
        node: node.clone(),
        id,
    });
    let default = Namespace::default();
    let of_node = registry.checks_of_node(&default, &node);
    let mut checks: Vec<&Check> = of_node.filter(|check| check.instance.is_none()).collect();
    match &key {
        Ok(key) if registry.instance(key).is_none() => {
            let output = format!("Service {instance} could not be found on node {node}");
            return (CheckStatus::Critical, output);
        }
        Ok(key) => checks.extend(registry.checks_of_instance(key)),
        Err(_) if registry.node(&node).is_none() => {
            return (CheckStatus::Critical, format!("Node {node} could not be found"));
        }
        Err(_) => {}
    }
    // An alias of its own instance would hold itself up, or down.
    checks.retain(|check| check.key() != *own);
    let worst = checks.iter().max_by_key(|check| check.status);
    of_aliased(worst.map(|check| (check.status, &*check.name, &*check.output)))
}

/// A run under way. Dropping it plans the next one.
struct Running {
    shared: Arc<Shared>,
    run: Run,
}

impl Drop for Running {
    fn drop(&mut self) {
        let now = self.shared.platform.now();
        self.shared.probes().ended(&self.run, now);
        self.shared.probes_changed.bump();
    }
}
