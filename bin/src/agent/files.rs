//! Configuration files of an agent: read when it starts, and again when it is told to.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Value, json};
use sider_core::{
    agent::{
        Agent, ConfigError, ConfigFile, ConfiguredCheck, ConfiguredService, Settings, bind_checks,
        refuse_duplicates,
    },
    registry::NodeName,
};
use sider_runtime_tokio::{TokioRuntime, address};

use crate::{
    config::refuse_unknown,
    config_files::{files_of, read_merged},
    config_text::{in_file, read_value},
    consul_config::{self, Program},
    host::Reload,
};

/// What an agent reads again when it is told to: its services and checks. Settings are those of its start.
#[derive(Debug)]
pub(super) struct AgentFiles {
    paths: Vec<PathBuf>,
    node: NodeName,
    address: String,
    /// The agent, while it runs.
    agent: Mutex<Option<Agent<TokioRuntime>>>,
}

impl AgentFiles {
    /// The files at these paths, for an agent of this node and address.
    pub(super) fn new(paths: Vec<PathBuf>, node: NodeName, address: String) -> AgentFiles {
        AgentFiles {
            paths,
            node,
            address,
            agent: Mutex::default(),
        }
    }

    /// The agent that runs now, if one does.
    pub(super) fn set_agent(&self, agent: Option<Agent<TokioRuntime>>) {
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = agent;
    }

    async fn read_again(&self) -> Result<(), String> {
        let agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let agent = agent.ok_or("the agent is starting or stopping")?;
        let read = read_files(&self.paths)?;
        let Registered { services, checks } = registered_by(&read.files, &self.node, &self.address)?;
        let (of_services, of_node) = (services.len(), checks.len());
        agent.reload(services, checks).await?;
        tracing::info!(services = of_services, checks = of_node, "reloaded");
        Ok(())
    }
}

impl Reload for AgentFiles {
    fn reload(self: Arc<Self>) -> BoxFuture<'static, Result<(), String>> {
        async move { self.read_again().await }.boxed()
    }
}

/// What files have registered.
#[derive(Debug)]
pub(super) struct Registered {
    /// Services with their checks.
    pub(super) services: Vec<ConfiguredService>,
    /// Checks of the node.
    pub(super) checks: Vec<ConfiguredCheck>,
}

/// The services and checks of files, for the node of this name and address.
///
/// # Errors
/// One line that names the file, the service or the check, and the field.
pub(super) fn registered_by(
    files: &[(PathBuf, ConfigFile)],
    node: &NodeName,
    address: &str,
) -> Result<Registered, String> {
    let (mut services, mut checks) = (Vec::new(), Vec::new());
    for (path, file) in files {
        let in_this = |error: ConfigError| in_file(path, &error.to_string());
        services.extend(file.services(node, address).map_err(in_this)?);
        checks.extend(file.checks(node, address).map_err(in_this)?);
    }
    refuse_duplicates(&services).map_err(|error| error.to_string())?;
    // A check may be of a service of another file.
    let checks = bind_checks(&mut services, checks).map_err(|error| error.to_string())?;
    Ok(Registered { services, checks })
}

/// Configuration files.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) files: Vec<(PathBuf, ConfigFile)>,
    /// Keys of Consul's that mean nothing here.
    pub(super) ignored: Vec<String>,
    /// Whether they are written as Consul's.
    pub(super) is_consuls: bool,
    /// At what it deregisters its node.
    pub(super) leaves: Leaves,
}

/// Whether an agent deregisters its node when it is told to stop. Told to leave it does in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaves {
    /// By SIGTERM: Consul's `leave_on_terminate`.
    pub(super) on_terminate: bool,
    /// By SIGINT: unless Consul's `skip_leave_on_interrupt` says otherwise.
    pub(super) on_interrupt: bool,
}

impl Default for Leaves {
    fn default() -> Self {
        Leaves {
            on_terminate: true,
            on_interrupt: true,
        }
    }
}

/// The configuration files at these paths: files themselves, or those of a folder by their names.
pub(super) fn read_files(paths: &[PathBuf]) -> Result<Files, String> {
    let mut files = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => files.extend(files_of(path)?),
            false => files.push(path.clone()),
        }
    }
    let mut read = Vec::new();
    for path in files {
        let content = read_value(&path)?;
        read.push((path, content));
    }
    let is_consuls = |content: &Value| {
        let keys = content.as_object();
        keys.is_some_and(|keys| consul_config::is_consuls(keys, Program::Agent))
    };
    if read.iter().any(|(_, content)| is_consuls(content)) {
        return read_consuls(paths);
    }
    let mut all = Files::default();
    for (path, content) in read {
        let file = ConfigFile::parse(&content).map_err(|error| in_file(&path, &error.to_string()))?;
        all.files.push((path, file));
    }
    Ok(all)
}

/// Files of Consul's, which are put together before they are understood: what one leaves out another may say.
fn read_consuls(paths: &[PathBuf]) -> Result<Files, String> {
    let mut merged = read_merged(paths)?;
    let names = PathBuf::from(&merged.names);
    let translated = consul_config::translate(&mut merged.keys, Program::Agent)
        .map_err(|error| in_file(&names, &error))?;
    for (list, entries) in [("services", merged.services), ("checks", merged.checks)] {
        let bodies: Vec<Value> = entries.into_iter().map(|entry| entry.body).collect();
        merged.keys.insert(list.to_owned(), bodies.into());
    }
    // Both mean the same in a file of Sider's own.
    if !translated.node_meta.is_empty() {
        merged
            .keys
            .insert("node_meta".to_owned(), json!(translated.node_meta));
    }
    if let Some(id) = translated.flags.get("node_id") {
        merged.keys.insert("node_id".to_owned(), json!(id));
    }
    let unknown = merged.keys.keys().filter(|key| !ConfigFile::knows(key));
    refuse_unknown(unknown.cloned().chain(translated.unknown)).map_err(|error| in_file(&names, &error))?;
    let mut file = ConfigFile::parse(&Value::Object(merged.keys))
        .map_err(|error| in_file(&names, &error.to_string()))?;
    let mut flags = translated.flags;
    let mut take = |flag| flags.remove(flag);
    let leaves = Leaves {
        on_terminate: take("leave_on_terminate").is_none_or(|leaves| leaves == "true"),
        on_interrupt: take("skip_leave_on_interrupt").is_none_or(|skips| skips != "true"),
    };
    let of_consul = Settings {
        servers: take("join").map(|join| join.split(',').map(str::to_owned).collect()),
        http: take("http"),
        node: take("node"),
        // A host's own address, unless one is said.
        address: take("raft_advertise")
            .or(take("raft_bind"))
            .and_then(|bind| Some(address::split(&bind).ok()?.0.to_owned()))
            .filter(|host| host != "0.0.0.0" && host != "::"),
        data_dir: take("raft_dir"),
        enable_script_checks: take("enable_script_checks").map(|enable| enable == "true"),
        log_level: take("log_level"),
        log_format: take("log_format"),
        ..Settings::default()
    };
    file.settings = file.settings.or(of_consul);
    Ok(Files {
        files: vec![(names, file)],
        ignored: translated.ignored,
        is_consuls: true,
        leaves,
    })
}
