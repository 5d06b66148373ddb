//! OVER and LIMIT: where their rows lie, what bounds their state, when they emit.

use millstream_engine::operator::StateBound;
use millstream_engine::operator::aggregate::EmitMode;

use super::*;

fn bounds(graph: &Graph) -> Vec<StateBound> {
    let bound = |n: &millstream_engine::graph::Node| match &n.kind {
        NodeKind::Operator(o) if o.name() == "over" => Some(o.state_bound()),
        _ => None,
    };
    graph.nodes.iter().filter_map(bound).collect()
}

#[test]
fn rows_lie_by_their_partition() {
    for (sql, expect) in [
        ("SELECT a, v, rank() OVER (PARTITION BY a ORDER BY v) FROM rows".to_owned(), vec!["over 1 by a"]),
        ("SELECT a, v, rank() OVER (ORDER BY v) FROM rows".to_owned(), vec!["over 1 single"]),
        // Groups lie by their key already, and what follows by it stays.
        (
            format!("SELECT a, n, rank() OVER (PARTITION BY a ORDER BY n) FROM ({BY_A})"),
            vec!["aggregate updating 1 by a"],
        ),
        (
            "SELECT a, max(r) FROM (SELECT a, rank() OVER (PARTITION BY a ORDER BY v) AS r FROM rows) GROUP BY a"
                .to_owned(),
            vec!["over 1 by a"],
        ),
        // The first of each task go to one.
        ("SELECT a FROM rows ORDER BY v LIMIT 3".to_owned(), vec!["over 1 single"]),
    ] {
        assert_eq!(exchanges(&lowered(&sql, 2).graph), expect, "{sql}");
        assert_eq!(exchanges(&lowered(&sql, 1).graph), Vec::<String>::new(), "{sql}");
    }
    let limited = "SELECT a FROM rows ORDER BY v LIMIT 3";
    assert_eq!([1, 2].map(|tasks| count(&lowered(limited, tasks).graph, "first")), [0, 1]);
    assert_eq!(count(&lowered("SELECT a FROM log ORDER BY b LIMIT 3", 2).graph, "first"), 0);
}

#[test]
fn no_more_is_kept_than_can_be_wanted() {
    let first = |what: &str, table: &str| {
        format!(
            "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY a ORDER BY b) AS n FROM {table}) WHERE {what}"
        )
    };
    let rows = |most| StateBound::Rows(most, "a".to_owned());
    for (sql, expect) in [
        (first("n <= 3", "rows"), rows(3)),
        (first("n < 3", "rows"), rows(2)),
        (first("n = 1", "rows"), rows(1)),
        (first("3 >= n AND v > 0", "rows"), rows(3)),
        (first("n BETWEEN 2 AND 5", "rows"), rows(5)),
        (first("n > 2", "rows"), StateBound::Unbounded),
        (first("n <= 3 OR v > 0", "rows"), StateBound::Unbounded),
        (first("n <= 3", "log"), StateBound::Keys("a".to_owned())),
        ("SELECT a FROM rows ORDER BY v LIMIT 3 OFFSET 2".to_owned(), StateBound::Rows(5, String::new())),
        ("SELECT a FROM rows ORDER BY v OFFSET 2".to_owned(), StateBound::Unbounded),
        ("SELECT a FROM rows LIMIT 3".to_owned(), StateBound::Rows(3, String::new())),
        // Another call of the same rows needs all of them.
        (
            "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY a ORDER BY b) AS n, sum(v) OVER (PARTITION BY a ORDER BY b) AS s \
             FROM rows) WHERE n <= 3"
                .to_owned(),
            StateBound::Unbounded,
        ),
        (
            "SELECT v, row_number() OVER (PARTITION BY a, window_end ORDER BY v) FROM TUMBLE(rows, ts, INTERVAL '1 minute')"
                .to_owned(),
            StateBound::Watermark,
        ),
        // Rows without an event time come at any time.
        ("SELECT v, row_number() OVER (PARTITION BY ts ORDER BY v) FROM rows".to_owned(), StateBound::Unbounded),
    ] {
        assert_eq!(bounds(&lowered(&sql, 2).graph), [expect], "{sql}");
    }
}

#[test]
fn what_is_over_groups_of_windows_is_final() {
    let counted =
        "SELECT a, window_end, count(*) AS n FROM TUMBLE(rows, ts, INTERVAL '1 minute') GROUP BY a, window_end";
    let best = |by: &str| {
        format!(
            "SELECT * FROM (SELECT *, rank() OVER (PARTITION BY {by} ORDER BY n DESC) AS r FROM ({counted})) WHERE r = 1"
        )
    };
    let found = lowered(&best("window_end"), 2);
    assert_eq!((found.output.emit, found.output.append_only), (EmitMode::OnClose, true));
    assert_eq!(bounds(&found.graph), [StateBound::Epoch]);
    let more = lowered(&format!("SELECT window_end, sum(n) FROM ({}) GROUP BY window_end", best("window_end")), 2);
    assert_eq!((more.output.emit, more.output.append_only), (EmitMode::OnClose, true));
    let changes = lowered(&format!("{} EMIT CHANGES", best("window_end")), 2);
    assert_eq!((changes.output.emit, changes.output.append_only), (EmitMode::Changes, false));
    assert_eq!(bounds(&changes.graph), [StateBound::Watermark]);
    // Without the window a row may lose its place later.
    let found = lowered(&best("a"), 2);
    assert_eq!((found.output.emit, found.output.append_only), (EmitMode::Changes, false));
}

#[test]
fn columns_that_order_needs_alone_have_one_place() {
    let keeps = |_| {
        let graph = lowered("SELECT v FROM rows ORDER BY b + a, ts, v LIMIT 3", 2).graph;
        let kept = graph.nodes.iter().find_map(|n| match &n.kind {
            NodeKind::Operator(o) if o.name() == "over" => o.fingerprint(),
            _ => None,
        });
        kept.expect("the operator keeps rows")
    };
    let all: std::collections::BTreeSet<String> = (0..20).map(keeps).collect();
    assert_eq!(all.len(), 1, "{all:?}");
}
