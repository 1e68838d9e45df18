//! Registrations as they are written: in the configuration file, in requests at the agent's API, and in what of those
//! was kept on the disk. All are parsed as a server parses them.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::Value;

use super::{
    local::{CheckSpec, Local, LocalCheck, LocalError, Origin, ServiceSpec},
    store::Record,
};
use crate::{
    api::http::{
        body::{self, Fields},
        error::ApiError,
        maintenance,
        requests::{Place, encode_registration, parse_check, parse_service},
    },
    limits::AGENT_REGISTRATION_BYTES_MAX,
    probing::check::Rules,
    registry::{CheckDefinitionUpdate, CheckKey, InstanceId, Namespace, Node, NodeName},
    runtime::Runtime,
};

/// A service to register, and whether checks that it had before and does not name now are removed.
#[derive(Clone, Debug)]
pub(super) struct ParsedService {
    /// The service.
    pub(super) spec: ServiceSpec,
    /// `ReplaceExistingChecks`.
    pub(super) replace_checks: bool,
}

/// Parses registrations for one node.
#[derive(Clone, Debug)]
pub(super) struct Registrar {
    node: Node,
    scripts: bool,
}

impl Registrar {
    /// For registrations on `node`, whose checks may run programs if `scripts` says so.
    pub(super) fn new(node: Node, scripts: bool) -> Self {
        Registrar { node, scripts }
    }

    /// What a body does not say, in a namespace named outside of it.
    pub(super) fn place(&self, namespace: Option<Namespace>) -> Place {
        Place {
            node: self.node.clone(),
            namespace,
            scripts: self.scripts,
        }
    }

    /// A service, in either form.
    ///
    /// # Errors
    /// 400 that names the field, what is wrong with it and what was expected; 413 if servers could not read it.
    pub(super) fn service(
        &self,
        body: &Value,
        namespace: Option<Namespace>,
    ) -> Result<ParsedService, ApiError> {
        let parsed = parse_service(body, &self.place(namespace))?;
        let bytes = encode_registration(&parsed).to_string().len();
        if bytes > AGENT_REGISTRATION_BYTES_MAX {
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "the registration has {bytes} bytes as servers are sent it: expected at most \
                     {AGENT_REGISTRATION_BYTES_MAX}"
                ),
            ));
        }
        let rules = rules_of_service(body)?;
        let instance = parsed
            .instance
            .ok_or_else(|| ApiError::bad_request("Missing service name"))?;
        let checks = parsed
            .checks
            .into_iter()
            .map(|update| as_run_here(update, rules))
            .collect();
        Ok(ParsedService {
            spec: ServiceSpec { instance, checks },
            replace_checks: parsed.replace_checks,
        })
    }

    /// A single check, of a service or of the node.
    ///
    /// # Errors
    /// As [`Registrar::service`].
    pub(super) fn check(&self, body: &Value, namespace: Option<Namespace>) -> Result<CheckSpec, ApiError> {
        let parsed = parse_check(body, &self.place(namespace))?;
        let rules = rules_of(&[Fields::of(body)?])?;
        parsed
            .checks
            .into_iter()
            .next()
            .map(|update| as_run_here(update, rules))
            .ok_or_else(|| ApiError::bad_request("Missing check"))
    }

    /// Takes on a service that was registered through the API before a restart, unless the configuration has it too, with
    /// its checks but for those of the configuration.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn restore_service<R: Runtime>(
        &self,
        local: &mut Local,
        record: &Record,
        of_config: &BTreeSet<CheckKey>,
    ) -> Result<(), String> {
        let body = body::parse(record.body.as_bytes()).map_err(|error| error.message)?;
        let parsed = self
            .service(&body, record.namespace.clone())
            .map_err(|error| error.message)?;
        let mut spec = without_status(parsed.spec);
        if local.service(&spec.instance.key()).is_some() {
            return Err(format!(
                "service {:?} is in the configuration",
                spec.instance.id.as_str()
            ));
        }
        spec.checks.retain(|check| {
            let is_configured = of_config.contains(&check.update.key());
            if is_configured {
                tracing::warn!(
                    service = %spec.instance.id,
                    check = %check.update.id,
                    "a check that was registered through the API before is another one in the configuration now"
                );
            }
            !is_configured
        });
        local
            .put_service(spec, true, Origin::Api, R::now(), R::random_u64)
            .map_err(|error| error.to_string())
    }

    /// Takes on a check that was registered through the API before a restart, unless the configuration has it too, as one of
    /// the node or of another service.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn restore_check<R: Runtime>(
        &self,
        local: &mut Local,
        record: &Record,
        of_config: &BTreeSet<CheckKey>,
    ) -> Result<(), String> {
        let body = body::parse(record.body.as_bytes()).map_err(|error| error.message)?;
        let spec = match body.get("Maintenance") {
            Some(_) => self.restored_maintenance(&body, record.namespace.clone()),
            None => self.check(&body, record.namespace.clone()).map(|mut spec| {
                spec.update.status = None;
                spec
            }),
        };
        let spec = spec.map_err(|error| error.message)?;
        let key = spec.update.key();
        let owner = |check: &LocalCheck| check.spec.update.instance.clone();
        let is_same = spec.update.instance.is_some()
            && local.check(&key).map(owner) == Some(spec.update.instance.clone());
        if of_config.contains(&key) && !is_same {
            return Err(format!(
                "check {:?} is in the configuration",
                spec.update.id.as_str()
            ));
        }
        local
            .put_check(spec, Origin::Api, R::now(), R::random_u64)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// Maintenance that began before a restart, by its record.
    fn restored_maintenance(
        &self,
        record: &Value,
        namespace: Option<Namespace>,
    ) -> Result<CheckSpec, ApiError> {
        let fields = Fields::of(record)?;
        let of = fields.text("ServiceID")?.map(InstanceId::parse).transpose()?;
        let notes = fields.text("Notes")?.unwrap_or_default().to_owned();
        maintenance_check(self.node.name.clone(), namespace.unwrap_or_default(), of, notes)
    }
}

/// The check of maintenance, of a service of this node or of the node itself.
///
/// # Errors
/// The service's id leaves no room for it.
pub(super) fn maintenance_check(
    node: NodeName,
    namespace: Namespace,
    of: Option<InstanceId>,
    notes: String,
) -> Result<CheckSpec, ApiError> {
    let update = maintenance::check(node, namespace, of, notes)?;
    let rules = Rules::Consul;
    Ok(CheckSpec { update, rules })
}

/// The status that a registration names is that of its first moment. After a restart the servers know better.
fn without_status(mut spec: ServiceSpec) -> ServiceSpec {
    for check in &mut spec.checks {
        check.update.status = None;
    }
    spec
}

/// A check that the agent runs itself: it knows its form, and the servers need not.
fn as_run_here(mut update: CheckDefinitionUpdate, rules: Rules) -> CheckSpec {
    update.definition.interval = update.definition.said_interval();
    CheckSpec { update, rules }
}

/// A body is in the short form if one of its checks has a type.
fn rules_of_service(body: &Value) -> Result<Rules, ApiError> {
    let fields = Fields::of(body)?;
    let mut checks = Vec::new();
    checks.extend(fields.object("Check")?);
    for check in fields.list("Checks")? {
        checks.push(Fields::of(check)?);
    }
    rules_of(&checks)
}

fn rules_of(checks: &[Fields<'_>]) -> Result<Rules, ApiError> {
    for check in checks {
        if check.text("Type")?.is_some() {
            return Ok(Rules::Short);
        }
    }
    Ok(Rules::Consul)
}

impl From<LocalError> for ApiError {
    fn from(error: LocalError) -> Self {
        let status = match &error {
            LocalError::UnknownService(id) => return ApiError::no_such_service(id.as_str()),
            LocalError::UnknownCheck(id) => return ApiError::unknown_check(id.as_str()),
            LocalError::NoTtl(_) => StatusCode::INTERNAL_SERVER_ERROR,
            LocalError::Reserved(_) => StatusCode::BAD_REQUEST,
            LocalError::OverLimit { .. } => StatusCode::TOO_MANY_REQUESTS,
        };
        ApiError::new(status, error.to_string())
    }
}
