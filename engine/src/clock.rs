//! Where jobs take the time from: the machine's clock, or a hand that moves it.
//!
//! All that a job does because time has passed (epochs, checkpoints, idle splits) goes by its clock, so that a test, or a
//! simulation of several nodes, can say when that is. How long work took is measured by the machine's clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A clock. Its clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    hand: Option<Arc<Hand>>,
}

#[derive(Debug)]
struct Hand {
    start: Instant,
    passed: watch::Sender<Duration>,
}

impl Clock {
    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn by_hand() -> Self {
        Clock { hand: Some(Arc::new(Hand { start: Instant::now(), passed: watch::Sender::new(Duration::ZERO) })) }
    }

    /// What it shows.
    pub fn now(&self) -> Instant {
        match &self.hand {
            None => Instant::now(),
            Some(hand) => hand.start + *hand.passed.borrow(),
        }
    }

    /// Microseconds since 1970; one that goes by hand begins there.
    pub fn wall(&self) -> i64 {
        match &self.hand {
            None => crate::time::now(),
            Some(hand) => i64::try_from(hand.passed.borrow().as_micros()).unwrap_or(i64::MAX),
        }
    }

    /// How long `since` was ago.
    pub fn since(&self, since: Instant) -> Duration {
        self.now().saturating_duration_since(since)
    }

    /// Waits until it shows `at`.
    pub async fn sleep_until(&self, at: Instant) {
        match &self.hand {
            None => tokio::time::sleep_until(at.into()).await,
            Some(hand) => {
                // The sender lives as long as this.
                let _ = hand.passed.subscribe().wait_for(|passed| hand.start + *passed >= at).await;
            }
        }
    }

    /// Moves a clock that goes by hand; does nothing to another.
    pub fn advance(&self, by: Duration) {
        if let Some(hand) = &self.hand {
            hand.passed.send_modify(|passed| *passed += by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_passes_as_the_hand_moves() {
        let clock = Clock::by_hand();
        let start = clock.now();
        let minute = Duration::from_secs(60);
        let (other, waited) = (clock.clone(), start + minute);
        let waiting = tokio::spawn(async move { other.sleep_until(waited).await });
        for _ in 0..3 {
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            clock.advance(minute / 4);
        }
        assert_eq!(clock.since(start), minute / 4 * 3);
        clock.advance(minute / 4);
        waiting.await.expect("no panic");
        clock.sleep_until(start).await;
    }
}
