//! Draws faults.

use sider_core::registry::Command;

use super::{BEGIN_MS, Dice, Pace};
use crate::schedule::{Fault, Kept, Shape, Trouble, Who};

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
}

const KINDS: [Kind; 17] = [
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
];

pub(super) fn draw(dice: &mut Dice, cluster: &Shape, pace: Pace) -> Vec<Fault> {
    let mut faults = Vec::new();
    if cluster.command_version < Command::NEWEST_VERSION {
        upgrades(dice, cluster, pace, &mut faults);
    } else if dice.chance(7) {
        return faults;
    }
    // Few kinds in each world, so that each of them gets its chance alone.
    let few = dice.between(1, 5);
    let kinds: Vec<Kind> = (0..few).map(|_| *dice.pick(&KINDS)).collect();
    let many = dice.between(1, 8);
    for _ in 0..many {
        let kind = *dice.pick(&kinds);
        let at_ms = dice.between(BEGIN_MS + 500, pace.heal_ms - 700);
        let first = faults.len();
        add(dice, cluster, kind, at_ms, &mut faults);
        lengthen(&mut faults[first..], pace);
    }
    for fault in &mut faults {
        fault.at_ms = fault.at_ms.min(pace.heal_ms - 100);
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// A rolling upgrade: one server after the other comes back as the newer program. In some worlds one of them is taken
/// back to the older one before the last has moved on.
fn upgrades(dice: &mut Dice, cluster: &Shape, pace: Pace, faults: &mut Vec<Fault>) {
    let mut at_ms = dice.between(BEGIN_MS + 500, pace.heal_ms / 3);
    let taken_back = dice
        .chance(40)
        .then(|| dice.between(0, u64::from(cluster.servers) - 1));
    for server in 0..cluster.servers {
        let who = Who::Server(server);
        let mut restart = |at_ms: u64, for_ms: u64, what: Trouble| faults.push(Fault { at_ms, for_ms, what });
        restart(at_ms, dice.between(50, 600), Trouble::Upgrade(who));
        if taken_back == Some(u64::from(server)) {
            at_ms += dice.between(700, 1_500);
            restart(at_ms, dice.between(50, 600), Trouble::Downgrade(who));
        }
        at_ms = (at_ms + dice.between(300, 2_500)).min(pace.heal_ms - 200);
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
    let mut fault = |at_ms: u64, for_ms: u64, what: Trouble| faults.push(Fault { at_ms, for_ms, what });
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
            Trouble::Pause(one(dice, cluster)),
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
            match dice.index(3) {
                0 => fault(first, 500, Trouble::Join),
                1 => fault(first, 500, Trouble::Remove(one(dice, cluster))),
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
