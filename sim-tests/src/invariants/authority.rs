//! A cluster whose servers are in their catalog has a certificate authority soon after it is calm for the first time, and keeps
//! the same one for good, unless a restore takes it away (issue: the cluster's own authority, made at bootstrap).
//!
//! That clients are told of the one that is stored is for the judges of reads.

use super::{
    Violation,
    servers::{judged, prompt},
};
use crate::{
    authority::{RootsSeen, is_founding},
    autopilot::settings,
    history::{History, Operation},
    operation::Ask,
    truth::Entry,
};

/// Its name.
pub const NAME: &str = "authority";

/// See the module's page.
///
/// # Errors
/// There is none, or another one than there was.
pub fn check(history: &History) -> Result<(), Violation> {
    if !history.bounds.servers_listed {
        return Ok(());
    }
    // Older programs have no keys to store it under, and who may be alone may still give way to another cluster.
    if !history.bounds.older_programs && history.bounds.first_voters.len() > 1 {
        is_made(history)?;
    }
    stays_the_same(history)?;
    is_not_made_in_vain(history)
}

fn is_made(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    for (from, until) in &truth.calm {
        // A new cluster first finds out which version of commands all of its members read.
        let points = judged(history, *from + prompt(history), *until);
        for (point, at) in points {
            let state = truth.state(point);
            if RootsSeen::held(&state).is_none() {
                return Err(Violation::new(
                    NAME,
                    at,
                    "the cluster has no certificate authority",
                ));
            }
            if settings(&state).is_none() {
                return Err(Violation::new(
                    NAME,
                    at,
                    "the settings of all files are not stored",
                ));
            }
        }
    }
    Ok(())
}

/// Each leader may find it missing once, and after each restore, as may whoever is asked for it.
fn is_not_made_in_vain(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    let founds = |entry: &&Entry| {
        entry
            .command
            .as_ref()
            .is_some_and(|(command, _)| is_founding(command))
    };
    let attempts = truth.entries.iter().filter(founds).count();
    let asked = |it: &&Operation| matches!(it.op.asked(), Some((Ask::Roots, _)));
    let asked = history.operations.iter().filter(asked).count();
    // The settings are stored beside it.
    let occasions = (truth.leaders.len() + 1) * 2 * (truth.restored().count() + 1);
    match attempts > asked + occasions {
        true => {
            let what = format!("what a cluster begins with is stored {attempts} times");
            Err(Violation::new(NAME, history.ended, what))
        }
        false => Ok(()),
    }
}

fn stays_the_same(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    let mut known = None;
    for (at, entry) in truth.entries.iter().enumerate() {
        let held = RootsSeen::held(&entry.state);
        if known.is_some() && held != known && !truth.restored().any(|restored| restored == at) {
            let what = format!("the certificate authority was {known:?}, and is {held:?}");
            return Err(Violation::new(NAME, entry.applied, what));
        }
        known = held;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sider_core::{
        registry::{Command, Key, KeyWrite, Operation},
        server::{AutopilotSettings, StoredAuthority},
    };

    use super::{super::story::Story, *};
    use crate::{
        authority::{first_settings, make},
        history::ServerNumber,
    };

    fn write(key: Key, value: &impl serde::Serialize) -> KeyWrite {
        KeyWrite {
            key,
            value: serde_json::to_vec(value).expect("it is text").into(),
            flags: 0,
        }
    }

    fn stores(trust_domain: &str) -> Command {
        let stored = StoredAuthority {
            trust_domain: trust_domain.into(),
            authority: make(trust_domain).expect("it never fails"),
        };
        Command::Transact(vec![Operation::SetKey(write(StoredAuthority::key(), &stored))])
    }

    fn founds() -> Command {
        let write = write(AutopilotSettings::key(), &first_settings());
        Command::Transact(vec![Operation::SetKeyIf(write, 0)])
    }

    fn story() -> Story {
        let mut story = Story::new();
        story.record().bounds.servers_listed = true;
        story.record().bounds.first_voters = (1..=3).map(ServerNumber).collect();
        story.wait_ms(100);
        story
    }

    #[test]
    fn one_that_is_made_in_time_is_fine() {
        let mut story = story();
        story.commit(stores("a"));
        story.commit(founds());
        story.wait_ms(10_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn settings_that_are_missing_or_stored_again_and_again_are_not() {
        for times in [0, 20] {
            let mut story = story();
            story.commit(stores("a"));
            for _ in 0..times {
                story.commit(founds());
            }
            story.wait_ms(10_000);
            let violation = check(&story.finish()).expect_err("too few or too many");
            assert!(violation.what.contains("stored"), "{}", violation.what);
        }
    }

    #[test]
    fn none_is_not() {
        let mut story = story();
        story.wait_ms(10_000);
        let violation = check(&story.finish()).expect_err("there is none");
        assert_eq!(violation.what, "the cluster has no certificate authority");
    }

    #[test]
    fn another_one_is_not() {
        let mut story = story();
        story.commit(stores("a"));
        story.wait_ms(1_000);
        story.commit(stores("b"));
        let violation = check(&story.finish()).expect_err("it is another one");
        assert!(violation.what.contains("certificate of b"), "{}", violation.what);
    }
}
