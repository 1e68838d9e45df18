//! What a run is to do, drawn from its seed.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::SERVERS;
use crate::{
    generate::{generate, probes::renews_instead},
    keys::KeyOp,
    operation::{Op, ReportForm},
    schedule::{Action, Doing},
};

/// Clients that wait for longer than any server takes.
const PATIENT_MS: u64 = 8_000;
/// So many schedules are played side by side.
const LANES: u64 = 4;
/// More than a schedule has.
const CLIENTS_OF_A_LANE: u8 = 40;
/// Nobody waits for longer: slow worlds of the simulator last minutes.
const WAIT_MS_MAX: u64 = 5_000;
/// The shortest TTL that a session may have.
const SESSION_TTL_MS: u64 = 10_000;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Plan {
    /// What clients do.
    pub(super) actions: Vec<Action>,
    /// What is done to servers, and when; one after the other.
    pub(super) harms: Vec<(Duration, Harm)>,
}

/// What is done to a server.
#[derive(Clone, Debug)]
pub(super) enum Harm {
    /// It is killed, and started again.
    Kill {
        /// Which one.
        server: usize,
        /// For how long it stays down.
        down: Duration,
    },
    /// All are killed, and started again.
    KillAll {
        /// For how long they stay down.
        down: Duration,
    },
    /// All lose power: what they have not synced is gone.
    CutPower {
        /// For how long they stay down.
        down: Duration,
    },
    /// It stands still, and goes on.
    Stand {
        /// Which one.
        server: usize,
        /// For how long.
        still: Duration,
    },
    /// It is cut off from all other servers.
    Cut {
        /// Which one.
        server: usize,
        /// Whether its connections stay open, and nothing passes.
        silent: bool,
        /// For how long.
        lasts: Duration,
    },
    /// The disk that is small fills up, and is emptied.
    Fill {
        /// For how long it is full.
        lasts: Duration,
    },
}

impl Plan {
    pub(super) fn draw(seed: u64, length: Duration) -> Plan {
        let mut dice = StdRng::seed_from_u64(seed);
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let actions = (0..LANES)
            .flat_map(|lane| lane_of(seed, lane, length_ms))
            .collect();
        let mut harms = Vec::new();
        let mut at = Duration::from_millis(dice.random_range(1_000..2_500));
        while at + Duration::from_secs(4) < length {
            let lasts = Duration::from_millis(dice.random_range(200..2_500));
            let server = dice.random_range(0..SERVERS);
            let harm = match dice.random_range(0..11) {
                0 | 1 => Harm::Kill { server, down: lasts },
                2 => Harm::KillAll { down: lasts },
                3 | 4 => Harm::Stand { server, still: lasts },
                5 | 6 => Harm::Cut {
                    server,
                    silent: dice.random_range(0..2) == 0,
                    lasts,
                },
                7 | 8 => Harm::CutPower { down: lasts },
                _ => Harm::Fill { lasts },
            };
            harms.push((at, harm));
            at += lasts + Duration::from_millis(dice.random_range(300..3_000));
        }
        // Whatever has been acknowledged until now must be on the disks.
        harms.push((at, Harm::CutPower { down: Duration::ZERO }));
        Plan { actions, harms }
    }
}

/// The TTL of what would be probed.
const TTL_INSTEAD_MS: u64 = 1_500;

/// Schedules of the simulator one behind the other; each has versions of its own, and each lane clients of its own.
fn lane_of(seed: u64, lane: u64, length_ms: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut begins = 0;
    let mut round = lane;
    while begins < length_ms {
        let mut schedule = generate(seed.wrapping_add(round * 1_000_003));
        // No agent runs here.
        (schedule.agent, schedule.other_agent) = (None, None);
        schedule.ask_nobody_who_is_missing();
        let starts = schedule.actions.iter().map(|action| action.at_ms);
        let last = starts.max().unwrap_or(0);
        // When a stream's event was sent is not known here, and it is judged from there.
        let streams = |action: &Action| matches!(action.what, Doing::Stream { .. });
        for mut action in schedule.actions.into_iter().filter(|action| !streams(action)) {
            let at_ms = begins + action.at_ms;
            if at_ms < length_ms {
                action.client += u8::try_from(lane).unwrap_or(0) * CLIENTS_OF_A_LANE;
                actions.push(adapted(action, at_ms, begins, round, length_ms));
            }
        }
        begins += last.max(1_000);
        round += LANES;
    }
    actions
}

/// An action as it can be judged here: outputs, which change without an index, do not change at all.
fn adapted(mut action: Action, at_ms: u64, begins: u64, round: u64, length_ms: u64) -> Action {
    action.at_ms = at_ms;
    action.patience_ms = action.patience_ms.min(PATIENT_MS);
    match &mut action.what {
        Doing::Chain(ops) => {
            // Answers about the servers name their addresses, which are others here.
            ops.retain(|(_, op)| !matches!(op, Op::Cluster(_)));
            // Real servers run what can be probed, and nobody is at those addresses.
            for (_, op) in ops.iter_mut() {
                if let Op::RegisterCheck(check) = op
                    && check.probed.take().is_some()
                {
                    check.ttl_ms = TTL_INSTEAD_MS;
                }
                renews_instead(op, TTL_INSTEAD_MS);
            }
            ops.iter_mut().for_each(|(_, op)| adapt(op, round));
        }
        Doing::Follow {
            until_ms, wait_ms, ..
        } => {
            *wait_ms = (*wait_ms).min(WAIT_MS_MAX);
            *until_ms = (*until_ms + begins).min(length_ms);
        }
        Doing::Stream { .. } => unreachable!("a lane has none"),
    }
    action
}

fn adapt(op: &mut Op, round: u64) {
    match op {
        Op::Register { services, .. } => {
            let of_round = u32::try_from(round * 10_000).unwrap_or(0);
            services
                .iter_mut()
                .for_each(|service| service.version += of_round);
        }
        Op::Report { form, reports } => {
            reports.iter_mut().for_each(|report| report.output = None);
            // This form always sends one.
            if *form == ReportForm::Update {
                *form = ReportForm::Path;
            }
        }
        Op::CatalogRegister(entry) => {
            if let Some((_, _, output)) = &mut entry.check {
                output.clear();
            }
        }
        Op::Keys(KeyOp::CreateSession(new)) if new.ttl_ms > 0 => {
            new.ttl_ms = new.ttl_ms.max(SESSION_TTL_MS);
        }
        Op::Wait { wait_ms, .. } => *wait_ms = (*wait_ms).min(WAIT_MS_MAX),
        _ => {}
    }
}
