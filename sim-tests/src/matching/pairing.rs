//! Pairs of things of two kinds, of which some fit each other: as many pairs as there can be, by augmenting paths (Kuhn,
//! "The Hungarian method for the assignment problem", 1955; Berge, 1957).
//!
//! A thing that has a partner keeps one whatever comes later, though perhaps another one. So if there is a way to pair all of
//! some left ones, and a way to pair all right ones, then pairing the left ones first and then the right ones does both
//! (Mendelsohn and Dulmage, 1958).

/// Things to the left and to the right, by their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairing {
    left: Side,
    right: Side,
}

#[derive(Clone, Debug, Default)]
struct Side {
    /// Of each thing: those of the other side that fit it.
    fits: Vec<Vec<usize>>,
    /// Its partner.
    partner: Vec<Option<usize>>,
}

impl Side {
    fn of(count: usize) -> Side {
        Side {
            fits: vec![Vec::new(); count],
            partner: vec![None; count],
        }
    }
}

impl Pairing {
    /// So many things on each side, none of which fit.
    pub(super) fn new(left: usize, right: usize) -> Pairing {
        Pairing {
            left: Side::of(left),
            right: Side::of(right),
        }
    }

    /// One more thing to the right; gives its number.
    pub(super) fn add_right(&mut self) -> usize {
        self.right.fits.push(Vec::new());
        self.right.partner.push(None);
        self.right.fits.len() - 1
    }

    /// These two fit.
    pub(super) fn allow(&mut self, left: usize, right: usize) {
        self.left.fits[left].push(right);
        self.right.fits[right].push(left);
    }

    /// What fits a thing to the left, in the order in which that was told.
    pub(super) fn allowed(&self, left: usize) -> &[usize] {
        &self.left.fits[left]
    }

    /// The partner of a thing to the left.
    pub(super) fn of_left(&self, left: usize) -> Option<usize> {
        self.left.partner[left]
    }

    /// The partner of a thing to the right.
    pub(super) fn of_right(&self, right: usize) -> Option<usize> {
        self.right.partner[right]
    }

    /// Takes over the pairs of another pairing of the same things, all of whose pairs fit here, too.
    pub(super) fn begin_with(&mut self, other: &Pairing) {
        self.left.partner.clone_from(&other.left.partner);
        self.right.partner.clone_from(&other.right.partner);
    }

    /// Finds partners for the first `owed` things to the left, then for all to the right, as far as there are any.
    pub(super) fn pair_all(&mut self, owed: usize) {
        for left in 0..owed {
            self.pair_left(left);
        }
        for right in 0..self.right.fits.len() {
            self.pair_right(right);
        }
    }

    /// Finds a partner for a thing to the left unless it has one; whether it has one then.
    pub(super) fn pair_left(&mut self, left: usize) -> bool {
        pair(left, &mut self.left, &mut self.right)
    }

    /// The same for one to the right.
    pub(super) fn pair_right(&mut self, right: usize) -> bool {
        pair(right, &mut self.right, &mut self.left)
    }
}

/// Looks, nearest first, for a partner that is free, or is so when others of this side take other ones.
fn pair(first: usize, own: &mut Side, other: &mut Side) -> bool {
    if own.partner[first].is_some() {
        return true;
    }
    // Of each thing of the other side that was seen: who wanted it.
    let mut wanted_by = vec![None; other.fits.len()];
    let mut looking = std::collections::VecDeque::from([first]);
    while let Some(seeker) = looking.pop_front() {
        for at in 0..own.fits[seeker].len() {
            let wanted = own.fits[seeker][at];
            if wanted_by[wanted].is_some() {
                continue;
            }
            wanted_by[wanted] = Some(seeker);
            match other.partner[wanted] {
                Some(rival) => looking.push_back(rival),
                None => {
                    hand_on(wanted, &wanted_by, own, other);
                    return true;
                }
            }
        }
    }
    false
}

/// Everyone on the way to a free partner takes the one that he wanted.
fn hand_on(free: usize, wanted_by: &[Option<usize>], own: &mut Side, other: &mut Side) {
    let mut next = Some(free);
    while let Some(partner) = next {
        let Some(seeker) = wanted_by[partner] else { return };
        next = own.partner[seeker].replace(partner);
        other.partner[partner] = Some(seeker);
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    /// The most pairs that there can be, by trying everything.
    fn most(fits: &[Vec<usize>], taken: &mut Vec<usize>) -> usize {
        let Some((first, rest)) = fits.split_first() else {
            return 0;
        };
        let mut best = most(rest, taken);
        for right in first {
            if !taken.contains(right) {
                taken.push(*right);
                best = best.max(1 + most(rest, taken));
                taken.pop();
            }
        }
        best
    }

    #[test]
    fn a_first_guess_is_taken_back_where_it_stands_in_the_way() {
        let mut pairing = Pairing::new(2, 2);
        pairing.allow(0, 0);
        pairing.allow(0, 1);
        pairing.allow(1, 0);
        assert!(pairing.pair_left(0) && pairing.pair_left(1));
        assert_eq!((pairing.of_left(0), pairing.of_left(1)), (Some(1), Some(0)));
        assert_eq!((pairing.of_right(0), pairing.of_right(1)), (Some(1), Some(0)));
    }

    #[test]
    fn there_are_as_many_pairs_as_there_can_be_and_nobody_loses_his() {
        let mut dice = StdRng::seed_from_u64(1);
        for _ in 0..2_000 {
            let (left, right) = (dice.random_range(1..7), dice.random_range(1..7));
            let mut pairing = Pairing::new(left, right);
            for one in 0..left {
                for other in 0..right {
                    if dice.random_range(0..10) < 3 {
                        pairing.allow(one, other);
                    }
                }
            }
            let owed: Vec<usize> = (0..left / 2).filter(|one| pairing.pair_left(*one)).collect();
            let mut taken = Vec::new();
            assert_eq!(owed.len(), most(&pairing.left.fits[..left / 2], &mut taken));
            let paired = (0..right).filter(|other| pairing.pair_right(*other)).count();
            assert_eq!(paired, most(&pairing.left.fits, &mut taken));
            assert!(owed.iter().all(|one| pairing.of_left(*one).is_some()));
            for one in 0..left {
                if let Some(other) = pairing.of_left(one) {
                    assert!(pairing.allowed(one).contains(&other));
                    assert_eq!(pairing.of_right(other), Some(one));
                }
            }
        }
    }
}
