//! A search for an order in which overlapping operations can have happened one after the other (Wing and Gong, "Testing
//! and verifying concurrent objects", 1993), which remembers what it has tried (Lowe, "Testing for linearizability", 2017).
//!
//! Operations are put in order as early as possible; where that leads nowhere, the search takes the last one back. A set
//! of operations that leads to a state is tried once. An operation of which nobody knows whether it happened has no end:
//! it may happen at any time after its beginning, or never. A read that leaves a state as it is is put where it first fits, and
//! nowhere else: whatever leads on without it leads on with it.
//!
//! `todc-utils` has such a search, too; but it knows no operations without an end, and was not touched since it was first
//! published.

use std::collections::BTreeSet;

use crate::time::Time;

/// An operation on one object.
#[derive(Clone, Debug)]
pub struct Call<C> {
    /// What was asked and answered.
    pub what: C,
    /// Its number, for people.
    pub id: u32,
    /// When it was sent.
    pub invoked: Time,
    /// When it was answered; `None` if nobody knows whether it happened.
    pub returned: Option<Time>,
    /// Whether it changes nothing, wherever it happens.
    pub reads: bool,
}

/// What a search finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is an order.
    Order,
    /// There is none. The operations that stood in the way where the search came furthest.
    None(Vec<u32>),
    /// It would take too long to find out.
    Nothing,
}

/// Sets of operations that a search looks at, at most.
const STEPS_MAX: usize = 100_000;

/// Looks for an order of `calls` such that each `step` from a state gives the next one, beginning with `first`; a step that
/// gives no state can't happen there.
pub fn search<S, C>(first: S, calls: &[Call<C>], step: impl Fn(&S, &C) -> Option<S>) -> Found
where
    S: Clone + Ord,
{
    let mut events = Events::of(calls);
    let mut state = first;
    let mut done = vec![0_u64; calls.len().div_ceil(64)];
    let mut tried: BTreeSet<(Vec<u64>, S)> = BTreeSet::new();
    // Each with the state before it; none where there is nothing else to try.
    let mut order: Vec<(usize, Option<S>)> = Vec::new();
    let mut left = calls.iter().filter(|call| call.returned.is_some()).count();
    let mut stuck: (usize, Vec<u32>) = (0, Vec::new());
    let mut at = events.first();
    while left > 0 {
        let event = at.expect("an operation that has an end has one in the list");
        let call = events.call(event);
        if events.is_start(event) {
            if let Some(next) = step(&state, &calls[call].what) {
                done[call / 64] |= 1 << (call % 64);
                if calls[call].reads && next == state {
                    left -= usize::from(calls[call].returned.is_some());
                    order.push((call, None));
                    events.take_out(call);
                    at = events.first();
                    continue;
                }
                if tried.insert((done.clone(), next.clone())) {
                    if tried.len() > STEPS_MAX {
                        return Found::Nothing;
                    }
                    left -= usize::from(calls[call].returned.is_some());
                    order.push((call, Some(std::mem::replace(&mut state, next))));
                    events.take_out(call);
                    at = events.first();
                    continue;
                }
                done[call / 64] &= !(1 << (call % 64));
            }
            at = events.after(event);
            continue;
        }
        // An operation has ended that can't have happened by then.
        if order.len() >= stuck.0 {
            stuck = (order.len(), vec![calls[call].id]);
        }
        let Some((last, before)) = order.pop() else {
            return Found::None(stuck.1);
        };
        done[last / 64] &= !(1 << (last % 64));
        left += usize::from(calls[last].returned.is_some());
        events.put_back(last);
        if let Some(before) = before {
            state = before;
            at = events.after(events.start(last));
        }
    }
    Found::Order
}

/// Beginnings and ends of operations by time, as a list out of which an operation can be taken, and put back where it was.
struct Events {
    /// Of each event: its operation, and whether it is its beginning.
    events: Vec<(usize, bool)>,
    /// Of each operation: where its beginning and its end are.
    places: Vec<(usize, Option<usize>)>,
    /// Neighbours; the last place stands for both ends of the list.
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Events {
    fn of<C>(calls: &[Call<C>]) -> Events {
        let mut by_time: Vec<(Time, bool, usize)> = Vec::new();
        for (call, it) in calls.iter().enumerate() {
            // What begins as another one ends overlaps it.
            by_time.push((it.invoked, false, call));
            by_time.extend(it.returned.map(|at| (at, true, call)));
        }
        by_time.sort_unstable();
        let count = by_time.len();
        let mut places = vec![(0, None); calls.len()];
        for (place, (_, ends, call)) in by_time.iter().enumerate() {
            match ends {
                false => places[*call].0 = place,
                true => places[*call].1 = Some(place),
            }
        }
        Events {
            events: by_time.iter().map(|(_, ends, call)| (*call, !ends)).collect(),
            places,
            next: (0..=count).map(|place| (place + 1) % (count + 1)).collect(),
            previous: (0..=count).map(|place| (place + count) % (count + 1)).collect(),
        }
    }

    fn first(&self) -> Option<usize> {
        self.after(self.events.len())
    }

    fn after(&self, place: usize) -> Option<usize> {
        Some(self.next[place]).filter(|next| *next < self.events.len())
    }

    fn call(&self, place: usize) -> usize {
        self.events[place].0
    }

    fn is_start(&self, place: usize) -> bool {
        self.events[place].1
    }

    fn start(&self, call: usize) -> usize {
        self.places[call].0
    }

    fn take_out(&mut self, call: usize) {
        let (start, end) = self.places[call];
        for place in [Some(start), end].into_iter().flatten() {
            let (previous, next) = (self.previous[place], self.next[place]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// In the opposite order of taking them out, so that neighbours are what they were.
    fn put_back(&mut self, call: usize) {
        let (start, end) = self.places[call];
        for place in [end, Some(start)].into_iter().flatten() {
            let (previous, next) = (self.previous[place], self.next[place]);
            self.next[previous] = place;
            self.previous[next] = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register of a number: writes and reads.
    #[derive(Clone, Copy, Debug)]
    enum Register {
        Write(u32),
        Read(u32),
    }
    use Register::{Read, Write};

    fn step(state: &u32, what: &Register) -> Option<u32> {
        match what {
            Write(value) => Some(*value),
            Read(value) => (value == state).then_some(*state),
        }
    }

    fn found(calls: &[(Register, u64, Option<u64>)]) -> Found {
        let calls: Vec<Call<Register>> = (0_u32..)
            .zip(calls)
            .map(|(id, (what, invoked, returned))| Call {
                what: *what,
                id,
                invoked: Time::ms(*invoked),
                returned: returned.map(Time::ms),
                reads: matches!(what, Read(_)),
            })
            .collect();
        search(0, &calls, step)
    }

    #[test]
    fn nothing_has_an_order() {
        assert_eq!(found(&[]), Found::Order);
    }

    #[test]
    fn a_read_of_what_was_written_has_an_order() {
        assert_eq!(
            found(&[(Write(1), 0, Some(1)), (Read(1), 2, Some(3))]),
            Found::Order
        );
    }

    #[test]
    fn a_read_of_what_was_overwritten_has_none() {
        let calls = [
            (Write(1), 0, Some(1)),
            (Write(2), 2, Some(3)),
            (Read(1), 4, Some(5)),
        ];
        assert_eq!(found(&calls), Found::None(vec![2]));
    }

    #[test]
    fn overlapping_writes_may_be_in_either_order() {
        for value in [1, 2] {
            let calls = [
                (Write(1), 0, Some(5)),
                (Write(2), 1, Some(6)),
                (Read(value), 7, Some(8)),
            ];
            assert_eq!(found(&calls), Found::Order);
        }
        let both = [
            (Write(1), 0, Some(5)),
            (Write(2), 1, Some(6)),
            (Read(1), 7, Some(8)),
            (Read(2), 9, Some(10)),
        ];
        assert_eq!(found(&both), Found::None(vec![3]));
    }

    #[test]
    fn what_touches_overlaps() {
        assert_eq!(
            found(&[(Write(1), 0, Some(5)), (Read(0), 5, Some(6))]),
            Found::Order
        );
    }

    #[test]
    fn an_unknown_write_may_happen_late_or_never() {
        let late = [
            (Write(1), 0, None),
            (Read(0), 10, Some(11)),
            (Read(1), 20, Some(21)),
        ];
        assert_eq!(found(&late), Found::Order);
        let once = [
            (Write(1), 0, None),
            (Read(1), 10, Some(11)),
            (Write(2), 12, Some(13)),
            (Read(1), 20, Some(21)),
        ];
        assert_eq!(found(&once), Found::None(vec![3]));
        assert_eq!(found(&[(Write(1), 0, None)]), Found::Order);
    }

    #[test]
    fn not_before_it_was_sent() {
        let calls = [(Read(1), 0, Some(1)), (Write(1), 2, None)];
        assert_eq!(found(&calls), Found::None(vec![0]));
    }

    /// Tries every order.
    fn naive(calls: &[(Register, u64, Option<u64>)], done: &mut Vec<usize>, state: u32) -> bool {
        let waits = |at: &usize| !done.contains(at);
        let rest: Vec<usize> = (0..calls.len()).filter(waits).collect();
        let ends = rest.iter().filter_map(|at| calls[*at].2).min();
        let Some(ends) = ends else { return true };
        for at in rest.iter().copied().filter(|at| calls[*at].1 <= ends) {
            if let Some(next) = step(&state, &calls[at].0) {
                done.push(at);
                let found = naive(calls, done, next);
                done.pop();
                if found {
                    return true;
                }
            }
        }
        false
    }

    #[test]
    fn it_finds_what_trying_everything_finds() {
        use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
        let mut dice = StdRng::seed_from_u64(7);
        let (mut orders, mut nones) = (0, 0);
        for _ in 0..3_000 {
            let calls: Vec<(Register, u64, Option<u64>)> = (0..dice.random_range(1..8))
                .map(|_| {
                    let value = dice.random_range(0..3);
                    let (writes, ends) = (dice.random_bool(0.5), dice.random_bool(0.8));
                    let invoked = dice.random_range(0..20);
                    let returned = invoked + dice.random_range(0..8);
                    let what = if writes { Write(value) } else { Read(value) };
                    (what, invoked, (ends || !writes).then_some(returned))
                })
                .collect();
            let expected = naive(&calls, &mut Vec::new(), 0);
            let verdict = found(&calls);
            assert_eq!(verdict == Found::Order, expected, "{calls:?}: {verdict:?}");
            orders += u32::from(expected);
            nones += u32::from(!expected);
        }
        assert!(
            orders > 300 && nones > 300,
            "{orders} with an order, {nones} without"
        );
    }
}
