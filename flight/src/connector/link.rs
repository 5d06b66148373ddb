//! Whether another side is there, as `SHOW JOBS` tells it.

use std::time::Instant;

use millstream_engine::connector::lag::{Lag, Link};
use parking_lot::Mutex;

/// The state of a way to another side. Until somebody has answered, or did not, nothing is known of it.
#[derive(Default)]
pub(crate) struct LinkState {
    state: Mutex<Option<State>>,
}

enum State {
    Connected,
    /// Since when, and what the last attempt came to.
    Cut(Instant, String),
}

impl LinkState {
    /// The other side is there.
    pub(crate) fn connected(&self) {
        *self.state.lock() = Some(State::Connected);
    }

    /// It is not, or still not; `why` has no secret in it.
    pub(crate) fn lost(&self, why: impl Into<String>) {
        let mut state = self.state.lock();
        let since = match &*state {
            Some(State::Cut(since, _)) => *since,
            _ => Instant::now(),
        };
        *state = Some(State::Cut(since, why.into()));
    }

    /// What it adds to the lag of a job.
    pub(crate) fn lag(&self) -> Lag {
        match &*self.state.lock() {
            None => Lag::default(),
            Some(State::Connected) => Lag { link: Some(Link::Connected), ..Lag::default() },
            Some(State::Cut(since, why)) => {
                let time = since.elapsed();
                Lag { time, link: Some(Link::Cut { time, why: why.clone() }), ..Lag::default() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_way_is_cut_since_it_was_lost_first() {
        let way = LinkState::default();
        assert_eq!(way.lag(), Lag::default());
        way.connected();
        assert_eq!(way.lag().link, Some(Link::Connected));
        way.lost("gone");
        let since = || match &*way.state.lock() {
            Some(State::Cut(since, _)) => Some(*since),
            _ => None,
        };
        let first = since();
        way.lost("still gone");
        assert!(first.is_some() && since() == first);
        let Lag { time, link: Some(Link::Cut { time: told, why }), .. } = way.lag() else { panic!("it is cut") };
        assert!(told == time && time > Duration::ZERO && why == "still gone");
    }
}
