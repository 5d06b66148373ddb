//! What of the state an epoch has to do with: the islands near which rows have come or gone, and those that close.

use std::ops::Range;

use super::islands::{Island, Islands};
use crate::changes::Changes;
use crate::operator::gap::Sessions;

/// Rows that have come and islands that are near each other: no others can be of one session with them.
pub(super) struct Region {
    pub(super) slot: u32,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) came: Range<usize>,
    pub(super) islands: Range<usize>,
    /// Whether some of what has come is taken back.
    pub(super) takes_back: bool,
}

/// All regions of an epoch.
#[derive(Default)]
pub(super) struct Regions {
    pub(super) all: Vec<Region>,
    /// The islands that belong to them.
    pub(super) islands: Vec<Island>,
}

impl Regions {
    /// Those near what has `come`: the partition and the time of each row, in order. Takes their islands out of `islands`.
    pub(super) fn near(places: &[(u32, i64, u32)], came: &Changes, islands: &mut Islands, sessions: &Sessions) -> Self {
        let (mut found, mut at) = (Regions::default(), 0);
        while at < places.len() {
            let (slot, time, _) = places[at];
            let (from, begun) = (at, found.islands.len());
            let before = islands.take_before(slot, time);
            let (first, mut last) = before.map_or((time, time), |island| (island.first, island.last.max(time)));
            found.islands.extend(before);
            let mut next = islands.next_behind(slot, last);
            loop {
                let is_in = |place: &&(u32, i64, u32), before: i64| place.0 == slot && place.1 < before;
                at += places[at..].iter().take_while(|place| is_in(place, last.saturating_add(1))).count();
                if next < sessions.after(last)
                    && let Some(island) = islands.take(slot, next)
                {
                    last = last.max(island.last);
                    found.islands.push(island);
                    next = islands.next_behind(slot, last);
                } else if let Some((_, t, _)) = places.get(at).filter(|place| is_in(place, sessions.after(last))) {
                    last = *t;
                } else {
                    break;
                }
            }
            let takes_back = (from..at).any(|row| came.weight(row) <= 0);
            let islands = begun..found.islands.len();
            found.all.push(Region { slot, first, last, came: from..at, islands, takes_back });
        }
        found
    }

    /// Adds the islands of which sessions end at `until` or before.
    pub(super) fn add_due(&mut self, islands: &mut Islands, until: i64) {
        while let Some(island) = islands.take_due(until) {
            let Island { slot, first, last } = island;
            let of = self.islands.len()..self.islands.len() + 1;
            self.islands.push(island);
            self.all.push(Region { slot, first, last, came: 0..0, islands: of, takes_back: false });
        }
    }
}
