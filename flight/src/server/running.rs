//! Running queries: each can be cancelled by its ticket's id, and all end when the server shuts down.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use millstream_sql::Principal;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tonic::Status;

/// The queries that run now.
#[derive(Clone)]
pub(crate) struct Running {
    runs: Arc<Mutex<Runs>>,
    ending: Ending,
}

/// When a server ends, and what those are told whose queries end with it.
#[derive(Clone)]
pub(crate) struct Ending {
    /// Turns true.
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) told: Arc<dyn Fn() -> Status + Send + Sync>,
}

impl Ending {
    /// Of a server that is told to end.
    pub(crate) fn of(stopped: watch::Receiver<bool>) -> Self {
        Ending { stopped, told: Arc::new(|| Status::unavailable("the server is shutting down")) }
    }
}

#[derive(Default)]
struct Runs {
    next: u64,
    /// By run, with the id of its ticket and who redeemed it: a ticket may be redeemed several times.
    cancels: HashMap<u64, (String, Principal, oneshot::Sender<()>)>,
}

/// One run of a query, known until it is dropped.
pub(crate) struct Run {
    number: u64,
    runs: Arc<Mutex<Runs>>,
    /// Completes when the run must end, with what to tell the client.
    stop: BoxFuture<'static, Status>,
}

impl Running {
    /// Keeps track of runs until the `ending`.
    pub(crate) fn new(ending: Ending) -> Self {
        Running { runs: Arc::default(), ending }
    }

    /// Begins a run of the ticket `id` for `who`.
    pub(crate) fn begin(&self, id: &str, who: &Principal) -> Run {
        let (cancel, cancelled) = oneshot::channel();
        let mut runs = self.runs.lock();
        let number = runs.next;
        runs.next += 1;
        runs.cancels.insert(number, (id.to_owned(), who.clone(), cancel));
        let Ending { mut stopped, told } = self.ending.clone();
        let stop = async move {
            tokio::select! {
                Ok(()) = cancelled => Status::cancelled("the query was cancelled"),
                // An error means that the server is gone already.
                _ = stopped.wait_for(|stopped| *stopped) => told(),
            }
        };
        Run { number, runs: Arc::clone(&self.runs), stop: stop.boxed() }
    }

    /// Cancels all runs of the ticket `id` for those whom `may` lets; says whether there were any.
    pub(crate) fn cancel(&self, id: &str, may: impl Fn(&Principal) -> bool) -> bool {
        let mut runs = self.runs.lock();
        let numbers: Vec<u64> =
            runs.cancels.iter().filter(|(_, (i, who, _))| i == id && may(who)).map(|(n, _)| *n).collect();
        for number in &numbers {
            if let Some((.., cancel)) = runs.cancels.remove(number) {
                // A run that is just ending does not listen any more.
                let _ = cancel.send(());
            }
        }
        !numbers.is_empty()
    }
}

impl Run {
    /// Waits for `work`, unless the run is stopped first.
    pub(crate) async fn until_stopped<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Status> {
        tokio::select! {
            status = &mut self.stop => Err(status),
            done = work => Ok(done),
        }
    }

    /// `items` until they end or the run is stopped; then they are dropped at once, with what feeds them.
    pub(crate) fn over<T: 'static>(self, items: BoxStream<'static, Result<T, Status>>) -> RunStream<T> {
        RunStream { running: Some((self, items)) }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.runs.lock().cancels.remove(&self.number);
    }
}

/// See [`Run::over`].
pub(crate) struct RunStream<T> {
    running: Option<(Run, BoxStream<'static, Result<T, Status>>)>,
}

impl<T> Stream for RunStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some((run, items)) = &mut self.running else { return Poll::Ready(None) };
        if let Poll::Ready(status) = run.stop.poll_unpin(cx) {
            self.running = None;
            return Poll::Ready(Some(Err(status)));
        }
        let next = items.poll_next_unpin(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.running = None;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tonic::Code;

    /// Endless items that note when they are dropped.
    fn endless() -> (BoxStream<'static, Result<u32, Status>>, Arc<AtomicBool>) {
        struct Noted(Arc<AtomicBool>);
        impl Drop for Noted {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let dropped = Arc::new(AtomicBool::new(false));
        let noted = Noted(Arc::clone(&dropped));
        let first = stream::once(async { Ok(1) });
        let rest = stream::pending().map(move |item| {
            let _ = &noted;
            item
        });
        (first.chain(rest).boxed(), dropped)
    }

    #[tokio::test]
    async fn cancelling_ends_the_runs_of_that_ticket_only() {
        let (_stop, stopped) = watch::channel(false);
        let running = Running::new(Ending::of(stopped));
        let (items, dropped) = endless();
        let mut a = running.begin("a", &Principal::owner()).over(items);
        let (items, _) = endless();
        let mut b = running.begin("b", &Principal::owner()).over(items);
        assert_eq!(a.next().await.unwrap().unwrap(), 1);
        assert!(running.cancel("a", |_| true));
        assert_eq!(a.next().await.unwrap().unwrap_err().code(), Code::Cancelled);
        assert!(dropped.load(Ordering::Relaxed), "the query is dropped before the client lets go of the stream");
        assert!(a.next().await.is_none());
        assert!(!running.cancel("a", |_| true));
        assert_eq!(b.next().await.unwrap().unwrap(), 1);
        assert!(b.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn shutting_down_ends_all() {
        let (stop, stopped) = watch::channel(false);
        let running = Running::new(Ending::of(stopped));
        let (items, _) = endless();
        let mut a = running.begin("a", &Principal::owner()).over(items);
        assert_eq!(a.next().await.unwrap().unwrap(), 1);
        stop.send(true).unwrap();
        assert_eq!(a.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        let late = running.begin("b", &Principal::owner()).until_stopped(std::future::pending::<()>()).await;
        assert_eq!(late.unwrap_err().code(), Code::Unavailable);
    }

    #[tokio::test]
    async fn a_dropped_run_is_forgotten() {
        let (_stop, stopped) = watch::channel(false);
        let running = Running::new(Ending::of(stopped));
        drop(running.begin("a", &Principal::owner()));
        assert!(!running.cancel("a", |_| true));
        let mut run = running.begin("b", &Principal::owner());
        assert_eq!(run.until_stopped(async { 5 }).await.unwrap(), 5);
    }
}
