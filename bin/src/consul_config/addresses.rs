//! Where a server or an agent of Consul's listens, and where others reach it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    HTTP_PORT, JOIN_PORT, Program, SERVER_PORT,
    known::Useless,
    take::{take_bool, take_host, take_section, take_text},
};

/// Takes addresses, ports and certificates out of a file.
///
/// # Errors
/// One line that names the key.
pub(super) fn translate(
    keys: &mut Map<String, Value>,
    program: Program,
    flags: &mut BTreeMap<&'static str, String>,
    useless: &mut Useless,
) -> Result<(), String> {
    let mut ports = take_section(keys, "ports")?;
    let mut addresses = take_section(keys, "addresses")?;
    let client = take_host(keys, "client_addr")?.unwrap_or_else(|| "127.0.0.1".to_owned());
    let http = take_text(&mut addresses, "http")?.unwrap_or_else(|| client.clone());
    let https = take_text(&mut addresses, "https")?.unwrap_or(client);
    let https = optional_port(&mut ports, "https")?.map(|port| listed(&https, port));
    let https = match (https, translate_tls(keys, flags, useless)?) {
        (Some(https), true) => Some(https),
        // Consul listens there, too, and can't serve anybody.
        (Some(_), false) => {
            useless.ignored.push("ports.https without cert_file".to_owned());
            None
        }
        (None, _) => None,
    };
    let is_served = program == Program::Agent || https.is_some();
    insert_addresses(
        flags,
        ("http", "http_more"),
        http_addresses(&mut ports, &http, is_served)?,
    );
    insert_addresses(flags, ("https", "https_more"), https.unwrap_or_default());
    if program == Program::Agent {
        // It serves HTTP, at one address.
        for (flag, what) in [
            ("http_more", "client_addr beyond its first address"),
            ("https", "ports.https"),
            ("https_more", "addresses.https beyond its first address"),
        ] {
            useless
                .ignored
                .extend(flags.remove(flag).map(|_| what.to_owned()));
        }
    }
    translate_binds(keys, program, flags, &mut ports)?;
    useless.rest_of("ports", &ports);
    useless.rest_of("addresses", &addresses);
    Ok(())
}

/// Where the others reach a server: all addresses of this host unless it says otherwise. They are told the one by which it
/// reaches them.
fn translate_binds(
    keys: &mut Map<String, Value>,
    program: Program,
    flags: &mut BTreeMap<&'static str, String>,
    ports: &mut Map<String, Value>,
) -> Result<(), String> {
    let bind = take_host(keys, "bind_addr")?.unwrap_or_else(|| "0.0.0.0".to_owned());
    let gossip = match ports.contains_key("serf_lan") {
        true => optional_port(ports, "serf_lan")?,
        false => (program == Program::Server).then_some(JOIN_PORT),
    };
    if let Some(port) = gossip {
        flags.insert("join_bind", join(&bind, port));
    }
    let port = port(ports, "server", SERVER_PORT)?;
    flags.insert("raft_bind", join(&bind, port));
    if let Some(host) = take_host(keys, "advertise_addr")? {
        flags.insert("raft_advertise", join(&host, port));
    }
    Ok(())
}

/// Certificates: at the top as they were written for long, or beneath `tls.defaults` and `tls.https`. Whether there are any.
fn translate_tls(
    keys: &mut Map<String, Value>,
    flags: &mut BTreeMap<&'static str, String>,
    useless: &mut Useless,
) -> Result<bool, String> {
    let mut tls = take_section(keys, "tls")?;
    let (mut defaults, mut https) = (
        take_section(&mut tls, "defaults")?,
        take_section(&mut tls, "https")?,
    );
    for (flag, key) in [
        ("tls_cert", "cert_file"),
        ("tls_key", "key_file"),
        ("tls_ca", "ca_file"),
    ] {
        let of_all = (
            take_text(&mut https, key)?,
            take_text(&mut defaults, key)?,
            take_text(keys, key)?,
        );
        let chosen = of_all.0.or(of_all.1).or(of_all.2);
        flags.extend(chosen.map(|path| (flag, path)));
    }
    let verify = [
        take_bool(&mut https, "verify_incoming")?,
        take_bool(keys, "verify_incoming_https")?,
        take_bool(&mut defaults, "verify_incoming")?,
        take_bool(keys, "verify_incoming")?,
    ];
    // In the old form either of the two is enough.
    let verify = match (verify[0], verify[2]) {
        (Some(verify), _) => verify,
        (None, Some(verify)) => verify,
        (None, None) => verify[1] == Some(true) || verify[3] == Some(true),
    };
    flags.insert("tls_verify", verify.to_string());
    useless.rest_of("tls.defaults", &defaults);
    useless.rest_of("tls.https", &https);
    useless.rest_of("tls", &tls);
    Ok(flags.contains_key("tls_cert"))
}

/// Where HTTP is served at this host, or `off`, which a server can't be without unless it serves HTTPS.
fn http_addresses(
    ports: &mut Map<String, Value>,
    hosts: &str,
    can_be_off: bool,
) -> Result<Vec<String>, String> {
    if can_be_off && matches!(ports.get("http").and_then(Value::as_i64), Some(-1 | 0)) {
        ports.remove("http");
        return Ok(vec!["off".to_owned()]);
    }
    let addresses = listed(hosts, port(ports, "http", HTTP_PORT)?);
    match addresses.is_empty() {
        true => Err("client_addr: expected an address, found blanks".to_owned()),
        false => Ok(addresses),
    }
}

/// Hosts with spaces between them, each with a port unless it is a socket of Unix.
fn listed(hosts: &str, port: u64) -> Vec<String> {
    let hosts = hosts.split_whitespace();
    hosts
        .map(|host| match host.starts_with("unix://") {
            true => host.to_owned(),
            false => join(host, port),
        })
        .collect()
}

/// The first address is what others are told; the rest are listened at as well.
fn insert_addresses(
    flags: &mut BTreeMap<&'static str, String>,
    (first, more): (&'static str, &'static str),
    addresses: Vec<String>,
) {
    let mut addresses = addresses.into_iter();
    flags.extend(addresses.next().map(|address| (first, address)));
    let rest: Vec<String> = addresses.collect();
    if !rest.is_empty() {
        flags.insert(more, rest.join(","));
    }
}

/// A port that is not there unless it is named; 0 and -1 are none.
fn optional_port(ports: &mut Map<String, Value>, key: &str) -> Result<Option<u64>, String> {
    match ports.get(key).and_then(Value::as_i64) {
        Some(0 | -1) => {
            ports.remove(key);
            Ok(None)
        }
        Some(_) => port(ports, key, 0).map(Some),
        None if ports.contains_key(key) => port(ports, key, 0).map(Some),
        None => Ok(None),
    }
}

/// Whether an address says a port, too. One of IPv6 does so only behind brackets.
pub(super) fn has_port(address: &str) -> bool {
    let behind = address.rsplit_once(']').map_or(address, |(_, rest)| rest);
    behind.matches(':').count() == 1
}

/// A host with a port.
pub(super) fn join(host: &str, port: u64) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn port(ports: &mut Map<String, Value>, key: &str, default: u64) -> Result<u64, String> {
    match ports.remove(key) {
        None => Ok(default),
        Some(value) => value
            .as_u64()
            .filter(|port| (1..=65535).contains(port))
            .ok_or_else(|| format!("ports.{key}: expected a port, found {value}")),
    }
}
