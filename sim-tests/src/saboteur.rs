//! Carries out a schedule's faults, takes them back, and heals everything in the end.

mod links;
mod members;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};
use sider_core::registry::Command;
use sider_runtime_sim::{Link, Survival, SyncFault, World};

use self::links::{Lasting, Outsider};
pub use self::members::note_configurations;
use crate::{
    cluster::{Client, Cluster},
    history::{Fact, FaultKind, FaultSpan, Transferred},
    recorder::{Recorder, now, number},
    schedule::{Fault, Kept, Schedule, Shape, Trouble, Who},
    time::Time,
    trap::Space,
    workload::sleep_until,
};

/// Where a trouble of slow reads strikes: one in ten.
const SLOW_READS_PPM: u32 = 100_000;

/// See the module's page. Clones are the same saboteur.
#[derive(Clone)]
pub struct Saboteur(Arc<Parts>);

struct Parts {
    world: World,
    cluster: Cluster,
    shape: Shape,
    recorder: Recorder,
    client: Client,
    /// When everything is healed.
    heals: Time,
    /// Whether servers are upgraded in this run.
    upgrades: bool,
    /// Chooses what bit flips.
    dice: Mutex<StdRng>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    healed: bool,
    /// Troubles of the network that last, by fault.
    network: BTreeMap<usize, Lasting>,
    /// Agents that are cut off from servers, by agent and trouble.
    outsiders: BTreeMap<(usize, usize), Outsider>,
    /// Servers with a trap that is set again when it was sprung, by fault.
    traps: BTreeSet<(usize, usize)>,
    /// Servers that are broken for good.
    broken: BTreeSet<usize>,
    /// Faults that are never healed.
    lasting: BTreeSet<usize>,
    /// How many pauses of each server last.
    pauses: BTreeMap<usize, usize>,
}

impl Saboteur {
    /// One for a run of `schedule`; sets how the machines are while nothing is wrong.
    pub fn new(world: &World, cluster: &Cluster, schedule: &Schedule, recorder: &Recorder) -> Saboteur {
        let saboteur = Saboteur(Arc::new(Parts {
            world: world.clone(),
            cluster: cluster.clone(),
            shape: schedule.cluster.clone(),
            recorder: recorder.clone(),
            client: cluster.client("operator"),
            heals: Time::ms(schedule.heal_ms),
            upgrades: schedule
                .faults
                .iter()
                .any(|fault| matches!(fault.what, Trouble::Upgrade(_) | Trouble::Downgrade(_))),
            dice: Mutex::new(world.rng("saboteur")),
            state: Mutex::default(),
        }));
        saboteur.set_normal();
        for (server, ppm) in schedule.cluster.drift_ppm.iter().enumerate() {
            cluster.host(server).set_drift_ppm(i64::from(*ppm));
        }
        saboteur
    }

    /// The machines as the schedule says they are.
    fn set_normal(&self) {
        let Parts {
            world,
            cluster,
            shape,
            ..
        } = &*self.0;
        let (from, to) = shape.latency_us;
        world.network().set_default_link(Link {
            latency_us: from..to,
            ..Link::default()
        });
        let broken = self.lock().broken.clone();
        for server in (0..cluster.len()).filter(|server| !broken.contains(server)) {
            cluster.host(server).disk().set_sync_time(sync_time(shape));
        }
    }

    /// Waits for the time of a fault, causes it, waits until it is over, and ends it.
    pub async fn cause(self, place: usize, fault: Fault) {
        let Parts { world, recorder, .. } = &*self.0;
        sleep_until(world, Time::ms(fault.at_ms)).await;
        if self.lock().healed {
            return;
        }
        let servers = self.resolve(fault.what.who());
        let from = now(world);
        let mut span = FaultSpan {
            from,
            until: from + Duration::from_millis(fault.for_ms),
            servers: servers.iter().copied().map(number).collect(),
            what: described(&fault.what, &servers),
            kind: kind(&fault.what),
        };
        let noted = recorder.fault(span.clone());
        if fault.lasts {
            span.kind = FaultKind::Lasting;
            span.what.push_str(", for good");
            recorder.fault(span);
            let mut state = self.lock();
            state.broken.extend(servers.iter().copied());
            state.lasting.insert(place);
        }
        world.trace("fault", &described(&fault.what, &servers));
        self.begin(place, &fault, &servers).await;
        if let Trouble::Flap { every_ms, .. } = fault.what {
            self.flap(place, &fault, every_ms).await;
        } else {
            world.sleep(Duration::from_millis(fault.for_ms)).await;
        }
        if let Trouble::Wipe { out_ms, .. } = fault.what {
            servers.iter().for_each(|server| self.start(*server));
            world.sleep(Duration::from_millis(out_ms)).await;
            self.add_again(&servers).await;
        }
        if !self.lock().healed {
            self.end(place, &fault, &servers).await;
            recorder.fault_ended(noted, now(world));
            world.trace("fault is over", &described(&fault.what, &servers));
        }
    }

    /// When everything is healed.
    pub fn heals(&self) -> Time {
        self.0.heals
    }

    /// Whether a server is broken for good.
    pub fn is_broken(&self, server: usize) -> bool {
        self.lock().broken.contains(&server)
    }

    async fn begin(&self, place: usize, fault: &Fault, servers: &[usize]) {
        let cluster = &self.0.cluster;
        match &fault.what {
            Trouble::Crash(_) => servers.iter().for_each(|server| cluster.crash(*server)),
            Trouble::Upgrade(_) | Trouble::Downgrade(_) => {
                let version = match fault.what {
                    Trouble::Downgrade(_) => cluster.first_command_version(),
                    _ => Command::NEWEST_VERSION,
                };
                for server in servers {
                    cluster.crash(*server);
                    cluster.set_command_version(*server, version);
                }
            }
            Trouble::PowerCut(_, kept) => {
                servers
                    .iter()
                    .for_each(|server| cluster.power_cut(*server, survival(*kept)));
            }
            Trouble::Trap { .. } => {
                for server in servers {
                    self.lock().traps.insert((place, *server));
                    drop(
                        self.0
                            .world
                            .spawn(self.clone().trap(place, *server, fault.clone())),
                    );
                }
            }
            Trouble::Wipe { .. } => servers.iter().for_each(|server| cluster.lose_disk(*server)),
            Trouble::Rot { space, restart, .. } => {
                for server in servers {
                    if *restart {
                        cluster.crash(*server);
                    }
                    self.flip_a_bit(*server, *space);
                }
            }
            Trouble::Pause(_) => servers.iter().for_each(|server| self.pause(*server)),
            Trouble::SlowSync(..)
            | Trouble::SlowReads(..)
            | Trouble::HungSync(_)
            | Trouble::LyingSync(_)
            | Trouble::FailedSync(_)
            | Trouble::DeadSync(_)
            | Trouble::FailedWrite(_)
            | Trouble::FullDisk(_) => servers
                .iter()
                .for_each(|server| self.spoil_disk(&fault.what, *server)),
            Trouble::Drift(_, ppm) => {
                servers
                    .iter()
                    .for_each(|server| cluster.host(*server).set_drift_ppm(i64::from(*ppm)));
            }
            Trouble::WallJump(_, ms) => {
                servers
                    .iter()
                    .for_each(|server| cluster.host(*server).jump_wall_ms(*ms));
            }
            Trouble::Transfer { to } => {
                let body = to.map_or(
                    Value::Null,
                    |to| json!({ "ID": cluster.identity(usize::from(to)).0.0.as_str() }),
                );
                let invoked = now(&self.0.world);
                if let (Some(true), _) = self.ask("/v1/raft/transfer", body).await {
                    let returned = now(&self.0.world);
                    let to = to.map(|to| number(usize::from(to)));
                    self.0.recorder.transferred(Transferred {
                        invoked,
                        returned,
                        to,
                    });
                }
            }
            Trouble::Join => self.join(true).await,
            Trouble::JoinDown => self.join(false).await,
            Trouble::Remove(_) => self.remove(servers).await,
            Trouble::Replace(_) => {
                self.remove(servers).await;
                if !self.lock().healed {
                    self.join(true).await;
                }
            }
            _ => {
                let lasting = self.lasting(&fault.what, servers);
                self.lock().network.insert(place, lasting);
                self.set_network();
            }
        }
    }

    fn lasting(&self, what: &Trouble, servers: &[usize]) -> Lasting {
        let towards = match what {
            Trouble::BadLink { to, .. } => self.resolve(Some(*to)),
            _ => vec![],
        };
        Lasting {
            what: what.clone(),
            who: servers.to_vec(),
            towards,
        }
    }

    fn spoil_disk(&self, what: &Trouble, server: usize) {
        let disk = self.0.cluster.host(server).disk();
        let about = |ms: u64| Duration::from_millis(ms)..Duration::from_millis(ms + 1);
        match what {
            Trouble::SlowSync(_, ms) => disk.set_sync_time(about(*ms)),
            Trouble::SlowReads(_, ms) => disk.set_access_time(SLOW_READS_PPM, about(*ms)),
            Trouble::HungSync(_) => disk.set_sync_fault(SyncFault::Hangs),
            Trouble::LyingSync(_) => disk.set_sync_fault(SyncFault::Lies),
            Trouble::FailedSync(_) => disk.set_sync_fault(SyncFault::FailsOnce),
            Trouble::DeadSync(_) => disk.set_sync_fault(SyncFault::Fails),
            Trouble::FailedWrite(_) => disk.fail_next_write(),
            Trouble::FullDisk(_) => disk.set_full(true),
            _ => {}
        }
    }

    /// Ends a server's process at a step of its work, starts it again, and so on.
    async fn trap(self, place: usize, server: usize, fault: Fault) {
        let Parts { world, cluster, .. } = &*self.0;
        let Trouble::Trap {
            step,
            nth,
            kept,
            down_ms,
            times,
            ..
        } = fault.what
        else {
            return;
        };
        for _ in 0..times {
            if !self.lock().traps.contains(&(place, server)) {
                return;
            }
            let sprung = cluster.set_trap(server, step, nth, kept.map(survival));
            if sprung.await.is_err() {
                return;
            }
            world.sleep(Duration::from_millis(down_ms)).await;
            if self.lock().traps.contains(&(place, server)) {
                self.start(server);
            }
        }
    }

    /// Cuts servers off, and not, and so on.
    async fn flap(&self, place: usize, fault: &Fault, every_ms: u64) {
        let until = Time::ms(fault.at_ms + fault.for_ms);
        let cut = self.lock().network.get(&place).cloned();
        let mut is_cut = true;
        while now(&self.0.world) < until && !self.lock().healed {
            self.0.world.sleep(Duration::from_millis(every_ms)).await;
            is_cut = !is_cut;
            if self.lock().healed {
                return;
            }
            match cut.clone().filter(|_| is_cut) {
                Some(cut) => self.lock().network.insert(place, cut),
                None => self.lock().network.remove(&place),
            };
            self.set_network();
        }
    }

    /// Flips one bit of one value of a server's disk, if there is any: of what rests there, and not of what is still on its
    /// way, which its server would then rightly tell to be safe.
    fn flip_a_bit(&self, server: usize, space: Space) {
        let cluster = &self.0.cluster;
        let disk = cluster.host(server).disk();
        let mut keys = disk.keys(space.keyspace());
        keys.retain(|key| disk.durable(space.keyspace(), key).is_some());
        let mut dice = self.lock_dice();
        if keys.is_empty() {
            return;
        }
        let key = &keys[dice.random_range(0..keys.len())];
        cluster.corrupt(server, space.keyspace(), key, |value| {
            let at = dice.random_range(0..value.len());
            value[at] ^= 1 << dice.random_range(0..8);
        });
    }

    fn lock_dice(&self) -> MutexGuard<'_, StdRng> {
        self.0.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn end(&self, place: usize, fault: &Fault, servers: &[usize]) {
        let cluster = &self.0.cluster;
        match &fault.what {
            // A disk that is wiped or rotten stays so; its server is started on it.
            Trouble::Wipe { .. } | Trouble::Rot { .. } => {
                servers.iter().for_each(|server| self.start(*server))
            }
            _ if fault.lasts => {}
            Trouble::Crash(_) | Trouble::PowerCut(..) | Trouble::Upgrade(_) | Trouble::Downgrade(_) => {
                servers.iter().for_each(|server| self.start(*server))
            }
            Trouble::Trap { .. } => {
                for server in servers {
                    self.lock().traps.remove(&(place, *server));
                    cluster.clear_trap(*server);
                    self.start(*server);
                }
            }
            Trouble::Pause(_) => servers.iter().for_each(|server| self.resume(*server)),
            Trouble::SlowSync(..)
            | Trouble::SlowReads(..)
            | Trouble::HungSync(_)
            | Trouble::LyingSync(_)
            | Trouble::FailedSync(_)
            | Trouble::DeadSync(_)
            | Trouble::FailedWrite(_)
            | Trouble::FullDisk(_) => {
                for server in servers {
                    let disk = cluster.host(*server).disk();
                    disk.restore();
                    disk.set_sync_time(sync_time(&self.0.shape));
                    self.start(*server);
                }
            }
            _ => {
                self.lock().network.remove(&place);
                self.set_network();
            }
        }
    }

    fn pause(&self, server: usize) {
        let host = self.0.cluster.host(server);
        *self.lock().pauses.entry(server).or_default() += 1;
        let ran = host.is_up() && !host.is_paused();
        host.pause();
        if ran {
            self.0.recorder.note(&self.0.world, server, Fact::Paused);
        }
    }

    /// Lets a server go on when its last pause ends.
    fn resume(&self, server: usize) {
        let last = {
            let mut state = self.lock();
            let pauses = state.pauses.entry(server).or_default();
            *pauses = pauses.saturating_sub(1);
            *pauses == 0
        };
        let host = self.0.cluster.host(server);
        if last && host.is_paused() {
            host.resume();
            self.0.recorder.note(&self.0.world, server, Fact::Resumed);
        }
    }

    /// Starts a server that is down, or serves no more.
    fn start(&self, server: usize) {
        let cluster = &self.0.cluster;
        let broken = cluster
            .server(server)
            .is_some_and(|server| server.status().fatal.is_some());
        if !cluster.host(server).is_up() || broken {
            cluster.restart(server);
        }
    }

    /// Ends everything that is to end.
    pub fn heal(&self) {
        let Parts {
            world,
            cluster,
            recorder,
            ..
        } = &*self.0;
        let broken = {
            let mut state = self.lock();
            state.healed = true;
            let lasting = state.lasting.clone();
            state.network.retain(|place, _| lasting.contains(place));
            state.outsiders.clear();
            state.traps.clear();
            let broken = state.broken.clone();
            state.pauses.retain(|server, _| broken.contains(server));
            broken
        };
        let sound: Vec<usize> = (0..cluster.len())
            .filter(|server| !broken.contains(server))
            .collect();
        sound.iter().for_each(|server| self.resume(*server));
        self.finish_upgrade();
        cluster.heal_except(&broken);
        self.set_normal();
        self.set_network();
        sound.iter().for_each(|server| self.start(*server));
        recorder.healed(now(world));
        world.trace("healed", "");
    }

    /// A rolling upgrade that has begun is completed: a cluster whose servers know different versions is no whole one.
    fn finish_upgrade(&self) {
        let cluster = &self.0.cluster;
        if !self.0.upgrades {
            return;
        }
        for server in 0..cluster.len() {
            if cluster.command_version(server) < Command::NEWEST_VERSION {
                cluster.set_command_version(server, Command::NEWEST_VERSION);
                cluster.restart(server);
            }
        }
    }

    /// Asks every server who the members are.
    pub async fn note_configurations(&self) {
        let Parts {
            cluster,
            recorder,
            client,
            ..
        } = &*self.0;
        let broken = self.lock().broken.clone();
        let sound = (0..cluster.len()).filter(|server| !broken.contains(server));
        note_configurations(cluster, sound, client, recorder).await;
    }

    fn resolve(&self, who: Option<Who>) -> Vec<usize> {
        let cluster = &self.0.cluster;
        let all = cluster.len();
        let leader = cluster.leads().unwrap_or(0);
        let after = |nth: usize| (leader + nth) % all;
        match who {
            None => vec![],
            Some(Who::Server(server)) => vec![usize::from(server) % all],
            Some(Who::Leader) => vec![leader],
            // A server that is alone has nobody behind it.
            Some(Who::Follower(_)) if all == 1 => vec![],
            Some(Who::Follower(nth)) => vec![after(1 + usize::from(nth) % (all - 1))],
            Some(Who::Majority) => (0..=all / 2).map(after).collect(),
            Some(Who::All) => (0..all).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a power cut leaves.
pub fn survival(kept: Kept) -> Survival {
    match kept {
        Kept::Nothing => Survival::Nothing,
        Kept::Some => Survival::Some,
        Kept::Everything => Survival::Everything,
    }
}

fn sync_time(shape: &Shape) -> std::ops::Range<Duration> {
    Duration::from_micros(shape.sync_us.0)..Duration::from_micros(shape.sync_us.1)
}

fn kind(what: &Trouble) -> FaultKind {
    match what {
        what if what.may_stop_servers() => FaultKind::BrokenDisk,
        what if what.disturbs() => FaultKind::Disturbing,
        _ => FaultKind::Harmless,
    }
}

fn described(what: &Trouble, servers: &[usize]) -> String {
    let names: Vec<String> = servers.iter().map(|server| format!("s{server}")).collect();
    if names.is_empty() {
        what.to_string()
    } else {
        format!("{what} ({})", names.join(", "))
    }
}
