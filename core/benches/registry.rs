//! The state machine: apply, rows and digest, views, the log's encoding of commands.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use serde_json::json;
use sider_core::{
    api::http::{
        encode::Encoder,
        requests::{Place, parse_service},
    },
    registry::{Command, Namespace, Node, NodeName, Query, Registration, Registry, ServiceName},
};

/// Sizes of the state, in instances.
const SIZES: [u64; 2] = [1_000, 100_000];
/// Instances of each service.
const PER_SERVICE: u64 = 100;

pub(crate) fn all(criterion: &mut Criterion) {
    apply(criterion);
    rows(criterion);
    views(criterion);
    commands(criterion);
}

/// An instance of one of many services, with a TTL check.
pub(crate) fn registration(number: u64, port: u64) -> Registration {
    let place = Place {
        node: Node::plain(NodeName::parse("sider").expect("a name"), "127.0.0.1"),
        namespace: None,
        scripts: false,
    };
    let body = json!({
        "Name": format!("service-{}", number / PER_SERVICE), "ID": format!("instance-{number}"),
        "Address": "10.0.0.1", "Port": port, "Tags": ["a"],
        "Checks": [{"type": "ttl", "ttl": "600s", "status": "passing"}],
    });
    parse_service(&body, &place).unwrap_or_else(|error| panic!("{}", error.message))
}

fn register(number: u64, port: u64) -> Command {
    Command::Register(vec![registration(number, port)])
}

fn registry_of(instances: u64) -> Registry {
    let mut registry = Registry::default();
    registry.apply(&Command::RaiseVersion(Command::NEWEST_VERSION));
    for number in 0..instances {
        registry.apply(&register(number, 80));
    }
    registry
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    for size in SIZES {
        let mut registry = registry_of(size);
        // The port differs each time, so that each one changes something and the state stays as large as it is.
        let commands: Vec<Command> = (0..1_000).map(|number| register(number, 80)).collect();
        let others: Vec<Command> = (0..1_000).map(|number| register(number, 81)).collect();
        let mut turns = commands.iter().chain(&others).cycle();
        group.bench_function(BenchmarkId::new("replace", size), |bencher| {
            bencher.iter(|| registry.apply(turns.next().expect("it never ends")));
        });
        let mut number = size;
        group.bench_function(BenchmarkId::new("register", size), |bencher| {
            bencher.iter_batched(
                || {
                    number += 1;
                    register(number, 80)
                },
                |command| registry.apply(&command),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn rows(criterion: &mut Criterion) {
    let registry = registry_of(1_000);
    let rows: Vec<_> = registry.rows().collect();
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(rows.len() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| registry.rows().for_each(|row| drop(black_box(row))));
    });
    group.bench_function("decode and digest", |bencher| {
        bencher.iter(|| Registry::from_rows(rows.iter().cloned()).map(|registry| registry.digest()));
    });
    group.finish();
}

fn views(criterion: &mut Criterion) {
    let registry = registry_of(1_000);
    let node = NodeName::parse("sider").expect("a name");
    let encoder = Encoder {
        datacenter: "dc1",
        agent_node: &node,
    };
    let query = Query::ServiceHealth {
        namespace: Namespace::default(),
        service: ServiceName::parse("service-3").expect("a name"),
        passing: true,
        tags: Vec::new(),
        node_meta: Vec::new(),
    };
    let mut group = criterion.benchmark_group("view of 100");
    group.bench_function("build", |bencher| bencher.iter(|| registry.query(&query)));
    let view = registry.query(&query);
    group.bench_function("encode", |bencher| bencher.iter(|| encoder.service_health(&view)));
    group.finish();
}

fn commands(criterion: &mut Criterion) {
    let command = register(1, 80);
    let bytes = command.encode(Command::NEWEST_VERSION, 0);
    let mut group = criterion.benchmark_group("command");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| command.encode(Command::NEWEST_VERSION, 0))
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| Command::decode(&bytes, Command::NEWEST_VERSION));
    });
    group.finish();
}
