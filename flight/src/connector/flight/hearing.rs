//! What is heard of the other side: whether it answers, and how many rows it says it has besides those that came.

use std::time::Instant;

use millstream_engine::connector::lag::Lag;
use parking_lot::Mutex;

use crate::connector::link::LinkState;

/// See the module's text.
#[derive(Default)]
pub(super) struct Hearing {
    pub(super) link: LinkState,
    said: Mutex<Said>,
}

/// What the other side has said.
#[derive(Default)]
struct Said {
    /// Rows that it has and that have not come, and since when there are any.
    ahead: Option<(u64, Instant)>,
    /// All that came: rows and their bytes.
    came: (u64, u64),
}

impl Hearing {
    /// So many rows came, and `ahead` more are there.
    pub(super) fn heard(&self, rows: u64, bytes: u64, ahead: u64) {
        let mut said = self.said.lock();
        said.came = (said.came.0 + rows, said.came.1 + bytes);
        let since = said.ahead.map_or_else(Instant::now, |(_, since)| since);
        said.ahead = (ahead > 0).then_some((ahead, since));
    }

    /// All of the lag, where `here` is that of what came. Rows that have not come count with the mean bytes of those that did.
    pub(super) fn lag(&self, here: Lag) -> Lag {
        let said = self.said.lock();
        let (ahead, time) = said.ahead.map_or_else(Default::default, |(rows, since)| (rows, since.elapsed()));
        let bytes = match said.came {
            (0, _) => 0,
            (rows, bytes) => (u128::from(ahead) * u128::from(bytes) / u128::from(rows)) as u64,
        };
        let there = Lag { rows: Some(ahead), bytes: Some(bytes), time, link: None };
        here.with(there).with(self.link.lag())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millstream_engine::connector::lag::Link;

    use super::*;

    #[test]
    fn rows_that_are_there_count_like_those_that_came() {
        let hearing = Hearing::default();
        assert_eq!(hearing.lag(Lag::default()).link, None, "nobody has answered");
        hearing.link.connected();
        let here = Lag { rows: Some(2), bytes: Some(20), ..Lag::default() };
        assert_eq!(hearing.lag(here.clone()), Lag { link: Some(Link::Connected), ..here.clone() });
        hearing.heard(10, 120, 5);
        let lag = hearing.lag(here.clone());
        assert_eq!((lag.rows, lag.bytes), (Some(7), Some(80)));
        assert!(lag.time > Duration::ZERO);
        hearing.heard(5, 60, 0);
        hearing.link.lost("gone");
        let lag = hearing.lag(here);
        assert_eq!((lag.rows, lag.bytes), (Some(2), Some(20)));
        assert!(lag.time > Duration::ZERO && matches!(lag.link, Some(Link::Cut { .. })));
    }
}
