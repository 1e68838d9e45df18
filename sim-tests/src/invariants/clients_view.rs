//! Linearizability once more, by another way that shares nothing with the first (Wing and Gong, 1993; Lowe, 2017): for each
//! instance alone there is an order of all operations about it that explains every answer, each of them between its request
//! and its answer. Only what clients sent and saw is used, no log and no index ([`check_operations`]), but for one thing: from
//! when on the cluster's version of commands lets a registration leave statuses as they are.
//!
//! What happens without a client is allowed for, not known: a TTL check (and no other) may turn critical at any time, and an instance that
//! asks for it may go. It is taken to have happened when somebody sees it. A write of which nobody knows whether it happened
//! may happen at any time after it was sent, or never.
//!
//! Stale reads, other nodes than the servers' shared one, and lists over several services are left to `linearizability`.

use std::collections::{BTreeMap, BTreeSet};

use sider_core::registry::{CheckStatus, Command};

use super::Violation;
use crate::{
    content::{Content, InstanceSeen},
    history::{History, Operation, Outcome},
    maintenance::{self, Maintenance},
    matching::SHARED_NODE,
    operation::{Ask, Op, RegisterForm, Service, Target},
    time::Time,
    truth::Entry,
    wgl::{self, Call, Found},
};

/// Its name.
pub const NAME: &str = "clients_view";

/// See the module's page.
///
/// # Errors
/// No order explains what clients saw of an instance.
pub fn check(history: &History) -> Result<(), Violation> {
    let keeping = |entry: &&Entry| entry.state.version >= Command::AS_AGENTS;
    let since = history.truth().entries.iter().find(keeping);
    judge(
        &history.operations,
        since.map_or(Time::MAX, |entry| entry.applied),
    )
}

/// The same of nothing but what clients saw; the operations by the time at which they were sent.
///
/// # Errors
/// No order explains what clients saw of an instance.
pub fn check_operations(operations: &[Operation]) -> Result<(), Violation> {
    judge(operations, Time::MAX)
}

/// A registration that is sent after `keeping` leaves the status of a check that is there; one that is sent before may.
fn judge(operations: &[Operation], keeping: Time) -> Result<(), Violation> {
    let operations = &before_restores(operations);
    let owners = owners(operations);
    let unusable = unusable_since(operations);
    for (id, services) in services(operations) {
        let calls: Vec<Call<About<'_>>> = operations
            .iter()
            .flat_map(|operation| calls(operation, id, &services, &owners, (unusable, keeping)))
            .collect();
        // A search that takes too many steps says nothing; `linearizability` judges the same by other means.
        if let Found::None(stuck) = wgl::search(BTreeSet::from([None]), &calls, possible_steps) {
            let last = operations.iter().find(|it| stuck.contains(&it.id));
            let what = format!(
                "no order of all that clients did explains what they saw of {id}{}",
                last.map(|it| format!("; the search came as far as {} of {}", it.op, it.server))
                    .unwrap_or_default()
            );
            let at = last.map(|it| it.returned).unwrap_or_default();
            return Err(Violation::of(NAME, at, stuck, what));
        }
    }
    Ok(())
}

/// A restore is no step of one instance: what comes after one is left to the judges that know the log, and of what was
/// under way then nobody knows whether it came before.
fn before_restores(operations: &[Operation]) -> Vec<Operation> {
    let restores = operations
        .iter()
        .filter(|it| matches!(it.op, Op::Restore { .. }) && it.may_have_happened());
    let Some(first) = restores.map(|it| it.invoked).min() else {
        return operations.to_vec();
    };
    let mut before: Vec<Operation> = operations
        .iter()
        .filter(|it| it.invoked < first)
        .cloned()
        .collect();
    for operation in before.iter_mut().filter(|it| it.returned >= first) {
        if !matches!(operation.outcome, Outcome::Failed(_)) {
            operation.outcome = Outcome::Unknown("a restore was under way".into());
        }
    }
    before
}

/// What an operation is, as far as it is about one instance.
#[derive(Clone, Debug)]
enum About<'a> {
    /// And whether the status of a check that is there stays for certain.
    Register(RegisterForm, &'a Service, bool),
    Deregister {
        service: Option<&'a str>,
        refused: bool,
    },
    DropCheck {
        check: &'a str,
        refused: bool,
    },
    Maintain {
        begins: bool,
        refused: bool,
    },
    Report {
        target: &'a Target,
        status: CheckStatus,
        refused: bool,
    },
    Read {
        service: &'a str,
        passing: bool,
        tags: &'a [String],
        shows_checks: bool,
        found: Option<&'a InstanceSeen>,
    },
}

/// An instance, as far as clients can know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    id: String,
    version: u32,
    service: String,
    tags: Vec<String>,
    checks: BTreeMap<String, KnownCheck>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct KnownCheck {
    ttl_ms: u64,
    after_ms: u64,
    status: CheckStatus,
}

/// Instances that clients registered, with the services under which they did.
fn services(operations: &[Operation]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut services: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (_, service) in registrations(operations) {
        services.entry(&service.id).or_default().insert(&service.name);
    }
    services
}

/// Whose each check is.
fn owners(operations: &[Operation]) -> BTreeMap<String, &str> {
    let registrations = registrations(operations);
    let checks = registrations.flat_map(|(form, service)| {
        let ids = service.check_ids(form).into_iter();
        ids.map(|check| (check, service.id.as_str()))
    });
    checks.collect()
}

fn registrations(operations: &[Operation]) -> impl Iterator<Item = (RegisterForm, &Service)> {
    operations.iter().flat_map(|operation| match &operation.op {
        Op::Register { form, services } if *form != RegisterForm::Elsewhere => {
            services.iter().map(|service| (*form, service)).collect()
        }
        _ => Vec::new(),
    })
}

/// When the servers' shared node may first have been in maintenance.
fn unusable_since(operations: &[Operation]) -> Option<Time> {
    let begins = operations.iter().filter(|it| {
        matches!(
            &it.op,
            Op::Maintenance(Maintenance {
                of: None,
                begins: true,
                ..
            })
        ) && it.may_have_happened()
    });
    begins.map(|it| it.invoked).min()
}

/// What of an operation is about this instance. The parts of a batch of reports each have a place of their own.
fn calls<'a>(
    operation: &'a Operation,
    id: &str,
    services: &BTreeSet<&str>,
    owners: &BTreeMap<String, &str>,
    (unusable, keeping): (Option<Time>, Time),
) -> Vec<Call<About<'a>>> {
    let (refused, known) = match &operation.outcome {
        Outcome::Done(_) => (false, true),
        Outcome::Refused { .. } => (true, true),
        Outcome::Unknown(_) => (false, false),
        Outcome::Failed(_) | Outcome::Nonsense(_) => return Vec::new(),
    };
    let call = |what: About<'a>| Call {
        id: operation.id,
        invoked: operation.invoked,
        returned: known.then_some(operation.returned),
        reads: matches!(what, About::Read { .. }),
        what,
    };
    match &operation.op {
        Op::Register { form, services } if !refused && *form != RegisterForm::Elsewhere => {
            let ours = services.iter().filter(|service| service.id == id);
            let keeps = operation.invoked > keeping;
            ours.map(|service| call(About::Register(*form, service, keeps)))
                .collect()
        }
        Op::Deregister { id: named, service } if named == id => {
            let service = service.as_deref();
            vec![call(About::Deregister { service, refused })]
        }
        Op::DeregisterCheck { check } if owners.get(check).copied() == Some(id) => {
            vec![call(About::DropCheck { check, refused })]
        }
        Op::Report { reports, .. } => {
            let each_refused = operation.answer().map(|answer| answer.refused.as_slice());
            let is_refused = |nth: usize| {
                let one = each_refused.and_then(|each| each.get(nth)).copied();
                one.unwrap_or(refused)
            };
            // Of several reports about one check in a call, the last is the newest.
            let overtaken = |nth: usize| {
                let mut later = (nth + 1..).zip(&reports[nth + 1..]);
                later.any(|(at, later)| later.target == reports[nth].target && !is_refused(at))
            };
            let ours = reports
                .iter()
                .enumerate()
                .filter(|(nth, report)| match &report.target {
                    _ if overtaken(*nth) => false,
                    Target::Check(check) => owners.get(check).copied() == Some(id),
                    Target::Instance(instance) => instance == id,
                });
            ours.map(|(nth, report)| {
                call(About::Report {
                    target: &report.target,
                    status: report.status,
                    refused: is_refused(nth),
                })
            })
            .collect()
        }
        Op::Maintenance(Maintenance {
            of: Some(instance),
            begins,
            ..
        }) if instance == id => vec![call(About::Maintain {
            begins: *begins,
            refused,
        })],
        _ => read(operation, id, services, unusable)
            .map(call)
            .into_iter()
            .collect(),
    }
}

fn read<'a>(
    operation: &'a Operation,
    id: &str,
    services: &BTreeSet<&str>,
    unusable: Option<Time>,
) -> Option<About<'a>> {
    let (ask, freshness) = operation.op.asked()?;
    let Some(Content::Instances(instances)) = &operation.answer()?.content else {
        return None;
    };
    let (service, passing, tags, shows_checks) = match ask {
        Ask::Health {
            service,
            passing,
            tags,
        } => (service, *passing, tags, true),
        Ask::CatalogService { service, tags } => (service, false, tags, false),
        _ => return None,
    };
    let found = instances.iter().find(|it| it.node == SHARED_NODE && it.id == id);
    // While its node is in maintenance, nothing on it passes.
    let says_nothing =
        passing && found.is_none() && unusable.is_some_and(|since| operation.returned >= since);
    let is_judged = freshness.linearizable() && services.contains(service.as_str()) && !says_nothing;
    is_judged.then_some(About::Read {
        service,
        passing,
        tags,
        shows_checks,
        found,
    })
}

/// All states in which it can be after something happened, if it was in one of these before; `None` if it can't have happened.
fn possible_steps(states: &BTreeSet<Option<Known>>, about: &About<'_>) -> Option<BTreeSet<Option<Known>>> {
    let with_expired;
    let states = match about {
        About::Register(form, service, _) => {
            with_expired = expired_before(states, *form, service);
            &with_expired
        }
        _ => states,
    };
    let mut next: BTreeSet<Option<Known>> = states.iter().filter_map(|state| step(state, about)).collect();
    if let About::Register(form, service, keeps) = about {
        if states.iter().flatten().any(Known::may_be_gone) {
            // It may have gone before unseen, and its checks with it.
            next.insert(Some(registered(None, *form, service, true)));
        }
        if !keeps {
            let set = |state: &Option<Known>| Some(registered(state.as_ref(), *form, service, false));
            next.extend(states.iter().map(set));
        }
    }
    (!next.is_empty()).then_some(next)
}

/// The same states, and those in which checks have expired unseen that can't any more once this is registered: its status
/// stays then.
fn expired_before(
    states: &BTreeSet<Option<Known>>,
    form: RegisterForm,
    service: &Service,
) -> BTreeSet<Option<Known>> {
    let mut all = states.clone();
    for (id, given) in service.check_ids(form).into_iter().zip(&service.checks) {
        if given.ttl_ms > 0 {
            continue;
        }
        let expired = |state: &Option<Known>| {
            let mut known = state.clone()?;
            let check = known.checks.get_mut(&id).filter(|check| check.may_expire())?;
            check.status = CheckStatus::Critical;
            Some(Some(known))
        };
        all.extend(all.iter().filter_map(expired).collect::<Vec<_>>());
    }
    all
}

/// The state after something happened; `None` if it can't have happened so.
#[expect(
    clippy::option_option,
    reason = "an instance that is not there is a state, too"
)]
fn step(state: &Option<Known>, about: &About<'_>) -> Option<Option<Known>> {
    match about {
        About::Register(form, service, _) => Some(Some(registered(state.as_ref(), *form, service, true))),
        About::Deregister { service, refused } => {
            let of_another = |it: &Known| service.is_some_and(|service| service != it.service);
            match (state, refused) {
                (Some(it), false) => (!of_another(it)).then_some(None),
                (Some(it), true) if of_another(it) => Some(state.clone()),
                (Some(it), true) => it.may_be_gone().then_some(None),
                // Where it is gone, it is refused; or it went by itself after it was looked at.
                (None, _) => Some(None),
            }
        }
        About::DropCheck { check, refused } => {
            let Some(it) = state else { return Some(None) };
            let mut without = it.clone();
            match (without.checks.remove(*check).is_some(), refused) {
                (true, true) => it.may_be_gone().then_some(None),
                _ => Some(Some(without)),
            }
        }
        About::Maintain { begins, refused } => match (state, refused) {
            (None, false) => (!begins).then_some(None),
            (None, true) => Some(None),
            (Some(it), true) => it.may_be_gone().then_some(None),
            (Some(it), false) => Some(Some(it.maintained(*begins))),
        },
        About::Report {
            target,
            status,
            refused,
        } => reported(state.as_ref(), target, *status, *refused),
        About::Read {
            service,
            passing,
            tags,
            shows_checks,
            found,
        } => match found {
            Some(seen) => {
                let it = state
                    .as_ref()
                    .filter(|it| it.service.eq_ignore_ascii_case(service))?;
                it.seen(seen, *shows_checks).map(Some)
            }
            None => unseen(state.as_ref(), service, *passing, tags),
        },
    }
}

fn registered(before: Option<&Known>, form: RegisterForm, service: &Service, keeps: bool) -> Known {
    // Checks that are not named stay, unless it says otherwise.
    let mut checks = before.map(|it| it.checks.clone()).unwrap_or_default();
    if form == RegisterForm::Replacing {
        let named = service.check_ids(form);
        checks.retain(|id, _| named.contains(id));
    }
    for (id, given) in service.check_ids(form).into_iter().zip(&service.checks) {
        let same = |old: &KnownCheck| (old.ttl_ms, old.after_ms) == (given.ttl_ms, given.deregister_after_ms);
        let is_kept = |old: &&KnownCheck| keeps || (given.status.is_none() && same(old));
        let kept = checks.get(&id).filter(is_kept).map(|old| old.status);
        let check = KnownCheck {
            ttl_ms: given.ttl_ms,
            after_ms: given.deregister_after_ms,
            status: kept.or(given.status).unwrap_or(CheckStatus::Critical),
        };
        checks.insert(id, check);
    }
    Known {
        id: service.id.clone(),
        version: service.version,
        service: service.name.clone(),
        tags: service.tags.clone(),
        checks,
    }
}

#[expect(clippy::option_option, reason = "as for `step`")]
fn reported(
    state: Option<&Known>,
    target: &Target,
    status: CheckStatus,
    refused: bool,
) -> Option<Option<Known>> {
    let there = |it: &Known| match target {
        Target::Check(check) => it.checks.contains_key(check),
        Target::Instance(_) => true,
    };
    let Some(it) = state.filter(|it| there(it)) else {
        return refused.then(|| state.cloned());
    };
    if refused {
        return it.may_be_gone().then_some(None);
    }
    let mut it = it.clone();
    for (id, check) in &mut it.checks {
        let meant = match target {
            Target::Instance(_) => check.may_expire(),
            Target::Check(named) => named == id,
        };
        if meant {
            check.status = status;
        }
    }
    Some(Some(it))
}

#[expect(clippy::option_option, reason = "as for `step`")]
fn unseen(state: Option<&Known>, service: &str, passing: bool, tags: &[String]) -> Option<Option<Known>> {
    let Some(it) = state else { return Some(None) };
    let tagged = tags
        .iter()
        .all(|tag| it.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)));
    let hidden = !it.service.eq_ignore_ascii_case(service)
        || !tagged
        || passing
            && it
                .checks
                .values()
                .any(|check| check.status != CheckStatus::Passing);
    if hidden {
        return Some(Some(it.clone()));
    }
    let mut expired = it.clone();
    let mut may_expire = expired.checks.values_mut().filter(|check| check.may_expire());
    if passing && let Some(first) = may_expire.next() {
        // One of them has expired; which one, nobody can know of several.
        return match may_expire.next() {
            None => {
                first.status = CheckStatus::Critical;
                Some(Some(expired))
            }
            Some(_) => Some(state.cloned()),
        };
    }
    it.may_be_gone().then_some(None)
}

impl KnownCheck {
    /// Whether it turns critical when nobody renews it.
    fn may_expire(&self) -> bool {
        self.ttl_ms > 0
    }
}

impl Known {
    /// Whether it asks to be taken away when it stays critical.
    fn may_be_gone(&self) -> bool {
        self.checks.values().any(|check| check.after_ms > 0)
    }

    /// Itself in maintenance, or out of it.
    fn maintained(&self, begins: bool) -> Known {
        let mut it = self.clone();
        let check = maintenance::check_of(&it.id);
        match begins {
            true => it.checks.insert(
                check,
                KnownCheck {
                    ttl_ms: 0,
                    after_ms: 0,
                    status: CheckStatus::Critical,
                },
            ),
            false => it.checks.remove(&check),
        };
        it
    }

    /// Itself as it is when it looks like this; `None` if it can't.
    fn seen(&self, seen: &InstanceSeen, shows_checks: bool) -> Option<Known> {
        let version = seen.meta.get("version").map(String::as_str);
        if version != Some(self.version.to_string().as_str()) {
            return None;
        }
        let mut it = self.clone();
        if !shows_checks {
            return Some(it);
        }
        let own: Vec<_> = seen
            .checks
            .iter()
            .filter(|check| check.instance == seen.id)
            .collect();
        if own.len() != it.checks.len() {
            return None;
        }
        for check in own {
            let known = it.checks.get_mut(&check.id)?;
            match check.status {
                status if status == known.status => {}
                CheckStatus::Critical if known.may_expire() => known.status = CheckStatus::Critical,
                _ => return None,
            }
        }
        Some(it)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};
    use crate::{history::FaultKind, operation::Freshness};
    use CheckStatus::{Critical, Passing};

    const CHECK: &str = "chk:web-1:0";

    fn complaint(story: Story) -> String {
        check(&story.finish()).expect_err("no order").what
    }

    fn web(passing: bool) -> Ask {
        Ask::Health {
            service: "web".into(),
            passing,
            tags: vec![],
        }
    }

    /// Registered, passing and read.
    fn story() -> Story {
        let mut story = Story::new();
        story.read(1, web(false), Freshness::Default);
        story.register("web-1", 1);
        story.read(2, web(false), Freshness::Default);
        story.report(CHECK, Passing);
        story.read(3, web(true), Freshness::Consistent);
        story
    }

    #[test]
    fn what_follows_from_what_was_asked_is_fine() {
        let mut story = story();
        story.register("web-1", 2);
        story.wait_for(2, web(false), 1, 500);
        story.deregister("web-1");
        story.read(1, web(false), Freshness::Default);
        story.register("web-2", 3);
        story.read(1, web(false), Freshness::Default);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    /// A status that is set by a registration, though the check is there.
    fn set_again(mut story: Story) -> Story {
        story.report(CHECK, Critical);
        story.register_passing("web-1", 2);
        story.read(1, web(false), Freshness::Default);
        story
    }

    #[test]
    fn a_registration_may_set_a_status_only_in_an_older_cluster() {
        assert_eq!(check(&set_again(story()).finish()), Ok(()));
        let mut newer = story();
        newer.commit(Command::RaiseVersion(Command::AS_AGENTS));
        newer.wait_ms(1);
        assert!(complaint(set_again(newer)).contains("web-1"));
    }

    fn maintain(story: &mut Story, of: Option<&str>, begins: bool) -> u32 {
        story.maintain(Maintenance {
            of: of.map(str::to_owned),
            begins,
            reason: None,
        })
    }

    #[test]
    fn what_is_in_maintenance_does_not_pass() {
        let mut story = story();
        maintain(&mut story, Some("web-1"), true);
        story.read(2, web(true), Freshness::Default);
        story.read(2, web(false), Freshness::Default);
        maintain(&mut story, Some("web-1"), false);
        story.read(3, web(true), Freshness::Default);
        maintain(&mut story, Some("web-2"), true);
        maintain(&mut story, None, true);
        story.read(3, web(true), Freshness::Default);
        story.read(3, web(false), Freshness::Default);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn what_passes_in_maintenance_is_not_explained() {
        let mut story = story();
        let before = story.read(2, web(true), Freshness::Default);
        maintain(&mut story, Some("web-1"), true);
        story.answer_again(2, web(true), Freshness::Default, before);
        assert!(complaint(story).contains("web-1"));
    }

    #[test]
    fn maintenance_that_does_not_end_is_not_explained() {
        let mut story = story();
        maintain(&mut story, Some("web-1"), true);
        let within = story.read(2, web(false), Freshness::Default);
        maintain(&mut story, Some("web-1"), false);
        story.answer_again(2, web(false), Freshness::Default, within);
        assert!(complaint(story).contains("web-1"));
    }

    #[test]
    fn an_expiry_is_allowed_for() {
        let mut story = story();
        story.expire(CHECK);
        story.read(1, web(true), Freshness::Default);
        story.read(1, web(false), Freshness::Default);
        assert_eq!(check(&story.finish()), Ok(()));
    }

    #[test]
    fn passing_again_after_an_expiry_without_a_report_is_not() {
        let mut story = story();
        let passing = story.read(1, web(false), Freshness::Default);
        story.expire(CHECK);
        story.read(1, web(false), Freshness::Default);
        story.answer_again(1, web(false), Freshness::Default, passing);
        assert!(complaint(story).contains("what they saw of web-1"));
    }

    #[test]
    fn an_older_version_is_not() {
        let mut story = story();
        let old = story.read(1, web(false), Freshness::Default);
        story.register("web-1", 2);
        story.answer_again(1, web(false), Freshness::Default, old);
        assert!(complaint(story).contains("as far as read health of web"));
    }

    #[test]
    fn missing_what_was_registered_is_not() {
        let mut story = Story::new();
        let none = story.read(1, web(false), Freshness::Default);
        story.register("web-1", 1);
        story.answer_again(1, web(false), Freshness::Default, none);
        assert!(check(&story.finish()).is_err());
    }

    #[test]
    fn seeing_what_was_deregistered_is_not() {
        let mut story = story();
        let there = story.read(1, web(false), Freshness::Default);
        story.deregister("web-1");
        story.answer_again(1, web(false), Freshness::Default, there);
        assert!(check(&story.finish()).is_err());
    }

    #[test]
    fn a_write_of_unknown_outcome_may_show_late_but_not_go_again() {
        let mut story = Story::new();
        let none = story.read(1, web(false), Freshness::Default);
        story.ask_to_register("web-1", 1, Outcome::Unknown("timed out".into()));
        story.answer_again(1, web(false), Freshness::Default, none);
        story.commit(Story::registration("web-1", 1));
        story.read(1, web(false), Freshness::Default);
        let mut gone = Story::new();
        let none = gone.read(1, web(false), Freshness::Default);
        gone.ask_to_register("web-1", 1, Outcome::Unknown("timed out".into()));
        gone.commit(Story::registration("web-1", 1));
        gone.read(1, web(false), Freshness::Default);
        gone.answer_again(1, web(false), Freshness::Default, none);
        assert_eq!(check(&story.finish()), Ok(()));
        assert!(check(&gone.finish()).is_err());
    }

    #[test]
    fn a_failed_write_that_shows_is_not() {
        let mut story = Story::new();
        let write = story.register("web-1", 1);
        story.read(1, web(false), Freshness::Default);
        story.set_outcome(write, Outcome::Failed("No cluster leader".into()));
        assert!(check(&story.finish()).is_err());
    }

    #[test]
    fn a_report_on_what_was_deregistered_must_be_refused() {
        let refused = Outcome::Refused {
            status: 404,
            reason: "unknown check".into(),
        };
        let mut story = story();
        story.deregister("web-1");
        let report = story.acknowledge_report(CHECK, Passing);
        story.set_outcome(report, refused.clone());
        assert_eq!(check(&story.finish()), Ok(()));
        let mut story = self::story();
        story.deregister("web-1");
        story.acknowledge_report(CHECK, Passing);
        assert!(check(&story.finish()).is_err());
        let mut story = self::story();
        let report = story.acknowledge_report(CHECK, Critical);
        story.set_outcome(report, refused);
        assert!(check(&story.finish()).is_err(), "it is there");
    }

    #[test]
    fn nothing_is_needed_but_what_clients_saw() {
        let mut story = story();
        story.fault(FaultKind::Disturbing, 1, 100);
        let operations = story.finish().operations.clone();
        assert_eq!(check_operations(&operations), Ok(()));
    }
}
