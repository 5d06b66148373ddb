//! Which events a run emits, and in which order.

use std::ops::Range;

/// Events come in rounds of this many: a person, three auctions, 46 bids.
pub(super) const ROUND: u64 = 50;
/// Spreads the events of an out-of-order group; prime, so that any group but its multiples is permuted.
pub(super) const STRIDE: u64 = 953;

/// The three kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Someone registers.
    Person,
    /// Someone offers an item.
    Auction,
    /// Someone bids on one.
    Bid,
}

impl Kind {
    /// The kind of event `n`.
    #[inline]
    pub(super) fn of(n: u64) -> Kind {
        match n % ROUND {
            0 => Kind::Person,
            1..=3 => Kind::Auction,
            _ => Kind::Bid,
        }
    }

    /// Where in a round its events are.
    pub(super) fn within_round(self) -> Range<u64> {
        match self {
            Kind::Person => 0..1,
            Kind::Auction => 1..4,
            Kind::Bid => 4..ROUND,
        }
    }
}

/// The order of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// How many events there are, if it ends.
    pub(super) events: Option<u64>,
    /// Groups of this many events are emitted out of order; 1 for in order. No multiple of [`STRIDE`].
    pub(super) group: u64,
}

impl Run {
    /// Calls `take` with the number of the event at each of `positions`, in order.
    #[inline]
    pub(super) fn for_each(&self, positions: Range<u64>, mut take: impl FnMut(u64)) {
        if self.group == 1 {
            positions.for_each(take);
            return;
        }
        let step = STRIDE % self.group;
        let mut at = positions.start;
        while at < positions.end {
            let within = at % self.group;
            let base = at - within;
            let next = base + self.group;
            let stop = next.min(positions.end);
            if self.events.is_none_or(|events| next <= events) {
                // (at * STRIDE) % group, one step after the other.
                let mut offset = within * STRIDE % self.group;
                for _ in at..stop {
                    take(base + offset);
                    offset += step;
                    if offset >= self.group {
                        offset -= self.group;
                    }
                }
            } else {
                (at..stop).for_each(&mut take);
            }
            at = stop;
        }
    }

    /// Puts the numbers of the events of `kind` at `positions` into `numbers`, in order of emission.
    pub(super) fn numbers_of(&self, kind: Kind, positions: Range<u64>, numbers: &mut Vec<u64>) {
        numbers.clear();
        let within = kind.within_round();
        if self.group > 1 {
            self.for_each(positions, |n| {
                if within.contains(&(n % ROUND)) {
                    numbers.push(n);
                }
            });
            return;
        }
        let first = positions.start - positions.start % ROUND;
        for base in (first..positions.end).step_by(ROUND as usize) {
            let start = (base + within.start).max(positions.start);
            let end = (base + within.end).min(positions.end);
            numbers.extend(start..end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(run: Run, positions: Range<u64>) -> Vec<u64> {
        let mut numbers = vec![];
        run.for_each(positions, |n| numbers.push(n));
        numbers
    }

    #[test]
    fn a_group_is_permuted_and_a_partial_one_is_not() {
        let run = Run { events: Some(25), group: 10 };
        let numbers = order(run, 0..25);
        assert_eq!(numbers[..10], [0, 3, 6, 9, 2, 5, 8, 1, 4, 7]);
        assert_eq!(numbers[20..], [20, 21, 22, 23, 24]);
        let parts: Vec<u64> = [0..3, 3..14, 14..25].into_iter().flat_map(|r| order(run, r)).collect();
        assert_eq!(parts, numbers);
    }

    #[test]
    fn kinds_are_selected_in_order_of_emission() {
        for group in [1, 7, 1000] {
            let run = Run { events: Some(3_021), group };
            for kind in [Kind::Person, Kind::Auction, Kind::Bid] {
                for positions in [0..3_021, 49..52, 1_003..2_777] {
                    let mut numbers = vec![];
                    run.numbers_of(kind, positions.clone(), &mut numbers);
                    let expected: Vec<u64> =
                        order(run, positions).into_iter().filter(|n| Kind::of(*n) == kind).collect();
                    assert_eq!(numbers, expected);
                }
            }
        }
    }
}
