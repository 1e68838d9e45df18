//! The servers in their own catalog, where they are in it: while it is calm, each member has a node with a passing check and
//! an instance, of these exactly the leader's says that it leads, and who was removed is gone; who is down turns critical
//! within the bound; and nothing is written when there is nothing to say (issue: servers in their own catalog).
//!
//! Who is a member is what the operator was told, and who is down is what was done to the processes.

use std::time::Duration;

use sider_core::registry::{
    Check, CheckDefinitionUpdate, CheckStatus, Command, Deregister, Instance, Registration, ServiceName,
    Session,
};

use super::{Violation, autopilot::down};
use crate::{
    history::{Fact, History, ServerNumber},
    matching::{SHARED_NODE, Source},
    model::State,
    promised::{LEADER_SILENCE_MAX, SERVER_SILENCE_MAX, UPKEEP_INTERVAL},
    time::{Time, drift_of},
    truth::{Point, calm_but_for},
};

/// Its name.
pub const NAME: &str = "servers";

/// The service that the servers are instances of.
pub const SERVICE: &str = "consul";
/// The id of each of these instances.
const INSTANCE: &str = "consul";

/// [`SERVICE`] as a setting.
///
/// # Panics
/// Never: it is a name.
pub fn service() -> ServiceName {
    ServiceName::parse(SERVICE).expect("a constant that is a name")
}

/// Whether a command may be one by which a leader keeps the servers in their catalog.
pub fn is_upkeep(command: &Command) -> bool {
    match command {
        Command::Register(registrations) => registrations.iter().all(is_about_a_server),
        Command::Deregister(Deregister::Node(node)) => ServerNumber::parse(node.as_str()).is_some(),
        Command::Deregister(Deregister::Instance { key, service: None }) => key.id.as_str() == INSTANCE,
        _ => false,
    }
}

fn is_about_a_server(registration: &Registration) -> bool {
    let node = registration.node.name.as_str();
    let checks: Vec<&str> = registration
        .checks
        .iter()
        .map(|check| check.id.as_str())
        .collect();
    let of_servers =
        |instance: &Instance| instance.service.as_str() == SERVICE && instance.id.as_str() == INSTANCE;
    (node == SHARED_NODE || ServerNumber::parse(node).is_some())
        && checks == [Session::NODE_ALIVE]
        && registration.instance.as_ref().is_none_or(of_servers)
}

/// See the module's page.
///
/// # Errors
/// The catalog shows a server as it is not, or is written to for nothing.
pub fn check(history: &History) -> Result<(), Violation> {
    if !history.bounds.servers_listed {
        return Ok(());
    }
    for (from, until) in &history.truth().calm {
        sound_are_shown(history, *from, *until)?;
    }
    for server in history.servers() {
        lost_are_shown(history, server)?;
    }
    nothing_is_written_in_vain(history)?;
    nothing_is_written_from_hearsay(history)
}

/// What the leader needs to see a change and to write it down.
pub(super) fn prompt(history: &History) -> Duration {
    let look = UPKEEP_INTERVAL + drift_of(UPKEEP_INTERVAL, history.bounds.drift_ppm);
    look + history.bounds.latency * 12 + Duration::from_millis(700)
}

/// How long a server may be silent until it is shown as failed.
fn silence(history: &History) -> Duration {
    SERVER_SILENCE_MAX + drift_of(SERVER_SILENCE_MAX, history.bounds.drift_ppm)
}

/// The points of a span from `prompt` after its beginning, and after each restore in it.
pub(super) fn judged(history: &History, from: Time, until: Time) -> Vec<(Point, Time)> {
    let truth = history.truth();
    let restores: Vec<Time> = truth.restored().map(|at| truth.entries[at].applied).collect();
    let settled = |at: Time| {
        let last = restores.iter().filter(|restored| **restored <= at).max();
        last.is_none_or(|restored| *restored + prompt(history) <= at)
    };
    let from = from + prompt(history);
    if from > until {
        return Vec::new();
    }
    let first = truth.applied_until(from);
    let entries = (first..truth.applied_until(until)).map(|at| (at + 1, truth.entries[at].applied));
    let points = [(first, from)].into_iter().chain(entries);
    points.filter(|(_, at)| settled(*at)).collect()
}

fn sound_are_shown(history: &History, from: Time, until: Time) -> Result<(), Violation> {
    let truth = history.truth();
    let points = judged(history, from, until);
    let Some((_, at)) = points.first().copied() else {
        return Ok(());
    };
    // It stays as it is while it is calm: members, leader, and who is up.
    let leader = truth.leaders.iter().rfind(|leader| leader.from <= at);
    let servers = history.servers();
    for (point, at) in points {
        let state = truth.state(point);
        let sure = servers
            .iter()
            .filter(|it| history.is_member(**it, at) == Some(true));
        if sure.count() < 2 {
            // One that is alone is on the node that all share.
            continue;
        }
        for server in &servers {
            match history.is_member(*server, at) {
                Some(true) if !history.is_broken(*server, at) => is_shown(&state, *server, at)?,
                Some(false) if history.bounds.first_voters.len() > 1 => is_not_shown(&state, *server, at)?,
                _ => {}
            }
        }
        let told: Vec<&str> = instances(&state)
            .filter(|it| it.meta.get("leader").is_some_and(|leads| leads == "true"))
            .map(|it| it.node.as_str())
            .collect();
        // One that removes itself leads until that is done, and is shown no more.
        let leads = leader
            .filter(|leader| history.is_member(leader.server, at) == Some(true))
            .map(|leader| leader.server.to_string());
        if leads.is_some_and(|leads| told != [leads.as_str()]) {
            let leads = leader.map_or_else(String::new, |leader| leader.server.to_string());
            let what = format!("{leads} leads, and the catalog says that {told:?} do");
            return Err(Violation::new(NAME, at, what));
        }
    }
    Ok(())
}

fn instances(state: &State) -> impl Iterator<Item = &Instance> {
    let of_servers = |it: &&Instance| it.service.as_str() == SERVICE && it.id.as_str() == INSTANCE;
    state.instances.iter().map(AsRef::as_ref).filter(of_servers)
}

fn alive(state: &State, server: ServerNumber) -> Option<&Check> {
    let node = server.to_string();
    let checks = state.checks.iter().map(AsRef::as_ref);
    let mut of_server = checks.filter(|it: &&Check| it.node.as_str() == node && it.instance.is_none());
    of_server.find(|it| it.id.as_str() == Session::NODE_ALIVE)
}

fn is_shown(state: &State, server: ServerNumber, at: Time) -> Result<(), Violation> {
    let node = server.to_string();
    let status = alive(state, server).map(|check| check.status);
    if status != Some(CheckStatus::Passing) {
        let shown = status.map_or("not there", CheckStatus::as_str);
        let what = format!("{server} is up and a member, and its check is {shown}");
        return Err(Violation::new(NAME, at, what));
    }
    if !instances(state).any(|it| it.node.as_str() == node) {
        let what = format!("{server} is a member, and no instance of {SERVICE}");
        return Err(Violation::new(NAME, at, what));
    }
    Ok(())
}

fn is_not_shown(state: &State, server: ServerNumber, at: Time) -> Result<(), Violation> {
    let node = server.to_string();
    if state.nodes.iter().any(|it| it.name.as_str() == node) {
        let what = format!("{server} is no member any more, and in the catalog");
        return Err(Violation::new(NAME, at, what));
    }
    Ok(())
}

/// Looks at a server whenever it is down and all is calm but for that.
fn lost_are_shown(history: &History, server: ServerNumber) -> Result<(), Violation> {
    let truth = history.truth();
    let down = down(history, server);
    if down.is_empty() {
        return Ok(());
    }
    for (from, until) in calm_but_for(history, Some(server)) {
        for (stopped, started) in &down {
            let due = from.max(*stopped) + silence(history) + prompt(history);
            if due > until.min(*started) || history.is_member(server, due) != Some(true) {
                continue;
            }
            if !others_are_enough(history, server, due) {
                continue;
            }
            let state = truth.state(truth.applied_until(due));
            let status = alive(&state, server).map(|check| check.status);
            let restored = |at: usize| (*stopped..=due).contains(&truth.entries[at].applied);
            if status != Some(CheckStatus::Critical) && !truth.restored().any(restored) {
                let shown = status.map_or("not there", CheckStatus::as_str);
                let what = format!("{server} is down since {stopped}, and its check is {shown}");
                return Err(Violation::new(NAME, due, what));
            }
        }
    }
    Ok(())
}

/// Whether a majority of the members is left without this one: else nobody can write that it is down.
fn others_are_enough(history: &History, server: ServerNumber, at: Time) -> bool {
    let mut members = history.servers();
    members.retain(|it| history.is_member(*it, at) != Some(false));
    let sound = |it: &&ServerNumber| **it != server && !history.is_broken(**it, at);
    members.iter().filter(sound).count() * 2 > members.len()
}

/// When it has been calm for so long that every server is shown as it is, nothing more is written.
fn nothing_is_written_in_vain(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    for (from, until) in &truth.calm {
        let settled = *from + silence(history) + prompt(history);
        for (point, at) in judged(history, *from, *until) {
            let Some(written) = point.checked_sub(1) else {
                continue;
            };
            if truth.sources[written] != Source::Upkeep || truth.entries[written].appended < *from {
                continue;
            }
            let entry = &truth.entries[written];
            let changed = entry.expected.as_ref().is_some_and(|(_, changed)| *changed);
            if !changed || (at > settled && at == entry.applied && !moved_since(history, *from, at)) {
                let what = format!("entry {} writes of servers what was so before", entry.log_index);
                return Err(Violation::new(NAME, at, what));
            }
        }
    }
    Ok(())
}

/// At any time: a leader shows no server as alive again that was down all through its term, and none with a vote that nobody
/// ever gave it.
fn nothing_is_written_from_hearsay(history: &History) -> Result<(), Violation> {
    let truth = history.truth();
    for (written, entry) in truth.entries.iter().enumerate() {
        let Some((Command::Register(registrations), _)) = &entry.command else {
            continue;
        };
        if truth.sources[written] != Source::Upkeep {
            continue;
        }
        for registration in registrations {
            let Some(server) = ServerNumber::parse(registration.node.name.as_str()) else {
                continue;
            };
            let what = if rises_unheard(history, written, server, registration) {
                "was down since before its leader's election, and is alive again"
            } else if falls_unheard(history, written, registration) {
                "is shown as failed by a leader that had heard of no majority for long"
            } else if votes_unasked(history, entry.log_index, server, registration) {
                "has a vote that it was never given"
            } else {
                continue;
            };
            let what = format!("{server} {what} by entry {}", entry.log_index);
            return Err(Violation::new(NAME, entry.applied, what));
        }
    }
    Ok(())
}

/// Whether a registration makes a server passing of which its leader can't have heard.
fn rises_unheard(
    history: &History,
    written: Point,
    server: ServerNumber,
    registration: &Registration,
) -> bool {
    let truth = history.truth();
    let entry = &truth.entries[written];
    let passing = |check: &CheckDefinitionUpdate| check.status == Some(CheckStatus::Passing);
    let before = truth.state(written);
    let rises = registration.checks.iter().any(passing)
        && alive(&before, server).is_some_and(|check| check.status == CheckStatus::Critical);
    let leader = truth.leaders.iter().find(|leader| leader.term == entry.term);
    let is_unheard = |(stopped, started): &(Time, Time)| {
        leader.is_some_and(|leader| *stopped + prompt(history) <= leader.from) && entry.appended < *started
    };
    rises && down(history, server).iter().any(is_unheard)
}

/// Whether a registration makes a server critical whose leader had no majority any more when it wrote that, because the others
/// were down or stood still: who hears nobody says more about himself.
fn falls_unheard(history: &History, written: Point, registration: &Registration) -> bool {
    let truth = history.truth();
    let entry = &truth.entries[written];
    let critical = |check: &CheckDefinitionUpdate| check.status == Some(CheckStatus::Critical);
    let Some(leader) = truth.leaders.iter().find(|leader| leader.term == entry.term) else {
        return false;
    };
    let known = LEADER_SILENCE_MAX + drift_of(LEADER_SILENCE_MAX, history.bounds.drift_ppm);
    let since = entry.appended - known - prompt(history);
    let members = history.servers();
    let members = members
        .iter()
        .filter(|it| history.is_member(**it, since) != Some(false));
    let gone = |server: &ServerNumber| {
        let paused = truth.pauses.iter().filter(|(whose, ..)| whose == server);
        let away = paused
            .map(|(_, from, to)| (*from, *to))
            .chain(down(history, *server));
        let mut away = away.filter(|(from, until)| *from <= since && *until >= entry.appended);
        *server != leader.server && away.next().is_some()
    };
    let (all, here) = members.fold((0, 0), |(all, here), server| {
        (all + 1, here + usize::from(!gone(server)))
    });
    registration.checks.iter().any(critical) && since > leader.from && here * 2 <= all
}

/// Whether a registration says that a server votes which is in no configuration until then.
fn votes_unasked(
    history: &History,
    log_index: u64,
    server: ServerNumber,
    registration: &Registration,
) -> bool {
    let votes = |instance: &Instance| instance.meta.get("non_voter").is_some_and(|it| it == "false");
    let is_named = |fact: &Fact| match fact {
        Fact::Configured {
            log_index: at,
            voters,
        } => *at < log_index && voters.iter().flatten().any(|disk| disk.server == server),
        _ => false,
    };
    registration.instance.as_ref().is_some_and(votes)
        && !history.bounds.first_voters.contains(&server)
        && !history.observations.iter().any(|seen| is_named(&seen.what))
}

/// Whether there was something to write since then: a restore took things back, or a member came, went or got its vote.
fn moved_since(history: &History, from: Time, until: Time) -> bool {
    let truth = history.truth();
    let mut restored = truth.restored();
    let mut seen = history.observations.iter();
    restored.any(|at| (from..=until).contains(&truth.entries[at].applied))
        || seen.any(|seen| (from..=until).contains(&seen.at) && matches!(seen.what, Fact::Configured { .. }))
}

#[cfg(test)]
mod tests {
    use sider_core::registry::{
        CheckDefinition, CheckId, InstanceId, Keeps, Namespace, Node, NodeName, Weights,
    };

    use super::{super::story::Story, *};

    const ALL_WELL: [(u8, CheckStatus); 3] = [
        (1, CheckStatus::Passing),
        (2, CheckStatus::Passing),
        (3, CheckStatus::Passing),
    ];

    fn registration(server: u8, leads: bool, status: CheckStatus) -> Registration {
        let name = NodeName::parse(&format!("s{server}")).expect("a name");
        let instance = Instance {
            namespace: Namespace::default(),
            node: name.clone(),
            id: InstanceId::parse(INSTANCE).expect("a name"),
            service: service(),
            address: String::new(),
            port: 1,
            tags: vec![],
            meta: [("leader".to_owned(), leads.to_string())].into(),
            weights: Weights::default(),
            tagged_addresses: Default::default(),
            enable_tag_override: false,
            create_index: 0,
            modify_index: 0,
            extras: None,
        };
        let alive = CheckDefinitionUpdate {
            id: CheckId::parse(Session::NODE_ALIVE).expect("a name"),
            namespace: Namespace::default(),
            node: name.clone(),
            name: "alive".into(),
            instance: None,
            definition: CheckDefinition::default(),
            status: Some(status),
            output: String::new(),
            notes: String::new(),
        };
        Registration {
            node: Node::plain(name, "10.0.0.1"),
            keeps: Keeps::Nothing,
            instance: Some(instance),
            checks: vec![alive],
            replace_checks: false,
        }
    }

    fn shown(servers: &[(u8, CheckStatus)], leader: u8) -> Command {
        let each = servers
            .iter()
            .map(|(server, status)| registration(*server, *server == leader, *status));
        Command::Register(each.collect())
    }

    /// Three servers that are all well, and shown like this.
    fn story(servers: &[(u8, CheckStatus)], leader: u8) -> Story {
        let mut story = Story::new();
        story.record().bounds.servers_listed = true;
        story.record().bounds.first_voters = (1..=3).map(ServerNumber).collect();
        story.wait_ms(100);
        story.commit(shown(servers, leader));
        story.wait_ms(10_000);
        story
    }

    fn complaint(story: Story) -> String {
        check(&story.finish())
            .expect_err("the servers are not shown as they are")
            .what
    }

    #[test]
    fn servers_that_are_shown_as_they_are_are_fine() {
        assert_eq!(check(&story(&ALL_WELL, 1).finish()), Ok(()));
        let mut unlisted = Story::new();
        unlisted.wait_ms(10_000);
        assert_eq!(check(&unlisted.finish()), Ok(()));
    }

    #[test]
    fn a_sound_server_that_is_shown_as_failed_is_not() {
        let mut servers = ALL_WELL;
        servers[1].1 = CheckStatus::Critical;
        assert_eq!(
            complaint(story(&servers, 1)),
            "s2 is up and a member, and its check is critical"
        );
    }

    #[test]
    fn a_member_that_is_not_there_is_not() {
        assert!(
            complaint(story(&ALL_WELL[..2], 1)).contains("s3 is up and a member, and its check is not there")
        );
    }

    #[test]
    fn another_leader_than_the_one_that_leads_is_not() {
        assert!(complaint(story(&ALL_WELL, 2)).contains("s1 leads, and the catalog says"));
        assert!(complaint(story(&ALL_WELL, 9)).contains("s1 leads, and the catalog says"));
    }

    /// A server is removed, at once.
    fn removes(story: &mut Story, server: u8) {
        let change = crate::history::MembershipChange {
            invoked: story.now(),
            returned: story.now(),
            server: ServerNumber(server),
            joins: false,
            done: Some(true),
            answer: String::new(),
        };
        story.record().memberships.push(change);
    }

    #[test]
    fn a_removed_server_that_stays_is_not() {
        let mut story = story(&ALL_WELL, 1);
        removes(&mut story, 3);
        story.wait_ms(10_000);
        assert_eq!(complaint(story), "s3 is no member any more, and in the catalog");
    }

    #[test]
    fn a_leader_that_removes_itself_need_not_be_shown() {
        let mut story = story(&ALL_WELL, 1);
        removes(&mut story, 1);
        let node = NodeName::parse("s1").expect("a name");
        story.commit(Command::Deregister(Deregister::Node(node)));
        story.wait_ms(10_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    fn loses_the_third() -> Story {
        let mut story = story(&ALL_WELL, 1);
        story.observe(3, Fact::Stopped { by_itself: None });
        story
    }

    #[test]
    fn nobody_can_show_a_loss_without_a_majority() {
        let mut story = loses_the_third();
        story.fault(crate::history::FaultKind::Lasting, 2, 0);
        story.wait_ms(10_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    /// A server is lost for good, and shown so.
    fn shows_the_loss() -> (Story, [(u8, CheckStatus); 3]) {
        let mut story = loses_the_third();
        // Whoever is down for good is not among those that must be shown as passing.
        story.fault(crate::history::FaultKind::Lasting, 3, 0);
        story.wait_ms(4_500);
        let mut servers = ALL_WELL;
        servers[2].1 = CheckStatus::Critical;
        story.commit(shown(&servers[2..], 1));
        (story, servers)
    }

    #[test]
    fn a_lost_server_that_turns_critical_in_time_is_fine() {
        let (mut story, _) = shows_the_loss();
        story.wait_ms(10_000);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn a_lost_server_that_stays_passing_is_not() {
        let mut story = loses_the_third();
        story.wait_ms(10_000);
        assert!(complaint(story).contains("s3 is down since"));
    }

    #[test]
    fn writing_the_same_again_is_not() {
        let mut story = story(&ALL_WELL, 1);
        story.commit(shown(&ALL_WELL, 1));
        story.wait_ms(1_000);
        assert!(complaint(story).contains("writes of servers what was so before"));
    }

    #[test]
    fn going_to_and_fro_is_not() {
        let mut story = story(&ALL_WELL, 1);
        let mut again = shown(&ALL_WELL, 1);
        if let Command::Register(registrations) = &mut again {
            registrations[0].node.address = "10.0.0.9".into();
        }
        story.commit(again);
        story.wait_ms(1_000);
        assert!(complaint(story).contains("writes of servers what was so before"));
    }

    #[test]
    fn a_new_leader_that_takes_the_dead_for_alive_is_not() {
        let verdict = |status: CheckStatus| {
            let (mut story, mut servers) = shows_the_loss();
            story.wait_ms(5_000);
            story.elect(2, 2);
            servers[2].1 = status;
            story.commit(shown(&servers, 2));
            check(&story.finish()).map_err(|violation| violation.what)
        };
        assert_eq!(verdict(CheckStatus::Critical), Ok(()));
        let complaint = verdict(CheckStatus::Passing).expect_err("nobody heard of it");
        assert!(complaint.contains("was down since before its leader's election"));
    }

    #[test]
    fn a_leader_that_heard_of_no_majority_shows_nobody_as_failed() {
        let verdict = |away: &[u8], for_ms: u64, status: CheckStatus| {
            let mut story = story(&ALL_WELL, 1);
            for server in away {
                story.observe(*server, Fact::Stopped { by_itself: None });
            }
            story.wait_ms(for_ms);
            let mut servers = ALL_WELL;
            servers[2].1 = status;
            story.commit(shown(&servers, 1));
            nothing_is_written_from_hearsay(&story.finish()).map_err(|violation| violation.what)
        };
        let complaint = verdict(&[2, 3], 20_000, CheckStatus::Critical).expect_err("it hears nobody");
        assert!(complaint.contains("heard of no majority"), "{complaint}");
        // It still has one, it can't know yet, and it says nothing of the kind.
        assert_eq!(verdict(&[3], 20_000, CheckStatus::Critical), Ok(()));
        assert_eq!(verdict(&[2, 3], 10, CheckStatus::Critical), Ok(()));
        assert_eq!(verdict(&[2], 20_000, CheckStatus::Passing), Ok(()));
    }

    #[test]
    fn a_vote_that_nobody_gave_is_not() {
        let mut story = Story::new();
        story.record().bounds.servers_listed = true;
        story.record().bounds.first_voters = (1..=3).map(ServerNumber).collect();
        story.wait_ms(100);
        let mut fourth = registration(4, false, CheckStatus::Passing);
        let instance = fourth.instance.as_mut().expect("it has one");
        instance.meta.insert("non_voter".to_owned(), "false".to_owned());
        story.commit(Command::Register(vec![fourth]));
        assert!(complaint(story).contains("s4 has a vote that it was never given"));
    }
}
