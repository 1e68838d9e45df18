//! What a server tells of the cluster is so (SPEC §6): who leads, who votes and who is alive while all is calm, and at other
//! times at least somebody who has led, and voters that there were; it is ready only if it has just heard of another one;
//! what it counts is what it has applied; and of events it tells those that were fired, each once, those of its own always.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sider_core::registry::CheckStatus;

use super::Violation;
use crate::{
    cluster_reads::{ClusterAsk, ClusterSeen, Counts, EventSeen},
    content::Content,
    history::{Fact, Heard, History, Operation, Outcome, ServerNumber},
    model::State,
    operation::Op,
    promised::{EVENTS_MAX, READY_TIMEOUT},
    time::Time,
    truth::Truth,
};

/// Its name.
pub const NAME: &str = "cluster_api";

/// An event that another server was told of has arrived by then, while all is calm.
const TOLD_WITHIN: Duration = Duration::from_millis(300);

/// See the module's page.
///
/// # Errors
/// A server tells of the cluster what is not so.
pub fn check(history: &History) -> Result<(), Violation> {
    let asked = |it: &&Operation| matches!(it.op, Op::Cluster(_));
    let operations: Vec<&Operation> = history.operations.iter().filter(asked).collect();
    if operations.is_empty() {
        return Ok(());
    }
    let known = Known {
        history,
        memberships: memberships(history),
        fired: fired(&operations),
    };
    for operation in &operations {
        let Some(Content::Cluster(seen)) = operation.answer().and_then(|it| it.content.as_ref()) else {
            continue;
        };
        known.judge(operation, seen).map_err(|what| {
            let what = format!("{} of {}: {what}", operation.op, operation.server);
            Violation::of(NAME, operation.returned, [operation.id], what)
        })?;
    }
    known.times_rise()
}

/// A membership that was committed: since when, and who votes; nobody is named while one gives way to another.
struct Membership {
    since: Time,
    voters: BTreeSet<ServerNumber>,
    is_joint: bool,
}

/// Memberships in the order of the log, each from when on it was first applied.
fn memberships(history: &History) -> Vec<Membership> {
    let mut named: BTreeMap<(u64, u64), (BTreeSet<ServerNumber>, bool)> = BTreeMap::new();
    let mut appended: BTreeMap<ServerNumber, (u64, u64)> = BTreeMap::new();
    for seen in &history.observations {
        match &seen.what {
            Fact::Appended { index, hash, .. } => {
                appended.insert(seen.server, (*index, *hash));
            }
            Fact::Configured { voters, .. } => {
                let all = voters.iter().flatten().map(|disk| disk.server).collect();
                if let Some(entry) = appended.get(&seen.server) {
                    named.insert(*entry, (all, voters.len() > 1));
                }
            }
            _ => {}
        }
    }
    let entries = history.truth().entries.iter();
    entries
        .filter_map(|entry| {
            let (voters, is_joint) = named.get(&(entry.log_index, entry.hash))?.clone();
            let since = entry.applied;
            Some(Membership {
                since,
                voters,
                is_joint,
            })
        })
        .collect()
}

/// An event that a client fired.
struct Fired<'a> {
    operation: &'a Operation,
    name: &'a str,
    payload: &'a str,
    /// As it was answered; empty if it was not.
    id: &'a str,
}

fn fired<'a>(operations: &[&'a Operation]) -> Vec<Fired<'a>> {
    let fire = |operation: &&'a Operation| {
        let Op::Cluster(ClusterAsk::Fire { name, payload }) = &operation.op else {
            return None;
        };
        let id = match operation.answer().map(|it| &it.content) {
            Some(Some(Content::Cluster(ClusterSeen::Fired(id)))) => id,
            _ => "",
        };
        Some(Fired {
            operation,
            name,
            payload,
            id,
        })
    };
    operations.iter().filter_map(fire).collect()
}

struct Known<'a> {
    history: &'a History,
    memberships: Vec<Membership>,
    fired: Vec<Fired<'a>>,
}

impl Known<'_> {
    fn truth(&self) -> &Truth {
        self.history.truth()
    }

    fn judge(&self, operation: &Operation, seen: &ClusterSeen) -> Result<(), String> {
        match seen {
            ClusterSeen::Leader(leader) => self.leads(operation, *leader),
            ClusterSeen::Peers(voters) => self.vote(operation, voters),
            ClusterSeen::Configuration(seats) => {
                let those = |counts: fn(&crate::cluster_reads::Seat) -> bool| {
                    let chosen = seats.iter().filter(|it| counts(it));
                    chosen.map(|it| it.server).collect::<BTreeSet<_>>()
                };
                let leaders = those(|it| it.leads);
                if leaders.len() > 1 {
                    return Err("there are two leaders".into());
                }
                self.leads(operation, leaders.first().copied())?;
                self.vote(operation, &those(|it| it.votes))
            }
            ClusterSeen::Itself {
                leads,
                leader,
                term,
                others,
            } => {
                self.leads(operation, *leader)?;
                self.is_it(operation, *leads)?;
                let expected = self.calm_leader(operation).map(|(_, term)| term);
                if expected.is_some_and(|expected| expected != *term) {
                    return Err(format!("its term is said to be {term}, and is {expected:?}"));
                }
                match self.calm_voters(operation) {
                    Some(voters) if voters.len() as u64 != others + 1 => {
                        Err(format!("{others} others are said to vote, of {}", voters.len()))
                    }
                    _ => Ok(()),
                }
            }
            ClusterSeen::Members(members) => self.alive(operation, members),
            ClusterSeen::Ready(ready) => self.ready(operation, *ready),
            ClusterSeen::Metrics(counts) => {
                self.is_it(operation, counts.leads)?;
                self.counts(operation, counts)
            }
            ClusterSeen::Fired(_) => Ok(()),
            ClusterSeen::Events(index, events) => self.events(operation, *index, events),
        }
    }

    /// Whether all is well for a server all the while that it is asked.
    fn is_calm(&self, operation: &Operation) -> bool {
        self.truth().calm_between(operation.invoked, operation.returned)
            && self.is_sound(operation.server, operation.returned)
    }

    /// Whether a server is a member that nothing is wrong with.
    fn is_sound(&self, server: ServerNumber, at: Time) -> bool {
        self.history.is_member(server, at) == Some(true)
            && !self.history.is_broken(server, at)
            && self.voters_at(at).is_some_and(|voters| voters.contains(&server))
    }

    /// Who leads, and in which term, while all is calm.
    fn calm_leader(&self, operation: &Operation) -> Option<(ServerNumber, u64)> {
        let mut leaders = self.truth().leaders.iter();
        let last = leaders.rfind(|it| it.from <= operation.invoked)?;
        let same = self
            .truth()
            .leaders
            .iter()
            .all(|it| it.from <= operation.invoked || it.from > operation.returned);
        (self.is_calm(operation) && same).then_some((last.server, last.term))
    }

    /// Whether the server that is asked leads all the while: it has connections to all others.
    fn leads_in_calm(&self, operation: &Operation) -> bool {
        self.calm_leader(operation)
            .is_some_and(|(leader, _)| leader == operation.server)
    }

    /// Who votes at a moment, by what was committed; `None` while that changes, and for a while after it.
    fn voters_at(&self, at: Time) -> Option<&BTreeSet<ServerNumber>> {
        let last = self.memberships.iter().rfind(|it| it.since <= at)?;
        let long_ago = last.since + self.history.bounds.settle <= at;
        (long_ago && !last.is_joint).then_some(&last.voters)
    }

    fn calm_voters(&self, operation: &Operation) -> Option<&BTreeSet<ServerNumber>> {
        let voters = self.voters_at(operation.invoked)?;
        let changes = self
            .history
            .observations
            .iter()
            .filter(|seen| matches!(seen.what, Fact::Configured { .. }))
            .any(|seen| {
                operation.invoked <= seen.at + self.history.bounds.settle && seen.at <= operation.returned
            });
        (self.is_calm(operation) && !changes).then_some(voters)
    }

    fn leads(&self, operation: &Operation, told: Option<ServerNumber>) -> Result<(), String> {
        if let Some((leader, _)) = self.calm_leader(operation) {
            return match told == Some(leader) {
                true => Ok(()),
                false => Err(format!("all is calm, and {leader} leads")),
            };
        }
        let Some(told) = told else { return Ok(()) };
        match self.has_led(told, operation.returned) {
            true => Ok(()),
            false => Err(format!("{told} is said to lead, and has never led")),
        }
    }

    /// Whether a server says rightly that it leads itself, or does not.
    fn is_it(&self, operation: &Operation, leads: bool) -> Result<(), String> {
        match self.calm_leader(operation) {
            Some((leader, _)) if leads != (leader == operation.server) => {
                Err(format!("it says that it leads: {leads}; {leader} does"))
            }
            None if leads && !self.has_led(operation.server, operation.returned) => {
                Err("it says that it leads, and has never led".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether a server had led by then, or at least others had taken note that it does.
    fn has_led(&self, server: ServerNumber, until: Time) -> bool {
        let mut seen = self.history.observations.iter().take_while(|it| it.at <= until);
        seen.any(|it| match &it.what {
            Fact::BecameLeader { .. } => it.server == server,
            Fact::VoteSaved {
                voted_for,
                committed: true,
                ..
            } => voted_for.split('#').next() == Some(&server.to_string()),
            _ => false,
        })
    }

    fn vote(&self, operation: &Operation, told: &BTreeSet<ServerNumber>) -> Result<(), String> {
        if let Some(voters) = self.calm_voters(operation) {
            return match told == voters {
                true => Ok(()),
                false => Err(format!("{told:?} are said to vote; {voters:?} do")),
            };
        }
        let mut seen = self
            .history
            .observations
            .iter()
            .take_while(|it| it.at <= operation.returned);
        let named = seen.any(|it| match &it.what {
            Fact::Configured { voters, .. } => {
                let all = voters.iter().flatten().map(|disk| disk.server);
                all.collect::<BTreeSet<_>>() == *told
            }
            _ => false,
        });
        match named || told.is_empty() {
            true => Ok(()),
            false => Err(format!("{told:?} are said to vote, and never did")),
        }
    }

    fn alive(&self, operation: &Operation, told: &BTreeMap<ServerNumber, bool>) -> Result<(), String> {
        let Some(voters) = self.calm_voters(operation) else {
            return Ok(());
        };
        for server in voters {
            let alive = told.get(server).copied();
            let down = self.is_down(*server, operation);
            let sound = !down && self.is_sound(*server, operation.returned);
            match (sound, alive) {
                (_, None) => return Err(format!("{server} is not among them")),
                // Between others a connection may be dead, and nobody has used it since.
                (true, Some(false)) if self.leads_in_calm(operation) => {
                    return Err(format!("{server} is said to have failed, and is well"));
                }
                (_, Some(true)) if down => {
                    return Err(format!("{server} is said to be alive, and is down"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a server's process was down all the while.
    fn is_down(&self, server: ServerNumber, operation: &Operation) -> bool {
        let last = self.history.observations.iter().rfind(|it| {
            it.server == server
                && it.at <= operation.returned
                && matches!(it.what, Fact::Started | Fact::Stopped { .. })
        });
        last.is_some_and(|it| matches!(it.what, Fact::Stopped { .. }) && it.at < operation.invoked)
    }

    fn ready(&self, operation: &Operation, ready: bool) -> Result<(), String> {
        let Some(heard) = operation.heard else {
            return Ok(());
        };
        let mut others = self
            .memberships
            .iter()
            .filter(|it| it.since <= operation.returned);
        let alone = self.memberships.is_empty() || others.next_back().is_none_or(|it| it.voters.len() == 1);
        let was_alone = self.memberships.iter().any(|it| it.voters.len() == 1);
        let confirmed = match heard {
            Heard::Never => false,
            Heard::At(at) => at >= operation.invoked,
        };
        let in_time = operation.returned <= operation.invoked + READY_TIMEOUT;
        match ready {
            true if !confirmed && !alone && !was_alone => Err(format!(
                "it is ready, though nothing came from another server since {heard:?}"
            )),
            false if self.is_calm(operation) && in_time => Err("all is calm, and it is not ready".into()),
            _ => Ok(()),
        }
    }

    /// What is counted is what the server had applied at a moment between request and answer.
    fn counts(&self, operation: &Operation, told: &Counts) -> Result<(), String> {
        let truth = self.truth();
        let (from, until) = (operation.invoked, operation.returned);
        let least = truth.least_applied_at(operation.server, from, until);
        let most = truth.most_applied_at(operation.server, until).max(least);
        let was_so = (least..=most).rev().any(|point| {
            let state = truth.state(point);
            state.index == told.index && counted(&state) == (told.instances.clone(), told.checks.clone())
        });
        match was_so {
            true => Ok(()),
            false => Err(format!("{told:?} was not so of anything that it had applied")),
        }
    }

    fn events(&self, operation: &Operation, index: u64, told: &[EventSeen]) -> Result<(), String> {
        let Op::Cluster(ClusterAsk::Events { name }) = &operation.op else {
            return Ok(());
        };
        let mut ids = BTreeSet::new();
        for event in told {
            let fits = |it: &&Fired<'_>| {
                (it.name, it.payload) == (event.name.as_str(), event.payload.as_str())
                    && it.operation.invoked <= operation.returned
                    && !matches!(it.operation.outcome, Outcome::Failed(_))
                    && (it.id.is_empty() || it.id == event.id)
            };
            if !self.fired.iter().any(|it| fits(&it)) {
                return Err(format!("nobody fired {event:?}"));
            }
            if !ids.insert(&event.id) {
                return Err(format!("it tells twice of {event:?}"));
            }
            if name.as_ref().is_some_and(|name| *name != event.name) {
                return Err(format!("{event:?} is of another name"));
            }
        }
        let newest = told.last().map_or(1, EventSeen::index);
        if index != newest {
            return Err(format!("its index is {index}, should be {newest}"));
        }
        let owed = |it: &&Fired<'_>| {
            !it.id.is_empty()
                && name.as_ref().is_none_or(|name| name == it.name)
                && !ids.contains(&it.id.to_owned())
                && self.is_owed(it, operation)
        };
        match self.fired.iter().find(owed) {
            Some(missing) if self.fired.len() <= EVENTS_MAX => {
                Err(format!("it does not tell of {:?}", missing.payload))
            }
            _ => Ok(()),
        }
    }

    /// Whether a server must have heard of an event when it is asked.
    fn is_owed(&self, fired: &Fired<'_>, operation: &Operation) -> bool {
        let (from, by) = (fired.operation.invoked, fired.operation.returned);
        if fired.operation.server == operation.server {
            let lives = self
                .truth()
                .restarted_between(operation.server, from, operation.returned);
            return by < operation.invoked && !lives;
        }
        by + TOLD_WITHIN + self.history.bounds.latency * 4 <= operation.invoked
            && self.truth().calm_between(from, operation.returned)
            && self.is_sound(operation.server, operation.returned)
            && self.leads_in_calm(fired.operation)
    }

    /// Of two events that one server was given one after the other, the later one is newer by its time, too.
    fn times_rise(&self) -> Result<(), Violation> {
        let mut times: BTreeMap<&str, (u64, &Operation)> = BTreeMap::new();
        for operation in &self.history.operations {
            let seen = operation.answer().and_then(|it| it.content.as_ref());
            if let Some(Content::Cluster(ClusterSeen::Events(_, events))) = seen {
                for event in events {
                    let known = times.entry(&event.id).or_insert((event.ltime, operation));
                    if known.0 != event.ltime {
                        let what = format!("{event:?} had another time, {}", known.0);
                        let operations = [known.1.id, operation.id];
                        return Err(Violation::of(NAME, operation.returned, operations, what));
                    }
                }
            }
        }
        for one in &self.fired {
            for other in &self.fired {
                let (first, second) = (one.operation, other.operation);
                let (Some(before), Some(after)) = (times.get(one.id), times.get(other.id)) else {
                    continue;
                };
                let follows = first.server == second.server
                    && first.returned < second.invoked
                    && !self
                        .truth()
                        .restarted_between(first.server, first.invoked, second.returned);
                if follows && before.0 >= after.0 {
                    let what = format!(
                        "the event {:?} has time {}, and {:?} after it {}",
                        one.payload, before.0, other.payload, after.0
                    );
                    let operations = [first.id, second.id, after.1.id];
                    return Err(Violation::of(NAME, after.1.returned, operations, what));
                }
            }
        }
        Ok(())
    }
}

/// How many instances of each service, and how many checks of each status there are.
fn counted(state: &State) -> (BTreeMap<(String, String), u64>, BTreeMap<String, u64>) {
    let mut instances: BTreeMap<(String, String), u64> = BTreeMap::new();
    for instance in &state.instances {
        let service = (instance.namespace.to_string(), instance.service.to_string());
        *instances.entry(service).or_default() += 1;
    }
    let none = CheckStatus::ALL.map(|status| (status.as_str().to_owned(), 0));
    let mut checks = BTreeMap::from(none);
    for check in &state.checks {
        *checks.entry(check.status.as_str().to_owned()).or_default() += 1;
    }
    (instances, checks)
}

#[cfg(test)]
mod tests;
