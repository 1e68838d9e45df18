//! What follows from a run's facts, computed once for all judges: the committed log, the states it leads through, the
//! index of every topic at every moment, who had applied what when, and when it was calm.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sider_core::{
    limits::READ_TIMEOUT,
    registry::{
        CheckKey, Command, Namespace, NodeName, Operation, Refusal, Reply, Restore, ServiceName, SessionId,
        Topic,
    },
};

use crate::{
    answers,
    content::Content,
    history::{AppliedEntry, Effect, Fact, FaultKind, FaultSpan, Observed, Record, ServerNumber},
    keys::key,
    matching::{self, Matched, Source},
    model::State,
    operation::Ask,
    prepared,
    time::Time,
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
    topic_steps: BTreeMap<Topic, Vec<Step>>,
    /// Restores from a snapshot: from each on, every topic has at least its index, also those that nothing is known of.
    restores: Vec<Step>,
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

impl Truth {
    /// Works everything out.
    pub fn of(record: &Record) -> Truth {
        let mut entries = committed(record);
        raise_topics(&mut entries);
        let Matched { sources, places } = matching::matched(record, &entries);
        Truth {
            caused: caused(&sources),
            sources,
            places,
            topic_steps: topic_steps(&entries),
            restores: restores(&entries),
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

    /// When the process of `server` that ran at `at` was started.
    pub fn started_before(&self, server: ServerNumber, at: Time) -> Option<Time> {
        let starts = self.starts.get(&server)?;
        starts.iter().copied().filter(|started| *started <= at).max()
    }

    /// The steps of a topic's index, oldest first. Before the first its index is 1.
    pub fn steps(&self, topic: &Topic) -> &[Step] {
        self.topic_steps.get(topic).unwrap_or(&self.restores)
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
        self.restores.iter().map(|step| step.point - 1)
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
        let name = |service: &str| ServiceName::parse(service).expect("simulated names are valid");
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
            Ask::ChecksInState(None) => Topic::Checks(namespace),
            Ask::ChecksInState(Some(status)) => Topic::ChecksInState(namespace, *status),
        }
    }
}

fn applied_entries(record: &Record) -> impl Iterator<Item = (Time, ServerNumber, &AppliedEntry)> {
    record.observations.iter().filter_map(|seen| match &seen.what {
        Fact::Applied(entry) => Some((seen.at, seen.server, entry.as_ref())),
        _ => None,
    })
}

fn committed(record: &Record) -> Vec<Entry> {
    let mut appended: BTreeMap<(u64, u64, u64), Time> = BTreeMap::new();
    for seen in &record.observations {
        if let Fact::Appended { index, term, hash } = seen.what {
            appended.entry((index, term, hash)).or_insert(seen.at);
        }
    }
    let mut first: BTreeMap<u64, (Time, &AppliedEntry)> = BTreeMap::new();
    for (at, _, entry) in applied_entries(record) {
        first.entry(entry.log_index).or_insert((at, entry));
    }
    let mut state = Arc::new(State::default());
    let mut entries = Vec::with_capacity(first.len());
    for (log_index, (applied, entry)) in first {
        let expected = entry.command.as_ref().map(|(command, _)| {
            let mut next = State::clone(&state);
            let (reply, changed) = next.apply(command);
            state = Arc::new(next);
            (reply, changed)
        });
        entries.push(Entry {
            log_index,
            term: entry.term,
            hash: entry.hash,
            command: entry.command.clone(),
            expected,
            raised: Vec::new(),
            appended: appended
                .get(&(log_index, entry.term, entry.hash))
                .copied()
                .unwrap_or(applied)
                .min(applied),
            applied,
            earliest: earliest(record, log_index, applied),
            state: Arc::clone(&state),
        });
    }
    entries
}

/// When an entry can have been applied at the earliest that was observed to be applied at a moment.
fn earliest(record: &Record, log_index: u64, seen: Time) -> Time {
    let earliest = record.earliest.get(&log_index).copied();
    earliest.map_or(seen, |earliest| earliest.min(seen))
}

fn caused(sources: &[Source]) -> BTreeMap<u32, usize> {
    let caused = |(position, source): (usize, &Source)| match source {
        Source::Operation(id) => Some((*id, position)),
        _ => None,
    };
    sources.iter().enumerate().filter_map(caused).collect()
}

/// Sets what each entry raises.
fn raise_topics(entries: &mut [Entry]) {
    let mut shown = BTreeMap::new();
    for entry in entries {
        if entry.expected.as_ref().is_some_and(|(_, changed)| *changed) {
            let shows = entry.state.topics();
            entry.raised = changed_topics(&shown, &shows);
            shown = shows;
        }
    }
}

fn topic_steps(entries: &[Entry]) -> BTreeMap<Topic, Vec<Step>> {
    let mut steps: BTreeMap<Topic, Vec<Step>> = BTreeMap::new();
    for (position, entry) in entries.iter().enumerate() {
        for topic in &entry.raised {
            let step = Step {
                point: position + 1,
                index: entry.state.index,
            };
            steps.entry(topic.clone()).or_default().push(step);
        }
    }
    let restores = restores(entries);
    for steps in steps.values_mut() {
        steps.extend(&restores);
        steps.sort_by_key(|step| step.point);
        steps.dedup();
    }
    steps
}

fn restores(entries: &[Entry]) -> Vec<Step> {
    let step = |(position, entry): (usize, &Entry)| {
        let floor = entry.state.floor;
        let before = position
            .checked_sub(1)
            .map_or(0, |before| entries[before].state.floor);
        (floor != before).then_some(Step {
            point: position + 1,
            index: floor,
        })
    };
    entries.iter().enumerate().filter_map(step).collect()
}

/// Topics that show something else than before, in order.
fn changed_topics(before: &BTreeMap<Topic, u64>, after: &BTreeMap<Topic, u64>) -> Vec<Topic> {
    let differ = |topic: &&Topic| before.get(*topic) != after.get(*topic);
    let mut topics: Vec<Topic> = before
        .keys()
        .chain(after.keys())
        .filter(differ)
        .cloned()
        .collect();
    topics.sort();
    topics.dedup();
    topics
}

/// What had been applied by when; `when` tells it of each entry that was observed.
fn applied_anywhere(record: &Record, when: impl Fn(Time, u64) -> Time) -> Vec<(Time, u64)> {
    let mut steps: Vec<(Time, u64)> = Vec::new();
    for (at, _, entry) in applied_entries(record) {
        if steps.last().is_none_or(|(_, most)| *most < entry.log_index) {
            steps.push((when(at, entry.log_index), entry.log_index));
        }
    }
    steps
}

fn applied_at(record: &Record, when: impl Fn(Time, u64) -> Time) -> BTreeMap<ServerNumber, Lives> {
    let mut lives: BTreeMap<ServerNumber, Lives> = BTreeMap::new();
    for seen in &record.observations {
        let (at, applied) = match &seen.what {
            Fact::Started | Fact::Stopped { .. } => (seen.at, None),
            Fact::Applied(entry) => (when(seen.at, entry.log_index), Some(entry.log_index)),
            Fact::SnapshotInstalled { log_index, .. } => (seen.at, Some(*log_index)),
            // What is purged is in the state. A server that crashed before it could tell of a snapshot shows it so.
            Fact::Purged { upto } => {
                let known = lives.get(&seen.server).and_then(|steps| steps.last()?.1);
                (seen.at, known.max(Some(*upto)))
            }
            _ => continue,
        };
        lives.entry(seen.server).or_default().push((at, applied));
    }
    // Where nobody saw it, the order of the possible moments is not that of the observations.
    lives
        .values_mut()
        .for_each(|steps| steps.sort_by_key(|(at, _)| *at));
    lives
}

fn starts(record: &Record) -> BTreeMap<ServerNumber, Vec<Time>> {
    let mut starts: BTreeMap<ServerNumber, Vec<Time>> = BTreeMap::new();
    for seen in record
        .observations
        .iter()
        .filter(|seen| matches!(seen.what, Fact::Started))
    {
        starts.entry(seen.server).or_default().push(seen.at);
    }
    starts
}

fn pauses(record: &Record) -> Vec<(ServerNumber, Time, Time)> {
    let mut pauses = Vec::new();
    let mut paused: BTreeMap<ServerNumber, Time> = BTreeMap::new();
    for seen in &record.observations {
        match seen.what {
            Fact::Paused => {
                paused.insert(seen.server, seen.at);
            }
            Fact::Resumed | Fact::Stopped { .. } => {
                if let Some(from) = paused.remove(&seen.server) {
                    pauses.push((seen.server, from, seen.at));
                }
            }
            _ => {}
        }
    }
    pauses.extend(
        paused
            .into_iter()
            .map(|(server, from)| (server, from, record.ended)),
    );
    pauses.sort_by_key(|(server, from, _)| (*from, *server));
    pauses
}

fn leaders(record: &Record) -> Vec<Leadership> {
    let mut leaders: BTreeMap<u64, Leadership> = BTreeMap::new();
    for seen in &record.observations {
        // An entry of a term is proof that its leader leads, even before the leader says so.
        let (Fact::BecameLeader { term } | Fact::Appended { term, .. }) = seen.what else {
            continue;
        };
        leaders.entry(term).or_insert(Leadership {
            term,
            server: seen.server,
            from: seen.at,
        });
    }
    leaders.into_values().collect()
}

/// The complement of all disturbances, each of them prolonged by the time to settle.
fn calm(record: &Record) -> Vec<(Time, Time)> {
    calm_but_for(record, None)
}

/// When it is calm, but that a server is down: that its process ends and starts, and what ended it, does not count.
pub fn calm_but_for(record: &Record, down: Option<ServerNumber>) -> Vec<(Time, Time)> {
    let settle = record.bounds.settle;
    let mut troubled: Vec<(Time, Time)> = vec![(Time(0), Time(0) + settle)];
    let of_its_process = |seen: &&Observed| {
        Some(seen.server) == down && matches!(seen.what, Fact::Started | Fact::Stopped { .. })
    };
    let ended: Vec<Time> = match down {
        None => Vec::new(),
        Some(_) => record
            .observations
            .iter()
            .filter(of_its_process)
            .map(|seen| seen.at)
            .collect(),
    };
    let ended_it = |fault: &FaultSpan| {
        down.is_some_and(|server| fault.servers == [server]) && ended.contains(&fault.from)
    };
    for fault in record
        .faults
        .iter()
        .filter(|fault| fault.kind != FaultKind::Harmless && !ended_it(fault))
    {
        troubled.push((fault.from, fault.until + settle));
    }
    for seen in record.observations.iter().filter(|seen| !of_its_process(seen)) {
        if matches!(
            seen.what,
            Fact::BecameLeader { .. } | Fact::LostLeadership { .. } | Fact::Started | Fact::Stopped { .. }
        ) {
            troubled.push((seen.at, seen.at + settle));
        }
    }
    for change in &record.memberships {
        troubled.push((change.invoked, change.returned + settle));
    }
    troubled.sort();
    let mut calm = Vec::new();
    let mut end = Time(0);
    for (from, until) in troubled {
        if from > end + Duration::from_millis(1) {
            calm.push((end, from - Duration::from_nanos(1)));
        }
        end = end.max(until);
    }
    if record.ended > end {
        calm.push((end, record.ended));
    }
    calm
}
