//! What an agent tells of itself is so (AGENT.md).

use sider_core::registry::CheckStatus;

use super::{NAME, Violation, reports};
use crate::{
    agency,
    history::{AgentPromise, History, Looked, Reported, Seen},
};

/// What an agent tells of itself is what was asked of it, and reported to it.
pub(super) fn tell_what_is(history: &History, agent: &AgentPromise) -> Result<(), Violation> {
    for looked in &agent.looks {
        let told = match &looked.seen {
            Seen::Services(ids) => agent
                .placed
                .iter()
                .map(|(id, ..)| id.as_str())
                .chain(["renewed", agency::PROBED])
                .find_map(|id| {
                    let wanted = is_there(agent, id, looked)?;
                    let differs = ids.contains(id) != wanted;
                    differs.then(|| format!("that {id} is there: {}", !wanted))
                }),
            Seen::Checks(statuses) => agent.reports.iter().find_map(|told| {
                let wanted = is_told(history, agent, told, looked)?;
                let seen = statuses.get(&told.check).copied();
                (seen != Some(wanted)).then(|| format!("that {} is {seen:?}, not {wanted:?}", told.check))
            }),
            Seen::Health(id, code, status, checks) => {
                let there = *code != 404;
                let worst = checks.iter().max().copied().unwrap_or(CheckStatus::Passing);
                let wanted = match worst {
                    CheckStatus::Passing => 200,
                    CheckStatus::Warning => 429,
                    _ => 503,
                };
                if is_there(agent, id, looked).is_some_and(|wanted| wanted != there) {
                    Some(format!("that {id} is there: {there}"))
                } else if there && (*status != worst || *code != wanted) {
                    Some(format!("{code} and {status:?} of checks that are {checks:?}"))
                } else {
                    None
                }
            }
            Seen::Nothing(instead) => {
                // Who had a connection to a process that is gone learns of it when it uses the connection again.
                let dead = instead.ends_with("connection reset") && agent.was_disturbed(looked.returned);
                let owed = agent.is_left_alone(looked.invoked, looked.returned) && !dead;
                owed.then(|| format!("nothing that can be understood, but: {instead}"))
            }
        };
        if let Some(told) = told {
            let what = format!("{} says {told}", agent.node);
            return Err(Violation::new(NAME, looked.returned, what));
        }
    }
    Ok(())
}

/// Whether an instance must be there, or must not; `None` if either may be.
fn is_there(agent: &AgentPromise, id: &str, looked: &Looked) -> Option<bool> {
    if agent.leaving.iter().any(|leaving| leaving == id) {
        return None;
    }
    let orders = || agent.placed.iter().filter(|(of, ..)| of == id);
    if orders().any(|(_, from, until, _)| *from <= looked.returned && *until >= looked.invoked) {
        return None;
    }
    let last = orders().rfind(|(_, _, until, _)| *until < looked.invoked);
    let configured = id == "renewed" || id == agency::PROBED;
    Some(last.map_or(configured, |(.., registered)| *registered))
}

/// How a check must be that was reported on last by this; `None` if something else may decide.
fn is_told(history: &History, agent: &AgentPromise, told: &Reported, looked: &Looked) -> Option<CheckStatus> {
    let span = (told.invoked, looked.returned);
    let mut others = agent
        .reports
        .iter()
        .filter(|it| !std::ptr::eq(*it, told) && it.check == told.check);
    let is_last = !others.any(|it| it.invoked <= looked.returned && it.returned >= told.invoked);
    let same = |id: &str| agency::check_of(id) == told.check;
    let mut placed = agent.placed.iter().filter(|(id, ..)| same(id));
    let replaced = placed.any(|(_, from, until, _)| *from <= span.1 && *until >= span.0);
    let disturbed = agent.outages.iter().any(|it| it.overlaps(span.0, span.1));
    if told.answer != Some(200) || told.returned >= looked.invoked || !is_last || replaced || disturbed {
        return None;
    }
    let wrong = reports::wrong(history);
    if looked.returned < told.invoked + agency::TOLD_TTL - wrong {
        return Some(told.status);
    }
    (looked.invoked > told.returned + agency::TOLD_TTL + wrong).then_some(CheckStatus::Critical)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        time::Duration,
    };

    use super::*;
    use crate::{
        history::{Outage, OutageKind},
        invariants::story::{SHARED, Story},
    };
    use CheckStatus::{Critical, Passing, Warning};

    const CHECK: &str = "chk:told:0";

    /// An agent that was started long ago.
    fn story() -> Story {
        let mut story = Story::new();
        story.agent(SHARED);
        story.wait_ms(8_000);
        story
    }

    fn judged(story: Story) -> Result<(), String> {
        let history = story.finish();
        let agent = &history.agents[0];
        tell_what_is(&history, agent).map_err(|it| it.what)
    }

    fn look(story: &mut Story, seen: Seen) {
        let looked = Looked {
            invoked: story.now(),
            returned: story.now() + Duration::from_millis(5),
            seen,
        };
        story.record().agents[0].looks.push(looked);
    }

    fn checks(status: CheckStatus) -> Seen {
        Seen::Checks(BTreeMap::from([(CHECK.to_owned(), status)]))
    }

    /// A service reports that it passes, and somebody looks so long after that.
    fn reported(after_ms: u64, seen: CheckStatus) -> Result<(), String> {
        let mut story = story();
        let invoked = story.now();
        story.wait_ms(5);
        let returned = story.now();
        story.record().agents[0].reports.push(Reported {
            check: CHECK.into(),
            status: Passing,
            invoked,
            returned,
            answer: Some(200),
        });
        story.wait_ms(after_ms);
        look(&mut story, checks(seen));
        judged(story)
    }

    #[test]
    fn what_was_reported_is_told_until_its_ttl_is_over() {
        assert_eq!(reported(100, Passing), Ok(()));
        assert!(reported(100, Critical).is_err());
        assert_eq!(reported(3_000, Critical), Ok(()));
        assert!(reported(3_000, Passing).is_err());
    }

    #[test]
    fn what_was_ordered_is_told() {
        let services = |ids: &[&str], registered: bool| {
            let mut story = story();
            let now = story.now();
            let order = ("a".to_owned(), now - Duration::from_secs(1), now, registered);
            story.record().agents[0].placed.push(order);
            story.wait_ms(10);
            let ids: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            look(&mut story, Seen::Services(ids));
            judged(story)
        };
        assert_eq!(services(&["a", "probed", "renewed"], true), Ok(()));
        assert_eq!(services(&["probed", "renewed"], false), Ok(()));
        assert!(services(&["probed", "renewed"], true).is_err());
        assert!(services(&["a", "probed", "renewed"], false).is_err());
        assert!(services(&["a", "probed"], true).is_err());
    }

    #[test]
    fn health_is_that_of_the_worst_check() {
        let health = |code: u16, status: CheckStatus, checks: &[CheckStatus]| {
            let mut story = story();
            let id = "renewed".to_owned();
            look(&mut story, Seen::Health(id, code, status, checks.to_vec()));
            judged(story)
        };
        assert_eq!(health(429, Warning, &[Passing, Warning]), Ok(()));
        assert!(health(404, Critical, &[]).is_err(), "it is there");
        assert!(health(200, Passing, &[Passing, Warning]).is_err());
        assert!(health(200, Warning, &[Passing, Warning]).is_err());
    }
    #[test]
    fn an_answer_that_means_nothing_is_found_unless_something_befell_the_agent() {
        let nothing = |outage: bool| {
            let mut story = story();
            let now = story.now();
            if outage {
                story.record().agents[0].outages.push(Outage {
                    from: now - Duration::from_millis(500),
                    until: Some(now),
                    kind: OutageKind::Other,
                    what: "something".into(),
                });
            }
            look(&mut story, Seen::Nothing("500 {".into()));
            judged(story)
        };
        assert!(nothing(false).expect_err("it was owed").contains("500 {"));
        assert_eq!(nothing(true), Ok(()));
    }

    #[test]
    fn the_health_of_what_is_not_there_is_not_told() {
        let mut story = story();
        look(
            &mut story,
            Seen::Health("nobody".into(), 200, Passing, vec![Passing]),
        );
        assert!(
            judged(story)
                .expect_err("it is not there")
                .contains("that nobody is there")
        );
    }
}
