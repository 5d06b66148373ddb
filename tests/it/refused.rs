//! What cannot run continuously is refused when it is planned, by the name of its clause and with a hint.

use millstream_tests::Result;
use millstream_tests::case::query;
use millstream_tests::planned::plan;
use millstream_tests::world::World;

const REFUSED: &[(&str, &str)] = &[
    ("SELECT b.id, u.x FROM bids b LEFT JOIN unnest(b.l) AS u(x) ON u.x > 1", "LATERAL"),
    ("SELECT * FROM generate_series(DATE '2024-01-01', DATE '2024-01-03', INTERVAL '1 day')", "whole numbers"),
    ("SELECT id, (SELECT k FROM clicks) FROM bids", "several rows"),
    ("SELECT a.id FROM bids a JOIN accounts b ON a.id = b.id AND a.price + random() > b.price", "another value"),
    ("SELECT id FROM bids ORDER BY ts", "ORDER BY"),
    ("SELECT id, rank() OVER (PARTITION BY k ORDER BY random()) FROM accounts", "another value"),
    ("SELECT id, rank() OVER (ORDER BY at < now()) FROM bids", "now()"),
    (
        "SELECT b.id FROM bids b ASOF JOIN clicks c MATCH_CONDITION (b.ts <= c.ts) ON b.k = c.k EMIT ON WINDOW CLOSE",
        "EMIT ON WINDOW CLOSE",
    ),
    ("SELECT b.id FROM bids b JOIN profiles FOR SYSTEM_TIME AS OF b.ts AS p ON b.id = p.id", "has no versions"),
    (
        "WITH c AS (SELECT * FROM clicks) SELECT b.id FROM bids b JOIN c FOR SYSTEM_TIME AS OF b.ts ON b.k = c.k",
        "has no versions",
    ),
    ("SELECT b.id FROM bids b ASOF JOIN clicks c MATCH_CONDITION (b.ts >= c.ts) ON b.k < c.k", "of an ASOF JOIN"),
    ("SELECT b.id FROM bids b ASOF JOIN clicks c MATCH_CONDITION (b.ts = c.ts)", "comparison of two times"),
    ("SELECT b.id FROM bids b ASOF JOIN clicks c MATCH_CONDITION (b.ts >= b.at)", "one of the right side"),
    ("SELECT b.id FROM bids b ASOF JOIN clicks c MATCH_CONDITION (b.name >= c.name)", "neither times nor numbers"),
    ("SELECT b.id FROM bids b ASOF JOIN loose l MATCH_CONDITION (nearest(b.x, l.x))", "over floats"),
    ("SELECT b.id FROM bids b ASOF JOIN loose l MATCH_CONDITION (b.price >= l.price * random())", "another value"),
    ("SELECT unnest(unnest(make_array(l, l))) FROM bids", "unnest of unnest"),
    ("SELECT id FROM bids WHERE ts < now() OR k > 1", "now()"),
    ("SELECT id FROM bids WHERE ts = now()", "now()"),
    ("SELECT id FROM bids WHERE now() - ts < INTERVAL '1 hour'", "now()"),
    (
        "SELECT k, count(*) FROM bids WHERE ts > now() - INTERVAL '1 hour' GROUP BY k EMIT ON WINDOW CLOSE",
        "never close",
    ),
    ("SELECT k, count(*) FROM bids GROUP BY k EMIT ON WINDOW CLOSE", "never close"),
    ("SELECT k, sum(price * random()) FROM accounts GROUP BY k", "another value"),
    ("SELECT count(*) FILTER (WHERE random() > 0.5) FROM accounts", "another value"),
    ("SELECT count(DISTINCT random()) FROM accounts", "another value"),
    ("SELECT k, array_agg(price ORDER BY random()) FROM loose GROUP BY k", "another value"),
    ("SELECT k, min(price) FILTER (WHERE uuid() > name) FROM loose GROUP BY k", "another value"),
    ("SELECT random() > 0.5, count(*) FROM accounts GROUP BY 1", "another value"),
    ("SELECT sum(r) FROM (SELECT price * random() AS r FROM accounts)", "another value"),
    ("SELECT max(n * random()) FROM (SELECT k, count(*) AS n FROM bids GROUP BY k)", "another value"),
    ("SELECT sum(now() - at) FROM bids", "now()"),
    ("SELECT id FROM bids EMIT ON WINDOW CLOSE", "EMIT ON WINDOW CLOSE"),
    (
        "SELECT k, count(*) FROM TUMBLE(bids, ts, INTERVAL '1 minute') GROUP BY k, window_end
         UNION ALL SELECT k, id FROM accounts EMIT ON WINDOW CLOSE",
        "takes rows back",
    ),
];

#[test]
fn the_clause_is_named_and_there_is_a_hint() -> Result<()> {
    let world = World::of(0)?;
    let mut wrong = vec![];
    for &(sql, clause) in REFUSED {
        let query = query(sql)?;
        match plan(&world, &query, query.emit, 1) {
            Ok(_) => wrong.push(format!("{sql}: was planned")),
            Err(e) if !e.message().contains(clause) || e.hint().is_none() => {
                wrong.push(format!("{sql}: {e}, hint {:?}", e.hint()));
            }
            Err(_) => {}
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n").into()),
    }
}
