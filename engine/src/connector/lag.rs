//! How far a job is behind what there is to read or to send.
//!
//! ```text
//! came: 3 rows, 2 rows    committed: the first 3    the other side has 10 more    ->  lag of 12 rows
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// How many pieces are told apart; of more, the last ones count as one.
const PIECES: usize = 1024;

/// How far behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lag {
    /// Rows that have come and are not committed, or were committed and not sent, and those that the other side says it
    /// has besides; where they are counted.
    pub rows: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// For how long there have been any, or the other side has not been heard. Nothing when all is done.
    pub time: Duration,
    /// The way to the other side, where there is one.
    pub link: Option<Link>,
}

/// The way to another side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is there.
    Connected,
    /// It is not, and is tried again.
    Cut {
        /// For how long.
        time: Duration,
        /// What the last attempt came to.
        why: String,
    },
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Link::Connected => f.write_str("connected"),
            Link::Cut { time, why } => write!(f, "cut for {} s: {why}", time.as_secs()),
        }
    }
}

impl Lag {
    /// Of two ways of a job: rows and bytes of both, the longer time, and the link that is cut.
    #[must_use]
    pub fn with(self, other: Lag) -> Lag {
        let link = match (self.link, other.link) {
            (Some(Link::Connected) | None, Some(other)) => Some(other),
            (link, _) => link,
        };
        let time = self.time.max(other.time);
        let sum = |a: Option<u64>, b: Option<u64>| a.map_or(b, |a| Some(a + b.unwrap_or_default()));
        Lag { rows: sum(self.rows, other.rows), bytes: sum(self.bytes, other.bytes), time, link }
    }
}

/// What has come and is not committed, in the order of its positions.
#[derive(Debug, Default)]
pub struct Backlog {
    pieces: VecDeque<Piece>,
}

#[derive(Debug)]
struct Piece {
    /// The position behind it.
    end: u64,
    rows: u64,
    bytes: u64,
    came: Instant,
}

impl Backlog {
    /// So many rows, which end at position `end`, have come now.
    pub fn add(&mut self, end: u64, rows: u64, bytes: u64) {
        if rows == 0 {
            return;
        }
        let many = self.pieces.len() >= PIECES;
        match self.pieces.back_mut().filter(|_| many) {
            Some(last) => (last.end, last.rows, last.bytes) = (end, last.rows + rows, last.bytes + bytes),
            None => self.pieces.push_back(Piece { end, rows, bytes, came: Instant::now() }),
        }
    }

    /// All before `position` is committed.
    pub fn commit(&mut self, position: u64) {
        while self.pieces.front().is_some_and(|piece| piece.end <= position) {
            self.pieces.pop_front();
        }
    }

    /// What is left.
    pub fn lag(&self) -> Lag {
        Lag {
            rows: Some(self.pieces.iter().map(|piece| piece.rows).sum()),
            bytes: Some(self.pieces.iter().map(|piece| piece.bytes).sum()),
            time: self.pieces.front().map(|piece| piece.came.elapsed()).unwrap_or_default(),
            link: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(rows: u64, bytes: u64) -> Lag {
        Lag { rows: Some(rows), bytes: Some(bytes), ..Lag::default() }
    }

    #[test]
    fn what_came_counts_until_it_is_committed() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.lag(), lag(0, 0));
        backlog.add(3, 3, 30);
        backlog.add(4, 0, 0);
        backlog.add(9, 5, 50);
        assert!(backlog.lag().time > Duration::ZERO);
        assert_eq!(Lag { time: Duration::ZERO, ..backlog.lag() }, lag(8, 80));
        backlog.commit(8);
        assert_eq!(Lag { time: Duration::ZERO, ..backlog.lag() }, lag(5, 50));
        backlog.commit(9);
        assert_eq!(backlog.lag(), lag(0, 0));
        for end in 1..=5_000 {
            backlog.add(end, 1, 10);
        }
        assert_eq!((backlog.pieces.len(), backlog.lag().rows), (PIECES, Some(5_000)));
        backlog.commit(4_999);
        assert_eq!(backlog.lag().rows, Some(5_000 - PIECES as u64 + 1), "the last ones go together");
    }

    #[test]
    fn a_job_is_as_far_behind_as_all_its_ways() {
        let cut = Link::Cut { time: Duration::from_millis(2_500), why: "no answer".to_owned() };
        let one = Lag { time: Duration::from_secs(3), link: Some(Link::Connected), ..lag(1, 10) };
        let other = Lag { rows: Some(2), time: Duration::from_secs(1), link: Some(cut.clone()), ..Lag::default() };
        for both in [one.clone().with(other.clone()), other.with(one.clone())] {
            assert_eq!(both, Lag { time: Duration::from_secs(3), link: Some(cut.clone()), ..lag(3, 10) });
        }
        assert_eq!(one.clone().with(Lag::default()), one);
        assert_eq!(cut.to_string(), "cut for 2 s: no answer");
    }
}
