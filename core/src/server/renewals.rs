//! Renewals of TTL checks, and other reports about checks, at the leader.
//!
//! A renewal that changes nothing is not written to the log. Still an acknowledged one holds: the check does not turn
//! critical before its full TTL has passed since this server received the renewal. The steps, and what each is for:
//!
//! 1. *At its arrival* the check's deadline moves to a full TTL from now, so that no expiry is decided from here on.
//! 2. *Leadership is confirmed* by a read-index round that begins after the arrival, and its index is applied here.
//! 3. *The renewal is compared* with the state. The same status: nothing to write. Another one, or an expiry of this
//!    check that was decided before the arrival and is not resolved: the renewal is written, as a command.
//! 4. *It is acknowledged* if the table of deadlines still is of the term in which it arrived.
//!
//! Why that holds, whatever fails in between:
//!
//! - *Another leader is elected.* Whoever wins an election after the round in step 2 grants a full TTL from a moment
//!   after it. Nobody can have won before it: the quorum of the round and that of the election share a voter, who
//!   confirmed this leader after the arrival, and voted for the other one later still.
//! - *This leader is cut off or deposed.* Step 2 fails and nothing is acknowledged. Its table is dropped with its term.
//!   Expiries that it decides meanwhile are proposed for the term they were decided in, and never reach a quorum.
//! - *An expiry is under way when the renewal arrives.* The check is contested, so the renewal is written. In either
//!   order in the log it wins: after the expiry it undoes it; before, the expiry finds the renewal counted and is
//!   refused. An expiry whose outcome is unknown contests its check until something is applied that settles it.
//! - *A new leader inherits an expiry in its log.* Its first read index lies above all that it inherited, so step 3
//!   sees the check critical, and writes.
//! - *The table changes hands between arrival and acknowledgement.* A contested check might be forgotten with the old
//!   table; step 4 finds another term, and the renewal is sent to the leader anew. Nothing was written, so it may be.
//! - *This process stands still.* The renewals that it could not receive meanwhile were not acknowledged, and yet the
//!   gap is added to every deadline before anything is expired: see [`super::deadlines::Deadlines::observe`].
//! - *Its clock drifts.* TTLs are counted on the monotonic clock, stretched by the drift that is allowed for; the wall
//!   clock is not looked at.
//!
//! A change of nothing but a check's output is acknowledged at once and held back in the leader's memory, the newest
//! one for each check, then written without an index. It is lost when the leader fails; the next renewal brings it.

use std::collections::BTreeSet;

use super::{Renewal, Renewed, peer::Failure, probes, wiring::Inner};
use crate::{
    limits,
    probing::check::cut_to,
    raft::ReadIndexError,
    registry::{CheckKey, CheckTarget, CheckUpdate, Command, Refusal, Registry, Reply},
    runtime::Instant,
};

/// Who reports on checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reporter {
    /// A client, on what it watches itself.
    Client,
    /// This server, on what it probed.
    Prober,
}

/// What is to be done about the renewals of one call.
#[derive(Debug, Default)]
struct Verdict {
    /// Index of the state that was compared with.
    index: u64,
    /// An outcome for each; of those that are written it is not known yet.
    outcomes: Vec<Result<(), Refusal>>,
    /// What is written, with its place among the outcomes.
    writes: Vec<(usize, CheckUpdate)>,
}

impl Inner {
    /// Carries out renewals that arrived here in a term of this server's leadership.
    pub(super) async fn renew_here(
        &self,
        mut renewals: Vec<Renewal>,
        term: u64,
        reporter: Reporter,
        deadline: Instant,
    ) -> Result<Renewed, Failure> {
        renewals.iter_mut().for_each(cut_output);
        self.note_arrival(&renewals, term)?;
        self.confirm_leadership(deadline).await?;
        let Verdict {
            mut index,
            mut outcomes,
            writes,
        } = self.judge(renewals, term, reporter)?;
        let mut written = 0;
        for chunk in writes.chunks(limits::RENEWALS_PER_COMMAND_MAX) {
            let results = self.write_updates(chunk, deadline).await;
            let (written_at, results) = results.map_err(|failure| match failure {
                // Some were written, so the call as a whole can't be sent again.
                Failure::NotHere if written > 0 => Failure::OutcomeUnknown("leadership was lost".into()),
                failure => failure,
            })?;
            for ((place, _), result) in chunk.iter().zip(results) {
                outcomes[*place] = result;
            }
            index = index.max(written_at);
            written += chunk.len();
        }
        Ok(Renewed { index, outcomes })
    }

    /// Moves the deadlines: step 1.
    fn note_arrival(&self, renewals: &[Renewal], term: u64) -> Result<(), Failure> {
        let registry = self.registry();
        let mut deadlines = self.shared.deadlines();
        let now = self.platform().now();
        deadlines.lead(term, &registry, now);
        if deadlines.term() != Some(term) {
            return Err(Failure::NotHere);
        }
        for renewal in renewals {
            // What is unknown now may be known once the state is confirmed: it has no deadline to move yet.
            for key in targets(&registry, &renewal.target).unwrap_or_default() {
                deadlines.renewed(&key, now);
            }
        }
        Ok(())
    }

    /// Ends when this server certainly led after this call began, and has applied all that was acknowledged: step 2.
    pub(super) async fn confirm_leadership(&self, deadline: Instant) -> Result<(), Failure> {
        let confirmed = async {
            let read_index = self.consensus.read_index().await?;
            self.consensus.wait_applied(read_index).await
        };
        match self.platform().until(deadline, confirmed).await {
            Some(Ok(())) => Ok(()),
            Some(Err(ReadIndexError::Stopped(reason))) => Err(Failure::Stopped(reason)),
            Some(Err(ReadIndexError::NotLeader { .. })) | None => Err(Failure::NotHere),
        }
    }

    /// Compares with the state: step 3, and the condition of step 4.
    fn judge(&self, renewals: Vec<Renewal>, term: u64, reporter: Reporter) -> Result<Verdict, Failure> {
        let registry = self.registry();
        let mut deadlines = self.shared.deadlines();
        let now = self.platform().now();
        if deadlines.term() != Some(term) {
            return Err(Failure::NotHere);
        }
        let mut verdict = Verdict {
            index: registry.index(),
            ..Verdict::default()
        };
        // A report behind one of the same check that is written is written too: it is the newer one, and shares its fate.
        let mut written: BTreeSet<CheckKey> = BTreeSet::new();
        for (place, renewal) in renewals.into_iter().enumerate() {
            let keys = match targets(&registry, &renewal.target)
                .and_then(|keys| self.may_report(&registry, keys, reporter))
            {
                Ok(keys) => keys,
                Err(refusal) => {
                    verdict.outcomes.push(Err(refusal));
                    continue;
                }
            };
            verdict.outcomes.push(Ok(()));
            let changes = |key: &CheckKey| {
                let status = registry.check(key).map(|check| check.status);
                written.contains(key) || status != Some(renewal.status)
            };
            let status = keys.iter().any(|key| deadlines.is_contested(key) || changes(key));
            let mut output = renewal
                .output
                .map(|output| cut_to(output, kept_of(&registry, &keys)));
            if status {
                for key in &keys {
                    written.insert(key.clone());
                    // The newest output goes with the status: what is held would otherwise be written over it later.
                    let held = deadlines.take_output(key);
                    if output.is_none() && matches!(renewal.target, CheckTarget::Check(_)) {
                        output = held;
                    }
                }
            } else {
                let Some(output) = &output else { continue };
                let held = keys.iter().all(|key| {
                    let current = registry.check(key).map_or("", |check| &check.output);
                    deadlines.hold_output(key, current, output, now)
                });
                if held {
                    continue;
                }
            }
            let update = CheckUpdate {
                target: renewal.target,
                status: status.then_some(renewal.status),
                output,
            };
            verdict.writes.push((place, update));
        }
        Ok(verdict)
    }

    /// Refuses a client's report on a check that the servers run: the next run would undo it.
    fn may_report(
        &self,
        registry: &Registry,
        keys: Vec<CheckKey>,
        reporter: Reporter,
    ) -> Result<Vec<CheckKey>, Refusal> {
        if reporter == Reporter::Prober || self.shared.config.prober.is_none() {
            return Ok(keys);
        }
        let (node, scripts) = self.shared.probed();
        let run_here = |key: &&CheckKey| {
            let check = registry.check(key);
            check.is_some_and(|check| probes::is_run_here(check, node, scripts))
        };
        match keys.iter().find(run_here) {
            Some(key) => Err(Refusal::NotTtl(key.id.to_string())),
            None => Ok(keys),
        }
    }

    /// Writes updates as one command; gives the index after it and an outcome for each.
    async fn write_updates(
        &self,
        updates: &[(usize, CheckUpdate)],
        deadline: Instant,
    ) -> Result<(u64, Vec<Result<(), Refusal>>), Failure> {
        let updates: Vec<CheckUpdate> = updates.iter().map(|(_, update)| update.clone()).collect();
        let count = updates.len();
        let written = self.propose(Command::UpdateChecks(updates), deadline).await?;
        match written.reply {
            Ok(Reply::Each(results)) if results.len() == count => Ok((written.index, results)),
            Ok(other) => Err(Failure::OutcomeUnknown(format!(
                "an unexpected reply to an update: {other:?}"
            ))),
            Err(refusal) => Ok((written.index, vec![Err(refusal); count])),
        }
    }
}

/// The checks that a report is about.
fn targets(registry: &Registry, target: &CheckTarget) -> Result<Vec<CheckKey>, Refusal> {
    match target {
        CheckTarget::Check(key) => match registry.check(key) {
            Some(_) => Ok(vec![key.clone()]),
            None => Err(Refusal::UnknownCheck(key.id.to_string())),
        },
        CheckTarget::TtlChecksOf(key) => match registry.instance(key) {
            Some(_) => {
                let checks = registry.checks_of_instance(key);
                let ttl_checks = checks.filter(|check| check.definition.ttl().is_some());
                Ok(ttl_checks.map(|check| check.key()).collect())
            }
            None => Err(Refusal::UnknownInstance(key.id.to_string())),
        },
    }
}

/// Bytes that all of these checks keep of what a service says of itself. Whoever runs a check cuts what it met before that
/// is put into words, and tells all of these.
fn kept_of(registry: &Registry, keys: &[CheckKey]) -> usize {
    let checks = keys.iter().filter_map(|key| registry.check(key));
    let of_services = checks.filter(|check| check.definition.ttl().is_some());
    let kept = of_services.map(|check| check.definition.output_bytes_max()).min();
    kept.unwrap_or(limits::CHECK_OUTPUT_BYTES_MAX)
}

/// Cuts an output to its limit, so that it can be compared with what is kept.
fn cut_output(renewal: &mut Renewal) {
    if let Some(output) = &mut renewal.output {
        output.truncate(output.floor_char_boundary(limits::CHECK_OUTPUT_BYTES_MAX));
    }
}
