//! How long is waited for a bucket that does not answer.
//!
//! What may pass (a broken connection, a time that ran out, an answer that says "later") is tried again, with pauses that grow. Most
//! give up after [`LONGEST`]. What a running job writes waits as long as its job runs: a store that is away holds
//! commits up and ends nothing. A read or a write that has failed for good says so at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::Error;
use parking_lot::Mutex;
use tokio::sync::watch;

/// How long is tried, where nobody says otherwise.
const LONGEST: Duration = Duration::from_secs(20);
/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

/// That a store does not answer.
#[derive(Clone, Debug)]
pub struct Away {
    /// Since when.
    pub since: Instant,
    /// What came of asking it last.
    pub why: String,
}

/// Whether a store answers, as all see it that use it.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Away>>);

impl Health {
    pub(super) fn away(&self) -> Option<Away> {
        self.0.lock().clone()
    }

    fn answers(&self) {
        if let Some(away) = self.0.lock().take() {
            tracing::info!(after = ?away.since.elapsed(), "the store answers again");
        }
    }

    /// Gives since when nothing was answered.
    fn fails(&self, since: Instant, e: &Error) -> Instant {
        let mut away = self.0.lock();
        if away.is_none() {
            tracing::warn!(error = %e, "the store does not answer; it is asked again");
        }
        let since = away.as_ref().map_or(since, |away| away.since);
        *away = Some(Away { since, why: innermost(e) });
        since
    }
}

/// The cause, without the words of the layers above.
fn innermost(e: &(dyn std::error::Error + 'static)) -> String {
    let mut at = e;
    while let Some(inner) = at.source() {
        at = inner;
    }
    at.to_string()
}

/// For how long one that uses the store waits for it.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    longest: Duration,
    endless: Option<Arc<watch::Sender<bool>>>,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { longest: LONGEST, endless: None }
    }
}

impl Patience {
    /// One that can be made endless.
    pub(super) fn of_a_job(endless: bool) -> Self {
        Patience { endless: Some(Arc::new(watch::Sender::new(endless))), ..Patience::default() }
    }

    pub(super) fn set_endless(&self, endless: bool) {
        if let Some(is_endless) = &self.endless {
            is_endless.send_replace(endless);
        }
    }

    fn is_endless(&self) -> bool {
        self.endless.as_ref().is_some_and(|endless| *endless.borrow())
    }

    /// Sleeps, unless patience ends in between.
    async fn pause(&self, time: Duration) {
        let ends = async {
            match &self.endless {
                // The sender lives as long as this.
                Some(endless) if self.is_endless() => drop(endless.subscribe().wait_for(|endless| !endless).await),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = ends => {}
        }
    }

    /// Waits for `what`, or as long as patience lasts.
    pub(super) async fn wait<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let ends = async {
            loop {
                self.pause(self.longest).await;
                if !self.is_endless() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            done = what => Some(done),
            () = ends => None,
        }
    }

    /// Asks until there is an answer, or as long as patience lasts.
    pub(super) async fn ask<T, F>(&self, health: &Health, ask: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (mut began, mut pause) = (None, PAUSES.0);
        loop {
            match ask().await {
                Err(e) if may_pass(&e) => {
                    let began = *began.get_or_insert_with(Instant::now);
                    // Where others have waited already, as long as a job may, once is enough.
                    let since = health.fails(began, &e).min(began);
                    if !self.is_endless() && since.elapsed() >= self.longest {
                        return Err(e);
                    }
                    self.pause(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                answer => {
                    health.answers();
                    return answer;
                }
            }
        }
    }
}

/// Whether the same may be answered otherwise soon.
pub(super) fn may_pass(e: &Error) -> bool {
    // How the clients of object stores say the status of an answer; anything else is a fault on the way.
    const STATUS: &str = "status code: ";
    let Error::Generic { source, .. } = e else { return matches!(e, Error::JoinError { .. }) };
    let text = format!("{source} {}", innermost(source.as_ref()));
    let status = text.split_once(STATUS).map(|(_, status)| status.chars().take(3).collect::<String>());
    match status.as_deref() {
        Some("408" | "429") => true,
        Some(status) => status.starts_with('5'),
        None => !["redirect", "builder error", "PutMode::Create"].iter().any(|never| text.contains(never)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn what_may_pass_is_told_from_what_does_not() {
        for (text, passes) in [
            ("Server returned non-2xx status code: 503 Service Unavailable: SlowDown", true),
            ("Server returned non-2xx status code: 429 Too Many Requests: ", true),
            ("Server returned non-2xx status code: 400 Bad Request: ", false),
            ("error sending request", true),
            ("operation timed out", true),
            ("Received redirect without LOCATION, this normally indicates an incorrectly configured region", false),
        ] {
            assert_eq!(may_pass(&generic(text)), passes, "{text}");
        }
        let not_found = Error::NotFound { path: "a".to_owned(), source: "not there".into() };
        assert!(!may_pass(&not_found));
    }

    #[tokio::test]
    async fn a_job_waits_until_it_ends_and_others_give_up() {
        let health = Arc::new(Health::default());
        let job = Patience { longest: Duration::from_millis(200), ..Patience::of_a_job(true) };
        let other = Patience { endless: None, ..job.clone() };
        let asking = |patience: Patience| {
            let health = health.clone();
            tokio::spawn(async move { patience.ask(&health, || async { Err::<(), _>(generic("refused")) }).await })
        };
        let waits = asking(job.clone());
        asking(other.clone()).await.expect("no panic").expect_err("gives up");
        assert!(!waits.is_finished());
        assert!(health.away().is_some_and(|away| away.why == "refused"));
        job.set_endless(false);
        waits.await.expect("no panic").expect_err("gives up as well");
        other.ask(&health, || async { Ok(()) }).await.expect("answers");
        assert!(health.away().is_none());
    }
}
