//! Services and checks of a server's config files: registered when it starts, and brought up to date when it is told to
//! reload. They belong to the node of registrations through `/v1/agent/…`, which all servers share.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use serde::{Deserialize, Serialize};
use sider_core::{
    api::http::{
        error::ApiError,
        requests::{Place, parse_check, parse_service, plain_node},
    },
    limits::BATCH_REGISTRATIONS_MAX,
    registry::{CheckKey, Command, Deregister, InstanceKey, Node, Registration},
    server::{Server, ServerConfig},
};
use sider_runtime_tokio::tls::Tls;

use crate::{
    config::ConfigFile,
    config_files::{Merged, read_merged},
    config_text::in_file,
    host::Reload,
};

/// Between two attempts to register what the files say, while the server has no leader.
const RETRY: Duration = Duration::from_millis(300);

/// The file of the data directory that names what was registered from config files, so that it is taken away once they
/// do not name it any more.
const KEPT: &str = "from-config-files.json";

/// What a server reads again when it is told to.
#[derive(Debug)]
pub(super) struct Reloader {
    paths: Vec<PathBuf>,
    tls: Option<Tls>,
    server: Mutex<Option<HiddenServer>>,
    /// Where it is kept what was registered from the files; `None` where nothing is kept.
    kept: Option<PathBuf>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// For a server that keeps in the folder `data` what it registered.
    ///
    /// # Errors
    /// What an earlier run kept can't be read.
    pub(super) fn new(
        paths: Vec<PathBuf>,
        data: Option<&Path>,
        tls: Option<Tls>,
    ) -> Result<Reloader, String> {
        let kept = data.map(|folder| folder.join(KEPT));
        let registered = kept.as_deref().map_or(Ok(Registered::default()), read_kept)?;
        Ok(Reloader {
            paths,
            tls,
            server: Mutex::default(),
            kept,
            registered: tokio::sync::Mutex::new(registered),
        })
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
    async fn read_again(&self) -> Result<(), String> {
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
        let Some(server) = self.server() else {
            return Err(NotDone::Unavailable(
                "the server is starting or stopping".to_owned(),
            ));
        };
        let place = place(server.agent_node(), server.config().script_checks);
        let mut wanted = parse(&merged, &place).map_err(NotDone::Refused)?;
        wanted
            .registrations
            .iter_mut()
            .for_each(|registration| server.locate(registration));
        let count = wanted.registrations.len();
        let before = registered.clone();
        registered.instances.extend(wanted.keys.instances.clone());
        registered.checks.extend(wanted.keys.checks.clone());
        // First: what is registered and not kept here would never be taken away.
        self.keep(&registered)?;
        if count > 0
            && let Err(failure) = write(&server, Command::Register(wanted.registrations)).await
        {
            // What was refused may be somebody else's, and is not ours to take away.
            if matches!(failure, NotDone::Refused(_)) {
                *registered = before;
                self.keep(&registered)?;
            }
            return Err(failure);
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
        self.keep(&registered)?;
        Ok(count)
    }

    /// Has the next run of this server know what was registered.
    fn keep(&self, registered: &Registered) -> Result<(), NotDone> {
        let Some(path) = &self.kept else {
            return Ok(());
        };
        if read_kept(path).is_ok_and(|kept| kept == *registered) {
            return Ok(());
        }
        let refused = |error: std::io::Error| NotDone::Refused(format!("{}: {error}", path.display()));
        let json = serde_json::to_vec(registered).expect("sets of names are always JSON");
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh).map_err(refused)?;
        file.write_all(&json).map_err(refused)?;
        // A power cut must not leave half a file in the place of a whole one.
        file.sync_all().map_err(refused)?;
        fs::rename(&fresh, path).map_err(refused)?;
        let folder = path.parent().map(File::open).transpose().map_err(refused)?;
        folder.map_or(Ok(()), |folder| folder.sync_all()).map_err(refused)
    }
}

impl Reload for Reloader {
    fn reload(self: Arc<Self>) -> BoxFuture<'static, Result<(), String>> {
        async move { self.read_again().await }.boxed()
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

/// What an earlier run of this server registered.
fn read_kept(path: &Path) -> Result<Registered, String> {
    let explain = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json).map_err(|error| explain(&error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Registered::default()),
        Err(error) => Err(explain(&error)),
    }
}

/// Where services and checks of the files go.
fn place(node: Node, scripts: bool) -> Place {
    Place {
        node,
        namespace: None,
        scripts,
    }
}

/// Whether services and checks of the files can be used, before anything is started.
///
/// # Errors
/// One line that names the file and the service or the check.
pub(super) fn validate(merged: &Merged, config: &ServerConfig) -> Result<(), String> {
    let node = plain_node(config.agent_node.clone(), &config.agent_node_address);
    parse(merged, &place(node, config.script_checks)).map(drop)
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
        name_checks(&mut wanted.keys, &registration, &service.path)?;
        // Checks that came otherwise stay, maintenance among them; those that a file named and does not any more go.
        wanted.registrations.push(registration);
    }
    for (position, check) in merged.checks.iter().enumerate() {
        let registration = parse_check(&check.body, place)
            .map_err(|error| refused(&check.path, "check", position, &error))?;
        name_checks(&mut wanted.keys, &registration, &check.path)?;
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

/// Notes which checks a registration names.
///
/// # Errors
/// One of them was named before.
fn name_checks(keys: &mut Registered, registration: &Registration, path: &Path) -> Result<(), String> {
    for update in &registration.checks {
        if !keys.checks.insert(update.key()) {
            let twice = format!("check id {:?} is there twice", update.id.as_str());
            return Err(in_file(path, &twice));
        }
    }
    Ok(())
}
