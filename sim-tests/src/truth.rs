//! What follows from a run's facts, computed once for all judges: the committed log, the states it leads through, the
//! index of every topic at every moment, who had applied what when, and when it was calm.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sider_core::{
    registry::{
        CheckKey, Command, Namespace, NodeName, Operation, Refusal, Reply, Restore, ServiceName, SessionId,
        Topic,
    },
    server::StoredAuthority,
};

use crate::{
    answers,
    content::Content,
    history::{Effect, Record, ServerNumber},
    keys::key,
    matching::{self, Matched, Source},
    model::State,
    operation::Ask,
    prepared,
    promised::{PAUSE_MIN, READ_TIMEOUT},
    time::Time,
};

mod indexes;
mod reading;

use self::indexes::Indexes;
pub use self::reading::calm_but_for;
use self::reading::{
    applied_anywhere, applied_at, calm, caused, committed, earliest, leaders, pauses, raise_topics, starts,
};

/// A point of the committed log: so many of its entries are applied.
pub type Point = usize;

/// See the module's page.
#[derive(Debug)]
pub struct Truth {
    /// Committed entries in the order of the log, as the first server that applied each saw it.
    pub entries: Vec<Entry>,
    /// Where each of them comes from.
    pub sources: Vec<Source>,
    caused: BTreeMap<u32, usize>,
    places: BTreeMap<u32, (usize, usize)>,
    indexes: Indexes,
    /// What had certainly been applied somewhere.
    applied_anywhere: Vec<(Time, u64)>,
    /// What can have been: the same, unless nobody saw it.
    possible_anywhere: Vec<(Time, u64)>,
    /// What each server had certainly applied. Nothing where nobody saw it.
    applied_at: BTreeMap<ServerNumber, Lives>,
    /// What each can have applied.
    possible_at: BTreeMap<ServerNumber, Lives>,
    starts: BTreeMap<ServerNumber, Vec<Time>>,
    /// Spans in which a server stood still, in order.
    pub pauses: Vec<(ServerNumber, Time, Time)>,
    /// When each term's leader was first seen to lead, and who it was.
    pub leaders: Vec<Leadership>,
    /// Spans in which nothing was wrong and nothing had been for a while, in order.
    pub calm: Vec<(Time, Time)>,
    contents: Mutex<BTreeMap<(Ask, usize), Arc<Content>>>,
}

/// What a server has applied from when on; nothing where a life of it begins or ends.
type Lives = Vec<(Time, Option<u64>)>;

/// A committed entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Log index.
    pub log_index: u64,
    /// Term.
    pub term: u64,
    /// Hash of its bytes.
    pub hash: u64,
    /// Its command and what the server that applied it first made of it.
    pub command: Option<(Command, Effect)>,
    /// What the model makes of it.
    pub expected: Option<(Result<Reply, Refusal>, bool)>,
    /// Topics that show something else after it, by the model, in order.
    pub raised: Vec<Topic>,
    /// When it was first seen in any server's log.
    pub appended: Time,
    /// When it was first applied anywhere; where nobody saw that, the latest possible moment.
    pub applied: Time,
    /// The same; where nobody saw it, the earliest possible moment.
    pub earliest: Time,
    /// The model's state after it.
    pub state: Arc<State>,
}

/// From one entry on, a topic has an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The point at which it begins.
    pub point: Point,
    /// The index.
    pub index: u64,
}

/// A leader's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Its term.
    pub term: u64,
    /// Who.
    pub server: ServerNumber,
    /// When it was first seen to lead.
    pub from: Time,
}

/// Shorter pauses need not be noticed: a leader takes a gap for a pause that is longer than [`PAUSE_MIN`], on its own clock. What
/// it notices it leaves out as a whole, for it looked at its clock before and after.
const PAUSE_NOTICED: Duration = PAUSE_MIN.saturating_add(Duration::from_millis(10));

impl Truth {
    /// How long the leader of a term stood still between two moments while it led, as far as it must have noticed: it counts
    /// that for nothing.
    pub fn leader_paused(&self, term: u64, since: Time, until: Time) -> Duration {
        let Some(leader) = self.leaders.iter().find(|leader| leader.term == term) else {
            return Duration::ZERO;
        };
        let since = since.max(leader.from);
        let pauses = self.pauses.iter().filter(|(server, ..)| leader.server == *server);
        pauses
            .map(|(_, from, to)| (*to).min(until).since((*from).max(since)))
            .filter(|paused| *paused >= PAUSE_NOTICED)
            .sum()
    }

    /// Works everything out.
    pub fn of(record: &Record) -> Truth {
        let mut entries = committed(record);
        raise_topics(&mut entries);
        let Matched { sources, places } = matching::matched(record, &entries);
        Truth {
            caused: caused(&sources),
            sources,
            places,
            indexes: Indexes::of(&entries, record.bounds.tombstones),
            applied_anywhere: applied_anywhere(record, |seen, _| seen),
            possible_anywhere: applied_anywhere(record, |seen, log_index| earliest(record, log_index, seen)),
            applied_at: match record.earliest.is_empty() {
                true => applied_at(record, |seen, _| seen),
                false => BTreeMap::new(),
            },
            possible_at: applied_at(record, |seen, log_index| earliest(record, log_index, seen)),
            starts: starts(record),
            pauses: pauses(record),
            leaders: leaders(record),
            calm: calm(record),
            contents: Mutex::default(),
            entries,
        }
    }

    /// The point right after the last entry up to a log index.
    pub fn point_of(&self, log_index: u64) -> Point {
        self.entries.partition_point(|entry| entry.log_index <= log_index)
    }

    /// The point after the last entry.
    pub fn last(&self) -> Point {
        self.entries.len()
    }

    /// The state at a point.
    pub fn state(&self, point: Point) -> Arc<State> {
        let entry = point.checked_sub(1).and_then(|at| self.entries.get(at));
        entry.map(|entry| Arc::clone(&entry.state)).unwrap_or_default()
    }

    /// What anyone had certainly applied strictly before `time`: a linearizable answer to a request made then holds all of
    /// it.
    pub fn applied_before(&self, time: Time) -> Point {
        let steps = self.applied_anywhere.partition_point(|(at, _)| *at < time);
        steps
            .checked_sub(1)
            .map_or(0, |at| self.point_of(self.applied_anywhere[at].1))
    }

    /// What anyone can have applied at `time`.
    pub fn applied_until(&self, time: Time) -> Point {
        let steps = self.possible_anywhere.partition_point(|(at, _)| *at <= time);
        steps
            .checked_sub(1)
            .map_or(0, |at| self.point_of(self.possible_anywhere[at].1))
    }

    /// The least that `server` had applied at any moment from `from` to `until`, as far as is known: after a restart it
    /// may have nothing.
    pub fn least_applied_at(&self, server: ServerNumber, from: Time, until: Time) -> Point {
        if server.agent().is_some() {
            // It may have asked any of them.
            let servers = self.applied_at.keys();
            let least = servers.map(|server| self.least_applied_at(*server, from, until));
            return least.min().unwrap_or(0);
        }
        let Some(steps) = self.applied_at.get(&server) else {
            return 0;
        };
        let Some(first) = steps.partition_point(|(at, _)| *at < from).checked_sub(1) else {
            return 0;
        };
        let last = steps.partition_point(|(at, _)| *at <= until);
        let least = steps[first..last]
            .iter()
            .map(|(_, applied)| *applied)
            .min()
            .flatten();
        least.map_or(0, |log_index| self.point_of(log_index))
    }

    /// The most that `server` can have applied at any moment until `until`, in any of its lives.
    pub fn most_applied_at(&self, server: ServerNumber, until: Time) -> Point {
        if server.agent().is_some() {
            return self.applied_until(until);
        }
        let steps = self.possible_at.get(&server).map_or(&[][..], Vec::as_slice);
        let most = steps
            .iter()
            .take_while(|(at, _)| *at <= until)
            .filter_map(|(_, applied)| *applied)
            .max();
        most.map_or(0, |log_index| self.point_of(log_index))
    }

    /// When `server`, in the life that it leads at `from`, first can have reached `point`, but not before `from`; `None`
    /// if it never did before its life ended.
    pub fn reached(&self, server: ServerNumber, point: Point, from: Time) -> Option<Time> {
        let log_index = self.entries.get(point.checked_sub(1)?)?.log_index;
        let steps = self.possible_at.get(&server)?;
        let first = steps.partition_point(|(at, _)| *at <= from).saturating_sub(1);
        for (n, (at, applied)) in steps[first..].iter().enumerate() {
            match applied {
                Some(applied) if *applied >= log_index => return Some((*at).max(from)),
                None if n > 0 => return None,
                _ => {}
            }
        }
        None
    }

    /// Whether `server` was started between the two moments.
    pub fn restarted_between(&self, server: ServerNumber, from: Time, until: Time) -> bool {
        self.starts
            .get(&server)
            .is_some_and(|starts| starts.iter().any(|at| (from..=until).contains(at)))
    }

    /// When a process of `server` was first started after `at`.
    pub fn started_after(&self, server: ServerNumber, at: Time) -> Option<Time> {
        let starts = self.starts.get(&server)?;
        starts.iter().copied().filter(|started| *started > at).min()
    }

    /// When the process of `server` that ran at `at` was started.
    pub fn started_before(&self, server: ServerNumber, at: Time) -> Option<Time> {
        let starts = self.starts.get(&server)?;
        starts.iter().copied().filter(|started| *started <= at).max()
    }

    /// The steps of a topic's index, oldest first. Before the first its index is 1.
    pub fn steps(&self, topic: &Topic) -> &[Step] {
        self.indexes.steps(topic)
    }

    /// A topic's index at a point.
    pub fn index_at(&self, topic: &Topic, point: Point) -> u64 {
        let steps = self.steps(topic);
        let after = steps.partition_point(|step| step.point <= point);
        after.checked_sub(1).map_or(1, |at| steps[at].index)
    }

    /// The points, first and last, between which a topic has an index; `None` if it never has it.
    pub fn points_of_index(&self, topic: &Topic, index: u64) -> Option<(Point, Point)> {
        let steps = self.steps(topic);
        let next = steps.partition_point(|step| step.index <= index);
        let first = match next.checked_sub(1) {
            None if index == 1 => 0,
            Some(at) if steps[at].index == index => steps[at].point,
            _ => return None,
        };
        Some((first, steps.get(next).map_or(self.last(), |step| step.point - 1)))
    }

    /// How often the indexes of things that are gone were forgotten, because there were too many.
    pub fn folds(&self) -> usize {
        self.indexes.folds()
    }

    /// The content of the answer to `ask` at a point.
    pub fn content(&self, ask: &Ask, point: Point) -> Arc<Content> {
        // Entries that change nothing share their state with the one before: so do their contents.
        let mut at = point.min(self.last());
        while at >= 2 && Arc::ptr_eq(&self.entries[at - 1].state, &self.entries[at - 2].state) {
            at -= 1;
        }
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let content = contents
            .entry((ask.clone(), at))
            .or_insert_with(|| Arc::new(answers::answer(&self.state(at), ask)));
        Arc::clone(content)
    }

    /// The entry that an operation put into the log, as its position in [`Truth::entries`].
    pub fn entry_of(&self, operation: u32) -> Option<usize> {
        self.caused.get(&operation).copied()
    }

    /// The first and the last entry that may be an operation's, as positions in [`Truth::entries`]: where others ask for the
    /// same, which one is whose is not known.
    pub fn places_of(&self, operation: u32) -> Option<(usize, usize)> {
        self.places.get(&operation).copied()
    }

    /// Whether two points differ in what a watcher of `ask` would be woken for.
    pub fn differs(&self, ask: &Ask, one: Point, other: Point) -> bool {
        self.content(ask, one).without_output() != self.content(ask, other).without_output()
    }

    /// The positions in [`Truth::entries`] of restores that replaced the state, in order.
    pub fn restored(&self) -> impl Iterator<Item = usize> + '_ {
        self.indexes.restores().iter().map(|step| step.point - 1)
    }

    /// The calm span that `time` lies in.
    pub fn calm_at(&self, time: Time) -> Option<(Time, Time)> {
        let at = self
            .calm
            .partition_point(|(from, _)| *from <= time)
            .checked_sub(1)?;
        (time <= self.calm[at].1).then_some(self.calm[at])
    }

    /// Whether it was calm all the time from `from` to `until`.
    pub fn calm_between(&self, from: Time, until: Time) -> bool {
        self.calm_at(from).is_some_and(|(_, end)| until <= end)
    }

    /// Whether one of these entries registers a check, or restores everything.
    pub fn registers(&self, key: &CheckKey, entries: Range<Point>) -> bool {
        self.entries[entries].iter().any(|entry| match &entry.command {
            Some((Command::Register(registrations), _)) => {
                registrations.iter().flat_map(|it| &it.checks).any(|check| {
                    check.id == key.id && check.node == key.node && check.namespace == key.namespace
                })
            }
            Some((Command::Transact(operations), _)) => operations.iter().any(|operation| {
                matches!(operation, Operation::SetCheck(check) | Operation::SetCheckIf(check, _) if check.key() == *key)
            }),
            Some((Command::Restore(Restore::Commit { .. }), _)) => true,
            _ => false,
        })
    }

    /// By when a server has looked for the first time at what a request of `invoked` asks for: `quick` after it where all
    /// is calm, else within the time limit of a read. What comes while it stands still it takes up when it goes on.
    pub fn looked_by(&self, server: ServerNumber, invoked: Time, quick: Duration) -> Time {
        let calm = self.calm_between(invoked, invoked + quick);
        let looked = invoked + if calm { quick } else { READ_TIMEOUT };
        let pauses = self.pauses.iter();
        pauses
            .filter(|(paused, from, to)| *paused == server && *from <= looked && *to > invoked)
            .map(|(_, _, to)| *to + READ_TIMEOUT)
            .fold(looked, Time::max)
    }
}

impl Ask {
    /// The topic whose index the answer bears.
    pub fn topic(&self) -> Topic {
        let (namespace, ask) = self.place();
        ask.topic_in(namespace)
    }

    fn topic_in(&self, namespace: Namespace) -> Topic {
        // All are registered in small letters, and asked for in whatever case.
        let name = |service: &str| {
            ServiceName::parse(&service.to_ascii_lowercase()).expect("simulated names are valid")
        };
        let node = |name: &str| NodeName::parse(name).expect("simulated names are valid");
        let session = |id: &str| SessionId::parse(id).expect("simulated names are valid");
        match self {
            Ask::Narrowed { ask, by } if by.is_nothing() => ask.topic_in(namespace),
            // What is shown hangs on what is not: the nodes that instances and checks are on, and each instance of a service.
            Ask::Narrowed { ask, by } => match &**ask {
                Ask::Services => Topic::Namespace(namespace),
                Ask::ServiceChecks(service) if !by.node_meta.is_empty() => {
                    Topic::Service(namespace, name(service))
                }
                Ask::ChecksInState(_) if !by.node_meta.is_empty() => Topic::Namespace(namespace),
                ask => ask.topic_in(namespace),
            },
            Ask::NodeServices { node: of, .. } => Topic::NodeServices(namespace, node(of)),
            Ask::Health {
                service,
                passing: true,
                ..
            } => Topic::ServicePassing(namespace, name(service)),
            Ask::Health { service, .. } => Topic::Service(namespace, name(service)),
            Ask::CatalogService { service, .. } => Topic::ServiceInstances(namespace, name(service)),
            // Whatever changes may make one of any service a member of a mesh, or its health another.
            Ask::Connect { .. } => Topic::Namespace(namespace),
            Ask::Services => Topic::Services(namespace),
            Ask::Nodes => Topic::Nodes,
            Ask::NodeChecks(of) => Topic::NodeChecks(namespace, node(of)),
            Ask::ServiceChecks(service) => Topic::ServiceChecks(namespace, name(service)),
            Ask::Elsewhere(_) => unreachable!("there is one elsewhere"),
            Ask::Key(name) => Topic::Key(key(name)),
            Ask::KeyTree(prefix) | Ask::KeyNames(prefix) => Topic::KeyPrefix(key(prefix)),
            Ask::Sessions => Topic::Sessions,
            Ask::SessionsOf(of) => Topic::SessionsOfNode(node(of)),
            Ask::Session(id) => Topic::Session(session(id)),
            Ask::Queries => Topic::KeyPrefix(prepared::directory()),
            Ask::Roots => Topic::Key(StoredAuthority::key()),
            Ask::ChecksInState(None) => Topic::Checks(namespace),
            Ask::ChecksInState(Some(status)) => Topic::ChecksInState(namespace, *status),
        }
    }
}
