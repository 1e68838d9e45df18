//! Health probes that meet what the script says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sider_core::runtime::{Probe, ProbeOutcome, Prober, Runtime};

use crate::{runtime::SimRuntime, trace};

/// A prober whose outcomes are set by target: the URL, the address, or the program's arguments joined by blanks.
///
/// Clones share their script. A target that was never set refuses connections.
#[derive(Clone, Debug, Default)]
pub struct SimProber {
    script: Arc<Mutex<BTreeMap<String, Scene>>>,
}

#[derive(Clone, Debug)]
struct Scene {
    outcome: ProbeOutcome,
    takes: Duration,
}

impl SimProber {
    /// From now on, probes of `target` meet `outcome` after `takes`.
    pub fn set(&self, target: &str, outcome: ProbeOutcome, takes: Duration) {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.insert(target.to_owned(), Scene { outcome, takes });
    }

    /// From now on, probes of `target` are refused.
    pub fn clear(&self, target: &str) {
        self.script
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(target);
    }

    fn scene(&self, target: &str) -> Scene {
        let script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.get(target).cloned().unwrap_or_else(|| Scene {
            outcome: ProbeOutcome::Failed {
                output: format!("{target}: connection refused"),
            },
            takes: Duration::from_millis(1),
        })
    }
}

impl Prober for SimProber {
    async fn probe(&self, probe: &Probe, timeout: Duration) -> ProbeOutcome {
        let target = match probe {
            Probe::Http { url, .. } => url.clone(),
            Probe::Tcp { address, .. }
            | Probe::Udp { address }
            | Probe::Grpc { address, .. }
            | Probe::H2ping { address, .. } => address.clone(),
            Probe::Command { args } => args.join(" "),
        };
        let scene = self.scene(&target);
        let outcome = if scene.takes > timeout {
            SimRuntime::sleep(timeout).await;
            ProbeOutcome::Failed {
                output: format!("timed out after {timeout:?}"),
            }
        } else {
            SimRuntime::sleep(scene.takes).await;
            scene.outcome
        };
        trace::record("probe", &format!("{target}: {}", in_words(&outcome)));
        outcome
    }
}

fn in_words(outcome: &ProbeOutcome) -> String {
    match outcome {
        ProbeOutcome::HttpStatus { status, output } => format!("status {status}, “{output}”"),
        ProbeOutcome::Connected => "connected".into(),
        ProbeOutcome::Exited { code, output } => format!("exit code {code}, “{output}”"),
        ProbeOutcome::Failed { output } => format!("failed, “{output}”"),
    }
}
