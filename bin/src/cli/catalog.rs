//! `sds services`, `health`, `register`, `deregister`.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use serde_json::{Value, json};

use super::{
    CliError, Client,
    client::encode,
    output::{self, list, text},
};

/// How long one round of `--watch` waits at the server.
const WATCH_WAIT: Duration = Duration::from_secs(60);
/// Pause before `--watch` asks again after an error.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// Flags of `sds services`.
#[derive(Debug, Args)]
pub(super) struct ServicesArgs {
    /// Namespace.
    #[arg(long, default_value = "default")]
    ns: String,
}

/// Flags of `sds health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The service's name.
    name: String,
    /// Namespace.
    #[arg(long, default_value = "default")]
    ns: String,
    /// Only instances whose checks all pass.
    #[arg(long)]
    passing: bool,
    /// Go on, and print again at each change.
    #[arg(long)]
    watch: bool,
}

/// Flags of `sds register`.
#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    /// The service's name.
    name: String,
    /// The instance's id; the service's name if not given.
    #[arg(long)]
    id: Option<String>,
    /// Namespace.
    #[arg(long, default_value = "default")]
    ns: String,
    /// Address.
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// Port.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A tag; may be given several times.
    #[arg(long = "tag")]
    tags: Vec<String>,
    /// `KEY=VALUE` of meta; may be given several times.
    #[arg(long = "meta", value_parser = pair)]
    meta: Vec<(String, String)>,
    /// A TTL check that must be renewed this often, such as `15s`.
    #[arg(long)]
    ttl: Option<String>,
}

/// Flags of `sds deregister`.
#[derive(Debug, Args)]
pub(super) struct DeregisterArgs {
    /// The instance's id.
    id: String,
    /// Namespace.
    #[arg(long, default_value = "default")]
    ns: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("expected KEY=VALUE, got {text:?}"))?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) async fn services(client: &Client, args: &ServicesArgs, as_json: bool) -> Result<(), CliError> {
    let namespace = encode(&args.ns);
    let services = client
        .get(&format!("/v1/catalog/services?ns={namespace}"))
        .await?
        .json()?;
    let checks = client
        .get(&format!("/v1/health/state/any?ns={namespace}"))
        .await?
        .json()?;
    if as_json {
        output::json(&services);
        return Ok(());
    }
    let mut unhealthy: BTreeMap<String, usize> = BTreeMap::new();
    for check in checks.as_array().into_iter().flatten() {
        if text(check, "Status") != "passing" {
            *unhealthy.entry(text(check, "ServiceName")).or_default() += 1;
        }
    }
    let rows = services.as_object().into_iter().flatten().map(|(name, tags)| {
        let failing = unhealthy.get(name).copied().unwrap_or(0);
        vec![
            name.clone(),
            list(tags),
            if failing == 0 {
                "-".into()
            } else {
                failing.to_string()
            },
        ]
    });
    output::table(&["SERVICE", "TAGS", "CHECKS NOT PASSING"], rows.collect());
    Ok(())
}

pub(super) async fn health(client: &Client, args: &HealthArgs, as_json: bool) -> Result<(), CliError> {
    let passing = if args.passing { "&passing=1" } else { "" };
    let path = format!(
        "/v1/health/service/{}?ns={}{passing}",
        encode(&args.name),
        encode(&args.ns)
    );
    let mut answer = client.get(&path).await?;
    loop {
        print_health(&answer.json()?, as_json);
        if !args.watch {
            return Ok(());
        }
        let index = answer.index;
        answer = loop {
            let next = format!("{path}&index={index}&wait={}s", WATCH_WAIT.as_secs());
            match client.get_blocking(&next, WATCH_WAIT).await {
                Ok(next) if next.index != index => break next,
                Ok(_) => {}
                Err(error) => {
                    eprintln!("sds: {error}; trying again");
                    tokio::time::sleep(WATCH_RETRY).await;
                }
            }
        };
        if !as_json {
            println!("\nindex {}", answer.index);
        }
    }
}

pub(super) fn print_health(instances: &Value, as_json: bool) {
    if as_json {
        output::json(instances);
        return;
    }
    let mut rows = Vec::new();
    for entry in instances.as_array().into_iter().flatten() {
        let (service, node) = (&entry["Service"], &entry["Node"]);
        let address = match text(service, "Address") {
            empty if empty.is_empty() => text(node, "Address"),
            address => address,
        };
        let checks = entry["Checks"].as_array().into_iter().flatten();
        let checks: Vec<String> = checks
            .map(|check| format!("{}={}", text(check, "CheckID"), text(check, "Status")))
            .collect();
        rows.push(vec![
            text(service, "ID"),
            text(node, "Node"),
            format!("{address}:{}", text(service, "Port")),
            list(&service["Tags"]),
            checks.join(" "),
        ]);
    }
    output::table(&["ID", "NODE", "ADDRESS", "TAGS", "CHECKS"], rows);
}

pub(super) async fn register(client: &Client, args: &RegisterArgs, as_json: bool) -> Result<(), CliError> {
    let checks: Vec<Value> = args
        .ttl
        .iter()
        .map(|ttl| json!({"type": "ttl", "ttl": ttl}))
        .collect();
    let body = json!({
        "Name": args.name,
        "ID": args.id.as_ref().unwrap_or(&args.name),
        "Address": args.address,
        "Port": args.port,
        "Tags": args.tags,
        "Meta": args.meta.iter().cloned().collect::<BTreeMap<_, _>>(),
        "Checks": checks,
    });
    let path = format!("/v1/agent/service/register?ns={}", encode(&args.ns));
    let answer = client.put(&path, &body).await?.json()?;
    if as_json {
        output::json(&answer);
    } else {
        println!("registered at index {}", answer["Index"]);
        for check in answer["CheckIDs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            println!("renew with: PUT /v1/agent/check/pass/{}", encode(check));
        }
    }
    Ok(())
}

pub(super) async fn deregister(
    client: &Client,
    args: &DeregisterArgs,
    as_json: bool,
) -> Result<(), CliError> {
    let path = format!(
        "/v1/agent/service/deregister/{}?ns={}",
        encode(&args.id),
        encode(&args.ns)
    );
    let answer = client.put(&path, &Value::Null).await?;
    if as_json {
        output::json(&json!({"Index": answer.index}));
    } else {
        println!("deregistered {}", args.id);
    }
    Ok(())
}
