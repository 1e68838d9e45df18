//! An agent whose node is as it wants it registers nothing: it compares to find a difference.

use sider_core::registry::Command;

use super::{IN_STEP, NAME, Violation};
use crate::{
    history::{AgentPromise, History},
    matching::Source,
};

/// Once an agent has brought the servers into step, and while nothing befalls it or them, nothing that it registers leaves
/// all as it was.
pub(super) fn is_not_registered(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    let truth = history.truth();
    let from = history.healed.max(agent.settled) + IN_STEP;
    for (position, (entry, source)) in truth.entries.iter().zip(&truth.sources).enumerate() {
        let Some((Command::Register(registrations), _)) = &entry.command else {
            continue;
        };
        let looked = entry.appended - IN_STEP;
        let is_needless = *source == Source::Agent
            && entry.appended >= from
            && registrations.iter().all(|it| it.node.name.as_str() == agent.node)
            && truth.state(position).index == entry.state.index
            && truth.calm_between(looked, entry.applied)
            && agent.is_left_alone(looked, entry.applied);
        if is_needless {
            let what = format!(
                "{} registers by entry {} what was registered so",
                agent.node, entry.log_index
            );
            return Err(Violation::new(NAME, entry.applied, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agency, invariants::story::Story};

    /// An agent's node that is registered, and again after a while.
    fn verdict(after_ms: u64, is_changed: bool) -> Result<(), Violation> {
        let mut story = Story::new();
        let node = agency::node(0);
        story.agent(&node);
        story.record().bounds.agent_nodes = vec![node.clone()];
        story.record().healed = story.now();
        story.wait_ms(3_000);
        let register = |version: u32| {
            let mut command = Story::registration("told", version);
            if let Command::Register(registrations) = &mut command {
                registrations.iter_mut().for_each(|it| {
                    it.node.name = sider_core::registry::NodeName::parse(&node).expect("valid");
                    let instance = it.instance.iter_mut();
                    instance.for_each(|instance| instance.node = it.node.name.clone());
                    it.checks.clear();
                });
            }
            command
        };
        story.commit(register(1));
        story.wait_ms(after_ms);
        story.commit(register(if is_changed { 2 } else { 1 }));
        story.wait_ms(3_000);
        let history = story.finish();
        is_not_registered(&history, &history.agents[0])
    }

    #[test]
    fn what_is_registered_again_in_time_or_otherwise_is_fine() {
        assert_eq!(verdict(100, false), Ok(()));
        assert_eq!(verdict(9_000, true), Ok(()));
    }

    #[test]
    fn what_is_registered_so_already_is_not() {
        let violation = verdict(9_000, false).expect_err("needless");
        assert!(violation.what.contains("what was registered so"), "{violation:?}");
    }
}
