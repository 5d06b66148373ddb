//! Where exchanges are, what emits when, where panes serve, and what closes behind a scan.

mod as_of;
mod joins;
mod overs;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::TableSource;
use datafusion::physical_expr::PhysicalExpr;
use millstream_engine::connector::Source;
use millstream_engine::connector::constant::Constant;
use millstream_engine::connector::feed::FeedSink;
use millstream_engine::graph::{Exchange, Graph, NodeKind, SourceNode};
use millstream_engine::runtime::labels;

use super::*;
use crate::error::Error;
use crate::plan::{Semantics, TableResolver, query_plan, session_state_of, streaming_plan};
use crate::statement::{Statement, parse};

/// A stream with columns a, b and v, and a time.
#[derive(Debug)]
struct Stream {
    name: &'static str,
    changelog: bool,
    timed: bool,
}

impl StreamScan for Stream {
    fn name(&self) -> &str {
        self.name
    }

    fn schema(&self) -> SchemaRef {
        let int = |name| Field::new(name, DataType::Int64, true);
        let ts = Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true);
        Arc::new(Schema::new(vec![int("a"), int("b"), Field::new("v", DataType::Float64, true), ts]))
    }

    fn is_changelog(&self) -> bool {
        self.changelog
    }

    fn key(&self) -> Option<Vec<usize>> {
        self.changelog.then(|| vec![0])
    }

    fn event_time(&self) -> Option<(usize, Option<Arc<dyn PhysicalExpr>>)> {
        self.timed.then_some((3, None))
    }

    fn replaces(&self) -> Option<Replaces> {
        (self.name == "keyed").then(|| Replaces { key: vec![1], beside: vec![2] })
    }

    fn is_in_order(&self) -> bool {
        matches!(self.name, "keyed" | "said")
    }

    fn idle_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn source(&self, projection: Vec<usize>, _parallelism: usize) -> Result<Arc<dyn Source>> {
        let schema = Arc::new(self.schema().project(&projection).map_err(millstream_engine::Error::from)?);
        Ok(Arc::new(Constant::new(RecordBatch::new_empty(schema))))
    }
}

struct Streams;

impl TableResolver for Streams {
    fn table(&self, name: &TableReference) -> Result<Option<Arc<dyn TableSource>>> {
        let (name, changelog, timed) = match name.table() {
            "rows" => ("rows", false, true),
            "more" => ("more", false, true),
            "bare" => ("bare", false, false),
            "log" => ("log", true, true),
            "keyed" => ("keyed", true, true),
            "said" => ("said", true, false),
            _ => return Ok(None),
        };
        let stream = SourceTable(Arc::new(Stream { name, changelog, timed }));
        Ok(Some(provider_as_source(Arc::new(stream))))
    }
}

fn try_lower(sql: &str, tasks: usize) -> Result<Lowered> {
    lower_by(Semantics::NOW, sql, tasks)
}

fn lower_by(semantics: Semantics, sql: &str, tasks: usize) -> Result<Lowered> {
    let Statement::Query(query) = parse(sql)?.remove(0).statement else { panic!("{sql} is no query") };
    let state = session_state_of(semantics);
    let plan = streaming_plan(&state, query_plan(&state, Arc::new(Streams), &query.query)?)?;
    lower(&state, &plan, query.emit, tasks)
}

fn lowered(sql: &str, tasks: usize) -> Lowered {
    let lowered = try_lower(sql, tasks).unwrap_or_else(|e| panic!("{sql}: {e}"));
    lowered.graph.validate().unwrap_or_else(|e| panic!("{sql}: {e}"));
    lowered
}

fn error(sql: &str) -> Error {
    match try_lower(sql, 2) {
        Err(e) => e,
        Ok(_) => panic!("{sql} was lowered"),
    }
}

/// Who is behind an exchange, and how rows get there: `aggregate updating 1 by a`.
fn exchanges(graph: &Graph) -> Vec<String> {
    let labels = labels(graph);
    let mut found = vec![];
    for (node, label) in graph.nodes.iter().zip(&labels) {
        for edge in &node.inputs {
            let schema = graph.schema(edge.from);
            let name = |c: &usize| schema.field(*c).name().trim_start_matches("k:").to_owned();
            match &edge.exchange {
                Exchange::Forward => {}
                Exchange::Hash(by) => {
                    found.push(format!("{label} by {}", by.iter().map(name).collect::<Vec<_>>().join(", ")))
                }
                Exchange::Single => found.push(format!("{label} single")),
            }
        }
    }
    found
}

/// How many operators of a name there are.
fn count(graph: &Graph, name: &str) -> usize {
    graph.nodes.iter().filter(|n| matches!(&n.kind, NodeKind::Operator(o) if o.name() == name)).count()
}

const BY_A: &str = "SELECT a, count(*) AS n, max(v) AS v FROM rows GROUP BY a";

#[test]
fn exchanges_are_where_rows_do_not_lie_where_they_are_needed() {
    let by_ab = "SELECT a, b, count(*) AS n FROM rows GROUP BY a, b";
    let in_windows = "SELECT a, window_start, window_end, count(*) AS n \
                      FROM TUMBLE(rows, ts, INTERVAL '1 minute') GROUP BY a, window_start, window_end";
    let by_b = "SELECT b, count(*) AS n, max(v) AS v FROM more GROUP BY b";
    for (sql, expect) in [
        ("SELECT a, v + 1 FROM rows WHERE b > 1".to_owned(), vec![]),
        (BY_A.to_owned(), vec!["aggregate updating 1 by a"]),
        ("SELECT count(*) FROM rows".to_owned(), vec!["aggregate updating 1 single"]),
        // The same keys once more.
        (format!("SELECT a, sum(n) FROM ({by_ab}) GROUP BY a, b"), vec!["aggregate updating 1 by a, b"]),
        (
            format!("SELECT x, sum(n) FROM (SELECT n, a AS x FROM ({BY_A}) WHERE n > 1) GROUP BY x"),
            vec!["aggregate updating 1 by a"],
        ),
        (format!("SELECT a, max(n) FROM ({in_windows}) GROUP BY a"), vec!["aggregate updating 1 by a"]),
        (format!("SELECT DISTINCT a, b FROM ({by_ab}) WHERE n > 3"), vec!["aggregate updating 1 by a, b"]),
        // Per window of windows that are spread by the same key.
        (
            format!("SELECT a, window_end, max(n) FROM ({in_windows}) GROUP BY a, window_end"),
            vec!["aggregate on close 1 by a"],
        ),
        // More keys than those, or others beside them, or in another order.
        (format!("SELECT a, n, count(*) FROM ({BY_A}) GROUP BY a, n"), vec!["aggregate updating 1 by a"]),
        (format!("SELECT n % 7, a, count(*) FROM ({BY_A}) GROUP BY n % 7, a"), vec!["aggregate updating 1 by a"]),
        (format!("SELECT DISTINCT n, b, a FROM ({by_ab})"), vec!["aggregate updating 1 by a, b"]),
        (format!("SELECT sum(n) FROM ({by_ab}) GROUP BY b, a"), vec!["aggregate updating 1 by a, b"]),
        // Other keys, or fewer.
        (
            format!("SELECT n, count(*) FROM ({BY_A}) GROUP BY n"),
            vec!["aggregate updating 1 by a", "aggregate updating 2 by n"],
        ),
        (
            format!("SELECT a, sum(n) FROM ({by_ab}) GROUP BY a"),
            vec!["aggregate updating 1 by a, b", "aggregate updating 2 by a"],
        ),
        // A key that is computed of the one by which rows lie.
        (
            format!("SELECT k, sum(n) FROM (SELECT a + 1 AS k, n FROM ({BY_A})) GROUP BY k"),
            vec!["aggregate updating 1 by a", "aggregate updating 2 by k"],
        ),
        (
            format!("SELECT a % 7 AS k, sum(n) FROM ({BY_A}) GROUP BY a % 7"),
            vec!["aggregate updating 1 by a", "aggregate updating 2 by rows.a % Int64(7)"],
        ),
        // A column that stands twice, once behind a cast that does nothing.
        (format!("SELECT DISTINCT CAST(a AS BIGINT) AS k, a FROM ({BY_A})"), vec!["aggregate updating 1 by a"]),
        // One for all: what follows is in its task.
        (
            "SELECT n, count(*) FROM (SELECT count(*) AS n FROM rows) GROUP BY n".to_owned(),
            vec!["aggregate updating 1 single"],
        ),
        // All inputs of a union must lie so.
        (
            format!("SELECT a, sum(n) FROM (SELECT a, n FROM ({BY_A}) UNION ALL SELECT b, n FROM ({by_b})) GROUP BY a"),
            vec!["aggregate updating 1 by a", "aggregate updating 2 by b"],
        ),
        (
            format!("SELECT a, sum(n) FROM (SELECT a, n FROM ({BY_A}) UNION ALL SELECT b, a FROM more) GROUP BY a"),
            vec!["aggregate updating 1 by a", "aggregate updating 2 by a"],
        ),
        (
            format!("SELECT a, n FROM ({BY_A}) UNION ALL SELECT 0, count(*) FROM more"),
            vec!["aggregate updating 1 by a", "aggregate updating 2 single", "union all 1 single"],
        ),
    ] {
        assert_eq!(exchanges(&lowered(&sql, 2).graph), expect, "{sql}");
        assert_eq!(exchanges(&lowered(&sql, 1).graph), Vec::<String>::new(), "{sql}");
    }
}

#[test]
fn what_needs_no_exchange_is_added_up_at_once() {
    let sql = format!("SELECT a, sum(n) FROM ({BY_A}) GROUP BY a");
    for (tasks, partial) in [(1, 0), (2, 1)] {
        let lowered = lowered(&sql, tasks);
        assert_eq!(count(&lowered.graph, "aggregate partial"), partial, "in {tasks} tasks");
        assert_eq!(count(&lowered.graph, "aggregate updating"), 2, "in {tasks} tasks");
        assert_eq!(lowered.output.parallelism, tasks);
    }
}

#[test]
fn streams_of_before_keep_the_exchanges_by_which_their_state_is_cut() {
    let by = |semantics, sql: &str| exchanges(&lower_by(semantics, sql, 2).expect("lowers").graph);
    let more = format!("SELECT a, n, count(*) FROM ({BY_A}) GROUP BY a, n");
    assert_eq!(by(Semantics::FIRST, &more), ["aggregate updating 1 by a", "aggregate updating 2 by a, n"]);
    assert_eq!(by(Semantics::NOW, &more), ["aggregate updating 1 by a"]);
    // The same cut, so there is nothing to keep.
    let same = format!("SELECT a, sum(n) FROM ({BY_A}) GROUP BY a");
    assert_eq!(by(Semantics::FIRST, &same), ["aggregate updating 1 by a"]);
}

#[test]
fn state_has_one_name_and_one_meaning_whatever_the_exchanges() {
    let meanings = |sql: &str, tasks| {
        let graph = lowered(sql, tasks).graph;
        let specs = labels(&graph).into_iter().zip(&graph.nodes).filter_map(|(label, node)| match &node.kind {
            NodeKind::Operator(spec) => Some((label, spec.fingerprint()?)),
            _ => None,
        });
        specs.collect::<Vec<_>>()
    };
    for sql in [
        format!("SELECT a, sum(n), sum(v) FROM ({BY_A}) GROUP BY a"),
        format!("SELECT DISTINCT n FROM ({BY_A})"),
        format!("SELECT DISTINCT n, a FROM ({BY_A})"),
        format!("SELECT b, a, avg(v) FROM ({BY_A} UNION ALL SELECT b, a, v FROM more) AS t(a, b, v) GROUP BY b, a"),
    ] {
        assert_eq!(meanings(&sql, 1), meanings(&sql, 3), "{sql}");
        assert_eq!(meanings(&sql, 1).len(), 2, "{sql}");
    }
    // One task beside several: what comes of it lies by nothing, even where there is but one for all.
    let one = "SELECT n, count(*) AS m FROM (SELECT count(*) AS n FROM more) GROUP BY n";
    let sql = format!("SELECT DISTINCT b, a FROM (SELECT a, n FROM ({BY_A}) UNION ALL {one}) AS t(a, b)");
    assert_eq!(meanings(&sql, 1), meanings(&sql, 3));
}

#[test]
fn a_sink_in_one_task_gathers() {
    let sink = |sql: &str, single| {
        let mut lowered = lowered(sql, 2);
        let (sink, _) = FeedSink::new(lowered.graph.schema(lowered.output.node), true, None);
        let node = finish(&mut lowered, SinkNode { name: "s".to_owned(), sink }, single);
        (lowered.graph.nodes[node].parallelism, exchanges(&lowered.graph).pop())
    };
    assert_eq!(sink("SELECT a FROM rows", false), (2, None));
    assert_eq!(sink("SELECT a FROM rows", true), (1, Some("sink 1 single".to_owned())));
    assert_eq!(sink("SELECT count(*) FROM rows", true), (1, Some("aggregate updating 1 single".to_owned())));
}

fn windowed(window: &str, select: &str, rest: &str) -> String {
    format!("SELECT {select} FROM {window} {rest}")
}

/// Whether windows come as panes, and the aggregate knows.
fn has_panes(sql: &str) -> bool {
    let graph = lowered(sql, 2).graph;
    let specs = graph.nodes.iter().filter_map(|n| match &n.kind {
        NodeKind::Operator(spec) => Some(format!("{spec:?}")),
        _ => None,
    });
    let (mut windows, mut aggregates) = (vec![], vec![]);
    for spec in specs {
        if spec.starts_with("WindowAssign") {
            windows.push(spec.contains("panes: Some"));
        } else if spec.starts_with("Aggregate") {
            aggregates.push(spec.contains("panes: true"));
        }
    }
    assert_eq!(windows.contains(&true), aggregates.contains(&true), "{sql}");
    windows.contains(&true)
}

#[test]
fn windows_come_as_panes_where_only_the_aggregate_sees_their_bounds() {
    let hop = "HOP(rows, ts, INTERVAL '1 minute', INTERVAL '5 minutes')";
    let by = "GROUP BY a, window_start, window_end";
    let sub = |inner: &str| format!("(SELECT a, v, window_start, window_end FROM {hop} {inner})");
    for (sql, expect) in [
        (windowed(hop, "a, count(*)", by), true),
        (windowed(hop, "window_end, count(*)", "GROUP BY window_end"), true),
        (windowed(&sub("WHERE v > 1"), "a, count(*)", by), true),
        // Somebody else looks at the bounds.
        (windowed(hop, "a, max(window_end)", by), false),
        (windowed(hop, "a, count(*) FILTER (WHERE window_end > ts)", by), false),
        (windowed(&sub("WHERE window_end > ts"), "a, count(*)", by), false),
        (windowed(hop, "count(*)", "GROUP BY window_end, window_end - window_start"), false),
        // Changes are those of windows.
        (windowed(hop, "a, count(*)", &format!("{by} EMIT CHANGES")), false),
        // Nothing but panes of one node is made windows again.
        (windowed(&format!("(SELECT * FROM {0} UNION ALL SELECT * FROM {0})", sub("")), "a, count(*)", by), false),
    ] {
        assert_eq!(has_panes(&sql), expect, "{sql}");
    }
}

#[test]
fn every_group_by_is_told_when_to_emit() {
    let window = "TUMBLE(rows, ts, INTERVAL '1 minute')";
    let closes = windowed(window, "a, window_end, count(*) AS n", "GROUP BY a, window_end");
    let open = "SELECT a, CAST(NULL AS TIMESTAMP), count(*) FROM more GROUP BY a";
    for (sql, on_close, updating, append_only) in [
        ("SELECT a FROM rows".to_owned(), 0, 0, true),
        ("SELECT a FROM log".to_owned(), 0, 0, false),
        (closes.clone(), 1, 0, true),
        (format!("{closes} EMIT CHANGES"), 0, 1, false),
        (format!("SELECT window_end, max(n) FROM ({closes}) GROUP BY window_end"), 2, 0, true),
        // Rows of the log are taken back, what has closed is not.
        (windowed("TUMBLE(log, ts, INTERVAL '1 minute')", "window_end, count(*)", "GROUP BY window_end"), 1, 0, true),
        // A part that has no end.
        (format!("{closes} UNION ALL {open}"), 0, 2, false),
        (format!("SELECT a, max(n) FROM ({closes}) GROUP BY a"), 0, 2, false),
        (format!("{closes} UNION ALL SELECT a, ts, b FROM log"), 0, 1, false),
        (format!("{closes} UNION ALL SELECT a, ts, b FROM more"), 1, 0, true),
    ] {
        let Lowered { graph, output } = lowered(&sql, 2);
        let counted = (count(&graph, "aggregate on close"), count(&graph, "aggregate updating"));
        assert_eq!((counted, output.append_only), ((on_close, updating), append_only), "{sql}");
        assert_eq!(output.emit == EmitMode::OnClose, on_close > 0, "{sql}");
    }
    for (sql, expect) in [
        (open.to_owned(), "EMIT ON WINDOW CLOSE: groups by more.a never close"),
        (format!("SELECT a, max(n) FROM ({closes}) GROUP BY a"), "EMIT ON WINDOW CLOSE: groups by rows.a never close"),
        ("SELECT a FROM rows".to_owned(), "EMIT ON WINDOW CLOSE needs a GROUP BY with a window, or a SESSION"),
        (
            format!("{closes} UNION ALL SELECT a, ts, b FROM log"),
            "EMIT ON WINDOW CLOSE: a part of the query without windows takes rows back",
        ),
        (
            windowed("TUMBLE(bare, ts, INTERVAL '1 minute')", "window_end, count(*)", "GROUP BY window_end"),
            "stream \"bare\" has no watermark",
        ),
    ] {
        assert_eq!(error(&format!("{sql} EMIT ON WINDOW CLOSE")).message(), expect, "{sql}");
    }
}

#[test]
fn scans_are_told_what_closes_behind_them() {
    let closers = |sql: &str| {
        let graph = lowered(sql, 2).graph;
        let of = |s: &SourceNode| (s.stream.clone(), s.time.as_ref().map_or(0, |t| t.closers.len()));
        graph.sources().map(of).collect::<Vec<_>>()
    };
    let one = |stream: &str| {
        format!("SELECT window_end, count(*) FROM TUMBLE({stream}, ts, INTERVAL '1 minute') GROUP BY window_end")
    };
    let expect = |counts: &[(&str, usize)]| counts.iter().map(|(s, n)| ((*s).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(closers("SELECT a FROM rows"), expect(&[("rows", 0)]));
    assert_eq!(closers(BY_A), expect(&[("rows", 0)]));
    assert_eq!(closers(&one("rows")), expect(&[("rows", 1)]));
    assert_eq!(closers(&format!("{} EMIT CHANGES", one("rows"))), expect(&[("rows", 1)]));
    assert_eq!(closers("SELECT date_trunc('hour', ts), count(*) FROM rows GROUP BY 1"), expect(&[("rows", 1)]));
    let two = format!("{} UNION ALL {} UNION ALL SELECT ts, a FROM bare", one("rows"), one("more"));
    assert_eq!(closers(&two), expect(&[("rows", 1), ("more", 1), ("bare", 0)]));
}

#[test]
fn windows_of_windows_are_told_apart() {
    let hop = "HOP(rows, ts, INTERVAL '1 minute', INTERVAL '5 minutes')";
    let inner = format!("(SELECT ts, window_end AS first_end FROM {hop})");
    let sql = format!(
        "SELECT first_end, window_end, count(*) FROM HOP({inner}, ts, INTERVAL '1 minute', INTERVAL '5 minutes') \
         GROUP BY first_end, window_end"
    );
    // Only one of the two is the time by which groups close; the other tells groups apart.
    assert_eq!(exchanges(&lowered(&sql, 2).graph), ["aggregate on close 1 by window_end"]);
}

/// What is read of the one source and by how many tasks, and what stands over it in how many.
fn over_the_source(lowered: &Lowered) -> (Vec<String>, usize, Vec<(String, usize)>) {
    let nodes = &lowered.graph.nodes;
    let NodeKind::Source(source) = &nodes[0].kind else { panic!("no source") };
    let columns = source.schema.fields().iter().map(|f| f.name().clone()).collect();
    let over = nodes.iter().filter(|node| node.inputs.iter().any(|edge| edge.from == 0));
    let over = over.filter_map(|node| match &node.kind {
        NodeKind::Operator(spec) => Some((format!("{} {}", spec.name(), spec.describe()), node.parallelism)),
        _ => None,
    });
    (columns, nodes[0].parallelism, over.collect())
}

#[test]
fn rows_are_replaced_over_a_scan_that_one_task_reads() {
    let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for tasks in [1, 3] {
        let one = lowered("SELECT a FROM keyed WHERE v > 1", tasks);
        // The key and the event time are read, too.
        let expected = (names(&["a", "b", "v", "ts"]), 1, vec![("upsert by b".to_owned(), tasks)]);
        assert_eq!(over_the_source(&one), expected);
        assert!(!one.output.append_only);
        let none = lowered("SELECT count(*) FROM said", tasks);
        let (columns, readers, over) = over_the_source(&none);
        assert_eq!((columns, readers), (names(&["a"]), 1));
        let spread = over.iter().any(|(what, of)| what.starts_with("project a") && *of == 3);
        assert_eq!(spread, tasks == 3, "{over:?}");
    }
    // Groups of the key lie where its rows are.
    assert_eq!(exchanges(&lowered("SELECT b, count(*) FROM keyed GROUP BY b", 2).graph), ["upsert 1 by b"]);
}
