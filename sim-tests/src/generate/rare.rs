//! Draws combinations that hardly ever meet by themselves, beside everything else: a follower that misses a change of the
//! members, gets it by a snapshot and is started again; logs that are read while they are cut short at either end; a
//! leader that all others leave for long; stale watchers that go on at a server that is behind; locks that nobody can take
//! when a backup is restored.

use super::{BEGIN_MS, Dice, PATIENT_MS, Pace, clients};
use crate::{
    keys::{KeyOp, NewSession, Step},
    operation::{Ask, Damage, Freshness, Op},
    schedule::{Action, Doing, Fault, Kept, Shape, Squeeze, Trouble, Who},
};

/// In so many of a hundred worlds somebody misses a change of the members.
const MISSES_A_CHANGE: u64 = 3;
/// In so many of a hundred worlds logs are read while they are cut short.
const CUTS_LOGS: u64 = 4;
/// In so many of a hundred worlds with servers in their catalog the leader is left alone.
const LEFT_ALONE: u64 = 4;
/// In so many of a hundred worlds stale watchers go from server to server.
const WANDERS: u64 = 6;
/// In so many of a hundred restores a lock has just been left behind, and somebody tries to take it.
const LEAVES_LOCKS: u64 = 40;

/// Adds what was drawn of them.
pub(super) fn draw(
    dice: &mut Dice,
    cluster: &mut Shape,
    pace: Pace,
    faults: &mut Vec<Fault>,
    actions: &mut Vec<Action>,
) {
    let moves_members = |fault: &Fault| {
        matches!(
            fault.what,
            Trouble::Join
                | Trouble::JoinDown
                | Trouble::Remove(_)
                | Trouble::Replace(_)
                | Trouble::Wipe { .. }
                | Trouble::Upgrade(_)
                | Trouble::Downgrade(_)
        )
    };
    // Only where nobody is gone for good and the members stay.
    let plain = !faults.iter().any(|fault| fault.lasts || moves_members(fault));
    if dice.chance(MISSES_A_CHANGE) && plain {
        miss_a_change(dice, cluster, pace, faults);
    } else if dice.chance(CUTS_LOGS) && plain {
        cut_logs(dice, cluster, pace, faults);
    } else if dice.chance(LEFT_ALONE) && plain && cluster.servers_listed {
        leave_the_leader(dice, cluster, pace, faults);
    }
    if dice.chance(WANDERS) {
        wander(dice, cluster, pace, faults, actions);
    }
    leave_locks(dice, cluster, pace, actions);
    faults.sort_by_key(|fault| fault.at_ms);
    actions.sort_by_key(|action| (action.at_ms, action.client));
}

fn fault(at_ms: u64, for_ms: u64, what: Trouble) -> Fault {
    Fault {
        at_ms,
        for_ms,
        what,
        lasts: false,
    }
}

/// A follower is away while a member joins, so that it hears of that by a snapshot, and is started again behind its next
/// checkpoint.
fn miss_a_change(dice: &mut Dice, cluster: &mut Shape, pace: Pace, faults: &mut Vec<Fault>) {
    (cluster.snapshot_threshold, cluster.log_keep) = (8, 0);
    let away = Who::Server(dice.server(cluster));
    let at_ms = dice.between(BEGIN_MS + 800, BEGIN_MS + 2_000);
    let away_ms = dice.between(2_500, 3_500);
    faults.push(fault(at_ms, away_ms, Trouble::CutOff(away)));
    faults.push(fault(at_ms + dice.between(200, 500), 300, Trouble::Join));
    let again = (at_ms + away_ms + dice.between(900, 2_500)).min(pace.heal_ms - 200);
    let what = match dice.chance(50) {
        true => Trouble::Crash(away),
        false => Trouble::PowerCut(away, Kept::Everything),
    };
    faults.push(fault(again, dice.between(50, 400), what));
}

/// Reads of the log that take long, of a log that is cut short all the time: at its beginning, because checkpoints come often,
/// and at its end, because leaders are deposed whose last entries nobody has.
fn cut_logs(dice: &mut Dice, cluster: &mut Shape, pace: Pace, faults: &mut Vec<Fault>) {
    cluster.snapshot_threshold = 8;
    cluster.log_keep = *dice.pick(&[0, 0, 2, 5]);
    cluster.squeeze = Some(Squeeze {
        log_cache_entries: u64_to_usize(dice.between(1, 3)),
        log_read_entries: u64_to_usize(dice.between(1, 3)),
        append_entries: dice.between(1, 4),
        ..cluster.squeeze.unwrap_or_default()
    });
    let from = BEGIN_MS + 500;
    let ms = dice.between(20, 90);
    faults.push(fault(
        from,
        pace.heal_ms - from - 300,
        Trouble::SlowReads(Who::All, ms),
    ));
    let mut at_ms = from + dice.between(200, 800);
    while at_ms + 1_500 < pace.heal_ms {
        let who = match dice.chance(50) {
            true => Who::Leader,
            false => Who::Follower(dice.server(cluster)),
        };
        let for_ms = dice.between(150, 1_200);
        let what = match dice.chance(70) {
            true => Trouble::CutOff(who),
            false => Trouble::Crash(who),
        };
        faults.push(fault(at_ms, for_ms, what));
        at_ms += for_ms + dice.between(300, 1_200);
    }
}

fn u64_to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(1)
}

/// All but the leader are gone for so long that it would take them for failed, if it could say anything about them.
fn leave_the_leader(dice: &mut Dice, cluster: &Shape, pace: Pace, faults: &mut Vec<Fault>) {
    let at_ms = dice.between(
        BEGIN_MS + 800,
        pace.heal_ms.saturating_sub(7_500).max(BEGIN_MS + 900),
    );
    let pauses = dice.chance(60);
    for nth in 0..cluster.servers - 1 {
        let who = Who::Follower(nth);
        let what = match pauses {
            true => Trouble::Pause(who),
            false => Trouble::Crash(who),
        };
        faults.push(fault(at_ms, dice.between(5_300, 6_500), what));
    }
}

/// Stale watchers of what is narrowed, so that much of what happens does not concern them, go on at one server after the
/// other, one of which is behind now and then.
fn wander(dice: &mut Dice, cluster: &Shape, pace: Pace, faults: &mut Vec<Fault>, actions: &mut Vec<Action>) {
    let clients = clients(actions);
    for _ in 0..dice.between(2, 5) {
        let ask = Ask::Health {
            service: (*dice.pick(&["web", "web", "db"])).to_owned(),
            passing: dice.chance(20),
            tags: vec![(*dice.pick(&["blue", "green"])).to_owned()],
        };
        actions.push(Action {
            at_ms: dice.between(BEGIN_MS + 300, BEGIN_MS + 1_500),
            client: u8::try_from(dice.between(0, clients)).unwrap_or(0),
            patience_ms: PATIENT_MS,
            what: Doing::Follow {
                ask,
                freshness: Freshness::Stale,
                wait_ms: *dice.pick(&[1_500, 3_000]) * pace.stretch,
                until_ms: pace.end_ms - 600,
                servers: (0..cluster.servers).collect(),
            },
        });
    }
    for _ in 0..dice.between(2, 6) {
        let at_ms = dice.between(BEGIN_MS + 800, pace.heal_ms - 700);
        let who = Who::Follower(dice.server(cluster));
        faults.push(fault(at_ms, dice.between(100, 1_200), Trouble::CutOff(who)));
    }
}

/// Some restores come when a lock can't be taken that the file knows nothing of; then somebody tries.
fn leave_locks(dice: &mut Dice, cluster: &Shape, pace: Pace, actions: &mut [Action]) {
    let mut nth = 0;
    for action in actions {
        let Doing::Chain(ops) = &mut action.what else {
            continue;
        };
        let restores = |(_, op): &(u8, Op)| {
            let whole = |damage: &Damage| matches!(damage, Damage::None | Damage::Ahead(_));
            matches!(op, Op::Restore { damage } if whole(damage))
        };
        let Some(place) = ops.iter().position(restores) else {
            continue;
        };
        if !dice.chance(LEAVES_LOCKS) {
            continue;
        }
        nth += 1;
        let name = format!("left-{nth}");
        let new = NewSession {
            name: name.clone(),
            ttl_ms: 0,
            lock_delay_ms: 1_500 * pace.stretch,
            deletes: dice.chance(30),
            checks: vec![],
            service_checks: vec![],
            node: String::new(),
        };
        let key = "k/left".to_owned();
        let lock = |session: &str, value: &str| {
            let step = Step::Lock(key.clone(), format!("{value}-{nth}"), session.to_owned());
            KeyOp::One(step)
        };
        let heir = NewSession {
            name: format!("heir-{nth}"),
            lock_delay_ms: 0,
            ..new.clone()
        };
        let before = [
            KeyOp::CreateSession(new),
            lock(&name, "left"),
            KeyOp::DestroySession {
                session: name.clone(),
            },
        ];
        let after = [KeyOp::CreateSession(heir.clone()), lock(&heir.name, "taken")];
        let server = dice.server(cluster);
        let at = |op: KeyOp| (server, Op::Keys(op));
        let rest: Vec<(u8, Op)> = ops.split_off(place + 1);
        let restore = ops.pop();
        ops.extend(before.map(at));
        ops.extend(restore);
        ops.extend(after.map(at));
        ops.extend(rest);
    }
}
