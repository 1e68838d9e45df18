//! A copy of the working tree in which bugs are planted, with a target directory of its own.
//!
//! Only what differs is written when a bug is taken out again, so that cargo builds again what changed and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::{bug::Bug, joint};

/// The copy. Only one process works in it at a time.
pub(super) struct Workshop {
    source: PathBuf,
    tree: PathBuf,
    target: PathBuf,
    profile: Profile,
    _lock: File,
}

/// How the simulator of the copy is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// As for the tests: soon built.
    Dev,
    /// As it ships: slow to build, and faster then.
    Release,
}

impl Profile {
    /// Its directory below `target`.
    fn directory(self) -> &'static str {
        match self {
            Profile::Dev => "debug",
            Profile::Release => "release",
        }
    }
}

impl Workshop {
    /// The n-th workshop of a working tree, below its `target`.
    ///
    /// # Errors
    /// Another process works in it, or the disk fails.
    pub(super) fn open(source: &Path, nth: usize, profile: Profile) -> Result<Workshop, String> {
        let place = source.join(format!("target/bugs/{nth}"));
        let cant = |error: io::Error| format!("{}: {error}", place.display());
        let tree = place.join("tree");
        fs::create_dir_all(&tree).map_err(cant)?;
        let lock = File::create(place.join("lock")).map_err(cant)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another process tries bugs in {}", place.display()));
            }
            Err(TryLockError::Error(error)) => return Err(cant(error)),
        }
        Ok(Workshop {
            source: source.to_owned(),
            tree,
            target: place.join("target"),
            profile,
            _lock: lock,
        })
    }

    /// Makes the copy equal to the working tree: what is planted in it is gone.
    ///
    /// # Errors
    /// A file can't be read or written.
    pub(super) fn clean(&self) -> Result<(), String> {
        let mut wanted = files_of(&self.source).map_err(|error| error.to_string())?;
        // Cargo's settings reach the copy as it is below the working tree. Flags that are set twice would be other flags,
        // for which everything is compiled again.
        wanted.retain(|file| !file.starts_with(".cargo"));
        wanted.iter().try_for_each(|file| self.copy(file))?;
        for file in walk(&self.tree).map_err(|error| error.to_string())? {
            if !wanted.contains(&file) {
                fs::remove_file(self.tree.join(&file))
                    .map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
        Ok(())
    }

    /// Makes a file of the copy what it is in the working tree.
    fn copy(&self, file: &Path) -> Result<(), String> {
        let (from, to) = (self.source.join(file), self.tree.join(file));
        let copied = || -> io::Result<()> {
            let text = fs::read(&from)?;
            if fs::read(&to).is_ok_and(|found| found == text) {
                return Ok(());
            }
            fs::create_dir_all(to.parent().expect("it is below the tree"))?;
            // Not copied with its times: cargo must see that it changed.
            fs::write(&to, text)
        };
        copied().map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Plants a bug in the copy.
    ///
    /// # Errors
    /// The patch does not apply.
    pub(super) fn plant(&self, bug: &Bug) -> Result<(), String> {
        apply(&self.tree, bug, false)
    }

    /// Plants all bugs that can share a program, asleep; gives those, each with the number that wakes it.
    ///
    /// # Errors
    /// A file can't be read or written. A patch that does not apply is only left out.
    pub(super) fn plant_joined(&self, bugs: &[Bug]) -> Result<BTreeMap<String, u32>, String> {
        let mut files: BTreeMap<String, joint::File> = BTreeMap::new();
        let mut joined = BTreeMap::new();
        for (bug, number) in bugs.iter().zip(1..) {
            if self.plant(bug).is_ok() && self.join(bug, number, &mut files)? {
                joined.insert(bug.name.clone(), number);
            }
            self.take_out(bug)?;
        }
        for (file, joint) in &files {
            self.write(file, &joint.joined())?;
        }
        let root = self.read(joint::ROOT)?;
        self.write(joint::ROOT, &(root + joint::SWITCH))?;
        Ok(joined)
    }

    /// Makes the files that a bug changes what they were.
    fn take_out(&self, bug: &Bug) -> Result<(), String> {
        for file in bug.files()? {
            match self.source.join(&file).is_file() {
                true => self.copy(Path::new(&file))?,
                // The bug made it; or its patch does not apply, and it is not there.
                false => drop(fs::remove_file(self.tree.join(&file))),
            }
        }
        Ok(())
    }

    /// Takes what a bug that is planted changes into the joint files, if it can be joined.
    fn join(
        &self,
        bug: &Bug,
        number: u32,
        files: &mut BTreeMap<String, joint::File>,
    ) -> Result<bool, String> {
        let mut changes = Vec::new();
        for file in bug.files()? {
            if !file.starts_with(joint::CRATE) || file == joint::ROOT || !self.source.join(&file).is_file() {
                return Ok(false);
            }
            if !files.contains_key(&file) {
                let text = fs::read_to_string(self.source.join(&file));
                let text = text.map_err(|error| format!("{file}: {error}"))?;
                files.insert(file.clone(), joint::File::new(text)?);
            }
            let Some(these) = files[&file].changes(self.read(&file)?) else {
                return Ok(false);
            };
            changes.push((file, these));
        }
        for (file, these) in changes {
            files.entry(file).and_modify(|it| it.add(number, these));
        }
        Ok(true)
    }

    fn read(&self, file: &str) -> Result<String, String> {
        fs::read_to_string(self.tree.join(file)).map_err(|error| format!("{file}: {error}"))
    }

    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        fs::write(self.tree.join(file), text).map_err(|error| format!("{file}: {error}"))
    }

    /// Builds the simulator of the copy, and gives its program.
    ///
    /// # Errors
    /// What the compiler says.
    pub(super) fn build(&self) -> Result<PathBuf, String> {
        // Only a shortcut: what can't be had so is compiled.
        let _ = self.borrow_dependencies();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--offline", "--locked", "--quiet"])
            .args(["--package", "sider-sim-tests", "--bin", "sim"])
            .args((self.profile == Profile::Release).then_some("--release"))
            .arg("--target-dir")
            .arg(&self.target)
            .current_dir(&self.tree)
            .env_remove("RUSTFLAGS")
            .output();
        succeeded(output)?;
        Ok(self.target.join(self.profile.directory()).join("sim"))
    }
}

impl Workshop {
    /// Takes over what was compiled of other packages for the working tree, once: compiling them takes minutes. Files are
    /// linked; cargo never changes those of a package that did not change, and those of our own packages stay apart.
    fn borrow_dependencies(&self) -> io::Result<()> {
        let profile = self.profile.directory();
        let lender = self.source.join("target").join(profile);
        let borrower = self.target.join(profile);
        if borrower.exists() {
            return Ok(());
        }
        for part in ["build", "deps", ".fingerprint"] {
            let names = fs::read_dir(lender.join(part))?.filter_map(Result::ok);
            let ours = |name: &str| name.contains("sider") || name.starts_with("sim-");
            for entry in names.filter(|entry| !ours(&entry.file_name().to_string_lossy())) {
                link_all(&entry.path(), &borrower.join(part).join(entry.file_name()))?;
            }
        }
        Ok(())
    }
}

fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    if !from.is_dir() {
        return fs::hard_link(from, to);
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        link_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Whether a patch applies to a tree.
///
/// # Errors
/// Why not.
pub fn applies(tree: &Path, bug: &Bug) -> Result<(), String> {
    apply(tree, bug, true)
}

fn apply(tree: &Path, bug: &Bug, only_check: bool) -> Result<(), String> {
    let output = Command::new("git")
        .arg("apply")
        .args(only_check.then_some("--check"))
        .arg(&bug.patch)
        .current_dir(tree)
        // The tree may be inside a repository that knows nothing of it: paths are relative to the tree.
        .env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree))
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .output();
    succeeded(output).map(|_| ())
}

fn succeeded(output: io::Result<Output>) -> Result<Output, String> {
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(output),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// The files of a working tree, as git knows them, or all but what is built where there is no git.
fn files_of(source: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(source)
        .env("GIT_CEILING_DIRECTORIES", source.parent().unwrap_or(source))
        .output();
    let Ok(output) = succeeded(output) else {
        return walk(source);
    };
    let names = String::from_utf8(output.stdout).map_err(io::Error::other)?;
    let files = names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from);
    // What was removed from the working tree is still known to git.
    Ok(files.filter(|file| source.join(file).is_file()).collect())
}

/// All files below a directory, but for what is built and what belongs to git.
fn walk(root: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            if !entry.file_type()?.is_dir() {
                files.insert(path);
            } else if path != Path::new("target") && path != Path::new(".git") {
                directories.push(path);
            }
        }
    }
    Ok(files)
}
