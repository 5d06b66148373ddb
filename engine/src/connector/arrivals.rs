//! What has come and waits to be read. What comes at once is one unit, and is read whole within one epoch of the job.
//!
//! It is bounded in bytes: whoever puts something in has room for it first, and so waits while much is unread. What it holds in memory
//! is counted in the budget by what is put in.
//!
//! Units are handed out in groups: those that were there when the last group was used up. Between a task that ends its epoch
//! and the cut no group opens, so that an epoch does not wait for what comes meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::lag::{Backlog, Lag};
use super::{Split, Unit};
use crate::error::{Error, ErrorKind, Result};

/// How many units go into one epoch before it is cut, and wait at most where they are small.
pub const UNITS: usize = 1024;

/// See the module's text.
pub struct Arrivals<T> {
    split: Arc<str>,
    most: u32,
    /// How many units wait at most.
    units: usize,
    room: Arc<Semaphore>,
    state: Mutex<State<T>>,
    changed: Notify,
}

/// Something that came.
pub struct Arrival<T> {
    /// The position before it.
    pub start: u64,
    /// The position behind it.
    pub end: u64,
    /// It.
    pub content: T,
    /// What it takes until it has been read.
    pub room: Room,
}

/// A part of the bytes that may wait, given back when it is dropped.
pub struct Room {
    taken: OwnedSemaphorePermit,
    all: Arc<Semaphore>,
    most: u32,
    bytes: u64,
}

impl Room {
    /// Makes it `bytes` larger, once there is as much. For one who is alone in putting in: two who grow could wait for each
    /// other.
    pub async fn grow(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes as u64;
        let wanted = u32::try_from(self.bytes).unwrap_or(u32::MAX).min(self.most);
        let missing = wanted.saturating_sub(self.taken.num_permits() as u32);
        if missing > 0 {
            let more = self.all.clone().acquire_many_owned(missing).await;
            self.taken.merge(more.map_err(|_| stopped())?);
        }
        Ok(())
    }
}

/// Made anew whenever the job starts.
struct State<T> {
    run: u64,
    started: bool,
    /// The position behind the last that came.
    last: u64,
    waiting: VecDeque<Arrival<T>>,
    /// Handed out as units and not opened yet.
    opening: Vec<Arrival<T>>,
    /// How many of those that wait are of the present group.
    group: usize,
    /// How many have been handed out since the last epoch was cut.
    handed: usize,
    /// An epoch is being cut: no group opens.
    cutting: bool,
    /// Nothing more will come; or nothing more can, and why.
    ended: Option<Option<Error>>,
    backlog: Backlog,
}

impl<T> State<T> {
    fn new(run: u64, started: bool, last: u64) -> Self {
        let (waiting, opening, backlog) = (VecDeque::new(), vec![], Backlog::default());
        State { run, started, last, waiting, opening, group: 0, handed: 0, cutting: false, ended: None, backlog }
    }

    fn takes(&self, run: u64) -> bool {
        self.started && self.run == run
    }

    /// The next unit of the present group; opens another one where it may.
    fn hand_out(&mut self, split: &Arc<str>) -> Option<Unit> {
        if self.group == 0 && !self.cutting && self.handed < UNITS {
            self.group = self.waiting.len();
        }
        self.group = self.group.checked_sub(1)?;
        let arrival = self.waiting.pop_front()?;
        self.handed += 1;
        let unit = Unit { split: split.clone(), start: arrival.start, end: arrival.end };
        self.opening.push(arrival);
        Some(unit)
    }
}

/// The error of what comes when its run is over.
fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "the job does not run")
}

impl<T> Arrivals<T> {
    /// For what comes in `split`, of which `most` bytes in `units` units may wait. Takes nothing before it is started.
    pub fn new(split: &str, most: usize, units: usize) -> Self {
        let most = most.clamp(units, u32::MAX as usize) as u32;
        let (room, state) = (Arc::new(Semaphore::new(most as usize)), Mutex::new(State::new(0, false, 0)));
        Arrivals { split: split.into(), most, units, room, state, changed: Notify::new() }
    }

    /// The name of the split.
    pub fn split(&self) -> &Arc<str> {
        &self.split
    }

    /// Begins another run, in which nothing has come since position `at`. `prepare` runs while nothing can come.
    pub fn start(&self, at: u64, prepare: impl FnOnce()) {
        let mut state = self.state.lock();
        prepare();
        *state = State::new(state.run + 1, true, at);
    }

    /// The number of the present run.
    pub fn run(&self) -> u64 {
        self.state.lock().run
    }

    /// The position behind the last that came.
    pub fn last(&self) -> u64 {
        self.state.lock().last
    }

    /// Errors where run `run` is over.
    pub fn check(&self, run: u64) -> Result<()> {
        if self.state.lock().takes(run) { Ok(()) } else { Err(stopped()) }
    }

    /// Room for `bytes`, once there is as much. What is larger than all the room takes all of it.
    pub async fn room(&self, bytes: usize) -> Result<Room> {
        // At least a share of which as many fit as units may wait.
        let taken = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(self.most / self.units as u32, self.most);
        let taken = self.room.clone().acquire_many_owned(taken).await.map_err(|_| stopped())?;
        Ok(Room { taken, all: self.room.clone(), most: self.most, bytes: bytes as u64 })
    }

    /// Puts in `rows` rows, which `make` gives with the position behind them when it hears the one before. Under one lock, so that
    /// what has come ends with these and not with others.
    ///
    /// Errors with `Unavailable` when `run` is over, and as `make` does; then nothing has come.
    pub fn put(&self, run: u64, room: Room, rows: u64, make: impl FnOnce(u64) -> Result<(u64, T)>) -> Result<()> {
        {
            let mut state = self.state.lock();
            if !state.takes(run) {
                return Err(stopped());
            }
            let start = state.last;
            let (end, content) = make(start)?;
            state.last = end;
            state.backlog.add(end, rows, room.bytes);
            state.waiting.push_back(Arrival { start, end, content, room });
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Nothing more comes in `run`; `why` where that is an error.
    pub fn end(&self, run: u64, why: Option<Error>) {
        let mut state = self.state.lock();
        if state.takes(run) {
            state.ended = Some(why);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// As [`Intake::splits`](super::Intake::splits).
    pub fn splits(&self) -> Vec<Split> {
        let state = self.state.lock();
        let end = matches!(state.ended, Some(None)).then_some(state.last);
        vec![Split { name: self.split.clone(), end, min_time: None, holds: true }]
    }

    /// As [`Intake::next_unit`](super::Intake::next_unit).
    pub async fn next_unit(&self) -> Result<Option<Unit>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                // Nothing is awaited between taking a unit and giving it.
                let mut state = self.state.lock();
                if let Some(unit) = state.hand_out(&self.split) {
                    return Ok(Some(unit));
                }
                if state.waiting.is_empty()
                    && state.opening.is_empty()
                    && let Some(why) = &state.ended
                {
                    return why.as_ref().map_or(Ok(None), |e| Err(e.again()));
                }
            }
            changed.await;
        }
    }

    /// As [`Intake::try_unit`](super::Intake::try_unit).
    pub fn try_unit(&self) -> Option<Unit> {
        let mut state = self.state.lock();
        state.cutting = true;
        state.hand_out(&self.split)
    }

    /// As [`Intake::epoch_cut`](super::Intake::epoch_cut).
    pub fn epoch_cut(&self) {
        {
            let mut state = self.state.lock();
            (state.cutting, state.handed) = (false, 0);
        }
        self.changed.notify_waiters();
    }

    /// What was handed out as `unit`: it is there once.
    pub fn open(&self, unit: &Unit) -> Result<Arrival<T>> {
        let mut state = self.state.lock();
        let place = state.opening.iter().position(|a| (a.start, a.end) == (unit.start, unit.end));
        let place = place.ok_or_else(|| Error::internal(format!("a unit of {} is read twice", self.split)))?;
        Ok(state.opening.remove(place))
    }

    /// All before `position` is committed.
    pub fn commit(&self, position: u64) {
        self.state.lock().backlog.commit(position);
    }

    /// What has come and is not committed.
    pub fn lag(&self) -> Lag {
        self.state.lock().backlog.lag()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(arrivals: &Arrivals<u64>, bytes: usize) {
        let room = arrivals.room(bytes).await.expect("room");
        arrivals.put(arrivals.run(), room, 1, |start| Ok((start + 1, start))).expect("is taken");
    }

    fn started(most: usize) -> Arrivals<u64> {
        let arrivals = Arrivals::new("s", most, UNITS);
        arrivals.start(5, || {});
        arrivals
    }

    #[tokio::test]
    async fn who_puts_in_waits_for_room_and_one_that_is_too_large_for_all_of_it() {
        let arrivals = started(10_000);
        put(&arrivals, 9_000).await;
        let mut late = Box::pin(put(&arrivals, 50_000));
        assert!(futures::poll!(&mut late).is_pending());
        let unit = arrivals.next_unit().await.expect("a unit").expect("some");
        let first = arrivals.open(&unit).expect("once");
        assert_eq!((first.start, first.end, first.content), (5, 6, 5));
        assert!(arrivals.open(&unit).is_err(), "once");
        assert!(futures::poll!(&mut late).is_pending(), "it is still read");
        drop(first);
        late.await;
        assert_eq!((arrivals.last(), arrivals.lag().rows, arrivals.lag().bytes), (7, Some(2), Some(59_000)));
        arrivals.commit(6);
        assert_eq!((arrivals.lag().rows, arrivals.lag().bytes), (Some(1), Some(50_000)));
    }

    #[tokio::test]
    async fn units_are_bounded_however_small() {
        let arrivals = started(UNITS * 3);
        for _ in 0..UNITS {
            put(&arrivals, 1).await;
        }
        assert!(futures::poll!(Box::pin(put(&arrivals, 1))).is_pending());
    }

    #[tokio::test]
    async fn what_has_come_is_read_before_the_end_is_told() {
        let arrivals = started(1 << 20);
        put(&arrivals, 1).await;
        arrivals.end(arrivals.run(), Some(Error::data("gone")));
        let unit = arrivals.next_unit().await.expect("a unit").expect("some");
        arrivals.open(&unit).expect("once");
        assert_eq!(arrivals.next_unit().await.expect_err("the end").message(), "gone");
        assert!(arrivals.splits()[0].end.is_none(), "more would have come");
        arrivals.start(6, || {});
        arrivals.end(arrivals.run() - 1, None);
        assert!(futures::poll!(Box::pin(arrivals.next_unit())).is_pending(), "another run has ended");
        arrivals.end(arrivals.run(), None);
        assert_eq!(arrivals.next_unit().await.expect("no error"), None);
        assert_eq!(arrivals.splits()[0].end, Some(6));
    }
}
