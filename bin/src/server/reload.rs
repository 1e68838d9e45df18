//! Services and checks of a server's config files: registered when it starts, and brought up to date when it is told to
//! reload. They belong to the node of registrations through `/v1/agent/…`, which all servers share.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sider_core::{
    api::http::{
        error::ApiError,
        requests::{Place, parse_check, parse_service, plain_node},
    },
    limits::BATCH_REGISTRATIONS_MAX,
    registry::{CheckKey, Command, Deregister, InstanceKey, Registration},
    server::{Server, ServerConfig, agent_node},
};
use sider_runtime_tokio::tls::Tls;

use crate::{
    config::{ConfigFile, in_file},
    config_files::{Merged, read_merged},
};

/// Between two attempts to register what the files say, while the server has no leader.
const RETRY: Duration = Duration::from_millis(300);

/// What a server reads again when it is told to.
#[derive(Debug)]
pub(super) struct Reloader {
    paths: Vec<PathBuf>,
    place: Place,
    tls: Option<Tls>,
    server: Mutex<Option<HiddenServer>>,
    /// What was registered from the files. Held while they are read and registered.
    registered: tokio::sync::Mutex<Registered>,
}

/// A handle that says nothing of itself in logs.
#[derive(Clone)]
struct HiddenServer(Server);

impl std::fmt::Debug for HiddenServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

/// What the files say is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Registered {
    instances: BTreeSet<InstanceKey>,
    checks: BTreeSet<CheckKey>,
}

/// What the files say, ready to be registered.
#[derive(Debug, Default)]
struct Wanted {
    registrations: Vec<Registration>,
    keys: Registered,
}

/// Why it was not done.
#[derive(Debug)]
enum NotDone {
    /// It would be so again.
    Refused(String),
    /// Not now.
    Unavailable(String),
}

impl Reloader {
    /// For a server of this configuration.
    pub(super) fn new(paths: Vec<PathBuf>, config: &ServerConfig, tls: Option<Tls>) -> Reloader {
        Reloader {
            paths,
            place: place(config),
            tls,
            server: Mutex::default(),
            registered: tokio::sync::Mutex::default(),
        }
    }

    /// The server that runs now, if one does.
    pub(super) fn set_server(&self, server: Option<Server>) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server.map(HiddenServer);
    }

    fn server(&self) -> Option<Server> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.as_ref().map(|server| server.0.clone())
    }

    /// Registers what the files say, as soon as there is a leader.
    pub(super) async fn begin(self: Arc<Self>) {
        while self.server().is_some() {
            match self.register().await {
                Ok(0) => return,
                Ok(count) => {
                    tracing::info!(count, "registered the services and checks of the config files");
                    return;
                }
                Err(NotDone::Refused(reason)) => {
                    tracing::error!(
                        "the services and checks of the config files were not registered: {reason}"
                    );
                    return;
                }
                Err(NotDone::Unavailable(reason)) => {
                    tracing::debug!("the services of the config files are not registered yet: {reason}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Reads the files again: services and checks, and certificates.
    ///
    /// # Errors
    /// One line that says what can't be used.
    pub(super) async fn reload(&self) -> Result<(), String> {
        let count = self.register().await.map_err(|error| match error {
            NotDone::Refused(reason) | NotDone::Unavailable(reason) => reason,
        })?;
        if let Some(tls) = &self.tls {
            tls.reload()?;
        }
        tracing::info!(services_and_checks = count, "reloaded");
        Ok(())
    }

    /// Registers what the files say now, and takes away what they said before and do not any more. Gives how much they say.
    async fn register(&self) -> Result<usize, NotDone> {
        let mut registered = self.registered.lock().await;
        let merged = read_merged(&self.paths).map_err(NotDone::Refused)?;
        ConfigFile::of(&merged).map_err(NotDone::Refused)?;
        let wanted = parse(&merged, &self.place).map_err(NotDone::Refused)?;
        let count = wanted.registrations.len();
        let Some(server) = self.server() else {
            return Err(NotDone::Unavailable(
                "the server is starting or stopping".to_owned(),
            ));
        };
        if count > 0 {
            write(&server, Command::Register(wanted.registrations)).await?;
            registered.instances.extend(wanted.keys.instances.clone());
            registered.checks.extend(wanted.keys.checks.clone());
        }
        for key in registered.checks.clone().difference(&wanted.keys.checks) {
            write(&server, Command::Deregister(Deregister::Check(key.clone()))).await?;
            registered.checks.remove(key);
        }
        for key in registered.instances.clone().difference(&wanted.keys.instances) {
            let instance = Deregister::Instance {
                key: key.clone(),
                service: None,
            };
            write(&server, Command::Deregister(instance)).await?;
            registered.instances.remove(key);
        }
        Ok(count)
    }
}

async fn write(server: &Server, command: Command) -> Result<(), NotDone> {
    let written = server.write(command).await;
    let written = written.map_err(|error| NotDone::Unavailable(error.to_string()))?;
    written
        .reply
        .map(drop)
        .map_err(|refusal| NotDone::Refused(refusal.to_string()))
}

/// Where services and checks of the files go.
fn place(config: &ServerConfig) -> Place {
    Place {
        node: match config.servers_service {
            Some(_) => agent_node(config),
            None => plain_node(config.agent_node.clone(), &config.agent_node_address),
        },
        namespace: None,
        scripts: config.script_checks,
    }
}

/// Whether services and checks of the files can be used, before anything is started.
///
/// # Errors
/// One line that names the file and the service or the check.
pub(super) fn validate(merged: &Merged, config: &ServerConfig) -> Result<(), String> {
    parse(merged, &place(config)).map(drop)
}

fn parse(merged: &Merged, place: &Place) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    let refused = |path, what: &str, position: usize, error: &ApiError| {
        in_file(path, &format!("{what} {}: {}", position + 1, error.message))
    };
    for (position, service) in merged.services.iter().enumerate() {
        let registration = parse_service(&service.body, place)
            .map_err(|error| refused(&service.path, "service", position, &error))?;
        if let Some(instance) = &registration.instance
            && !wanted.keys.instances.insert(instance.key())
        {
            let twice = format!("service id {:?} is there twice", instance.id.as_str());
            return Err(in_file(&service.path, &twice));
        }
        // What the file does not name any more goes.
        wanted.registrations.push(Registration {
            replace_checks: true,
            ..registration
        });
    }
    for (position, check) in merged.checks.iter().enumerate() {
        let registration = parse_check(&check.body, place)
            .map_err(|error| refused(&check.path, "check", position, &error))?;
        for update in &registration.checks {
            if !wanted.keys.checks.insert(update.key()) {
                let twice = format!("check id {:?} is there twice", update.id.as_str());
                return Err(in_file(&check.path, &twice));
            }
        }
        wanted.registrations.push(registration);
    }
    match wanted.registrations.len() > BATCH_REGISTRATIONS_MAX {
        true => Err(format!(
            "config files have {} services and checks: the limit is {BATCH_REGISTRATIONS_MAX}",
            wanted.registrations.len()
        )),
        false => Ok(wanted),
    }
}
