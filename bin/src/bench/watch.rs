//! `sds bench watch`: many parked blocking queries, one write, and how long the wakes take.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Connection, Options, registration, spread};
use crate::cli::CliError;

/// Time given to the queries to park before the write.
const PARK: Duration = Duration::from_secs(3);

pub(super) async fn run(address: &str, options: &Options, as_json: bool) -> Result<(), CliError> {
    let mut writer = Connection::open(address).await?;
    let register = |n: usize| {
        registration(
            &options.service,
            &format!("{}-watch-{n}", options.service),
            1 + n as u64,
        )
    };
    writer
        .expect("PUT", "/v1/agent/service/register", register(0))
        .await?;
    let before = options.pid.map(resident_bytes).transpose()?;
    let path = format!("/v1/health/service/{}", options.service);
    let (mut first, mut last, mut errors, mut parked_bytes) = (Vec::new(), Vec::new(), 0_u64, None);
    let mut first_error = None;
    for run in 0..options.runs {
        let seen = writer
            .send("GET", &path, String::new())
            .await
            .map_err(CliError::Other)?;
        let query = format!("{path}?index={}&wait=120s", seen.index);
        let mut parked = Vec::with_capacity(options.number);
        for _ in 0..options.number {
            let mut connection = Connection::open(address).await?;
            let query = query.clone();
            parked.push(tokio::spawn(async move {
                let answer = connection.send("GET", &query, String::new()).await;
                (Instant::now(), answer)
            }));
        }
        tokio::time::sleep(PARK).await;
        if let (Some(pid), None) = (options.pid, parked_bytes) {
            parked_bytes = Some(resident_bytes(pid)?);
        }
        let written = Instant::now();
        writer
            .expect("PUT", "/v1/agent/service/register", register(run + 1))
            .await?;
        let mut wakes = Vec::with_capacity(options.number);
        for query in parked {
            let (at, answer) = query
                .await
                .map_err(|error| CliError::Other(format!("a query failed: {error}")))?;
            let error = match answer {
                Ok(answer) if answer.status == 200 && at >= written => {
                    wakes.push((at - written).as_secs_f64() * 1000.0);
                    continue;
                }
                Ok(answer) if answer.status == 200 => "woke before the write".to_owned(),
                Ok(answer) => format!("status {}", answer.status),
                Err(error) => error,
            };
            errors += 1;
            first_error.get_or_insert(error);
        }
        first.extend(wakes.iter().copied().reduce(f64::min));
        last.extend(wakes.iter().copied().reduce(f64::max));
    }
    if first.is_empty() {
        return Err(CliError::Other(format!(
            "no query was woken: {}",
            first_error.unwrap_or_default()
        )));
    }
    let per_watch = before
        .zip(parked_bytes)
        .map(|(before, parked)| (parked as f64 - before as f64) / options.number as f64);
    let out = json!({
        "bench": "watch", "number": options.number, "runs": options.runs, "first_wake_ms": spread(first),
        "last_wake_ms": spread(last), "errors": errors, "first_error": first_error.unwrap_or_default(),
        "bytes_per_watch": per_watch, "resident_bytes_parked": parked_bytes,
    });
    if as_json {
        println!("{out}");
        return Ok(());
    }
    println!("watch: {} parked queries, {} runs", options.number, options.runs);
    for figure in ["first_wake_ms", "last_wake_ms"] {
        let value = &out[figure];
        println!(
            "{figure:>16}  min {:>10}  median {:>10}  max {:>10}",
            value["min"], value["median"], value["max"]
        );
    }
    if let Some(bytes) = per_watch {
        println!("{:>16}  {bytes:.0}", "bytes per watch");
    }
    println!(
        "{:>16}  {errors} {}",
        "errors",
        out["first_error"].as_str().unwrap_or_default()
    );
    Ok(())
}

/// Memory of a process that is in RAM, in bytes.
fn resident_bytes(pid: u32) -> Result<u64, CliError> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path)
        .map_err(|error| CliError::Other(format!("cannot read the memory of process {pid}: {error}")))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| CliError::Other(format!("{path} tells no VmRSS")))
}
