//! `sds bench`: drives any server with load over HTTP and prints rate, percentiles and errors.
//!
//! One keep-alive connection for each of the `-c` workers, one request at a time on each, a new run `-r` times. Only
//! addresses on this machine are accepted: this is a gauge, not a weapon.

mod connection;
mod driver;
mod watch;

use std::{net::IpAddr, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::{CliError, Common};
use connection::Connection;
use driver::{Load, Summary};

/// Most connections of one bench; the shell's `ulimit -n` must allow them.
const CONNECTIONS_MAX: usize = 50_000;

/// Flags of `sds bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Clone, Debug, Subcommand)]
enum Kind {
    /// Register new instances, each with a TTL check.
    Register(Options),
    /// Query the healthy instances of one service.
    Query(Options),
    /// Renew TTL checks.
    Renew(Options),
    /// Park blocking queries on one service, write once, and time the wakes.
    Watch(Options),
}

/// Flags of every bench.
#[derive(Clone, Debug, Args)]
struct Options {
    /// Connections (watch: one for each parked query, see -n).
    #[arg(short = 'c', long, default_value_t = 16)]
    connections: usize,
    /// Length of one run.
    #[arg(short = 'd', long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Runs.
    #[arg(short = 'r', long, default_value_t = 3)]
    runs: usize,
    /// Instances (query), checks (renew) or parked queries (watch).
    #[arg(short = 'n', long, default_value_t = 10)]
    number: usize,
    /// The service's name; `bench-` and the kind of the bench if not given, so that none meets another's instances.
    #[arg(long, default_value_t)]
    service: String,
    /// Query: answer from the server's local state.
    #[arg(long)]
    stale: bool,
    /// Register: register this many different instances at most, again and again; 0 is no bound.
    #[arg(long, default_value_t = 0)]
    distinct: u64,
    /// Process whose memory is read (watch).
    #[arg(long)]
    pid: Option<u32>,
}

/// Runs a bench and prints what it measured.
///
/// # Errors
/// The address is not on this machine, no server answers, or the preparation fails.
pub async fn run(args: &BenchArgs, common: &Common) -> Result<(), CliError> {
    let address = crate::cli::Client::first_address(&common.server);
    only_loopback(&address)?;
    let (name, options) = match &args.kind {
        Kind::Register(options) => ("register", options),
        Kind::Query(options) => ("query", options),
        Kind::Renew(options) => ("renew", options),
        Kind::Watch(options) => ("watch", options),
    };
    let mut options = options.clone();
    if options.service.is_empty() {
        options.service = format!("bench-{name}");
    }
    let options = &options;
    if options.connections == 0 || options.connections > CONNECTIONS_MAX || options.number > CONNECTIONS_MAX {
        return Err(CliError::Other(format!(
            "connections must be 1 to {CONNECTIONS_MAX}"
        )));
    }
    if options.runs == 0 || options.duration.is_zero() {
        return Err(CliError::Other("runs and duration must be above 0".into()));
    }
    if name == "watch" {
        return watch::run(&address, options, common.json).await;
    }
    let mut summaries = Vec::new();
    for run in 0..options.runs {
        let load = match name {
            "register" => register(options, run),
            "query" => query(&address, options, run).await?,
            _ => renew(&address, options, run).await?,
        };
        summaries.push(driver::drive(&address, load, options.connections, options.duration).await?);
    }
    report(name, options, &summaries, common.json);
    Ok(())
}

/// Load goes to this machine only.
fn only_loopback(address: &str) -> Result<(), CliError> {
    let host = address
        .rsplit_once(':')
        .map_or(address, |(host, _)| host)
        .trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if loopback {
        Ok(())
    } else {
        Err(CliError::Other(format!(
            "bench drives loopback addresses only, not {host}"
        )))
    }
}

fn registration(service: &str, id: &str, port: u64) -> String {
    json!({
        "Name": service, "ID": id, "Address": "127.0.0.1", "Port": port, "Tags": ["bench"],
        "Checks": [{"type": "ttl", "ttl": "600s", "status": "passing"}],
    })
    .to_string()
}

fn register(options: &Options, run: usize) -> Load {
    let (service, distinct) = (options.service.clone(), options.distinct);
    Load::new("PUT", move |sequence| {
        let n = if distinct == 0 {
            sequence
        } else {
            sequence % distinct
        };
        let id = format!("{service}-{run}-{n}");
        (
            "/v1/agent/service/register".into(),
            registration(&service, &id, 1 + sequence % 60_000),
        )
    })
}

/// Registers the instances that the bench needs, in the first run only.
async fn prepare(address: &str, options: &Options, run: usize) -> Result<(), CliError> {
    if run > 0 {
        return Ok(());
    }
    let mut connection = Connection::open(address).await?;
    for n in 0..options.number {
        let id = format!("{}-{n}", options.service);
        let body = registration(&options.service, &id, 1 + n as u64 % 60_000);
        connection
            .expect("PUT", "/v1/agent/service/register", body)
            .await?;
        connection
            .expect("PUT", &format!("/v1/agent/check/pass/chk:{id}:0"), String::new())
            .await?;
    }
    Ok(())
}

async fn query(address: &str, options: &Options, run: usize) -> Result<Load, CliError> {
    prepare(address, options, run).await?;
    let stale = if options.stale { "&stale" } else { "" };
    let path = format!("/v1/health/service/{}?passing=1{stale}", options.service);
    let body = Connection::open(address)
        .await?
        .expect("GET", &path, String::new())
        .await?;
    let found = serde_json::from_slice::<Vec<Value>>(&body).map_or(0, |instances| instances.len());
    if found != options.number {
        return Err(CliError::Other(format!(
            "{found} instances are healthy, not {}",
            options.number
        )));
    }
    Ok(Load::new("GET", move |_| (path.clone(), String::new())))
}

async fn renew(address: &str, options: &Options, run: usize) -> Result<Load, CliError> {
    prepare(address, options, run).await?;
    let (service, number) = (options.service.clone(), options.number as u64);
    Ok(Load::new("PUT", move |sequence| {
        (
            format!("/v1/agent/check/pass/chk:{service}-{}:0", sequence % number),
            String::new(),
        )
    }))
}

/// Minimum, median and maximum of a figure over the runs.
fn spread(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let round = |value: f64| (value * 100.0).round() / 100.0;
    json!({"min": round(values[0]), "median": round(values[values.len() / 2]), "max": round(values[values.len() - 1])})
}

fn report(name: &str, options: &Options, summaries: &[Summary], as_json: bool) {
    let of = |figure: fn(&Summary) -> f64| spread(summaries.iter().map(figure).collect());
    let errors: u64 = summaries.iter().map(|summary| summary.errors).sum();
    let first_error = summaries
        .iter()
        .find_map(|summary| summary.first_error.clone())
        .unwrap_or_default();
    let figures = [
        ("rate_per_s", of(|s| s.rate)),
        ("p50_ms", of(|s| s.p50_ms)),
        ("p90_ms", of(|s| s.p90_ms)),
        ("p99_ms", of(|s| s.p99_ms)),
        ("max_ms", of(|s| s.max_ms)),
    ];
    if as_json {
        let mut out = json!({
            "bench": name, "connections": options.connections, "number": options.number, "runs": summaries.len(),
            "duration_s": options.duration.as_secs_f64(), "errors": errors, "first_error": first_error,
        });
        for (figure, value) in figures {
            out[figure] = value;
        }
        println!("{out}");
        return;
    }
    println!(
        "{name}: {} connections, {} runs of {:?}",
        options.connections,
        summaries.len(),
        options.duration
    );
    for (figure, value) in figures {
        println!(
            "{figure:>12}  min {:>10}  median {:>10}  max {:>10}",
            value["min"], value["median"], value["max"]
        );
    }
    println!("{:>12}  {errors} {first_error}", "errors");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_goes_to_this_machine_only() {
        for good in ["127.0.0.1:8500", "localhost:1", "[::1]:8500"] {
            assert!(only_loopback(good).is_ok(), "{good}");
        }
        for bad in ["10.0.0.1:8500", "example.com:80", "0.0.0.0:8500"] {
            assert!(only_loopback(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(
            spread(vec![3.0, 1.0, 2.0]),
            json!({"min": 1.0, "median": 2.0, "max": 3.0})
        );
    }
}
