//! Which operation put which entry into the log.
//!
//! A client's registration bears a version of its own, so that it is told from every other; what bears none is matched
//! by time: an entry that was appended while the operation was under way, and that can have been applied by its end. Where
//! several fit, none is guessed: if there is any way to give every acknowledged write an entry, and every entry a write
//! that asked for it, such a one is found ([`Pairing`]), and one in which the answers are true comes first. Where others
//! would do as well, the judges hear of all entries that may be an operation's.
//!
//! A report needs no entry, for a renewal that changes nothing is not written. But each status that is written needs a report
//! of its own: written twice, or after its report was acknowledged, it may undo what was reported since.

mod pairing;

use std::collections::BTreeMap;

use sider_core::registry::{
    CheckKey, CheckTarget, CheckUpdate, Command, Deregister, Instance, InstanceKey, Keeps, Namespace,
    NodeName, Registration, Restore, SessionId,
};

use self::pairing::Pairing;
use crate::{
    answers::extras,
    authority,
    history::{Operation, Outcome, Record},
    invariants::servers,
    keys::KeyOp,
    model::State,
    operation::{CatalogEntry, ELSEWHERE, Op, RegisterForm, Report, Service, Target},
    prepared, probes,
    time::Time,
    truth::Entry,
};

/// The node that all servers share for what is registered through `/v1/agent/*`.
pub const SHARED_NODE: &str = "sider";

/// Where a committed entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody asked for it, and nobody needs to: a new leader's blank entry, a membership change, an expiry, an output
    /// that was held back.
    Internal,
    /// The operation of this number.
    Operation(u32),
    /// A host of its own that keeps its registrations in step: an agent.
    Agent,
    /// The leader, which keeps the servers in their own catalog.
    Upkeep,
    /// No operation that is left can have caused it.
    Nobody,
}

/// What [`matched`] finds.
#[derive(Debug, Default)]
pub struct Matched {
    /// The source of each entry.
    pub sources: Vec<Source>,
    /// The first and the last entry that may be an operation's, for each that has one.
    pub places: BTreeMap<u32, (usize, usize)>,
}

/// Which operation put which entry into the log.
pub fn matched(record: &Record, entries: &[Entry]) -> Matched {
    let writes = Writes::of(record, entries);
    let mut reports = Reports::of(record);
    let mut sources = Vec::with_capacity(entries.len());
    let mut before = &State::default();
    for (position, entry) in entries.iter().enumerate() {
        let source = internal(record, entry, before, &mut reports);
        sources.push(source.unwrap_or_else(|| writes.source(record, position, entry)));
        before = &entry.state;
    }
    let places = writes.places();
    Matched { sources, places }
}

/// The source of an entry that is no operation's own; `None` if it needs one.
fn internal(record: &Record, entry: &Entry, before: &State, all_reports: &mut Reports<'_>) -> Option<Source> {
    let Some((command, _)) = &entry.command else {
        return Some(Source::Internal);
    };
    let known = |excused: bool| match excused {
        true => Some(Source::Internal),
        false => Some(Source::Nobody),
    };
    match command {
        Command::RenewSessions(ids) => known(ids.iter().all(|id| is_renewed(record, id, entry.appended))),
        Command::Transact(_) if authority::is_founding(command) => Some(Source::Internal),
        Command::ExpireChecks(_)
        | Command::DeregisterCritical(_)
        | Command::ExpireSessions(_)
        | Command::EndLockDelays(_)
        | Command::RaiseVersion(_) => Some(Source::Internal),
        Command::Restore(Restore::Stage { .. } | Restore::Discard { .. }) => {
            let asked = |it: &Operation| matches!(it.op, Op::Restore { .. }) && it.invoked <= entry.appended;
            known(record.operations.iter().any(asked))
        }
        Command::UpdateChecks(updates) => {
            let mut excused = |update: &CheckUpdate| {
                update.status.is_none()
                    || is_agents(record, updated_node(update))
                    || probes::is_of_servers(&update.target)
                    || all_reports.give_one_to(update, before, entry)
            };
            // All of them, so that each gets its report, whatever is wrong with another one.
            let excused: Vec<bool> = updates.iter().map(&mut excused).collect();
            known(!excused.contains(&false))
        }
        Command::Transact(_) if is_vain(entry) => {
            let asked = |it: &Operation| it.invoked <= entry.appended && asks_for(&it.op, command);
            known(record.operations.iter().any(asked))
        }
        Command::Register(_)
        | Command::Deregister(_)
        | Command::Restore(Restore::Commit { .. })
        | Command::Transact(_)
        | Command::CreateSession(_)
        | Command::DestroySession(_) => None,
    }
}

/// Whether it is a change of a prepared query that another one came before, or whose name is taken: it did nothing, and may
/// be tried anew, so that one operation has several.
fn is_vain(entry: &Entry) -> bool {
    let command = entry.command.as_ref();
    command.is_some_and(|(command, effect)| prepared::written(command).is_some() && effect.reply.is_err())
}

/// Operations that may be in the log, and the entries that need one.
struct Writes<'a> {
    operations: Vec<&'a Operation>,
    /// Left are operations, right are entries by their positions in the log.
    fitting: Pairing,
    /// The same without pairs whose answer is not true.
    truthful: Pairing,
}

impl<'a> Writes<'a> {
    fn of(record: &'a Record, entries: &[Entry]) -> Writes<'a> {
        let mut operations: Vec<&Operation> =
            record.operations.iter().filter(|it| may_be_in_log(it)).collect();
        // Who returned first has the least choice; and a success is owed an entry.
        operations.sort_by_key(|operation| (!operation.is_done(), operation.returned, operation.id));
        let mut fitting = Pairing::new(operations.len(), entries.len());
        let mut truthful = Pairing::new(operations.len(), entries.len());
        for (position, entry) in entries.iter().enumerate() {
            for (nth, operation) in operations.iter().enumerate() {
                if !is_vain(entry) && caused(operation, entry) {
                    fitting.allow(nth, position);
                    if is_told_truly(operation, entry) {
                        truthful.allow(nth, position);
                    }
                }
            }
        }
        let owed = operations.partition_point(|operation| operation.is_done());
        // What is left over by the first pairing has none but wrong answers: another judge tells so.
        truthful.pair_all(owed);
        fitting.begin_with(&truthful);
        fitting.pair_all(owed);
        Writes {
            operations,
            fitting,
            truthful,
        }
    }

    fn source(&self, record: &Record, position: usize, entry: &Entry) -> Source {
        let command = entry.command.as_ref().map(|(command, _)| command);
        match self.fitting.of_right(position) {
            Some(nth) => Source::Operation(self.operations[nth].id),
            // A client may have done something about an agent's node; else the agent did it itself.
            None if command.is_some_and(|command| is_about_an_agent(record, command)) => Source::Agent,
            None if record.bounds.servers_listed && command.is_some_and(servers::is_upkeep) => Source::Upkeep,
            None => Source::Nobody,
        }
    }

    fn places(&self) -> BTreeMap<u32, (usize, usize)> {
        let place = |(nth, operation): (usize, &&Operation)| {
            let own = self.fitting.of_left(nth)?;
            let others = self.truthful.allowed(nth);
            let (first, last) = (others.first().unwrap_or(&own), others.last().unwrap_or(&own));
            Some((operation.id, (own.min(*first), own.max(*last))))
        };
        self.operations.iter().enumerate().filter_map(place).collect()
    }
}

/// Whether an operation may have put an entry into the log.
fn caused(operation: &Operation, entry: &Entry) -> bool {
    let Some((command, effect)) = &entry.command else {
        return false;
    };
    operation.invoked <= entry.appended
        && match &operation.outcome {
            Outcome::Done(answer) => {
                entry.earliest <= operation.returned
                    && answer.index.is_none_or(|it| it == entry.state.index.max(1))
            }
            Outcome::Refused { .. } => !effect.changed,
            _ => true,
        }
        && asks_for(&operation.op, command)
}

/// Whether an operation was told what came of an entry, if that is its own.
fn is_told_truly(operation: &Operation, entry: &Entry) -> bool {
    match (&operation.op, &entry.command, &entry.expected) {
        (Op::Keys(op), Some((command, _)), Some((reply, _))) => {
            op.is_told_truly(&operation.outcome, command, reply).is_ok()
        }
        _ => true,
    }
}

fn is_about_an_agent(record: &Record, command: &Command) -> bool {
    match command {
        Command::Register(registrations) => registrations.iter().all(|it| is_agents(record, &it.node.name)),
        Command::Deregister(what) => is_agents(record, deregistered_node(what)),
        _ => false,
    }
}

/// Whether an operation, sent by then, may have asked for this renewal.
fn is_renewed(record: &Record, id: &SessionId, appended: Time) -> bool {
    record.operations.iter().any(|operation| {
        operation.invoked <= appended
            && !matches!(operation.outcome, Outcome::Failed(_))
            && matches!(&operation.op, Op::Keys(KeyOp::RenewSession { session }) if session == id.as_str())
    })
}

fn may_be_in_log(operation: &Operation) -> bool {
    operation.op.is_logged() && !matches!(operation.outcome, Outcome::Failed(_))
}

fn is_agents(record: &Record, node: &NodeName) -> bool {
    record
        .bounds
        .agent_nodes
        .iter()
        .any(|agent| agent == node.as_str())
}

fn updated_node(update: &CheckUpdate) -> &NodeName {
    match &update.target {
        CheckTarget::Check(key) => &key.node,
        CheckTarget::TtlChecksOf(key) => &key.node,
    }
}

fn deregistered_node(what: &Deregister) -> &NodeName {
    match what {
        Deregister::Node(node) => node,
        Deregister::Instance { key, .. } => &key.node,
        Deregister::Check(key) => &key.node,
    }
}

/// Whether an operation asked for exactly this command.
pub fn asks_for(op: &Op, command: &Command) -> bool {
    match (op, command) {
        (Op::Register { form, services }, Command::Register(registrations)) => {
            services.len() == registrations.len()
                && services
                    .iter()
                    .zip(registrations)
                    .all(|(service, it)| registers(*form, service, it))
        }
        (Op::Restore { damage }, Command::Restore(Restore::Commit { .. })) => damage.is_sound(),
        (Op::CatalogRegister(entry), Command::Register(registrations)) => {
            matches!(registrations.as_slice(), [registration] if catalogs(entry, registration))
        }
        (
            Op::Deregister { id, service },
            Command::Deregister(Deregister::Instance { key, service: named }),
        ) => is_shared_instance(key, id) && named.as_ref().map(ToString::to_string) == *service,
        (Op::DeregisterCheck { check }, Command::Deregister(Deregister::Check(key))) => {
            is_shared_check(key, check)
        }
        (
            Op::CatalogDeregister {
                node,
                service_id,
                check_id,
            },
            Command::Deregister(what),
        ) => match what {
            Deregister::Node(name) => name.as_str() == node && service_id.is_none() && check_id.is_none(),
            Deregister::Instance { key, .. } => {
                key.node.as_str() == node && service_id.as_deref() == Some(key.id.as_str())
            }
            Deregister::Check(key) => {
                key.node.as_str() == node
                    && check_id.as_deref() == Some(key.id.as_str())
                    && service_id.is_none()
            }
        },
        (Op::Keys(op), command) => op.asks_for(command),
        (Op::Maintenance(op), command) => op.asks_for(command),
        (Op::RegisterCheck(check), command) => check.asks_for(command),
        (Op::Prepared(op), command) => op.asks_for(command),
        (Op::Autopilot(op), command) => op.asks_for(command),
        _ => false,
    }
}

fn registers(form: RegisterForm, service: &Service, registration: &Registration) -> bool {
    let Some(instance) = &registration.instance else {
        return false;
    };
    let there = match form {
        RegisterForm::Elsewhere => instance.namespace.as_str() == ELSEWHERE,
        _ => instance.namespace == Namespace::default(),
    };
    there
        && registration.keeps != Keeps::Nothing
        && registration.replace_checks == (form == RegisterForm::Replacing)
        && instance.node.as_str() == SHARED_NODE
        && instance.id.as_str() == service.id
        && registration
            .checks
            .iter()
            .all(|check| check.namespace == instance.namespace)
        && instance.service.as_str() == service.name
        && instance.port == service.port
        && instance.tags == service.tags
        && instance.address == service.address()
        && (instance.weights.passing, instance.weights.warning) == service.weights()
        && instance.meta == service.meta()
        && instance.enable_tag_override == service.tag_override()
        && tagged_addresses(instance) == service.tagged_addresses()
        && extras(instance) == service.extras()
        && service.checks.len() == registration.checks.len()
        && service
            .checks
            .iter()
            .zip(&registration.checks)
            .all(|(asked, got)| {
                got.definition.ttl().map_or(0, |ttl| ttl.as_millis()) == u128::from(asked.ttl_ms)
                    && got.status == asked.status
                    && got.definition.deregister_critical_service_after.as_millis()
                        == u128::from(asked.deregister_after_ms)
                    && got.notes == service.notes()
            })
}

fn tagged_addresses(instance: &Instance) -> BTreeMap<String, (String, u16)> {
    let tagged = instance.tagged_addresses.iter();
    tagged
        .map(|(tag, at)| (tag.clone(), (at.address.clone(), at.port)))
        .collect()
}

fn catalogs(entry: &CatalogEntry, registration: &Registration) -> bool {
    let instance = registration.instance.as_ref();
    let instance = instance.map(|it| (it.id.to_string(), it.service.to_string(), it.port));
    let checks: Vec<_> = registration
        .checks
        .iter()
        .map(|it| (it.id.to_string(), it.status, it.output.clone()))
        .collect();
    let asked: Vec<_> = entry
        .check
        .iter()
        .map(|(id, status, output)| (id.clone(), Some(*status), output.clone()))
        .collect();
    registration.node.name.as_str() == entry.node
        && (registration.keeps == Keeps::Node) == entry.keeps_node
        && registration.keeps != Keeps::NodeAndStatuses
        && (registration.instance.iter()).all(|it| (it.namespace.as_str() == ELSEWHERE) == entry.elsewhere)
        && registration.node.address == entry.address
        && registration.node.id == entry.node_id
        && registration.node.meta.get("rack") == entry.rack.as_ref()
        && instance == entry.service
        && checks == asked
        && entry.check_of.iter().all(|id| {
            let owners = registration.checks.iter().map(|it| it.instance.as_ref());
            owners.flatten().all(|owner| owner.as_str() == id)
        })
}

fn is_shared_instance(key: &InstanceKey, id: &str) -> bool {
    key.namespace == Namespace::default() && key.node.as_str() == SHARED_NODE && key.id.as_str() == id
}

/// Whether a check is one of the servers' shared node, with this id.
pub fn is_shared_check(key: &CheckKey, id: &str) -> bool {
    key.namespace == Namespace::default() && key.node.as_str() == SHARED_NODE && key.id.as_str() == id
}

/// All reports, each of which may be written once.
struct Reports<'a> {
    all: Vec<(&'a Operation, &'a Report)>,
    /// Left are reports, right are the statuses that were written so far.
    fitting: Pairing,
}

impl<'a> Reports<'a> {
    fn of(record: &'a Record) -> Reports<'a> {
        let mut all = Vec::new();
        for operation in &record.operations {
            if let Op::Report { reports, .. } = &operation.op
                && !matches!(operation.outcome, Outcome::Failed(_))
            {
                all.extend(reports.iter().map(|report| (operation, report)));
            }
        }
        Reports {
            fitting: Pairing::new(all.len(), 0),
            all,
        }
    }

    /// Gives a report to a written status; others are given away otherwise if that helps. False if there is none.
    fn give_one_to(&mut self, update: &CheckUpdate, state: &State, entry: &Entry) -> bool {
        let fits = |(operation, report): &(&Operation, &Report)| {
            let in_time = match &operation.outcome {
                Outcome::Done(_) | Outcome::Refused { .. } => entry.earliest <= operation.returned,
                _ => true,
            };
            in_time && operation.invoked <= entry.appended && reports(report, update, state)
        };
        let written = self.fitting.add_right();
        for (nth, report) in self.all.iter().enumerate() {
            if fits(report) {
                self.fitting.allow(nth, written);
            }
        }
        self.fitting.pair_right(written)
    }
}

/// Whether a report asks for this status.
fn reports(report: &Report, update: &CheckUpdate, state: &State) -> bool {
    Some(report.status) == update.status
        && (report.output.is_none() || report.output == update.output)
        && match (&report.target, &update.target) {
            (Target::Check(id), CheckTarget::Check(key)) => is_shared_check(key, id),
            (Target::Instance(id), CheckTarget::TtlChecksOf(key)) => is_shared_instance(key, id),
            (Target::Instance(id), CheckTarget::Check(key)) => {
                let check = state.check(key);
                check.is_some_and(|it| it.instance.as_ref().is_some_and(|own| own.as_str() == id))
            }
            (Target::Check(_), CheckTarget::TtlChecksOf(_)) => false,
        }
}
