//! A planted bug: a patch to the code that ships, with a head that says what it is.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use crate::invariants::ALL;

/// A bug that can be planted. See the module's page for the format of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bug {
    /// The file's name without `.patch`.
    pub name: String,
    /// What is wrong, in a few words.
    pub title: String,
    /// The published bug that it mirrors, or `own`.
    pub mirrors: String,
    /// The invariants that are meant to catch it; one of them is enough.
    pub invariants: Vec<String>,
    /// How it comes about.
    pub mechanism: String,
    /// The patch.
    pub patch: PathBuf,
}

impl Bug {
    /// All bugs of a directory, by name.
    ///
    /// # Errors
    /// The directory can't be read, or a file in it has no good head.
    pub fn load_all(directory: &Path) -> Result<Vec<Bug>, String> {
        let cant_read = |error| format!("{}: {error}", directory.display());
        let mut bugs = Vec::new();
        for entry in fs::read_dir(directory).map_err(cant_read)? {
            let path = entry.map_err(cant_read)?.path();
            if path.extension().is_some_and(|extension| extension == "patch") {
                bugs.push(Bug::load(path)?);
            }
        }
        bugs.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(bugs)
    }

    fn load(patch: PathBuf) -> Result<Bug, String> {
        let text = fs::read_to_string(&patch).map_err(|error| format!("{}: {error}", patch.display()))?;
        let name = patch.file_stem().unwrap_or_default().to_string_lossy();
        let bug = Bug::parse(&name, &text, patch.clone());
        bug.map_err(|reason| format!("{}: {reason}", patch.display()))
    }

    fn parse(name: &str, text: &str, patch: PathBuf) -> Result<Bug, String> {
        let mut fields = Fields::parse(text)?;
        let bug = Bug {
            name: name.to_owned(),
            title: fields.take("title")?,
            mirrors: fields.take("mirrors")?,
            invariants: fields
                .take("invariant")?
                .split(',')
                .map(|it| it.trim().to_owned())
                .collect(),
            mechanism: fields.take("mechanism")?,
            patch,
        };
        if let Some((key, _)) = fields.0.first() {
            return Err(format!("its head has an unknown field {key:?}"));
        }
        let unknown = |name: &&String| !ALL.iter().any(|(known, _)| known == name);
        if let Some(name) = bug.invariants.iter().find(unknown) {
            return Err(format!("there is no invariant {name:?}"));
        }
        Ok(bug)
    }

    /// The files that it changes.
    ///
    /// # Errors
    /// The patch can't be read.
    pub fn files(&self) -> Result<Vec<String>, String> {
        let text = fs::read_to_string(&self.patch);
        let text = text.map_err(|error| format!("{}: {error}", self.patch.display()))?;
        let files = text.lines().filter_map(|line| line.strip_prefix("+++ b/"));
        Ok(files.map(str::to_owned).collect())
    }

    /// Some of them: others for each salt, always the same for one.
    pub fn sample(mut bugs: Vec<Bug>, count: usize, salt: &str) -> Vec<Bug> {
        let rank = |bug: &Bug| {
            let mut hasher = DefaultHasher::new();
            (salt, &bug.name).hash(&mut hasher);
            hasher.finish()
        };
        bugs.sort_by_key(rank);
        bugs.truncate(count);
        bugs.sort_by(|one, other| one.name.cmp(&other.name));
        bugs
    }
}

/// The head of a patch: `key: value` lines up to the diff; a line that begins with a space goes on with the one before.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse(text: &str) -> Result<Fields, String> {
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut lines = text.lines();
        for line in lines.by_ref().take_while(|line| !line.starts_with("diff --git ")) {
            if line.trim().is_empty() {
                continue;
            }
            match (line.starts_with(' '), fields.last_mut(), line.split_once(':')) {
                (true, Some((_, value)), _) => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                (false, _, Some((key, value))) => fields.push((key.to_owned(), value.trim().to_owned())),
                _ => return Err(format!("its head has a line that makes no sense: {line:?}")),
            }
        }
        match lines.next() {
            Some(_) => Ok(Fields(fields)),
            None => Err("it has no `diff --git`".to_owned()),
        }
    }

    fn take(&mut self, key: &str) -> Result<String, String> {
        let place = self
            .0
            .iter()
            .position(|(found, value)| found == key && !value.is_empty());
        let place = place.ok_or_else(|| format!("its head lacks {key:?}"))?;
        Ok(self.0.remove(place).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "title: A vote is not synced\nmirrors: own\ninvariant: election_safety, durability\n\
                        mechanism: One line,\n  and another.\n\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n";

    fn parse(text: &str) -> Result<Bug, String> {
        Bug::parse("001-vote", text, PathBuf::new())
    }

    #[test]
    fn a_head_is_read() {
        let bug = parse(GOOD).expect("a good head");
        assert_eq!(bug.title, "A vote is not synced");
        assert_eq!(bug.invariants, ["election_safety", "durability"]);
        assert_eq!(bug.mechanism, "One line, and another.");
    }

    #[test]
    fn a_bad_head_is_refused_with_the_reason() {
        let reason = |from: &str, to: &str| parse(&GOOD.replace(from, to)).expect_err("a bad head");
        assert_eq!(reason("mirrors: own\n", ""), "its head lacks \"mirrors\"");
        assert_eq!(reason("mirrors: own", "mirrors:"), "its head lacks \"mirrors\"");
        assert_eq!(
            reason(", durability", ", durable"),
            "there is no invariant \"durable\""
        );
        assert_eq!(
            reason("mirrors", "author: me\nmirrors"),
            "its head has an unknown field \"author\""
        );
        assert!(reason("title: A", "A").contains("makes no sense"));
        assert_eq!(
            reason("diff --git", "diff"),
            "its head has a line that makes no sense: \"diff a/x b/x\""
        );
        let headless = GOOD.split("diff --git").next().expect("a first part");
        assert_eq!(parse(headless), Err("it has no `diff --git`".to_owned()));
    }

    #[test]
    fn a_sample_follows_from_its_salt() {
        let bug = |number: usize| Bug {
            name: format!("{number:03}"),
            ..parse(GOOD).expect("a good head")
        };
        let bugs: Vec<Bug> = (0..40).map(bug).collect();
        let sample = |salt: &str| Bug::sample(bugs.clone(), 4, salt);
        assert_eq!(sample("a").len(), 4);
        assert_eq!(sample("a"), sample("a"));
        assert_ne!(sample("a"), sample("b"));
        // Every one of them has its turn.
        let mut drawn: Vec<String> = (0..200)
            .flat_map(|salt| sample(&salt.to_string()))
            .map(|bug| bug.name)
            .collect();
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn.len(), 40);
    }
}
