//! Statements as texts, and what they are parsed to.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

use super::*;
use crate::error::{Error, ErrorKind, Position};

fn one(sql: &str) -> Statement {
    let mut statements = parse(sql).unwrap_or_else(|e| panic!("{sql}: {e} {:?}", e.position()));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0).statement
}

fn stream(sql: &str) -> CreateStream {
    match one(sql) {
        Statement::CreateStream(create) => *create,
        other => panic!("{sql}: {other:?}"),
    }
}

fn error(sql: &str) -> Error {
    match parse(sql) {
        Err(e) => e,
        Ok(statements) => panic!("{sql} was read: {statements:?}"),
    }
}

#[test]
fn an_external_stream_has_columns_a_watermark_and_options() {
    let create = stream(
        "CREATE STREAM IF NOT EXISTS Bids (
           auction BIGINT, \"Price\" BIGINT NOT NULL, date_time TIMESTAMP, key TEXT, check INT, extra TEXT,
           WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'
         ) WITH (connector = 'kafka', topic = bids, 'scan.startup.mode' = 'earliest', properties.max.poll = 10,
                 ordered = true);",
    );
    assert_eq!((create.kind, create.form()), (ObjectKind::Stream, StreamForm::External));
    assert_eq!((create.name.clone(), create.if_not_exists, create.or_replace), (Name::bare("bids"), true, false));
    let columns: Vec<_> = create.columns.iter().map(|c| (c.name.as_str(), c.not_null)).collect();
    let plain = ["date_time", "key", "check", "extra"].map(|c| (c, false));
    assert_eq!(columns, [&[("auction", false), ("Price", true)][..], &plain[..]].concat());
    assert_eq!(create.columns[2].data_type, DataType::Timestamp(TimeUnit::Microsecond, None));
    let watermark = create.watermark.expect("a watermark");
    assert_eq!(watermark.to_string(), "WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'");
    let options: Vec<_> = create.options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expect = [
        ("connector", "kafka"),
        ("ordered", "true"),
        ("properties.max.poll", "10"),
        ("scan.startup.mode", "earliest"),
        ("topic", "bids"),
    ];
    assert_eq!(options, expect);
}

#[test]
fn every_spelling_of_a_key_is_read() {
    for sql in [
        "CREATE STREAM r (sensor TEXT, at TIMESTAMP, PRIMARY KEY (sensor))",
        "CREATE TABLE r (sensor TEXT, at TIMESTAMP, PRIMARY KEY (sensor) NOT ENFORCED)",
        "CREATE TABLE r (`sensor` TEXT PRIMARY KEY NOT ENFORCED, at TIMESTAMP)",
        "CREATE TABLE r (sensor TEXT PRIMARY KEY, at TIMESTAMP)",
        "CREATE TABLE r (sensor TEXT, at TIMESTAMP, CONSTRAINT k PRIMARY KEY (sensor))",
    ] {
        let create = stream(sql);
        assert_eq!(create.form(), StreamForm::Stored, "{sql}");
        assert_eq!(create.primary_key, Some(vec!["sensor".to_owned()]), "{sql}");
        assert!(create.columns[0].not_null && !create.columns[1].not_null, "{sql}");
    }
}

#[test]
fn aliases_are_streams() {
    use {ObjectKind::*, StreamForm::*};
    for (sql, kind, form) in [
        ("CREATE SOURCE s (a INT) WITH (connector = 'stdin')", Source, External),
        ("CREATE SOURCE s WITH (connector = 'nexmark')", Source, External),
        ("CREATE TABLE s (a INT)", Table, Stored),
        ("CREATE TABLE s (a INT) WITH ('connector' = 'file')", Table, External),
        ("CREATE MATERIALIZED VIEW s AS SELECT 1", MaterializedView, Derived),
        ("CREATE OR REPLACE STREAM s AS SELECT * FROM t", Stream, Derived),
        ("CREATE STREAM s WITH (connector = 'kafka') AS SELECT * FROM t", Stream, WrittenOut),
        ("CREATE SINK s WITH (connector = 'kafka') AS SELECT * FROM t", Sink, WrittenOut),
        ("CREATE SINK s AS SELECT * FROM t WITH (connector = 'kafka')", Sink, WrittenOut),
        ("CREATE SINK s FROM t WITH (connector = 'kafka')", Sink, WrittenOut),
    ] {
        let create = stream(sql);
        assert_eq!((create.kind, create.form()), (kind, form), "{sql}");
    }
    let sink = stream("CREATE SINK s FROM \"T\" WITH (connector = 'kafka')").query.expect("a query");
    assert_eq!(sink.text, "SELECT * FROM \"T\"");
}

#[test]
fn emit_follows_a_query() {
    let every = |s| Emit::Every(Duration::from_secs(s));
    for (tail, emit) in [
        ("", None),
        (" EMIT CHANGES", Some(Emit::Changes)),
        (" emit on window close", Some(Emit::OnWindowClose)),
        (" EMIT EVERY INTERVAL '5 seconds'", Some(every(5))),
        (" EMIT EVERY INTERVAL '5' MINUTE", Some(every(300))),
        (" EMIT EVERY '1 minute 30 seconds'", Some(every(90))),
    ] {
        for query in [
            "SELECT * FROM t",
            "SELECT a FROM t WHERE a > 1",
            "SELECT a FROM t u ORDER BY a LIMIT 3",
            "SELECT a",
            "SELECT * FROM TUMBLE(t, ts, INTERVAL '5' SECOND)",
            "SELECT a FROM t JOIN u USING (a)",
            "(SELECT a FROM t) UNION ALL SELECT 1",
            "VALUES (1)",
        ] {
            let sql = format!("{query}{tail}");
            let Statement::Query(found) = one(&sql) else { panic!("{sql}") };
            assert_eq!((found.text.as_str(), found.emit), (query, emit), "{sql}");
            let created = stream(&format!("CREATE STREAM s AS {sql}"));
            assert_eq!(created.emit(), emit, "{sql}");
            assert_eq!(created.query.expect("a query").text, query, "{sql}");
        }
    }
    // Explicit, it is a name like any other.
    assert!(matches!(one("SELECT a AS emit FROM t AS emit EMIT CHANGES"), Statement::Query(q) if q.emit.is_some()));
}

#[test]
fn a_script_is_statements_with_their_text_and_place() {
    let script = "-- streams\nSELECT 1; /* two; */\n\n  SELECT ';' -- end\n  FROM t ; ;\nFLUSH";
    let found: Vec<_> = parse(script).expect("it parses").into_iter().map(|p| (p.text, p.position)).collect();
    let at = |line, column| Position { line, column };
    assert_eq!(
        found,
        [
            ("SELECT 1".to_owned(), at(2, 1)),
            ("SELECT ';' -- end\n  FROM t".to_owned(), at(4, 3)),
            ("FLUSH".to_owned(), at(6, 1))
        ]
    );
    assert!(parse(" -- nothing\n;").expect("it parses").is_empty());
    let Statement::Query(query) = one("SELECT 'ä€' AS \"ö\" FROM t EMIT CHANGES") else { panic!("a query") };
    assert_eq!(query.text, "SELECT 'ä€' AS \"ö\" FROM t");
}

#[test]
fn the_other_statements_are_read() {
    use Statement as S;
    let bare = Name::bare;
    let drop = |kind, name: Name, if_exists, cascade| DropObject { kind, name, if_exists, cascade };
    for (sql, expect) in [
        ("DROP STREAM a", drop(ObjectKind::Stream, bare("a"), false, false)),
        ("DROP TABLE IF EXISTS public.A CASCADE", drop(ObjectKind::Table, bare("a"), true, true)),
        ("drop materialized view \"A\" restrict", drop(ObjectKind::MaterializedView, bare("A"), false, false)),
        ("DROP VIEW v", drop(ObjectKind::View, bare("v"), false, false)),
        ("DROP SOURCE v", drop(ObjectKind::Source, bare("v"), false, false)),
        ("DROP SINK v", drop(ObjectKind::Sink, bare("v"), false, false)),
    ] {
        assert!(matches!(one(sql), S::Drop(found) if found == expect), "{sql}");
    }
    let dead = Name { schema: Some("millstream".into()), name: "dead_letters".into() };
    assert!(matches!(one("SHOW STREAMS"), S::ShowStreams) && matches!(one("SHOW TABLES"), S::ShowStreams));
    assert!(matches!(one("SHOW JOBS"), S::ShowJobs) && matches!(one("SHOW VIEWS"), S::ShowViews));
    assert!(matches!(one("SHOW FUNCTIONS"), S::ShowFunctions { like: None }));
    assert!(matches!(one("SHOW CONNECTORS"), S::ShowConnectors { like: None }));
    assert!(matches!(one("SHOW CONNECTORS LIKE 'f%'"), S::ShowConnectors { like: Some(x) } if x == "f%"));
    assert!(matches!(one("SHOW FUNCTIONS LIKE '%x'"), S::ShowFunctions { like: Some(x) } if x == "%x"));
    assert!(matches!(one("SHOW CREATE STREAM a"), S::ShowCreate(n) if n == bare("a")));
    assert!(matches!(one("SHOW ALL"), S::ShowSetting(None)));
    assert!(matches!(one("SHOW a.B"), S::ShowSetting(Some(n)) if n == "a.b"));
    assert!(matches!(one("DESCRIBE millstream.dead_letters"), S::Describe(n) if n == dead));
    assert!(matches!(one("DESC STREAM a"), S::Describe(n) if n == bare("a")));
    assert!(matches!(one("PAUSE STREAM a"), S::Pause(n) if n == bare("a")));
    assert!(matches!(one("RESUME STREAM a"), S::Resume(n) if n == bare("a")));
    assert!(matches!(one("SET a.b = '5 s'"), S::Set { name, value } if name == "a.b" && value == "5 s"));
    assert!(matches!(one("SET parallelism TO 4"), S::Set { value, .. } if value == "4"));
    assert!(matches!(one("SET x = -1.5"), S::Set { value, .. } if value == "-1.5"));
    assert!(matches!(one("RESET a"), S::Reset(Some(n)) if n == "a") && matches!(one("RESET ALL"), S::Reset(None)));
    assert!(matches!(one("SHOW NODES"), S::ShowNodes));
    assert!(matches!(one("DRAIN NODE 'a:1'"), S::DrainNode(address) if address == "a:1"));
    assert!(matches!(one("FLUSH"), S::Flush) && matches!(one("BEGIN"), S::Begin));
    assert!(matches!(one("START TRANSACTION"), S::Begin) && matches!(one("COMMIT WORK"), S::Commit));
    assert!(matches!(one("ROLLBACK"), S::Rollback));
    assert!(matches!(one("CREATE OR REPLACE VIEW v AS SELECT 1"), S::CreateView(v) if v.or_replace));
    assert!(matches!(one("COPY (SELECT 1) TO 'x.parquet'"), S::CopyTo(c) if c.statement.target == "x.parquet"));
    let copy = "COPY t TO 'd' STORED AS CSV PARTITIONED BY (a) OPTIONS ('format.has_header' 'true')";
    assert!(matches!(one(copy), S::CopyTo(c) if c.statement.partitioned_by == ["a"] && c.statement.options.len() == 1));
}

#[test]
fn insert_keeps_the_statement_and_the_text_of_its_rows() {
    for (sql, columns, text) in [
        ("INSERT INTO T (a, B) VALUES (1, 'x')", &["a", "b"][..], "VALUES (1, 'x')"),
        ("INSERT INTO t SELECT a FROM (SELECT 1 AS a) u", &[], "SELECT a FROM (SELECT 1 AS a) u"),
        ("INSERT INTO t (a) WITH u AS (SELECT 1) SELECT * FROM u", &["a"], "WITH u AS (SELECT 1) SELECT * FROM u"),
    ] {
        let Statement::Insert(insert) = one(sql) else { panic!("{sql}") };
        assert_eq!((insert.target.name.as_str(), insert.source.text.as_str()), ("t", text), "{sql}");
        assert_eq!(insert.columns, columns, "{sql}");
    }
    let Statement::Insert(insert) = one("INSERT INTO t SELECT * FROM u EMIT CHANGES") else { panic!("an insert") };
    assert_eq!((insert.source.emit, insert.source.text.as_str()), (Some(Emit::Changes), "SELECT * FROM u"));
}

#[test]
fn explain_has_three_targets() {
    let explain = |sql| match one(sql) {
        Statement::Explain(explain) => explain,
        other => panic!("{sql}: {other:?}"),
    };
    let e = explain("EXPLAIN SELECT * FROM t EMIT CHANGES");
    assert!(!e.analyze && matches!(e.target, ExplainTarget::Query(q) if q.emit == Some(Emit::Changes)));
    let e = explain("EXPLAIN VERBOSE CREATE STREAM s AS SELECT 1");
    assert!(e.verbose && matches!(e.target, ExplainTarget::CreateStream(_)));
    let e = explain("EXPLAIN ANALYZE STREAM hot");
    assert!(e.analyze && matches!(e.target, ExplainTarget::Stream(n) if n == Name::bare("hot")));
}

#[test]
fn what_is_shown_is_read_back() {
    for sql in [
        "CREATE STREAM s (\"A b\" BIGINT NOT NULL, date_time TIMESTAMP(3), r STRUCT<a INT, b TEXT[]>, \"table\" TEXT, \
         PRIMARY KEY (\"A b\"), WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND) \
         WITH (connector = 'x', 'a.b-c' = 'it''s')",
        "CREATE STREAM s WITH (connector = 'x') AS SELECT a, count(*) FROM \"T\" GROUP BY a EMIT EVERY INTERVAL '1500 ms'",
        "CREATE SINK \"my sink\" FROM t WITH (connector = 'x')",
    ] {
        let first = stream(sql);
        let again = stream(&first.to_string());
        assert_eq!(first.to_string(), again.to_string());
        assert_eq!(
            (&first.columns, &first.primary_key, &first.watermark),
            (&again.columns, &again.primary_key, &again.watermark)
        );
        assert_eq!((&first.options, first.emit(), &first.name), (&again.options, again.emit(), &again.name));
    }
    let Statement::CreateView(view) = one("CREATE VIEW v AS SELECT 1 -- one") else { panic!("a view") };
    assert_eq!(view.to_string(), "CREATE VIEW v AS\nSELECT 1");
}

#[test]
fn types_are_postgresql_s() {
    let timestamp = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let row = |fields: Vec<(&str, DataType)>| {
        DataType::Struct(fields.into_iter().map(|(n, t)| Field::new(n, t, true)).collect())
    };
    let map = |key, value| {
        let pair = vec![Field::new("key", key, false), Field::new("value", value, true)];
        DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair.into()), false)), false)
    };
    use TimeUnit::*;
    for (sql, expect) in [
        ("TIMESTAMP", timestamp(Microsecond, None)),
        ("TIMESTAMP(0)", timestamp(Second, None)),
        ("TIMESTAMP(3)", timestamp(Millisecond, None)),
        ("TIMESTAMP(6) WITHOUT TIME ZONE", timestamp(Microsecond, None)),
        ("TIMESTAMP(9)", timestamp(Nanosecond, None)),
        ("TIMESTAMPTZ", timestamp(Microsecond, Some("UTC"))),
        ("TIMESTAMP(3) WITH TIME ZONE", timestamp(Millisecond, Some("UTC"))),
        ("TIMESTAMP_LTZ(3)", timestamp(Millisecond, Some("UTC"))),
        ("TEXT", DataType::Utf8View),
        ("VARCHAR", DataType::Utf8View),
        ("STRING", DataType::Utf8View),
        ("CHAR", DataType::Utf8View),
        ("BIGINT", DataType::Int64),
        ("INT", DataType::Int32),
        ("INTEGER", DataType::Int32),
        ("SMALLINT", DataType::Int16),
        ("TINYINT", DataType::Int8),
        ("BIGINT UNSIGNED", DataType::UInt64),
        ("INT UNSIGNED", DataType::UInt32),
        ("DOUBLE", DataType::Float64),
        ("DOUBLE PRECISION", DataType::Float64),
        ("FLOAT8", DataType::Float64),
        ("FLOAT", DataType::Float64),
        ("FLOAT4", DataType::Float32),
        ("REAL", DataType::Float32),
        ("BOOLEAN", DataType::Boolean),
        ("DATE", DataType::Date32),
        ("TIME", DataType::Time64(Microsecond)),
        ("TIME(0)", DataType::Time32(Second)),
        ("DECIMAL(12, 2)", DataType::Decimal128(12, 2)),
        ("NUMERIC(50)", DataType::Decimal256(50, 0)),
        ("BYTEA", DataType::BinaryView),
        ("BYTES", DataType::BinaryView),
        ("INTERVAL", DataType::Interval(IntervalUnit::MonthDayNano)),
        ("INT[]", list(DataType::Int32)),
        ("ARRAY<TEXT>", list(DataType::Utf8View)),
        ("STRUCT<a INT, b TEXT>", row(vec![("a", DataType::Int32), ("b", DataType::Utf8View)])),
        ("ROW<A INT, b ROW<c TEXT>>", row(vec![("a", DataType::Int32), ("b", row(vec![("c", DataType::Utf8View)]))])),
        ("ARRAY<ROW<a INT>>", list(row(vec![("a", DataType::Int32)]))),
        ("STRUCT<a STRUCT<b INT>>[]", list(row(vec![("a", row(vec![("b", DataType::Int32)]))]))),
        ("STRUCT<a STRUCT<b INT>[]>", row(vec![("a", list(row(vec![("b", DataType::Int32)])))])),
        ("MAP(TEXT, INT)", map(DataType::Utf8View, DataType::Int32)),
    ] {
        let create = stream(&format!("CREATE TABLE t (x {sql})"));
        assert_eq!(create.columns[0].data_type, expect, "{sql}");
    }
    // A column with the name of a type stays a column.
    assert!(matches!(one("SELECT * FROM t WHERE row < a AND b > 1"), Statement::Query(_)));
}

#[test]
fn errors_name_the_place_and_what_to_write() {
    let mut wrong = Vec::new();
    for (sql, place, message, hint) in [
        ("CREAT STREAM s", (1, 1), "syntax error at or near \"CREAT\"", "Did you mean CREATE?"),
        ("SELECT 1;\n SELCT 2", (2, 2), "syntax error at or near \"SELCT\"", "Did you mean SELECT?"),
        ("CREATE STRAEM s", (1, 8), "syntax error at or near \"STRAEM\"", "Did you mean CREATE STREAM?"),
        ("CREATE INDEX i", (1, 8), "CREATE INDEX is not supported", "Write CREATE STREAM"),
        ("CREATE EXTERNAL TABLE t", (1, 8), "CREATE EXTERNAL is not supported", "Write CREATE STREAM name"),
        ("SELECT 1 +", (1, 11), "syntax error at end of input: expected an expression", ""),
        ("SELECT * FROM t WHERE )", (1, 23), "syntax error at or near \")\": expected an expression", ""),
        ("SELECT 1 2", (1, 10), "syntax error at or near \"2\": expected end of statement", ""),
        ("SELECT 'a", (1, 8), "unterminated string literal", ""),
        (
            "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
            (1, 1),
            "MERGE is not supported",
            "Write INSERT … ON CONFLICT (key)",
        ),
        ("DROP INDEX i", (1, 6), "DROP INDEX is not known", "Write STREAM"),
        ("DROP TABLE a, b", (1, 13), "DROP of several objects", "Write one DROP"),
        (
            "SELECT a FROM t EMIT FINAL",
            (1, 22),
            "EMIT FINAL is not supported",
            "Write EMIT ON WINDOW CLOSE, EMIT CHANGES",
        ),
        ("SELECT a FROM t EMIT", (1, 21), "syntax error at end of input: EMIT what?", "Write EMIT ON WINDOW CLOSE"),
        ("SELECT a FROM t EMIT EVERY 5", (1, 28), "EMIT EVERY needs a length of time", "Write it like"),
        ("SELECT a FROM t EMIT EVERY INTERVAL '1 month'", (1, 28), "EMIT EVERY cannot count months", "Write"),
        ("SELECT a FROM t LATE TO x", (1, 17), "LATE TO is not supported", "Leave it out"),
        ("SELECT a FROM t EMIT CHANGES LATE TO x", (1, 30), "LATE TO is not supported", "Leave it out"),
        ("CREATE STREAM s (a INT, a TEXT)", (1, 25), "column \"a\" is written more than once", ""),
        ("CREATE STREAM s (a)", (1, 18), "column \"a\" has no type", "Write it behind the name, such as a BIGINT"),
        ("CREATE STREAM s (a VARCHAR(10))", (1, 20), "column \"a\": type VARCHAR(10) is not supported", "Write TEXT"),
        ("CREATE STREAM s (a TIMESTAMP(4))", (1, 20), "column \"a\": type TIMESTAMP(4)", "The precision is"),
        ("CREATE STREAM s (a INT, b AS a + 1)", (1, 25), "column \"b\": computed columns", "Compute it"),
        ("CREATE STREAM s (a INT METADATA VIRTUAL)", (1, 33), "column \"a\": VIRTUAL is not supported", "Leave it"),
        ("CREATE STREAM s (a INT METADATA METADATA)", (1, 33), "column \"a\": METADATA is not supported", "NOT NULL,"),
        ("CREATE STREAM s (a INT METADATA FROM b)", (1, 38), "syntax error at or near \"b\"", ""),
        ("CREATE STREAM s (a INT DEFAULT 1)", (1, 24), "column \"a\": DEFAULT 1 is not supported", "NOT NULL,"),
        ("CREATE STREAM s (a INT, UNIQUE (a))", (1, 25), "UNIQUE is not supported", "PRIMARY KEY is"),
        ("CREATE STREAM s (a INT, LIKE t)", (1, 25), "LIKE is not supported", ""),
        (
            "CREATE STREAM s (a INT, PRIMARY KEY (b))",
            (1, 8),
            "column \"b\" in PRIMARY KEY of stream \"s\"",
            "The columns are: a.",
        ),
        ("CREATE STREAM s (a INT PRIMARY KEY, PRIMARY KEY (a))", (1, 37), "PRIMARY KEY is written more than once", ""),
        (
            "CREATE STREAM s (a INT, WATERMARK FOR a AS a)",
            (1, 8),
            "column \"a\" in WATERMARK of stream \"s\" is not a",
            "",
        ),
        ("CREATE STREAM s (a INT) PARTITIONED BY (a)", (1, 25), "PARTITIONED BY is not supported", "Leave it out"),
        ("CREATE STREAM s (a INT) WITH (x = 1, x = 2)", (1, 38), "option \"x\" is written more than once", ""),
        ("CREATE STREAM s", (1, 8), "stream \"s\" has neither columns", "Write CREATE STREAM"),
        ("CREATE STREAM s (a INT) AS SELECT 1", (1, 8), "stream \"s\" has both columns and AS SELECT", "Leave"),
        ("CREATE STREAM s (a INT) EMIT CHANGES", (1, 25), "EMIT without a query", ""),
        ("CREATE TABLE t AS SELECT 1", (1, 8), "table \"t\" has AS SELECT", "Write CREATE STREAM"),
        ("CREATE SOURCE s (a INT)", (1, 8), "source \"s\" needs a connector", "Add WITH"),
        ("CREATE SINK s FROM t", (1, 8), "sink \"s\" needs a query and a connector", "Write CREATE SINK"),
        ("CREATE MATERIALIZED VIEW v (a INT)", (1, 8), "materialized view \"v\" needs a query", "Add AS"),
        ("CREATE VIEW v AS SELECT 1 EMIT CHANGES", (1, 27), "view \"v\": a view does not emit", "Write CREATE STREAM"),
        ("CREATE OR REPLACE STREAM IF NOT EXISTS s (a INT)", (1, 19), "OR REPLACE and IF NOT EXISTS", "Write one"),
        ("EXPLAIN ANALYZE CREATE STREAM s AS SELECT 1", (1, 17), "EXPLAIN ANALYZE CREATE", "Create it"),
        ("COPY t FROM 'x'", (1, 1), "COPY … FROM is not supported", "Read files with"),
        ("SELECT /*+ BROADCAST(t) */ 1", (1, 8), "optimizer hints", "Write options"),
        (
            "INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 1",
            (1, 1),
            "INSERT … ON DUPLICATE KEY UPDATE is not supported",
            "In a stream",
        ),
        ("SET x 1", (1, 7), "syntax error at or near \"1\": expected = or TO", ""),
    ] {
        let Err(e) = parse(sql) else {
            wrong.push(format!("{sql}\n  was read"));
            continue;
        };
        let at = e.position().map(|p| (p.line, p.column));
        let found_hint = e.hint().unwrap_or_default();
        if !e.message().starts_with(message) || !found_hint.starts_with(hint) || at != Some(place) {
            wrong.push(format!("{sql}\n  {} ({found_hint}) at {at:?}, not {message} at {place:?}", e.message()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn clauses_that_would_be_ignored_are_refused_by_name() {
    let mut wrong = Vec::new();
    for (sql, column, message) in [
        ("SELECT * FROM a JOIN b FOR SYSTEM_TIME AS OF now(1) ON a.x = b.x", 24, "FOR SYSTEM_TIME AS OF another time"),
        ("SELECT * FROM a FOR SYSTEM_TIME AS OF now()", 17, "FOR SYSTEM_TIME AS OF outside of an inner or left JOIN"),
        (
            "SELECT * FROM a, b FOR SYSTEM_TIME AS OF now()",
            20,
            "FOR SYSTEM_TIME AS OF outside of an inner or left JOIN",
        ),
        (
            "SELECT * FROM a FULL JOIN b FOR SYSTEM_TIME AS OF now() ON a.x = b.x",
            29,
            "FOR SYSTEM_TIME AS OF outside of an inner or left JOIN",
        ),
        (
            "SELECT * FROM a JOIN b FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-01' ON a.x = b.x",
            24,
            "FOR SYSTEM_TIME AS OF another time",
        ),
        ("SELECT * FROM t TABLESAMPLE BERNOULLI (10)", 17, "TABLESAMPLE"),
        ("SELECT * FROM (SELECT 1) s TABLESAMPLE (10)", 28, "TABLESAMPLE"),
        ("SELECT * FROM t WITH (NOLOCK)", 17, "WITH after a table"),
        ("SELECT * FROM f(1) WITH ORDINALITY", 20, "WITH ORDINALITY"),
        ("SELECT * FROM UNNEST([1]) WITH OFFSET", 27, "WITH OFFSET"),
        ("SELECT * FROM t LATERAL VIEW explode(a) x AS y", 17, "LATERAL VIEW"),
        ("SELECT * FROM t PIVOT (sum(a) FOR b IN ('x'))", 17, "PIVOT"),
        ("SELECT a FROM t GROUP BY a WITH ROLLUP", 28, "WITH after GROUP BY"),
        ("SELECT a FROM t FOR UPDATE", 17, "FOR UPDATE"),
        ("SELECT a FROM t FETCH FIRST 3 PERCENT ROWS ONLY", 17, "FETCH … PERCENT"),
        ("SELECT a FROM t ORDER BY a LIMIT 2 FETCH FIRST 3 ROWS ONLY", 36, "FETCH beside LIMIT"),
        ("SELECT a FROM t FETCH FIRST 3 ROWS WITH TIES", 36, "WITH TIES without ORDER BY"),
        ("SELECT * FROM a GLOBAL JOIN b ON a.x = b.x", 29, "GLOBAL JOIN"),
        (
            "SELECT * FROM a ASOF LEFT JOIN LATERAL (SELECT 1 AS x) b MATCH_CONDITION (a.x >= b.x)",
            41,
            "LATERAL right of an ASOF JOIN",
        ),
        ("SELECT a INTO b FROM t", 10, "INTO"),
        ("SELECT TOP 3 a FROM t", 8, "TOP"),
        ("SELECT a FROM t SORT BY a", 17, "SORT BY"),
        ("SELECT * FROM (SELECT 1) AS t (a INT)", 29, "a type in a table's alias"),
        ("SELECT a FROM t UNION ALL SELECT b FROM u ORDER BY ALL", 43, "ORDER BY ALL of a set operation"),
        ("SELECT * FROM t MATCH_RECOGNIZE (PATTERN (A) DEFINE A AS a > 1)", 17, "MATCH_RECOGNIZE"),
        ("TABLE t", 1, "TABLE name as a query"),
        ("SELECT count(*) FROM t GROUP BY TUMBLE(ts, INTERVAL '1 s')", 33, "a window function outside FROM"),
        ("SELECT a FROM t WHERE a IN (SELECT b FROM u TABLESAMPLE (1))", 45, "TABLESAMPLE"),
    ] {
        let Err(e) = parse(sql) else {
            wrong.push(format!("{sql}\n  was read"));
            continue;
        };
        let expect =
            (ErrorKind::Unsupported, format!("{message} is not supported"), Some(Position { line: 1, column }));
        let found = (e.kind(), e.message().to_owned(), e.position());
        if found != expect {
            wrong.push(format!("{sql}\n  {found:?}\n  {expect:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // In every statement with a query.
    for sql in [
        "CREATE STREAM s AS SELECT * FROM t TABLESAMPLE (1)",
        "CREATE VIEW s AS SELECT * FROM t TABLESAMPLE (1)",
        "INSERT INTO s SELECT * FROM t TABLESAMPLE (1)",
        "COPY (SELECT * FROM t TABLESAMPLE (1)) TO 'x'",
        "EXPLAIN SELECT * FROM t TABLESAMPLE (1)",
    ] {
        assert_eq!(error(sql).message(), "TABLESAMPLE is not supported", "{sql}");
    }
}

#[test]
fn names_are_quoted_where_they_must_be() {
    for (name, quoted) in [
        ("bids", "bids"),
        ("Bids", "\"Bids\""),
        ("my stream", "\"my stream\""),
        ("a\"b", "\"a\"\"b\""),
        ("select", "\"select\""),
        ("1a", "\"1a\""),
    ] {
        assert_eq!(quote_name(name), quoted);
    }
}
