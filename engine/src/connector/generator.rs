//! What the sources that make their rows by formula share: one split whose coordinate is a row number,
//! cut into units that the tasks take in turn, at full speed or at a given pace; and random numbers that
//! are a function of a row number.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringViewArray, make_view};
use arrow::buffer::{Buffer, NullBuffer};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::connector::{Intake, Offsets, Split, Unit};
use crate::error::{Error, Result};
use crate::options::{OptionSpec, Options};
use crate::time::EventTime;

/// How often a paced source releases rows: small against the latencies that one would measure with it.
const TICK: Duration = Duration::from_millis(2);

/// Rows a wall-clock second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace(f64);

impl Pace {
    /// Reads the option `spec`.
    pub(crate) fn option(options: &mut Options, spec: &OptionSpec) -> Result<Option<Pace>> {
        let (owner, name) = (options.owner().to_owned(), spec.name);
        match options.value::<f64>(spec, "a number")? {
            None => Ok(None),
            Some(rate) if rate > 0.0 && rate.is_finite() => Ok(Some(Pace(rate))),
            Some(rate) => Err(Error::invalid(format!("option \"{name}\" of {owner} is {rate}, which is not above 0"))
                .with_hint(format!("Leave \"{name}\" out for full speed."))),
        }
    }

    /// Rows a second.
    pub(crate) fn per_second(self) -> f64 {
        self.0
    }

    /// How many rows are due after `elapsed`.
    fn due(self, elapsed: Duration) -> u64 {
        (elapsed.as_secs_f64() * self.0) as u64
    }

    /// How many rows a tick releases.
    fn tick(self) -> u64 {
        (TICK.as_secs_f64() * self.0).ceil() as u64
    }
}

/// One split of row numbers.
#[derive(Clone, Debug)]
pub struct Numbered {
    split: Arc<str>,
    end: Option<u64>,
    unit_rows: u64,
    pace: Option<Pace>,
    min_time: Option<EventTime>,
}

impl Numbered {
    /// Rows `0..end` (without end if `None`) of `split`, in units of at most `unit_rows`.
    pub fn new(split: &str, end: Option<u64>, unit_rows: u64) -> Self {
        Numbered { split: split.into(), end, unit_rows, pace: None, min_time: None }
    }

    /// So many a second.
    pub(crate) fn paced(self, pace: Option<Pace>) -> Self {
        Numbered { pace, ..self }
    }

    /// With times from `time` on.
    pub(crate) fn beginning(self, time: EventTime) -> Self {
        Numbered { min_time: Some(time), ..self }
    }

    /// How many and how fast, with the `noun` for rows.
    pub(crate) fn describe(&self, noun: &str) -> String {
        let rows = self.end.map_or("unbounded".to_owned(), |end| format!("{end} {noun}"));
        match self.pace {
            Some(Pace(rate)) => format!("{rows}, {rate} a second"),
            None => rows,
        }
    }

    /// Whether the rows come to an end.
    pub(crate) fn bounded(&self) -> bool {
        self.end.is_some()
    }

    /// Hands out what `consumed` lacks.
    pub fn open(&self, consumed: &Offsets) -> Arc<HandOut> {
        let ranges = consumed.gaps(&self.split, 0..self.end.unwrap_or(u64::MAX)).into();
        Arc::new(HandOut { of: self.clone(), left: Mutex::new(Left { ranges, given: 0, since: None }) })
    }
}

/// The units of a [`Numbered`] split.
#[derive(Debug)]
pub struct HandOut {
    of: Numbered,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    /// What has not been handed out, ascending; no empty ranges.
    ranges: VecDeque<Range<u64>>,
    /// How many rows have been handed out since `since`.
    given: u64,
    since: Option<Instant>,
}

enum Turn {
    Unit(Range<u64>),
    Wait(Duration),
    End,
}

#[async_trait]
impl Intake for HandOut {
    fn splits(&self) -> Vec<Split> {
        let Numbered { split, end, min_time, .. } = &self.of;
        vec![Split { name: split.clone(), end: *end, min_time: *min_time, holds: true }]
    }

    /// The next unit, when it is due. A range is taken only in the step that returns it.
    async fn next_unit(&self) -> Result<Option<Unit>> {
        loop {
            match self.turn(Instant::now()) {
                Turn::Unit(range) => return Ok(Some(self.unit(range))),
                Turn::Wait(time) => tokio::time::sleep(time).await,
                Turn::End => return Ok(None),
            }
        }
    }

    /// All rows are one group: where a source has groups, an epoch that has begun with some of them has all.
    fn try_unit(&self) -> Option<Unit> {
        match self.turn(Instant::now()) {
            Turn::Unit(range) => Some(self.unit(range)),
            Turn::Wait(_) | Turn::End => None,
        }
    }
}

impl HandOut {
    fn unit(&self, range: Range<u64>) -> Unit {
        Unit { split: self.of.split.clone(), start: range.start, end: range.end }
    }

    fn turn(&self, now: Instant) -> Turn {
        let mut left = self.left.lock();
        let since = *left.since.get_or_insert(now);
        let given = left.given;
        let Some(front) = left.ranges.front_mut() else { return Turn::End };
        let mut rows = (front.end - front.start).min(self.of.unit_rows);
        if let Some(pace) = self.of.pace {
            let elapsed = now.saturating_duration_since(since);
            let tick = pace.tick().min(rows);
            rows = rows.min(pace.due(elapsed).saturating_sub(given));
            if rows < tick {
                // An hour at most, as a tiny pace overflows a duration; the loop looks again.
                let due = (given.saturating_add(tick) as f64 / pace.0).min(elapsed.as_secs_f64() + 3600.0);
                let wait = Duration::from_secs_f64(due).saturating_sub(elapsed);
                return Turn::Wait(wait.max(Duration::from_micros(1)));
            }
        }
        let taken = front.start..front.start + rows;
        front.start = taken.end;
        if front.is_empty() {
            left.ranges.pop_front();
        }
        left.given += rows;
        Turn::Unit(taken)
    }
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
#[inline]
pub(crate) fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The high 32 bits of `x` scaled to `0..m`; `m` is below 2^32.
#[inline]
pub(crate) fn hi(x: u64, m: u64) -> u64 {
    ((x >> 32) * m) >> 32
}

/// The low 32 bits of `x` scaled to `0..m`.
#[inline]
pub(crate) fn lo(x: u64, m: u64) -> u64 {
    ((x & 0xFFFF_FFFF) * m) >> 32
}

/// Number `i` of the random sequence that starts from `state`.
#[inline]
pub(crate) fn nth(state: u64, i: u64) -> u64 {
    mix(state.wrapping_add(GOLDEN.wrapping_mul(i.wrapping_add(1))))
}

/// A text for each of `rows`, about `length` bytes long, ASCII as `write` appends it.
pub(crate) fn texts(
    rows: impl Iterator<Item = u64>,
    length: usize,
    nulls: Option<NullBuffer>,
    write: impl Fn(u64, &mut Vec<u8>),
) -> Result<ArrayRef> {
    let mut bytes = Vec::with_capacity(rows.size_hint().0 * length);
    let view = |row| {
        let at = bytes.len();
        write(row, &mut bytes);
        make_view(&bytes[at..], 0, at as u32)
    };
    let views = rows.map(view).collect::<Vec<u128>>();
    Ok(Arc::new(StringViewArray::try_new(views.into(), vec![Buffer::from(bytes)], nulls)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumed(ranges: &[Range<u64>]) -> Offsets {
        let mut offsets = Offsets::default();
        ranges.iter().for_each(|r| offsets.add("s", r.clone()));
        offsets
    }

    fn paced(end: Option<u64>, unit_rows: u64, pace: f64) -> Arc<HandOut> {
        Numbered::new("s", end, unit_rows).paced(Some(Pace(pace))).open(&consumed(&[]))
    }

    fn ranges(hand_out: &HandOut) -> Vec<Range<u64>> {
        let now = Instant::now();
        std::iter::from_fn(|| match hand_out.turn(now) {
            Turn::Unit(range) => Some(range),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn gaps_come_first_and_then_the_rest() {
        let rows = Numbered::new("s", Some(100), 30);
        assert_eq!(ranges(&rows.open(&consumed(&[]))), [0..30, 30..60, 60..90, 90..100]);
        assert_eq!(ranges(&rows.open(&consumed(&[0..10, 20..55, 60..70]))), [10..20, 55..60, 70..100]);
        assert_eq!(ranges(&rows.open(&consumed(std::slice::from_ref(&(0..100))))), []);
    }

    #[test]
    fn a_pace_releases_what_is_due() {
        let hand_out = paced(None, 1_000_000, 10_000.0);
        let start = Instant::now();
        let at = |ms: u64| hand_out.turn(start + Duration::from_millis(ms));
        assert!(matches!(at(0), Turn::Wait(t) if t == TICK));
        assert!(matches!(at(1), Turn::Wait(t) if t == TICK / 2));
        assert!(matches!(at(2), Turn::Unit(r) if r == (0..20)));
        assert!(matches!(at(3), Turn::Wait(_)));
        assert!(matches!(at(1_000), Turn::Unit(r) if r == (20..10_000)));
    }

    #[test]
    fn the_last_rows_of_a_paced_split_are_released() {
        let hand_out = paced(Some(3), 1_000, 1.0);
        let start = Instant::now();
        let at = |s: u64| hand_out.turn(start + Duration::from_secs(s));
        assert!(matches!(at(0), Turn::Wait(t) if t == Duration::from_secs(1)));
        assert!(matches!(at(2), Turn::Unit(r) if r == (0..2)));
        assert!(matches!(at(9), Turn::Unit(r) if r == (2..3)));
        assert!(matches!(at(9), Turn::End));
    }

    #[test]
    fn a_dropped_wait_loses_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let hand_out = paced(Some(50), 1_000, 1_000.0);
            let mut rows = 0;
            while rows < 50 {
                // Most of these waits are given up before the unit is due.
                if let Ok(unit) = tokio::time::timeout(Duration::from_micros(200), hand_out.next_unit()).await {
                    let unit = unit.expect("no error").expect("not at the end");
                    assert_eq!(unit.start, rows);
                    rows = unit.end;
                }
            }
            assert_eq!(hand_out.next_unit().await.expect("no error"), None);
        });
    }
}
