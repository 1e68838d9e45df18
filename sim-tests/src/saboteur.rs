//! Carries out a schedule's faults, takes them back, and heals everything in the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use sider_core::{registry::Command, runtime::NetworkError};
use sider_runtime_sim::{Link, LinkState, Survival, SyncFault, World};

use crate::{
    cluster::{Client, Cluster},
    history::{Configuration, Fact, FaultKind, FaultSpan, MembershipChange, ServerNumber},
    recorder::{Recorder, now, number},
    schedule::{Fault, Kept, Schedule, Shape, Trouble, Who},
    time::Time,
    workload::sleep_until,
};

/// A membership change or a transfer is waited for this long.
const MEMBERSHIP_PATIENCE: Duration = Duration::from_secs(12);

/// See the module's page. Clones are the same saboteur.
#[derive(Clone)]
pub struct Saboteur(Arc<Parts>);

struct Parts {
    world: World,
    cluster: Cluster,
    shape: Shape,
    recorder: Recorder,
    client: Client,
    /// Whether servers are upgraded in this run.
    upgrades: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    healed: bool,
    /// Troubles of the network that last, by fault.
    network: BTreeMap<usize, (Trouble, Vec<usize>)>,
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
            upgrades: schedule
                .faults
                .iter()
                .any(|fault| matches!(fault.what, Trouble::Upgrade(_) | Trouble::Downgrade(_))),
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
        for server in 0..cluster.len() {
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
        let servers = self.resolve(who(&fault.what));
        let from = now(world);
        let span = recorder.fault(FaultSpan {
            from,
            until: from + Duration::from_millis(fault.for_ms),
            servers: servers.iter().copied().map(number).collect(),
            what: described(&fault.what, &servers),
            kind: kind(&fault.what),
        });
        world.trace("fault", &described(&fault.what, &servers));
        self.begin(place, &fault.what, &servers).await;
        world.sleep(Duration::from_millis(fault.for_ms)).await;
        if !self.lock().healed {
            self.end(place, &fault.what, &servers);
            recorder.fault_ended(span, now(world));
            world.trace("fault is over", &described(&fault.what, &servers));
        }
    }

    async fn begin(&self, place: usize, what: &Trouble, servers: &[usize]) {
        let cluster = &self.0.cluster;
        let disks = || servers.iter().map(|server| cluster.host(*server).disk());
        match what {
            Trouble::Crash(_) => servers.iter().for_each(|server| cluster.crash(*server)),
            Trouble::Upgrade(_) | Trouble::Downgrade(_) => {
                let version = match what {
                    Trouble::Downgrade(_) => 1,
                    _ => Command::NEWEST_VERSION,
                };
                for server in servers {
                    cluster.crash(*server);
                    cluster.set_command_version(*server, version);
                }
            }
            Trouble::PowerCut(_, kept) => {
                let survival = match kept {
                    Kept::Nothing => Survival::Nothing,
                    Kept::Some => Survival::Some,
                    Kept::Everything => Survival::Everything,
                };
                servers
                    .iter()
                    .for_each(|server| cluster.power_cut(*server, survival));
            }
            Trouble::Pause(_) => servers.iter().for_each(|server| self.pause(*server)),
            Trouble::SlowSync(_, ms) => {
                let time = Duration::from_millis(*ms)..Duration::from_millis(*ms + 1);
                disks().for_each(|disk| disk.set_sync_time(time.clone()));
            }
            Trouble::HungSync(_) => disks().for_each(|disk| disk.set_sync_fault(SyncFault::Hangs)),
            Trouble::FailedSync(_) => disks().for_each(|disk| disk.set_sync_fault(SyncFault::FailsOnce)),
            Trouble::FailedWrite(_) => disks().for_each(|disk| disk.fail_next_write()),
            Trouble::FullDisk(_) => disks().for_each(|disk| disk.set_full(true)),
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
                self.ask("/v1/raft/transfer", body).await;
            }
            Trouble::Join => self.join().await,
            Trouble::Remove(_) => self.remove(servers).await,
            _ => {
                self.lock()
                    .network
                    .insert(place, (what.clone(), servers.to_vec()));
                self.set_network();
            }
        }
    }

    fn end(&self, place: usize, what: &Trouble, servers: &[usize]) {
        let cluster = &self.0.cluster;
        match what {
            Trouble::Crash(_) | Trouble::PowerCut(..) | Trouble::Upgrade(_) | Trouble::Downgrade(_) => {
                servers.iter().for_each(|server| self.start(*server))
            }
            Trouble::Pause(_) => servers.iter().for_each(|server| self.resume(*server)),
            Trouble::SlowSync(..)
            | Trouble::HungSync(_)
            | Trouble::FailedSync(_)
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

    /// Ends everything.
    pub fn heal(&self) {
        let Parts {
            world,
            cluster,
            recorder,
            ..
        } = &*self.0;
        {
            let mut state = self.lock();
            state.healed = true;
            state.network.clear();
            state.pauses.clear();
        }
        (0..cluster.len()).for_each(|server| self.resume(server));
        self.finish_upgrade();
        cluster.heal();
        self.set_normal();
        (0..cluster.len()).for_each(|server| self.start(server));
        recorder.healed(now(world));
        world.trace("healed", "");
    }

    /// A rolling upgrade that has begun is completed: a cluster whose servers know different versions is no whole one.
    fn finish_upgrade(&self) {
        let cluster = &self.0.cluster;
        if self.0.shape.command_version == Command::NEWEST_VERSION || !self.0.upgrades {
            return;
        }
        for server in 0..cluster.len() {
            if cluster.command_version(server) < Command::NEWEST_VERSION {
                cluster.set_command_version(server, Command::NEWEST_VERSION);
                cluster.restart(server);
            }
        }
    }

    /// Sets every link from all troubles that last.
    fn set_network(&self) {
        let Parts {
            world,
            cluster,
            shape,
            ..
        } = &*self.0;
        let network = world.network();
        let state = self.lock();
        let hosts: Vec<_> = world.hosts().iter().map(|host| host.id()).collect();
        let servers: Vec<_> = (0..cluster.len())
            .map(|server| cluster.host(server).id())
            .collect();
        let server_of = |host| servers.iter().position(|server| *server == host);
        network.reset_links();
        for from in &hosts {
            for to in hosts.iter().filter(|to| *to != from) {
                let (a, b) = (server_of(*from), server_of(*to));
                let states = state
                    .network
                    .values()
                    .map(|(what, who)| link_state(what, who, a, b, servers.len()));
                let worst = states.max_by_key(|state| *state as u8).unwrap_or_default();
                if network.state(*from, *to) != worst {
                    network.set_state(*from, *to, worst);
                }
                if a.is_some() && b.is_some() {
                    let normal = Link {
                        latency_us: shape.latency_us.0..shape.latency_us.1,
                        ..Link::default()
                    };
                    let link = state
                        .network
                        .values()
                        .fold(normal.clone(), |link, (what, _)| worsened(link, what));
                    if link != normal {
                        network.set_link(*from, *to, link);
                    }
                }
            }
        }
    }

    async fn join(&self) {
        let cluster = &self.0.cluster;
        let server = cluster.add_server();
        cluster
            .host(server)
            .disk()
            .set_sync_time(sync_time(&self.0.shape));
        self.set_network();
        let (id, address) = cluster.identity(server);
        let body = json!({ "ID": id.0.as_str(), "Addr": address.raft });
        self.change(server, true, "/v1/raft/join", body).await;
    }

    async fn remove(&self, servers: &[usize]) {
        for server in servers {
            let body = json!({ "ID": self.0.cluster.identity(*server).0.0.as_str() });
            self.change(*server, false, "/v1/raft/remove", body).await;
        }
    }

    async fn change(&self, server: usize, joins: bool, path: &str, body: Value) {
        let Parts { world, recorder, .. } = &*self.0;
        let place = recorder.membership_asked(MembershipChange {
            invoked: now(world),
            returned: Time::MAX,
            server: number(server),
            joins,
            done: None,
            answer: "no answer".into(),
        });
        let (done, answer) = self.ask(path, body).await;
        recorder.membership_answered(place, now(world), done, answer);
    }

    /// Asks the leader, or any server that is up: done, certainly not done, or unknown; with the answer in words.
    async fn ask(&self, path: &str, body: Value) -> (Option<bool>, String) {
        let cluster = &self.0.cluster;
        let any = (0..cluster.len()).find(|server| cluster.server(*server).is_some());
        let Some(through) = cluster.leads().or(any) else {
            return (Some(false), "no server is up".into());
        };
        let body = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let request = Request::post(path).body(body).expect("a valid path");
        match self.0.client.send(through, request, MEMBERSHIP_PATIENCE).await {
            Ok(answer) => {
                let text = String::from_utf8_lossy(answer.body()).into_owned();
                let refused = answer.status().is_client_error() || text.starts_with("No cluster leader");
                let done = match answer.status().is_success() {
                    true => Some(true),
                    false => refused.then_some(false),
                };
                (done, format!("{} {text}", answer.status().as_u16()))
            }
            Err(error @ NetworkError::Unreachable { .. }) => (Some(false), error.to_string()),
            Err(error) => (None, error.to_string()),
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
        note_configurations(cluster, client, recorder).await;
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
            Some(Who::Follower(nth)) => vec![after(1 + usize::from(nth) % (all - 1))],
            Some(Who::Majority) => (0..=all / 2).map(after).collect(),
            Some(Who::All) => (0..all).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks every server who the members are, and writes down what it says.
pub async fn note_configurations(cluster: &Cluster, client: &Client, recorder: &Recorder) {
    for server in 0..cluster.len() {
        let mut tries = 0;
        // The first use of an old connection may only show that its other end is gone.
        let answer = loop {
            let request = Request::get("/v1/raft/stats")
                .body(Bytes::new())
                .expect("a valid path");
            tries += 1;
            match client.send(server, request, Duration::from_secs(1)).await {
                Err(_) if tries < 3 => {}
                answer => break answer,
            }
        };
        let Ok(answer) = answer else { continue };
        let Ok(stats) = serde_json::from_slice::<Value>(answer.body()) else {
            continue;
        };
        recorder.configuration(Configuration {
            at: now(cluster.world()),
            server: number(server),
            applied: stats["applied_index"].as_u64().unwrap_or_default(),
            voters: members(&stats["voters"]),
            learners: members(&stats["learners"]),
        });
    }
}

fn sync_time(shape: &Shape) -> std::ops::Range<Duration> {
    Duration::from_micros(shape.sync_us.0)..Duration::from_micros(shape.sync_us.1)
}

fn members(ids: &Value) -> Vec<ServerNumber> {
    let ids = ids.as_array().map_or(&[][..], Vec::as_slice);
    ids.iter()
        .filter_map(|id| id.as_str()?.strip_prefix('s')?.parse().ok().map(ServerNumber))
        .collect()
}

/// Whom a trouble is about.
fn who(what: &Trouble) -> Option<Who> {
    match what {
        Trouble::Crash(who)
        | Trouble::PowerCut(who, _)
        | Trouble::Pause(who)
        | Trouble::CutOff(who)
        | Trouble::CutOffFromAll(who)
        | Trouble::Mute(who)
        | Trouble::Deaf(who)
        | Trouble::BlackHole(who)
        | Trouble::Bridge(who)
        | Trouble::SlowSync(who, _)
        | Trouble::HungSync(who)
        | Trouble::FailedSync(who)
        | Trouble::FailedWrite(who)
        | Trouble::FullDisk(who)
        | Trouble::Drift(who, _)
        | Trouble::WallJump(who, _)
        | Trouble::Remove(who)
        | Trouble::Upgrade(who)
        | Trouble::Downgrade(who) => Some(*who),
        Trouble::Loss { .. } | Trouble::Delay { .. } => Some(Who::All),
        Trouble::Transfer { .. } | Trouble::Join => None,
    }
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

/// What a trouble makes of the link from one machine to another; `None` is a machine that is no server.
fn link_state(
    what: &Trouble,
    who: &[usize],
    from: Option<usize>,
    to: Option<usize>,
    servers: usize,
) -> LinkState {
    let concerned = |server: Option<usize>| server.is_some_and(|server| who.contains(&server));
    let between_servers = from.is_some() && to.is_some();
    let parted = concerned(from) != concerned(to);
    let blocked = match what {
        Trouble::CutOff(_) => between_servers && parted,
        Trouble::CutOffFromAll(_) => parted,
        Trouble::Mute(_) => between_servers && concerned(from) && !concerned(to),
        Trouble::Deaf(_) => between_servers && concerned(to) && !concerned(from),
        Trouble::BlackHole(_) if between_servers && parted => return LinkState::BlackHole,
        Trouble::Bridge(_) => {
            let half = |server: usize| server < servers / 2;
            between_servers && !concerned(from) && !concerned(to) && from.map(half) != to.map(half)
        }
        _ => false,
    };
    if blocked {
        LinkState::Blocked
    } else {
        LinkState::Open
    }
}

fn worsened(link: Link, what: &Trouble) -> Link {
    match what {
        Trouble::Loss { ppm } => Link {
            loss_ppm: link.loss_ppm.max(*ppm),
            ..link
        },
        Trouble::Delay { ms, twice_ppm } => Link {
            latency_us: link.latency_us.start..link.latency_us.end.max(*ms * 1_000),
            duplicate_ppm: link.duplicate_ppm.max(*twice_ppm),
            ..link
        },
        _ => link,
    }
}
