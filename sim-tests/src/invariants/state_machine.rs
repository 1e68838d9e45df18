//! What a server makes of a committed command is what the model makes of it: the reply, whether it takes an index, the
//! index, and which topics rise (SPEC §2 to §5). So no bug of the registry hides behind its being the same everywhere.

use sider_core::registry::{OperationError, OperationRefusal, Refusal, Reply, Topic};

use super::Violation;
use crate::{
    history::{Fact, History},
    words,
};

/// Its name.
pub const NAME: &str = "state_machine";

/// See the module's page.
///
/// # Errors
/// A reply, an index or a set of topics is not the model's.
pub fn check(history: &History) -> Result<(), Violation> {
    for entry in &history.truth().entries {
        let (Some((command, effect)), Some((reply, changed))) = (&entry.command, &entry.expected) else {
            continue;
        };
        let at = entry.log_index;
        let violation = |what: String| {
            Err(Violation::new(
                NAME,
                entry.applied,
                format!("entry {at}: {what}; it is: {}", words::command(command)),
            ))
        };
        if words_aside(&effect.reply) != words_aside(reply) {
            return violation(format!("the reply is {:?}, should be {reply:?}", effect.reply));
        }
        if effect.changed != *changed {
            return violation(format!(
                "it should {}take an index",
                if *changed { "" } else { "not " }
            ));
        }
        // A prefix of keys is never told of: it follows from the keys beneath it.
        let told: Vec<&Topic> = effect
            .topics
            .iter()
            .filter(|it| !matches!(it, Topic::KeyPrefix(_)))
            .collect();
        let raised = entry.raised.iter();
        let raised: Vec<&Topic> = raised.filter(|it| !matches!(it, Topic::KeyPrefix(_))).collect();
        if told != raised {
            return violation(format!("topics {told:?} rise, should be {raised:?}"));
        }
    }
    indexes(history)
}

/// Every server's index is the model's, at every entry.
fn indexes(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    for seen in &history.observations {
        let (log_index, index) = match &seen.what {
            Fact::Applied(entry) => (entry.log_index, entry.index),
            Fact::SnapshotInstalled { log_index, index, .. } => (*log_index, *index),
            _ => continue,
        };
        let expected = truth.state(truth.point_of(log_index)).index;
        if index != expected {
            let what = format!(
                "{}'s index after entry {log_index} is {index}, should be {expected}",
                seen.server
            );
            return Err(Violation::new(NAME, seen.at, what));
        }
    }
    Ok(())
}

/// The registry words its refusal of nonsense as it likes.
fn words_aside(reply: &Result<Reply, Refusal>) -> Result<Reply, Refusal> {
    let wordless = |refusal: &Refusal| match refusal {
        Refusal::Invalid(_) => Refusal::Invalid(String::new()),
        Refusal::Aborted(errors) => Refusal::Aborted(errors.iter().map(operation_wordless).collect()),
        other => other.clone(),
    };
    match reply {
        Ok(Reply::Each(each)) => Ok(Reply::Each(
            each.iter()
                .map(|one| one.as_ref().copied().map_err(wordless))
                .collect(),
        )),
        Ok(other) => Ok(other.clone()),
        Err(refusal) => Err(wordless(refusal)),
    }
}

fn operation_wordless(error: &OperationError) -> OperationError {
    let refusal = match &error.refusal {
        OperationRefusal::Invalid(_) => OperationRefusal::Invalid(String::new()),
        other => other.clone(),
    };
    OperationError { refusal, ..*error }
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not the model's").what
    }

    fn story() -> Story {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.register("web-1", 1);
        story.register("web-2", 2);
        story
    }

    #[test]
    fn what_the_model_makes_of_it_is_fine() {
        assert_eq!(check(&story().finish()), Ok(()));
    }

    #[test]
    fn another_reply_is_not() {
        let mut story = story();
        story.change_effect(3, |effect| effect.reply = Ok(Reply::Deregistered(true)));
        assert!(complaint(story).contains("entry 3: the reply is"));
    }

    #[test]
    fn an_index_for_nothing_is_not() {
        let mut story = story();
        story.change_effect(2, |effect| effect.changed = true);
        assert!(complaint(story).contains("entry 2: it should not take an index"));
    }

    #[test]
    fn a_change_without_an_index_is_not() {
        let mut story = story();
        story.change_effect(3, |effect| effect.changed = false);
        assert!(complaint(story).contains("entry 3: it should take an index"));
    }

    #[test]
    fn waking_nobody_is_not() {
        let mut story = story();
        story.change_effect(3, |effect| {
            effect.topics.pop();
        });
        assert!(complaint(story).contains("entry 3: topics"));
    }

    #[test]
    fn waking_the_wrong_ones_is_not() {
        let mut story = story();
        story.change_effect(2, |effect| effect.topics.push(Topic::Nodes));
        assert!(complaint(story).contains("entry 2: topics"));
    }

    #[test]
    fn another_index_is_not() {
        let mut story = story();
        for server in 1..=3 {
            story.change_last_applied(server, |entry| entry.index += 5);
        }
        assert!(complaint(story).contains("s1's index after entry 3"));
    }
}
