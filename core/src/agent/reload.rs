//! What the configuration files say, taken on at the start and again whenever the agent is told to read them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Agent, AgentConfig, ConfiguredCheck, ConfiguredService, Shared,
    config::aliveness,
    local::{CheckSpec, Local, Origin, ServiceSpec},
    store,
};
use crate::{
    limits::{AGENT_NODE_CHECKS_MAX, AGENT_SERVICES_MAX},
    registry::{CheckKey, InstanceId, InstanceKey, Namespace},
    runtime::{Change, Runtime},
};

/// What the configuration registered.
#[derive(Clone, Debug, Default)]
pub(super) struct Configured {
    /// Its services, with the checks that it gave each.
    services: BTreeMap<InstanceKey, BTreeSet<CheckKey>>,
    /// Its checks of the node.
    checks: BTreeSet<CheckKey>,
}

/// What these services and checks come to.
pub(super) fn configured(services: &[ConfiguredService], checks: &[ConfiguredCheck]) -> Configured {
    let of = |spec: &ServiceSpec| spec.checks.iter().map(|check| check.update.key()).collect();
    let services = services
        .iter()
        .map(|ConfiguredService(spec)| (spec.instance.key(), of(spec)));
    Configured {
        services: services.collect(),
        checks: checks.iter().map(|check| check.0.update.key()).collect(),
    }
}

/// These checks of the node, behind the one of whether it is alive if the agent renews that.
pub(super) fn with_aliveness(config: &AgentConfig, checks: Vec<ConfiguredCheck>) -> Vec<ConfiguredCheck> {
    let alive = config.node_ttl.map(|ttl| aliveness(&config.node, ttl));
    alive.into_iter().chain(checks).collect()
}

/// Takes on a service of the configuration.
///
/// # Errors
/// Names the service, and says what is wrong with it.
pub(super) fn put<R: Runtime>(
    local: &mut Local,
    spec: ServiceSpec,
    replace_checks: bool,
) -> Result<(), String> {
    let id = spec.instance.id.clone();
    local
        .put_service(spec, replace_checks, Origin::Config, R::now(), R::random_u64)
        .map_err(|error| format!("service {:?}: {error}", id.as_str()))
}

/// Takes on a check of the node of the configuration.
///
/// # Errors
/// Names the check, and says what is wrong with it.
pub(super) fn put_check<R: Runtime>(local: &mut Local, spec: CheckSpec) -> Result<(), String> {
    let id = spec.update.id.clone();
    local
        .put_check(spec, Origin::Config, R::now(), R::random_u64)
        .map(drop)
        .map_err(|error| format!("check {:?}: {error}", id.as_str()))
}

impl<R: Runtime> Agent<R> {
    /// Registers what the configuration says now, and takes away what it said before and does not any more. What came
    /// through the API stays, but for a service or a check of the node that the configuration names now: then that counts.
    ///
    /// `checks` are the node's own, as [`super::bind_checks`] leaves them.
    ///
    /// # Errors
    /// One line that says what can't be taken on, or that the disk fails; then nothing has changed.
    pub async fn reload(
        &self,
        services: Vec<ConfiguredService>,
        checks: Vec<ConfiguredCheck>,
    ) -> Result<(), String> {
        let shared = self.0.clone();
        // In a task of its own, so that a client that goes away can't leave it half done.
        let reloaded = R::spawn(async move { shared.reload(services, checks).await }).await;
        reloaded.map_err(|failure| failure.to_string())?
    }
}

impl<R: Runtime> Shared<R> {
    async fn reload(
        &self,
        services: Vec<ConfiguredService>,
        checks: Vec<ConfiguredCheck>,
    ) -> Result<(), String> {
        let _changing = self.changing.lock().await;
        let checks = match self.local().is_beside_server() {
            true => checks,
            false => with_aliveness(&self.config, checks),
        };
        let before = self.configured().clone();
        let now = configured(&services, &checks);
        self.refuse(&services, &checks, &before)?;
        self.store
            .write(self.records_after(&before, &now))
            .await
            .map_err(|error| format!("the registrations can't be kept: {error}"))?;
        let fresh = now.services.keys().map(|key| key.namespace.clone());
        self.namespaces().extend(fresh);
        let mut local = self.local();
        for key in before
            .services
            .keys()
            .filter(|key| !now.services.contains_key(key))
        {
            local.remove_service(key);
        }
        // A check that moved is no more of what the configuration had it of.
        let is_of = |local: &Local, check: &CheckKey, owner: Option<&InstanceId>| {
            let check = local.check(check);
            check.is_some_and(|check| check.spec.update.instance.as_ref() == owner)
        };
        for key in before.checks.difference(&now.checks) {
            if is_of(&local, key, None) {
                local.remove_check(key);
            }
        }
        for ConfiguredService(spec) in services {
            let key = spec.instance.key();
            let dropped = before.services.get(&key).into_iter().flatten();
            for check in dropped.filter(|check| !now.services[&key].contains(check)) {
                if is_of(&local, check, Some(&key.id)) {
                    local.remove_check(check);
                }
            }
            // Checks that came through the API stay with a service that was there before.
            put::<R>(&mut local, spec, !before.services.contains_key(&key))?;
        }
        for ConfiguredCheck(spec) in checks {
            put_check::<R>(&mut local, spec)?;
        }
        drop(local);
        *self.configured() = now;
        self.changed();
        Ok(())
    }

    /// Tries services and checks on a host that has nothing else, and each beside what is here.
    fn refuse(
        &self,
        services: &[ConfiguredService],
        checks: &[ConfiguredCheck],
        before: &Configured,
    ) -> Result<(), String> {
        let local = self.local();
        let mut alone = Local::new(local.node().clone());
        for ConfiguredService(spec) in services {
            put::<R>(&mut alone, spec.clone(), true)?;
            let there = local.refuse_service(spec, true);
            there.map_err(|error| format!("service {:?}: {error}", spec.instance.id.as_str()))?;
        }
        for ConfiguredCheck(spec) in checks {
            put_check::<R>(&mut alone, spec.clone())?;
        }
        let others = local.node_checks().map(|(key, _)| key);
        let others = others.filter(|key| !before.checks.contains(key) && alone.check(key).is_none());
        if others.count() + checks.len() > AGENT_NODE_CHECKS_MAX {
            return Err(format!(
                "too many checks of the node: the limit is {AGENT_NODE_CHECKS_MAX}"
            ));
        }
        let others = local.services().map(|(key, _)| key);
        let others = others.filter(|key| !before.services.contains_key(key) && alone.service(key).is_none());
        match others.count() + services.len() > AGENT_SERVICES_MAX {
            true => Err(format!("too many services: the limit is {AGENT_SERVICES_MAX}")),
            false => Ok(()),
        }
    }

    /// What the disk no longer has to keep, and the namespaces that it has to.
    fn records_after(&self, before: &Configured, now: &Configured) -> Vec<Change> {
        let local = self.local();
        let (old, new) = (&before.services, &now.services);
        let gone = old.keys().filter(|key| !new.contains_key(key));
        let taken = new.keys().filter(|key| !old.contains_key(key));
        let mut batch = Vec::new();
        for key in gone.chain(taken) {
            batch.push(store::remove_service(key));
            let checks = local.service(key).map(|service| service.checks.as_slice());
            batch.extend(checks.unwrap_or_default().iter().map(store::remove_check));
        }
        let checks = before.checks.symmetric_difference(&now.checks);
        batch.extend(checks.map(store::remove_check));
        let namespaces: BTreeSet<&Namespace> = new.keys().map(|key| &key.namespace).collect();
        batch.extend(namespaces.into_iter().map(store::put_namespace));
        batch
    }
}
