//! Checks: their definition in both forms, registration by themselves, and reports about them.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;

use super::Place;
use crate::{
    api::http::{
        body::Fields,
        duration,
        error::{ApiError, echo},
    },
    limits::{
        ADDRESS_BYTES_MAX, CHECK_DEFINITION_BYTES_MAX, CHECK_NAME_BYTES_MAX, CHECK_NOTES_BYTES_MAX,
        CHECK_OUTPUT_BYTES_MAX, TTL_MAX, TTL_MIN,
    },
    registry::{
        CheckDefinition, CheckDefinitionUpdate, CheckExtras, CheckId, CheckStatus, Instance, InstanceId,
        Keeps, Namespace, Probe, Registration,
    },
};

/// How a check is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `{"type": "ttl", "ttl": "15s"}`.
    Short,
    /// Consul's `{"TTL": "15s"}`.
    Consul,
}

/// What a check's registration may say, in either form.
const FIELDS: [&str; 48] = [
    "Addr",
    "Address",
    "AliasNode",
    "AliasService",
    "Args",
    "Body",
    "CheckID",
    "Cmd",
    "Command",
    "DeregisterCriticalServiceAfter",
    "DisableRedirects",
    "DockerContainerID",
    "FailuresBeforeCritical",
    "FailuresBeforeWarning",
    "GRPC",
    "GRPCUseTLS",
    "H2PING",
    "H2PingUseTLS",
    "HTTP",
    "Header",
    "ID",
    "Interval",
    "Method",
    "NS",
    "Name",
    "Namespace",
    "Notes",
    "OSService",
    "Output",
    "OutputMaxSize",
    "ProxyGRPC",
    "ProxyHTTP",
    "Script",
    "ScriptArgs",
    "ServiceID",
    "Shell",
    "Status",
    "SuccessBeforePassing",
    "TCP",
    "TCPUseTLS",
    "TLSServerName",
    "TLSSkipVerify",
    "TTL",
    "Timeout",
    "Token",
    "Type",
    "UDP",
    "URL",
];

/// Between two runs of a check in the short form that names no interval.
const SHORT_FORM_INTERVAL: Duration = Duration::from_secs(10);

/// Parses a body of `/v1/agent/check/register`: a check of an instance (`ServiceID`) or of the node itself.
///
/// # Errors
/// 400 that names the field, what is wrong with it and what was expected.
pub fn parse_check(body: &Value, place: &Place) -> Result<Registration, ApiError> {
    let fields = Fields::of(body)?;
    fields.refuse_unknown(&FIELDS)?;
    let Some(name) = fields.text("Name")? else {
        return Err(ApiError::bad_request("Missing check name"));
    };
    let form = match fields.text("Type")? {
        Some(_) => Form::Short,
        None => Form::Consul,
    };
    let id = CheckId::parse(fields.first_text(&["ID", "CheckID"])?.unwrap_or(name))?;
    let definition = parse_definition(&fields, form, place.scripts)?.in_form(&id, form == Form::Short);
    let instance = fields.text("ServiceID")?.map(InstanceId::parse).transpose()?;
    let namespace = place.namespace(&fields)?;
    if instance.is_none() && namespace != Namespace::default() {
        return Err(ApiError::bad_request(
            "Invalid check: a check without ServiceID is its node's own, and in the namespace \"default\"",
        ));
    }
    let check = CheckDefinitionUpdate {
        id,
        namespace,
        node: place.node.name.clone(),
        name: fields.bounded_text("Name", CHECK_NAME_BYTES_MAX)?,
        instance,
        definition: alone(definition),
        status: parse_status_of(&fields, "Bad check status")?,
        output: String::new(),
        notes: fields.bounded_text("Notes", CHECK_NOTES_BYTES_MAX)?,
    };
    Ok(Registration {
        node: place.node.clone(),
        keeps: Keeps::NodeAndStatuses,
        instance: None,
        checks: vec![check],
        replace_checks: false,
    })
}

/// A definition of a check that is registered by itself.
pub(super) fn alone(definition: CheckDefinition) -> CheckDefinition {
    match definition.ttl() {
        Some(_) => CheckDefinition {
            interval: CheckDefinition::ALONE,
            ..definition
        },
        None => definition,
    }
}

/// A check in the body of its instance's registration.
pub(super) fn parse_of_instance(
    fields: &Fields<'_>,
    form: Form,
    id: CheckId,
    instance: &Instance,
    scripts: bool,
) -> Result<CheckDefinitionUpdate, ApiError> {
    fields.refuse_unknown(&FIELDS)?;
    let mut name = fields.bounded_text("Name", CHECK_NAME_BYTES_MAX)?;
    if name.is_empty() {
        name = format!("Service '{}' check", instance.service);
    }
    let definition = parse_definition(fields, form, scripts)?.in_form(&id, form == Form::Short);
    Ok(CheckDefinitionUpdate {
        id,
        namespace: instance.namespace.clone(),
        node: instance.node.clone(),
        name,
        instance: Some(instance.id.clone()),
        definition,
        status: parse_status_of(fields, BAD_STATUS)?,
        output: String::new(),
        notes: fields.bounded_text("Notes", CHECK_NOTES_BYTES_MAX)?,
    })
}

/// How a check is run, as an agent's API takes it.
fn parse_definition(fields: &Fields<'_>, form: Form, scripts: bool) -> Result<CheckDefinition, ApiError> {
    check_ignored_fields(fields)?;
    let mut definition = parse_common(fields)?;
    definition.probe = match form {
        Form::Short => parse_short_probe(fields)?,
        Form::Consul => parse_consul_probe(fields)?,
    };
    if matches!(definition.probe, Probe::Cmd(_) | Probe::Docker { .. }) && !scripts {
        return Err(ApiError::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true",
        ));
    }
    let is_alias = matches!(definition.probe, Probe::Alias { .. });
    if is_alias && !definition.interval.is_zero() {
        return Err(invalid("Interval cannot be set for Alias checks"));
    }
    let runs = !is_alias && !matches!(definition.probe, Probe::Ttl(_));
    if runs && form == Form::Short && definition.interval.is_zero() {
        definition.interval = SHORT_FORM_INTERVAL;
    }
    if runs && definition.interval.is_zero() {
        return Err(invalid(
            "Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks",
        ));
    }
    if !runs && !is_alias && !definition.interval.is_zero() {
        return Err(invalid("Interval and TTL cannot both be specified"));
    }
    Ok(definition)
}

/// Whatever is the same for every kind of check.
pub(super) fn parse_common(fields: &Fields<'_>) -> Result<CheckDefinition, ApiError> {
    let count = |name| Ok::<_, ApiError>(fields.number(name, 0..=u32::MAX)?.unwrap_or_default());
    Ok(CheckDefinition {
        probe: Probe::External,
        // Shorter ones than the shortest that is kept to are taken, as by Consul.
        interval: period(fields, "Interval", Duration::ZERO)?,
        timeout: period(fields, "Timeout", Duration::ZERO)?,
        success_before_passing: count("SuccessBeforePassing")?,
        failures_before_warning: count("FailuresBeforeWarning")?,
        failures_before_critical: count("FailuresBeforeCritical")?,
        deregister_critical_service_after: period(fields, "DeregisterCriticalServiceAfter", Duration::ZERO)?,
        extras: parse_extras(fields)?.kept(),
    })
}

/// What few checks say: how TLS is spoken, whether redirects are followed, and how much of an output is kept.
fn parse_extras(fields: &Fields<'_>) -> Result<CheckExtras, ApiError> {
    let tls_server_name = fields.bounded_text("TLSServerName", ADDRESS_BYTES_MAX)?;
    if tls_server_name.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(fields.error(
            "TLSServerName",
            format!("expected a host name, got {:?}", echo(&tls_server_name)),
        ));
    }
    Ok(CheckExtras {
        tls_server_name,
        tls_skip_verify: fields.flag("TLSSkipVerify")?,
        tcp_use_tls: fields.flag("TCPUseTLS")?,
        disable_redirects: fields.flag("DisableRedirects")?,
        output_max_size: fields.number("OutputMaxSize", 0..=u32::MAX)?.unwrap_or_default(),
    })
}

/// A duration that is absent (zero) or within its bounds.
fn period(fields: &Fields<'_>, name: &str, min: Duration) -> Result<Duration, ApiError> {
    let nanos = fields.duration(name)?.unwrap_or_default();
    let given = u64::try_from(nanos).map(Duration::from_nanos);
    match given {
        Ok(given) if given.is_zero() || (min..=TTL_MAX).contains(&given) => Ok(given),
        _ => Err(fields.error(
            name,
            format!(
                "expected a duration from {} to {}",
                duration::format(min),
                duration::format(TTL_MAX)
            ),
        )),
    }
}

/// `{"type": …}` with its field.
fn parse_short_probe(fields: &Fields<'_>) -> Result<Probe, ApiError> {
    let Some(kind) = fields.text("Type")? else {
        return Err(fields.error("type", format!("missing: expected {SHORT_KINDS}")));
    };
    match kind.to_ascii_lowercase().as_str() {
        "ttl" => parse_ttl(fields),
        "http" => match fields.first_text(&["HTTP", "URL"])? {
            Some(url) => parse_http(fields, url),
            None => Err(fields.error("http", "missing: expected the URL to ask")),
        },
        "tcp" => match fields.first_text(&["TCP", "Address", "Addr"])? {
            Some(address) => parse_tcp(fields, address),
            None => Err(fields.error("tcp", "missing: expected host:port to connect to")),
        },
        "cmd" | "script" => match parse_args(fields)? {
            Some(args) => Ok(Probe::Cmd(args)),
            None => Err(fields.error("args", "missing: expected the program and its arguments")),
        },
        "udp" | "grpc" | "h2ping" | "alias" => match parse_newer(fields)? {
            Some(probe) if probe.kind().as_str().eq_ignore_ascii_case(kind) => Ok(probe),
            _ => Err(fields.error(kind, "missing: expected what to ask, by Consul's name of it")),
        },
        _ => Err(fields.error(
            "type",
            format!("unknown check type {:?}: expected {SHORT_KINDS}", echo(kind)),
        )),
    }
}

/// The kinds that there are in the short form.
const SHORT_KINDS: &str = r#""ttl", "http", "tcp", "cmd", "udp", "grpc", "h2ping" or "alias""#;

/// The kinds of checks that came later, by the fields that Consul has for them; nothing if none of these is there.
pub(super) fn parse_newer(fields: &Fields<'_>) -> Result<Option<Probe>, ApiError> {
    let text = |name: &str| fields.bounded_text(name, CHECK_DEFINITION_BYTES_MAX);
    let given = |name: &str| Ok::<_, ApiError>(fields.text(name)?.is_some());
    // Consul asks by TLS unless it is told not to.
    let h2ping_tls = !given("H2PING")? || !fields.has("H2PingUseTLS")? || fields.flag("H2PingUseTLS")?;
    Ok(Some(if given("UDP")? {
        Probe::Udp(text("UDP")?)
    } else if given("GRPC")? {
        Probe::Grpc {
            target: text("GRPC")?,
            tls: fields.flag("GRPCUseTLS")?,
        }
    } else if given("H2PING")? {
        Probe::H2ping {
            address: text("H2PING")?,
            tls: h2ping_tls,
        }
    } else if given("AliasNode")? || given("AliasService")? {
        Probe::Alias {
            node: text("AliasNode")?,
            instance: text("AliasService")?,
        }
    } else if given("DockerContainerID")? {
        let Some(args) = parse_args(fields)? else {
            return Err(fields.error("Args", "missing: expected what to run in the container"));
        };
        Probe::Docker {
            container: text("DockerContainerID")?,
            shell: text("Shell")?,
            args,
        }
    } else if given("OSService")? {
        Probe::OsService(text("OSService")?)
    } else {
        return Ok(None);
    }))
}

/// Consul's fields, one of which says what kind of check it is.
fn parse_consul_probe(fields: &Fields<'_>) -> Result<Probe, ApiError> {
    let mut named = Vec::new();
    for name in ["HTTP", "TCP", "UDP", "GRPC", "H2PING", "OSService"] {
        if fields.text(name)?.is_some() {
            named.push(name);
        }
    }
    let is_alias = fields.first_text(&["AliasNode", "AliasService"])?.is_some();
    named.extend(is_alias.then_some("AliasService"));
    let args = parse_args(fields)?;
    // A program in a container is a program, too.
    named.extend(args.is_some().then_some("Args"));
    let has_ttl = fields.duration("TTL")?.is_some_and(|ttl| ttl > 0);
    if is_alias && has_ttl {
        return Err(invalid("TTL must be not be set for Alias checks"));
    }
    if !named.is_empty() && has_ttl {
        return Err(invalid("Interval and TTL cannot both be specified"));
    }
    if named.len() > 1 {
        return Err(invalid(&format!(
            "expected one of TTL, HTTP, TCP, UDP, GRPC, H2PING, AliasService, OSService and Args, got {}",
            named.join(" and ")
        )));
    }
    if let Some(probe) = parse_newer(fields)? {
        return Ok(probe);
    }
    match (fields.text("HTTP")?, fields.text("TCP")?, args) {
        (Some(url), _, _) => parse_http(fields, url),
        (_, Some(address), _) => parse_tcp(fields, address),
        (_, _, Some(args)) => Ok(Probe::Cmd(args)),
        (None, None, None) => parse_ttl(fields),
    }
}

pub(super) fn parse_ttl(fields: &Fields<'_>) -> Result<Probe, ApiError> {
    let nanos = fields.duration("TTL")?.unwrap_or_default();
    if nanos <= 0 {
        return Err(invalid("TTL must be > 0 for TTL checks"));
    }
    period(fields, "TTL", TTL_MIN).map(Probe::Ttl)
}

/// An HTTP probe whose parts can be sent as they are.
fn parse_http(fields: &Fields<'_>, url: &str) -> Result<Probe, ApiError> {
    let absolute = url
        .parse::<Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if !absolute {
        return Err(fields.error(
            "HTTP",
            format!(
                "expected a URL like \"http://host:port/path\", got {:?}",
                echo(url)
            ),
        ));
    }
    parse_described_http(fields, url)
}

/// The same in a description of what somebody else runs, who may know what to make of the URL.
pub(super) fn parse_described_http(fields: &Fields<'_>, url: &str) -> Result<Probe, ApiError> {
    let method = fields.text("Method")?.unwrap_or_default();
    if !method.is_empty() && Method::from_bytes(method.as_bytes()).is_err() {
        return Err(fields.error(
            "Method",
            format!("expected an HTTP method, got {:?}", echo(method)),
        ));
    }
    let mut headers = Vec::new();
    for (name, value) in fields.entries("Header")? {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            single => std::slice::from_ref(single),
        };
        for value in values {
            let value = value
                .as_str()
                .filter(|value| HeaderValue::from_str(value).is_ok());
            match value {
                Some(value) if HeaderName::from_bytes(name.as_bytes()).is_ok() => {
                    headers.push((name.to_owned(), value.to_owned()));
                }
                _ => {
                    return Err(fields.error(
                        "Header",
                        format!(
                            "expected names of headers with lists of strings, not so {:?}",
                            echo(name)
                        ),
                    ));
                }
            }
        }
    }
    let body = fields.text("Body")?.unwrap_or_default();
    let header_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    bounded(
        fields,
        "HTTP",
        url.len() + method.len() + header_bytes + body.len(),
    )?;
    Ok(Probe::Http {
        url: url.to_owned(),
        method: method.to_owned(),
        headers,
        body: body.to_owned(),
    })
}

fn parse_tcp(fields: &Fields<'_>, address: &str) -> Result<Probe, ApiError> {
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(port)) if port > 0) || address.contains(char::is_whitespace) {
        return Err(fields.error("TCP", format!("expected host:port, got {:?}", echo(address))));
    }
    parse_described_tcp(fields, address)
}

/// The same in a description of what somebody else runs, who may know the port.
pub(super) fn parse_described_tcp(fields: &Fields<'_>, address: &str) -> Result<Probe, ApiError> {
    bounded(fields, "TCP", address.len())?;
    Ok(Probe::Tcp(address.to_owned()))
}

/// A program with its arguments; a text is given to the shell.
pub(super) fn parse_args(fields: &Fields<'_>) -> Result<Option<Vec<String>>, ApiError> {
    for name in ["Args", "ScriptArgs", "Command", "Cmd", "Script"] {
        let args = match fields.get(name)? {
            None => continue,
            Some(Value::String(line)) if line.is_empty() => continue,
            Some(Value::String(line)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
            Some(_) => fields.texts(name)?,
        };
        if args.is_empty() {
            continue;
        }
        bounded(fields, name, args.iter().map(String::len).sum())?;
        return Ok(Some(args));
    }
    Ok(None)
}

fn bounded(fields: &Fields<'_>, name: &str, bytes: usize) -> Result<(), ApiError> {
    if bytes > CHECK_DEFINITION_BYTES_MAX {
        return Err(fields.error(
            name,
            format!("expected at most {CHECK_DEFINITION_BYTES_MAX} bytes in all, got {bytes}"),
        ));
    }
    Ok(())
}

/// Types of what is accepted from Consul's clients and ignored.
fn check_ignored_fields(fields: &Fields<'_>) -> Result<(), ApiError> {
    for name in ["Shell", "Token", "ProxyHTTP", "ProxyGRPC"] {
        fields.text(name)?;
    }
    for name in ["GRPCUseTLS", "H2PingUseTLS"] {
        fields.flag(name)?;
    }
    Ok(())
}

/// A status by its word; `None` for any other word.
pub fn parse_status(word: &str) -> Option<CheckStatus> {
    match word {
        "passing" => Some(CheckStatus::Passing),
        "warning" => Some(CheckStatus::Warning),
        "critical" => Some(CheckStatus::Critical),
        "unknown" => Some(CheckStatus::Unknown),
        _ => None,
    }
}

/// What is said of a status that is none, but where a check is registered by itself.
pub(super) const BAD_STATUS: &str = "Status for checks must 'passing', 'warning', 'critical'";

/// `Status` of a registration, with what is said of another word.
pub(super) fn parse_status_of(
    fields: &Fields<'_>,
    complaint: &'static str,
) -> Result<Option<CheckStatus>, ApiError> {
    let Some(word) = fields.text("Status")? else {
        return Ok(None);
    };
    match parse_status(word) {
        Some(status) => Ok(Some(status)),
        None => Err(ApiError::bad_request(complaint)),
    }
}

/// Parses a body of `/v1/agent/check/update/{id}`: `{Status, Output}`.
///
/// # Errors
/// 400 that says what is wrong.
pub fn parse_check_update(body: &Value) -> Result<(CheckStatus, String), ApiError> {
    let fields = Fields::of(body)?;
    let word = fields.text("Status")?.unwrap_or_default();
    let reported = parse_status(word).filter(|status| *status != CheckStatus::Unknown);
    let Some(status) = reported else {
        return Err(ApiError::bad_request(format!(
            "Invalid check status: '{}'",
            echo(word)
        )));
    };
    Ok((status, cut_output(fields.text("Output")?.unwrap_or_default())))
}

/// As much of an output as is kept.
pub(in crate::api::http) fn cut_output(output: &str) -> String {
    output[..output.floor_char_boundary(CHECK_OUTPUT_BYTES_MAX)].to_owned()
}

fn invalid(reason: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid check: {reason}"))
}
