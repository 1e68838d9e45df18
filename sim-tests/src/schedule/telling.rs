//! A schedule in plain words, as `cargo sim show` and reports tell it.

use std::fmt;

use super::{Doing, Kept, Quality, Schedule, Squeeze, Trouble, Who};
use crate::words;

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = &self.cluster;
        writeln!(
            f,
            "seed {}: {} servers{}, heartbeat {} ms, election {}–{} ms, a checkpoint every {} entries keeping {}",
            self.seed,
            shape.servers,
            if shape.join { " that join the first" } else { "" },
            shape.heartbeat_ms,
            shape.election_ms.0,
            shape.election_ms.1,
            shape.snapshot_threshold,
            shape.log_keep,
        )?;
        writeln!(
            f,
            "messages take {}–{} µs, syncs {}–{} µs, clocks are wrong by {} ppm{}",
            shape.latency_us.0,
            shape.latency_us.1,
            shape.sync_us.0,
            shape.sync_us.1,
            words::list(&shape.drift_ppm),
            match self.agents().count() {
                0 => "",
                1 => "; an agent runs",
                _ => "; two agents run",
            },
        )?;
        if let Some(squeeze) = shape.squeeze {
            writeln!(f, "with small limits: {squeeze}")?;
        }
        if shape.servers_listed {
            writeln!(f, "the servers are in their own catalog")?;
        }
        writeln!(f, "faults ({}):", self.faults.len())?;
        for fault in &self.faults {
            writeln!(
                f,
                "  {:>6} ms for {:>5} ms: {}{}",
                fault.at_ms,
                fault.for_ms,
                fault.what,
                if fault.lasts { ", for ever" } else { "" },
            )?;
        }
        writeln!(f, "operations ({}):", self.operations())?;
        for action in &self.actions {
            write!(f, "  {:>6} ms c{}: ", action.at_ms, action.client)?;
            match &action.what {
                Doing::Chain(ops) => {
                    let each: Vec<String> = ops
                        .iter()
                        .map(|(server, op)| format!("s{server}: {op}"))
                        .collect();
                    writeln!(f, "{}", each.join(", then "))?;
                }
                Doing::Follow {
                    ask,
                    freshness,
                    wait_ms,
                    until_ms,
                    servers,
                } => writeln!(
                    f,
                    "follow {ask} ({freshness}) at {}, {wait_ms} ms each, until {until_ms} ms",
                    words::list(servers.iter().map(|server| format!("s{server}")))
                )?,
                Doing::Stream {
                    ask,
                    freshness,
                    silence_ms,
                    slowness_ms,
                    until_ms,
                    servers,
                } => writeln!(
                    f,
                    "a stream of {ask} ({freshness}) at {}, given up after {silence_ms} ms of silence, {slowness_ms} ms \
                     between its events, until {until_ms} ms",
                    words::list(servers.iter().map(|server| format!("s{server}")))
                )?,
            }
        }
        for (number, plan) in self.agents() {
            write!(f, "agent {number} {plan}")?;
        }
        write!(f, "healed at {} ms, ends at {} ms", self.heal_ms, self.end_ms)
    }
}

impl fmt::Display for Squeeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = [
            (
                usize::try_from(self.append_entries).unwrap_or(usize::MAX),
                "entries of an append",
            ),
            (self.append_bytes, "bytes of an append"),
            (self.appends_in_flight, "appends under way to a follower"),
            (self.snapshot_chunk_bytes, "bytes of a snapshot's chunk"),
            (self.journal_writes, "writes in a sync"),
            (self.log_cache_entries, "log entries in memory"),
            (self.log_read_entries, "log entries read in one go"),
            (self.views, "answers kept"),
            (self.forwards_in_flight, "writes under way to the leader"),
            (self.decisions_in_flight, "decisions under way"),
            (self.expiries_per_command, "checks that expire in a command"),
            (self.tombstones, "indexes of what is gone"),
            (self.key_versions, "superseded versions of keys"),
            (self.writes_at_once, "writes at a time"),
        ];
        let set = limits.iter().filter(|(most, _)| *most > 0);
        let each: Vec<String> = set.map(|(most, what)| format!("{what}: {most}")).collect();
        match each.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&words::list(each)),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Crash(who) => write!(f, "{who} crashes"),
            Trouble::PowerCut(who, kept) => {
                write!(f, "{who} loses power; of what was unsynced stays {kept}")
            }
            Trouble::Pause(who) => write!(f, "{who} stands still"),
            Trouble::CutOff(who) => write!(f, "{who} is cut off from other servers"),
            Trouble::CutOffFromAll(who) => write!(f, "{who} is cut off from everyone"),
            Trouble::Mute(who) => write!(f, "{who} is not heard by other servers"),
            Trouble::Deaf(who) => write!(f, "{who} does not hear other servers"),
            Trouble::BlackHole(who) => write!(
                f,
                "{who} keeps its connections to other servers, but nothing passes"
            ),
            Trouble::Bridge(who) => write!(f, "only {who} reaches both halves of the other servers"),
            Trouble::Loss { ppm } => write!(f, "{ppm} of a million messages between servers get lost"),
            Trouble::Delay { ms, twice_ppm } => {
                write!(
                    f,
                    "messages between servers take up to {ms} ms, {twice_ppm} of a million arrive twice"
                )
            }
            Trouble::SlowSync(who, ms) => write!(f, "{who}'s syncs take {ms} ms"),
            Trouble::HungSync(who) => write!(f, "{who}'s syncs hang"),
            Trouble::LyingSync(who) => write!(f, "{who}'s syncs make nothing durable"),
            Trouble::FailedSync(who) => write!(f, "{who}'s next sync fails"),
            Trouble::FailedWrite(who) => write!(f, "{who}'s next write fails"),
            Trouble::FullDisk(who) => write!(f, "{who}'s disk is full"),
            Trouble::Drift(who, ppm) => write!(f, "{who}'s clock is wrong by {ppm} ppm"),
            Trouble::WallJump(who, ms) => write!(f, "{who}'s wall clock jumps by {ms} ms"),
            Trouble::Transfer { to: Some(to) } => write!(f, "leadership is handed to s{to}"),
            Trouble::Transfer { to: None } => f.write_str("leadership is handed on"),
            Trouble::Join => f.write_str("a new server joins"),
            Trouble::Remove(who) => write!(f, "{who} is removed"),
            Trouble::Trap {
                who,
                step,
                nth,
                kept,
                down_ms,
                times,
            } => {
                write!(f, "{who} is to ")?;
                match kept {
                    None => f.write_str("crash")?,
                    Some(kept) => write!(f, "lose power (of what is unsynced stays {kept})")?,
                }
                write!(f, " {step} number {nth}, for {down_ms} ms, {times} times")
            }
            Trouble::Wipe { who, out_ms } => {
                write!(
                    f,
                    "{who} loses its disk, and is added again {out_ms} ms after it came back"
                )
            }
            Trouble::Upgrade(who) => write!(f, "{who} is restarted as the newest program"),
            Trouble::Downgrade(who) => write!(f, "{who} is restarted as an older program"),
            Trouble::Replace(who) => write!(f, "{who} is replaced by a new server"),
            Trouble::JoinDown => f.write_str("a server that is down is to join"),
            Trouble::Flap { who, every_ms } => {
                write!(
                    f,
                    "{who} is cut off from other servers, and not, every {every_ms} ms"
                )
            }
            Trouble::Ring => f.write_str("each server reaches only those next to it"),
            Trouble::Swallow(who) => {
                write!(f, "{who} keeps all its connections, but nothing passes")
            }
            Trouble::BadLink { from, to, link } => write!(f, "from {from} to {to}: {link}"),
            Trouble::DeadSync(who) => write!(f, "{who}'s syncs fail"),
            Trouble::SlowReads(who, ms) => write!(f, "one in ten of {who}'s reads takes {ms} ms"),
            Trouble::Rot { who, space, restart } => write!(
                f,
                "a bit of {who}'s {space} flips{}",
                if *restart { " while it is down" } else { "" }
            ),
        }
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of a million messages get lost, {} come twice, all take up to {} ms and {} of a million ten times that",
            self.loss_ppm, self.twice_ppm, self.delay_ms, self.tail_ppm,
        )?;
        match self.bytes_per_s {
            0 => Ok(()),
            rate => write!(f, ", {rate} bytes pass in a second"),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kept::Nothing => "nothing",
            Kept::Some => "a part",
            Kept::Everything => "everything",
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Server(number) => write!(f, "s{number}"),
            Who::Leader => f.write_str("the leader"),
            Who::Follower(nth) => write!(f, "follower {nth}"),
            Who::Majority => f.write_str("a majority"),
            Who::All => f.write_str("everyone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_that_are_set_are_told() {
        let squeeze = Squeeze {
            append_entries: 2,
            views: 3,
            ..Squeeze::default()
        };
        assert_eq!(squeeze.to_string(), "entries of an append: 2, answers kept: 3");
        assert_eq!(Squeeze::default().to_string(), "none");
    }
}
