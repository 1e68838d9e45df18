//! For tests that read as a script: a cluster that has a leader, clients, and things to do to it. Everything is written
//! down, and all invariants are checked in the end, whatever the script itself asserts.

use std::{ops::Range, time::Duration};

use rand::RngExt as _;
use sider_core::{
    registry::{CheckStatus, Command},
    runtime::Keyspace,
};
use sider_runtime_sim::{Options, SimTask, Survival, World, run_with};

use crate::{
    cluster::{Client, Cluster},
    history::{Bounds, Fact, FaultKind, FaultSpan, MembershipChange, Outcome, ServerNumber},
    invariants::judge,
    keys::Notes,
    operation::{Ask, Freshness, Op, RegisterForm, Report, ReportForm, Service, Target, TtlCheck},
    recorder::{Recorder, now, number},
    run::cluster_options,
    saboteur::note_configurations,
    schedule::Shape,
    time::Time,
    workload::{Files, Player},
};

/// Longer than any server takes to answer.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// A cluster has a leader by then, if it can have one.
const ELECTION: Duration = Duration::from_secs(5);

/// A cluster on stage. Clones are the same.
#[derive(Clone)]
pub struct Stage {
    /// The world that it is in.
    pub world: World,
    /// The servers.
    pub cluster: Cluster,
    recorder: Recorder,
    player: Player,
}

/// Plays a script with a fresh cluster of this shape for each seed, waits until everything has calmed down, and checks
/// all invariants.
///
/// # Panics
/// If the script panics or an invariant is violated: with the seed and what happened.
pub fn perform<F>(seeds: Range<u64>, shape: &Shape, script: impl Fn(Stage) -> F + Sync)
where
    F: Future<Output = ()>,
{
    for seed in seeds {
        let recorder = Recorder::new(Bounds {
            latency: Duration::from_micros(shape.latency_us.1 + shape.sync_us.1),
            first_voters: (0..shape.servers).map(ServerNumber).collect(),
            drift_ppm: crate::promised::CLOCK_DRIFT_PPM_MAX,
            ..Bounds::default()
        });
        let options = Options {
            time_limit: Duration::from_secs(600),
            ..Options::new(seed)
        };
        let written = recorder.clone();
        let script = &script;
        let outcome = run_with(options, move |world| async move {
            let stage = Stage::set(world, shape, written).await;
            script(stage.clone()).await;
            stage.end().await;
        });
        let ended = Time(0) + outcome.sim_elapsed;
        if let Err(message) = outcome.value {
            recorder.panicked(ended, message);
        }
        let history = recorder.finish(ended);
        let violations = judge(&history);
        assert!(
            violations.is_empty(),
            "seed {seed}: {}\n{}",
            violations[0],
            crate::timeline::timeline(&history, &violations, false)
        );
    }
}

/// A usual cluster of three: few entries between checkpoints, a fast network, clocks that are right.
pub fn three() -> Shape {
    Shape {
        servers: 3,
        join: false,
        heartbeat_ms: 50,
        election_ms: (150, 300),
        snapshot_threshold: 20,
        log_keep: 5,
        latency_us: (100, 1_000),
        sync_us: (500, 3_000),
        drift_ppm: vec![0; 3],
        command_version: Command::NEWEST_VERSION,
        squeeze: None,
        servers_listed: false,
        probes: false,
    }
}

/// The same with five servers.
pub fn five() -> Shape {
    Shape {
        servers: 5,
        drift_ppm: vec![0; 5],
        ..three()
    }
}

impl Stage {
    async fn set(world: World, shape: &Shape, recorder: Recorder) -> Stage {
        let witness = std::sync::Arc::new(recorder.clone());
        let cluster = Cluster::start(&world, cluster_options(shape), witness);
        let client = cluster.client("c0");
        let player = Player {
            world: world.clone(),
            number: 0,
            client,
            recorder: recorder.clone(),
            files: Files::default(),
            notes: Notes::default(),
        };
        let stage = Stage {
            world,
            cluster,
            recorder,
            player,
        };
        stage.leader().await;
        stage.sleep_ms(500).await;
        stage
    }

    /// Lets what is left of the script calm down, and every server prove that it serves.
    async fn end(&self) {
        self.heal();
        self.recorder.healed(now(&self.world));
        let until = now(&self.world) + Bounds::default().recovery;
        let tasks: Vec<_> = (0..self.cluster.len())
            .map(|server| {
                let server = u8::try_from(server).expect("there are few servers");
                self.world.spawn(self.player.clone().prove_alive(server, until))
            })
            .collect();
        for task in tasks {
            task.await.expect("clients do not panic");
        }
        self.world
            .sleep(Bounds::default().recovery + Duration::from_millis(500))
            .await;
        note_configurations(
            &self.cluster,
            0..self.cluster.len(),
            &self.player.client,
            &self.recorder,
        )
        .await;
    }

    /// Lets time pass.
    pub async fn sleep_ms(&self, ms: u64) {
        self.world.sleep(Duration::from_millis(ms)).await;
    }

    /// The leader, as soon as there is one.
    ///
    /// # Panics
    /// If nobody is elected in time.
    pub async fn leader(&self) -> usize {
        self.cluster.leader(ELECTION).await.expect("somebody is elected")
    }

    /// A leader among these servers, as soon as there is one.
    ///
    /// # Panics
    /// If nobody is elected in time.
    pub async fn leader_among(&self, servers: &[usize]) -> usize {
        let leads = |server: &usize| {
            let server = self.cluster.server(*server);
            server.is_some_and(|server| server.status().role == sider_core::raft::Role::Leader)
        };
        let deadline = self.world.now() + ELECTION;
        loop {
            if let Some(leader) = servers.iter().copied().find(leads) {
                return leader;
            }
            assert!(self.world.now() < deadline, "none of {servers:?} is elected");
            self.sleep_ms(10).await;
        }
    }

    /// All servers but one.
    pub fn others(&self, server: usize) -> Vec<usize> {
        (0..self.cluster.len()).filter(|it| *it != server).collect()
    }

    /// Some server that is not this one.
    pub fn another(&self, server: usize) -> usize {
        (server + 1) % self.cluster.len()
    }

    fn fault(&self, kind: FaultKind, servers: &[usize], what: &str) {
        let servers: Vec<ServerNumber> = servers.iter().copied().map(number).collect();
        let from = now(&self.world);
        self.recorder.fault(FaultSpan {
            from,
            until: Time::MAX,
            servers,
            what: what.to_owned(),
            kind,
        });
    }

    /// Cuts a server off from all other servers; clients reach it still.
    pub fn isolate(&self, server: usize) {
        self.fault(FaultKind::Disturbing, &[server], "cut off from other servers");
        let others = self.cluster.host_ids(&self.others(server));
        let this = self.cluster.host_ids(&[server]);
        self.world.network().partition(&[&this, &others]);
    }

    /// Stops a server's process until [`Stage::resume`].
    pub fn pause(&self, server: usize) {
        self.fault(FaultKind::Disturbing, &[server], "stands still");
        self.cluster.host(server).pause();
        self.recorder.note(&self.world, server, Fact::Paused);
    }

    /// Exchanges a server's program for one that knows this version of commands, and starts it. If that one is too old
    /// for the cluster, it stops by itself.
    pub fn exchange(&self, server: usize, command_version: u8) {
        let older = command_version < self.cluster.command_version(server);
        let kind = if older {
            FaultKind::BrokenDisk
        } else {
            FaultKind::Disturbing
        };
        self.fault(
            kind,
            &[server],
            &format!("is exchanged for version {command_version}"),
        );
        self.cluster.set_command_version(server, command_version);
        self.cluster.restart(server);
        // An old program may stop at any time from now on.
        if !older {
            self.over(&[server]);
        }
    }

    /// The snapshot that a client saved last; a script may bring one along.
    pub fn files(&self) -> &Files {
        &self.player.files
    }

    /// Lets a stopped process go on.
    pub fn resume(&self, server: usize) {
        self.cluster.host(server).resume();
        self.recorder.note(&self.world, server, Fact::Resumed);
        self.over(&[server]);
    }

    /// Kills a server's process.
    pub fn crash(&self, server: usize) {
        self.fault(FaultKind::Disturbing, &[server], "crashes");
        self.cluster.crash(server);
    }

    /// Takes the power of several servers at once; nothing that was not synced survives.
    pub fn power_cut(&self, servers: &[usize]) {
        self.fault(FaultKind::Disturbing, servers, "loses power");
        servers
            .iter()
            .for_each(|server| self.cluster.power_cut(*server, Survival::Nothing));
    }

    /// Flips a bit of the last value in a keyspace of a server's disk, and starts the server again on it. Gives what
    /// flips it back.
    ///
    /// # Panics
    /// If there is nothing in that keyspace.
    pub fn rot(&self, server: usize, keyspace: Keyspace) -> impl FnOnce() + use<> {
        self.fault(FaultKind::BrokenDisk, &[server], "a bit of its disk flips");
        self.cluster.crash(server);
        let disk = self.cluster.host(server).disk();
        let key = disk.keys(keyspace).pop().expect("there is a value");
        let chance: u64 = self.world.rng("rot").random();
        let flip = move || {
            disk.corrupt(keyspace, &key, |value| {
                let bit = usize::try_from(chance).unwrap_or(0) % (value.len() * 8);
                value[bit / 8] ^= 1 << (bit % 8);
            });
        };
        flip();
        self.cluster.restart(server);
        flip
    }

    /// Starts a server that is down.
    pub fn start(&self, server: usize) {
        self.cluster.restart(server);
        self.over(&[server]);
    }

    /// A server's disk is replaced by an empty one, and it is started again.
    pub fn lose_disk(&self, server: usize) {
        self.fault(FaultKind::BrokenDisk, &[server], "loses its disk");
        self.cluster.lose_disk(server);
        self.cluster.restart(server);
    }

    /// Makes everyone's syncs take so long.
    pub fn slow_syncs(&self, ms: u64) {
        let all: Vec<usize> = (0..self.cluster.len()).collect();
        self.fault(FaultKind::Disturbing, &all, "slow syncs");
        for server in all {
            let time = Duration::from_millis(ms)..Duration::from_millis(ms + 1);
            self.cluster.host(server).disk().set_sync_time(time);
        }
    }

    /// Lets a server's wall clock jump; nobody may notice.
    pub fn jump_wall(&self, server: usize, ms: i64) {
        self.fault(FaultKind::Harmless, &[server], "its wall clock jumps");
        self.over(&[server]);
        self.cluster.host(server).jump_wall_ms(ms);
    }

    /// Ends every fault.
    pub fn heal(&self) {
        for server in 0..self.cluster.len() {
            if self.cluster.host(server).is_paused() {
                self.resume(server);
            }
        }
        self.cluster.heal();
        let all: Vec<usize> = (0..self.cluster.len()).collect();
        self.over(&all);
    }

    fn over(&self, servers: &[usize]) {
        self.recorder.faults_over(now(&self.world), servers);
    }

    /// Adds a server and lets it join; gives its number.
    ///
    /// # Panics
    /// If it can't.
    pub async fn join(&self, through: usize) -> usize {
        let server = self.cluster.add_server();
        let place = self.membership(server, true);
        let answer = self.player.client.join(through, server).await;
        let (status, text) = answer.expect("an answer to a join");
        self.recorder
            .membership_answered(place, now(&self.world), Some(status == 200), text.clone());
        assert_eq!(status, 200, "join: {text}");
        server
    }

    /// Adds a server again that is there, and was removed.
    ///
    /// # Panics
    /// If it can't.
    pub async fn add_again(&self, through: usize, server: usize) {
        let place = self.membership(server, true);
        let answer = self.player.client.join(through, server).await;
        let (status, text) = answer.expect("an answer to a join");
        self.recorder
            .membership_answered(place, now(&self.world), Some(status == 200), text.clone());
        assert_eq!(status, 200, "join: {text}");
    }

    /// Removes a server.
    ///
    /// # Panics
    /// If it can't.
    pub async fn remove(&self, through: usize, server: usize) {
        let place = self.membership(server, false);
        let id = self.cluster.identity(server).0;
        let body = serde_json::json!({ "ID": id.0.as_str() }).to_string();
        let request = http::Request::post("/v1/raft/remove").body(bytes::Bytes::from(body));
        let answer = self
            .player
            .client
            .send(through, request.expect("a valid path"), PATIENCE)
            .await;
        let answer = answer.expect("an answer to a removal");
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        let done = answer.status().is_success();
        self.recorder
            .membership_answered(place, now(&self.world), Some(done), text.clone());
        assert!(done, "remove: {text}");
    }

    fn membership(&self, server: usize, joins: bool) -> usize {
        self.recorder.membership_asked(MembershipChange {
            invoked: now(&self.world),
            returned: Time::MAX,
            server: number(server),
            joins,
            done: None,
            answer: "no answer".into(),
        })
    }

    /// Another client, on a host of its own.
    pub fn client(&self, number: u8) -> Client {
        self.cluster.client(&format!("c{number}"))
    }

    /// Sends a request to a server.
    pub async fn ask(&self, server: usize, op: Op) -> Outcome {
        let server = u8::try_from(server).expect("there are few servers");
        self.player.perform(server, op, PATIENCE).await
    }

    /// Reads; once more if the connection turns out to be to a process that is gone.
    pub async fn look(&self, server: usize, op: Op) -> Outcome {
        match self.ask(server, op.clone()).await {
            Outcome::Unknown(_) => self.ask(server, op).await,
            outcome => outcome,
        }
    }

    /// The same, beside the script.
    pub fn ask_beside(&self, server: usize, op: Op) -> SimTask<Outcome> {
        let stage = self.clone();
        self.world.spawn(async move { stage.ask(server, op).await })
    }

    /// Registers an instance of `web` with a TTL check; gives the id of the check.
    ///
    /// # Panics
    /// If it can't.
    pub async fn register_ttl(&self, server: usize, id: &str, ttl_ms: u64) -> String {
        let op = register(id, 1, ttl_ms);
        let done = self.ask(server, op).await;
        assert!(matches!(done, Outcome::Done(_)), "{done:?}");
        format!("chk:{id}:0")
    }

    /// Renews a check.
    pub async fn pass(&self, server: usize, check: &str) -> Outcome {
        self.ask(server, pass(check)).await
    }

    /// The statuses of the checks of `web`, as a server tells them; `None` if it does not.
    pub async fn statuses(&self, server: usize, freshness: Freshness) -> Option<Vec<CheckStatus>> {
        let op = Op::Read {
            ask: Ask::ServiceChecks("web".into()),
            freshness,
        };
        match self.ask(server, op).await {
            Outcome::Done(answer) => match answer.content? {
                crate::content::Content::Checks(checks) => {
                    Some(checks.iter().map(|check| check.status).collect())
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// Registers an instance of `web`; a TTL of 0 is no check.
pub fn register(id: &str, version: u32, ttl_ms: u64) -> Op {
    let checks = (ttl_ms > 0).then_some(TtlCheck {
        ttl_ms,
        status: None,
        deregister_after_ms: 0,
    });
    Op::Register {
        form: RegisterForm::Short,
        services: vec![Service::web(id, version, checks.into_iter().collect())],
    }
}

/// Renews a check.
pub fn pass(check: &str) -> Op {
    let report = Report {
        target: Target::Check(check.into()),
        status: CheckStatus::Passing,
        output: None,
    };
    Op::Report {
        form: ReportForm::Path,
        reports: vec![report],
    }
}

/// The instances of `web`.
pub fn web() -> Ask {
    Ask::Health {
        service: "web".into(),
        passing: false,
        tags: vec![],
    }
}

/// Waits for a change of `web` above an index.
pub fn wait_for_web(index: u64, wait_ms: u64) -> Op {
    Op::Wait {
        ask: web(),
        freshness: Freshness::Default,
        index,
        wait_ms,
    }
}

/// Reads `web`.
pub fn read_web(freshness: Freshness) -> Op {
    Op::Read {
        ask: web(),
        freshness,
    }
}
