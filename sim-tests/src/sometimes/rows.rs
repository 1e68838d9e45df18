//! The rows of the table: each counts one situation in a run's history.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sider_core::registry::{Command, Refusal, Reply};

use super::{HowOften, Situation, autopilot, catalog, prepared, shown, streams, whole};
use crate::{
    history::{Disk, Fact, FaultSpan, History, MembershipChange, Observed, Operation, Outcome, ServerNumber},
    invariants::watches::{self, Bound},
    operation::{Freshness, Op, ReportForm, Target},
    time::Time,
    truth::Entry,
};

macro_rules! table {
    ($($often:ident $name:literal: $count:expr;)*) => {
        /// All situations, by what they are about.
        pub static TABLE: &[Situation] = &[
            $(Situation { name: $name, how_often: HowOften::$often, count: $count },)*
        ];
    };
}

table! {
    // Elections.
    Usual "another leader is elected": |h| leaderships(h).len().saturating_sub(1) as u64;
    Usual "a third leader is elected": |h| leaderships(h).len().saturating_sub(2) as u64;
    Usual "two candidates vote for themselves in one term": split_votes;
    Usual "two servers take themselves for the leader": two_leaders;
    Usual "a server crashes right after it saved a vote": |h| {
        pairs(h, Duration::from_millis(100), |a| matches!(a, Fact::VoteSaved { committed: false, .. }), is_stop)
    };
    Usual "a leader crashes": |h| each(h, |seen| is_stop(&seen.what) && leader_at(h, seen.at) == Some(seen.server));
    Usual "a leader stands still and another one is elected": leader_paused_out;
    Usual "a new leader commits what an old one left": inherited;
    Usual "leadership is handed on": |h| {
        h.faults.iter().filter(|it| it.what.contains("leadership is handed") && elected_within(h, it, 1_000)).count() as u64
    };
    Usual "a server takes back entries that were never committed": taken_back;

    // Disks.
    Usual "a checkpoint is made": |h| each(h, |seen| matches!(seen.what, Fact::Checkpointed { .. }));
    Usual "a crash interrupts a checkpoint": interrupted_checkpoints;
    Usual "the log is purged": |h| each(h, |seen| matches!(seen.what, Fact::Purged { .. }));
    Usual "a crash right after a purge": |h| {
        pairs(h, Duration::from_millis(200), |a| matches!(a, Fact::Purged { .. }), is_stop)
    };
    Usual "a server starts from its checkpoint": |h| each(h, |seen| matches!(seen.what, Fact::Restored { .. }));
    Usual "a server applies entries behind its restored checkpoint": |h| {
        pairs(h, Duration::from_secs(5), |a| matches!(a, Fact::Restored { .. }), |b| matches!(b, Fact::Applied(_)))
    };
    Usual "a server installs a snapshot": |h| installs(h).count() as u64;
    Usual "a server installs a snapshot while watchers wait there": |h| {
        installs(h).filter(|seen| waiting_at(h, seen).next().is_some()).count() as u64
    };
    Usual "a server installs a snapshot while another one is elected": |h| {
        installs(h).filter(|seen| leaderships(h).iter().any(|it| near(it.1, seen.at, 500))).count() as u64
    };
    Rare "a server installs a snapshot twice": |h| {
        let mut of_server: BTreeMap<ServerNumber, u64> = BTreeMap::new();
        installs(h).for_each(|seen| *of_server.entry(seen.server).or_default() += 1);
        of_server.values().filter(|count| **count > 1).count() as u64
    };
    Usual "a restarted server gets a snapshot": |h| {
        pairs(h, Duration::from_secs(5), |a| *a == Fact::Started, |b| matches!(b, Fact::SnapshotInstalled { .. }))
    };
    Usual "a loss of power takes appended entries away": lost_tails;
    Usual "all servers are down at once": all_down;
    Usual "a server stops for want of its disk": |h| {
        each(h, |seen| matches!(&seen.what, Fact::Stopped { by_itself: Some(_) }))
    };
    Usual "an entry counts while a minority lacks it": |h| {
        let servers = h.servers().len();
        each(h, |seen| matches!(&seen.what, Fact::Held { on, .. } if on.len() < servers))
    };

    // Writes.
    Usual "a write is acknowledged by a follower": |h| {
        count(h, |op| op.op.is_write() && op.is_done() && leader_at(h, op.returned).is_some_and(|it| it != op.server))
    };
    Usual "a write of unknown outcome was carried out": |h| unknown_writes(h).filter(|op| in_log(h, op)).count() as u64;
    Usual "a write of unknown outcome was not carried out": |h| {
        unknown_writes(h).filter(|op| !in_log(h, op)).count() as u64
    };
    Usual "a write is carried out after its client gave up": |h| {
        unknown_writes(h).filter(|op| entry_of(h, op).is_some_and(|it| it.applied > op.returned)).count() as u64
    };
    Usual "a write certainly fails": |h| count(h, |op| op.op.is_write() && matches!(op.outcome, Outcome::Failed(_)));
    Usual "a write is refused by a rule": |h| count(h, |op| matches!(op.outcome, Outcome::Refused { .. }));
    Usual "a write changes nothing and takes no index": |h| {
        commands(h, |command, entry| matches!(command, Command::Register(_)) && !changed(entry))
    };
    Usual "a registration replaces an instance": replacements;
    Usual "an instance moves to another service": moves;
    Usual "a batch registers several instances at once": |h| {
        commands(h, |command, _| matches!(command, Command::Register(all) if all.len() > 1))
    };
    Usual "two reports about one check come in one call": |h| count(h, |op| {
        matches!(&op.op, Op::Report { reports, .. } if reports.len() == 2 && reports[0].target == reports[1].target
            && reports[0].status != reports[1].status)
    });
    Usual "a batch of reports is refused in part": |h| count(h, |op| {
        op.answer().is_some_and(|it| it.refused.contains(&true) && it.refused.contains(&false))
    });
    Usual "one id is registered in two namespaces": |h| {
        let state = h.truth().state(h.truth().last());
        let twice = |one: &&std::sync::Arc<sider_core::registry::Instance>| state.instances.iter().any(|other| {
            other.id == one.id && other.node == one.node && other.namespace < one.namespace
        });
        state.instances.iter().filter(twice).count() as u64
    };
    Usual "a deregistration names the wrong service": |h| count(h, |op| {
        matches!(op.op, Op::Deregister { service: Some(_), .. }) && matches!(op.outcome, Outcome::Refused { status: 409, .. })
    });
    Usual "a node is taken away with all that is on it": |h| count(h, |op| {
        matches!(op.op, Op::CatalogDeregister { service_id: None, check_id: None, .. }) && op.is_done()
    });
    Usual "a write waits through an election": |h| {
        count(h, |op| op.op.is_write() && op.is_done() && leader_changes_during(h, op))
    };
    Usual "two writes about one instance overlap": overlapping_writes;

    // Transactions on the catalog.
    Usual "a transaction writes keys and the catalog at once": catalog::with_keys;
    Usual "a transaction finds a thing of the catalog as it expects it": catalog::found_as_expected;
    Usual "a transaction finds a thing of the catalog changed": catalog::found_stale;
    Usual "a transaction that can't be done leaves the catalog as it was": catalog::taken_back;
    Usual "a transaction takes a node away": catalog::node_removed;
    Usual "a transaction only reads, also the catalog": catalog::only_read;

    // Maintenance.
    Usual "an instance is put into maintenance": catalog::instance_in_maintenance;
    Usual "the node is put into maintenance": catalog::node_in_maintenance;
    Usual "what is not there is put into maintenance": catalog::nobody_in_maintenance;
    Usual "only maintenance keeps an instance from passing": catalog::hidden_by_maintenance;

    // Nodes.
    Usual "a node gets another name": catalog::renamed;
    Usual "a node gets another name with instances on it": catalog::renamed_with_instances;
    Usual "what is on nodes with some meta is found": catalog::by_node_meta;

    // Backups and upgrades.
    Usual "a backup is saved": whole::saved;
    Usual "a backup is restored": whole::restored;
    Usual "a restore brings sessions back or takes them away": whole::sessions_replaced;
    Usual "a damaged backup is refused": whole::damaged_refused;
    Usual "a restore fails half-way": whole::failed_half_way;
    Rare "the leader takes away what is left of a restore": whole::taken_away;
    Usual "a cluster moves on to newer commands": whole::moved_on;
    Usual "what an older member can't read is refused": whole::refused_for_an_older_member;

    // Checks.
    Usual "a check expires": |h| expiries(h).count() as u64;
    Usual "several checks expire by one command": |h| {
        commands(h, |command, _| matches!(command, Command::ExpireChecks(all) if all.len() > 1))
    };
    Usual "a check expires right after an election": |h| {
        expiries(h).filter(|entry| leaderships(h).iter().skip(1).any(|it| {
            entry.applied > it.1 && entry.applied.since(it.1) < Duration::from_millis(2_500)
        })).count() as u64
    };
    Usual "a check's time runs out during an election": expiry_during_election;
    Usual "an expiry comes too late and is refused": |h| each_reply(h, |command, reply| {
        matches!(command, Command::ExpireChecks(_)) && matches!(reply, Err(Refusal::RenewedSince))
    });
    Usual "a check expires after its leader stood still": |h| {
        expiries(h).filter(|entry| h.truth().pauses.iter().any(|(server, _, until)| {
            leader_at(h, entry.applied) == Some(*server) && *until < entry.applied && near(*until, entry.applied, 3_000)
        })).count() as u64
    };
    Usual "a check expires while servers are cut off": |h| {
        expiries(h).filter(|entry| under(h, entry.applied, &["cut off", "not heard", "does not hear", "nothing passes"])).count() as u64
    };
    Usual "a renewal is acknowledged without an entry": |h| {
        renewals(h).filter(|op| op.is_done() && !any_entry_during(h, op)).count() as u64
    };
    Usual "a renewal is answered by a new leader": renewal_by_new_leader;
    Usual "a renewal waits through an election": |h| {
        renewals(h).filter(|op| op.is_done() && leader_changes_during(h, op)).count() as u64
    };
    Usual "a renewal's outcome is unknown": |h| {
        renewals(h).filter(|op| matches!(op.outcome, Outcome::Unknown(_))).count() as u64
    };
    Usual "an expired check passes again": passes_again;
    Usual "an instance that stays critical is taken away": |h| {
        commands(h, |command, entry| matches!(command, Command::DeregisterCritical(_)) && changed(entry))
    };
    Usual "an output that was held back is written": |h| commands(h, |command, _| {
        matches!(command, Command::UpdateChecks(all) if all.iter().all(|it| it.status.is_none()))
    });
    Usual "a heartbeat renews several checks": |h| count(h, |op| {
        op.is_done() && matches!(&op.op, Op::Report { form: ReportForm::Heartbeat, reports } if
            reports.iter().any(|it| matches!(&it.target, Target::Instance(id) if several_checks(h, id))))
    });

    // Reads.
    Usual "a follower answers a linearizable read": |h| count(h, |op| {
        is_fresh_read(op) && op.is_done() && leader_at(h, op.returned).is_some_and(|it| it != op.server)
    });
    Usual "a linearizable read fails for want of a leader": |h| {
        count(h, |op| is_fresh_read(op) && matches!(op.outcome, Outcome::Failed(_)))
    };
    Usual "a linearizable read waits through an election": |h| {
        count(h, |op| is_fresh_read(op) && op.is_done() && leader_changes_during(h, op))
    };
    Usual "a stale answer is behind": stale_behind;
    Usual "a stale answer knows no leader": |h| {
        count(h, |op| op.answer().and_then(|it| it.told.as_ref()).is_some_and(|it| !it.known_leader))
    };
    Usual "a stale answer comes long after the last contact": |h| count(h, |op| {
        op.answer().and_then(|it| it.told.as_ref()).is_some_and(|it| it.last_contact > Duration::from_secs(1))
    });
    Usual "a server answers by itself, as new as the client asks": |h| count(h, |op| is_bounded(op) && contact_ago(op) > Duration::ZERO);
    Usual "a server asks the leader, for its state is too old for the client": |h| count(h, |op| {
        is_bounded(op) && contact_ago(op).is_zero() && leader_at(h, op.returned).is_some_and(|it| it != op.server)
    });
    Usual "a server answers a stale read right after its start": |h| count(h, |op| {
        is_stale(op) && op.is_done() && h.truth().started_before(op.server, op.invoked)
            .is_some_and(|at| at > Time::ms(500) && near(at, op.invoked, 500))
    });
    Usual "the agent's API tells of good health": |h| catalog::agent_health(h, 200);
    Usual "the agent's API tells of a warning": |h| catalog::agent_health(h, 429);
    Usual "the agent's API tells of bad health": |h| catalog::agent_health(h, 503);
    Usual "the agent's API is asked for what is not there": |h| catalog::agent_health(h, 404);
    Usual "something is asked that never was": |h| count(h, |op| op.answer().is_some_and(|it| it.index == Some(1)));

    // Watches.
    Usual "a watcher is woken": |h| waits(h).filter(|op| woken(op)).count() as u64;
    Usual "a watcher's time runs out": |h| waits(h).filter(|op| op.is_done() && !woken(op)).count() as u64;
    Usual "a watcher is answered at once": |h| {
        waits(h).filter(|op| woken(op) && op.returned.since(op.invoked) < Duration::from_millis(60)).count() as u64
    };
    Usual "a watcher moves to another server with its index and misses nothing": moves_on;
    Usual "a watcher waits through an election": |h| {
        waits(h).filter(|op| op.is_done() && leader_changes_during(h, op)).count() as u64
    };
    Usual "a watcher's server fails": |h| {
        waits(h).filter(|op| matches!(op.outcome, Outcome::Unknown(_) | Outcome::Failed(_))).count() as u64
    };
    Usual "an expiry wakes a watcher": |h| {
        waits(h).filter(|op| woken(op) && expiries(h).any(|it| Some(it.state.index) == index(op))).count() as u64
    };
    Usual "several changes are answered at once": |h| waits(h).filter(|op| steps_given(h, op) > 1).count() as u64;
    Usual "one change wakes several watchers": shared_wakes;
    Usual "a watcher sees the last instance go": |h| waits(h).filter(|op| woken(op) && is_empty(op)).count() as u64;
    Usual "a change of other instances does not end a wait with a filter": unfiltered;
    Usual "a filter leaves a part of an answer": catalog::filtered_in_part;
    Usual "a watcher with a filter is woken": catalog::filter_wakes;
    Usual "a watcher with a filter is not woken by what does not pass it": catalog::filter_lets_sleep;
    Usual "a stale watcher is woken": |h| waits(h).filter(|op| is_stale(op) && woken(op)).count() as u64;

    // Streams.
    Usual "a stream gives what differs": streams::given;
    Usual "a stream goes on behind an id and gives at once what came since": streams::caught_up;
    Usual "a stream breaks": streams::broken;
    Usual "a stream falls silent and is given up": streams::silent;
    Usual "a stream is ended for want of a leader": streams::without_leader;
    Usual "a stream is over in order": streams::left;
    Usual "a stream says that nothing differs": streams::quiet;
    Usual "a slow client is given several changes as one": streams::folded;
    Rare "a stale stream begins at a server that is behind its client": streams::behind;

    // What is judged, and how strictly.
    Usual "a watcher is judged by the strict bound": |h| watches::bounds(h).filter(|it| *it == Bound::Calm).count() as u64;
    Usual "a stale watcher is judged in spite of faults": |h| {
        watches::bounds(h).filter(|it| *it == Bound::NeedsNobody).count() as u64
    };
    Usual "a watcher is judged by the loose bound": |h| {
        watches::bounds(h).filter(|it| *it == Bound::LooksForALeader).count() as u64
    };
    Usual "an operation is judged for its success, as all is well": |h| {
        count(h, |op| h.truth().calm_between(op.invoked, op.returned))
    };
    Usual "an operation's failure is excused": |h| count(h, |op| {
        matches!(op.outcome, Outcome::Failed(_) | Outcome::Unknown(_)) && !h.truth().calm_between(op.invoked, op.returned)
    });
    Usual "it is calm for so long that what is not renewed must expire": |h| {
        h.truth().calm.iter().filter(|(from, until)| until.since(*from) > Duration::from_secs(4)).count() as u64
    };
    Usual "it is calm before the last fault is over": |h| {
        h.truth().calm.iter().filter(|(from, until)| {
            *from < h.healed && until.since(*from) > Duration::from_secs(1) && !h.faults.is_empty()
        }).count() as u64
    };

    // Members.
    Usual "a server joins": |h| changes(h, |it| it.joins && it.done == Some(true));
    Usual "a server is removed": |h| changes(h, |it| !it.joins && it.done == Some(true));
    Usual "the leader is removed": |h| {
        changes(h, |it| !it.joins && it.done == Some(true) && leader_at(h, it.invoked) == Some(it.server))
    };
    Usual "a change of members fails or is unknown": |h| changes(h, |it| it.done != Some(true));
    Usual "two memberships count at once": |h| {
        each(h, |seen| matches!(&seen.what, Fact::Configured { voters, .. } if voters.len() > 1))
    };
    Rare "a server crashes while members change": |h| {
        changes(h, |it| stops(h).any(|seen| seen.at >= it.invoked && seen.at <= it.returned))
    };
    Rare "a new server gets a snapshot": |h| changes(h, |it| {
        it.joins && installs(h).any(|seen| seen.server == it.server)
    });

    Usual "a server loses its disk and comes back": |h| {
        pairs(h, Duration::from_secs(5), |a| *a == Fact::Wiped, |b| *b == Fact::Started)
    };
    Usual "somebody is elected while a server is out that lost its disk": |h| {
        leaderships(h).iter().filter(|it| h.servers().iter().any(|server| h.is_out(*server, it.1))).count() as u64
    };
    Usual "a server that lost its disk is added again": |h| changes(h, |it| {
        it.joins && it.done == Some(true) && h.is_out(it.server, it.invoked)
    });

    // Prepared queries.
    Usual "a prepared query gives instances": prepared::gives;
    Usual "a prepared query is executed by its name": prepared::by_name;
    Usual "a template is filled in": prepared::filled_in;
    Usual "a prepared query leaves out what is not healthy": prepared::leaves_out;
    Usual "a query's definition changes while it is executed": prepared::overtaken;
    Usual "a name of a query is taken": prepared::taken;
    Usual "a change of a query is tried again": prepared::tried_again;

    // Autopilot.
    Usual "autopilot removes a dead server": |h| autopilot::removed(h).count() as u64;
    Usual "autopilot leaves a dead server, as too few would stay": autopilot::left;
    Usual "a server that autopilot removed comes back": autopilot::came_back;
    Rare "autopilot gives a learner its vote": autopilot::promoted;

    // The servers in their own catalog.
    Usual "a server is shown as failed": shown::failed;
    Usual "a server that was shown as failed is shown as alive": shown::back;
    Usual "the mark of the leader moves": shown::leader_moves;
    Usual "a removed server leaves the catalog": shown::gone;

    // Agents.
    Usual "an agent registers its services": |h| {
        h.agents.iter().filter(|agent| agent_entries(h, &agent.node).next().is_some()).count() as u64
    };
    Usual "an agent's check expires": |h| expiries(h).filter(|entry| {
        let Some((Command::ExpireChecks(all), _)) = &entry.command else { return false };
        all.iter().any(|it| h.agents.iter().any(|agent| agent.node == it.check.node.as_str()))
    }).count() as u64;
    Usual "an agent goes on through an election": |h| h.agents.iter().filter(|agent| {
        leaderships(h).iter().any(|it| it.1 > agent.started)
    }).count() as u64;

    // Clients.
    Usual "what an agent registered is taken away, and comes back": |h| h.agents.iter().map(|agent| {
        let robbed = h.operations.iter().filter(|op| {
            op.is_done() && matches!(&op.op, Op::CatalogDeregister { node, .. } if *node == agent.node)
        });
        robbed.filter(|op| agent_entries(h, &agent.node).any(|entry| entry.applied > op.returned)).count() as u64
    }).sum();
    Usual "a client gives up before the answer": |h| {
        count(h, |op| op.impatient && matches!(op.outcome, Outcome::Unknown(_)))
    };
}

fn each(h: &History, counts: impl Fn(&Observed) -> bool) -> u64 {
    h.observations.iter().filter(|seen| counts(seen)).count() as u64
}

fn count(h: &History, counts: impl Fn(&Operation) -> bool) -> u64 {
    h.operations.iter().filter(|op| counts(op)).count() as u64
}

fn changes(h: &History, counts: impl Fn(&MembershipChange) -> bool) -> u64 {
    h.memberships.iter().filter(|it| counts(it)).count() as u64
}

fn commands(h: &History, counts: impl Fn(&Command, &Entry) -> bool) -> u64 {
    let of_command = |entry: &&Entry| {
        entry
            .command
            .as_ref()
            .is_some_and(|(command, _)| counts(command, entry))
    };
    h.truth().entries.iter().filter(of_command).count() as u64
}

fn each_reply(h: &History, counts: impl Fn(&Command, &Result<(), Refusal>) -> bool) -> u64 {
    let replies = h
        .truth()
        .entries
        .iter()
        .filter_map(|entry| entry.command.as_ref());
    replies
        .map(|(command, effect)| match &effect.reply {
            Ok(Reply::Each(each)) => each.iter().filter(|reply| counts(command, reply)).count() as u64,
            _ => 0,
        })
        .sum()
}

/// How often a server does one thing, and another one next within so long.
fn pairs(
    h: &History,
    within: Duration,
    first: impl Fn(&Fact) -> bool,
    second: impl Fn(&Fact) -> bool,
) -> u64 {
    let mut since: BTreeMap<ServerNumber, Time> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        if second(&seen.what) {
            let began = since.remove(&seen.server);
            found += u64::from(began.is_some_and(|at| seen.at.since(at) <= within));
        } else if first(&seen.what) {
            since.insert(seen.server, seen.at);
        }
    }
    found
}

fn is_stop(what: &Fact) -> bool {
    matches!(what, Fact::Stopped { .. })
}

fn stops(h: &History) -> impl Iterator<Item = &Observed> {
    h.observations.iter().filter(|seen| is_stop(&seen.what))
}

fn installs(h: &History) -> impl Iterator<Item = &Observed> {
    let installs = |seen: &&Observed| matches!(seen.what, Fact::SnapshotInstalled { .. });
    h.observations.iter().filter(installs)
}

fn near(one: Time, other: Time, ms: u64) -> bool {
    one.max(other).since(one.min(other)) <= Duration::from_millis(ms)
}

/// Who led each term, and when that showed first, in order.
fn leaderships(h: &History) -> Vec<(ServerNumber, Time)> {
    h.truth().leaders.iter().map(|it| (it.server, it.from)).collect()
}

/// Who led the newest term.
fn leader_at(h: &History, at: Time) -> Option<ServerNumber> {
    let leaders = &h.truth().leaders;
    leaders
        .iter()
        .filter(|it| it.from <= at)
        .max_by_key(|it| it.term)
        .map(|it| it.server)
}

fn elected_within(h: &History, fault: &FaultSpan, ms: u64) -> bool {
    leaderships(h)
        .iter()
        .any(|(_, at)| *at >= fault.from && at.since(fault.from) <= Duration::from_millis(ms))
}

fn under(h: &History, at: Time, words: &[&str]) -> bool {
    h.faults.iter().any(|fault| {
        fault.from <= at && at <= fault.until && words.iter().any(|word| fault.what.contains(word))
    })
}

fn split_votes(h: &History) -> u64 {
    let mut candidates: BTreeMap<u64, BTreeSet<ServerNumber>> = BTreeMap::new();
    for seen in &h.observations {
        if let Fact::VoteSaved {
            term,
            voted_for,
            committed: false,
        } = &seen.what
            && Disk::parse(voted_for).is_some_and(|disk| disk.server == seen.server)
        {
            candidates.entry(*term).or_default().insert(seen.server);
        }
    }
    candidates.values().filter(|servers| servers.len() > 1).count() as u64
}

fn two_leaders(h: &History) -> u64 {
    let mut leads: BTreeMap<ServerNumber, bool> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        match seen.what {
            Fact::BecameLeader { .. } => {
                found += u64::from(
                    leads
                        .iter()
                        .any(|(server, leads)| *leads && *server != seen.server),
                );
                leads.insert(seen.server, true);
            }
            Fact::LostLeadership { .. } | Fact::Stopped { .. } => {
                leads.insert(seen.server, false);
            }
            _ => {}
        }
    }
    found
}

fn leader_paused_out(h: &History) -> u64 {
    let pauses = h.truth().pauses.iter().filter(|(server, from, until)| {
        leader_at(h, *from) == Some(*server)
            && leaderships(h)
                .iter()
                .any(|(other, at)| other != server && at > from && at <= until)
    });
    pauses.count() as u64
}

/// Entries of an earlier term that were first applied after a new leader's first entry was there.
fn inherited(h: &History) -> u64 {
    let leaders = &h.truth().leaders;
    let inherited = |entry: &&Entry| {
        entry.command.is_some()
            && leaders
                .iter()
                .any(|it| it.term > entry.term && it.from < entry.applied)
    };
    h.truth().entries.iter().filter(inherited).count() as u64
}

fn taken_back(h: &History) -> u64 {
    let mut ends: BTreeMap<ServerNumber, u64> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        match seen.what {
            Fact::Appended { index, .. } => {
                ends.insert(seen.server, index);
            }
            Fact::Truncated { after } => {
                found += u64::from(ends.insert(seen.server, after).is_some_and(|end| end > after));
            }
            _ => {}
        }
    }
    found
}

fn interrupted_checkpoints(h: &History) -> u64 {
    let mut under_way: BTreeMap<ServerNumber, bool> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        match seen.what {
            Fact::CheckpointBegun { .. } => {
                under_way.insert(seen.server, true);
            }
            Fact::Checkpointed { .. } => {
                under_way.insert(seen.server, false);
            }
            Fact::Stopped { .. } => {
                found += u64::from(under_way.insert(seen.server, false) == Some(true));
            }
            _ => {}
        }
    }
    found
}

/// Servers to which entries that they had are brought again after they were down.
fn lost_tails(h: &History) -> u64 {
    let mut lives: BTreeMap<ServerNumber, (Option<u64>, bool)> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        let (end, restarted) = lives.entry(seen.server).or_default();
        match seen.what {
            Fact::Started => *restarted = true,
            Fact::Wiped => *end = None,
            Fact::Truncated { after } => *end = Some(after),
            Fact::Appended { index, .. } => {
                found += u64::from(*restarted && end.is_some_and(|end| index <= end));
                (*end, *restarted) = (Some(index), false);
            }
            _ => {}
        }
    }
    found
}

fn all_down(h: &History) -> u64 {
    let mut up: BTreeMap<ServerNumber, bool> = BTreeMap::new();
    let mut found = 0;
    for seen in &h.observations {
        match seen.what {
            Fact::Started => {
                up.insert(seen.server, true);
            }
            Fact::Stopped { .. } => {
                up.insert(seen.server, false);
                found += u64::from(up.len() > 2 && up.values().all(|up| !up));
            }
            _ => {}
        }
    }
    found
}

fn waiting_at<'a>(h: &'a History, seen: &'a Observed) -> impl Iterator<Item = &'a Operation> {
    waits(h).filter(|op| op.server == seen.server && op.invoked < seen.at && seen.at < op.returned)
}

fn waits(h: &History) -> impl Iterator<Item = &Operation> {
    let waits = |op: &&Operation| op.streamed.is_none() && matches!(op.op, Op::Wait { index: 1.., .. });
    h.operations.iter().filter(waits)
}

fn index(op: &Operation) -> Option<u64> {
    op.answer()?.index
}

/// Whether a blocking query was answered with something newer.
pub(super) fn woken(op: &Operation) -> bool {
    matches!((&op.op, index(op)), (Op::Wait { index: carried, .. }, Some(got)) if got > *carried)
}

fn is_fresh_read(op: &Operation) -> bool {
    op.op
        .asked()
        .is_some_and(|(_, freshness)| freshness.linearizable())
}

/// Whether the client bounds how old the answer may be, and got one.
fn is_bounded(op: &Operation) -> bool {
    let asked = op.op.asked();
    op.is_done() && asked.is_some_and(|(_, freshness)| matches!(freshness, Freshness::MaxStale(_)))
}

fn contact_ago(op: &Operation) -> Duration {
    let told = op.answer().and_then(|answer| answer.told.as_ref());
    told.map_or(Duration::ZERO, |told| told.last_contact)
}

fn is_stale(op: &Operation) -> bool {
    op.op
        .asked()
        .is_some_and(|(_, freshness)| freshness == Freshness::Stale)
}

fn is_empty(op: &Operation) -> bool {
    use crate::content::Content;
    matches!(
        op.answer().and_then(|it| it.content.as_ref()),
        Some(Content::Instances(instances)) if instances.is_empty()
    )
}

fn unknown_writes(h: &History) -> impl Iterator<Item = &Operation> {
    let unknown = |op: &&Operation| {
        op.op.is_write()
            && !matches!(op.op, Op::Report { .. })
            && matches!(op.outcome, Outcome::Unknown(_))
            && op.returned < h.ended
    };
    h.operations.iter().filter(unknown)
}

fn entry_of<'a>(h: &'a History, op: &Operation) -> Option<&'a Entry> {
    h.truth().entries.get(h.truth().entry_of(op.id)?)
}

fn in_log(h: &History, op: &Operation) -> bool {
    entry_of(h, op).is_some()
}

fn changed(entry: &Entry) -> bool {
    entry.expected.as_ref().is_some_and(|(_, changed)| *changed)
}

fn leader_changes_during(h: &History, op: &Operation) -> bool {
    let leaders = h.truth().leaders.iter().skip(1);
    leaders
        .map(|it| it.from)
        .any(|at| op.invoked < at && at < op.returned)
}

fn replacements(h: &History) -> u64 {
    let truth = h.truth();
    let replaces = |(at, entry): &(usize, &Entry)| {
        let Some((Command::Register(all), _)) = &entry.command else {
            return false;
        };
        let before = truth.state(*at);
        let known = |it: &sider_core::registry::Registration| {
            it.instance
                .as_ref()
                .is_some_and(|it| before.instance(&it.key()).is_some())
        };
        changed(entry) && all.iter().any(known)
    };
    truth.entries.iter().enumerate().filter(replaces).count() as u64
}

fn moves(h: &History) -> u64 {
    let truth = h.truth();
    let moves = |(at, entry): &(usize, &Entry)| {
        let Some((Command::Register(all), _)) = &entry.command else {
            return false;
        };
        let before = truth.state(*at);
        all.iter().filter_map(|it| it.instance.as_ref()).any(|new| {
            before
                .instance(&new.key())
                .is_some_and(|old| old.service != new.service)
        })
    };
    truth.entries.iter().enumerate().filter(moves).count() as u64
}

fn overlapping_writes(h: &History) -> u64 {
    let about = |op: &Operation| match &op.op {
        Op::Register { services, .. } => services.first().map(|it| it.id.clone()),
        Op::Deregister { id, .. } => Some(id.clone()),
        _ => None,
    };
    let mut last: BTreeMap<String, Time> = BTreeMap::new();
    let mut found = 0;
    for op in &h.operations {
        let Some(id) = about(op) else { continue };
        let until = last.entry(id).or_default();
        found += u64::from(op.invoked < *until);
        *until = op.returned.max(*until);
    }
    found
}

/// Entries that turn a check critical for want of a renewal.
fn expiries(h: &History) -> impl Iterator<Item = &Entry> {
    let expires =
        |entry: &&Entry| matches!(entry.command, Some((Command::ExpireChecks(_), _))) && changed(entry);
    h.truth().entries.iter().filter(expires)
}

/// Expiries that a leader could have decided earlier, had there been one: the one before led more than the TTL ago.
fn expiry_during_election(h: &History) -> u64 {
    let during = |entry: &&Entry| {
        let Some((Command::ExpireChecks(all), _)) = &entry.command else {
            return false;
        };
        let Some(leader) = h.truth().leaders.iter().find(|it| it.term == entry.term) else {
            return false;
        };
        all.iter().any(|expiry| {
            let ttl = entry
                .state
                .check(&expiry.check)
                .and_then(|check| check.definition.ttl())
                .unwrap_or_default();
            let renewed = renewals(h)
                .filter(|op| {
                    op.is_done() && op.returned < entry.applied && reports_on(op, expiry.check.id.as_str())
                })
                .map(|op| op.returned)
                .max();
            renewed.is_some_and(|at| at < leader.from && entry.applied.since(leader.from) < ttl * 2)
        })
    };
    expiries(h).filter(during).count() as u64
}

fn reports_on(op: &Operation, check: &str) -> bool {
    matches!(&op.op, Op::Report { reports, .. } if reports.iter().any(|it| match &it.target {
        Target::Check(id) => id == check,
        Target::Instance(id) => check.contains(id.as_str()),
    }))
}

fn renewals(h: &History) -> impl Iterator<Item = &Operation> {
    h.operations
        .iter()
        .filter(|op| matches!(op.op, Op::Report { .. }))
}

fn any_entry_during(h: &History, op: &Operation) -> bool {
    let entries = &h.truth().entries;
    let first = entries.partition_point(|entry| entry.applied < op.invoked);
    entries[first..]
        .iter()
        .take_while(|entry| entry.applied <= op.returned)
        .next()
        .is_some()
}

/// Renewals that a leader acknowledged within two seconds of its election, after another one had.
fn renewal_by_new_leader(h: &History) -> u64 {
    let elections = leaderships(h);
    renewals(h)
        .filter(|op| {
            op.is_done()
                && elections
                    .iter()
                    .skip(1)
                    .any(|(_, at)| *at < op.invoked && op.returned.since(*at) < Duration::from_secs(2))
        })
        .count() as u64
}

fn passes_again(h: &History) -> u64 {
    let truth = h.truth();
    let again = |(at, entry): &(usize, &Entry)| {
        let Some((Command::UpdateChecks(updates), _)) = &entry.command else {
            return false;
        };
        let before = truth.state(*at);
        updates.iter().any(|update| match &update.target {
            sider_core::registry::CheckTarget::Check(key) => {
                let expired = before
                    .check(key)
                    .is_some_and(|it| it.output.starts_with("TTL expired"));
                expired && update.status == Some(sider_core::registry::CheckStatus::Passing)
            }
            _ => false,
        })
    };
    truth.entries.iter().enumerate().filter(again).count() as u64
}

fn several_checks(h: &History, instance: &str) -> bool {
    h.operations.iter().any(|op| {
        matches!(&op.op, Op::Register { services, .. } if
            services.iter().any(|it| it.id == instance && it.checks.len() > 1))
    })
}

fn stale_behind(h: &History) -> u64 {
    let truth = h.truth();
    let behind = |op: &Operation| {
        let (Some((ask, Freshness::Stale)), Some(index)) = (op.op.asked(), index(op)) else {
            return false;
        };
        index < truth.index_at(&ask.topic(), truth.applied_before(op.invoked))
    };
    count(h, behind)
}

/// Changes of what is asked between the index that was carried and the one that was given.
fn steps_given(h: &History, op: &Operation) -> usize {
    let (
        Op::Wait {
            ask, index: carried, ..
        },
        Some(got),
    ) = (&op.op, index(op))
    else {
        return 0;
    };
    let steps = h.truth().steps(&ask.topic());
    steps
        .iter()
        .filter(|step| step.index > *carried && step.index <= got)
        .count()
}

fn moves_on(h: &History) -> u64 {
    let mut last: BTreeMap<(u32, &crate::operation::Ask), (ServerNumber, u64)> = BTreeMap::new();
    let mut found = 0;
    for op in waits(h) {
        let (
            Op::Wait {
                ask, index: carried, ..
            },
            Some(got),
        ) = (&op.op, index(op))
        else {
            continue;
        };
        let before = last.insert((op.client, ask), (op.server, got));
        let moved = before.is_some_and(|(server, index)| server != op.server && index == *carried);
        found += u64::from(moved && got > *carried);
    }
    found
}

fn shared_wakes(h: &History) -> u64 {
    let mut woken_by: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for op in waits(h).filter(|op| woken(op)) {
        if let (Some((ask, _)), Some(index)) = (op.op.asked(), index(op)) {
            *woken_by.entry((ask.to_string(), index)).or_default() += 1;
        }
    }
    woken_by.values().filter(|count| **count > 1).count() as u64
}

/// Waits with a filter that lasted to their end though the topic rose: what changed was not asked for.
fn unfiltered(h: &History) -> u64 {
    use crate::operation::Ask;
    let filters = |ask: &Ask| match ask {
        Ask::Health { tags, .. } | Ask::CatalogService { tags, .. } => !tags.is_empty(),
        _ => false,
    };
    let lasted = |op: &&Operation| {
        let Op::Wait { ask, wait_ms, .. } = &op.op else {
            return false;
        };
        filters(ask) && woken(op) && op.returned.since(op.invoked) >= Duration::from_millis(*wait_ms)
    };
    waits(h).filter(lasted).count() as u64
}

fn agent_entries<'a>(h: &'a History, node: &'a str) -> impl Iterator<Item = &'a Entry> {
    h.truth().entries.iter().filter(move |entry| {
        matches!(&entry.command, Some((Command::Register(all), _)) if all.iter().any(|it| it.node.name.as_str() == node))
    })
}
