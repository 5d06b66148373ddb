//! A log that is followed: what of it has been handed out, and what its reader still needs.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::boundaries::Boundary;
use super::committed::FileEntry;
use super::handout::{FirstBase, Handout, Open, first_end, unit_end};
use super::log::{Hold, StreamLog};
use super::reader::{Reader, Rows};
use crate::connector::lag::Lag;
use crate::connector::position::{Begin, Standing};
use crate::connector::{Intake, Offsets, Opening, Reach, ReadBy, Readers, Split, Unit, UnitReader};
use crate::error::{Error, ErrorKind, Result};
use crate::time::{EventTime, now};

/// The one split of a log.
pub(super) const SPLIT: &str = "log";

/// What is read of a log.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) log: Arc<StreamLog>,
    /// The columns, of the stream's.
    pub(super) projection: Vec<usize>,
    pub(super) schema: SchemaRef,
    /// For one who wants to know where its epochs end.
    pub(super) position: Option<Position>,
}

impl Reading {
    /// Whether one commit, or all of history, is read in an epoch.
    pub(super) fn in_groups(&self) -> bool {
        self.log.is_changelog() || self.position.is_some()
    }
}

/// Where to begin, and what has been handed out to who began there.
#[derive(Clone)]
pub(super) struct Position {
    pub(super) log: Arc<StreamLog>,
    pub(super) begin: Begin,
    pub(super) state: Arc<Mutex<Handout>>,
}

impl Standing for Position {
    fn incarnation(&self) -> String {
        self.log.job()
    }

    fn stands_behind(&self) -> Option<u64> {
        let (last, rows) = self.log.last_epoch();
        Some(self.state.lock().take_end(last, rows)).filter(|epoch| *epoch > 0)
    }

    fn ahead(&self) -> u64 {
        self.log.last_epoch().1.saturating_sub(self.state.lock().next)
    }
}

/// See the module's text.
pub(super) struct Following {
    log: Arc<StreamLog>,
    reading: Reading,
    in_groups: bool,
    state: Arc<Mutex<Handout>>,
    admitted: tokio::sync::Notify,
    reader: Option<Follower>,
    /// Somebody waits for what is made of the rows.
    awaited: AtomicBool,
    /// The rows of the log that are committed by who reads them.
    committed: AtomicU64,
}

/// Who reads.
#[derive(Debug)]
struct Follower {
    name: String,
    /// Whether it keeps what it has read.
    durable: bool,
}

impl Following {
    /// Lets the reader that `opening` names begin where it was told to, or go on behind what it has consumed.
    pub(super) async fn open(reading: Reading, opening: Opening) -> Result<Self> {
        let Opening { reader, consumed, state, .. } = opening;
        let following = Following::new(reading, reader);
        state.map_or(Ok(()), |state| following.check_same(state))?;
        match &following.reading.position {
            Some(position) => following.start_at(&position.begin).await?,
            None => following.start(&consumed).await?,
        }
        Ok(following)
    }

    fn new(reading: Reading, reader: Option<ReadBy>) -> Self {
        let state = reading.position.as_ref().map(|position| position.state.clone()).unwrap_or_default();
        let reader = reader.map(|ReadBy { stream, place, durable }| {
            let name = follower(&stream, place);
            // There may be several of a name at a time, at different places in memory.
            let name = if durable { name } else { format!("{name}@{:p}", Arc::as_ptr(&state)) };
            Follower { name, durable }
        });
        Following {
            log: reading.log.clone(),
            in_groups: reading.in_groups(),
            reading,
            state,
            admitted: tokio::sync::Notify::new(),
            reader,
            awaited: AtomicBool::new(false),
            committed: AtomicU64::new(0),
        }
    }

    /// Goes on behind what was `consumed`.
    async fn start(&self, consumed: &Offsets) -> Result<()> {
        let reads = consumed.splits.get(SPLIT);
        let end = reads.and_then(|r| r.last()).map_or(0, |r| r.end);
        let mut gaps = consumed.gaps(SPLIT, 0..end);
        gaps.reverse();
        let needed = if end > 0 { gaps.last().map_or(end, |gap| gap.start) } else { 0 };
        let (hold, base) = self.admitted_to(end > 0, needed).await?;
        let first = base.map(|file| Arc::new(FirstBase { file, _hold: hold }));
        *self.state.lock() = Handout { gaps, next: end, group_end: end, first, ..Handout::default() };
        self.admit();
        Ok(())
    }

    /// Errors where another stream was read under this name.
    fn check_same(&self, state: serde_json::Value) -> Result<()> {
        let (read, job, name) = (serde_json::from_value::<Followed>(state)?, self.log.job(), self.log.name());
        if read.job == job || job.is_empty() {
            return Ok(());
        }
        Err(Error::data(format!("stream \"{name}\" is not the one that was read, but was made anew")).with_hint(
            "Make the reader anew, too, with CREATE OR REPLACE STREAM … AS … (SHOW CREATE STREAM has the query).",
        ))
    }

    /// The next unit that can be had without waiting; `Err(())` at the end of everything.
    fn poll_unit(&self) -> std::result::Result<Option<Unit>, ()> {
        let mut s = self.state.lock();
        let unit = self.find_unit(&mut s)?;
        if let Some(unit) = unit.as_ref().filter(|_| !self.in_groups) {
            *s.open.entry(unit.start).or_default() += 1;
        }
        Ok(unit)
    }

    fn find_unit(&self, s: &mut Handout) -> std::result::Result<Option<Unit>, ()> {
        let snapshot = self.log.snapshot();
        let unit = |start, end| Unit { split: SPLIT.into(), start, end };
        if let Some(gap) = s.gaps.pop() {
            return Ok(Some(unit(gap.start, gap.end)));
        }
        let limit = if self.in_groups { s.group_end.min(snapshot.rows) } else { snapshot.rows };
        if s.next < limit {
            let start = s.next;
            let end = unit_end(start, limit, &snapshot.files, s.first.as_deref());
            s.next = end;
            return Ok(Some(unit(start, end)));
        }
        let all = s.next >= snapshot.rows;
        // Time may move without rows: a unit without rows says so.
        if all && snapshot.watermark > EventTime::MIN && s.told.is_none_or(|t| t < snapshot.watermark) {
            s.told = Some(snapshot.watermark);
            return Ok(Some(unit(s.next, s.next)));
        }
        if all && snapshot.end { Err(()) } else { Ok(None) }
    }

    /// Opens the next group, if the present one has been handed out and no epoch is being cut.
    fn admit(&self) {
        let mut s = self.state.lock();
        if !s.cutting
            && s.next >= s.group_end
            // A commit that has gone into the base does not end within it.
            && let Some(group) = self.group_after(s.next.max(first_end(&s).saturating_sub(1)))
        {
            let next = s.next;
            (s.group_end, s.group_epoch) = (group.end, group.epoch);
            drop(s);
            self.admitted.notify_waiters();
            self.follow_if(false, next);
        }
    }

    /// The end of the group that begins with row `at`.
    fn group_after(&self, at: u64) -> Option<Boundary> {
        match self.reading.position.as_ref().map(|position| &position.begin) {
            None | Some(Begin::Content) => self.log.next_boundary(at),
            Some(Begin::History | Begin::Behind { .. }) => self.log.end_after(at),
        }
    }

    /// How many rows the reader has that begins where it was told to.
    async fn begins_behind(&self, begin: &Begin) -> Result<u64> {
        let Begin::Behind { epoch, incarnation } = begin else { return Ok(0) };
        let name = self.log.name();
        if incarnation.as_ref().is_some_and(|of| *of != self.log.job()) {
            return Err(Error::invalid(format!("stream \"{name}\" is not the one of that epoch, but was made anew"))
                .with_hint("Begin again: leave SINCE EPOCH out, or write WITH SNAPSHOT in its place."));
        }
        self.log.rows_upto(*epoch).await
    }

    /// Lets the reader begin, or go on behind row `rows`.
    async fn admitted_to(&self, goes_on: bool, rows: u64) -> Result<(Hold, Option<FileEntry>)> {
        let mut commits = self.log.watch();
        loop {
            commits.mark_unchanged();
            let reader = self.reader.as_ref().map(|r| &*r.name);
            match self.log.begin(reader, goes_on, rows)? {
                Some(begun) => return Ok(begun),
                None => commits.changed().await.map_err(|_| Error::internal("the log has gone"))?,
            }
        }
    }

    /// Starts where it was told to.
    async fn start_at(&self, begin: &Begin) -> Result<()> {
        let _hold = self.log.hold();
        let goes_on = matches!(begin, Begin::Behind { .. });
        let next = self.begins_behind(begin).await?;
        let (hold, base) = self.admitted_to(goes_on, next).await.map_err(|e| match begin {
            // History that has gone meanwhile.
            Begin::Behind { epoch, .. } if e.kind() == ErrorKind::Data => {
                self.log.epoch_gone(*epoch, self.log.oldest_epoch())
            }
            _ => e,
        })?;
        let first = base.map(|file| Arc::new(FirstBase { file, _hold: hold }));
        let mut handout = Handout { next, group_end: next, skipped: next, first, ..Handout::default() };
        // So that the job knows of no gap, and hears the watermark there.
        handout.gaps.extend((next > 0).then_some(0..next));
        match begin {
            Begin::Behind { epoch, .. } => handout.group_epoch = *epoch,
            Begin::Content => (handout.group_epoch, handout.group_end) = self.log.last_epoch(),
            Begin::History => {}
        }
        *self.state.lock() = handout;
        self.admit();
        Ok(())
    }

    /// Tells the log what is needed, if the reader is `durable` or not.
    fn follow_if(&self, durable: bool, rows: u64) {
        if let Some(reader) = self.reader.as_ref().filter(|r| r.durable == durable) {
            self.log.follow(&reader.name, rows);
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.await_rows(false);
        if let Some(reader) = self.reader.as_ref().filter(|r| !r.durable) {
            self.log.unfollow(&reader.name);
        }
    }
}

/// The stream of a position.
#[derive(Debug, Serialize, Deserialize)]
struct Followed {
    stream: String,
    job: String,
}

/// Which streams' logs the sources of a job follow, as (place of the source, stream), by the states of its sources.
pub fn followed(states: &BTreeMap<usize, serde_json::Value>) -> impl Iterator<Item = (usize, String)> {
    let stream = |state: &serde_json::Value| serde_json::from_value::<Followed>(state.clone()).ok().map(|f| f.stream);
    states.iter().filter_map(move |(place, state)| Some((*place, stream(state)?)))
}

/// The name by which the source at `place` of the job of `reader` follows a log; with `""` the beginning of all its names.
pub fn follower(reader: &str, place: impl Display) -> String {
    format!("{reader}#{place}")
}

#[async_trait]
impl Intake for Following {
    fn splits(&self) -> Vec<Split> {
        let snapshot = self.log.snapshot();
        let end = snapshot.end.then_some(snapshot.rows);
        vec![Split { name: SPLIT.into(), end, min_time: None, holds: true }]
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        let mut commits = self.log.watch();
        loop {
            commits.mark_unchanged();
            let admitted = self.admitted.notified();
            tokio::pin!(admitted);
            admitted.as_mut().enable();
            self.log.check_there()?;
            match self.poll_unit() {
                Err(()) => return Ok(None),
                Ok(Some(unit)) => return Ok(Some(unit)),
                Ok(None) => {}
            }
            // A group that was empty when the last epoch was cut opens with the next commit; while an epoch is
            // being cut, with its end.
            tokio::select! {
                () = admitted => {}
                changed = commits.changed() => {
                    if changed.is_err() {
                        return Ok(None);
                    }
                    if self.in_groups {
                        self.admit();
                    }
                }
            }
        }
    }

    fn try_unit(&self) -> Option<Unit> {
        let rows = self.log.snapshot().rows;
        let mut s = self.state.lock();
        s.cutting = true;
        if let Some(gap) = s.gaps.pop() {
            return Some(Unit { split: SPLIT.into(), start: gap.start, end: gap.end });
        }
        let limit = s.group_end.min(rows);
        if s.next >= limit {
            return None;
        }
        let start = s.next;
        s.next = unit_end(start, limit, &self.log.snapshot().files, s.first.as_deref());
        Some(Unit { split: SPLIT.into(), start, end: s.next })
    }

    fn epoch_cut(&self) {
        let least = {
            let mut s = self.state.lock();
            s.cutting = false;
            if self.reading.position.is_some() {
                let (last, rows) = self.log.last_epoch();
                s.note_end(last, rows);
            }
            s.least()
        };
        match self.in_groups {
            true => self.admit(),
            false => self.follow_if(false, least),
        }
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    async fn state(&self) -> Result<serde_json::Value> {
        let followed = Followed { stream: self.log.name().to_owned(), job: self.log.job() };
        Ok(if followed.job.is_empty() { serde_json::Value::Null } else { serde_json::to_value(followed)? })
    }

    async fn committed(&self, offsets: &Offsets) -> Result<()> {
        let rows = offsets.prefix(SPLIT);
        self.committed.store(rows, Ordering::Relaxed);
        let mut s = self.state.lock();
        if rows > 0 && rows >= first_end(&s) {
            s.first = None;
            drop(s);
            self.follow_if(true, rows);
        }
        Ok(())
    }

    fn acknowledged(&self) -> Vec<Reach> {
        let snapshot = self.log.snapshot();
        let watermark = Some(snapshot.watermark).filter(|w| *w > EventTime::MIN);
        vec![Reach { split: SPLIT.into(), end: snapshot.rows, watermark }]
    }

    fn lag(&self) -> Option<Lag> {
        let snapshot = self.log.snapshot();
        let committed = self.committed.load(Ordering::Relaxed);
        let unread: Vec<_> = snapshot.files.iter().filter(|f| f.end() > committed).collect();
        let bytes = unread.iter().map(|f| {
            let (all, left) = (f.end() - f.start, f.end() - f.start.max(committed));
            (u128::from(f.bytes) * u128::from(left) / u128::from(all.max(1))) as u64
        });
        let since = unread.first().map(|f| f.at).filter(|at| *at > 0);
        let time = since.map_or(0, |at| now().saturating_sub(at).max(0));
        Some(Lag {
            rows: Some(snapshot.rows.saturating_sub(committed)),
            bytes: Some(bytes.sum()),
            time: Duration::from_micros(time as u64),
            link: None,
        })
    }

    fn await_rows(&self, awaited: bool) {
        if self.awaited.swap(awaited, Ordering::Relaxed) != awaited {
            self.log.await_rows(awaited);
        }
    }
}

#[async_trait]
impl Readers for Following {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let (first, skipped) = {
            let s = self.state.lock();
            (s.first.clone().filter(|first| unit.start < first.file.end()), unit.start < s.skipped)
        };
        // What is in memory has other rows under the numbers of a base.
        let in_memory = match (&first, skipped) {
            (_, true) => Some(vec![]),
            (Some(_), false) => None,
            (None, false) => self.log.tail(unit.start, unit.end),
        };
        let rows = match in_memory {
            Some(batches) if unit.start < unit.end => Rows::Memory(batches.into_iter()),
            _ if unit.start < unit.end => Rows::Closed,
            _ => Rows::Memory(vec![].into_iter()),
        };
        let store = self.log.store().patient();
        store.wait_long(true);
        Ok(Box::new(Reader {
            log: self.log.clone(),
            store,
            projection: self.reading.projection.clone(),
            schema: self.reading.schema.clone(),
            first,
            at: unit.start,
            end: unit.end,
            rows,
            said: false,
            _open: Open { state: self.state.clone(), start: unit.start },
        }))
    }
}
