//! Drives one kind of request from many connections for a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::Connection;
use crate::cli::CliError;

/// Longest latency that is told apart from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Pause of a worker after an error, so that a broken server is not spun on.
const ERROR_PAUSE: Duration = Duration::from_millis(1);

/// Path and body of the request with a number.
type Make = dyn Fn(u64) -> (String, String) + Send + Sync;

/// What to send.
#[derive(Clone)]
pub(super) struct Load {
    method: &'static str,
    make: Arc<Make>,
}

impl Load {
    pub(super) fn new(
        method: &'static str,
        make: impl Fn(u64) -> (String, String) + Send + Sync + 'static,
    ) -> Self {
        Load {
            method,
            make: Arc::new(make),
        }
    }
}

/// What one run measured.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) rate: f64,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

struct Worker {
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

/// Sends `load` from `connections` connections for `duration`.
pub(super) async fn drive(
    address: &str,
    load: Load,
    connections: usize,
    duration: Duration,
) -> Result<Summary, CliError> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let sequence = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let workers: Vec<_> = open
        .into_iter()
        .map(|connection| tokio::spawn(work(connection, load.clone(), sequence.clone(), begun + duration)))
        .collect();
    let mut all = new_worker();
    for worker in workers {
        let worker = worker
            .await
            .map_err(|error| CliError::Other(format!("a worker failed: {error}")))?;
        all.latencies
            .add(&worker.latencies)
            .expect("histograms of equal bounds add up");
        all.errors += worker.errors;
        all.first_error = all.first_error.or(worker.first_error);
    }
    let took = begun.elapsed().as_secs_f64();
    let quantile = |q: f64| all.latencies.value_at_quantile(q) as f64 / 1000.0;
    Ok(Summary {
        rate: all.latencies.len() as f64 / took,
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
        max_ms: all.latencies.max() as f64 / 1000.0,
        errors: all.errors,
        first_error: all.first_error,
    })
}

fn new_worker() -> Worker {
    let latencies = Histogram::new_with_max(LATENCY_US_MAX, 3).expect("bounds are in range");
    Worker {
        latencies,
        errors: 0,
        first_error: None,
    }
}

async fn work(mut connection: Connection, load: Load, sequence: Arc<AtomicU64>, until: Instant) -> Worker {
    let mut worker = new_worker();
    while Instant::now() < until {
        let (path, body) = (load.make)(sequence.fetch_add(1, Ordering::Relaxed));
        let begun = Instant::now();
        let error = match connection.send(load.method, &path, body).await {
            Ok(response) if response.status == 200 => {
                worker
                    .latencies
                    .saturating_record(begun.elapsed().as_micros() as u64);
                continue;
            }
            Ok(response) => format!(
                "status {}: {}",
                response.status,
                String::from_utf8_lossy(&response.body).trim()
            ),
            Err(error) => error,
        };
        worker.errors += 1;
        worker.first_error.get_or_insert(error);
        tokio::time::sleep(ERROR_PAUSE).await;
    }
    worker
}
