//! A run as a picture: one HTML page that needs nothing else, neither a network nor a server.
//!
//! This module gathers what there is to draw; `model.js`, `draw.js` and `view.js` draw it. `docs/SIMULATION.md` says
//! how to read it.

mod drawn;

use std::collections::BTreeMap;

use sider_core::server::{peer_answer, peer_request};
use sider_runtime_sim::{Fate, Message, MessageKind, SimRuntime};

use self::drawn::{Call, Doing, Entry, Fault, Kind, Lane, LaneKind, Mark, Op, Page, Run, Status, Violated};
use crate::{
    history::{Fact, History, Observed, Operation, Outcome, ServerNumber},
    matching::Source,
    operation::Op as Asked,
    run::Report,
    time::Time,
    words,
};

const SCRIPT: &str = concat!(
    include_str!("model.js"),
    include_str!("draw.js"),
    include_str!("view.js")
);

/// The page of a run that was kept: see [`crate::run::run_and_keep`]. `title` says which schedule it was.
pub fn page(title: &str, report: &Report) -> String {
    let lanes = Lanes::of(report);
    let history = &report.history;
    let page = Page {
        title: title.to_owned(),
        trace_hash: format!("{:016x}", report.trace_hash),
        ended: ns(history.ended),
        healed: ns(history.healed),
        violations: violated(report),
        faults: faults(history, &lanes),
        runs: runs(history, &lanes),
        ops: history
            .operations
            .iter()
            .map(|it| op(history, &lanes, it))
            .collect(),
        marks: marks(report, &lanes),
        calls: calls(report, &lanes),
        log: log(history),
        lanes: lanes.list,
    };
    let data = serde_json::to_string(&page).expect("plain data can be written as JSON");
    // Nothing in it may end the element that it stands in.
    let data = data.replace('<', "\\u003c");
    include_str!("view.html")
        .replace("/*STYLE*/", include_str!("view.css"))
        .replace("/*SCRIPT*/", SCRIPT)
        .replace("/*TITLE*/", &escaped(title))
        .replace("/*DATA*/", &data)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn ns(time: Time) -> u64 {
    time.0
}

/// Who there is, from top to bottom: servers, clients, and whatever else has a machine.
struct Lanes {
    list: Vec<Lane>,
    by_name: BTreeMap<String, usize>,
    /// By the number of the machine.
    by_host: Vec<usize>,
}

impl Lanes {
    fn of(report: &Report) -> Lanes {
        let mut names = report.hosts.clone();
        names.sort_by_key(|name| (kind_of(name), name.len(), name.clone()));
        names.dedup();
        let by_name: BTreeMap<String, usize> = names
            .iter()
            .enumerate()
            .map(|(place, name)| (name.clone(), place))
            .collect();
        Lanes {
            by_host: report.hosts.iter().map(|name| by_name[name]).collect(),
            list: names
                .into_iter()
                .map(|name| Lane {
                    kind: kind_of(&name),
                    name,
                })
                .collect(),
            by_name,
        }
    }

    fn of_server(&self, server: ServerNumber) -> usize {
        self.of_name(&server.to_string())
    }

    fn of_name(&self, name: &str) -> usize {
        self.by_name.get(name).copied().unwrap_or_default()
    }

    fn of_client(&self, client: u32) -> usize {
        self.of_name(&format!("c{client}"))
    }
}

fn kind_of(name: &str) -> LaneKind {
    let numbered = |letter| {
        name.strip_prefix(letter)
            .is_some_and(|rest: &str| rest.parse::<u32>().is_ok())
    };
    match name {
        _ if numbered('s') => LaneKind::Server,
        _ if numbered('c') => LaneKind::Client,
        _ if name.starts_with("agent") => LaneKind::Agent,
        _ => LaneKind::Other,
    }
}

fn violated(report: &Report) -> Vec<Violated> {
    let violated = |it: &crate::invariants::Violation| Violated {
        invariant: it.invariant.to_owned(),
        at: ns(it.at),
        what: it.what.clone(),
        ops: it.operations.clone(),
    };
    report.violations.iter().map(violated).collect()
}

fn faults(history: &History, lanes: &Lanes) -> Vec<Fault> {
    let fault = |it: &crate::history::FaultSpan| Fault {
        from: ns(it.from),
        until: ns(it.until.min(history.ended)),
        lanes: it.servers.iter().map(|server| lanes.of_server(*server)).collect(),
        what: it.what.clone(),
    };
    let change = |it: &crate::history::MembershipChange| Fault {
        from: ns(it.invoked),
        until: ns(it.returned),
        lanes: vec![lanes.of_server(it.server)],
        what: format!(
            "the operator asks {} to {}: {}",
            it.server,
            if it.joins { "join" } else { "leave" },
            it.answer
        ),
    };
    let of_agents = history.agents.iter().flat_map(|agent| {
        let lane = lanes.of_name(&agent.node);
        agent.outages.iter().map(move |it| Fault {
            from: ns(it.from),
            until: ns(it.until.unwrap_or(history.ended).min(history.ended)),
            lanes: vec![lane],
            what: it.what.clone(),
        })
    });
    let faults = history.faults.iter().map(fault);
    let changes = history.memberships.iter().map(change);
    faults.chain(changes).chain(of_agents).collect()
}

/// Spans in which a server leads, is down, or stands still.
fn runs(history: &History, lanes: &Lanes) -> Vec<Run> {
    let mut open: BTreeMap<(ServerNumber, Status), (Time, Option<u64>, String)> = BTreeMap::new();
    let mut runs = Vec::new();
    let mut end =
        |open: &mut BTreeMap<_, (Time, Option<u64>, String)>, server: ServerNumber, status, at: Time| {
            if let Some((from, term, text)) = open.remove(&(server, status)) {
                runs.push(Run {
                    lane: lanes.of_server(server),
                    from: ns(from),
                    until: ns(at),
                    status,
                    term,
                    text,
                });
            }
        };
    for Observed { at, server, what } in &history.observations {
        let (at, server) = (*at, *server);
        match what {
            Fact::Started => end(&mut open, server, Status::Down, at),
            Fact::Stopped { by_itself } => {
                end(&mut open, server, Status::Leads, at);
                end(&mut open, server, Status::Paused, at);
                let why = by_itself
                    .as_ref()
                    .map_or("is down".into(), |why| format!("stopped by itself: {why}"));
                open.entry((server, Status::Down)).or_insert((at, None, why));
            }
            Fact::Paused => {
                open.insert((server, Status::Paused), (at, None, "stands still".into()));
            }
            Fact::Resumed => end(&mut open, server, Status::Paused, at),
            Fact::BecameLeader { term } => {
                end(&mut open, server, Status::Leads, at);
                open.insert(
                    (server, Status::Leads),
                    (at, Some(*term), format!("leads term {term}")),
                );
            }
            Fact::LostLeadership { .. } => end(&mut open, server, Status::Leads, at),
            _ => {}
        }
    }
    let still: Vec<_> = open.keys().copied().collect();
    for (server, status) in still {
        end(&mut open, server, status, history.ended);
    }
    runs
}

fn op(history: &History, lanes: &Lanes, it: &Operation) -> Op {
    let truth = history.truth();
    let entry = truth
        .sources
        .iter()
        .position(|source| *source == Source::Operation(it.id))
        .map(|place| truth.entries[place].log_index);
    Op {
        id: it.id,
        lane: lanes.of_client(it.client),
        to: lanes.of_server(it.server),
        from: ns(it.invoked),
        until: ns(it.returned),
        doing: match it.op {
            Asked::Wait { .. } => Doing::Wait,
            _ if it.op.is_write() => Doing::Write,
            _ => Doing::Read,
        },
        what: it.op.to_string(),
        verdict: match it.outcome {
            Outcome::Done(_) => "done",
            Outcome::Refused { .. } => "refused",
            Outcome::Failed(_) => "failed",
            Outcome::Unknown(_) => "unknown",
            Outcome::Nonsense(_) => "nonsense",
        },
        outcome: words::outcome(&it.outcome),
        entry,
    }
}

fn marks(report: &Report, lanes: &Lanes) -> Vec<Mark> {
    let of_server = |seen: &Observed| {
        let (kind, number) = match &seen.what {
            Fact::VoteSaved { term, .. } => (Kind::Vote, Some(*term)),
            Fact::BecameLeader { term } | Fact::LostLeadership { term } => (Kind::Leader, Some(*term)),
            Fact::Appended { index, .. } => (Kind::Append, Some(*index)),
            Fact::Truncated { after } => (Kind::Truncate, Some(*after)),
            Fact::Applied(entry) => (Kind::Apply, Some(entry.log_index)),
            Fact::Checkpointed { log_index } => (Kind::Checkpoint, Some(*log_index)),
            Fact::Purged { upto } => (Kind::Checkpoint, Some(*upto)),
            Fact::SnapshotInstalled { log_index, .. } => (Kind::Snapshot, Some(*log_index)),
            _ => (Kind::Process, None),
        };
        let index = match &seen.what {
            Fact::Applied(entry) => Some(entry.index),
            Fact::SnapshotInstalled { index, .. } => Some(*index),
            _ => None,
        };
        Some(Mark {
            lane: lanes.of_server(seen.server),
            at: ns(seen.at),
            kind,
            number,
            index,
            text: words::fact(&seen.what, true)?,
        })
    };
    let of_disk = report
        .lines
        .iter()
        .filter(|line| line.kind == "disk" || line.kind == "log");
    let of_disk = of_disk.filter_map(|line| {
        let lane = *lanes.by_host.get(line.host?.index())?;
        Some(Mark {
            lane,
            at: u64::try_from(line.at.as_nanos()).unwrap_or(u64::MAX),
            kind: if line.kind == "disk" {
                Kind::Disk
            } else {
                Kind::Log
            },
            number: None,
            index: None,
            text: line.text.clone(),
        })
    });
    let mut marks: Vec<Mark> = report
        .history
        .observations
        .iter()
        .filter_map(of_server)
        .chain(of_disk)
        .collect();
    marks.sort_by_key(|mark| mark.at);
    marks
}

/// Every message, with what it says.
fn calls(report: &Report, lanes: &Lanes) -> Vec<Call> {
    let call = |it: &Message| {
        let time = |at: std::time::Duration| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let text = match (it.kind, &it.frame) {
            (MessageKind::Request, Some(frame)) => peer_request::<SimRuntime>(frame),
            (MessageKind::Answer, Some(frame)) => peer_answer::<SimRuntime>(frame),
            (MessageKind::Request | MessageKind::Answer, None) => {
                let (_, what) = it.name.split_once(": ").unwrap_or(("", &it.name));
                what.to_owned()
            }
            _ => it.name.clone(),
        };
        let (until, lost) = match it.fate {
            Fate::Arrived(at) => (Some(time(at)), None),
            Fate::Lost(at, how) => (Some(time(at)), Some(how)),
            Fate::UnderWay => (None, None),
        };
        Call {
            from: lanes.by_host.get(it.from.index()).copied().unwrap_or_default(),
            to: lanes.by_host.get(it.to.index()).copied().unwrap_or_default(),
            sent: time(it.sent),
            until,
            lost,
            kind: message_kind(it, &text),
            call: it.call,
            answer: it.kind == MessageKind::Answer,
            text,
        }
    };
    report.messages.iter().map(call).collect()
}

/// For filters: heartbeats would hide everything else.
fn message_kind(message: &Message, text: &str) -> &'static str {
    match message.kind {
        MessageKind::Handshake | MessageKind::End => "connection",
        _ if message.frame.is_none() => "http",
        _ if text.contains("heartbeat") || text == "has it on disk" => "raft",
        _ if text.contains("vote") => "vote",
        _ if text.contains("append") || text.contains("on disk") || text.contains("snapshot") => "raft",
        _ => "forward",
    }
}

fn log(history: &History) -> Vec<Entry> {
    let truth = history.truth();
    truth
        .entries
        .iter()
        .zip(&truth.sources)
        .map(|(entry, source)| Entry {
            entry: entry.log_index,
            term: entry.term,
            index: entry.state.index,
            appended: ns(entry.appended),
            applied: ns(entry.applied),
            what: entry
                .command
                .as_ref()
                .map_or("blank or membership".into(), |(command, _)| {
                    words::command(command)
                }),
            op: match source {
                Source::Operation(id) => Some(*id),
                _ => None,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{generate::generate, invariants::Violation, run::run_and_keep};

    /// The data that a page holds.
    fn data(page: &str) -> Value {
        let begin = "<script type=\"application/json\" id=\"run\">";
        let data = page
            .split(begin)
            .nth(1)
            .and_then(|rest| rest.split("</script>").next());
        serde_json::from_str(data.expect("it holds data")).expect("which is JSON")
    }

    #[test]
    fn a_page_holds_all_that_happened_and_needs_nothing_else() {
        let mut report = run_and_keep(&generate(2), true);
        let what = "a text with </script> and <b>tags</b> in it";
        let violation = Violation::of("watches", report.history.healed, [3], what);
        report.violations.push(violation);
        let page = page("seed <2>", &report);
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside} is from elsewhere");
        }
        assert_eq!(page.matches("</script>").count(), 2, "data can't end the script");
        let data = data(&page);
        let count = |key: &str| data[key].as_array().map_or(0, Vec::len);
        assert_eq!(count("ops"), report.history.operations.len());
        assert_eq!(count("calls"), report.messages.len());
        assert_eq!(count("log"), report.history.truth().entries.len());
        assert_eq!(data["violations"][0]["what"], what);
        assert!(count("runs") > 0 && count("marks") > count("log"));
        let lane = |nth: usize| data["lanes"][nth]["name"].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            [lane(0), lane(1), lane(2)],
            ["s0", "s1", "s2"],
            "servers are on top"
        );
    }

    #[test]
    fn messages_between_servers_are_in_words() {
        let report = run_and_keep(&generate(2), true);
        let data = data(&page("seed 2", &report));
        let calls = data["calls"].as_array().expect("there are messages");
        let says = |words: &str| {
            calls
                .iter()
                .any(|it| it["text"].as_str().is_some_and(|text| text.contains(words)))
        };
        for words in [
            "heartbeat (term ",
            "append entr",
            "has it on disk",
            "asks for a vote in term",
            "read index: entry",
        ] {
            assert!(says(words), "no message says {words:?}");
        }
        assert!(!says("unreadable"), "every message can be read");
    }
}
