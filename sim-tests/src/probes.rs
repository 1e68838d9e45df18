//! Machines that servers probe for checks of their shared node.

use std::time::Duration;

use serde_json::{Value, json};
use sider_core::{
    registry::{CheckDefinition, CheckKey, CheckTarget, Probe},
    runtime::ProbeOutcome,
};
use sider_runtime_sim::World;

use crate::{
    matching::SHARED_NODE,
    own_checks::{By, Probed},
    recorder::{Recorder, now},
    schedule::Turn,
    time::Time,
    workload::sleep_until,
};

/// How ids of checks begin that servers run.
pub const PREFIX: &str = "probed-";
/// How long a machine takes to answer.
pub const TAKES: Duration = Duration::from_millis(5);

/// Where a machine is asked.
pub fn url(machine: u8) -> String {
    format!("http://10.9.8.6/machine-{machine}")
}

/// Whether servers run a check.
pub fn is_probed(key: &CheckKey) -> bool {
    key.node.as_str() == SHARED_NODE && key.id.as_str().starts_with(PREFIX)
}

/// Whether a status is one that a server found.
pub fn is_of_servers(target: &CheckTarget) -> bool {
    matches!(target, CheckTarget::Check(key) if is_probed(key))
}

/// How a machine is called by the systems that run it.
fn name(machine: u8) -> String {
    format!("machine-{machine}")
}

/// Where a machine is asked in one way that has ports.
fn address(by: By, machine: u8) -> String {
    let ports = match by {
        By::Udp => 2_000,
        By::Grpc => 3_000,
        By::H2ping => 4_000,
        _ => 1_000,
    };
    format!("10.9.8.6:{}", ports + u16::from(machine))
}

/// What a request says of how to ask a machine.
pub fn asked(by: By, machine: u8) -> Vec<(&'static str, Value)> {
    match by {
        By::Http => vec![("HTTP", json!(url(machine)))],
        By::Tcp => vec![("TCP", json!(address(by, machine)))],
        By::Udp => vec![("UDP", json!(address(by, machine)))],
        By::Grpc => vec![("GRPC", json!(address(by, machine)))],
        By::H2ping => vec![("H2PING", json!(address(by, machine)))],
        By::Docker => vec![
            ("DockerContainerID", json!(name(machine))),
            ("Args", json!([PROGRAM])),
        ],
        By::OsService => vec![("OSService", json!(name(machine)))],
    }
}

/// What is run in a container.
const PROGRAM: &str = "/bin/is-well";

/// How a machine is asked, and what it answers so when it is well, or not.
fn scenes(machine: u8, well: bool) -> [(String, ProbeOutcome); 7] {
    let output = if well { "well" } else { "not well" }.to_owned();
    let connects = |by: By| {
        let outcome = match well {
            true => ProbeOutcome::Connected,
            false => ProbeOutcome::Failed {
                output: output.clone(),
            },
        };
        (address(by, machine), outcome)
    };
    let exits = |line: String| {
        let code = if well { 0 } else { 3 };
        let output = output.clone();
        (line, ProbeOutcome::Exited { code, output })
    };
    let answers = ProbeOutcome::HttpStatus {
        status: if well { 200 } else { 500 },
        output: output.clone(),
    };
    [
        (url(machine), answers),
        connects(By::Tcp),
        connects(By::Udp),
        connects(By::Grpc),
        connects(By::H2ping),
        exits(format!("docker exec {} {PROGRAM}", name(machine))),
        exits(format!("systemctl is-active -- {}", name(machine))),
    ]
}

/// How the machine is asked for a check, and which one that is.
fn way_of(definition: &CheckDefinition) -> Option<(By, u8)> {
    let at = |address: &str, by: By| {
        let machine = (0..=u8::MAX).find(|machine| self::address(by, *machine) == address)?;
        Some((by, machine))
    };
    let named = |text: &str, by: By| Some((by, text.strip_prefix("machine-")?.parse().ok()?));
    match &definition.probe {
        Probe::Http { url, .. } => named(url.strip_prefix("http://10.9.8.6/")?, By::Http),
        Probe::Tcp(address) => at(address, By::Tcp),
        Probe::Udp(address) => at(address, By::Udp),
        Probe::Grpc { target, .. } => at(target, By::Grpc),
        Probe::H2ping { address, .. } => at(address, By::H2ping),
        Probe::Docker { container, .. } => named(container, By::Docker),
        Probe::OsService(service) => named(service, By::OsService),
        _ => None,
    }
}

/// The machine that is asked for a check.
pub fn machine_of(definition: &CheckDefinition) -> Option<u8> {
    way_of(definition).map(|(_, machine)| machine)
}

/// Whether a definition asks for this.
pub fn is_probed_so(definition: &CheckDefinition, probed: Probed) -> bool {
    way_of(definition) == Some((probed.by, probed.machine))
        && definition.interval == Duration::from_millis(probed.interval_ms)
}

/// Turns the machines when it is time.
pub(crate) async fn play(world: World, turns: Vec<Turn>, recorder: Recorder) {
    for turn in turns {
        sleep_until(&world, Time::ms(turn.at_ms)).await;
        for (target, outcome) in scenes(turn.machine, turn.well) {
            world.prober().set(&target, outcome, TAKES);
        }
        recorder.turned(now(&world), turn.machine, turn.well);
    }
}
