//! Log matching and state machine safety (Raft, §5.3 and §5.4.3): an entry is determined by its index and term, and so
//! is all that comes before it; an entry that one server has applied is the one that every server applies there; and
//! nobody takes back an entry that is committed, unless a snapshot with it comes in its place.

use std::collections::BTreeMap;

use super::Violation;
use crate::{
    history::{AppliedEntry, Fact, History, ServerNumber},
    time::Time,
};

/// Its name.
pub const NAME: &str = "log_matching";

/// Term and hash of an entry.
type Print = (u64, u64);

/// See the module's page.
///
/// # Errors
/// Two servers disagree about an entry or about the one before it, a server skips an entry, or takes back one that is
/// committed.
pub fn check(history: &History) -> Result<(), Violation> {
    let mut seen_logs = Logs::default();
    for seen in &history.observations {
        let result = match &seen.what {
            Fact::Appended { index, term, hash } => seen_logs.append(seen.server, *index, (*term, *hash)),
            Fact::Truncated { after } => {
                seen_logs.truncate(seen.at, seen.server, *after);
                Ok(())
            }
            Fact::Applied(entry) => seen_logs.apply(seen.server, entry),
            Fact::SnapshotInstalled { log_index, .. } => {
                seen_logs.install(seen.server, *log_index);
                Ok(())
            }
            Fact::Started => {
                seen_logs.start(seen.server);
                Ok(())
            }
            _ => Ok(()),
        };
        result.map_err(|what| Violation::new(NAME, seen.at, what))?;
    }
    let early = history.ended - history.bounds.recovery;
    match seen_logs.taken_back.values().find(|(at, ..)| *at < early) {
        Some((at, _, what)) => Err(Violation::new(NAME, *at, what.clone())),
        None => Ok(()),
    }
}

#[derive(Default)]
struct Logs {
    /// By index and term: the hash, and the entry before it once somebody knows it.
    entries: BTreeMap<(u64, u64), (u64, Option<Print>)>,
    /// What each server's log is known to hold in its present life.
    logs: BTreeMap<ServerNumber, BTreeMap<u64, Print>>,
    applied: BTreeMap<u64, (Print, ServerNumber)>,
    /// Committed entries that servers took back, up to which, until a snapshot that holds them is installed.
    taken_back: BTreeMap<ServerNumber, (Time, u64, String)>,
    /// Where each server is in its present life.
    positions: BTreeMap<ServerNumber, u64>,
}

impl Logs {
    fn append(&mut self, server: ServerNumber, index: u64, (term, hash): Print) -> Result<(), String> {
        if let Some((_, last, what)) = self.taken_back.get(&server)
            && index <= *last
        {
            return Err(what.clone());
        }
        let log = self.logs.entry(server).or_default();
        let before = index.checked_sub(1).and_then(|before| log.get(&before)).copied();
        log.insert(index, (term, hash));
        let (known_hash, known_before) = self.entries.entry((index, term)).or_insert((hash, before));
        if *known_hash != hash {
            return Err(format!(
                "entry {index} of term {term} has another content at {server} than elsewhere"
            ));
        }
        match (before, &known_before) {
            (Some(mine), Some(theirs)) if mine != *theirs => Err(format!(
                "entry {index} of term {term} comes after an entry of term {} at {server}, elsewhere after one of \
                 term {}",
                mine.0, theirs.0
            )),
            (Some(mine), None) => {
                *known_before = Some(mine);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A log that conflicts with a snapshot is taken back before that is installed, with what is committed in it: the
    /// snapshot brings it again, and a quorum has it. Otherwise committed entries stay.
    fn truncate(&mut self, at: Time, server: ServerNumber, after: u64) {
        let gone = self.logs.entry(server).or_default().split_off(&(after + 1));
        for (index, print) in gone {
            if let Some((committed, by)) = self.applied.get(&index)
                && *committed == print
            {
                let what =
                    format!("{server} takes back entry {index}, which {by} has applied: it is committed");
                self.taken_back.insert(server, (at, index, what));
            }
        }
    }

    fn apply(&mut self, server: ServerNumber, entry: &AppliedEntry) -> Result<(), String> {
        let index = entry.log_index;
        if let Some(last) = self.positions.insert(server, index)
            && index != last + 1
        {
            return Err(format!("{server} applies entry {index} after entry {last}"));
        }
        let print = (entry.term, entry.hash);
        let (first, by) = *self.applied.entry(index).or_insert((print, server));
        if first != print {
            return Err(format!(
                "{server} applies entry {index} of term {}, but {by} applied one of term {} there{}",
                print.0,
                first.0,
                if print.0 == first.0 {
                    " with another content"
                } else {
                    ""
                },
            ));
        }
        Ok(())
    }

    fn install(&mut self, server: ServerNumber, log_index: u64) {
        self.positions.insert(server, log_index);
        if self
            .taken_back
            .get(&server)
            .is_some_and(|(_, last, _)| *last <= log_index)
        {
            self.taken_back.remove(&server);
        }
    }

    fn start(&mut self, server: ServerNumber) {
        // What of its log survived is seen only when it is used.
        self.logs.remove(&server);
        self.taken_back.remove(&server);
        self.positions.remove(&server);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("a broken log").what
    }

    #[test]
    fn a_replicated_log_is_fine() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.register("web-2", 2);
        // An uncommitted entry may be overwritten.
        story.observe(
            1,
            Fact::Appended {
                index: 4,
                term: 1,
                hash: 77,
            },
        );
        story.observe(1, Fact::Truncated { after: 3 });
        story.elect(2, 2);
        story.register("web-3", 3);
        story.restart(3);
        story.replay(3);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn another_content_at_the_same_place_is_not() {
        let mut story = Story::new();
        story.observe(
            1,
            Fact::Appended {
                index: 7,
                term: 1,
                hash: 1,
            },
        );
        story.observe(
            2,
            Fact::Appended {
                index: 7,
                term: 1,
                hash: 2,
            },
        );
        assert!(complaint(story).contains("another content at s2"));
    }

    #[test]
    fn another_entry_before_the_same_is_not() {
        let mut story = Story::new();
        story.observe(
            1,
            Fact::Appended {
                index: 7,
                term: 1,
                hash: 1,
            },
        );
        story.observe(
            1,
            Fact::Appended {
                index: 8,
                term: 3,
                hash: 3,
            },
        );
        story.observe(
            2,
            Fact::Appended {
                index: 7,
                term: 2,
                hash: 2,
            },
        );
        story.observe(
            2,
            Fact::Appended {
                index: 8,
                term: 3,
                hash: 3,
            },
        );
        assert!(complaint(story).contains("comes after an entry of term 2 at s2"));
    }

    #[test]
    fn applying_two_entries_at_one_place_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.change_last_applied(3, |entry| entry.hash += 1);
        assert!(complaint(story).contains("s3 applies entry 1 of term 1, but s1 applied one of term 1"));
    }

    #[test]
    fn skipping_an_entry_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.register("web-2", 2);
        story.forget_applied(2, 1);
        assert!(complaint(story).contains("s2 applies entry 2 after entry 0"));
    }

    #[test]
    fn taking_back_a_committed_entry_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.observe(2, Fact::Truncated { after: 0 });
        story.wait_ms(10_000);
        assert!(complaint(story).contains("s2 takes back entry 1"));
    }

    #[test]
    fn replacing_a_committed_entry_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.observe(2, Fact::Truncated { after: 0 });
        story.observe(
            2,
            Fact::Appended {
                index: 1,
                term: 2,
                hash: 7,
            },
        );
        assert!(complaint(story).contains("s2 takes back entry 1"));
    }

    #[test]
    fn a_snapshot_in_its_place_is_fine() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.observe(2, Fact::Truncated { after: 0 });
        story.observe(
            2,
            Fact::SnapshotInstalled {
                log_index: 1,
                index: 2,
                digest: 1,
            },
        );
        story.wait_ms(10_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }
}
