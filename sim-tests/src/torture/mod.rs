//! The same workload and the same judges on real processes: what the simulator can't cover. Real `sds-server`s on loopback,
//! with their real disk and network; `kill -9`, power cuts, `SIGSTOP`, links that are cut, a disk that fills up.
//!
//! Reading order: [`plan`] draws a run from a seed; [`process`] starts and hurts servers, [`disks`] is what they write to,
//! [`proxy`] is what stands in every link, [`http`] is a client; [`evidence`] is what is kept of a run, and how it is judged, now or later; [`log`]
//! reads the servers' logs, and [`moments`] finds out when their entries can have been applied.
//!
//! Nothing here is linked with the servers or their runtime: it runs the built programs, speaks HTTP, and reads their logs by
//! `sds debug log` after they have stopped. Only the plan follows from the seed; what comes of it does not.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real processes run on the machine's own clock and threads; no simulated run passes here"
)]

mod disks;
mod evidence;
mod http;
mod log;
mod moments;
mod plan;
mod process;
mod proxy;
#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

pub use self::evidence::judge;
use sider_core::registry::Command;

use self::{
    evidence::{Evidence, Line, Raw},
    moments::Clock,
    plan::{Harm, Plan},
    process::Servers,
};
use crate::{
    invariants::Violation,
    keys::Notes,
    operation::Op,
    schedule::{Action, Doing},
    wire,
};

/// How many servers there are.
const SERVERS: usize = 3;
/// All of them.
const ALL: [usize; SERVERS] = [0, 1, 2];
/// After the last fault every server must have caught up within this time, on a machine that may be busy with much else.
const CATCH_UP: Duration = Duration::from_secs(60);
/// A client takes a breath after a failed blocking query.
const BREATH: Duration = Duration::from_millis(100);

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides the workload and the faults.
    pub seed: u64,
    /// How long clients work.
    pub length: Duration,
    /// Where `sds-server` and `sds` are.
    pub programs: PathBuf,
    /// Where everything is kept: data, logs, evidence.
    pub folder: PathBuf,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What should not have been.
    pub violations: Vec<Violation>,
    /// How many operations clients did, and how many succeeded.
    pub operations: (usize, usize),
    /// How many entries were committed.
    pub entries: usize,
    /// What was done to the servers, in plain words.
    pub faults: Vec<String>,
}

/// Runs real servers, hurts them, and judges what clients saw.
///
/// # Errors
/// What of the machinery failed: a program is missing, a server does not start or does not catch up.
pub fn run(options: &Options) -> Result<Outcome, String> {
    fs::create_dir_all(&options.folder).map_err(|error| format!("{}: {error}", options.folder.display()))?;
    let plan = Plan::draw(options.seed, options.length);
    let servers = Arc::new(Servers::start(options, SERVERS)?);
    // Until every server writes the newest commands, their entries do not tell when they were proposed.
    servers.wait_until("the cluster is complete", CATCH_UP, |stats| {
        stats
            .iter()
            .all(|it| it["command_version"] == Command::NEWEST_VERSION && it["leader"] != "")
    })?;
    let clients = Clients {
        servers: servers.clone(),
        began: Instant::now(),
        lines: Arc::default(),
        files: Arc::default(),
        notes: Notes::default(),
    };
    let clock = Clock::read(clients.began);
    let working: Vec<_> = plan
        .actions
        .iter()
        .map(|action| {
            let (clients, action) = (clients.clone(), action.clone());
            thread::spawn(move || clients.act(&action))
        })
        .collect();
    let faults = cause(&plan, &servers, clients.began)?;
    for thread in working {
        thread.join().map_err(|_| "a client panicked".to_owned())?;
    }
    servers.heal();
    servers.wait_until("every server has caught up", CATCH_UP, |stats| {
        let place = |stats: &serde_json::Value| (stats["applied_index"].clone(), stats["digest"].clone());
        stats.iter().all(|it| {
            place(it) == place(&stats[0]) && it["applied_index"] == it["last_log_index"] && it["leader"] != ""
        })
    })?;
    let ended = clients.began.elapsed();
    let stats = servers.stats();
    servers.stop()?;
    let evidence = Evidence {
        clock: clock.or(Clock::read(clients.began)),
        ended_ns: nanos(ended),
        stats,
        operations: std::mem::take(&mut *clients.lines.lock().unwrap_or_else(PoisonError::into_inner)),
        faults: faults.clone(),
        starts: servers.starts(clients.began),
        ended: servers.ended(),
        panics: servers.panics(),
        logs: servers.logs()?,
    };
    evidence.save(&options.folder)?;
    let (violations, entries) = judge(&options.folder)?;
    let done = evidence
        .operations
        .iter()
        .filter(|line| matches!(line.raw, Raw::Answer { status: 200, .. }))
        .count();
    Ok(Outcome {
        violations,
        operations: (evidence.operations.len(), done),
        entries,
        faults,
    })
}

/// Carries out the plan's harms, one after the other; gives what was done in plain words.
///
/// # Errors
/// A disk can't be put back in its place.
fn cause(plan: &Plan, servers: &Servers, began: Instant) -> Result<Vec<String>, String> {
    let mut told = Vec::new();
    for (at, harm) in &plan.harms {
        thread::sleep(at.saturating_sub(began.elapsed()));
        let what = format!("{:>6} ms: {harm:?}", began.elapsed().as_millis());
        match harm {
            Harm::Kill { server, down } => {
                servers.kill(*server);
                thread::sleep(*down);
                servers.restart(*server);
            }
            Harm::KillAll { down } => {
                ALL.iter().for_each(|server| servers.kill(*server));
                thread::sleep(*down);
                ALL.iter().for_each(|server| servers.restart(*server));
            }
            Harm::CutPower { .. } if !servers.lose_power() => continue,
            Harm::CutPower { down } => {
                servers.cut_power(&ALL)?;
                thread::sleep(*down);
                ALL.iter().for_each(|server| servers.restart(*server));
            }
            Harm::Stand { server, still } => {
                servers.signal(*server, "STOP");
                thread::sleep(*still);
                servers.signal(*server, "CONT");
            }
            Harm::Cut {
                server,
                silent,
                lasts,
            } => {
                servers.links().isolate(*server, *silent);
                thread::sleep(*lasts);
                servers.links().heal();
            }
            Harm::Fill { lasts } => {
                let Some(server) = servers.fill_disk() else {
                    continue;
                };
                thread::sleep(*lasts);
                servers.empty_disk();
                servers.restart(server);
            }
        }
        told.push(what);
    }
    Ok(told)
}

/// All clients of a run.
#[derive(Clone)]
struct Clients {
    servers: Arc<Servers>,
    began: Instant,
    lines: Arc<Mutex<Vec<Line>>>,
    files: Arc<Mutex<Option<Vec<u8>>>>,
    notes: Notes,
}

impl Clients {
    fn act(&self, action: &Action) {
        thread::sleep(Duration::from_millis(action.at_ms).saturating_sub(self.began.elapsed()));
        let patience = Duration::from_millis(action.patience_ms);
        match &action.what {
            Doing::Chain(ops) => {
                for (server, op) in ops {
                    self.perform(action.client, *server, op, patience);
                }
            }
            Doing::Follow {
                ask,
                freshness,
                wait_ms,
                until_ms,
                servers,
            } => {
                let mut known = 0;
                for server in servers.iter().cycle() {
                    if self.began.elapsed() >= Duration::from_millis(*until_ms) {
                        return;
                    }
                    let op = Op::Wait {
                        ask: ask.clone(),
                        freshness: *freshness,
                        index: known,
                        wait_ms: *wait_ms,
                    };
                    match self.perform(action.client, *server, &op, patience) {
                        raw @ Raw::Answer { status: 200, .. } => known = raw.index().unwrap_or(known),
                        _ => thread::sleep(BREATH),
                    }
                }
            }
            // Its plans have none.
            Doing::Stream { .. } => {}
        }
    }

    fn perform(&self, client: u8, server: u8, op: &Op, patience: Duration) -> Raw {
        let op = &self.notes.resolve(op.clone());
        let mut request = wire::request(op);
        if let Op::Restore { damage } = op {
            let file = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(file) = file else {
                return Raw::Unreachable("there is no file yet".into());
            };
            request = wire::restore(damage.done_to(&file));
        }
        let wait = match op {
            Op::Wait { wait_ms, .. } => Duration::from_millis(wait_ms + wait_ms / 16),
            _ => Duration::ZERO,
        };
        let address = self.servers.client_address(usize::from(server) % SERVERS);
        let invoked = self.began.elapsed();
        let raw = http::send(address, &request, wait + patience);
        let returned = self.began.elapsed();
        self.notes.take(op, &evidence::outcome(op, &raw));
        if let (
            Op::Save,
            Raw::Answer {
                status: 200, body, ..
            },
        ) = (op, &raw)
        {
            *self.files.lock().unwrap_or_else(PoisonError::into_inner) = Some(body.clone());
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let id = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        lines.push(Line {
            id,
            client,
            server: server % u8::try_from(SERVERS).unwrap_or(1),
            op: op.clone(),
            invoked_ns: nanos(invoked),
            returned_ns: nanos(returned),
            raw: raw.clone(),
        });
        raw
    }
}

/// Where the built programs are: beside the program that runs, or above its folder.
pub fn programs_beside(program: &Path) -> Option<PathBuf> {
    program
        .ancestors()
        .skip(1)
        .take(3)
        .find(|folder| folder.join("sds-server").is_file() && folder.join("sds").is_file())
        .map(Path::to_owned)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
