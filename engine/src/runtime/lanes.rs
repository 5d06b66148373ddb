//! The units that a task reads at once, each in a lane of its own.
//!
//! Most sources have units that end: a task reads one after the other. Units that never end are read side by side, so
//! that each is read however few tasks there are. A read that has begun is never given up: the lanes keep their
//! futures while the task does something else, and one that has given rows goes to the end of the line.

use std::collections::BTreeMap;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, future};

use super::idle::Waits;
use super::reading::Current;
use crate::clock::Clock;
use crate::connector::{Opened, Read, Unit, UnitReader};
use crate::error::Result;

/// A lane, for as long as its unit is read.
pub(super) type LaneId = u64;

/// What a step of reading gave.
pub(super) enum Step {
    /// A unit to read.
    Opened(Unit, Box<dyn UnitReader>),
    /// Rows of a lane.
    Rows(LaneId, Box<dyn UnitReader>, Read),
    /// A lane's unit has been read.
    Done(LaneId),
    /// The rest of a lane's unit is the source's again.
    GivenBack(LaneId),
    /// There are no more units.
    Ended,
}

type Pending = BoxFuture<'static, Result<Step>>;

/// A unit being read.
struct Lane {
    current: Current,
    /// Since when its next rows are waited for.
    since: Instant,
}

/// The lanes of a task.
pub(super) struct Lanes {
    lanes: BTreeMap<LaneId, Lane>,
    next_id: LaneId,
    /// One for each lane.
    reads: FuturesUnordered<Pending>,
    /// The next unit being handed out and opened, and since when it is waited for.
    asking: Option<(Pending, Instant)>,
    /// What a lane had up to here has been taken.
    seen: Instant,
    /// No lane had anything when they were last asked, and the task has done nothing else since.
    quiet: bool,
    clock: Clock,
}

impl Lanes {
    pub(super) fn new(clock: Clock) -> Self {
        Lanes {
            lanes: BTreeMap::new(),
            next_id: 0,
            reads: FuturesUnordered::new(),
            asking: None,
            seen: clock.now(),
            quiet: false,
            clock,
        }
    }

    /// How many units are being read.
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// Asks `source` for another unit.
    pub(super) fn ask(&mut self, source: Opened) {
        let asking = Box::pin(async move {
            let Some(unit) = source.intake.next_unit().await? else { return Ok(Step::Ended) };
            let reader = source.readers.read(&unit).await?;
            Ok(Step::Opened(unit, reader))
        });
        self.asking = Some((asking, self.clock.now()));
    }

    /// Asks no more. Only where opening a unit does not wait: one that was being opened would be lost.
    pub(super) fn ask_no_more(&mut self) {
        self.asking = None;
    }

    /// Takes up a unit.
    pub(super) fn add(&mut self, current: Current, reader: Box<dyn UnitReader>) {
        let id = self.next_id;
        self.next_id += 1;
        self.lanes.insert(id, Lane { current, since: self.clock.now() });
        self.reads.push(read_on(id, reader));
    }

    /// Reads on in a lane.
    pub(super) fn read_on(&mut self, id: LaneId, reader: Box<dyn UnitReader>) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.since = self.clock.now();
        }
        self.reads.push(read_on(id, reader));
    }

    /// The unit of a lane.
    pub(super) fn current(&mut self, id: LaneId) -> Option<&mut Current> {
        self.lanes.get_mut(&id).map(|lane| &mut lane.current)
    }

    /// All units being read.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Current> {
        self.lanes.values_mut().map(|lane| &mut lane.current)
    }

    /// Nothing is waited for in a lane whose next read has not begun.
    pub(super) fn rest(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.since = self.clock.now();
        }
    }

    /// Ends a lane.
    pub(super) fn remove(&mut self, id: LaneId) -> Option<Current> {
        self.lanes.remove(&id).map(|lane| lane.current)
    }

    /// The next step. Waits for ever where nothing is read and no unit is asked for. Nothing is lost when the future is
    /// dropped before it is ready.
    pub(super) async fn step(&mut self) -> Result<Step> {
        let step = future::poll_fn(|context| self.poll_step(context)).await;
        self.quiet = false;
        if let Ok(Step::Rows(id, ..) | Step::Done(id) | Step::GivenBack(id)) = &step
            && let Some(lane) = self.lanes.get(id)
        {
            // They come in turn: what another had before this read began has come, too.
            self.seen = self.seen.max(lane.since);
        }
        step
    }

    /// A step that can be had without waiting for a unit.
    pub(super) async fn step_of_asking(&mut self) -> Result<Option<Step>> {
        let Some((asking, _)) = &mut self.asking else { return Ok(None) };
        let Poll::Ready(step) = futures::poll!(asking) else { return Ok(None) };
        self.asking = None;
        step.map(Some)
    }

    /// A unit comes before rows: a lane that always has some would keep all others from being opened.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<Step>> {
        if let Some((asking, _)) = &mut self.asking
            && let Poll::Ready(step) = asking.poll_unpin(context)
        {
            self.asking = None;
            return Poll::Ready(step);
        }
        if let Poll::Ready(Some(step)) = self.reads.poll_next_unpin(context) {
            return Poll::Ready(step);
        }
        self.quiet = true;
        Poll::Pending
    }

    /// What is waited for now, when the task goes about something else, and for how long. Time in which rows may
    /// have come that the task could not take does not count.
    pub(super) fn waits(&mut self) -> Vec<Waits> {
        let now = self.clock.now();
        if std::mem::take(&mut self.quiet) {
            self.seen = now;
        }
        let until = self.seen;
        let wait = |on, since: Instant| Waits { on, time: until.saturating_duration_since(since) };
        let open = self.lanes.values().map(|lane| wait(Some(lane.current.unit.split.clone()), lane.since));
        open.chain(self.asking.iter().map(|(_, since)| wait(None, *since))).collect()
    }
}

fn read_on(id: LaneId, mut reader: Box<dyn UnitReader>) -> Pending {
    Box::pin(async move {
        Ok(match reader.next().await? {
            Some(read) => Step::Rows(id, reader, read),
            None if reader.is_whole() => Step::Done(id),
            None => Step::GivenBack(id),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use arrow::datatypes::Schema;
    use async_trait::async_trait;
    use tokio::sync::mpsc;

    use super::*;
    use crate::changes::Changes;

    /// Gives an empty read for each word that it is sent.
    struct Waiting(mpsc::UnboundedReceiver<()>);

    #[async_trait]
    impl UnitReader for Waiting {
        async fn next(&mut self) -> Result<Option<Read>> {
            let read = Read::rows(Changes::empty(Arc::new(Schema::empty())), 0);
            Ok(self.0.recv().await.map(|()| read))
        }
    }

    fn lane(lanes: &mut Lanes, split: &str) -> mpsc::UnboundedSender<()> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let unit = Unit { split: split.into(), start: 0, end: u64::MAX };
        lanes.add(Current::new(unit), Box::new(Waiting(receiver)));
        sender
    }

    /// The lane that gives rows next is read on in.
    async fn turn(lanes: &mut Lanes) -> Option<LaneId> {
        let Ok(Ok(step)) = tokio::time::timeout(Duration::from_millis(20), lanes.step()).await else { return None };
        let Step::Rows(id, reader, _) = step else { return None };
        lanes.read_on(id, reader);
        Some(id)
    }

    fn waited(lanes: &mut Lanes) -> Vec<Duration> {
        lanes.waits().into_iter().map(|w| w.time).collect()
    }

    const LONG: Duration = Duration::from_secs(100);

    #[tokio::test]
    async fn lanes_take_turns() {
        let mut lanes = Lanes::new(Clock::default());
        let senders = [lane(&mut lanes, "a"), lane(&mut lanes, "b"), lane(&mut lanes, "c")];
        for _ in 0..4 {
            senders[0].send(()).expect("is open");
        }
        senders[2].send(()).expect("is open");
        let mut order = vec![];
        while let Some(id) = turn(&mut lanes).await {
            order.push(id);
        }
        assert_eq!(order.len(), 5);
        assert!(order.iter().position(|id| *id == 2) <= Some(1), "{order:?}");
    }

    #[tokio::test]
    async fn a_wait_that_the_task_could_not_end_does_not_count() {
        let clock = Clock::by_hand();
        let mut lanes = Lanes::new(clock.clone());
        let (_a, _b) = (lane(&mut lanes, "a"), lane(&mut lanes, "b"));
        // Both have nothing: both wait.
        assert_eq!(turn(&mut lanes).await, None);
        clock.advance(LONG);
        assert_eq!(waited(&mut lanes), [LONG, LONG]);
        // The task goes about something else for long before it looks again.
        clock.advance(LONG * 2);
        assert_eq!(waited(&mut lanes), [LONG, LONG]);
        let mut lanes = Lanes::new(clock.clone());
        let (a, _b) = (lane(&mut lanes, "a"), lane(&mut lanes, "b"));
        for _ in 0..3 {
            a.send(()).expect("is open");
            assert_eq!(turn(&mut lanes).await, Some(0));
            clock.advance(LONG);
        }
        // Rows of a came in time: until the read of the last of them began b had nothing, and what came since nobody knows.
        assert_eq!(waited(&mut lanes), [Duration::ZERO, LONG]);
    }
}
