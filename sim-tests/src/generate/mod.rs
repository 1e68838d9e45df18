//! Draws a schedule from a seed.
//!
//! Each seed first draws which kinds of faults and operations exist in its world at all, and how often ("swarm
//! testing"): a bug that shows only when pauses meet checkpoints is drowned where everything happens at once.

mod agents;
mod asks;
mod autopilot;
mod catalog;
mod checks;
mod cluster;
mod connect;
mod forwarding;
mod hashes;
mod keys;
mod narrowing;
mod prepared;
pub(crate) mod probes;
mod rare;
mod sessions;
mod streams;
mod troubles;
mod varied;
mod work;
mod writes;

use rand::{RngExt as _, SeedableRng, rngs::StdRng};

use sider_core::registry::Command;

use crate::{
    operation::Op,
    schedule::{Action, AgentPlan, Doing, Schedule, Shape, Squeeze},
};

/// When clients begin.
const BEGIN_MS: u64 = 700;
/// No run is shorter.
const END_MS_MIN: u64 = 20_000;
/// From the end of the last fault to the end of the run, at least: enough to recover.
const RECOVERY_MS: u64 = 6_100;

/// A client that waits for longer than any server takes.
const PATIENT_MS: u64 = 7_000;

/// What was drawn beside the rest, so that the rest of a seed's world stayed as it was.
const BESIDE: u64 = 0x5e4_7e45;
/// The same for what was drawn later of agents.
const BESIDE_AGENTS: u64 = 0xa6e_2755;
/// The same for what meets seldom.
const BESIDE_RARE: u64 = 0x4a_4e88;
/// The same for what agents are asked.
const BESIDE_ASKS: u64 = 0xa5_a6e27;
/// The same for what was drawn later of checks that servers run.
const BESIDE_PROBES: u64 = 0x9_20be5;
/// The same for members of a service mesh.
const BESIDE_CONNECT: u64 = 0xc0_22ec7;
/// The same for waits for another hash.
const BESIDE_HASHES: u64 = 0x4a_54e5;
/// The same for what is asked of agents in place of servers.
const BESIDE_FORWARDING: u64 = 0xf0_27a2d;
/// The same for what is rarely asked of agents.
const BESIDE_VARIED_AGENTS: u64 = 0x7a_21ed;
/// In so many of a hundred worlds the servers are in their own catalog.
const SERVERS_LISTED: u64 = 40;

/// How long everything takes in a world.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// When the last fault is over, at the latest.
    heal_ms: u64,
    /// When the run ends: late enough to recover, and then to see what is not renewed expire.
    end_ms: u64,
    /// In slow worlds faults, TTLs and waits are so many times as long, while clients do no more than in others.
    /// Virtual time in which little happens costs little.
    stretch: u64,
}

/// The schedule of a seed.
pub fn generate(seed: u64) -> Schedule {
    let mut dice = Dice::new(seed);
    let pace = pace(&mut dice);
    let mut beside = Dice::new(seed ^ BESIDE);
    let mut cluster = Shape {
        servers_listed: beside.chance(SERVERS_LISTED),
        ..shape(&mut dice)
    };
    let mut faults = troubles::draw(&mut dice, &cluster, pace);
    let mut actions = work::draw(&mut dice, &cluster, pace);
    let restores = actions.iter().any(|action| {
        matches!(&action.what, Doing::Chain(ops) if ops.iter().any(|(_, op)| matches!(op, Op::Restore { .. })))
    });
    // An agent takes up to half a minute to bring back what a restore took away.
    let first_agent = (dice.chance(20) && !restores).then(|| agents::draw(&mut dice, pace));
    if first_agent.is_some() {
        work::rob_the_agent(&mut dice, &cluster, pace, &mut actions);
    }
    autopilot::draw(&mut beside, &cluster, pace, &faults, &mut actions);
    prepared::draw(&mut beside, &cluster, pace, &mut actions);
    sessions::draw(&mut beside, &cluster, pace, &mut actions);
    cluster::draw(&mut beside, &cluster, pace, &mut actions);
    checks::draw(&mut beside, &cluster, pace, &mut actions);
    varied::draw(&mut beside, &cluster, pace, &mut actions);
    let turns = probes::draw(
        &mut Dice::new(seed ^ BESIDE_PROBES),
        &mut cluster,
        pace,
        &mut actions,
    );
    connect::draw(
        &mut Dice::new(seed ^ BESIDE_CONNECT),
        &cluster,
        pace,
        &mut actions,
    );
    hashes::draw(&mut Dice::new(seed ^ BESIDE_HASHES), &cluster, pace, &mut actions);
    rare::draw(
        &mut Dice::new(seed ^ BESIDE_RARE),
        &mut cluster,
        pace,
        &mut faults,
        &mut actions,
    );
    let other_agent = dice.chance(8).then(|| agents::draw(&mut dice, pace));
    let mut of_agents = Dice::new(seed ^ BESIDE_AGENTS);
    let mut burden = |plan| agents::burden(&mut of_agents, &cluster, pace, plan);
    let (first_agent, other_agent) = (first_agent.map(&mut burden), other_agent.map(&mut burden));
    let mut asking = Dice::new(seed ^ BESIDE_ASKS);
    let mut ask = |plan| agents::ask(&mut asking, pace, plan);
    // Nobody takes away what the other one has registered, unless everything is restored.
    let seldom = |plan| AgentPlan {
        seldom: !restores,
        ..plan
    };
    let mut varying = Dice::new(seed ^ BESIDE_VARIED_AGENTS);
    let mut vary = |plan| agents::vary(&mut varying, pace, ask(plan));
    let first_agent = first_agent.map(&mut vary);
    let other_agent = other_agent.map(|plan| seldom(vary(plan)));
    let plans = [first_agent.as_ref(), other_agent.as_ref()];
    forwarding::draw(
        &mut Dice::new(seed ^ BESIDE_FORWARDING),
        &plans,
        pace,
        &mut actions,
    );
    Schedule {
        seed,
        cluster,
        actions,
        faults,
        agent: first_agent,
        other_agent,
        turns,
        heal_ms: pace.heal_ms,
        end_ms: pace.end_ms,
    }
}

fn pace(dice: &mut Dice) -> Pace {
    let stretch = *dice.weighted(&[(88, 1), (8, 4), (4, 15)]);
    let heal_ms = dice.between(9_500, 12_000) * stretch.min(6);
    // The longest TTL, and what a leader elected in between adds to it.
    let expiry_ms = if stretch > 1 { 4_500 * stretch } else { 0 };
    Pace {
        heal_ms,
        end_ms: (heal_ms + RECOVERY_MS + expiry_ms).max(END_MS_MIN + dice.between(0, 1_000)),
        stretch,
    }
}

/// How many clients there are.
fn clients(actions: &[Action]) -> u64 {
    u64::from(actions.iter().map(|action| action.client).max().unwrap_or(0)) + 1
}

fn shape(dice: &mut Dice) -> Shape {
    let servers = if dice.chance(75) { 3 } else { 5 };
    let (heartbeat_ms, election_ms) = *dice.pick(&[(100, (300, 600)), (100, (300, 600)), (50, (150, 300))]);
    let latency_us = *dice.pick(&[(100, 1_000), (100, 1_000), (500, 5_000), (2_000, 15_000)]);
    let sync_us = *dice.pick(&[(100, 2_000), (1_000, 8_000), (1_000, 20_000)]);
    let (snapshot_threshold, log_keep) = *dice.pick(&[(8, 0), (20, 5), (40, 10), (100, 20), (5_000, 1_000)]);
    let drift = |dice: &mut Dice| i32::try_from(dice.between(0, 1_800)).unwrap_or(0) - 900;
    let drifts = dice.chance(40);
    let drift_ppm = (0..servers)
        .map(|_| if drifts { drift(dice) } else { 0 })
        .collect();
    Shape {
        servers,
        join: dice.chance(15),
        heartbeat_ms,
        election_ms,
        snapshot_threshold,
        log_keep,
        latency_us,
        sync_us,
        drift_ppm,
        command_version: if dice.chance(12) {
            u8::try_from(dice.between(1, u64::from(Command::NEWEST_VERSION) - 1)).unwrap_or(1)
        } else {
            Command::NEWEST_VERSION
        },
        squeeze: dice.chance(35).then(|| squeeze(dice, latency_us.1)),
        servers_listed: false,
        probes: false,
    }
}

/// Some of the limits, small.
fn squeeze(dice: &mut Dice, latency_us_max: u64) -> Squeeze {
    let mut small = |from: u64, to: u64| match dice.chance(40) {
        true => dice.between(from, to),
        false => 0,
    };
    let size = |number: u64| usize::try_from(number).unwrap_or(1);
    Squeeze {
        append_entries: small(1, 4),
        append_bytes: size(small(50, 600)),
        appends_in_flight: size(small(1, 3)),
        // Each chunk is a round: over slow links tiny ones would take longer than a disturbance may last.
        snapshot_chunk_bytes: size(small(50 + latency_us_max / 40, 1_000)),
        journal_writes: size(small(1, 4)),
        log_cache_entries: size(small(1, 6)),
        log_read_entries: size(small(1, 4)),
        views: size(small(1, 3)),
        // Fewer would be taken up for seconds by those whose answers a fault has lost.
        forwards_in_flight: size(small(16, 32)),
        decisions_in_flight: size(small(2, 4)),
        expiries_per_command: size(small(2, 4)),
        tombstones: size(small(1, 6)),
        key_versions: size(small(1, 20)),
        writes_at_once: size(small(6, 16)),
    }
}

/// Chance, all of it from the seed.
struct Dice(StdRng);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(StdRng::seed_from_u64(seed))
    }

    /// From `from` to below `to`.
    fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0.random_range(from..to)
    }

    /// True in so many of a hundred cases.
    fn chance(&mut self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }

    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    fn index(&mut self, len: usize) -> usize {
        self.0.random_range(0..len)
    }

    /// One of the choices, by their weights.
    fn weighted<'a, T>(&mut self, choices: &'a [(u64, T)]) -> &'a T {
        let total: u64 = choices.iter().map(|(weight, _)| weight).sum();
        let mut rest = self.between(0, total.max(1));
        for (weight, choice) in choices {
            if rest < *weight {
                return choice;
            }
            rest -= weight;
        }
        &choices[choices.len() - 1].1
    }

    fn server(&mut self, cluster: &Shape) -> u8 {
        u8::try_from(self.between(0, u64::from(cluster.servers))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Trouble;

    #[test]
    fn a_seed_always_gives_the_same_schedule_and_survives_being_saved() {
        for seed in 0..50 {
            let schedule = generate(seed);
            assert_eq!(schedule, generate(seed));
            let saved = serde_json::to_string(&schedule).expect("a schedule can be saved");
            assert_eq!(
                serde_json::from_str::<Schedule>(&saved).expect("and read"),
                schedule
            );
        }
    }

    #[test]
    fn schedules_are_long_and_busy_enough() {
        for seed in 0..300 {
            let schedule = generate(seed);
            assert!(schedule.end_ms >= 20_000, "seed {seed}");
            assert!(
                schedule.operations() >= 100,
                "seed {seed}: {}",
                schedule.operations()
            );
            assert!([3, 5].contains(&schedule.cluster.servers));
            assert!(schedule.faults.iter().all(|fault| fault.at_ms < schedule.heal_ms));
        }
    }

    #[test]
    fn every_kind_of_trouble_and_work_is_drawn() {
        let schedules: Vec<Schedule> = (0..4_000).map(generate).collect();
        let name = |text: String| text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
        let mut troubles: Vec<String> = schedules
            .iter()
            .flat_map(|it| &it.faults)
            .map(|fault| name(format!("{:?}", fault.what)))
            .collect();
        troubles.sort();
        troubles.dedup();
        // All but the one that is never drawn: a disk whose syncs lie.
        assert_eq!(troubles.len(), 34, "{troubles:?}");
        let mut operations: Vec<String> = Vec::new();
        for action in schedules.iter().flat_map(|it| &it.actions) {
            match &action.what {
                Doing::Chain(ops) => operations.extend(ops.iter().map(|(_, op)| name(format!("{op:?}")))),
                Doing::Follow { .. } => operations.push("Follow".into()),
                Doing::Stream { .. } => operations.push("Stream".into()),
            }
        }
        operations.sort();
        operations.dedup();
        assert_eq!(operations.len(), 18, "{operations:?}");
        assert!(
            schedules.iter().any(|it| it.faults.is_empty()),
            "some must be calm"
        );
        let harmless = |it: &&Schedule| it.faults.iter().all(|fault| !fault.what.disturbs());
        assert!(schedules.iter().filter(harmless).count() > 20);
        assert!(
            schedules
                .iter()
                .flat_map(|it| &it.faults)
                .any(|it| matches!(it.what, Trouble::Join))
        );
    }
}
