//! A simulated run, as a test sees it: the world, and the hosts in it.

use std::{
    fmt,
    future::{Future, poll_fn},
    net::{IpAddr, Ipv4Addr},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use futures_util::future::BoxFuture;
use madsim::{
    runtime::{Handle, NodeHandle, Runtime as Executor},
    task::NodeId,
};
use rand::{SeedableRng, rngs::StdRng};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    chance,
    clock::{self, SimSleep},
    disk::{SharedPlatter, SimDisk, Survival},
    network::{NetworkControl, SimNetwork, Switch},
    panics,
    prober::SimProber,
    runtime::{self, SimTask, contained},
    trace::{self, Message, TraceLine},
};

/// Bytes of the stack of a run's thread.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// What a run is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Whether the timeline is kept, and the backtrace of a panic printed, for people.
    pub keep_lines: bool,
    /// Virtual time after which the run fails.
    pub time_limit: Duration,
}

impl Options {
    /// A run of at most an hour, without a timeline.
    pub fn new(seed: u64) -> Self {
        Options {
            seed,
            keep_lines: false,
            time_limit: Duration::from_secs(3600),
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<T> {
    /// What the body gave, or the message and place of the first panic, in whatever task.
    pub value: Result<T, String>,
    /// Hash of all that happened.
    pub trace_hash: u64,
    /// How many events that were.
    pub events: u64,
    /// How long the run took in virtual time.
    pub sim_elapsed: Duration,
    /// The timeline; empty unless asked for.
    pub lines: Vec<TraceLine>,
    /// Every message in the order of sending; empty unless the timeline was asked for.
    pub messages: Vec<Message>,
    /// The names of the hosts, by number; empty unless the timeline was asked for.
    pub hosts: Vec<String>,
}

/// Runs `body` in a new world that `seed` alone decides.
pub fn run<T, F, B>(seed: u64, body: B) -> Outcome<T>
where
    T: Send,
    F: Future<Output = T>,
    B: FnOnce(World) -> F + Send,
{
    run_with(Options::new(seed), body)
}

/// As [`run`], with options.
///
/// The run has a thread of its own, because the standard library seeds its random state once for each thread.
///
/// # Panics
/// If the thread can't be started.
pub fn run_with<T, F, B>(options: Options, body: B) -> Outcome<T>
where
    T: Send,
    F: Future<Output = T>,
    B: FnOnce(World) -> F + Send,
{
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(format!("seed {}", options.seed))
            .stack_size(STACK_BYTES);
        let run = thread
            .spawn_scoped(scope, || simulate(options, body))
            .expect("threads can be started");
        run.join().expect("every panic of a run is caught")
    })
}

fn simulate<T, F, B>(options: Options, body: B) -> Outcome<T>
where
    F: Future<Output = T>,
    B: FnOnce(World) -> F,
{
    panics::watch(options.keep_lines);
    clock::reset();
    runtime::reset_steps();
    trace::start(options.keep_lines);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        tracing::dispatcher::with_default(trace::dispatch(), || {
            let mut executor = Executor::with_seed_and_config(options.seed, madsim::Config::default());
            executor.set_time_limit(options.time_limit);
            executor.block_on(live(options.seed, body))
        })
    }));
    let panicked = panics::unwatch();
    let (value, trace, sim_elapsed) = match ended {
        Ok((value, trace, sim_elapsed)) => (value, trace, sim_elapsed),
        Err(payload) => (
            Err(panics::message(payload.as_ref())),
            trace::finish(),
            options.time_limit,
        ),
    };
    Outcome {
        value: match panicked {
            Some(message) => Err(message),
            None => value,
        },
        trace_hash: trace.hash,
        events: trace.events,
        sim_elapsed,
        lines: trace.lines.unwrap_or_default(),
        messages: trace.messages.into_values().collect(),
        hosts: trace.hosts,
    }
}

/// The life of a world: the body, then the end of all that still runs, so that nothing is leaked to the next run.
async fn live<T, F, B>(seed: u64, body: B) -> (Result<T, String>, trace::Trace, Duration)
where
    F: Future<Output = T>,
    B: FnOnce(World) -> F,
{
    let _at_hand = clock::AtHand::begin();
    let world = World::new(seed);
    let value = supervised(|| body(world.clone())).await;
    let sim_elapsed = world.now();
    let trace = trace::finish();
    world.end().await;
    (value, trace, sim_elapsed)
}

/// Runs the body until it ends or any task panics.
async fn supervised<T, F: Future<Output = T>>(body: impl FnOnce() -> F) -> Result<T, String> {
    let mut future = pin!(async { body().await });
    poll_fn(|context| {
        if let Some(message) = panics::first(context.waker()) {
            return Poll::Ready(Err(message));
        }
        runtime::count_step();
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(payload) => Poll::Ready(Err(panics::message(payload.as_ref()))),
        }
    })
    .await
}

/// A host's number, in the order of their making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(u32);

impl HostId {
    pub(crate) fn from_index(index: usize) -> Self {
        HostId(u32::try_from(index).expect("there are few hosts"))
    }

    /// The number itself.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}", self.0)
    }
}

/// All that a run has: hosts, the network between them, time, chance and the trace.
#[derive(Clone)]
pub struct World(Arc<WorldParts>);

struct WorldParts {
    seed: u64,
    switch: Arc<Switch>,
    prober: SimProber,
    hosts: Mutex<Vec<Host>>,
    /// Where the carrier of the network and the tasks of the test live; no host can take them down.
    backstage: NodeHandle,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.0.seed)
            .finish_non_exhaustive()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let backstage = Handle::current().create_node().name("backstage").build();
        let switch = Arc::new(Switch::default());
        backstage.spawn(switch.clone().carry());
        let hosts = Mutex::new(Vec::new());
        World(Arc::new(WorldParts {
            seed,
            switch,
            prober: SimProber::default(),
            hosts,
            backstage,
        }))
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// A generator that depends on nothing but the seed and `purpose`: what else draws does not change what it gives.
    pub fn rng(&self, purpose: &str) -> StdRng {
        StdRng::seed_from_u64(xxh3_64_with_seed(purpose.as_bytes(), self.0.seed))
    }

    /// Virtual time since the start of the run. No host's clock shows it.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(clock::virtual_ns())
    }

    /// Sleeps for a while of virtual time.
    pub fn sleep(&self, duration: Duration) -> SimSleep {
        SimSleep::virtual_for(duration)
    }

    /// Runs `future` beside the body, on no host.
    pub fn spawn<F>(&self, future: F) -> SimTask<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        SimTask(self.0.backstage.spawn(contained(future)))
    }

    /// Adds an event to the trace.
    pub fn trace(&self, kind: &'static str, text: &str) {
        trace::record(kind, text);
    }

    /// Control over the network.
    pub fn network(&self) -> NetworkControl {
        NetworkControl(self.0.switch.clone())
    }

    /// The script of all health probes.
    pub fn prober(&self) -> SimProber {
        self.0.prober.clone()
    }

    /// Adds a host. It has power, an address, a disk, and an idle process until [`Host::start`] gives it a program.
    /// Its clocks start at random times.
    pub fn host(&self, name: &str) -> Host {
        let mut hosts = self.lock_hosts();
        let id = HostId::from_index(hosts.len());
        let number = hosts.len() + 1;
        let octet = |number: usize| u8::try_from(number % 250).expect("it is below 250");
        let ip = IpAddr::V4(Ipv4Addr::new(
            10,
            octet(number / 62_500),
            octet(number / 250),
            octet(number),
        ));
        let node = Handle::current().create_node().name(name).build();
        let local_base_ns = chance::within(&(1..1_000_000)) * 1_000_000;
        let wall_offset_ms = i64::try_from(chance::below(10_000)).expect("it is below 10,000") - 5_000;
        clock::add_host(node.id(), local_base_ns, wall_offset_ms);
        self.0.switch.add_host(name.to_owned(), ip, node.clone(), 1);
        let parts = HostParts {
            id,
            name: name.to_owned(),
            ip,
            node: node.id(),
            switch: self.0.switch.clone(),
            platter: SharedPlatter::new(id),
            process: Mutex::new(Process {
                incarnation: 1,
                up: true,
                paused: false,
                program: None,
            }),
        };
        let host = Host(Arc::new(parts));
        hosts.push(host.clone());
        trace::record("host", &format!("{id} is {name} at {ip}"));
        trace::host_named(name);
        host
    }

    /// All hosts, in the order of their making.
    pub fn hosts(&self) -> Vec<Host> {
        self.lock_hosts().clone()
    }

    /// Ends every task and lets go of what they held.
    async fn end(self) {
        for host in self.hosts() {
            host.resume();
            host.disk().clear_trap();
            Handle::current().kill(host.0.node);
            let program = host.lock().program.take();
            drop(program);
        }
        // The executor drops the tasks' futures when it comes to them; it does before this sleep ends.
        SimSleep::virtual_for(Duration::from_millis(1)).await;
        self.0.switch.clear();
        Handle::current().kill(self.0.backstage.id());
        SimSleep::virtual_for(Duration::from_millis(1)).await;
        self.lock_hosts().clear();
    }

    fn lock_hosts(&self) -> MutexGuard<'_, Vec<Host>> {
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A simulated machine with one process. Clones are the same machine.
#[derive(Clone)]
pub struct Host(Arc<HostParts>);

struct HostParts {
    id: HostId,
    name: String,
    ip: IpAddr,
    node: NodeId,
    switch: Arc<Switch>,
    platter: SharedPlatter,
    process: Mutex<Process>,
}

struct Process {
    /// Counts processes; operations of earlier ones are refused.
    incarnation: u64,
    up: bool,
    paused: bool,
    program: Option<Program>,
}

type Program = Arc<dyn Fn(Host) -> BoxFuture<'static, ()> + Send + Sync>;

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("id", &self.0.id)
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}

/// What a program uses.
impl Host {
    /// Its number.
    pub fn id(&self) -> HostId {
        self.0.id
    }

    /// Its name, by which the network finds it too.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.0.ip
    }

    /// The number of its process, counted from 1.
    pub fn incarnation(&self) -> u64 {
        self.lock().incarnation
    }

    /// Whether its process runs (or is paused).
    pub fn is_up(&self) -> bool {
        self.lock().up
    }

    /// Its disk, for the process that runs now.
    pub fn disk(&self) -> SimDisk {
        self.0.platter.disk()
    }

    /// The network, for the process that runs now; `peer_port` is where `listen` listens.
    pub fn network(&self, peer_port: u16) -> SimNetwork {
        SimNetwork::new(self.0.switch.clone(), self.0.id, self.incarnation(), peer_port)
    }

    /// Runs `future` in its process. If that has ended, the task never runs.
    ///
    /// # Panics
    /// Outside of a run.
    pub fn spawn<F>(&self, future: F) -> SimTask<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        SimTask(self.node().spawn(contained(future)))
    }

    fn node(&self) -> NodeHandle {
        Handle::current()
            .get_node(self.0.node)
            .expect("a host keeps its node as long as the run lasts")
    }

    fn lock(&self) -> MutexGuard<'_, Process> {
        self.0.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a test does to it.
impl Host {
    /// Gives it a program, which runs now and again at every [`Host::restart`]. When the program's future ends, its
    /// process ends.
    pub fn start<F, P>(&self, program: P)
    where
        P: Fn(Host) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.set_program(program);
        let program = self.lock().program.clone();
        self.run(program.expect("it was set right now"));
    }

    /// Gives it a program that runs from the next [`Host::restart`] on.
    pub fn set_program<F, P>(&self, program: P)
    where
        P: Fn(Host) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.lock().program = Some(Arc::new(move |host| Box::pin(program(host))));
    }

    /// Kills its process (`kill -9`): what it wrote is on the disk, or in the memory of the operating system.
    pub fn crash(&self) {
        if self.end_process(true) {
            self.0.platter.process_ended();
            trace::record("crash", &self.0.name);
        }
    }

    /// Cuts its power: what was not synced survives as `survival` says, and nobody is told.
    pub fn power_cut(&self, survival: Survival) {
        self.end_process(false);
        self.0.platter.power_cut(survival);
        trace::record("power cut", &self.0.name);
    }

    /// Starts its program in a new process; a running one is killed before.
    pub fn restart(&self) {
        self.crash();
        Handle::current().restart(self.0.node);
        let (incarnation, program) = {
            let mut process = self.lock();
            process.incarnation += 1;
            process.up = true;
            (process.incarnation, process.program.clone())
        };
        self.0.switch.process_started(self.0.id, self.node(), incarnation);
        trace::record("restart", &self.0.name);
        if let Some(program) = program {
            self.run(program);
        }
    }

    /// Stops its process (`kill -STOP`): nothing of it runs, while its clocks go on and its kernel takes messages.
    pub fn pause(&self) {
        let mut process = self.lock();
        if process.up && !process.paused {
            process.paused = true;
            Handle::current().pause(self.0.node);
            trace::record("pause", &self.0.name);
        }
    }

    /// Lets a stopped process go on.
    pub fn resume(&self) {
        let mut process = self.lock();
        if std::mem::take(&mut process.paused) {
            Handle::current().resume(self.0.node);
            trace::record("resume", &self.0.name);
        }
    }

    /// Whether its process is stopped.
    pub fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// How many timers run for its program.
    pub fn timers(&self) -> usize {
        clock::sleepers(self.0.id)
    }

    /// Makes its clocks run `ppm` millionths too fast from now on (too slow, if negative).
    ///
    /// # Panics
    /// If they would stand still or run backwards.
    pub fn set_drift_ppm(&self, ppm: i64) {
        clock::set_drift_ppm(self.0.id, ppm);
        trace::record("drift", &format!("{}: {ppm} ppm", self.0.name));
    }

    /// Makes its wall clock jump.
    pub fn jump_wall_ms(&self, ms: i64) {
        clock::jump_wall_ms(self.0.id, ms);
        trace::record("wall clock", &format!("{}: jumps by {ms} ms", self.0.name));
    }

    fn run(&self, program: Program) {
        let (host, incarnation) = (self.clone(), self.incarnation());
        self.spawn(async move {
            program(host.clone()).await;
            let ended = {
                let process = host.lock();
                process.up && process.incarnation == incarnation
            };
            if ended && host.end_process(true) {
                host.0.platter.process_ended();
                trace::record("exit", &host.0.name);
            }
        });
    }

    /// Ends the process; false if none was running.
    fn end_process(&self, powered: bool) -> bool {
        // A paused task can't be dropped by the executor; none runs between here and the kill.
        self.resume();
        let was_up = std::mem::replace(&mut self.lock().up, false);
        if was_up || !powered {
            self.0.switch.process_ended(self.0.id, powered);
            Handle::current().kill(self.0.node);
        }
        was_up
    }
}
