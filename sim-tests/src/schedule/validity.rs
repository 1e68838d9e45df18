//! Whether a schedule makes sense. One that was saved and then changed by hand may not, and a run of it would prove
//! nothing, or blame the servers for what only the schedule is wrong about.

use serde_json::Value;
use sider_core::registry::{Command, InstanceId};

use super::{Action, AgentPlan, AgentTrouble, Befall, Doing, Fault, Question, Schedule, Shape, Trouble, Who};
use crate::{
    audit::AUDITOR,
    cluster_reads::ClusterAsk,
    forwarding::{is_kept, is_sent_on},
    history::ServerNumber,
    keys::{KeyOp, Step},
    operation::{Ask, Damage, Op},
};

/// The simulator is made for few servers: each is run to the end.
const SERVERS_MAX: u8 = 9;
/// No run is longer, and nothing in it takes longer: a day.
const SPAN_MS_MAX: u64 = 86_400_000;
/// No wall clock jumps further: a hundred years.
const WALL_JUMP_MS_MAX: u64 = 36_500 * SPAN_MS_MAX;
/// What is counted of a million.
const MILLION: u32 = 1_000_000;

/// Says what is wrong unless `holds`.
macro_rules! need {
    ($holds:expr, $($reason:tt)*) => {
        if !$holds {
            return Err(format!($($reason)*));
        }
    };
}

impl Schedule {
    /// Reads a saved schedule.
    ///
    /// # Errors
    /// If it can't be read, or makes no sense: why.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let schedule: Schedule = serde_json::from_str(text).map_err(|error| error.to_string())?;
        schedule.validate()?;
        Ok(schedule)
    }

    /// Whether it makes sense: whom it names is there, what it plans can happen before it ends, and numbers are such as
    /// the simulated world can bear.
    ///
    /// # Errors
    /// The first thing that makes none.
    pub fn validate(&self) -> Result<(), String> {
        let (heal_ms, end_ms) = (self.heal_ms, self.end_ms);
        need!(end_ms > 0, "end_ms is 0: nothing would happen");
        need!(
            heal_ms <= end_ms,
            "heal_ms is {heal_ms}, after the end at {end_ms} ms"
        );
        let saved = serde_json::to_value(self).map_err(|error| error.to_string())?;
        bounded(&saved, "")?;
        self.cluster
            .validate()
            .map_err(|reason| format!("cluster: {reason}"))?;
        for (place, action) in self.actions.iter().enumerate() {
            let valid = self.validate_action(action);
            valid.map_err(|reason| format!("actions[{place}]: {reason}"))?;
        }
        for (place, fault) in self.faults.iter().enumerate() {
            let valid = self.validate_fault(fault);
            valid.map_err(|reason| format!("faults[{place}]: {reason}"))?;
        }
        for (number, plan) in self.agents() {
            let start_ms = plan.start_ms;
            need!(
                start_ms < end_ms,
                "agent {number} starts at {start_ms} ms, not before the end at {end_ms} ms"
            );
            let valid = self.validate_agent(plan);
            valid.map_err(|reason| format!("agent {number}: {reason}"))?;
        }
        Ok(())
    }

    fn validate_agent(&self, plan: &AgentPlan) -> Result<(), String> {
        let heal_ms = self.heal_ms;
        for (place, Befall { at_ms, what, .. }) in plan.troubles.iter().enumerate() {
            need!(
                *at_ms < heal_ms,
                "troubles[{place}] begins at {at_ms} ms, not before all is healed at {heal_ms} ms"
            );
            let valid = match what {
                AgentTrouble::Drift(ppm) => validate_drift(*ppm),
                AgentTrouble::WallJump(ms) => validate_jump(*ms),
                AgentTrouble::SlowSync(ms) if *ms > SPAN_MS_MAX => {
                    Err(format!("{ms} ms are more than {SPAN_MS_MAX} ms"))
                }
                AgentTrouble::CutOff { from, .. } => self.validate_who(*from),
                _ => Ok(()),
            };
            valid.map_err(|reason| format!("troubles[{place}]: {reason}"))?;
        }
        let is_name = |id: &String| InstanceId::parse(id).is_ok();
        let of_health = plan.asks.iter().filter_map(|it| match &it.what {
            Question::Health(id) => Some(id),
            _ => None,
        });
        let ids = plan.orders.iter().map(|it| &it.id);
        let mut ids = ids.chain(plan.reports.iter().map(|it| &it.id)).chain(of_health);
        match ids.find(|id| !is_name(id)) {
            Some(id) => Err(format!("{id:?} is no instance's id")),
            None => Ok(()),
        }
    }

    /// Whether somebody is there. Those behind the leader are counted round and round; a server may be one that joins.
    fn validate_who(&self, who: Who) -> Result<(), String> {
        let (Who::Server(number) | Who::Follower(number)) = who else {
            return Ok(());
        };
        let servers = self.cluster.servers;
        let joins = |fault: &&Fault| {
            matches!(
                fault.what,
                Trouble::Join | Trouble::JoinDown | Trouble::Replace(_)
            )
        };
        let joining = self.faults.iter().filter(joins).count();
        need!(
            usize::from(number) < usize::from(servers) + joining,
            "{}",
            no_server(number, servers)
        );
        Ok(())
    }

    fn validate_action(&self, action: &Action) -> Result<(), String> {
        let (at_ms, client, end_ms) = (action.at_ms, action.client, self.end_ms);
        need!(
            at_ms < end_ms,
            "it begins at {at_ms} ms, not before the end at {end_ms} ms"
        );
        // The one after the last proves that servers serve.
        need!(client < AUDITOR - 1, "client {client} is above {}", AUDITOR - 2);
        let asked: Vec<u8> = match &action.what {
            Doing::Chain(ops) => {
                ops.iter().try_for_each(|(_, op)| validate_op(op))?;
                ops.iter()
                    .try_for_each(|(server, op)| validate_way(*server, op))?;
                ops.iter().map(|(server, _)| *server).collect()
            }
            Doing::Follow {
                servers, until_ms, ..
            }
            | Doing::Stream {
                servers, until_ms, ..
            } => {
                need!(at_ms <= *until_ms, "it goes from {at_ms} ms until {until_ms} ms");
                servers.clone()
            }
        };
        need!(!asked.is_empty(), "nobody is asked anything");
        let servers = self.cluster.servers;
        let is_there = |server: &u8| match ServerNumber(*server).agent() {
            Some(agent) => self.agents().any(|(number, _)| number == agent),
            None => *server < servers,
        };
        let missing = asked.into_iter().find(|server| !is_there(server));
        missing.map_or(Ok(()), |server| match ServerNumber(server).agent() {
            Some(agent) => Err(format!("there is no agent {agent}")),
            None => Err(no_server(server, servers)),
        })
    }

    fn validate_fault(&self, fault: &Fault) -> Result<(), String> {
        let (at_ms, heal_ms) = (fault.at_ms, self.heal_ms);
        need!(
            at_ms < heal_ms,
            "it begins at {at_ms} ms, not before all is healed at {heal_ms} ms"
        );
        let servers = self.cluster.servers;
        fault.what.about().try_for_each(|who| self.validate_who(who))?;
        match fault.what {
            Trouble::Transfer { to: Some(to) } => need!(to < servers, "{}", no_server(to, servers)),
            Trouble::Drift(_, ppm) => validate_drift(ppm)?,
            Trouble::WallJump(_, ms) => validate_jump(ms)?,
            Trouble::SlowSync(_, ms) | Trouble::SlowReads(_, ms) => {
                need!(ms <= SPAN_MS_MAX, "{ms} ms are more than {SPAN_MS_MAX} ms")
            }
            Trouble::Trap { nth, times, .. } => {
                need!(nth > 0, "nth is counted from 1");
                need!(times > 0, "times is 0: nothing would happen");
            }
            Trouble::Flap { every_ms, .. } => need!(every_ms > 0, "every_ms is 0"),
            _ => {}
        }
        Ok(())
    }
}

impl Shape {
    fn validate(&self) -> Result<(), String> {
        let servers = self.servers;
        need!(
            (1..=SERVERS_MAX).contains(&servers),
            "there can be 1 to {SERVERS_MAX} servers, not {servers}"
        );
        let drifts = self.drift_ppm.len();
        need!(
            drifts == usize::from(servers),
            "drift_ppm has {drifts} numbers for {servers} servers"
        );
        self.drift_ppm.iter().try_for_each(|ppm| validate_drift(*ppm))?;
        let (heartbeat_ms, (from, to)) = (self.heartbeat_ms, self.election_ms);
        need!(heartbeat_ms > 0, "heartbeat_ms is 0");
        need!(
            heartbeat_ms < from,
            "election_ms begins at {from} ms, not above heartbeat_ms, which is {heartbeat_ms} ms"
        );
        need!(from < to, "election_ms goes from {from} to {to}");
        for (name, (from, to)) in [("latency_us", self.latency_us), ("sync_us", self.sync_us)] {
            need!(from <= to, "{name} goes from {from} to {to}");
            need!(
                to <= SPAN_MS_MAX * 1_000,
                "{name} goes up to {to}, more than {SPAN_MS_MAX} ms"
            );
        }
        need!(self.snapshot_threshold > 0, "snapshot_threshold is 0");
        let (version, newest) = (self.command_version, Command::NEWEST_VERSION);
        need!(
            (1..=newest).contains(&version),
            "command_version is {version}, not one from 1 to {newest}"
        );
        Ok(())
    }
}

/// Whether what is asked of an agent is what it sends on, and what only an agent keeps is asked of one.
fn validate_way(server: u8, op: &Op) -> Result<(), String> {
    let through_an_agent = ServerNumber(server).agent().is_some();
    need!(
        !through_an_agent || is_sent_on(op),
        "an agent does not send on: {op}"
    );
    let kept = op.asked().filter(|(_, freshness)| freshness.is_cached());
    need!(
        kept.is_none_or(|(ask, _)| through_an_agent && is_kept(ask)),
        "nobody keeps answers to this: {op}"
    );
    Ok(())
}

fn validate_op(op: &Op) -> Result<(), String> {
    if let Op::Restore {
        damage: Damage::CutOff(place) | Damage::Flipped(place),
    } = op
    {
        need!(
            *place < 1_000,
            "a file is damaged at {place} thousandths, behind its end"
        );
    }
    match op {
        Op::Cluster(ClusterAsk::Fire { name, payload }) => {
            for text in [name, payload] {
                need!(is_plain(text), "an event is called {text:?}");
            }
        }
        Op::Read {
            ask: Ask::Session(session),
            ..
        }
        | Op::Wait {
            ask: Ask::Session(session),
            ..
        } => need!(is_plain(session), "a session is called {session:?}"),
        Op::Keys(KeyOp::Transact(steps)) => {
            for step in steps {
                if let Step::EndSession(session) = step {
                    need!(is_plain(session), "a session is called {session:?}");
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether a text can stand in a path as it is, and be a name.
fn is_plain(text: &str) -> bool {
    let plain = |it: char| it.is_ascii_alphanumeric() || it == '-';
    !text.is_empty() && text.len() < 100 && text.chars().all(plain)
}

fn validate_drift(ppm: i32) -> Result<(), String> {
    need!(
        ppm.unsigned_abs() < MILLION,
        "a drift of {ppm} ppm is not between -{MILLION} and {MILLION}"
    );
    Ok(())
}

fn validate_jump(ms: i64) -> Result<(), String> {
    need!(
        ms.unsigned_abs() <= WALL_JUMP_MS_MAX,
        "a jump of {ms} ms is beyond {WALL_JUMP_MS_MAX} ms"
    );
    Ok(())
}

fn no_server(server: u8, servers: u8) -> String {
    format!("there is no server {server}, only {servers} of them, counted from 0")
}

/// Whether every span is short enough, and every share one of a million, by the names that fields have when it is saved.
fn bounded(value: &Value, name: &str) -> Result<(), String> {
    let most = match name {
        "ms" => Some(SPAN_MS_MAX),
        "ppm" => Some(u64::from(MILLION)),
        name if name.ends_with("_ms") => Some(SPAN_MS_MAX),
        name if name.ends_with("_ppm") => Some(u64::from(MILLION)),
        _ => None,
    };
    match value {
        Value::Number(number) => {
            let beyond = most.filter(|most| number.as_u64().is_some_and(|it| it > *most));
            beyond.map_or(Ok(()), |most| {
                Err(format!("{name} is {number}, more than {most}"))
            })
        }
        Value::Array(elements) => elements.iter().try_for_each(|it| bounded(it, name)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, it)| bounded(it, name)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::generate::generate;

    /// What is said of a sound schedule of three servers in which one thing is another.
    fn refused(place: &str, value: Value) -> String {
        let schedule = (0..).map(generate).find(|it| {
            it.cluster.servers == 3 && !it.faults.is_empty() && matches!(it.actions[0].what, Doing::Chain(_))
        });
        let mut saved =
            serde_json::to_value(schedule.expect("some seed has three servers")).expect("it can be");
        let (above, name) = place.rsplit_once('/').expect("it begins with a slash");
        saved.pointer_mut(above).expect("it has such a part")[name] = value;
        let verdict = Schedule::parse(&saved.to_string());
        verdict.expect_err("it makes no sense")
    }

    fn assert_refused(place: &str, value: Value, reason: &str) {
        let said = refused(place, value);
        assert!(said.contains(reason), "{place}: {said}");
    }

    #[test]
    fn generated_schedules_make_sense() {
        for seed in 0..300 {
            let valid = generate(seed).validate();
            assert_eq!(valid, Ok(()), "seed {seed}");
        }
    }

    #[test]
    fn fields_that_nobody_knows_are_refused() {
        for part in ["", "/cluster", "/actions/0", "/faults/0"] {
            assert_refused(&format!("{part}/driftppm"), json!(1), "unknown field `driftppm`");
        }
        let op = json!([[0, {"Read": {"ask": "Nodes", "freshness": "Stale", "index": 3}}]]);
        assert_refused("/actions/0/what", json!({"Chain": op}), "unknown field `index`");
        let loss = json!({"Loss": {"ppm": 3, "ms": 3}});
        assert_refused("/faults/0/what", loss, "unknown field `ms`");
    }

    #[test]
    fn times_that_are_out_of_order_are_refused() {
        assert_refused("/heal_ms", json!(9_000_000), "after the end");
        assert_refused("/end_ms", json!(0), "nothing would happen");
        assert_refused(
            "/end_ms",
            json!(u64::MAX),
            "end_ms is 18446744073709551615, more than",
        );
        assert_refused("/actions/0/at_ms", json!(9_000_000), "actions[0]: it begins");
        assert_refused("/faults/0/at_ms", json!(9_000_000), "faults[0]: it begins");
        let follow = json!({"Follow": {"ask": "Nodes", "freshness": "Stale", "wait_ms": 1, "until_ms": 0, "servers": [0]}});
        assert_refused("/actions/0/what", follow, "until 0 ms");
        let agent = json!({"start_ms": 9_000_000, "crashes": [], "flips_ms": []});
        assert_refused("/other_agent", agent, "agent 1 starts");
    }

    #[test]
    fn what_can_befall_no_agent_is_refused() {
        let plan = |at_ms: u64, what: Value| json!({"start_ms": 1, "crashes": [], "flips_ms": [], "troubles": [{"at_ms": at_ms, "for_ms": 1, "what": what}]});
        let cut = json!({"CutOff": {"from": {"Server": 99}, "way": "Mute"}});
        for (plan, reason) in [
            (plan(9_000_000, json!("Pause")), "agent 1: troubles[0] begins"),
            (plan(1, cut), "there is no server 99"),
            (plan(1, json!({"Drift": -1_000_000})), "-1000000 ppm"),
            (plan(1, json!({"WallJump": i64::MIN})), "a jump of"),
            (plan(1, json!({"SlowSync": u64::MAX})), "more than"),
        ] {
            assert_refused("/other_agent", plan, reason);
        }
        let order = json!({"start_ms": 1, "crashes": [], "flips_ms": [], "orders": [{"at_ms": 1, "id": "", "port": 1}]});
        assert_refused("/other_agent", order, "is no instance's id");
    }

    #[test]
    fn a_cluster_that_cannot_be_is_refused() {
        assert_refused("/cluster/servers", json!(0), "not 0");
        assert_refused("/cluster/servers", json!(5), "3 numbers for 5 servers");
        assert_refused("/cluster/latency_us", json!([900, 100]), "from 900 to 100");
        assert_refused("/cluster/sync_us", json!([900, 100]), "from 900 to 100");
        assert_refused("/cluster/election_ms", json!([600, 300]), "from 600 to 300");
        assert_refused("/cluster/election_ms", json!([10, 300]), "not above heartbeat_ms");
        assert_refused("/cluster/heartbeat_ms", json!(0), "heartbeat_ms is 0");
        assert_refused("/cluster/snapshot_threshold", json!(0), "snapshot_threshold");
        assert_refused("/cluster/command_version", json!(0), "command_version is 0");
        assert_refused("/cluster/drift_ppm", json!([0, 0, -1_000_000]), "-1000000 ppm");
    }

    #[test]
    fn nobody_is_named_who_is_not_there() {
        let read = json!({"Read": {"ask": "Nodes", "freshness": "Stale"}});
        let asked = |server: u8| json!({"Chain": [[server, read.clone()]]});
        assert_refused("/actions/0/what", asked(99), "there is no server 99");
        assert_refused("/actions/0/what", json!({"Chain": []}), "nobody is asked");
        assert_refused("/actions/0/client", json!(199), "client 199 is above");
        let link = json!({"BadLink": {"from": "Leader", "to": {"Server": 99}, "link": {
            "loss_ppm": 0, "twice_ppm": 0, "delay_ms": 0, "tail_ppm": 0, "bytes_per_s": 0,
        }}});
        for what in [
            json!({"Crash": {"Server": 99}}),
            json!({"Crash": {"Follower": 99}}),
            json!({"Transfer": {"to": 99}}),
            link,
        ] {
            assert_refused("/faults/0/what", what, "there is no server 99");
        }
    }

    #[test]
    fn what_no_agent_sends_on_is_not_asked_of_one() {
        let ask = |freshness: Value| json!({"Read": {"ask": "Nodes", "freshness": freshness}});
        let asked = |server: u8, op: Value| json!({"Chain": [[server, op]]});
        assert_refused(
            "/actions/0/what",
            asked(205, ask(json!("Default"))),
            "there is no agent 5",
        );
        assert_refused("/actions/0/what", asked(0, ask(json!("Cached"))), "nobody keeps");
        let own = json!({"Deregister": {"id": "web-1", "service": null}});
        assert_refused("/actions/0/what", asked(200, own), "does not send on");
    }

    #[test]
    fn faults_that_no_world_can_bear_are_refused() {
        let trap = |nth: u32, times: u8| {
            json!({"Trap": {"who": "Leader", "step": {"Before": "Sync"}, "nth": nth, "kept": null, "down_ms": 1,
                "times": times}})
        };
        for (what, reason) in [
            (json!({"Drift": ["All", -1_000_000]}), "-1000000 ppm"),
            (json!({"WallJump": ["All", i64::MIN]}), "a jump of"),
            (json!({"SlowSync": ["All", u64::MAX]}), "more than"),
            (json!({"Loss": {"ppm": 1_000_001}}), "ppm is 1000001"),
            (
                json!({"Delay": {"ms": u64::MAX, "twice_ppm": 0}}),
                "ms is 18446744073709551615",
            ),
            (json!({"Flap": {"who": "Leader", "every_ms": 0}}), "every_ms is 0"),
            (trap(0, 1), "counted from 1"),
            (trap(1, 0), "nothing would happen"),
        ] {
            assert_refused("/faults/0/what", what, reason);
        }
        let restore = json!({"Chain": [[0, {"Restore": {"damage": {"CutOff": 1_000}}}]]});
        assert_refused("/actions/0/what", restore, "behind its end");
        let fire = json!({"Chain": [[0, {"Cluster": {"Fire": {"name": "a b", "payload": "c"}}}]]});
        assert_refused("/actions/0/what", fire, "an event is called \"a b\"");
        let end = json!({"Chain": [[0, {"Keys": {"Transact": [{"EndSession": ""}]}}]]});
        assert_refused("/actions/0/what", end, "a session is called \"\"");
    }
}
