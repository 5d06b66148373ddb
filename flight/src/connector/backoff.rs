//! How long to wait before somebody who did not answer is asked again.

use std::time::Duration;

use millstream_engine::error::Result;
use millstream_engine::token::token;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_millis(100);

/// Waits that double up to a longest one. Each is cut by chance to between a half and all of it, so that many who lost the
/// same server do not come back at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits of at most `longest`.
    pub(crate) fn new(longest: Duration) -> Self {
        Backoff { next: FIRST.min(longest), longest }
    }

    /// It went well: the next wait is the first one again.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST.min(self.longest);
    }

    /// How long to wait now.
    pub(crate) fn delay(&mut self) -> Result<Duration> {
        let (all, doubled) = (self.next, (self.next * 2).min(self.longest));
        self.next = doubled;
        let chance = u32::from_str_radix(token()?.get(..8).unwrap_or_default(), 16).unwrap_or_default();
        Ok(all.mul_f64(0.5 + f64::from(chance) / f64::from(u32::MAX) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_differ() {
        let longest = Duration::from_secs(1);
        let mut backoff = Backoff::new(longest);
        for all in [100, 200, 400, 800, 1000, 1000].map(Duration::from_millis) {
            let delay = backoff.delay().expect("random");
            assert!(delay >= all / 2 && delay <= all, "{delay:?} of {all:?}");
        }
        backoff.reset();
        assert!(backoff.delay().expect("random") <= FIRST);
        let some: std::collections::BTreeSet<_> =
            (0..20).map(|_| Backoff::new(longest).delay().expect("random")).collect();
        assert!(some.len() > 10);
    }
}
