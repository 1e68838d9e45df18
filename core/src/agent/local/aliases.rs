//! Checks that are aliases: each has the status of an instance of this host or of the host itself, or of what is on another
//! node.
//!
//! An alias is looked at whenever a check of what it stands for is another one, and at an interval besides: a TTL ends
//! without a word.

use std::collections::{BTreeMap, BTreeSet};

use super::{Local, elsewhere::Place, known::service_key};
use crate::{
    limits::{ALIAS_INTERVAL, ALIAS_LOOKS_MAX},
    probing::{check::of_aliased, schedule::Schedule},
    registry::{CheckKey, CheckStatus, InstanceId, InstanceKey, NodeName, Probe},
    runtime::Instant,
};

/// What aliases stand for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// This host.
    Node,
    /// An instance of this host, of which the host's own checks count, too.
    Instance(InstanceKey),
    /// What is on another node.
    Elsewhere(Place),
}

impl Target {
    /// What a check of this service counts for; `None` is a check of the node.
    pub(super) fn of(owner: Option<InstanceKey>) -> Target {
        owner.map_or(Target::Node, Target::Instance)
    }
}

/// The aliases, by what they stand for, and when each is to be looked at.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    due: Schedule<CheckKey>,
    targets: BTreeMap<CheckKey, Target>,
    followers: BTreeMap<Target, BTreeSet<CheckKey>>,
}

impl Aliases {
    fn add(&mut self, key: CheckKey, target: Target, now: Instant) {
        self.remove(&key);
        self.due.set(key.clone(), now);
        self.targets.insert(key.clone(), target.clone());
        self.followers.entry(target).or_default().insert(key);
    }

    /// Forgets an alias.
    pub(super) fn remove(&mut self, key: &CheckKey) {
        self.due.remove(key);
        if let Some(target) = self.targets.remove(key)
            && let Some(followers) = self.followers.get_mut(&target)
        {
            followers.remove(key);
            if followers.is_empty() {
                self.followers.remove(&target);
            }
        }
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.next()
    }

    /// Makes all aliases due that stand for something.
    pub(super) fn touch(&mut self, target: &Target) {
        // Any moment that has passed.
        let at_once = Instant(0);
        if *target == Target::Node {
            for (target, followers) in &self.followers {
                if !matches!(target, Target::Elsewhere(_)) {
                    for key in followers {
                        self.due.set(key.clone(), at_once);
                    }
                }
            }
        } else if let Some(followers) = self.followers.get(target) {
            for key in followers {
                self.due.set(key.clone(), at_once);
            }
        }
    }
}

impl Local {
    /// Takes note of a check if it is an alias.
    pub(super) fn put_alias(&mut self, key: &CheckKey, probe: &Probe, now: Instant) {
        let Probe::Alias { node, instance } = probe else {
            return;
        };
        let place = match NodeName::parse(node) {
            Ok(name) if name != self.node.name => Some((key.namespace.clone(), name)),
            _ => None,
        };
        let of_instance = |id| InstanceKey {
            namespace: key.namespace.clone(),
            node: key.node.clone(),
            id,
        };
        let target = match (place, InstanceId::parse(instance)) {
            (Some(place), _) => Target::Elsewhere(place),
            (None, id) => Target::of(id.ok().map(of_instance)),
        };
        self.aliases.add(key.clone(), target, now);
    }

    /// A check of a service, or of the node, is another one or has another status: whatever stands for it follows.
    pub(super) fn target_changed(&mut self, owner: Option<InstanceKey>, now: Instant) {
        self.aliases.touch(&Target::of(owner));
        self.follow_aliases(now);
    }

    /// Looks at what the aliases stand for whose time it is. Gives whether one of them has another status now, which is to
    /// be reported.
    pub(in crate::agent) fn follow_aliases(&mut self, now: Instant) -> bool {
        let mut changed = false;
        let mut looks: BTreeMap<CheckKey, usize> = BTreeMap::new();
        while let Some(key) = self.aliases.due.pop(now) {
            self.aliases.due.set(key.clone(), now + ALIAS_INTERVAL);
            let looks = looks.entry(key.clone()).or_default();
            *looks += 1;
            if *looks > ALIAS_LOOKS_MAX {
                // They stand for each other, in a circle.
                continue;
            }
            let Some((status, output)) = self.aliased(&key, now) else {
                continue;
            };
            let Some(check) = self.checks.get_mut(&key) else {
                continue;
            };
            let differs = check.status != Some(status);
            let first = check.set_at.is_none();
            (check.status, check.output, check.set_at) = (Some(status), output, Some(now));
            let owner = service_key(&check.spec.update);
            if differs || first {
                self.plan_removal(&key, now);
            }
            if differs {
                self.aliases.touch(&Target::of(owner));
                self.pending.mark_report(key);
                changed = true;
            }
        }
        changed
    }

    /// The status of what a check stands for; `None` if that is not known yet.
    fn aliased(&mut self, own: &CheckKey, now: Instant) -> Option<(CheckStatus, String)> {
        let Probe::Alias { node, instance } = &self.checks.get(own)?.spec.update.definition.probe else {
            return None;
        };
        if !node.is_empty() && *node != self.node.name.as_str() {
            return self.elsewhere.status(own, node, instance, now);
        }
        let service = InstanceId::parse(instance).ok().map(|id| {
            self.services.get(&InstanceKey {
                namespace: own.namespace.clone(),
                node: own.node.clone(),
                id,
            })
        });
        let of_service = match service {
            Some(None) => {
                let node = &self.node.name;
                let output = format!("Service {instance} could not be found on node {node}");
                return Some((CheckStatus::Critical, output));
            }
            Some(Some(service)) => self.checks_of(service).collect(),
            None => Vec::new(),
        };
        // An alias of its own instance would hold itself up, or down.
        let others = self
            .node_checks()
            .chain(of_service)
            .filter(|(key, _)| *key != own);
        let worst = others.max_by_key(|(_, check)| check.status_at(now));
        let output = worst.map(|(_, check)| check.output_at(now)).unwrap_or_default();
        let worst = worst.map(|(_, check)| (check.status_at(now), &*check.spec.update.name, &*output));
        Some(of_aliased(worst))
    }
}
