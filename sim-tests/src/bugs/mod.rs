//! Proof that the judges work: bugs are planted, and must be caught.
//!
//! `sim-tests/bugs/NNN-name.patch` is a small, realistic patch to the code that ships, as `git apply` takes it, with a
//! head before the diff:
//!
//! ```text
//! title: What is wrong, in a few words
//! mirrors: the published bug that it is like, or `own`
//! invariant: the one that is meant to catch it, or several of which one is enough
//! mechanism: How it comes about and what follows; goes on in the next line
//!   if that begins with a space.
//!
//! diff --git a/core/src/… b/core/src/…
//! ```
//!
//! `cargo sim bugs` plants them in a copy of the working tree ([`workshop`]), those that can share a program all at once and
//! asleep ([`joint`]), the others one after the other; builds the simulator there, lets it sweep with one bug awake from
//! several starting points until an intended invariant fires ([`hunt`]), and prints a table ([`table`]), which
//! `docs/PLANTED_BUGS.md` keeps.

mod bug;
mod hunt;
mod joint;
mod table;
mod workshop;

pub use self::{bug::Bug, hunt::Hunt, table::of_table, workshop::applies};

use std::{
    collections::BTreeMap,
    fs,
    num::NonZero,
    path::{self, Path, PathBuf},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use self::{
    hunt::{Catch, Program},
    table::{Outcome, Trial},
    workshop::{Profile, Workshop},
};

/// Seeds between two starting points.
const START_DISTANCE: u64 = 100_000;
/// Schedules that the program of several bugs must pass while all of them sleep.
const SOUND_SCHEDULES: u64 = 25;

/// Plants bugs in a copy of the code, and sees that each is caught by an invariant that is meant to catch it.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Bugs, by name, number or a part of the name; all of them by default.
    pub names: Vec<String>,
    /// A directory with other patches than those that are kept.
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["bless", "sample"])]
    pub patches: Option<PathBuf>,
    /// Schedules that a bug may take from each starting point.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// Starting points.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub starts: u64,
    /// Bugs that are tried side by side, each in a copy of its own; as many as there are processors by default.
    #[arg(long)]
    pub jobs: Option<NonZero<usize>>,
    /// How many schedules run side by side for each of them; by default, so many that all processors are used.
    #[arg(long)]
    pub threads: Option<NonZero<usize>>,
    /// Build each of them alone, also those that can share a program.
    #[arg(long)]
    pub alone: bool,
    /// Build them as a release: that takes longer, and then they run faster.
    #[arg(long)]
    pub release: bool,
    /// Shrink the schedule that was caught from the first starting point, in at most so many runs.
    #[arg(long, value_name = "RUNS")]
    pub shrink: Option<usize>,
    /// Only see that all patches apply.
    #[arg(long)]
    pub check: bool,
    /// Only so many of those that were measured, which follow from the salt.
    #[arg(long)]
    pub sample: Option<usize>,
    /// What the sample follows from.
    #[arg(long, default_value = "")]
    pub salt: String,
    /// Write the rows into the table of docs/PLANTED_BUGS.md.
    #[arg(long)]
    pub bless: bool,
}

/// The working tree that this program was built from.
pub fn working_tree() -> &'static Path {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    parent.expect("this crate is in a directory of the working tree")
}

/// Where the patches are.
pub fn patches() -> PathBuf {
    working_tree().join("sim-tests/bugs")
}

/// The page with the table.
fn page() -> PathBuf {
    working_tree().join("docs/PLANTED_BUGS.md")
}

impl Arguments {
    /// Tries bugs; gives whether all are caught by what is meant to catch them.
    ///
    /// # Errors
    /// There are no such bugs, or they can't be tried.
    pub fn carry_out(self) -> Result<bool, String> {
        let place = self.patches.clone().unwrap_or_else(patches);
        // Patches are applied from within a copy of the tree.
        let place = path::absolute(&place).map_err(|error| format!("{}: {error}", place.display()))?;
        let all = Bug::load_all(&place)?;
        let chosen = choose(all.clone(), &self)?;
        if self.check {
            return Ok(check(&chosen));
        }
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let jobs = self.jobs.map_or(processors, NonZero::get).min(chosen.len());
        let orders = Orders {
            seeds: self.seeds,
            starts: self.starts,
            threads: self.threads.map_or(processors.div_ceil(jobs), NonZero::get),
            shrink: self.shrink,
        };
        let profile = match self.release {
            true => Profile::Release,
            false => Profile::Dev,
        };
        let workshops: Result<Vec<Workshop>, String> = (0..jobs)
            .map(|nth| Workshop::open(working_tree(), nth, profile))
            .collect();
        let workshops = workshops?;
        let joint = match self.alone || chosen.len() == 1 {
            true => Joint::default(),
            false => Joint::build(&workshops[0], &chosen)?,
        };
        let mut trials = Vec::new();
        attempt_all(&workshops, &joint, chosen, &orders, |trial| {
            let verdict = trial.failure().unwrap_or_else(|| "caught".to_owned());
            eprintln!(
                "{}: {verdict} ({:.0} s)",
                trial.bug.name,
                trial.took.as_secs_f64()
            );
            trials.push(trial);
            // At once: what is broken off after an hour has blessed what it tried in that hour.
            match self.bless {
                true => bless(&trials, &all),
                false => Ok(()),
            }
        })?;
        trials.sort_by(|one, other| one.bug.name.cmp(&other.bug.name));
        print!("{}", table::table(&trials));
        Ok(trials.iter().all(Trial::is_caught))
    }
}

/// Prints which patches do not apply; gives whether all do.
fn check(bugs: &[Bug]) -> bool {
    let failures: Vec<String> = bugs
        .iter()
        .filter_map(|bug| Some(format!("{}: {}", bug.name, applies(working_tree(), bug).err()?)))
        .collect();
    println!("{} of {} patches apply", bugs.len() - failures.len(), bugs.len());
    failures.iter().for_each(|failure| println!("{failure}"));
    failures.is_empty()
}

/// Writes the rows of these trials into the table of the docs.
fn bless(trials: &[Trial], known: &[Bug]) -> Result<(), String> {
    let file = page();
    let cant = |error: std::io::Error| format!("{}: {error}", file.display());
    let page = fs::read_to_string(&file).map_err(cant)?;
    fs::write(&file, table::bless(&page, trials, known)?).map_err(cant)
}

fn choose(mut bugs: Vec<Bug>, arguments: &Arguments) -> Result<Vec<Bug>, String> {
    for name in &arguments.names {
        if !bugs.iter().any(|bug| bug.name.contains(name)) {
            return Err(format!("there is no bug {name:?}"));
        }
    }
    bugs.retain(|bug| {
        arguments.names.is_empty() || arguments.names.iter().any(|name| bug.name.contains(name))
    });
    if let Some(count) = arguments.sample {
        let page = fs::read_to_string(page()).map_err(|error| format!("{}: {error}", page().display()))?;
        let measured = table::measured(&page);
        bugs.retain(|bug| measured.contains(&bug.name));
        bugs = Bug::sample(bugs, count, &arguments.salt);
    }
    match bugs.is_empty() {
        true => Err("there are no bugs to plant".to_owned()),
        false => Ok(bugs),
    }
}

/// How each bug is tried.
struct Orders {
    seeds: u64,
    starts: u64,
    threads: usize,
    shrink: Option<usize>,
}

/// The program that bugs share, all of them asleep.
#[derive(Default)]
struct Joint {
    program: PathBuf,
    /// The bugs that are in it, each with the number that wakes it.
    numbers: BTreeMap<String, u32>,
}

impl Joint {
    /// Builds it, and sees that it is sound while they sleep. Where that fails, each bug is built alone.
    ///
    /// # Errors
    /// The workshop can't be used.
    fn build(workshop: &Workshop, bugs: &[Bug]) -> Result<Joint, String> {
        workshop.clean()?;
        let numbers = workshop.plant_joined(bugs)?;
        let alone: Vec<&str> = bugs
            .iter()
            .map(|bug| bug.name.as_str())
            .filter(|name| !numbers.contains_key(*name))
            .collect();
        eprintln!(
            "{} of {} bugs share a program, these do not: {}",
            numbers.len(),
            bugs.len(),
            alone.join(" ")
        );
        let built = workshop.build().and_then(|built| {
            // The workshop's own is built anew for bugs that are alone.
            let path = built.with_file_name("sim-joint");
            fs::copy(&built, &path).map_err(|error| format!("{}: {error}", path.display()))?;
            is_sound(&path).map(|()| path)
        });
        Ok(match built {
            Ok(program) => Joint { program, numbers },
            Err(reason) => {
                eprintln!("they can't: {reason}");
                Joint::default()
            }
        })
    }

    fn with_awake(&self, bug: &Bug) -> Option<Program> {
        let awake = *self.numbers.get(&bug.name)?;
        let path = self.program.clone();
        Some(Program { path, awake })
    }
}

/// Whether a program with bugs passes while all of them sleep.
///
/// # Errors
/// What fires.
fn is_sound(program: &Path) -> Result<(), String> {
    let hunt = Hunt {
        from: 0,
        seeds: SOUND_SCHEDULES,
        threads: 1,
        intended: Vec::new(),
        shrink: None,
    };
    let path = program.to_owned();
    let catch = hunt.send(&Program { path, awake: 0 });
    match catch.first.is_none() && catch.broken.is_none() {
        true => Ok(()),
        false => Err(format!("it fails while all bugs sleep: {catch:?}")),
    }
}

/// Tries bugs, one at a time in each workshop, and tells of each as soon as it was tried.
///
/// # Errors
/// A workshop can't be used, or `tell` failed; bugs that were not begun by then are not tried.
fn attempt_all(
    workshops: &[Workshop],
    joint: &Joint,
    bugs: Vec<Bug>,
    orders: &Orders,
    mut tell: impl FnMut(Trial) -> Result<(), String>,
) -> Result<(), String> {
    let bugs = Mutex::new(bugs.into_iter());
    let next = || bugs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (sender, trials) = mpsc::channel();
    thread::scope(|scope| {
        for workshop in workshops {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(bug) = next() {
                    // Nobody listens any more after an error.
                    if sender.send(attempt(workshop, joint, bug, orders)).is_err() {
                        return;
                    }
                }
                if let Err(reason) = workshop.clean() {
                    let _ = sender.send(Err(reason));
                }
            });
        }
        drop(sender);
        trials.into_iter().try_for_each(|trial| tell(trial?))
    })
}

/// Wakes a bug, or plants it and builds, and hunts it from every starting point.
fn attempt(workshop: &Workshop, joint: &Joint, bug: Bug, orders: &Orders) -> Result<Trial, String> {
    #[expect(clippy::disallowed_types, reason = "how long it takes is no part of any run")]
    let began = std::time::Instant::now();
    let program = match joint.with_awake(&bug) {
        Some(program) => Ok(program),
        None => {
            workshop.clean()?;
            let built = workshop.plant(&bug).and_then(|()| workshop.build());
            built.map(|path| Program { path, awake: 0 })
        }
    };
    let outcome = match program {
        Err(reason) => Outcome::Unusable(reason),
        Ok(program) => Outcome::Hunted(hunts(&program, &bug, orders)),
    };
    Ok(Trial {
        bug,
        outcome,
        took: Duration::from_secs(began.elapsed().as_secs()),
    })
}

/// One hunt after the other; the first that fails is the last, for the verdict is clear then.
fn hunts(program: &Program, bug: &Bug, orders: &Orders) -> Vec<Catch> {
    let mut catches = Vec::new();
    for start in 0..orders.starts {
        let hunt = Hunt {
            from: start * START_DISTANCE,
            seeds: orders.seeds,
            threads: orders.threads,
            intended: bug.invariants.clone(),
            shrink: orders.shrink.filter(|_| start == 0),
        };
        let catch = hunt.send(program);
        let failed = catch.intended.is_none();
        catches.push(catch);
        if failed {
            break;
        }
    }
    catches
}
