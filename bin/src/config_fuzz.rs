//! What config files of a program are fed with: changed, damaged, in each form, and several at once.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use crate::strange::{self, Json};

/// A program that reads config files, and what is to be expected of it.
pub(crate) struct Reader<P> {
    /// Files as people write them.
    pub(crate) real: Vec<Value>,
    /// What the file or the folder at a path comes to; nothing of the host's surroundings is in it.
    pub(crate) read: fn(&Path) -> Result<P, String>,
    /// The same in words, without the names of files.
    pub(crate) meaning: fn(P) -> String,
    /// What the reason of a refusal may begin with, where it does not name the file.
    pub(crate) places: &'static [&'static str],
    /// Sees that it is within the limits.
    pub(crate) check: fn(&P),
    /// The objects of a file whose keys are all known, by their paths.
    pub(crate) closed: fn(&Value) -> Vec<String>,
}

impl<P> Reader<P> {
    /// The reason is one line that names the file, or what it is about.
    fn check_reason(&self, error: &str, path: &Path) {
        assert_eq!(error.lines().count(), 1, "{error}");
        let names_it = error.contains(&path.display().to_string());
        let mut places = self.places.iter();
        assert!(
            names_it || places.any(|place| error.starts_with(place)),
            "{error}"
        );
    }

    /// A file is refused, or means the same in every form; and a key that nobody knows is refused.
    pub(crate) fn try_in_every_form(&self, cases: u32) {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| (self.read)(&written(folder.path(), name, text));
        let (taken, refused, again) = (Cell::new(0), Cell::new(0), Cell::new(0));
        strange::check(cases, strange::changed(self.real.clone()), |Json(file)| {
            let found = match read("a.json", &file.to_string()) {
                Ok(found) => found,
                Err(error) => {
                    refused.set(refused.get() + 1);
                    return self.check_reason(&error, &folder.path().join("a.json"));
                }
            };
            taken.set(taken.get() + 1);
            (self.check)(&found);
            let expected = (self.meaning)(found);
            // JSON is YAML, but for characters that YAML wants escaped; and TOML has no null.
            let yaml = read("a.yaml", &file.to_string());
            let toml = toml::to_string(&file).map_err(|error| error.to_string());
            let toml = toml.and_then(|text| read("a.toml", &text));
            for found in [yaml, toml].into_iter().flatten() {
                again.set(again.get() + 1);
                strange::assert_same(&(self.meaning)(found), &expected);
            }
            for place in (self.closed)(&file) {
                let mut file = file.clone();
                file.pointer_mut(&place).unwrap()["zz_unknown"] = json!(1);
                let error = read("b.json", &file.to_string())
                    .err()
                    .expect("nobody knows that key");
                assert!(error.contains("zz_unknown"), "{place}: {error}");
            }
        });
        // The changes are no good if they never get through, or always.
        let (taken, refused) = (taken.get(), refused.get());
        assert!(again.get() > taken, "{} in other forms", again.get());
        assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused");
    }

    /// A text that is damaged, or none at all, is refused or means something within the limits.
    pub(crate) fn try_damaged(&self, cases: u32) {
        let folder = tempfile::tempdir().unwrap();
        let forms = |file: &Value| {
            [
                ("json", file.to_string()),
                ("yaml", serde_saphyr::to_string(file).unwrap()),
                // There is no list at the top of a TOML file.
                ("toml", toml::to_string(file).unwrap_or_default()),
            ]
        };
        let texts: Vec<(&str, String)> = self.real.iter().flat_map(forms).collect();
        let faulty = (select(texts), strange::faults())
            .prop_map(|((ending, text), faults)| (ending, strange::faulty(text, &faults)));
        let any = (select(&["json", "yaml", "toml"][..]), any::<String>());
        let taken = Cell::new(0);
        strange::check(cases, prop_oneof![6 => faulty, 1 => any], |(ending, text)| {
            let path = written(folder.path(), &format!("a.{ending}"), &text);
            match (self.read)(&path) {
                Ok(found) => {
                    taken.set(taken.get() + 1);
                    (self.check)(&found);
                }
                Err(error) => self.check_reason(&error, &path),
            }
        });
        assert!(taken.get() > 60, "{} taken", taken.get());
    }

    /// So are several files that are put together.
    pub(crate) fn try_several(&self, cases: u32) {
        let folder = tempfile::tempdir().unwrap();
        let any = || strange::changed(self.real.clone());
        strange::check(cases, [any(), any()], |files| {
            for (at, Json(file)) in files.iter().enumerate() {
                written(folder.path(), &format!("{at}.json"), &file.to_string());
            }
            match (self.read)(folder.path()) {
                Ok(found) => (self.check)(&found),
                Err(error) => self.check_reason(&error, folder.path()),
            }
        });
    }
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}
