//! The blocking half of a reader, one step ahead of the task that takes what it reads.

use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{Error, Result};

/// Runs a blocking step on another thread while the outcome of the one before is worked on. At most
/// one outcome waits, so a slow taker holds the reader back.
pub(crate) struct Ahead<S, T> {
    running: Option<JoinHandle<(S, Result<Option<T>>)>>,
    step: fn(&mut S) -> Result<Option<T>>,
}

impl<S: Send + 'static, T: Send + 'static> Ahead<S, T> {
    /// Starts the first step on `state`.
    pub(crate) fn new(state: S, step: fn(&mut S) -> Result<Option<T>>) -> Self {
        Ahead { running: Some(run(state, step)), step }
    }

    /// The next outcome; `None` when there is none any more. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<T>> {
        let Some(handle) = &mut self.running else { return Ok(None) };
        let outcome = handle.await;
        self.running = None;
        let (state, read) =
            outcome.map_err(|e| Error::internal(format!("a reading thread ended early: {e}")).with_source(e))?;
        if matches!(read, Ok(Some(_))) {
            self.running = Some(run(state, self.step));
        }
        read
    }
}

fn run<S: Send + 'static, T: Send + 'static>(
    mut state: S,
    step: fn(&mut S) -> Result<Option<T>>,
) -> JoinHandle<(S, Result<Option<T>>)> {
    spawn_blocking(move || {
        let read = step(&mut state);
        (state, read)
    })
}
