//! Who is elected has every entry that was committed before (Raft, §5.4.3): a leader's first entry comes behind all that
//! anyone had applied of earlier terms by then.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Fact, History, ServerNumber};

/// Its name.
pub const NAME: &str = "leader_completeness";

/// See the module's page.
///
/// # Errors
/// A leader puts its first entry where a committed one is.
pub fn check(history: &History) -> Result<(), Violation> {
    // By term: the highest committed entry, and who had applied it.
    let mut committed: BTreeMap<u64, (u64, ServerNumber)> = BTreeMap::new();
    let mut newest = None;
    for seen in &history.observations {
        match &seen.what {
            Fact::Applied(entry) => {
                let highest = committed
                    .entry(entry.term)
                    .or_insert((entry.log_index, seen.server));
                if entry.log_index > highest.0 {
                    *highest = (entry.log_index, seen.server);
                }
            }
            Fact::Appended { index, term, .. } if newest.is_none_or(|newest| newest < *term) => {
                newest = Some(*term);
                let before = committed.range(..term).map(|(_, highest)| *highest).max();
                if let Some((last, by)) = before
                    && *index <= last
                {
                    let what = format!(
                        "{} begins term {term} with entry {index}, but {by} had applied entry {last} before",
                        seen.server
                    );
                    return Err(Violation::new(NAME, seen.at, what));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    #[test]
    fn beginning_behind_all_that_is_committed_is_fine() {
        let mut story = Story::new();
        story.register("web-1", 1);
        // Not committed: it may be lost.
        story.observe(
            1,
            Fact::Appended {
                index: 2,
                term: 1,
                hash: 7,
            },
        );
        story.elect(2, 2);
        story.register("web-2", 2);
        story.restart(3);
        story.replay(3);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn beginning_before_something_that_is_committed_is_not() {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.register("web-2", 2);
        story.observe(
            2,
            Fact::Appended {
                index: 2,
                term: 2,
                hash: 7,
            },
        );
        let violation = check(&story.finish()).expect_err("an incomplete leader");
        assert!(
            violation
                .what
                .contains("s2 begins term 2 with entry 2, but s1 had applied entry 2"),
            "{violation}"
        );
    }
}
