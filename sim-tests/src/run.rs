//! Runs a schedule and judges what happened.

use std::{sync::Arc, time::Duration};

use sider_core::{
    raft::{RaftConfig, ServerAddress, ServerId},
    registry::Command,
    server::ServerConfig,
};
use sider_runtime_sim::{Message, Options, SimTask, TraceLine, World, run_with};

use crate::{
    agency, audit, authority,
    cluster::{Cluster, ClusterOptions, Formation},
    history::{Bounds, History, ServerNumber},
    invariants::{Violation, judge, servers},
    keys::Notes,
    probes,
    promised::CLOCK_DRIFT_PPM_MAX,
    recorder::{Recorder, now},
    saboteur::Saboteur,
    schedule::{Schedule, Shape, Squeeze},
    time::Time,
    workload::{Files, Player, sleep_until},
};

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// What happened.
    pub history: History,
    /// What should not have.
    pub violations: Vec<Violation>,
    /// Hash of all that happened.
    pub trace_hash: u64,
    /// How many events that were.
    pub events: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// The trace, if it was asked for.
    pub lines: Vec<TraceLine>,
    /// Every message, with the trace.
    pub messages: Vec<Message>,
    /// The names of the machines by number, with the trace.
    pub hosts: Vec<String>,
}

/// Runs a schedule and judges it.
pub fn run(schedule: &Schedule) -> Report {
    run_and_keep(schedule, false)
}

/// As [`run`]; keeps the trace if asked to.
pub fn run_and_keep(schedule: &Schedule, keep_lines: bool) -> Report {
    let recorder = Recorder::new(bounds(schedule));
    let options = Options {
        keep_lines,
        time_limit: Duration::from_millis(schedule.end_ms) * 3 + Duration::from_secs(60),
        ..Options::new(schedule.seed)
    };
    let written = recorder.clone();
    let outcome = run_with(options, move |world| async move {
        play(world, schedule, written).await
    });
    let ended = Time(0) + outcome.sim_elapsed;
    if let Err(message) = &outcome.value {
        recorder.panicked(ended, message.clone());
    }
    let history = recorder.finish(ended);
    Report {
        violations: judge(&history),
        history,
        trace_hash: outcome.trace_hash,
        events: outcome.events,
        elapsed: outcome.sim_elapsed,
        lines: outcome.lines,
        messages: outcome.messages,
        hosts: outcome.hosts,
    }
}

/// How strictly a schedule's run is judged.
fn bounds(schedule: &Schedule) -> Bounds {
    let options = cluster_options(&schedule.cluster);
    Bounds {
        drift_ppm: misjudged_ppm(schedule.drift_ppm_max()).max(CLOCK_DRIFT_PPM_MAX),
        latency: Duration::from_micros(schedule.cluster.latency_us.1)
            + Duration::from_micros(schedule.cluster.sync_us.1),
        first_voters: (0..schedule.cluster.servers).map(ServerNumber).collect(),
        older_programs: schedule.cluster.command_version < Command::NEWEST_VERSION,
        servers_listed: schedule.cluster.servers_listed,
        tombstones: options.raft.retention.tombstones,
        writes_at_once: options.server.writes_at_once,
        ..Bounds::default()
    }
}

/// By how much a clock that runs wrong by so much misjudges a span at most, both in parts per million.
fn misjudged_ppm(drift_ppm: u32) -> u32 {
    let right = 1_000_000_u64.saturating_sub(u64::from(drift_ppm)).max(1);
    u32::try_from(u64::from(drift_ppm) * 1_000_000 / right).unwrap_or(u32::MAX)
}

/// The options of a cluster of this shape.
pub fn cluster_options(shape: &Shape) -> ClusterOptions {
    let mut raft = RaftConfig::new(ServerId::default(), ServerAddress::default());
    raft.heartbeat = Duration::from_millis(shape.heartbeat_ms);
    raft.election_min = Duration::from_millis(shape.election_ms.0);
    raft.election_max = Duration::from_millis(shape.election_ms.1);
    raft.snapshot_threshold = shape.snapshot_threshold;
    raft.snapshot_interval = Duration::from_secs(5);
    raft.log_keep = shape.log_keep;
    raft.command_version = shape.command_version;
    let mut server = ServerConfig {
        servers_service: shape.servers_listed.then(servers::service),
        make_authority: shape.servers_listed.then_some(authority::make),
        autopilot: shape.servers_listed.then(authority::first_settings),
        ..ServerConfig::default()
    };
    if let Some(squeeze) = shape.squeeze {
        squeeze.apply(&mut raft, &mut server);
    }
    ClusterOptions {
        servers: usize::from(shape.servers),
        formation: if shape.join {
            Formation::Join
        } else {
            Formation::Bootstrap
        },
        raft,
        server,
    }
}

impl Squeeze {
    fn apply(self, raft: &mut RaftConfig, server: &mut ServerConfig) {
        fn set<T: PartialEq + Default>(limit: &mut T, value: T) {
            if value != T::default() {
                *limit = value;
            }
        }
        set(&mut raft.portions.append_entries, self.append_entries);
        set(&mut raft.portions.append_bytes, self.append_bytes);
        set(&mut raft.portions.appends_in_flight, self.appends_in_flight);
        set(&mut raft.portions.snapshot_chunk_bytes, self.snapshot_chunk_bytes);
        set(&mut raft.portions.journal_writes, self.journal_writes);
        set(&mut raft.portions.log_cache_entries, self.log_cache_entries);
        set(&mut raft.portions.log_read_entries, self.log_read_entries);
        set(&mut raft.retention.tombstones, self.tombstones);
        set(&mut raft.retention.key_versions, self.key_versions);
        set(&mut server.views, self.views);
        set(&mut server.forwards_in_flight, self.forwards_in_flight);
        set(&mut server.writes_at_once, self.writes_at_once);
        set(&mut server.decisions_in_flight, self.decisions_in_flight);
        set(&mut server.expiries_per_command, self.expiries_per_command);
    }
}

async fn play(world: World, schedule: &Schedule, recorder: Recorder) {
    let witness = Arc::new(recorder.clone());
    let mut options = cluster_options(&schedule.cluster);
    if schedule.cluster.probes {
        options.server.prober = Some(Arc::new(world.prober()));
        // Programs in containers are, too.
        options.server.script_checks = true;
    }
    let cluster = Cluster::start(&world, options, witness);
    let saboteur = Saboteur::new(&world, &cluster, schedule, &recorder);
    let clients = schedule
        .actions
        .iter()
        .map(|action| action.client)
        .max()
        .unwrap_or(0);
    let files = Files::default();
    let notes = Notes::default();
    let player = |number: u8| Player {
        world: world.clone(),
        number,
        client: cluster.client(&format!("c{number}")),
        recorder: recorder.clone(),
        files: files.clone(),
        notes: notes.clone(),
    };
    let players: Vec<Player> = (0..=clients).map(player).collect();
    let mut under_way = Vec::new();
    for action in &schedule.actions {
        let player = players[usize::from(action.client)].clone();
        under_way.push(world.spawn(player.act(action.clone())));
    }
    drop(world.spawn(audit::watch(world.clone(), cluster.clone(), recorder.clone())));
    for (place, fault) in schedule.faults.iter().enumerate() {
        drop(world.spawn(saboteur.clone().cause(place, fault.clone())));
    }
    drop(world.spawn(probes::play(
        world.clone(),
        schedule.turns.clone(),
        recorder.clone(),
    )));
    for (number, plan) in schedule.agents() {
        let agent = agency::run(
            world.clone(),
            cluster.clone(),
            saboteur.clone(),
            (number, plan.clone()),
            recorder.clone(),
        );
        drop(world.spawn(agent));
    }
    sleep_until(&world, Time::ms(schedule.heal_ms)).await;
    saboteur.heal();
    let until = now(&world) + bounds(schedule).recovery;
    let prover = player(clients + 1);
    for server in (0..cluster.len()).filter(|server| !saboteur.is_broken(*server)) {
        let server = u8::try_from(server).expect("there are few servers");
        under_way.push(world.spawn(prover.clone().prove_alive(server, until)));
    }
    sleep_until(&world, Time::ms(schedule.end_ms)).await;
    saboteur.note_configurations().await;
    under_way.iter().for_each(SimTask::abort);
    recorder.clients_gone(now(&world));
    audit::conclude(&world, &cluster, schedule, &recorder).await;
}
