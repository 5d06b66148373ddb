//! The units of a source that is read on this node and handed out on the coordinator's.
//!
//! Whoever asks for one asks for as many more as there are tasks, so that none waits for the way there and back; a node that
//! reads slowly asks seldom.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::words::{Said, sent};
use crate::connector::{Intake, Split, Unit};
use crate::error::Result;
use crate::runtime::channel::stopping;
use crate::runtime::idle::Waits;

/// See the module's text.
pub(super) struct Units {
    source: usize,
    /// How many tasks read it here.
    tasks: usize,
    say: mpsc::Sender<Bytes>,
    state: Mutex<State>,
    came: Notify,
}

#[derive(Default)]
struct State {
    here: VecDeque<Unit>,
    /// Asked for, and not here yet.
    asked: usize,
    /// How many have come in all.
    come: u64,
    over: bool,
    ended: Vec<(Unit, u64)>,
}

impl Units {
    /// Of `source`, which so many tasks read here, asked for by `say`.
    pub(super) fn new(source: usize, tasks: usize, say: mpsc::Sender<Bytes>) -> Self {
        Units { source, tasks, say, state: Mutex::default(), came: Notify::new() }
    }

    /// A unit has come.
    pub(super) fn take(&self, unit: Unit) {
        let mut state = self.state.lock();
        state.asked = state.asked.saturating_sub(1);
        state.come += 1;
        state.here.push_back(unit);
        drop(state);
        self.came.notify_waiters();
    }

    /// No more will come.
    pub(super) fn end(&self) {
        self.state.lock().over = true;
        self.came.notify_waiters();
    }

    /// How many have come, and those that nobody has begun to read: their splits are not idle.
    pub(super) fn waiting(&self) -> (u64, Vec<Waits>) {
        let state = self.state.lock();
        let waits = |unit: &Unit| Waits { on: Some(unit.split.clone()), time: Duration::ZERO };
        (state.come, state.here.iter().map(waits).collect())
    }

    /// The units read to an end that was not known, since the last call.
    pub(super) fn take_ended(&self) -> Vec<(Unit, u64)> {
        std::mem::take(&mut self.state.lock().ended)
    }

    /// Asks for one, and for as many more as there should be here.
    async fn ask(&self) -> Result<()> {
        let place = self.say.reserve().await.map_err(|_| stopping())?;
        let mut state = self.state.lock();
        let units = (self.tasks + 1).saturating_sub(state.asked + state.here.len());
        if units > 0 && !state.over {
            place.send(sent(&Said::Asks { source: self.source, units })?);
            state.asked += units;
        }
        Ok(())
    }
}

#[async_trait]
impl Intake for Units {
    /// Only of sources whose tasks ask for this is it known, and none of them is read here.
    fn splits(&self) -> Vec<Split> {
        vec![]
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            // Before one is taken: nothing may be waited for afterwards.
            self.ask().await?;
            {
                let mut state = self.state.lock();
                if let Some(unit) = state.here.pop_front() {
                    return Ok(Some(unit));
                }
                if state.over {
                    return Ok(None);
                }
            }
            came.await;
        }
    }

    fn ended(&self, unit: &Unit, at: u64) {
        self.state.lock().ended.push((unit.clone(), at));
    }
}

/// All that is read here, by source.
pub(super) type AllUnits = Vec<Option<Arc<Units>>>;
