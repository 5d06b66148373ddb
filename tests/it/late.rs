//! Which rows are late is a matter of a microsecond: compared, row by row, with a model that shares nothing with the
//! engine, over rows at the bounds of windows and a microsecond to either side.

use millstream_tests::Result;
use millstream_tests::case::query;
use millstream_tests::late::Closing;
use millstream_tests::run::{Failures, Trial, check_one, seeds};
use millstream_tests::watch::Watchdog;

const fn closing(every: i64, size: i64, offset: i64) -> Closing {
    Closing { every: every * 1_000_000, size: size * 1_000_000, offset: offset * 1_000_000 }
}

const TEN: Closing = closing(10, 10, 0);

/// What is behind the watermark is late.
const BEHIND: Closing = Closing { every: 1, size: 1, offset: 0 };

/// What the answer is over but the stream is not: a row does not count in the windows that had closed when it came.
const SEEN: &str = "WHERE seen < window_end ";

const CASES: &[(&str, &[Closing])] = &[
    ("SELECT window_end, count(*) AS n FROM TUMBLE(tardy, ts, INTERVAL '10 seconds') GROUP BY window_end", &[TEN]),
    (
        "SELECT k, window_start, window_end, count(*) AS n, max(id) AS m
         FROM HOP(tardy, ts, INTERVAL '5 seconds', INTERVAL '15 seconds') WHERE seen < window_end GROUP BY k, window_start, window_end",
        &[closing(5, 15, 0)],
    ),
    (
        "SELECT window_start, window_end, sum(id) AS s
         FROM HOP(tardy, ts, INTERVAL '4 seconds', INTERVAL '10 seconds', INTERVAL '1 second')
         WHERE seen < window_end GROUP BY window_start, window_end",
        &[closing(4, 10, 1)],
    ),
    (
        "SELECT window_start, window_end, count(DISTINCT k) AS n
         FROM CUMULATE(tardy, ts, INTERVAL '5 seconds', INTERVAL '20 seconds') WHERE seen < window_end GROUP BY window_start, window_end",
        &[closing(20, 20, 0)],
    ),
    (
        "SELECT k, window_end, count(*) AS n FROM TUMBLE(tardy, ts, INTERVAL '10 seconds', INTERVAL '3 seconds')
         GROUP BY k, window_end",
        &[closing(10, 10, 3)],
    ),
    ("SELECT date_bin(INTERVAL '15 seconds', ts) AS t, count(*) AS n FROM tardy GROUP BY 1", &[closing(15, 15, 0)]),
    ("SELECT date_trunc('minute', ts) AS t, count(*) AS n FROM tardy GROUP BY 1", &[closing(60, 60, 0)]),
    ("SELECT ts, count(*) AS n FROM tardy GROUP BY ts", &[BEHIND]),
    (
        "SELECT window_end, count(*) AS n FROM TUMBLE(tardy, ts, INTERVAL '10 seconds') GROUP BY window_end UNION ALL
         SELECT window_end, count(*) AS n FROM HOP(tardy, ts, INTERVAL '10 seconds', INTERVAL '30 seconds') GROUP BY window_end",
        &[TEN, closing(10, 30, 0)],
    ),
    (
        "SELECT k, window_start, window_end, count(*) AS n FROM SESSION(tardy, ts, INTERVAL '3 seconds', PARTITION BY k)
         GROUP BY k, window_start, window_end",
        &[BEHIND],
    ),
    ("SELECT id, window_start, window_end FROM SESSION(tardy, ts, INTERVAL '2 seconds', max => INTERVAL '5 seconds')", &[BEHIND]),
    ("SELECT id, k, ts FROM tardy", &[]),
    ("SELECT k, count(*) AS n FROM tardy GROUP BY k", &[]),
    (
        "SELECT window_end, count(*) AS n FROM TUMBLE(tardy, ts, INTERVAL '10 seconds') GROUP BY window_end EMIT CHANGES",
        &[TEN],
    ),
];

#[test]
fn a_row_is_late_when_its_last_window_has_closed_and_not_before() -> Result<()> {
    let dog = Watchdog::start();
    let mut failures = Failures::default();
    'all: for (sql, closings) in CASES {
        let (expected, query) = (query(sql)?, query(&sql.replace(SEEN, ""))?);
        for seed in seeds(8) {
            dog.step(format!("{sql}\n  MILLSTREAM_SEED={seed}"));
            if let Err(e) = check_one(&Trial::new(&query, seed).expecting(&expected).closing(closings), query.emit) {
                if !failures.add(&format!("{sql}\n  MILLSTREAM_SEED={seed} fails: {e}")) {
                    break 'all;
                }
                break;
            }
        }
    }
    failures.told(CASES.len())
}
