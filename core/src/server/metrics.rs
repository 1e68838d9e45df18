//! What a server counts, and its text for Prometheus.
//!
//! Values live in ordered maps and are encoded through a collector made for each scrape: the library's own families
//! keep theirs in hash maps with a random state, whose order no seed decides.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry as PrometheusRegistry,
};

use super::wiring::Inner;
use crate::{
    limits,
    raft::{RaftStatus, Role},
    registry::{CheckStatus, Event},
};

/// Upper bounds of buckets, in seconds.
const SECONDS: [f64; 16] = [
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
    f64::INFINITY,
];

/// What is counted as it happens; the rest is read at each scrape.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    expired: AtomicU64,
    fsync: Mutex<Histogram>,
    http: Mutex<Http>,
}

#[derive(Clone, Debug, Default)]
struct Http {
    routes: BTreeMap<String, Route>,
}

#[derive(Clone, Debug, Default)]
struct Route {
    /// How many there were of each method and status.
    requests: BTreeMap<(&'static str, u16), u64>,
    durations: Histogram,
}

#[derive(Clone, Debug, Default)]
struct Histogram {
    sum: f64,
    count: u64,
    buckets: [u64; SECONDS.len()],
}

impl Histogram {
    fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.sum += seconds;
        self.count += 1;
        let bucket = SECONDS.iter().position(|bound| seconds <= *bound);
        self.buckets[bucket.expect("the last bound is infinite")] += 1;
    }

    fn buckets(&self) -> Vec<(f64, u64)> {
        SECONDS.into_iter().zip(self.buckets).collect()
    }
}

impl Metrics {
    /// A sync of the log took this long.
    pub(super) fn synced(&self, took: Duration) {
        self.fsync().observe(took);
    }

    /// Takes note of what was applied.
    pub(super) fn count_events(&self, events: &[Event]) {
        let expired = events
            .iter()
            .filter(|event| matches!(event, Event::CheckExpired(_)));
        self.expired.fetch_add(expired.count() as u64, Ordering::Relaxed);
    }

    /// Takes note of a request that was answered. Routes beyond [`limits::METRIC_ROUTES_MAX`] count as `other`.
    pub(super) fn count_request(&self, route: &str, method: &'static str, status: u16, took: Duration) {
        let mut http = self.http();
        // Most are known: their names are not copied.
        let route = match http.routes.contains_key(route) {
            true => http.routes.get_mut(route).expect("it was there just now"),
            false if http.routes.len() < limits::METRIC_ROUTES_MAX => {
                http.routes.entry(route.to_owned()).or_default()
            }
            false => http.routes.entry("other".to_owned()).or_default(),
        };
        *route.requests.entry((method, status)).or_default() += 1;
        route.durations.observe(took);
    }

    fn fsync(&self) -> MutexGuard<'_, Histogram> {
        self.fsync.lock().expect("no holder of this lock panics")
    }

    fn http(&self) -> MutexGuard<'_, Http> {
        self.http.lock().expect("no holder of this lock panics")
    }
}

impl Inner {
    /// Text of `/metrics`.
    pub(super) fn metrics_text(&self) -> String {
        let mut registry = PrometheusRegistry::default();
        registry.register_collector(Box::new(self.scrape()));
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }

    fn scrape(&self) -> Scrape {
        let metrics = &self.shared.metrics;
        let status = self.consensus.status();
        let watchers = self.shared.hub.len();
        let mut scrape = Scrape {
            status,
            registry_index: 0,
            instances: BTreeMap::new(),
            checks: [
                CheckStatus::Passing,
                CheckStatus::Warning,
                CheckStatus::Unknown,
                CheckStatus::Critical,
            ]
            .into_iter()
            .map(|status| (status.as_str(), 0))
            .collect(),
            expired: metrics.expired.load(Ordering::Relaxed),
            watchers,
            fsync: metrics.fsync().clone(),
            http: metrics.http().clone(),
        };
        let registry = self.registry();
        scrape.registry_index = registry.index();
        for instance in registry.instances() {
            let service = (instance.namespace.to_string(), instance.service.to_string());
            *scrape.instances.entry(service).or_default() += 1;
        }
        for check in registry.checks() {
            *scrape.checks.entry(check.status.as_str()).or_default() += 1;
        }
        scrape
    }
}

/// Everything that is told at one scrape.
#[derive(Debug)]
struct Scrape {
    status: RaftStatus,
    registry_index: u64,
    instances: BTreeMap<(String, String), u64>,
    checks: BTreeMap<&'static str, u64>,
    expired: u64,
    watchers: usize,
    fsync: Histogram,
    http: Http,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        self.encode_raft(encoder)?;
        self.encode_registry(encoder)?;
        self.encode_http(encoder)
    }
}

impl Scrape {
    fn encode_raft(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = &self.status;
        let leads = u64::from(status.role == Role::Leader);
        gauge(encoder, "sider_raft_leader", "Whether this server leads", &leads)?;
        gauge(encoder, "sider_raft_term", "Current term", &status.term)?;
        gauge(
            encoder,
            "sider_raft_commit_index",
            "Last log index known to be committed",
            &status.commit_index,
        )?;
        gauge(
            encoder,
            "sider_raft_last_log_index",
            "Last index of the log",
            &status.last_log_index,
        )?;
        counter(
            encoder,
            "sider_raft_elections",
            "Elections that this server started",
            status.elections,
        )?;
        let help = "Duration of syncs of the log to disk, in seconds";
        encoder
            .encode_descriptor("sider_raft_fsync_seconds", help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(self.fsync.sum, self.fsync.count, &self.fsync.buckets(), None)?;
        let help = "Entries of the leader's log that are not on a member's disk yet; told by the leader";
        let mut lag =
            encoder.encode_descriptor("sider_raft_replication_lag", help, None, MetricType::Gauge)?;
        for (server, matched) in &status.matched {
            let behind = status.last_log_index.saturating_sub(*matched);
            let labels = [("server", server.0.as_str())];
            lag.encode_family(&labels)?.encode_gauge(&behind)?;
        }
        Ok(())
    }

    fn encode_registry(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        gauge(
            encoder,
            "sider_registry_index",
            "Index of the registry's last change",
            &self.registry_index,
        )?;
        let name = "sider_registry_instances_total";
        let mut instances =
            encoder.encode_descriptor(name, "Registered instances", None, MetricType::Gauge)?;
        for ((namespace, service), count) in &self.instances {
            let labels = [("namespace", namespace.as_str()), ("service", service.as_str())];
            instances.encode_family(&labels)?.encode_gauge(count)?;
        }
        let name = "sider_registry_checks_total";
        let mut checks = encoder.encode_descriptor(name, "Registered checks", None, MetricType::Gauge)?;
        for (status, count) in &self.checks {
            checks
                .encode_family(&[("status", *status)])?
                .encode_gauge(count)?;
        }
        counter(
            encoder,
            "sider_check_expired",
            "TTL checks that turned critical for want of a renewal",
            self.expired,
        )?;
        gauge(
            encoder,
            "sider_watchers_active",
            "Blocking queries parked",
            &(self.watchers as u64),
        )
    }

    fn encode_http(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let name = "sider_http_requests";
        let mut requests =
            encoder.encode_descriptor(name, "HTTP requests answered", None, MetricType::Counter)?;
        for (path, route) in &self.http.routes {
            for ((method, status), count) in &route.requests {
                let status = status.to_string();
                let labels = [("path", path.as_str()), ("method", method), ("status", &status)];
                requests
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, u64, f64>(count, None)?;
            }
        }
        let name = "sider_http_request_duration_seconds";
        let help = "Duration of HTTP requests, waits of blocking queries included, in seconds";
        let mut durations = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (path, Route { durations: took, .. }) in &self.http.routes {
            durations
                .encode_family(&[("path", path.as_str())])?
                .encode_histogram::<NoLabelSet>(took.sum, took.count, &took.buckets(), None)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &impl EncodeGaugeValue,
) -> Result<(), fmt::Error> {
    encoder
        .encode_descriptor(name, help, None, MetricType::Gauge)?
        .encode_gauge(value)
}

/// The library adds `_total` to the name.
fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    encoder
        .encode_descriptor(name, help, None, MetricType::Counter)?
        .encode_counter::<NoLabelSet, u64, f64>(&value, None)
}
