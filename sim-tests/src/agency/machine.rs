//! An agent's machine: the process on it, and what befalls both.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::future::{Either, select};
use sider_core::agent::{Agent, AgentConfig};
use sider_runtime_sim::{Host, SimRuntime, SyncFault, World};

use super::{node, wanted::has_spare};
use crate::{
    cluster::{HTTP_PORT, http_handler},
    history::{Outage, OutageKind},
    recorder::{Recorder, now},
    saboteur::{Saboteur, survival},
    schedule::{AgentPlan, AgentTrouble, Befall, Way, Who},
    time::Time,
    workload::sleep_until,
};

/// Port of the agent's own transport; nobody calls it.
const PORT: u16 = 8510;
/// Whoever looks after the machine starts an agent that has ended by itself within this time.
const LOOKED_AFTER: Duration = Duration::from_millis(300);
/// An agent that was cut off is told to be in step by so much later: it may wait before it tries again.
const TRIES_AGAIN: Duration = Duration::from_secs(1);

/// See the module's page. Clones are the same machine.
#[derive(Clone)]
pub(super) struct Machine(Arc<Parts>);

struct Parts {
    world: World,
    host: Host,
    number: usize,
    saboteur: Saboteur,
    recorder: Recorder,
    /// What its configuration says, and what it says after every other time that it is to read it again.
    configs: [AgentConfig; 2],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many troubles last during which the process must not run.
    down: usize,
    /// How many pauses last.
    pauses: usize,
    /// How many times it was to read its configuration again.
    reloads: usize,
    /// The agent that runs.
    agent: Option<Agent<SimRuntime>>,
}

/// Something that befalls it.
#[derive(Clone, Copy)]
enum Event {
    Crash,
    Trouble(AgentTrouble),
}

impl Machine {
    /// A machine on which an agent is started.
    pub(super) fn start(
        world: &World,
        host: &Host,
        number: usize,
        configs: [AgentConfig; 2],
        saboteur: Saboteur,
        recorder: Recorder,
    ) -> Machine {
        let machine = Machine(Arc::new(Parts {
            world: world.clone(),
            host: host.clone(),
            number,
            saboteur,
            recorder,
            configs,
            state: Mutex::default(),
        }));
        let running = machine.clone();
        host.start(move |host| running.clone().program(host));
        machine
    }

    /// The program: it ends when the agent can't be started.
    async fn program(self, host: Host) {
        self.lock().agent = None;
        let (config, read) = (self.config(), self.lock().reloads);
        let network = host.network(PORT);
        let routes = Arc::new(OnceLock::new());
        network
            .serve_http(HTTP_PORT, http_handler(routes.clone()))
            .expect("nobody else serves there");
        let prober = self.0.world.prober();
        match Agent::<SimRuntime>::start(config, network, prober, host.disk()).await {
            Ok(agent) => {
                // Nobody else sets them, so they are not set yet.
                let _ = routes.set(agent.router());
                self.lock().agent = Some(agent.clone());
                // It was told to read it again while it started.
                if self.lock().reloads != read {
                    self.read_again(agent).await;
                }
                std::future::pending::<()>().await;
            }
            Err(error) => self.0.world.trace("agent", &format!("does not start: {error}")),
        }
    }

    /// What its configuration says now.
    fn config(&self) -> AgentConfig {
        self.0.configs[usize::from(has_spare(self.lock().reloads))].clone()
    }

    /// Has the agent take on its configuration. One that can't has told so, and is started again.
    async fn read_again(&self, agent: Agent<SimRuntime>) {
        let AgentConfig { services, checks, .. } = self.config();
        let reloaded = agent.reload(services, checks).await;
        let what = format!("has read its configuration again: {reloaded:?}");
        self.0.world.trace("agent", &what);
    }

    /// Changes its configuration, and tells the agent to read it, if it runs.
    async fn reload(self, at: Time) {
        let Parts {
            world,
            host,
            number,
            recorder,
            ..
        } = &*self.0;
        sleep_until(world, at).await;
        self.lock().reloads += 1;
        let Some(agent) = self.lock().agent.clone().filter(|_| host.is_up()) else {
            return;
        };
        // As a signal does it: the process reads it when it goes on.
        let machine = self.clone();
        let reading = host.spawn(async move { machine.read_again(agent).await });
        if reading.await.is_err() {
            world.trace("agent", "ends while it reads its configuration again");
        }
        recorder.agent_settled(&node(*number), now(world));
    }

    /// Has everything befall it that is planned.
    pub(super) fn befall(&self, plan: &AgentPlan) {
        let crashes = plan.crashes.iter();
        let crashes = crashes.map(|(at_ms, for_ms)| (*at_ms, *for_ms, Event::Crash));
        let troubles = plan.troubles.iter();
        let troubles =
            troubles.map(|Befall { at_ms, for_ms, what }| (*at_ms, *for_ms, Event::Trouble(*what)));
        for (place, (at_ms, for_ms, event)) in crashes.chain(troubles).enumerate() {
            let span = (Time::ms(at_ms), Duration::from_millis(for_ms));
            drop(self.0.world.spawn(self.clone().suffer(place, span, event)));
        }
        for at_ms in &plan.reloads_ms {
            drop(self.0.world.spawn(self.clone().reload(Time::ms(*at_ms))));
        }
        if plan.troubles.iter().any(|it| it.what.may_fail()) {
            drop(self.0.world.spawn(self.clone().look_after()));
        }
    }

    /// Starts an agent again that has ended by itself.
    async fn look_after(self) {
        loop {
            self.0.world.sleep(LOOKED_AFTER).await;
            self.run_again();
        }
    }

    async fn suffer(self, place: usize, (at, lasts): (Time, Duration), event: Event) {
        let Parts { world, recorder, .. } = &*self.0;
        sleep_until(world, at).await;
        let healed = self.0.saboteur.heals();
        if now(world) >= healed {
            return;
        }
        let node = node(self.0.number);
        let what = event.to_string();
        world.trace("fault", &format!("{node}: {what}"));
        if let Event::Trouble(AgentTrouble::WallJump(_)) = event {
            recorder.agent_jumped(&node, now(world));
        }
        let outage = kind(&event).map(|kind| {
            let outage = Outage {
                from: now(world),
                until: None,
                kind,
                what: what.clone(),
            };
            recorder.agent_outage(&node, outage)
        });
        if let Event::Trouble(AgentTrouble::Stop) = event
            && let Some(heard) = self.stop(healed).await
            && let Some(outage) = outage
        {
            recorder.agent_stopped(&node, outage, now(world), heard);
        }
        self.begin(place, event);
        sleep_until(world, healed.min(at + lasts)).await;
        self.end(place, event);
        world.trace("fault is over", &format!("{node}: {what}"));
        if let Some(outage) = outage {
            recorder.agent_outage_ended(&node, outage, now(world));
            let is_cut = matches!(event, Event::Trouble(AgentTrouble::CutOff { .. }));
            let settles = if is_cut { TRIES_AGAIN } else { Duration::ZERO };
            recorder.agent_settled(&node, now(world) + settles);
        }
    }

    /// Tells the agent to stop, as a signal does. Gives whether the servers heard of it; none if it did not run, or was
    /// killed meanwhile.
    async fn stop(&self, healed: Time) -> Option<bool> {
        let Parts { world, host, .. } = &*self.0;
        let agent = self.lock().agent.clone().filter(|_| host.is_up())?;
        let stopping = host.spawn(async move { agent.shutdown().await.is_ok() });
        let late = std::pin::pin!(sleep_until(world, healed));
        match select(stopping, late).await {
            Either::Left((heard, _)) => heard.ok(),
            Either::Right(_) => None,
        }
    }

    fn begin(&self, place: usize, event: Event) {
        let Parts { host, number, .. } = &*self.0;
        let disk = host.disk();
        let trouble = match event {
            Event::Crash => AgentTrouble::Stop,
            Event::Trouble(trouble) => trouble,
        };
        match trouble {
            // One that was told to stop has done so.
            AgentTrouble::Stop => {
                self.lock().down += 1;
                host.crash();
            }
            AgentTrouble::PowerCut(kept) => {
                self.lock().down += 1;
                host.power_cut(survival(kept));
            }
            AgentTrouble::Pause => {
                self.lock().pauses += 1;
                host.pause();
            }
            AgentTrouble::CutOff { from, way } => {
                self.0.saboteur.cut_off((*number, place), host.id(), from, way);
            }
            AgentTrouble::SlowSync(ms) => {
                disk.set_sync_time(Duration::from_millis(ms)..Duration::from_millis(ms + 1));
            }
            AgentTrouble::HungSync => disk.set_sync_fault(SyncFault::Hangs),
            AgentTrouble::FailedSync => disk.set_sync_fault(SyncFault::FailsOnce),
            AgentTrouble::DeadSync => disk.set_sync_fault(SyncFault::Fails),
            AgentTrouble::FailedWrite => disk.fail_next_write(),
            AgentTrouble::FullDisk => disk.set_full(true),
            AgentTrouble::Drift(ppm) => host.set_drift_ppm(i64::from(ppm)),
            AgentTrouble::WallJump(ms) => host.jump_wall_ms(ms),
        }
    }

    fn end(&self, place: usize, event: Event) {
        let Parts { host, number, .. } = &*self.0;
        let Event::Trouble(trouble) = event else {
            return self.power_on();
        };
        match trouble {
            AgentTrouble::Stop | AgentTrouble::PowerCut(_) => self.power_on(),
            AgentTrouble::Pause => self.resume(),
            AgentTrouble::CutOff { .. } => self.0.saboteur.connect((*number, place)),
            AgentTrouble::Drift(_) => host.set_drift_ppm(0),
            AgentTrouble::WallJump(_) => {}
            AgentTrouble::SlowSync(_)
            | AgentTrouble::HungSync
            | AgentTrouble::FailedSync
            | AgentTrouble::DeadSync
            | AgentTrouble::FailedWrite
            | AgentTrouble::FullDisk => {
                host.disk().restore();
                // Whoever looks after the machine starts it again: it takes nothing more on after a failure.
                if trouble.may_fail() {
                    host.crash();
                    self.run_again();
                }
            }
        }
    }

    fn resume(&self) {
        let last = {
            let mut state = self.lock();
            state.pauses -= 1;
            state.pauses == 0
        };
        if last {
            self.0.host.resume();
        }
    }

    /// One thing less keeps the process from running.
    fn power_on(&self) {
        self.lock().down -= 1;
        self.run_again();
    }

    /// Starts the process, if it is to run and does not.
    fn run_again(&self) {
        let to_run = self.lock().down == 0;
        if to_run && !self.0.host.is_up() {
            self.0.host.restart();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Crash => f.write_str("it crashes"),
            Event::Trouble(trouble) => trouble.fmt(f),
        }
    }
}

/// What it is to whoever judges; none if it excuses nothing.
fn kind(event: &Event) -> Option<OutageKind> {
    let trouble = match event {
        Event::Crash => return Some(OutageKind::Down),
        Event::Trouble(trouble) => trouble,
    };
    let kind = match trouble {
        AgentTrouble::Stop => OutageKind::Stopped(None),
        AgentTrouble::PowerCut(_) => OutageKind::Down,
        AgentTrouble::Pause => OutageKind::Paused,
        AgentTrouble::CutOff {
            from: Who::All,
            way: Way::Both | Way::Mute | Way::BlackHole,
        } => OutageKind::Unheard,
        trouble if trouble.may_fail() => OutageKind::Disk,
        _ => OutageKind::Other,
    };
    trouble.disturbs().then_some(kind)
}
