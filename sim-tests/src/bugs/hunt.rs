//! The hunt for a planted bug: a program with the bug in it sweeps until one of the invariants fires that are meant to,
//! and tells, line by line, the process that planted it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::joint;
use crate::{
    generate::generate,
    invariants::Violation,
    schedule::Schedule,
    shrink::{Effort, events, shrink_to},
    sweep::sweep,
};

/// Schedules between two signs of life.
const SCHEDULES_PER_SIGN: u64 = 25;
/// Longest time without one: a bug may make a run never end. It is processor time, of all threads of the program: on a
/// busy machine a run takes longer.
const SILENCE_MAX: Duration = Duration::from_secs(180);
/// The same as time that passes, for a program that waits for nothing, and where processor time is not told.
const STANDSTILL_MAX: Duration = Duration::from_secs(1_800);
/// Time between two looks at a silent program.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Sweeps until one of these invariants fires: what `bugs` lets the program with the bug do.
#[derive(Clone, Debug, clap::Args)]
pub struct Hunt {
    /// The first seed.
    #[arg(long)]
    pub from: u64,
    /// How many at most.
    #[arg(long)]
    pub seeds: u64,
    /// How many run side by side.
    #[arg(long)]
    pub threads: usize,
    /// The invariants that end the hunt.
    #[arg(long, value_delimiter = ',')]
    pub intended: Vec<String>,
    /// Runs in which to shrink the schedule that ends the hunt; it is left as it is by default.
    #[arg(long)]
    pub shrink: Option<usize>,
}

/// A program with bugs in it.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// The number of the bug that is awake: see [`joint`]. It means nothing to a program with one bug alone.
    pub(super) awake: u32,
}

/// What a hunt brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Catch {
    /// Schedules until anything fired, and the invariants that fired in that one.
    pub(super) first: Option<(u64, Vec<String>)>,
    /// Schedules until one of the intended invariants fired.
    pub(super) intended: Option<u64>,
    /// Events that were left of that schedule after shrinking, if it was shrunk.
    pub(super) shrunk: Option<usize>,
    /// Why it ended before its time, if it did.
    pub(super) broken: Option<String>,
}

impl Hunt {
    /// Hunts in this process, telling what it finds on standard output.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn carry_out(self) -> Result<bool, String> {
        let end = self.from + self.seeds;
        let mut next = self.from;
        while next < end {
            let part = next..end.min(next + SCHEDULES_PER_SIGN);
            let swept = sweep(part.clone(), self.threads, 1, |_, _| {});
            next = part.end;
            // All before the lowest that failed have run, whatever the threads did: this depends on the seeds alone.
            if let Some((seed, violations)) = swept.failures.first() {
                let names: Vec<&str> = violations.iter().map(|violation| violation.invariant).collect();
                tell(&format!("violated {} {}", seed - self.from + 1, names.join(",")))?;
                if let Some(violation) = violations.iter().find(|it| self.is_meant(it.invariant)) {
                    if let Some(left) = self.shrunk(*seed, violation) {
                        tell(&format!("shrunk {left}"))?;
                    }
                    tell("finished")?;
                    return Ok(true);
                }
                next = seed + 1;
            }
            tell(&format!("tried {}", next - self.from))?;
        }
        tell("finished")?;
        Ok(true)
    }

    fn is_meant(&self, invariant: &str) -> bool {
        self.intended.iter().any(|it| it == invariant)
    }

    /// How many events are left of a schedule that is shrunk to this violation, if that was asked for.
    fn shrunk(&self, seed: u64, violation: &Violation) -> Option<usize> {
        let effort = Effort {
            runs_max: self.shrink?,
            jobs: self.threads,
        };
        // Who waits needs a sign of life, and may be gone.
        let progress = |_: &Schedule, runs| drop(tell(&format!("shrinking {runs}")));
        Some(events(
            &shrink_to(&generate(seed), violation, effort, progress).schedule,
        ))
    }

    /// Lets a program hunt.
    pub(super) fn send(&self, program: &Program) -> Catch {
        let numbers = [
            ("--from", self.from.to_string()),
            ("--seeds", self.seeds.to_string()),
            ("--threads", self.threads.to_string()),
            ("--intended", self.intended.join(",")),
        ];
        let child = Command::new(&program.path)
            .env(joint::AWAKE, program.awake.to_string())
            .arg("hunt")
            .args(numbers.iter().flat_map(|(name, value)| [*name, value.as_str()]))
            .args(self.shrink.map(|runs| format!("--shrink={runs}")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => self.listen(child),
            Err(error) => Catch {
                broken: Some(error.to_string()),
                ..Catch::default()
            },
        }
    }

    fn listen(&self, mut child: Child) -> Catch {
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (sign, signs) = mpsc::channel::<()>();
        let mut catch = Catch::default();
        let mut finished = false;
        let (child, hangs) = (&Mutex::new(child), &AtomicBool::new(false));
        let lock = || child.lock().unwrap_or_else(PoisonError::into_inner);
        thread::scope(|scope| {
            let pid = lock().id();
            scope.spawn(move || watch(&signs, hangs, || processor_time(pid), || lock().kill()));
            for line in lines.map_while(Result::ok) {
                // Nobody listens any more once it has hung.
                let _ = sign.send(());
                finished |= catch.note(&line, &self.intended);
            }
            drop(sign);
        });
        let status = lock().wait();
        if hangs.load(Ordering::SeqCst) {
            catch.broken = Some("a run does not end".to_owned());
        } else if !finished {
            catch.broken = Some(match status {
                Ok(status) => format!("the sweep ended: {status}"),
                Err(error) => error.to_string(),
            });
        }
        catch
    }
}

/// Kills whoever gives no sign of life, and notes that; ends when nobody can give one any more.
fn watch(
    signs: &mpsc::Receiver<()>,
    hangs: &AtomicBool,
    used: impl Fn() -> Option<Duration>,
    kill: impl Fn() -> io::Result<()>,
) {
    // Looks since the last sign of life, and what had been used by then.
    let mut last_sign = (0, used());
    loop {
        match signs.recv_timeout(LOOK_INTERVAL) {
            Ok(()) => last_sign = (0, used()),
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let (looks, used_then) = &mut last_sign;
                *looks += 1;
                let worked = used().zip(*used_then).map(|(now, then)| now.saturating_sub(then));
                if LOOK_INTERVAL * *looks > STANDSTILL_MAX || worked.is_some_and(|it| it > SILENCE_MAX) {
                    hangs.store(true, Ordering::SeqCst);
                    // It may have ended by itself meanwhile.
                    let _ = kill();
                    return;
                }
            }
        }
    }
}

/// Processor time that this process has used, if the system tells (proc(5), `/proc/pid/stat`).
fn processor_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold any character.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some(Duration::from_millis(
        (user + system) * 1_000 / rustix::param::clock_ticks_per_second(),
    ))
}

impl Catch {
    /// Takes note of a line; gives whether the hunt is over.
    fn note(&mut self, line: &str, intended: &[String]) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["violated", schedules, names] => {
                let names: Vec<String> = names.split(',').map(str::to_owned).collect();
                let schedules = schedules.parse().unwrap_or(u64::MAX);
                if names.iter().any(|name| intended.contains(name)) {
                    self.intended = Some(schedules);
                }
                self.first.get_or_insert((schedules, names));
                false
            }
            ["shrunk", events] => {
                self.shrunk = events.parse().ok();
                false
            }
            ["finished"] => true,
            _ => false,
        }
    }
}

fn tell(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        let intended = ["ttl".to_owned(), "digest".to_owned()];
        let mut catch = Catch::default();
        assert!(!catch.note("violated 3 recovery", &intended));
        assert!(!catch.note("tried 25", &intended));
        assert!(!catch.note("violated 31 digest,recovery", &intended));
        assert!(!catch.note("shrinking 20", &intended));
        assert!(!catch.note("shrunk 4", &intended));
        assert!(catch.note("finished", &intended));
        assert_eq!(catch.first, Some((3, vec!["recovery".to_owned()])));
        assert_eq!((catch.intended, catch.shrunk), (Some(31), Some(4)));
        assert!(Catch::default().note("finished", &intended));
    }

    #[test]
    fn processor_time_grows_with_work() {
        let before = processor_time(std::process::id()).expect("Linux tells");
        let mut sum = 0_u64;
        while processor_time(std::process::id()).expect("Linux tells") == before {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        assert_eq!(processor_time(u32::MAX), None);
    }

    #[test]
    fn a_program_that_can_not_hunt_is_not_a_catch() {
        let hunt = Hunt {
            from: 0,
            seeds: 1,
            threads: 1,
            intended: vec!["ttl".to_owned()],
            shrink: None,
        };
        for (path, reason) in [("/nonexistent/sim", "No such file"), ("true", "the sweep ended")] {
            let path = PathBuf::from(path);
            let catch = hunt.send(&Program { path, awake: 0 });
            assert_eq!((&catch.first, catch.intended), (&None, None));
            let broken = catch.broken.expect("it did not hunt");
            assert!(broken.contains(reason), "{broken}");
        }
    }
}
