//! What happened, in plain words: commands, answers, and what servers do. Timelines, pages and comparisons share them.

use std::{fmt::Display, time::Duration};

use sider_core::{
    observe::Observation,
    registry::{CheckTarget, CheckUpdate, Command, Deregister, Operation, Registration, SessionId},
};
use sider_runtime_sim::TraceLine;

use crate::{
    content::{CheckSeen, Content, InstanceSeen},
    history::{Answer, Fact, Outcome},
    time::Time,
};

/// A span of time, with three digits: `7.27 ms`.
pub fn span(span: Duration) -> String {
    let ns = span.as_nanos() as f64;
    let (number, unit) = match ns {
        ns if ns >= 1e9 => (ns / 1e9, "s"),
        ns if ns >= 1e6 => (ns / 1e6, "ms"),
        ns if ns >= 1e3 => (ns / 1e3, "µs"),
        ns => (ns, "ns"),
    };
    let digits = match number {
        number if number >= 100.0 => 0,
        number if number >= 10.0 => 1,
        _ => 2,
    };
    format!("{number:.digits$} {unit}")
}

/// Things one after the other: `a, b, c`.
pub fn list<T: Display>(things: impl IntoIterator<Item = T>) -> String {
    let each: Vec<String> = things.into_iter().map(|it| it.to_string()).collect();
    each.join(", ")
}

/// A line of the trace, with the names of the machines.
pub fn traced(line: &TraceLine, hosts: &[String]) -> String {
    let name = |number: usize| hosts.get(number).map_or("somebody", String::as_str);
    let host = line.host.map_or("-", |host| name(host.index()));
    let mut parts = line.text.split("host ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|it: char| !it.is_ascii_digit()).unwrap_or(part.len());
        match part[..digits].parse() {
            Ok(number) => text += name(number),
            Err(_) => text += "host ",
        }
        text += &part[digits..];
    }
    let at = Time(0) + line.at;
    format!("{at:>12} {host:<9} {}: {text}", line.kind)
}

/// What came of an operation.
pub fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(answer) => format!("done{}", answered(answer)),
        Outcome::Refused { status, reason } => format!("refused with {status}: {reason}"),
        Outcome::Failed(reason) => format!("failed, certainly nothing was done: {reason}"),
        Outcome::Unknown(reason) => {
            format!(
                "outcome unknown: {}",
                reason.strip_prefix("outcome unknown: ").unwrap_or(reason)
            )
        }
        Outcome::Nonsense(reason) => format!("NONSENSE: {reason}"),
    }
}

fn answered(answer: &Answer) -> String {
    let index = answer
        .index
        .map(|index| format!(", index {index}"))
        .unwrap_or_default();
    let content = answer
        .content
        .as_ref()
        .map(|content| format!(": {}", self::content(content)));
    let refused = match answer.refused.iter().filter(|refused| **refused).count() {
        0 => String::new(),
        1 => ", 1 part refused".into(),
        parts => format!(", {parts} parts refused"),
    };
    format!("{index}{refused}{}", content.unwrap_or_default())
}

/// What a client reads.
pub fn content(content: &Content) -> String {
    let text = match content {
        Content::Instances(instances) => list(instances.iter().map(instance)),
        Content::Snapshot(state) => format!(
            "index {}, {} nodes, {} instances, {} checks",
            state.index,
            state.nodes.len(),
            state.instances.len(),
            state.checks.len()
        ),
        Content::Checks(checks) => list(checks.iter().map(check)),
        Content::Services(services) => list(services.keys()),
        Content::Nodes(nodes) => list(nodes.iter().map(|node| &node.name)),
        Content::NodeServices(None) => String::new(),
        Content::NodeServices(Some(found)) => {
            let (node, instances) = &**found;
            format!("{} with {}", node.name, list(instances.iter().map(instance)))
        }
        Content::Keys(keys) => list(keys.iter().map(|held| &held.key)),
        Content::Given(given) => list(given),
        Content::KeyNames(names) => list(names),
        Content::Sessions(sessions) => list(sessions.iter().map(|session| &session.name)),
        Content::Agent(seen) => seen.to_string(),
        Content::Cluster(seen) => seen.to_string(),
        Content::Flag(done) => done.to_string(),
        Content::Created(id) => id.clone(),
        Content::Queries(queries) => list(queries.iter().map(query)),
        Content::Roots(found) => list(found.iter().map(|roots| &roots.trust_domain)),
        Content::Query(None) => "no such query".into(),
        Content::Query(Some(definition)) => query(definition),
        Content::Executed {
            service, instances, ..
        } => format!("of {service}: {}", list(instances.iter().map(instance))),
    };
    if text.is_empty() { "nothing".into() } else { text }
}

fn instance(instance: &InstanceSeen) -> String {
    let version = instance
        .meta
        .get("version")
        .map_or(String::new(), |version| format!(" v{version}"));
    let statuses = list(instance.checks.iter().map(|check| check.status.as_str()));
    if statuses.is_empty() {
        format!("{}{version}", instance.id)
    } else {
        format!("{}{version} ({statuses})", instance.id)
    }
}

/// A prepared query's definition: its name, and the version that tells it from others.
fn query(definition: &serde_json::Value) -> String {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "{:?} v{}",
        text(&definition["Name"]),
        text(&definition["DNS"]["TTL"])
    )
}

fn check(check: &CheckSeen) -> String {
    format!("{} {}", check.id, check.status.as_str())
}

/// What a server did. What only fills the page is told with `all` alone.
pub fn fact(fact: &Fact, all: bool) -> Option<String> {
    Some(match fact {
        Fact::Started => "starts".into(),
        Fact::Stopped { by_itself: None } => "is down".into(),
        Fact::Stopped {
            by_itself: Some(reason),
        } => format!("stops by itself: {reason}"),
        Fact::Wiped => "has an empty disk from now on".into(),
        Fact::Identified { disk } if all => format!("is on disk {:016x}", disk.id),
        Fact::Paused => "stands still".into(),
        Fact::Resumed => "goes on".into(),
        Fact::BecameLeader { term } => format!("LEADS term {term}"),
        Fact::LostLeadership { term } => format!("leads no more; it knows term {term}"),
        Fact::Truncated { after } => format!("takes back its log after entry {after}"),
        Fact::SnapshotInstalled { log_index, index, .. } => {
            format!("installs a snapshot of entry {log_index}, index {index}")
        }
        Fact::VoteSaved {
            term,
            voted_for,
            committed: false,
        } if all => format!("votes for {} in term {term}", by_name(voted_for)),
        Fact::VoteSaved {
            term,
            voted_for,
            committed: true,
        } if all => format!("takes note that {} leads term {term}", by_name(voted_for)),
        Fact::Appended { index, term, .. } if all => format!("appends entry {index} of term {term}"),
        Fact::Applied(entry) if all => {
            let command = entry.command.as_ref().map_or(String::new(), |(command, _)| {
                format!(": {}", self::command(command))
            });
            format!(
                "applies entry {}, index {}{command}",
                entry.log_index, entry.index
            )
        }
        Fact::Checkpointed { log_index } if all => format!("has a checkpoint of entry {log_index}"),
        Fact::Purged { upto } if all => format!("purges its log up to entry {upto}"),
        _ => return None,
    })
}

/// The server of a member's name.
fn by_name(member: &str) -> &str {
    member.split('#').next().unwrap_or(member)
}

/// What a server tells of itself, all of it.
pub fn observation(observation: &Observation<'_>) -> String {
    match observation {
        Observation::Synced { entries, took } => {
            format!("has {entries} more entries on disk, after {}", span(*took))
        }
        Observation::ExpiryProposed { checks } => format!("proposes to expire {checks} checks"),
        other => Fact::of(other)
            .and_then(|it| fact(&it, true))
            .unwrap_or_else(|| "tells something that only metrics care about".into()),
    }
}

/// What a log entry says. Keys of the servers' own begin with a byte that nobody wants to see in a text.
pub fn command(command: &Command) -> String {
    said(command).replace('\0', "\\0")
}

fn said(command: &Command) -> String {
    match command {
        Command::Register(registrations) => {
            format!("register {}", list(registrations.iter().map(registered)))
        }
        Command::Deregister(what) => format!("deregister {}", deregistered(what)),
        Command::UpdateChecks(updates) => format!("update {}", list(updates.iter().map(updated))),
        Command::ExpireChecks(expiries) => {
            let each = expiries
                .iter()
                .map(|it| format!("{} if still renewed {} times", it.check.id, it.renewals_seen));
            format!("expire {}", list(each))
        }
        Command::Restore(sider_core::registry::Restore::Stage { restore, part, rows }) => {
            format!("restore {restore:016x}: part {part}, {} bytes", rows.len())
        }
        Command::Restore(sider_core::registry::Restore::Commit { restore, index, .. }) => {
            format!("restore {restore:016x}: replace the state by that of index {index}")
        }
        Command::Restore(sider_core::registry::Restore::Discard { restore }) => {
            format!("restore {restore:016x}: give up")
        }
        Command::RaiseVersion(version) => format!("write commands of version {version}"),
        Command::DeregisterCritical(expiries) => {
            format!(
                "deregister what stayed critical: {}",
                list(expiries.iter().map(|it| &it.check.id))
            )
        }
        Command::Transact(operations) => format!("transact {}", list(operations.iter().map(operation))),
        Command::CreateSession(new) => format!("create session {} {}", new.session.name, new.session.id),
        Command::DestroySession(id) => format!("destroy session {id}"),
        Command::RenewSessions(ids) => format!("renew sessions {}", list(ids)),
        Command::ExpireSessions(expiries) => {
            let each = expiries
                .iter()
                .map(|it| format!("{} if still renewed {} times", it.session, it.renewals_seen));
            format!("expire sessions {}", list(each))
        }
        Command::EndLockDelays(ends) => {
            format!("let be locked again: {}", list(ends.iter().map(|it| &it.key)))
        }
    }
}

/// An operation of a transaction.
fn operation(operation: &Operation) -> String {
    let holder = |session: &Option<SessionId>| session.as_ref().map_or("nobody".into(), ToString::to_string);
    match operation {
        Operation::SetKey(write) => format!("set {}", write.key),
        Operation::SetKeyIf(write, index) => format!("set {} if of index {index}", write.key),
        Operation::Lock(write, session) => format!("lock {} for {}", write.key, holder(session)),
        Operation::Unlock(write, session) => format!("unlock {} of {}", write.key, holder(session)),
        Operation::DeleteKey(key) => format!("delete {key}"),
        Operation::DeleteKeyIf(key, index) => format!("delete {key} if of index {index}"),
        Operation::DeleteTree(prefix) => format!("delete all below {prefix}"),
        Operation::GetKey(key) | Operation::GetKeyOrEmpty(key) => format!("get {key}"),
        Operation::GetTree(prefix) => format!("get all below {prefix}"),
        Operation::CheckIndex(key, index) => format!("{key} must be of index {index}"),
        Operation::CheckSession(key, session) => format!("{key} must be held by {}", holder(session)),
        Operation::CheckNotExists(key) => format!("{key} must not be there"),
        Operation::DestroySession(session) => format!("destroy session {session}"),
        Operation::GetNode(node) => format!("get node {node}"),
        Operation::SetNode(node) => format!("set node {}", node.name),
        Operation::SetNodeIf(node, index) => format!("set node {} if of index {index}", node.name),
        Operation::DeleteNode(node) => format!("delete node {node}"),
        Operation::DeleteNodeIf(node, index) => format!("delete node {node} if of index {index}"),
        Operation::GetInstance(key) => format!("get {} on {}", key.id, key.node),
        Operation::SetInstance(it) => format!("set {} on {}", it.id, it.node),
        Operation::SetInstanceIf(it, index) => format!("set {} on {} if of index {index}", it.id, it.node),
        Operation::DeleteInstance(key) => format!("delete {} on {}", key.id, key.node),
        Operation::DeleteInstanceIf(key, index) => {
            format!("delete {} on {} if of index {index}", key.id, key.node)
        }
        Operation::GetCheck(key) => format!("get check {} on {}", key.id, key.node),
        Operation::SetCheck(it) => format!("set check {}", it.id),
        Operation::SetCheckIf(it, index) => format!("set check {} if of index {index}", it.id),
        Operation::DeleteCheck(key) => format!("delete check {} on {}", key.id, key.node),
        Operation::DeleteCheckIf(key, index) => {
            format!("delete check {} on {} if of index {index}", key.id, key.node)
        }
    }
}

fn registered(it: &Registration) -> String {
    match &it.instance {
        Some(instance) => {
            let version = instance
                .meta
                .get("version")
                .map_or(String::new(), |version| format!(" v{version}"));
            format!("{}{version} on {}", instance.id, it.node.name)
        }
        None => format!("node {}", it.node.name),
    }
}

fn deregistered(what: &Deregister) -> String {
    match what {
        Deregister::Node(node) => format!("node {node}"),
        Deregister::Instance { key, service: None } => format!("{} on {}", key.id, key.node),
        Deregister::Instance {
            key,
            service: Some(service),
        } => format!("{} on {} if of {service}", key.id, key.node),
        Deregister::Check(key) => format!("check {} on {}", key.id, key.node),
    }
}

fn updated(it: &CheckUpdate) -> String {
    match (&it.target, it.status) {
        (CheckTarget::Check(key), Some(status)) => format!("{} {}", key.id, status.as_str()),
        (CheckTarget::Check(key), None) => format!("output of {}", key.id),
        (CheckTarget::TtlChecksOf(key), status) => {
            format!(
                "all TTL checks of {} {}",
                key.id,
                status.map_or("output", |it| it.as_str())
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_three_digits_and_a_unit() {
        for (ns, words) in [
            (7, "7.00 ns"),
            (911_279, "911 µs"),
            (7_272_208, "7.27 ms"),
            (42_000_000, "42.0 ms"),
            (1_331_271_132, "1.33 s"),
        ] {
            assert_eq!(span(Duration::from_nanos(ns)), words);
        }
    }
}
