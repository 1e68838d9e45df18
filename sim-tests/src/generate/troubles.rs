//! Draws faults.

use sider_core::registry::Command;

use super::{BEGIN_MS, Dice, Pace};
use crate::{
    schedule::{Fault, Kept, Quality, Shape, Trouble, Who},
    trap::{Sight, Space, Step, Work},
};

/// A kind of fault, or of several that belong together.
#[derive(Clone, Copy)]
enum Kind {
    Crash,
    PowerCut,
    /// Everyone loses power while nothing that is written becomes durable: what was acknowledged too early is lost.
    BlackOut,
    Pause,
    CutOff,
    OneWay,
    BlackHole,
    Bridge,
    Loss,
    Delay,
    SlowSync,
    HungSync,
    BrokenDisk,
    Clock,
    Transfer,
    /// A follower misses so much that it needs a snapshot.
    LongAbsence,
    Membership,
    /// A crash or power cut at a step of a server's work.
    Trap,
    Flap,
    Ring,
    Swallow,
    /// One direction between some servers is slow, lossy, or too narrow for what is sent over it.
    BadLink,
    DeadSync,
    SlowReads,
    /// Clocks run wrong by more than what is promised about time allows for.
    WildClock,
    /// A follower misses so much that it needs a snapshot, and its process ends while it installs that.
    TrappedInstall,
    /// Processes end in the middle of an election.
    TrappedElection,
    /// Leadership is handed on again and again.
    Restless,
}

const KINDS: [Kind; 32] = [
    Kind::Crash,
    Kind::PowerCut,
    Kind::BlackOut,
    Kind::Pause,
    Kind::CutOff,
    Kind::OneWay,
    Kind::BlackHole,
    Kind::Bridge,
    Kind::Loss,
    Kind::Delay,
    Kind::SlowSync,
    Kind::HungSync,
    Kind::BrokenDisk,
    Kind::Clock,
    Kind::Transfer,
    Kind::LongAbsence,
    Kind::Membership,
    // The places where a crash hurts are many.
    Kind::Trap,
    Kind::Trap,
    Kind::Trap,
    Kind::Trap,
    Kind::Flap,
    Kind::Ring,
    Kind::Swallow,
    Kind::BadLink,
    Kind::DeadSync,
    Kind::SlowReads,
    Kind::WildClock,
    Kind::TrappedInstall,
    Kind::TrappedInstall,
    Kind::TrappedElection,
    Kind::Restless,
];

pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace) -> Vec<Fault> {
    let mut faults = Vec::new();
    let upgrades = cluster.command_version < Command::NEWEST_VERSION;
    if upgrades {
        roll_upgrade(dice, cluster, pace, &mut faults);
    } else if dice.chance(7) {
        return faults;
    }
    // Few kinds in each world, so that each of them gets its chance alone.
    let few = dice.between(1, 5);
    let kinds: Vec<Kind> = (0..few).map(|_| *dice.pick(&KINDS)).collect();
    // What is broken for good leaves just a majority: it must not shrink by other means.
    let changes_members = kinds.iter().any(|kind| matches!(kind, Kind::Membership));
    // A server that is down for good is never upgraded.
    let breaks = !changes_members && !upgrades && dice.chance(20);
    if breaks {
        break_for_good(dice, cluster, pace, &mut faults);
    }
    let many = dice.between(1, 8);
    for _ in 0..many {
        let kind = *dice.pick(&kinds);
        let at_ms = dice.between(BEGIN_MS + 500, pace.heal_ms - 700);
        let first = faults.len();
        add(dice, cluster, kind, at_ms, &mut faults);
        lengthen(&mut faults[first..], pace);
    }
    // Only where nothing else is gone for good, be it for an older program that can't go on.
    if !breaks && !changes_members && !upgrades && dice.chance(9) {
        lose_a_disk(dice, cluster, pace, &mut faults);
    }
    for fault in &mut faults {
        fault.at_ms = fault.at_ms.min(pace.heal_ms - 100);
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// A rolling upgrade: one server after the other comes back as the newer program. In some worlds one of them is taken
/// back to the older one before the last has moved on.
fn roll_upgrade(dice: &mut Dice, cluster: &Shape, pace: Pace, faults: &mut Vec<Fault>) {
    let mut at_ms = dice.between(BEGIN_MS + 500, pace.heal_ms / 3);
    let taken_back = dice
        .chance(40)
        .then(|| dice.between(0, u64::from(cluster.servers) - 1));
    for server in 0..cluster.servers {
        let who = Who::Server(server);
        let mut restart = |at_ms: u64, for_ms: u64, what: Trouble| {
            faults.push(Fault {
                at_ms,
                for_ms,
                what,
                lasts: false,
            });
        };
        restart(at_ms, dice.between(50, 600), Trouble::Upgrade(who));
        if taken_back == Some(u64::from(server)) {
            at_ms += dice.between(700, 1_500);
            restart(at_ms, dice.between(50, 600), Trouble::Downgrade(who));
        }
        at_ms = (at_ms + dice.between(300, 2_500)).min(pace.heal_ms - 200);
    }
}

/// Breaks up to a minority of the servers, and never heals them.
fn break_for_good(dice: &mut Dice, cluster: &Shape, pace: Pace, faults: &mut Vec<Fault>) {
    let most = u64::from(cluster.servers - 1) / 2;
    let first = dice.server(cluster);
    for nth in 0..dice.between(1, most + 1) {
        let who = match (most, dice.chance(40)) {
            (1, true) => Who::Leader,
            _ => Who::Server((first + u8::try_from(nth).unwrap_or(0)) % cluster.servers),
        };
        let what = match dice.index(13) {
            0 => Trouble::Crash(who),
            1 => Trouble::PowerCut(who, Kept::Some),
            2 => Trouble::Pause(who),
            3 => Trouble::CutOff(who),
            4 => Trouble::CutOffFromAll(who),
            5 => Trouble::Mute(who),
            6 => Trouble::Deaf(who),
            7 => Trouble::BlackHole(who),
            8 => Trouble::Swallow(who),
            9 => Trouble::FullDisk(who),
            10 => Trouble::DeadSync(who),
            11 => Trouble::HungSync(who),
            _ => Trouble::Rot {
                who,
                space: *dice.pick(&[Space::Log, Space::Log, Space::Meta, Space::State]),
                restart: dice.chance(60),
            },
        };
        faults.push(Fault {
            at_ms: dice.between(BEGIN_MS + 500, pace.heal_ms - 700),
            for_ms: dice.between(50, 1_000),
            what,
            lasts: true,
        });
    }
}

/// One server loses its disk, and an election is at hand in which its vote and its log would count, if they did: with a
/// leader that is gone, and another server that lags.
fn lose_a_disk(dice: &mut Dice, cluster: &Shape, pace: Pace, faults: &mut Vec<Fault>) {
    let mut fault = |at_ms: u64, for_ms: u64, what: Trouble| {
        faults.push(Fault {
            at_ms,
            for_ms,
            what,
            lasts: false,
        })
    };
    let at_ms = dice.between(BEGIN_MS + 1_000, pace.heal_ms - 5_000);
    let loser = dice.server(cluster);
    if dice.chance(50) {
        let lags = Who::Server((loser + 1) % cluster.servers);
        let for_ms = dice.between(200, 900);
        fault(at_ms.saturating_sub(for_ms), for_ms, Trouble::CutOff(lags));
    }
    let down_ms = dice.between(20, 600);
    let what = Trouble::Wipe {
        who: Who::Server(loser),
        out_ms: dice.between(200, 3_500),
    };
    fault(at_ms, down_ms, what);
    if dice.chance(70) {
        let gone = [
            Trouble::Crash(Who::Leader),
            Trouble::CutOff(Who::Leader),
            Trouble::Pause(Who::Leader),
            Trouble::Transfer { to: None },
        ];
        let gone = dice.pick(&gone).clone();
        let for_ms = dice.between(500, 2_500);
        fault(at_ms + down_ms + dice.between(0, 800), for_ms, gone);
    }
}

/// A step of a server's work at which its process ends, and below which number of it.
fn step(dice: &mut Dice) -> (Step, u64) {
    let often = [
        Step::Before(Work::Put(Space::Log)),
        Step::After(Work::Put(Space::Log)),
        Step::Before(Work::Sync),
        Step::After(Work::Sync),
        Step::Upon(Sight::Appended),
        Step::Upon(Sight::Synced),
        Step::Upon(Sight::Applied),
    ];
    let seldom = [
        Step::Before(Work::Put(Space::State)),
        Step::After(Work::Put(Space::State)),
        Step::Before(Work::Delete(Space::Log)),
        Step::After(Work::Delete(Space::Log)),
        Step::Upon(Sight::Checkpointed),
        Step::Upon(Sight::Purged),
        Step::Upon(Sight::ExpiryProposed),
        Step::After(Work::Put(Space::Meta)),
    ];
    let rarely = [
        Step::Before(Work::Put(Space::Meta)),
        Step::Upon(Sight::VoteSaved),
        Step::Upon(Sight::BecameLeader),
        Step::Upon(Sight::LostLeadership),
        Step::Upon(Sight::Truncated),
        Step::Before(Work::Put(Space::Incoming)),
        Step::After(Work::Put(Space::Incoming)),
        Step::Before(Work::Delete(Space::State)),
        Step::After(Work::Delete(Space::State)),
        Step::After(Work::Delete(Space::Incoming)),
        Step::Upon(Sight::SnapshotInstalled),
    ];
    let (steps, most): (&[Step], u64) = match dice.index(10) {
        0..4 => (&often, 40),
        4..7 => (&seldom, 5),
        _ => (&rarely, 3),
    };
    (*dice.pick(steps), most)
}

fn quality(dice: &mut Dice) -> Quality {
    let mut part = |percent: u64, from: u64, to: u64| match dice.chance(percent) {
        true => dice.between(from, to),
        false => 0,
    };
    let ppm = |number: u64| u32::try_from(number).unwrap_or(0);
    Quality {
        loss_ppm: ppm(part(30, 10_000, 400_000)),
        twice_ppm: ppm(part(20, 10_000, 200_000)),
        delay_ms: part(50, 5, 150),
        tail_ppm: ppm(part(30, 1_000, 100_000)),
        bytes_per_s: part(40, 3_000, 100_000),
    }
}

/// Makes the faults of one kind, which belong together, last longer in a slow world.
fn lengthen(faults: &mut [Fault], pace: Pace) {
    let Some(first) = faults.first().map(|fault| fault.at_ms) else {
        return;
    };
    for fault in faults {
        fault.at_ms = first + fault.at_ms.saturating_sub(first) * pace.stretch;
        fault.for_ms *= pace.stretch;
    }
}

fn add(dice: &mut Dice, cluster: &Shape, kind: Kind, at_ms: u64, faults: &mut Vec<Fault>) {
    let mut fault = |at_ms: u64, for_ms: u64, what: Trouble| {
        faults.push(Fault {
            at_ms,
            for_ms,
            what,
            lasts: false,
        })
    };
    match kind {
        Kind::Crash => fault(
            at_ms,
            dice.between(50, 2_500),
            Trouble::Crash(several(dice, cluster)),
        ),
        Kind::PowerCut => {
            let kept = *dice.pick(&[Kept::Nothing, Kept::Some, Kept::Everything]);
            fault(
                at_ms,
                dice.between(50, 2_000),
                Trouble::PowerCut(several(dice, cluster), kept),
            );
        }
        Kind::BlackOut => {
            let who = *dice.pick(&[Who::All, Who::All, Who::Majority, Who::Leader]);
            let slow_for = dice.between(300, 1_500);
            let sync_ms = dice.between(100, 700);
            let kept = *dice.pick(&[Kept::Nothing, Kept::Nothing, Kept::Some]);
            let cut = at_ms + dice.between(100, slow_for);
            fault(at_ms, slow_for, Trouble::SlowSync(who, sync_ms));
            fault(cut, dice.between(50, 800), Trouble::PowerCut(who, kept));
        }
        Kind::Pause => fault(
            at_ms,
            dice.between(100, 4_000),
            // All of them, when the machine that they share is suspended: then the leader stays who it is.
            Trouble::Pause(match dice.chance(25) {
                true => Who::All,
                false => several(dice, cluster),
            }),
        ),
        Kind::CutOff => {
            let who = several(dice, cluster);
            let what = if dice.chance(80) {
                Trouble::CutOff(who)
            } else {
                Trouble::CutOffFromAll(who)
            };
            fault(at_ms, dice.between(200, 4_500), what);
        }
        Kind::OneWay => {
            let who = one(dice, cluster);
            let what = if dice.chance(50) {
                Trouble::Mute(who)
            } else {
                Trouble::Deaf(who)
            };
            fault(at_ms, dice.between(200, 4_000), what);
        }
        Kind::BlackHole => fault(
            at_ms,
            dice.between(200, 4_000),
            Trouble::BlackHole(one(dice, cluster)),
        ),
        Kind::Bridge => fault(
            at_ms,
            dice.between(500, 4_000),
            Trouble::Bridge(one(dice, cluster)),
        ),
        Kind::Loss => {
            let ppm = u32::try_from(dice.between(10_000, 250_000)).unwrap_or(100_000);
            fault(at_ms, dice.between(300, 4_000), Trouble::Loss { ppm });
        }
        Kind::Delay => {
            let twice_ppm = u32::try_from(dice.between(0, 100_000)).unwrap_or(0);
            let ms = dice.between(10, 250);
            fault(at_ms, dice.between(500, 4_000), Trouble::Delay { ms, twice_ppm });
        }
        Kind::SlowSync => {
            let ms = dice.between(20, 500);
            fault(
                at_ms,
                dice.between(300, 3_000),
                Trouble::SlowSync(several(dice, cluster), ms),
            );
        }
        Kind::HungSync => fault(
            at_ms,
            dice.between(200, 3_000),
            Trouble::HungSync(one(dice, cluster)),
        ),
        Kind::BrokenDisk => {
            let who = one(dice, cluster);
            let what = match dice.index(3) {
                0 => Trouble::FailedSync(who),
                1 => Trouble::FailedWrite(who),
                _ => Trouble::FullDisk(who),
            };
            fault(at_ms, dice.between(300, 2_000), what);
        }
        Kind::Clock => {
            let who = several(dice, cluster);
            if dice.chance(50) {
                let ppm = i32::try_from(dice.between(0, 1_900)).unwrap_or(0) - 950;
                fault(at_ms, 1, Trouble::Drift(who, ppm));
            } else {
                let ms = i64::try_from(dice.between(0, 7_200_000)).unwrap_or(0) - 3_600_000;
                fault(at_ms, 1, Trouble::WallJump(who, ms));
            }
        }
        Kind::Transfer => {
            let to = dice.chance(50).then(|| dice.server(cluster));
            fault(at_ms, 300, Trouble::Transfer { to });
        }
        Kind::LongAbsence => {
            let at_ms = dice.between(BEGIN_MS + 500, 4_000);
            let who = Who::Follower(dice.server(cluster));
            let what = match dice.index(3) {
                0 => Trouble::Crash(who),
                1 => Trouble::PowerCut(who, Kept::Some),
                _ => Trouble::CutOff(who),
            };
            fault(at_ms, dice.between(3_000, 5_000), what);
        }
        Kind::Membership => {
            let first = at_ms.min(5_000);
            match dice.index(6) {
                0 => fault(first, 500, Trouble::Join),
                1 => fault(first, 500, Trouble::Remove(one(dice, cluster))),
                2 => fault(first, 500, Trouble::JoinDown),
                3 => fault(first, 500, Trouble::Replace(one(dice, cluster))),
                _ => {
                    fault(first, 500, Trouble::Join);
                    fault(
                        first + dice.between(800, 3_000),
                        500,
                        Trouble::Remove(one(dice, cluster)),
                    );
                }
            }
        }
        Kind::Trap => fault(at_ms, dice.between(1_500, 5_000), trap(dice, cluster)),
        Kind::Flap => {
            let every_ms = dice.between(20, 900);
            let who = one(dice, cluster);
            fault(at_ms, dice.between(1_000, 5_000), Trouble::Flap { who, every_ms });
        }
        Kind::Ring => fault(at_ms, dice.between(500, 4_000), Trouble::Ring),
        Kind::Swallow => fault(
            at_ms,
            dice.between(200, 4_000),
            Trouble::Swallow(one(dice, cluster)),
        ),
        Kind::BadLink => fault(at_ms, dice.between(500, 5_000), bad_link(dice, cluster)),
        Kind::DeadSync => fault(
            at_ms,
            dice.between(300, 2_000),
            Trouble::DeadSync(one(dice, cluster)),
        ),
        Kind::SlowReads => {
            let ms = dice.between(2, 60);
            fault(
                at_ms,
                dice.between(500, 4_000),
                Trouble::SlowReads(several(dice, cluster), ms),
            );
        }
        Kind::TrappedInstall => {
            let at_ms = dice.between(BEGIN_MS + 500, 4_000);
            let who = Who::Server(dice.server(cluster));
            let away_ms = dice.between(2_500, 4_500);
            fault(at_ms, away_ms, Trouble::Crash(who));
            let step = *dice.pick(&[
                Step::Before(Work::Put(Space::Incoming)),
                Step::After(Work::Put(Space::Incoming)),
                Step::Before(Work::Put(Space::State)),
                Step::After(Work::Put(Space::State)),
                Step::Before(Work::Delete(Space::State)),
                Step::After(Work::Delete(Space::State)),
                Step::Before(Work::Delete(Space::Incoming)),
                Step::After(Work::Delete(Space::Incoming)),
                Step::Upon(Sight::SnapshotInstalled),
            ]);
            fault(at_ms + 10, away_ms + 2_500, trap_of(dice, who, step, 4));
        }
        Kind::TrappedElection => {
            let step = *dice.pick(&[
                Step::Before(Work::Put(Space::Meta)),
                Step::After(Work::Put(Space::Meta)),
                Step::Upon(Sight::VoteSaved),
                Step::Upon(Sight::BecameLeader),
                Step::Upon(Sight::LostLeadership),
                Step::Upon(Sight::Truncated),
            ]);
            let who = *dice.pick(&[Who::All, Who::Follower(0), Who::Follower(1), Who::Leader]);
            fault(at_ms, dice.between(1_500, 4_000), trap_of(dice, who, step, 3));
            let out = dice
                .pick(&[Trouble::Crash(Who::Leader), Trouble::Pause(Who::Leader)])
                .clone();
            fault(at_ms + dice.between(10, 300), dice.between(400, 2_000), out);
        }
        Kind::Restless => {
            let every_ms = dice.between(150, 1_500);
            for nth in 0..dice.between(2, 6) {
                let to = dice.chance(70).then(|| dice.server(cluster));
                fault(at_ms + nth * every_ms, 100, Trouble::Transfer { to });
            }
        }
        Kind::WildClock => {
            let ppm = i32::try_from(dice.between(0, 400_000)).unwrap_or(0) - 200_000;
            fault(at_ms, 1, Trouble::Drift(several(dice, cluster), ppm));
        }
    }
}

fn bad_link(dice: &mut Dice, cluster: &Shape) -> Trouble {
    let (from, to) = match dice.index(4) {
        0 => (Who::Leader, Who::All),
        1 => (Who::All, Who::Leader),
        2 => (Who::All, one(dice, cluster)),
        _ => (
            Who::Server(dice.server(cluster)),
            Who::Server(dice.server(cluster)),
        ),
    };
    let link = quality(dice);
    Trouble::BadLink { from, to, link }
}

fn trap(dice: &mut Dice, cluster: &Shape) -> Trouble {
    let (step, most) = step(dice);
    let who = several(dice, cluster);
    trap_of(dice, who, step, most)
}

/// A trap at up to the `most`-th of these steps.
fn trap_of(dice: &mut Dice, who: Who, step: Step, most: u64) -> Trouble {
    let kept = [
        None,
        Some(Kept::Nothing),
        Some(Kept::Some),
        Some(Kept::Everything),
    ];
    Trouble::Trap {
        who,
        step,
        nth: u32::try_from(dice.between(1, most)).unwrap_or(1),
        kept: *dice.pick(&kept),
        down_ms: dice.between(20, 1_200),
        // Now and then it crashes at the same step of every start.
        times: *dice.weighted(&[(7, 1), (2, 2), (1, 6)]),
    }
}

fn one(dice: &mut Dice, cluster: &Shape) -> Who {
    match dice.index(4) {
        0 | 1 => Who::Leader,
        2 => Who::Follower(dice.server(cluster)),
        _ => Who::Server(dice.server(cluster)),
    }
}

fn several(dice: &mut Dice, cluster: &Shape) -> Who {
    match dice.index(10) {
        0 => Who::All,
        1 => Who::Majority,
        _ => one(dice, cluster),
    }
}
