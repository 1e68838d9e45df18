//! Machines that servers probe for checks of their shared node.

use std::time::Duration;

use sider_core::{
    registry::{CheckDefinition, CheckKey, CheckTarget, Probe},
    runtime::ProbeOutcome,
};
use sider_runtime_sim::World;

use crate::{
    matching::SHARED_NODE,
    own_checks::Probed,
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

/// The machine that is asked for a check.
pub fn machine_of(definition: &CheckDefinition) -> Option<u8> {
    match &definition.probe {
        Probe::Http { url, .. } => url.strip_prefix("http://10.9.8.6/machine-")?.parse().ok(),
        _ => None,
    }
}

/// Whether a definition asks for this.
pub fn is_probed_so(definition: &CheckDefinition, probed: Probed) -> bool {
    machine_of(definition) == Some(probed.machine)
        && definition.interval == Duration::from_millis(probed.interval_ms)
}

/// Turns the machines when it is time.
pub(crate) async fn play(world: World, turns: Vec<Turn>, recorder: Recorder) {
    for turn in turns {
        sleep_until(&world, Time::ms(turn.at_ms)).await;
        let outcome = ProbeOutcome::HttpStatus {
            status: if turn.well { 200 } else { 500 },
            output: if turn.well { "well" } else { "not well" }.to_owned(),
        };
        world.prober().set(&url(turn.machine), outcome, TAKES);
        recorder.turned(now(&world), turn.machine, turn.well);
    }
}
