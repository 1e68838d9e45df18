//! What the configuration files say, taken on at the start and again whenever the agent is told to read them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Agent, ConfiguredService, Shared,
    local::{Local, Origin, ServiceSpec},
    store,
};
use crate::{
    limits::AGENT_SERVICES_MAX,
    registry::{CheckKey, InstanceKey, Namespace},
    runtime::{Change, Runtime},
};

/// The services that the configuration registered, with the checks that it gave each.
pub(super) type Configured = BTreeMap<InstanceKey, BTreeSet<CheckKey>>;

/// What these services come to.
pub(super) fn configured(services: &[ConfiguredService]) -> Configured {
    let checks = |spec: &ServiceSpec| spec.checks.iter().map(|check| check.update.key()).collect();
    let entries = services
        .iter()
        .map(|ConfiguredService(spec)| (spec.instance.key(), checks(spec)));
    entries.collect()
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
        .map_err(|error| format!("service {id:?}: {error}"))
}

impl<R: Runtime> Agent<R> {
    /// Registers what the configuration says now, and takes away what it said before and does not any more. What came
    /// through the API stays, but for a service that the configuration names now: then that counts.
    ///
    /// # Errors
    /// One line that says which service can't be taken on, or that the disk fails; then nothing has changed.
    pub async fn reload(&self, services: Vec<ConfiguredService>) -> Result<(), String> {
        let shared = self.0.clone();
        // In a task of its own, so that a client that goes away can't leave it half done.
        let reloaded = R::spawn(async move { shared.reload(services).await }).await;
        reloaded.map_err(|failure| failure.to_string())?
    }
}

impl<R: Runtime> Shared<R> {
    async fn reload(&self, services: Vec<ConfiguredService>) -> Result<(), String> {
        let _changing = self.changing.lock().await;
        let before = self.configured().clone();
        let now = configured(&services);
        self.refuse(&services, &before)?;
        self.store
            .write(self.records_after(&before, &now))
            .await
            .map_err(|error| format!("the registrations can't be kept: {error}"))?;
        let fresh = now.keys().map(|key| key.namespace.clone());
        self.namespaces().extend(fresh);
        let mut local = self.local();
        for key in before.keys().filter(|key| !now.contains_key(key)) {
            local.remove_service(key);
        }
        for ConfiguredService(spec) in services {
            let key = spec.instance.key();
            let dropped = before.get(&key).into_iter().flatten();
            for check in dropped.filter(|check| !now[&key].contains(check)) {
                local.remove_check(check);
            }
            // Checks that came through the API stay with a service that was there before.
            put::<R>(&mut local, spec, !before.contains_key(&key))?;
        }
        drop(local);
        *self.configured() = now;
        self.changed();
        Ok(())
    }

    /// Tries services on a host that has nothing else, and each beside what is here.
    fn refuse(&self, services: &[ConfiguredService], before: &Configured) -> Result<(), String> {
        let local = self.local();
        let mut alone = Local::new(local.node().clone());
        for ConfiguredService(spec) in services {
            put::<R>(&mut alone, spec.clone(), true)?;
            let there = local.refuse_service(spec, true);
            there.map_err(|error| format!("service {:?}: {error}", spec.instance.id))?;
        }
        let others = local.services().map(|(key, _)| key);
        let others = others.filter(|key| !before.contains_key(key) && alone.service(key).is_none());
        match others.count() + services.len() > AGENT_SERVICES_MAX {
            true => Err(format!("too many services: the limit is {AGENT_SERVICES_MAX}")),
            false => Ok(()),
        }
    }

    /// What the disk no longer has to keep, and the namespaces that it has to.
    fn records_after(&self, before: &Configured, now: &Configured) -> Vec<Change> {
        let local = self.local();
        let gone = before.keys().filter(|key| !now.contains_key(key));
        let taken = now.keys().filter(|key| !before.contains_key(key));
        let mut batch = Vec::new();
        for key in gone.chain(taken) {
            batch.push(store::remove_service(key));
            let checks = local.service(key).map(|service| service.checks.as_slice());
            batch.extend(checks.unwrap_or_default().iter().map(store::remove_check));
        }
        let namespaces: BTreeSet<&Namespace> = now.keys().map(|key| &key.namespace).collect();
        batch.extend(namespaces.into_iter().map(store::put_namespace));
        batch
    }
}
