//! ASOF joins: where their rows lie, what bounds their state, when they emit and what is late for them.

use millstream_engine::operator::StateBound;
use millstream_engine::operator::aggregate::EmitMode;

use super::*;

fn joined(left: &str, right: &str, way: &str) -> String {
    format!("SELECT l.v, l.ts, r.b FROM {left} l ASOF JOIN {right} r MATCH_CONDITION (l.ts {way} r.ts) ON l.a = r.a")
}

fn bound(sql: &str) -> StateBound {
    let graph = lowered(sql, 2).graph;
    let found = graph.nodes.iter().find_map(|n| match &n.kind {
        NodeKind::Operator(o) if o.name() == "asof" => Some(o.state_bound()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{sql}: no ASOF join"))
}

#[test]
fn rows_lie_by_their_keys() {
    let by = ["asof 1 by a", "asof 1 by a"];
    assert_eq!(exchanges(&lowered(&joined("rows", "more", ">="), 2).graph), by);
    assert_eq!(exchanges(&lowered(&joined("rows", "more", ">="), 1).graph), Vec::<String>::new());
    // What follows by the key stays.
    let grouped =
        format!("SELECT a, count(*) FROM ({}) GROUP BY a", joined("rows", "more", ">=").replace("l.v", "l.a"));
    assert_eq!(exchanges(&lowered(&grouped, 2).graph), by);
    let without = "SELECT l.v FROM rows l ASOF JOIN more r MATCH_CONDITION (l.ts >= r.ts)";
    assert_eq!(exchanges(&lowered(without, 2).graph), ["asof 1 single", "asof 1 single"]);
    let computed = "SELECT l.v FROM rows l ASOF JOIN more r MATCH_CONDITION (l.ts >= r.ts) ON l.a + 1 = r.a";
    assert_eq!(exchanges(&lowered(computed, 2).graph).len(), 2);
}

#[test]
fn the_watermark_bounds_what_is_kept() {
    let keys = |keys: &str| StateBound::Keys(keys.to_owned());
    for (sql, expect) in [
        (joined("rows", "more", ">="), keys("a")),
        (joined("rows", "more", ">"), keys("a")),
        // One that waits for a later row may wait for ever.
        (joined("rows", "more", "<="), StateBound::Unbounded),
        (joined("rows", "bare", ">="), StateBound::Unbounded),
        (joined("bare", "more", ">="), StateBound::Unbounded),
        (joined("rows", "log", ">="), StateBound::Unbounded),
        (joined("log", "log", ">="), keys("a, a")),
        (joined("rows", "more", ">= INTERVAL '1 second' +"), StateBound::Unbounded),
    ] {
        assert_eq!(bound(&sql), expect, "{sql}");
    }
}

#[test]
fn each_row_is_said_once_where_it_is_final() {
    let once = |sql: &str| format!("{sql} EMIT ON WINDOW CLOSE");
    let closing = lowered(&once(&joined("rows", "more", ">=")), 2);
    assert!(closing.output.append_only && matches!(closing.output.emit, EmitMode::OnClose));
    assert_eq!(event_column(&closing.output.time), Some(1));
    let changing = lowered(&joined("rows", "more", ">="), 2);
    assert!(!changing.output.append_only && matches!(changing.output.emit, EmitMode::Changes));
    for (left, right, way) in
        [("rows", "more", "<="), ("rows", "log", ">="), ("log", "more", ">="), ("rows", "bare", ">")]
    {
        assert!(error(&once(&joined(left, right, way))).message().contains("EMIT ON WINDOW CLOSE"));
    }
    // Windows over it close by themselves.
    let windowed = format!(
        "SELECT window_end, count(*) FROM TUMBLE(({}), ts, INTERVAL '1 minute') GROUP BY window_end",
        joined("rows", "more", ">=")
    );
    let windowed = lowered(&windowed, 2);
    assert!(windowed.output.append_only && matches!(windowed.output.emit, EmitMode::OnClose));
}

#[test]
fn what_is_behind_the_watermark_is_late_where_it_would_be_missed() {
    let closers = |sql: &str| {
        let graph = lowered(sql, 2).graph;
        let of = |s: &SourceNode| s.time.as_ref().map_or(0, |time| time.closers.len());
        graph.sources().map(of).collect::<Vec<_>>()
    };
    assert_eq!(closers(&joined("rows", "more", ">=")), [1, 1]);
    assert_eq!(closers(&joined("bare", "more", ">=")), [0, 1]);
    assert_eq!(closers(&joined("rows", "bare", ">=")), [0, 0]);
}
