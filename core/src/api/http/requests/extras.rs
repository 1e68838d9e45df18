//! What few instances say of themselves: kind, locality, named ports, a socket, and what a service mesh knows of them.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value};

use super::{address, port};
use crate::{
    api::http::{body::Fields, error::ApiError},
    limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, PORTS_PER_INSTANCE_MAX, PROXY_BYTES_MAX},
    registry::{Extras, Locality, NamedPort, Proxy},
};

/// Names of what a proxy may say that is kept as it is given, as Consul writes them.
const PROXY_FIELDS: [&str; 8] = [
    "AccessLogs",
    "Config",
    "EnvoyExtensions",
    "Expose",
    "MeshGateway",
    "MutualTLSMode",
    "TransparentProxy",
    "Upstreams",
];

/// What is kept of an instance beyond what most have; `port` is its only port.
///
/// # Errors
/// 400 that says what is wrong.
pub(super) fn parse_extras(fields: &Fields<'_>, port: u16) -> Result<Option<Arc<Extras>>, ApiError> {
    let connect_native = match fields.object("Connect")? {
        None => false,
        Some(connect) => connect.flag("Native")?,
    };
    let extras = Extras {
        kind: fields.bounded_text("Kind", NAME_BYTES_MAX)?,
        locality: parse_locality(fields)?,
        ports: parse_ports(fields)?,
        socket_path: fields.bounded_text("SocketPath", ADDRESS_BYTES_MAX)?,
        proxy: parse_proxy(fields)?,
        connect_native,
    };
    check_proxy(&extras, port)?;
    Ok(extras.kept())
}

/// Where a node or an instance is; nothing where both parts are empty.
///
/// # Errors
/// 400 that says what is wrong.
pub(super) fn parse_locality(fields: &Fields<'_>) -> Result<Option<Locality>, ApiError> {
    let Some(fields) = fields.object("Locality")? else {
        return Ok(None);
    };
    let locality = Locality {
        region: fields.bounded_text("Region", NAME_BYTES_MAX)?,
        zone: fields.bounded_text("Zone", NAME_BYTES_MAX)?,
    };
    Ok((locality != Locality::default()).then_some(locality))
}

/// Named ports: each name once, and one of them the default.
fn parse_ports(fields: &Fields<'_>) -> Result<Vec<NamedPort>, ApiError> {
    let items = fields.list("Ports")?;
    if items.len() > PORTS_PER_INSTANCE_MAX {
        return Err(fields.error(
            "Ports",
            format!("expected at most {PORTS_PER_INSTANCE_MAX}, got {}", items.len()),
        ));
    }
    let mut names = BTreeSet::new();
    let mut ports = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let item = Fields::at(item, &fields.path(&format!("Ports[{position}]")))?;
        let named = NamedPort {
            name: item.bounded_text("Name", NAME_BYTES_MAX)?,
            port: port(&item, "Port")?,
            default: item.flag("Default")?,
        };
        if named.name.trim().is_empty() {
            return Err(invalid("Ports.Name cannot be empty"));
        }
        if named.port == 0 {
            return Err(invalid("Ports.Port must be non-zero"));
        }
        if !names.insert(named.name.clone()) {
            return Err(invalid(&format!("Ports.Name {:?} has to be unique", named.name)));
        }
        ports.push(named);
    }
    match ports.iter().filter(|port| port.default).count() {
        0 if !ports.is_empty() => Err(invalid("one of the Ports must be marked as Default")),
        0 | 1 => Ok(ports),
        _ => Err(invalid("only one port can be marked as default")),
    }
}

/// What a proxy says. Nothing is made of most of it, so it is kept as it is given.
fn parse_proxy(fields: &Fields<'_>) -> Result<Option<Proxy>, ApiError> {
    let Some(body) = fields.object("Proxy")? else {
        return Ok(None);
    };
    let mut rest = Map::new();
    for name in PROXY_FIELDS {
        if let Some(value) = body.get(name)?
            && !is_nothing(value)
        {
            body.refuse_deep(name)?;
            rest.insert(name.to_owned(), value.clone());
        }
    }
    let proxy = Proxy {
        destination_service_name: body.bounded_text("DestinationServiceName", NAME_BYTES_MAX)?,
        destination_service_id: body.bounded_text("DestinationServiceID", NAME_BYTES_MAX)?,
        local_service_address: address(&body, "LocalServiceAddress")?,
        local_service_port: port(&body, "LocalServicePort")?,
        local_service_socket_path: body.bounded_text("LocalServiceSocketPath", ADDRESS_BYTES_MAX)?,
        mode: body.bounded_text("Mode", NAME_BYTES_MAX)?,
        rest: Value::Object(rest).to_string(),
    };
    if proxy.rest.len() > PROXY_BYTES_MAX {
        return Err(fields.error(
            "Proxy",
            format!(
                "expected at most {PROXY_BYTES_MAX} bytes, got {}",
                proxy.rest.len()
            ),
        ));
    }
    let nothing = Proxy {
        rest: "{}".to_owned(),
        ..Proxy::default()
    };
    Ok((proxy != nothing).then_some(proxy))
}

/// Whether a value says no more than that it is there: Go's client sends its empty structures, too.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// What a proxy must say, in the words of Consul.
fn check_proxy(extras: &Extras, port: u16) -> Result<(), ApiError> {
    if extras.kind != Extras::CONNECT_PROXY {
        return Ok(());
    }
    let mut reasons = Vec::new();
    let destination = extras
        .proxy
        .as_ref()
        .map_or("", |proxy| proxy.destination_service_name.as_str());
    if destination.trim().is_empty() {
        reasons.push("Proxy.DestinationServiceName must be non-empty for Connect proxy services");
    }
    if destination == "*" {
        reasons.push("Proxy.DestinationServiceName must not be a wildcard for Connect proxy services");
    }
    if port == 0 && extras.socket_path.is_empty() && extras.ports.is_empty() {
        reasons.push("Port or SocketPath must be set for a Connect proxy");
    }
    if extras.connect_native {
        reasons.push("A Proxy cannot also be Connect Native, only typical services");
    }
    match reasons.len() {
        0 => Ok(()),
        count => Err(invalid(&format!(
            "{count} error{} occurred:\n\t* {}\n\n",
            if count == 1 { "" } else { "s" },
            reasons.join("\n\t* ")
        ))),
    }
}

fn invalid(reason: &str) -> ApiError {
    ApiError::bad_request(format!("Validation failed: {reason}"))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use crate::{
        api::http::{
            encode,
            requests::{Place, encode_registration, parse_catalog_registration, parse_service, plain_node},
        },
        registry::NodeName,
    };

    fn place() -> Place {
        Place {
            node: plain_node(NodeName::parse("host").expect("a valid name"), "10.0.0.9"),
            namespace: None,
            scripts: false,
        }
    }

    /// What an instance has beyond what most have, as a registration says it again.
    fn check_extras(body: Value, expected: Expect) {
        let registration = parse_service(&body, &place()).expect("a valid registration");
        let instance = registration.instance.as_ref().expect("there is one");
        let said = instance.extras.as_deref().map(encode::extras).unwrap_or_default();
        expected.assert_eq(&Value::Object(said).to_string());
        let sent = encode_registration(&registration);
        let again = parse_catalog_registration(&sent, None, "dc1").expect("an agent sends what servers take");
        assert_eq!(again.instance, registration.instance);
    }

    #[test]
    fn extras_are_kept_as_they_are_given() {
        check_extras(
            json!({"Name": "x", "Kind": "", "Locality": {"Region": "", "Zone": ""}, "Ports": [], "Proxy": {},
            "SocketPath": "", "Connect": {"Native": false, "SidecarService": {}}}),
            expect!["{}"],
        );
        check_extras(
            json!({"name": "x", "kind": "mesh-gateway", "locality": {"region": "us-west-1", "zone": "us-west-1a"}}),
            expect![[r#"{"Kind":"mesh-gateway","Locality":{"Region":"us-west-1","Zone":"us-west-1a"}}"#]],
        );
        check_extras(
            json!({"Name": "x", "SocketPath": "/run/x.sock", "Connect": {"native": true},
                "Ports": [{"Name": "http", "Port": 80, "Default": true}, {"name": "metrics", "port": 9090}]}),
            expect![[
                r#"{"Connect":{"Native":true},"Ports":[{"Default":true,"Name":"http","Port":80},{"Default":false,"Name":"metrics","Port":9090}],"SocketPath":"/run/x.sock"}"#
            ]],
        );
        check_extras(
            json!({"Name": "px", "Kind": "connect-proxy", "Port": 21000, "Proxy": {
                "destination_service_name": "web", "local_service_port": 8000, "Mode": "", "MeshGateway": {},
                "Expose": {"Checks": true}, "upstreams": [{"DestinationName": "db", "LocalBindPort": 1}]}}),
            expect![[
                r#"{"Kind":"connect-proxy","Proxy":{"DestinationServiceName":"web","Expose":{"Checks":true},"LocalServicePort":8000,"Upstreams":[{"DestinationName":"db","LocalBindPort":1}]}}"#
            ]],
        );
    }

    #[test]
    fn what_few_checks_say_is_kept_as_it_is_given() {
        let check = |body: Value, expected: Expect| {
            let body = json!({"Name": "x", "Check": body});
            let registration = parse_service(&body, &place()).expect("a valid registration");
            expected.assert_eq(&encode::definition(&registration.checks[0].definition).to_string());
            let sent = encode_registration(&registration);
            let again =
                parse_catalog_registration(&sent, None, "dc1").expect("an agent sends what servers take");
            assert_eq!(again.checks, registration.checks);
        };
        check(
            json!({"HTTP": "https://h/", "Interval": "1m", "TLSServerName": "", "TLSSkipVerify": false,
                "DisableRedirects": false, "OutputMaxSize": 0}),
            expect![[r#"{"HTTP":"https://h/","Interval":"1m0s"}"#]],
        );
        check(
            json!({"TCP": "h:443", "Interval": "1m", "tcp_use_tls": true, "tls_server_name": "web.internal",
                "tls_skip_verify": true, "disable_redirects": true, "output_max_size": 10000}),
            expect![[
                r#"{"DisableRedirects":true,"Interval":"1m0s","OutputMaxSize":10000,"TCP":"h:443","TCPUseTLS":true,"TLSServerName":"web.internal","TLSSkipVerify":true}"#
            ]],
        );
    }

    #[test]
    fn bad_extras_say_what_is_wrong() {
        let check = |body: Value, expected: Expect| {
            let error = parse_service(&body, &place()).expect_err("it must be refused");
            assert_eq!(error.status, http::StatusCode::BAD_REQUEST);
            expected.assert_eq(&error.message);
        };
        check(
            json!({"Name": "x", "Ports": [{"Name": " ", "Port": 1, "Default": true}]}),
            expect!["Validation failed: Ports.Name cannot be empty"],
        );
        check(
            json!({"Name": "x", "Ports": [{"Name": "a", "Default": true}]}),
            expect!["Validation failed: Ports.Port must be non-zero"],
        );
        check(
            json!({"Name": "x", "Ports": [{"Name": "a", "Port": 1, "Default": true}, {"Name": "a", "Port": 2}]}),
            expect![[r#"Validation failed: Ports.Name "a" has to be unique"#]],
        );
        check(
            json!({"Name": "x", "Ports": [{"Name": "a", "Port": 1}]}),
            expect!["Validation failed: one of the Ports must be marked as Default"],
        );
        check(
            json!({"Name": "x", "Ports": [{"Name": "a", "Port": 1, "Default": true}, {"Name": "b", "Port": 2, "Default": true}]}),
            expect!["Validation failed: only one port can be marked as default"],
        );
        check(
            json!({"Name": "x", "Ports": [5]}),
            expect!["Request decode failed: Ports[0]: expected an object, got 5"],
        );
        check(
            json!({"Name": "x", "Proxy": {"Config": {"a": "b".repeat(20_000)}}}),
            expect!["Request decode failed: Proxy: expected at most 16384 bytes, got 20019"],
        );
        let error =
            parse_service(&json!({"Name": "x", "Kind": "connect-proxy"}), &place()).expect_err("refused");
        assert!(error.message.contains("2 errors occurred"), "{}", error.message);
        assert!(
            error.message.contains("DestinationServiceName must be non-empty"),
            "{}",
            error.message
        );
    }
}
