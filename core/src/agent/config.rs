//! The configuration file of an agent: its settings, and the services to register. The platform reads the file and
//! turns JSON, HCL, YAML or TOML into a value; this gives it a meaning. Keys match without regard to case and underscores.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use super::{
    local::{CheckSpec, ServiceSpec},
    registrations::Registrar,
};
use crate::{
    api::http::{
        body::Fields,
        error::ApiError,
        requests::{parse_node_id, parse_own_meta, plain_node},
    },
    probing::check::Rules,
    registry::{CheckDefinition, CheckDefinitionUpdate, CheckStatus, InstanceKey, NodeName, Probe},
};

/// Why a configuration was refused: one line that names the place and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl From<ApiError> for ConfigError {
    fn from(error: ApiError) -> Self {
        let message = error.message.trim_start_matches("Request decode failed: ");
        ConfigError(message.to_owned())
    }
}

/// What a file sets of what can also be given by flags; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `server` or `servers`: HTTP addresses.
    pub servers: Option<Vec<String>>,
    /// `http`: address of the agent's own API, or `off`.
    pub http: Option<String>,
    /// `node`: name of the node.
    pub node: Option<String>,
    /// `datacenter`: name of the servers' datacenter.
    pub datacenter: Option<String>,
    /// `address`: where the node is reached.
    pub address: Option<String>,
    /// `node_id`: the node's id, a UUID.
    pub node_id: Option<String>,
    /// `node_meta`: the node's meta.
    pub node_meta: Option<BTreeMap<String, String>>,
    /// `node_ttl`: the TTL of the check of whether the node is alive, or `off`.
    pub node_ttl: Option<String>,
    /// `data_dir`.
    pub data_dir: Option<String>,
    /// `enable_script_checks`.
    pub enable_script_checks: Option<bool>,
    /// `log_level`.
    pub log_level: Option<String>,
    /// `log_format`.
    pub log_format: Option<String>,
}

impl Settings {
    /// What this one leaves open is taken from `other`.
    #[must_use]
    pub fn or(self, other: Settings) -> Settings {
        Settings {
            servers: self.servers.or(other.servers),
            http: self.http.or(other.http),
            node: self.node.or(other.node),
            datacenter: self.datacenter.or(other.datacenter),
            address: self.address.or(other.address),
            node_id: self.node_id.or(other.node_id),
            node_meta: self.node_meta.or(other.node_meta),
            node_ttl: self.node_ttl.or(other.node_ttl),
            data_dir: self.data_dir.or(other.data_dir),
            enable_script_checks: self.enable_script_checks.or(other.enable_script_checks),
            log_level: self.log_level.or(other.log_level),
            log_format: self.log_format.or(other.log_format),
        }
    }
}

/// A service of a configuration, valid for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredService(pub(super) ServiceSpec);

/// A check of a configuration that stands by itself, valid for one node: the node's own, or one of a service of the
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredCheck(pub(super) CheckSpec);

/// The check of whether `node` is alive, which its agent renews.
pub(super) fn aliveness(node: &NodeName, ttl: Duration) -> ConfiguredCheck {
    let definition = CheckDefinition {
        probe: Probe::Ttl(ttl),
        ..CheckDefinition::default()
    };
    ConfiguredCheck(CheckSpec {
        update: CheckDefinitionUpdate::aliveness(node.clone(), definition, CheckStatus::Passing),
        rules: Rules::Short,
    })
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its settings.
    pub settings: Settings,
    services: Vec<Value>,
    checks: Vec<Value>,
}

const KEYS: [&str; 17] = [
    "services",
    "service",
    "checks",
    "check",
    "server",
    "servers",
    "http",
    "node",
    "datacenter",
    "address",
    "node_id",
    "node_meta",
    "node_ttl",
    "data_dir",
    "enable_script_checks",
    "log_level",
    "log_format",
];

impl ConfigFile {
    /// Reads a file's content: an object with settings, `services` and `checks`, or a list of services alone. Services are in
    /// the forms of `/v1/agent/service/register`, checks in those of `/v1/agent/check/register`.
    ///
    /// # Errors
    /// An unknown key, or a setting of a wrong type. Services are checked by [`ConfigFile::services`], checks by
    /// [`ConfigFile::checks`].
    pub fn parse(content: &Value) -> Result<ConfigFile, ConfigError> {
        if let Value::Array(services) = content {
            return Ok(ConfigFile {
                settings: Settings::default(),
                services: services.clone(),
                checks: Vec::new(),
            });
        }
        let fields = Fields::of(content)?;
        for key in content.as_object().into_iter().flat_map(|object| object.keys()) {
            if !ConfigFile::knows(key) {
                return Err(ConfigError(format!(
                    "unknown key {key:?}: expected one of {}",
                    KEYS.join(", ")
                )));
            }
        }
        let mut services: Vec<Value> = fields.list("services")?.to_vec();
        services.extend(fields.get("service")?.cloned());
        let mut checks: Vec<Value> = fields.list("checks")?.to_vec();
        checks.extend(fields.get("check")?.cloned());
        let (node_id, node_meta) = (parse_node_id(&fields, "node_id")?, parse_own_meta(&fields)?);
        let text = |name| Ok::<_, ConfigError>(fields.text(name)?.map(str::to_owned));
        Ok(ConfigFile {
            settings: Settings {
                servers: servers(&fields)?,
                http: text("http")?,
                node: text("node")?,
                datacenter: text("datacenter")?,
                address: text("address")?,
                node_id,
                node_meta,
                node_ttl: text("node_ttl")?,
                data_dir: text("data_dir")?,
                enable_script_checks: match fields.has("enable_script_checks")? {
                    true => Some(fields.flag("enable_script_checks")?),
                    false => None,
                },
                log_level: text("log_level")?,
                log_format: text("log_format")?,
            },
            services,
            checks,
        })
    }

    /// Whether a key means something at the top of a file.
    pub fn knows(key: &str) -> bool {
        let letters = |text: &str| text.replace('_', "").to_ascii_lowercase();
        KEYS.iter().any(|known| letters(known) == letters(key))
    }

    /// The services, on the node of this name and address.
    ///
    /// # Errors
    /// Which service, which field of it, what is wrong with it and what was expected.
    pub fn services(&self, node: &NodeName, address: &str) -> Result<Vec<ConfiguredService>, ConfigError> {
        let registrar = registrar(node, address);
        let service = |(position, body)| match registrar.service(body, None) {
            Ok(parsed) => Ok(ConfiguredService(parsed.spec)),
            Err(error) => Err(in_list("services", position, error)),
        };
        self.services.iter().enumerate().map(service).collect()
    }

    /// The checks that stand by themselves, on the node of this name and address. What they belong to is looked for by
    /// [`bind_checks`].
    ///
    /// # Errors
    /// Which check, which field of it, what is wrong with it and what was expected.
    pub fn checks(&self, node: &NodeName, address: &str) -> Result<Vec<ConfiguredCheck>, ConfigError> {
        let registrar = registrar(node, address);
        let check = |(position, body)| match registrar.check(body, None) {
            Ok(spec) => Ok(ConfiguredCheck(spec)),
            Err(error) => Err(in_list("checks", position, error)),
        };
        self.checks.iter().enumerate().map(check).collect()
    }
}

fn registrar(node: &NodeName, address: &str) -> Registrar {
    // Whoever writes the file may run programs on this host anyway.
    Registrar::new(plain_node(node.clone(), address), true)
}

fn in_list(list: &str, position: usize, error: ApiError) -> ConfigError {
    let ConfigError(reason) = error.into();
    ConfigError(format!("{list}[{position}]: {reason}"))
}

/// `server` or `servers`: a text with commas, or a list.
fn servers(fields: &Fields<'_>) -> Result<Option<Vec<String>>, ConfigError> {
    let mut found: Option<Vec<String>> = None;
    for name in ["server", "servers"] {
        let addresses = match fields.get(name)? {
            None => continue,
            Some(Value::Array(_)) => fields.texts(name)?,
            Some(_) => {
                let text = fields.text(name)?.unwrap_or_default();
                text.split(',').map(|address| address.trim().to_owned()).collect()
            }
        };
        found.get_or_insert_default().extend(addresses);
    }
    Ok(found)
}

/// Whether two services of several files are one and the same.
///
/// # Errors
/// Names the id that is there twice.
pub fn refuse_duplicates(services: &[ConfiguredService]) -> Result<(), ConfigError> {
    let mut keys = BTreeSet::new();
    for service in services {
        let key = service.0.instance.key();
        if !keys.insert(key.clone()) {
            return Err(ConfigError(format!(
                "service id {:?} is configured twice",
                key.id.as_str()
            )));
        }
    }
    Ok(())
}

/// Gives each check that names a service to that service; what is left are the node's own.
///
/// # Errors
/// A check names a service that the configuration does not have, or an id is there twice.
pub fn bind_checks(
    services: &mut [ConfiguredService],
    checks: Vec<ConfiguredCheck>,
) -> Result<Vec<ConfiguredCheck>, ConfigError> {
    let mut places: BTreeMap<InstanceKey, usize> = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for (place, ConfiguredService(service)) in services.iter().enumerate() {
        places.insert(service.instance.key(), place);
        keys.extend(service.checks.iter().map(|check| check.update.key()));
    }
    let mut of_node = Vec::new();
    for ConfiguredCheck(check) in checks {
        let id = check.update.id.clone();
        if !keys.insert(check.update.key()) {
            let twice = format!("check id {:?} is configured twice", id.as_str());
            return Err(ConfigError(twice));
        }
        let Some(service) = check.update.instance.clone() else {
            of_node.push(ConfiguredCheck(check));
            continue;
        };
        let key = InstanceKey {
            namespace: check.update.namespace.clone(),
            node: check.update.node.clone(),
            id: service,
        };
        let Some(place) = places.get(&key) else {
            return Err(ConfigError(format!(
                "check {:?}: there is no service of the id {:?} in the configuration",
                id.as_str(),
                key.id.as_str()
            )));
        };
        services[*place].0.checks.push(check);
    }
    Ok(of_node)
}
