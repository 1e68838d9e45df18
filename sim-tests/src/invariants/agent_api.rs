//! What the agent's API tells of the servers' shared node was so at a moment between request and answer, under the index of
//! the whole registry at that moment; and the status code is that of the worst health (SPEC §6).

use super::Violation;
use crate::{
    agent_reads::AgentAsk,
    content::Content,
    history::{History, Operation, Outcome},
    operation::Op,
};

/// Its name.
pub const NAME: &str = "agent_api";

/// See the module's page.
///
/// # Errors
/// An answer was true at no such moment.
pub fn check(history: &History) -> Result<(), Violation> {
    for operation in &history.operations {
        let (Op::AgentRead(ask), Outcome::Done(_)) = (&operation.op, &operation.outcome) else {
            continue;
        };
        if !truthful(history, operation, ask) {
            let truth = history.truth();
            let last = truth.state(truth.applied_until(operation.returned));
            let what = format!(
                "{ask} of {}: {:?} was true at no moment between request and answer; in the end it was {:?} at {}",
                operation.server,
                operation.outcome,
                ask.answer(&last),
                last.index
            );
            return Err(Violation::of(NAME, operation.returned, [operation.id], what));
        }
    }
    Ok(())
}

fn truthful(history: &History, operation: &Operation, ask: &AgentAsk) -> bool {
    let Some(answer) = operation.answer() else {
        return true;
    };
    let Some(Content::Agent(told)) = &answer.content else {
        return false;
    };
    let truth = history.truth();
    let from = truth.applied_before(operation.invoked);
    let until = truth.applied_until(operation.returned).max(from);
    (from..=until).any(|point| {
        let state = truth.state(point);
        let under_its_index = match ask {
            AgentAsk::Datacenters => answer.index.is_none(),
            AgentAsk::Service { .. } if told.is_empty() => true,
            _ => answer.index == Some(state.index.max(1)),
        };
        under_its_index && ask.answer(&state) == told.without_hash()
    })
}

#[cfg(test)]
mod tests {
    use sider_core::registry::CheckStatus::{Critical, Passing};

    use super::{super::story::Story, *};
    use crate::agent_reads::AgentSeen;

    const CHECK: &str = "chk:web-1:0";

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("not true").what
    }

    fn health() -> AgentAsk {
        AgentAsk::HealthOf {
            id: "web-1".into(),
            text: false,
        }
    }

    /// A passing instance.
    fn story() -> Story {
        let mut story = Story::new();
        story.register("web-1", 1);
        story.report(CHECK, Passing);
        story
    }

    #[test]
    fn what_is_there_is_fine() {
        let mut story = story();
        for ask in [
            AgentAsk::Datacenters,
            AgentAsk::Services,
            AgentAsk::Checks,
            health(),
            AgentAsk::HealthOfService {
                service: "nothing".into(),
                text: true,
            },
        ] {
            story.ask_agent(ask);
        }
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn the_status_code_of_another_health_is_not() {
        let mut story = story();
        let read = story.ask_agent(health());
        story.change_answer(read, |answer| {
            if let Some(Content::Agent(AgentSeen::Health(code, _))) = &mut answer.content {
                *code = 429;
            }
        });
        assert!(complaint(story).contains("at no moment"));
    }

    #[test]
    fn what_was_before_is_not() {
        let mut story = story();
        let before = story.ask_agent(health());
        story.report(CHECK, Critical);
        let after = story.ask_agent(health());
        let stale = story.answer_of(before);
        story.set_outcome(after, Outcome::Done(stale));
        assert!(complaint(story).contains("at no moment"));
    }

    #[test]
    fn another_index_is_not() {
        let mut story = story();
        let read = story.ask_agent(AgentAsk::Services);
        story.change_answer(read, |answer| answer.index = Some(7));
        assert!(complaint(story).contains("at no moment"));
    }
}
