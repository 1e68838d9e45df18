//! Bodies of `/v1/session/create`.

use std::time::Duration;

use serde_json::Value;

use crate::{
    api::http::{
        body::Fields,
        duration,
        error::{ApiError, echo},
        kv::server_error,
    },
    limits::{CHECKS_PER_SESSION_MAX, LOCK_DELAY_DEFAULT, LOCK_DELAY_MAX, NAME_BYTES_MAX, SESSION_TTL_MAX},
    registry::{CheckId, Namespace, NodeName, Session, SessionBehavior, SessionId},
    server::ServerConfig,
};

/// Parses a session, its id being given. A body that is missing is one without fields.
///
/// # Errors
/// What is wrong with it: 400, or 500 where Consul says so.
pub fn parse_session(
    body: Option<&Value>,
    config: &ServerConfig,
    id: SessionId,
) -> Result<Session, ApiError> {
    let nothing = Value::Object(serde_json::Map::new());
    let fields = Fields::of(body.filter(|body| !body.is_null()).unwrap_or(&nothing))?;
    let behavior = match fields.text("Behavior")? {
        None => SessionBehavior::Release,
        Some("release") => SessionBehavior::Release,
        Some("delete") => SessionBehavior::Delete,
        Some(other) => {
            return Err(server_error(format!(
                "Invalid Behavior setting '{}'",
                echo(other)
            )));
        }
    };
    let ttl_text = fields.text("TTL")?.unwrap_or_default();
    Ok(Session {
        id,
        name: fields.bounded_text("Name", NAME_BYTES_MAX)?,
        node: match fields.text("Node")? {
            Some(name) => NodeName::parse(name)?,
            None => config.agent_node.clone(),
        },
        lock_delay: lock_delay(&fields)?,
        behavior,
        ttl: ttl(ttl_text, config.session_ttl_min)?,
        ttl_text: ttl_text.to_owned(),
        node_checks: node_checks(&fields)?,
        service_checks: service_checks(&fields)?,
        renewals: 0,
        create_index: 0,
        modify_index: 0,
    })
}

fn ttl(text: &str, min: Duration) -> Result<Option<Duration>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let Some(nanos) = duration::parse(text) else {
        let text = echo(text);
        return Err(server_error(format!(
            "Session TTL '{text}' invalid: {}",
            duration::complaint(&text)
        )));
    };
    if nanos == 0 {
        return Ok(None);
    }
    let ttl = u64::try_from(nanos).map(Duration::from_nanos);
    match ttl {
        Ok(ttl) if (min..=SESSION_TTL_MAX).contains(&ttl) => Ok(Some(ttl)),
        _ => Err(server_error(format!(
            "Invalid Session TTL '{nanos}', must be between [{}={}]",
            duration::format(min),
            duration::format(SESSION_TTL_MAX)
        ))),
    }
}

/// Consul takes a small number for seconds.
fn lock_delay(fields: &Fields<'_>) -> Result<Duration, ApiError> {
    let Some(nanos) = fields.duration("LockDelay")? else {
        return Ok(LOCK_DELAY_DEFAULT);
    };
    let delay = match u64::try_from(nanos) {
        Ok(seconds @ 1..1_000) => Duration::from_secs(seconds),
        Ok(nanos) => Duration::from_nanos(nanos),
        Err(_) => return Err(fields.error("LockDelay", "expected a duration that is not negative")),
    };
    Ok(delay.min(LOCK_DELAY_MAX))
}

/// `NodeChecks`, and beside them `Checks`, as older clients write them. Either is the node's own if it is not there; if either
/// is there and empty, there are none of both. So does Consul.
fn node_checks(fields: &Fields<'_>) -> Result<Vec<CheckId>, ApiError> {
    let given = |name: &str| match fields.is_there(name) {
        true => fields.texts(name),
        false => Ok(vec![Session::NODE_ALIVE.to_owned()]),
    };
    let (mut names, older) = (given("NodeChecks")?, given("Checks")?);
    if older.is_empty() {
        names.clear();
    }
    if !names.is_empty() && older != [Session::NODE_ALIVE] {
        for name in older {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    if names.len() > CHECKS_PER_SESSION_MAX {
        return Err(fields.error(
            "NodeChecks",
            format!("expected at most {CHECKS_PER_SESSION_MAX}, got {}", names.len()),
        ));
    }
    let checks = names.iter().map(|name| CheckId::parse(name));
    Ok(checks.collect::<Result<_, _>>()?)
}

fn service_checks(fields: &Fields<'_>) -> Result<Vec<(Namespace, CheckId)>, ApiError> {
    let bodies = fields.list("ServiceChecks")?;
    if bodies.len() > CHECKS_PER_SESSION_MAX {
        return Err(fields.error(
            "ServiceChecks",
            format!("expected at most {CHECKS_PER_SESSION_MAX}, got {}", bodies.len()),
        ));
    }
    let parse = |(place, body): (usize, &Value)| {
        let check = Fields::at(body, &fields.path(&format!("ServiceChecks[{place}]")))?;
        let id = CheckId::parse(check.text("ID")?.unwrap_or_default())?;
        let namespace = check.text("Namespace")?.map(Namespace::parse).transpose()?;
        Ok((namespace.unwrap_or_default(), id))
    };
    bodies.iter().enumerate().map(parse).collect()
}
