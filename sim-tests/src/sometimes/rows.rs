//! The rows of the table: each counts one situation in a run's history.

use std::{collections::BTreeMap, time::Duration};

use sider_core::registry::{Command, Refusal};

use super::{
    HowOften, Situation, agents, autopilot, catalog, cluster,
    counting::{
        agent_entries, all_down, any_entry_during, changed, changes, commands, contact_ago, count, each,
        each_reply, elected_within, entry_of, expiries, expiry_during_election, in_log, index, inherited,
        installs, interrupted_checkpoints, is_bounded, is_empty, is_fresh_read, is_stale, is_stop, leader_at,
        leader_changes_during, leader_paused_out, leaderships, lost_tails, moves, moves_on, near,
        overlapping_writes, pairs, passes_again, renewal_by_new_leader, renewals, renewed_among_refusals,
        replacements, several_checks, shared_wakes, split_votes, stale_behind, steps_given, stops,
        taken_back, two_leaders, under, unfiltered, unknown_writes, waiting_at, waits, woken,
    },
    forwarding, hashes, prepared, probes, rare, shown, streams, whole,
};
use crate::{
    history::{Fact, Outcome, ServerNumber},
    invariants::{
        availability::is_refused_for_writes,
        watches::{self, Bound},
    },
    operation::{Op, ReportForm, Target},
    time::Time,
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
    Usual "a log is cut short while reads of logs are slow": rare::cut_while_read;
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
    Usual "a write is refused because others wait for long": |h| count(h, |op| is_refused_for_writes(h, &op.outcome));
    Usual "a renewal is acknowledged while a write is refused so": renewed_among_refusals;
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
    Usual "what is on the node that is asked for comes first": catalog::by_nearness;

    // Backups and upgrades.
    Usual "a backup is saved": whole::saved;
    Usual "a backup is restored": whole::restored;
    Usual "a restore brings sessions back or takes them away": whole::sessions_replaced;
    Usual "a backup of a cluster that was ahead is restored": whole::ahead;
    Usual "sessions end with their node": whole::sessions_without_node;
    Usual "a damaged backup is refused": whole::damaged_refused;
    Usual "a restore fails half-way": whole::failed_half_way;
    Rare "the leader takes away what is left of a restore": whole::taken_away;
    Usual "a cluster moves on to newer commands": whole::moved_on;
    Usual "what an older member can't read is refused": whole::refused_for_an_older_member;

    Usual "a restore comes while a lock can't be taken": rare::restored_in_a_delay;
    Usual "a lock is taken after a restore that could not be taken before it": rare::taken_after_restore;

    Usual "indexes of what is gone are forgotten": |h| h.truth().folds() as u64;

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
    Usual "what a server probes is another than before": probes::turned;
    Usual "what a server probes turns bad": probes::turned_bad;
    Usual "a leader goes on with checks that another one ran": probes::goes_on;
    Usual "a machine is found otherwise by other means than a request": probes::by_other_means;
    Usual "an alias takes on the status of what it follows": probes::alias_follows;
    Usual "an alias takes on the status of a node": probes::alias_of_a_node;

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
    Rare "a member learns of a joined one by a snapshot, and is started again": rare::change_missed;
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
    Rare "a leader is left alone for longer than servers may be silent": rare::left_alone;
    Usual "the mark of the leader moves": shown::leader_moves;
    Usual "a removed server leaves the catalog": shown::gone;

    // What servers tell of themselves, events, and what is met on purpose.
    Usual "a server is asked in the calm who leads": cluster::asked_in_the_calm;
    Usual "a server says that nobody leads": cluster::without_leader;
    Usual "a server is not ready": cluster::not_ready;
    Usual "an event is heard of elsewhere": cluster::heard_elsewhere;
    Usual "a refused transaction leaves a session": cluster::session_stays;
    Usual "a session is asked for by its id": cluster::session_found;
    Usual "a check is registered by itself": |h| cluster::own_checks(h, true);
    Usual "a check of no instance is refused": |h| cluster::own_checks(h, false);

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
    Usual "an agent is told to stop, and has deregistered its node": agents::stopped;
    Usual "an agent loses power right after it took something on": agents::cut_after_order;
    Usual "an agent's process stands still for longer than its TTL": agents::paused_out;
    Usual "no server hears of a living agent for longer than its TTL": agents::unheard_out;
    Usual "an agent's disk fails while something is asked of it": agents::disk_fails;
    Usual "a service's report is acknowledged by its agent": agents::acknowledged;
    Usual "a service's report can't be passed on in time": agents::unheard_report;
    Usual "a check on which a service reported through its agent expires": agents::told_expires;
    Usual "a check of an agent's node is registered": agents::node_check;
    Usual "a program that an agent runs warns": agents::warns;
    Usual "an instance leaves, as its agent met nothing good for long": agents::leaves;
    Usual "an instance that would leave recovers before": agents::recovers;
    Usual "a check that an agent has follow another instance turns critical": agents::alias_is_bad;
    Usual "an agent reads its configuration again, and finds a service": agents::reloads;

    // Hashes, and members of a mesh.
    Usual "who waits for another hash gets it": hashes::another;
    Usual "who waits for another hash gets the same after the wait": hashes::same;
    Usual "who waits for another hash hears that the instance is gone": hashes::gone;
    Usual "members of a service mesh are shown": hashes::members;
    Usual "who waits for other members of a mesh is woken": hashes::members_woken;

    // What agents send on, and keep.
    Usual "a read is sent on by an agent and answered": forwarding::read;
    Usual "a write is sent on by an agent and carried out": forwarding::written;
    Usual "a session is created through an agent, on the agent's node": forwarding::session;
    Usual "a request through an agent fails, or nobody knows": forwarding::failed;
    Usual "a request through an agent is answered while a server is down": forwarding::elsewhere;
    Usual "who waits through an agent is woken": forwarding::woken;
    Usual "a query at an agent waits behind another for the same": forwarding::behind;
    Usual "a kept answer is given again": forwarding::hit;
    Usual "a kept answer is given again that is a second old or more": forwarding::aged;
    Usual "who waits for news of a kept answer is woken": forwarding::kept_woken;
    Usual "several wait for news of one kept answer": forwarding::shared;
    Usual "a client wants it anew, though an agent keeps it": forwarding::anew;
    Usual "all was well for as long as a kept answer was followed": forwarding::judged;

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
