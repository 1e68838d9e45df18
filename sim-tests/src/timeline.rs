//! A run in plain words: faults, elections, requests, answers, and what went wrong.

use std::fmt::Write as _;

use sider_core::registry::{Command, Restore};

use crate::{
    content::Content,
    history::{Answer, Fact, History, Outcome},
    invariants::Violation,
    time::Time,
};

/// What happened, one line each, in order; violations stand where they showed. With `all`, also what every server
/// appended and applied.
pub fn timeline(history: &History, violations: &[Violation], all: bool) -> String {
    let mut lines: Vec<(Time, u8, String)> = Vec::new();
    for fault in &history.faults {
        lines.push((fault.from, 0, format!("FAULT     {}", fault.what)));
        lines.push((fault.until, 0, format!("fault over: {}", fault.what)));
    }
    for change in &history.memberships {
        let verb = if change.joins { "join" } else { "leave" };
        lines.push((
            change.invoked,
            2,
            format!("operator  asks {} to {verb}", change.server),
        ));
        lines.push((
            change.returned,
            4,
            format!("operator  hears of {}'s {verb}: {}", change.server, change.answer),
        ));
    }
    for operation in &history.operations {
        let name = format!(
            "#{:<4} c{} → {}",
            operation.id, operation.client, operation.server
        );
        lines.push((operation.invoked, 2, format!("{name}: {}", operation.op)));
        let took = operation.returned.since(operation.invoked);
        lines.push((
            operation.returned,
            4,
            format!("{name}: {} after {took:?}", outcome(&operation.outcome)),
        ));
    }
    for seen in &history.observations {
        if let Some(text) = fact(&seen.what, all) {
            lines.push((seen.at, 3, format!("{:<9} {text}", seen.server.to_string())));
        }
    }
    // What the cluster as a whole did: each entry once, when it was first applied.
    for entry in &history.truth().entries {
        if let Some((command, _)) = &entry.command {
            let text = format!(
                "log       entry {} (index {}) by the leader of term {}: {}",
                entry.log_index,
                entry.state.index,
                entry.term,
                short(command)
            );
            lines.push((entry.applied, 3, text));
        }
    }
    lines.push((
        history.healed,
        1,
        "HEALED    every fault is over, everyone is started".into(),
    ));
    for violation in violations {
        lines.push((violation.at, 5, format!(">>>>>>>>> VIOLATED: {violation}")));
    }
    for (at, what) in &history.panics {
        lines.push((*at, 5, format!(">>>>>>>>> PANIC: {what}")));
    }
    lines.sort_by_key(|line| (line.0, line.1));
    lines.iter().fold(String::new(), |mut text, (at, _, line)| {
        writeln!(text, "{at:>12}  {line}").expect("writing to a String can't fail");
        text
    })
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(answer) => format!("done{}", answered(answer)),
        Outcome::Refused { status, reason } => format!("refused with {status}: {reason}"),
        Outcome::Failed(reason) => format!("failed: {reason}"),
        Outcome::Unknown(reason) => format!("outcome unknown: {reason}"),
        Outcome::Nonsense(reason) => format!("NONSENSE: {reason}"),
    }
}

fn answered(answer: &Answer) -> String {
    let index = answer
        .index
        .map(|index| format!(", index {index}"))
        .unwrap_or_default();
    let content = match &answer.content {
        None => String::new(),
        Some(Content::Instances(instances)) => {
            let each = instances.iter().map(|instance| {
                let checks: Vec<&str> = instance
                    .checks
                    .iter()
                    .map(|check| check.status.as_str())
                    .collect();
                format!(
                    "{} v{} {checks:?}",
                    instance.id,
                    instance.meta.get("version").map_or("-", String::as_str)
                )
            });
            format!(": [{}]", each.collect::<Vec<_>>().join(", "))
        }
        Some(Content::Snapshot(state)) => format!(
            ": index {}, {} nodes, {} instances, {} checks",
            state.index,
            state.nodes.len(),
            state.instances.len(),
            state.checks.len()
        ),
        Some(Content::Checks(checks)) => {
            let each = checks
                .iter()
                .map(|check| format!("{} {}", check.id, check.status.as_str()));
            format!(": [{}]", each.collect::<Vec<_>>().join(", "))
        }
        Some(Content::Services(services)) => format!(": {:?}", services.keys().collect::<Vec<_>>()),
        Some(Content::Nodes(nodes)) => {
            format!(": {:?}", nodes.iter().map(|node| &node.name).collect::<Vec<_>>())
        }
    };
    let refused = answer.refused.iter().filter(|refused| **refused).count();
    let refused = if refused > 0 {
        format!(", {refused} parts refused")
    } else {
        String::new()
    };
    format!("{index}{refused}{content}")
}

fn fact(fact: &Fact, all: bool) -> Option<String> {
    Some(match fact {
        Fact::Started => "starts".into(),
        Fact::Stopped { by_itself: None } => "is down".into(),
        Fact::Stopped {
            by_itself: Some(reason),
        } => format!("stops by itself: {reason}"),
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
        } if all => format!("votes for {voted_for} in term {term}"),
        Fact::Appended { index, term, .. } if all => format!("appends entry {index} of term {term}"),
        Fact::Applied(entry) if all => format!("applies entry {}, index {}", entry.log_index, entry.index),
        Fact::Checkpointed { log_index } if all => format!("has a checkpoint of entry {log_index}"),
        Fact::Purged { upto } if all => format!("purges its log up to entry {upto}"),
        _ => return None,
    })
}

fn short(command: &Command) -> String {
    match command {
        Command::Register(registrations) => {
            let each = registrations.iter().map(|it| match &it.instance {
                Some(instance) => format!(
                    "{} on {} v{}",
                    instance.id,
                    it.node.name,
                    instance.meta.get("version").map_or("-", String::as_str)
                ),
                None => format!("node {}", it.node.name),
            });
            format!("register {}", each.collect::<Vec<_>>().join(", "))
        }
        Command::Deregister(what) => format!("deregister {what:?}"),
        Command::UpdateChecks(updates) => {
            let each = updates.iter().map(|it| match (&it.target, it.status) {
                (sider_core::registry::CheckTarget::Check(key), Some(status)) => {
                    format!("{} {}", key.id, status.as_str())
                }
                (sider_core::registry::CheckTarget::Check(key), None) => format!("output of {}", key.id),
                (sider_core::registry::CheckTarget::TtlChecksOf(key), status) => {
                    format!(
                        "all TTL checks of {} {}",
                        key.id,
                        status.map_or("output", |it| it.as_str())
                    )
                }
            });
            format!("update {}", each.collect::<Vec<_>>().join(", "))
        }
        Command::ExpireChecks(expiries) => {
            let each = expiries
                .iter()
                .map(|it| format!("{} (renewals {})", it.check.id, it.renewals_seen));
            format!("expire {}", each.collect::<Vec<_>>().join(", "))
        }
        Command::Restore(Restore::Stage { restore, part, rows }) => {
            format!("restore {restore:016x}: part {part}, {} bytes", rows.len())
        }
        Command::Restore(Restore::Commit { restore, index, .. }) => {
            format!("restore {restore:016x}: replace the state by that of index {index}")
        }
        Command::Restore(Restore::Discard { restore }) => format!("restore {restore:016x}: give up"),
        Command::RaiseVersion(version) => format!("write commands of version {version}"),
        Command::DeregisterCritical(expiries) => {
            let each = expiries.iter().map(|it| it.check.id.to_string());
            format!(
                "deregister what stayed critical: {}",
                each.collect::<Vec<_>>().join(", ")
            )
        }
        Command::Transact(operations) => {
            let each = operations.iter().map(|it| format!("{it:?}"));
            format!("transact {}", each.collect::<Vec<_>>().join(", "))
        }
        Command::CreateSession(new) => format!("create session {} {}", new.session.name, new.session.id),
        Command::DestroySession(id) => format!("destroy session {id}"),
        Command::RenewSessions(ids) => {
            let each = ids.iter().map(ToString::to_string);
            format!("renew sessions {}", each.collect::<Vec<_>>().join(", "))
        }
        Command::ExpireSessions(expiries) => {
            let each = expiries
                .iter()
                .map(|it| format!("{} (renewals {})", it.session, it.renewals_seen));
            format!("expire sessions {}", each.collect::<Vec<_>>().join(", "))
        }
        Command::EndLockDelays(ends) => {
            let each = ends.iter().map(|it| it.key.to_string());
            format!("let be locked again: {}", each.collect::<Vec<_>>().join(", "))
        }
    }
}
