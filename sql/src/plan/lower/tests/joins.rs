//! Joins: where their rows lie, what bounds their state, when they emit, and what runs once.

use millstream_engine::operator::StateBound;
use millstream_engine::operator::aggregate::EmitMode;

use super::*;

fn bounds(graph: &Graph) -> Vec<StateBound> {
    let bound = |n: &millstream_engine::graph::Node| match &n.kind {
        NodeKind::Operator(o) if o.name() == "join" => Some(o.state_bound()),
        _ => None,
    };
    graph.nodes.iter().filter_map(bound).collect()
}

#[test]
fn both_sides_lie_by_the_key() {
    let both = vec!["join 1 by a", "join 1 by a"];
    let joined = |join: &str| format!("SELECT x.a, x.b, y.v FROM rows x {join} more y ON x.a = y.a");
    for (sql, expect) in [
        (joined("JOIN"), both.clone()),
        (joined("LEFT JOIN"), both.clone()),
        (joined("FULL JOIN"), both.clone()),
        ("SELECT a FROM rows WHERE a IN (SELECT a FROM more)".to_owned(), both.clone()),
        ("SELECT x.v FROM rows x CROSS JOIN more y".to_owned(), vec!["join 1 single", "join 1 single"]),
        // One side lies so already.
        (
            format!("SELECT x.n FROM ({BY_A}) x JOIN more y ON x.a = y.a"),
            vec!["aggregate updating 1 by a", "join 1 by a"],
        ),
        // What follows by the key stays; rows of a full join may have no key of the left side.
        (format!("SELECT a, count(*) FROM ({}) GROUP BY a", joined("JOIN")), both.clone()),
        (format!("SELECT a, count(*) FROM ({}) GROUP BY a", joined("LEFT JOIN")), both.clone()),
        (
            format!("SELECT a, count(*) FROM ({}) GROUP BY a", joined("FULL JOIN")),
            vec!["join 1 by a", "join 1 by a", "aggregate updating 1 by a"],
        ),
        // One row for all meets the rows of each task.
        (
            "SELECT a FROM rows WHERE a > (SELECT max(b) FROM more)".to_owned(),
            vec!["aggregate updating 1 single", "join 1 single"],
        ),
    ] {
        assert_eq!(exchanges(&lowered(&sql, 2).graph), expect, "{sql}");
        assert_eq!(exchanges(&lowered(&sql, 1).graph), Vec::<String>::new(), "{sql}");
    }
}

#[test]
fn state_goes_with_times_and_keys_where_they_bound_it() {
    let near = "y.ts BETWEEN x.ts - INTERVAL '1 minute' AND x.ts + INTERVAL '1 hour'";
    let windows = |join: &str| {
        format!(
            "SELECT x.v FROM TUMBLE(rows, ts, INTERVAL '1 minute') x {join} TUMBLE(more, ts, INTERVAL '1 minute') y \
             ON x.a = y.a AND x.window_end = y.window_end"
        )
    };
    for (sql, expect) in [
        ("SELECT x.v FROM rows x JOIN more y ON x.a = y.a".to_owned(), StateBound::Unbounded),
        (format!("SELECT x.v FROM rows x JOIN more y ON x.a = y.a AND {near}"), StateBound::Watermark),
        (format!("SELECT x.v FROM rows x JOIN more y ON {near}"), StateBound::Watermark),
        // One side only.
        ("SELECT x.v FROM rows x JOIN more y ON x.a = y.a AND y.ts >= x.ts".to_owned(), StateBound::Unbounded),
        // What rows have matched must be known as long as they may find more.
        (format!("SELECT x.v FROM rows x LEFT JOIN more y ON x.a = y.a AND {near}"), StateBound::Watermark),
        (format!("SELECT x.v FROM rows x FULL JOIN more y ON x.a = y.a AND {near}"), StateBound::Watermark),
        (
            format!("SELECT x.v FROM rows x WHERE NOT EXISTS (SELECT 1 FROM more y WHERE x.a = y.a AND {near})"),
            StateBound::Watermark,
        ),
        ("SELECT x.v FROM rows x LEFT JOIN more y ON x.a = y.a AND y.ts <= x.ts".to_owned(), StateBound::Unbounded),
        (windows("JOIN"), StateBound::Watermark),
        (windows("LEFT JOIN"), StateBound::Watermark),
        (windows("FULL JOIN"), StateBound::Watermark),
        // Rows that are taken back may be as old as they like.
        (format!("SELECT x.v FROM rows x JOIN log y ON x.a = y.a AND {near}"), StateBound::Unbounded),
        ("SELECT x.v FROM log x LEFT JOIN log y ON x.b = y.a".to_owned(), StateBound::Keys("a, a".to_owned())),
    ] {
        let found = lowered(&sql, 2);
        assert_eq!(bounds(&found.graph), std::slice::from_ref(&expect), "{sql}");
        let late = found.graph.sources().all(|s| s.time.as_ref().is_some_and(|t| !t.closers.is_empty()));
        assert_eq!(late, expect == StateBound::Watermark, "{sql}: what comes late is late for all");
    }
}

#[test]
fn rows_are_looked_up_once_and_what_they_are_looked_up_in_is_read_first() {
    let lookup = |kind: &str, right: &str| {
        format!("SELECT x.v, y.b FROM rows x {kind} JOIN {right} FOR SYSTEM_TIME AS OF now() y ON x.a = y.a")
    };
    let of = |found: &Lowered| {
        let spec = found.graph.nodes.iter().find_map(|n| match &n.kind {
            NodeKind::Operator(o) if o.name() == "lookup" => Some((o.state_bound(), o.describe())),
            _ => None,
        });
        spec.expect("a lookup")
    };
    let depths = |found: &Lowered| found.graph.sources().map(|s| (s.stream.clone(), s.depth)).collect::<Vec<_>>();
    for (sql, bound, stream) in [
        (lookup("", "log"), StateBound::Keys("a".to_owned()), "log"),
        (lookup("LEFT", "log"), StateBound::Keys("a".to_owned()), "log"),
        // The same stream is read twice.
        (lookup("LEFT", "rows"), StateBound::Input, "rows"),
        (
            format!(
                "WITH g AS ({BY_A}) SELECT x.b, g.n FROM rows x JOIN g FOR SYSTEM_TIME AS OF PROCTIME() ON x.a = g.a"
            ),
            StateBound::Keys("rows.a".to_owned()),
            "rows",
        ),
    ] {
        let found = lowered(&sql, 2);
        assert_eq!((found.output.append_only, found.output.emit), (true, EmitMode::Changes), "{sql}");
        assert_eq!(of(&found).0, bound, "{sql}");
        assert!(of(&found).1.contains("on a = a, left is not kept"), "{}", of(&found).1);
        assert_eq!(depths(&found), [("rows".to_owned(), 0), (stream.to_owned(), 1)], "{sql}");
        assert!(exchanges(&found.graph).iter().filter(|e| *e == "lookup 1 by a").count() > 0, "{sql}");
    }
    // Deeper is earlier.
    let inner = "SELECT l.a, m.b FROM more l JOIN log FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP m ON l.a = m.a";
    let deep =
        format!("WITH s AS ({inner}) SELECT x.v, s.b FROM rows x JOIN s FOR SYSTEM_TIME AS OF now() ON x.a = s.a");
    let all = [("rows".to_owned(), 0), ("more".to_owned(), 1), ("log".to_owned(), 2)];
    assert_eq!(depths(&lowered(&deep, 2)), all);
    // Time goes on with the rows, and closes what follows.
    let timed = "SELECT x.ts, y.b FROM rows x LEFT JOIN log FOR SYSTEM_TIME AS OF now() y ON x.a = y.a";
    let windows = format!("TUMBLE(({timed}), ts, INTERVAL '1 minute')");
    let counted = format!("SELECT b, window_end, count(*) FROM {windows} GROUP BY b, window_end EMIT ON WINDOW CLOSE");
    let found = lowered(&counted, 2);
    assert_eq!((found.output.append_only, found.output.emit), (true, EmitMode::OnClose));
    // Conditions on either side go below; what stands before a lookup stays before it.
    let three =
        "SELECT x.v FROM rows x CROSS JOIN more m JOIN log FOR SYSTEM_TIME AS OF now() y ON x.a = y.a WHERE x.b > 3";
    let found = lowered(three, 2);
    let names = labels(&found.graph);
    assert_eq!(names.iter().filter(|n| *n == "lookup 1" || *n == "join 1").collect::<Vec<_>>(), ["join 1", "lookup 1"]);
}

#[test]
fn lookups_that_cannot_be_are_refused() {
    for (sql, message) in [
        (
            "SELECT x.v FROM log x JOIN more FOR SYSTEM_TIME AS OF now() y ON x.a = y.a",
            "rows that are taken back cannot be looked up AS OF now()",
        ),
        (
            "SELECT x.n, y.b FROM (SELECT a, count(*) AS n FROM rows GROUP BY a) x \
             JOIN log FOR SYSTEM_TIME AS OF now() y ON x.a = y.a",
            "rows that are taken back cannot be looked up AS OF now()",
        ),
        (
            "SELECT x.v FROM rows x LEFT JOIN log FOR SYSTEM_TIME AS OF now() y ON x.a < y.a",
            "a JOIN with FOR SYSTEM_TIME AS OF now() needs a column to look up by",
        ),
    ] {
        let found = error(sql);
        assert_eq!(found.message(), message, "{sql}");
        assert!(found.hint().is_some(), "{sql}");
    }
}

#[test]
fn joins_of_windows_say_what_is_final() {
    let counted = |stream: &str| {
        format!(
            "SELECT a, window_end, count(*) AS n FROM TUMBLE({stream}, ts, INTERVAL '1 minute') GROUP BY a, window_end"
        )
    };
    for join in ["JOIN", "LEFT JOIN", "FULL JOIN"] {
        let sql = format!(
            "SELECT x.a, x.window_end, x.n, y.n AS m FROM ({}) x {join} ({}) y ON x.a = y.a AND x.window_end = y.window_end",
            counted("rows"),
            counted("more")
        );
        let found = lowered(&sql, 2);
        assert_eq!((found.output.emit, found.output.append_only), (EmitMode::OnClose, true), "{join}");
        let changes = lowered(&format!("{sql} EMIT CHANGES"), 2);
        assert_eq!((changes.output.emit, changes.output.append_only), (EmitMode::Changes, false), "{join}");
        let more = lowered(&format!("SELECT window_end, sum(n) FROM ({sql}) GROUP BY window_end"), 2);
        let closes = if join == "FULL JOIN" { EmitMode::Changes } else { EmitMode::OnClose };
        assert_eq!(more.output.emit, closes, "{join}, added up");
    }
    // Without the window among the keys a row may find its match later.
    let sql = format!("SELECT x.n FROM ({}) x LEFT JOIN ({}) y ON x.a = y.a", counted("rows"), counted("more"));
    let found = lowered(&sql, 2);
    assert_eq!((found.output.emit, found.output.append_only), (EmitMode::Changes, false));
}

#[test]
fn what_stands_twice_runs_once() {
    let sql = format!("WITH t AS ({BY_A}) SELECT x.n, y.n AS m FROM t x JOIN t y ON x.n = y.n");
    assert_eq!(count(&lowered(&sql, 2).graph, "aggregate updating"), 1);
    let before: Semantics = serde_json::from_str("4").expect("a version");
    assert_eq!(count(&lower_by(before, &sql, 2).expect("lowers").graph, "aggregate updating"), 2);
}
