//! Whether another side is there, as `SHOW JOBS` tells it.

use std::time::Instant;

use millstream_engine::connector::lag::Link;
use parking_lot::Mutex;

/// The state of a way to another side. It begins cut, since nobody has answered yet.
pub(crate) struct LinkState {
    cut: Mutex<Option<(Instant, String)>>,
}

impl Default for LinkState {
    fn default() -> Self {
        LinkState { cut: Mutex::new(Some((Instant::now(), "it has not answered yet".to_owned()))) }
    }
}

impl LinkState {
    /// The other side is there.
    pub(crate) fn connected(&self) {
        *self.cut.lock() = None;
    }

    /// It is not, or still not; `why` has no secret in it.
    pub(crate) fn lost(&self, why: impl Into<String>) {
        let mut cut = self.cut.lock();
        let since = cut.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        *cut = Some((since, why.into()));
    }

    /// How it is now.
    pub(crate) fn now(&self) -> Link {
        match &*self.cut.lock() {
            None => Link::Connected,
            Some((since, why)) => Link::Cut { time: since.elapsed(), why: why.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_cut_since_it_was_lost_first() {
        let way = LinkState::default();
        assert!(matches!(way.now(), Link::Cut { .. }));
        way.connected();
        assert_eq!(way.now(), Link::Connected);
        way.lost("gone");
        let since = way.cut.lock().as_ref().map(|(since, _)| *since);
        way.lost("still gone");
        assert_eq!(way.cut.lock().as_ref().map(|(since, _)| *since), since);
        assert!(matches!(way.now(), Link::Cut { why, .. } if why == "still gone"));
    }
}
