//! Who may do what: a table of attempts, by users with few rights and by nobody.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::{StreamExt, TryStreamExt, stream};
use millstream_engine::connector::registry::{Connector, Guarantee, Readable, SourceRequest};
use millstream_engine::connector::{Source, built_in};
use millstream_engine::options::{OptionSpec, Options, Takes};
use millstream_engine::reach::Reach;
use millstream_sql::rights::{Hidden, Key};
use millstream_sql::session::IngestMode;
use millstream_sql::{Config, ErrorKind, Millstream, Outcome, Principal, Result, Session};

const PASSWORD: &str = "correct horse battery";

struct Store {
    millstream: Arc<Millstream>,
    _folder: tempfile::TempDir,
}

impl Store {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { parallelism: 1, ..Config::new(folder.path().to_string_lossy()) };
        Store { millstream: Millstream::open(config).await.unwrap(), _folder: folder }
    }

    /// Streams `a` and `b`, `d` derived of `a`, views `v` of `a` and `w` of both; and users named by their rights.
    async fn guarded() -> Self {
        let store = Store::open().await;
        store.millstream.add_admin("admin", Hidden::new(PASSWORD)).await.unwrap();
        let admin = store.session("admin");
        for sql in [
            "CREATE STREAM a (x BIGINT)",
            "CREATE STREAM b (x BIGINT)",
            "CREATE STREAM d AS SELECT x, x * 2 AS y FROM a",
            "CREATE VIEW v AS SELECT x FROM a WHERE x > 0",
            "CREATE VIEW w AS SELECT a.x FROM a JOIN b ON a.x = b.x",
            "CREATE USER reads_a",
            "CREATE USER writes_a",
            "CREATE USER keeps_a",
            "CREATE USER reads_v",
            "CREATE USER none",
            "GRANT read ON STREAM a TO reads_a",
            "GRANT write ON STREAM a TO writes_a",
            "GRANT admin ON STREAM a TO keeps_a",
            "GRANT read ON VIEW v TO reads_v",
            "INSERT INTO a VALUES (1), (2)",
            "INSERT INTO b VALUES (2)",
            "FLUSH",
        ] {
            admin.execute_sql(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        store
    }

    fn session(&self, user: &str) -> Session {
        self.millstream.session_of(self.millstream.access().known(user, "127.0.0.1").unwrap())
    }

    async fn admin(&self, sql: &str) {
        self.session("admin").execute_sql(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

/// Runs a statement to the end of its rows; changes are looked at until the first.
async fn run(session: &Session, sql: &str) -> Result<Vec<RecordBatch>> {
    Ok(match session.execute_sql(sql).await? {
        Outcome::Done(_) => vec![],
        Outcome::Rows(rows) => rows.rows.try_collect().await?,
        Outcome::Changes(mut feed) => feed.epochs.next().await.unwrap()?.batches,
    })
}

async fn texts(session: &Session, sql: &str, column: &str) -> Vec<String> {
    let batches = run(session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let text = |batch: &RecordBatch| {
        let column = arrow::compute::cast(batch.column_by_name(column).unwrap(), &DataType::Utf8).unwrap();
        column.as_string::<i32>().iter().map(|t| t.unwrap_or("NULL").to_owned()).collect::<Vec<_>>()
    };
    batches.iter().flat_map(text).collect()
}

/// (user, statement, whether it is allowed).
const ATTEMPTS: &[(&str, &str, bool)] = &[
    ("reads_a", "SELECT * FROM a", true),
    ("reads_a", "SELECT * FROM public.a", true),
    ("reads_a", "SELECT * FROM a EMIT CHANGES", true),
    ("reads_a", "SELECT * FROM b", false),
    ("reads_a", "SELECT * FROM b EMIT CHANGES", false),
    ("reads_a", "SELECT * FROM d", false),
    ("reads_a", "SELECT * FROM v", false),
    ("reads_a", "SELECT * FROM nothing", false),
    ("reads_a", "SELECT (SELECT max(x) FROM b) FROM a", false),
    ("reads_a", "SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.x = a.x)", false),
    ("reads_a", "WITH c AS (SELECT * FROM b) SELECT 1 FROM a", false),
    ("reads_a", "SELECT * FROM a UNION ALL SELECT * FROM b", false),
    ("reads_a", "SELECT * FROM TUMBLE(b, x, INTERVAL '1 hour')", false),
    ("reads_a", "COPY a TO 'stolen.csv'", false),
    ("reads_a", "COPY (SELECT * FROM a) TO 'stolen.csv'", false),
    ("reads_a", "INSERT INTO a VALUES (3)", false),
    ("reads_a", "EXPLAIN SELECT * FROM a", true),
    ("reads_a", "EXPLAIN SELECT * FROM b", false),
    ("reads_a", "EXPLAIN CREATE STREAM z AS SELECT * FROM b", false),
    ("reads_a", "EXPLAIN STREAM d", false),
    ("reads_a", "EXPLAIN ANALYZE STREAM d", false),
    ("reads_a", "EXPLAIN ANALYZE STREAM a", true),
    ("reads_a", "DESCRIBE a", true),
    ("reads_a", "DESCRIBE b", false),
    ("reads_a", "SHOW CREATE STREAM a", true),
    ("reads_a", "SHOW CREATE STREAM d", false),
    ("reads_a", "CREATE STREAM z (x BIGINT)", false),
    ("reads_a", "CREATE OR REPLACE STREAM a (x BIGINT)", false),
    ("reads_a", "CREATE STREAM IF NOT EXISTS a (x BIGINT)", false),
    ("reads_a", "CREATE VIEW z AS SELECT * FROM a", false),
    ("reads_a", "CREATE STREAM z AS SELECT * FROM a", false),
    ("reads_a", "DROP STREAM a", false),
    ("reads_a", "DROP STREAM IF EXISTS b", false),
    ("reads_a", "PAUSE STREAM d", false),
    ("reads_a", "RESUME STREAM d", false),
    ("reads_a", "SET memory_limit = '8GB'", false),
    ("reads_a", "RESET memory_limit", false),
    ("reads_a", "SET parallelism = 1", true),
    ("reads_a", "GRANT write ON STREAM a TO reads_a", false),
    ("reads_a", "GRANT admin ON ALL TO reads_a", false),
    ("reads_a", "REVOKE read ON STREAM a FROM keeps_a", false),
    ("reads_a", "CREATE USER mole PASSWORD 'hunter2hunter2'", false),
    ("reads_a", "ALTER USER admin PASSWORD 'hunter2hunter2'", false),
    ("reads_a", "DROP USER admin", false),
    ("reads_a", "SHOW SECRETS", false),
    ("reads_a", "SELECT * FROM millstream.dead_letters", true),
    ("writes_a", "INSERT INTO a VALUES (3)", true),
    ("writes_a", "INSERT INTO b VALUES (3)", false),
    ("writes_a", "INSERT INTO a SELECT x FROM a", false),
    ("writes_a", "INSERT INTO a SELECT x FROM public.a", false),
    ("writes_a", "INSERT INTO a SELECT x FROM b", false),
    ("writes_a", "INSERT INTO a SELECT (SELECT max(x) FROM a)", false),
    ("writes_a", "INSERT INTO a SELECT 5 WHERE EXISTS (SELECT 1 FROM a AS b WHERE b.x = 2)", false),
    ("writes_a", "INSERT INTO a WITH c AS (SELECT x FROM a) SELECT x FROM c", false),
    ("writes_a", "SELECT * FROM a", false),
    ("writes_a", "DESCRIBE a", true),
    ("writes_a", "SHOW CREATE STREAM a", false),
    ("reads_v", "SELECT * FROM v", true),
    ("reads_v", "SELECT * FROM v EMIT CHANGES", true),
    ("reads_v", "SELECT * FROM a", false),
    ("reads_v", "SELECT * FROM w", false),
    ("reads_v", "EXPLAIN SELECT * FROM v", false),
    ("reads_v", "SHOW CREATE VIEW v", false),
    ("reads_v", "DROP VIEW v", false),
    ("keeps_a", "SELECT * FROM a", true),
    ("keeps_a", "PAUSE STREAM b", false),
    ("keeps_a", "DROP STREAM a CASCADE", false),
    ("keeps_a", "CREATE OR REPLACE STREAM a AS SELECT * FROM b", false),
    ("keeps_a", "CREATE OR REPLACE STREAM a (x BIGINT) WITH (connector = 'datagen', rows = 1)", false),
    ("keeps_a", "CREATE OR REPLACE STREAM z AS SELECT * FROM a", false),
    ("keeps_a", "GRANT read ON STREAM b TO keeps_a", false),
    ("keeps_a", "GRANT read ON STREAM a TO none", true),
    ("keeps_a", "REVOKE read ON STREAM a FROM none", true),
    ("none", "SELECT 1", true),
    ("none", "SELECT * FROM a", false),
    ("none", "SELECT count(*) FROM a", false),
    ("none", "SHOW FUNCTIONS", true),
    ("none", "FLUSH", true),
    ("none", "ALTER USER none PASSWORD 'a new one for me'", true),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_attempts() {
    let store = Store::guarded().await;
    for (user, sql, allowed) in ATTEMPTS {
        let session = store.session(user);
        // Prepared first, as clients do: that must not tell more.
        let prepared = session.prepare(sql).await;
        let done = run(&session, sql).await;
        match (allowed, done) {
            (true, Ok(_)) => assert!(prepared.is_ok(), "{user}: {sql}: {:?}", prepared.err()),
            (true, Err(e)) => panic!("{user}: {sql}: {e}"),
            (false, Ok(rows)) => panic!("{user}: {sql}: {rows:?}"),
            (false, Err(e)) => {
                assert_eq!(e.kind(), ErrorKind::Denied, "{user}: {sql}: {e}");
                assert!(e.hint().is_some(), "{sql}");
                if let Ok(prepared) = prepared {
                    assert!(session.execute_prepared(&prepared, None).await.is_err(), "{user}: {sql}");
                }
            }
        }
        let nobody = store.millstream.session_of(Principal::anonymous("127.0.0.1"));
        assert_eq!(run(&nobody, sql).await.err().map(|e| e.kind()), Some(ErrorKind::Denied), "nobody: {sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_what_may_be_read() {
    let store = Store::guarded().await;
    let (reader, viewer, admin) = (store.session("reads_a"), store.session("reads_v"), store.session("admin"));
    assert_eq!(texts(&reader, "SHOW STREAMS", "name").await, ["a"]);
    assert_eq!(texts(&reader, "SHOW JOBS", "stream").await, ["a"]);
    assert!(texts(&reader, "SHOW VIEWS", "name").await.is_empty());
    assert_eq!(texts(&viewer, "SHOW VIEWS", "name").await, ["v"]);
    assert_eq!(texts(&viewer, "SHOW VIEWS", "query").await, ["NULL"], "its text names what may not be read");
    assert_eq!(texts(&admin, "SHOW STREAMS", "name").await, ["a", "b", "d"]);
    assert_eq!(texts(&reader, "SHOW USERS", "name").await, ["reads_a"]);
    assert_eq!(texts(&reader, "SHOW GRANTS", "right").await, ["read"]);
    assert_eq!(texts(&admin, "SHOW GRANTS", "user").await, ["admin", "keeps_a", "reads_a", "reads_v", "writes_a"]);
    let named = |session: &Session| session.objects().into_iter().map(|o| (o.name, o.sql)).collect::<Vec<_>>();
    let listed = named(&viewer);
    assert_eq!(listed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["dead_letters", "v"]);
    assert_eq!(listed[1].1, "");
    assert!(named(&admin).iter().any(|(name, sql)| name == "v" && sql.contains("FROM a")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_back_ends_what_runs() {
    let store = Store::guarded().await;
    for (grant, revoke, sql, user) in [
        ("", "REVOKE read ON STREAM a FROM reads_a", "SELECT * FROM a EMIT CHANGES", "reads_a"),
        ("", "REVOKE read ON VIEW v FROM reads_v", "SELECT * FROM v EMIT CHANGES", "reads_v"),
        (
            "GRANT read ON STREAM a TO reads_a",
            "ALTER USER reads_a PASSWORD 'another one'",
            "SELECT * FROM a EMIT CHANGES",
            "reads_a",
        ),
        ("", "DROP USER reads_a", "SELECT * FROM a EMIT CHANGES", "reads_a"),
    ] {
        if !grant.is_empty() {
            store.admin(grant).await;
        }
        let session = store.session(user);
        let Outcome::Changes(mut feed) = session.execute_sql(sql).await.unwrap() else { panic!("{sql}") };
        feed.epochs.next().await.unwrap().unwrap();
        store.admin(revoke).await;
        // Nothing comes any more: it ends all the same.
        let mut rest = feed.epochs;
        let end = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                match rest.next().await {
                    Some(Ok(_)) => {}
                    end => return end,
                }
            }
        });
        let end = end.await.unwrap_or_else(|_| panic!("{revoke}: it goes on"));
        assert_eq!(end.and_then(Result::err).map(|e| e.kind()), Some(ErrorKind::Denied), "{revoke}");
        assert!(rest.next().await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_reads_in_the_name_of_who_made_it() {
    let store = Store::guarded().await;
    store.admin("CREATE USER maker").await;
    store.admin("GRANT admin ON ALL TO maker").await;
    let maker = store.session("maker");
    maker.execute_sql("CREATE VIEW of_b AS SELECT x FROM b").await.unwrap();
    store.admin("GRANT read ON VIEW of_b TO none").await;
    let none = store.session("none");
    assert_eq!(run(&none, "SELECT * FROM of_b").await.unwrap()[0].num_rows(), 1);
    let used = store.session("admin").execute_sql("DROP USER maker").await.err().unwrap();
    assert!(used.message().contains("has made \"of_b\""), "{used}");
    store.admin("REVOKE admin ON ALL FROM maker").await;
    let e = run(&none, "SELECT * FROM of_b").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied, "the view has no more rights than who made it: {e}");
    store.admin("DROP VIEW of_b").await;
    store.admin("DROP USER maker").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_go_with_what_they_were_on() {
    let store = Store::guarded().await;
    store.admin("DROP STREAM a CASCADE").await;
    store.admin("CREATE STREAM a (x BIGINT)").await;
    let e = run(&store.session("reads_a"), "SELECT * FROM a").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert_eq!(texts(&store.session("admin"), "SHOW GRANTS", "user").await, ["admin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_from_outside_need_the_right_to_write() {
    let store = Store::guarded().await;
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    let batch = || {
        let column = Arc::new(arrow::array::Int64Array::from(vec![7]));
        RecordBatch::try_new(schema.clone(), vec![column]).unwrap()
    };
    let ingest = async |user: &str, stream: &str, mode| {
        let rows = stream::iter([Ok(batch())]).boxed();
        store.session(user).ingest(stream, mode, schema.clone(), rows).await.map_err(|e| e.kind())
    };
    assert_eq!(ingest("writes_a", "a", IngestMode::Append).await, Ok(1));
    assert_eq!(ingest("writes_a", "a", IngestMode::CreateAppend).await, Ok(1));
    for (user, stream, mode) in [
        ("writes_a", "b", IngestMode::Append),
        ("writes_a", "new", IngestMode::Create),
        ("writes_a", "new", IngestMode::CreateAppend),
        ("writes_a", "a", IngestMode::Replace),
        ("reads_a", "a", IngestMode::Append),
        ("none", "nothing", IngestMode::Append),
    ] {
        assert_eq!(ingest(user, stream, mode).await, Err(ErrorKind::Denied), "{user} {stream} {mode:?}");
    }
    // A put that has begun ends when the right does.
    let (send, rows) = tokio::sync::mpsc::channel(1);
    let rows = stream::unfold(rows, |mut rows| async move { rows.recv().await.map(|row| (row, rows)) }).boxed();
    let mut put = store.session("writes_a").put("a", rows).unwrap();
    send.send(Ok(batch())).await.unwrap();
    assert_eq!(put.next().await.unwrap().unwrap(), 1);
    store.admin("REVOKE write ON STREAM a FROM writes_a").await;
    send.send(Ok(batch())).await.unwrap();
    assert_eq!(put.next().await.unwrap().unwrap_err().kind(), ErrorKind::Denied);
    let rows = run(&store.session("admin"), "SELECT count(*) AS n FROM a").await.unwrap();
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 5, "two of before, and three");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_of_streams_that_may_be_read() {
    let store = Store::guarded().await;
    store.admin("CREATE STREAM e AS SELECT 10 / x AS y FROM b").await;
    store.admin("INSERT INTO b VALUES (0)").await;
    store.admin("FLUSH").await;
    let seen = async |user: &str| {
        let raw = texts(&store.session(user), "SELECT text FROM millstream.dead_letters", "text").await;
        raw.len()
    };
    assert_eq!(seen("admin").await, 1);
    assert_eq!(seen("reads_a").await, 0);
    store.admin("GRANT read ON STREAM e TO reads_a").await;
    assert_eq!(seen("reads_a").await, 0, "they hold rows of what it reads");
    store.admin("GRANT read ON STREAM b TO reads_a").await;
    assert_eq!(seen("reads_a").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_are_right_or_wrong_and_slow_down() {
    let store = Store::guarded().await;
    let log_in = async |user: &str, password: &str, address: &str| {
        store.millstream.log_in(user, Hidden::new(password), address).await
    };
    let who = log_in("admin", PASSWORD, "10.0.0.1").await.unwrap();
    assert_eq!(who.user_name(), Some("admin"));
    let wrong = log_in("admin", "wrong", "10.0.0.1").await.unwrap_err();
    let unknown = log_in("nobody", "wrong", "10.0.0.2").await.unwrap_err();
    assert_eq!((wrong.kind(), wrong.message()), (ErrorKind::Denied, unknown.message()));
    assert!(log_in("none", "", "10.0.0.3").await.is_err(), "a user without a password has none");
    for _ in 0..5 {
        let _ = log_in("nobody", "wrong", "10.0.0.9").await;
    }
    let refused = log_in("admin", PASSWORD, "10.0.0.9").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Exhausted, "{refused}");
    assert!(log_in("admin", PASSWORD, "10.0.0.1").await.is_ok(), "others are not held up");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_grants_are_kept_and_passwords_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { parallelism: 1, ..Config::new(folder.path().to_string_lossy()) };
    let millstream = Millstream::open(config.clone()).await.unwrap();
    let nobody = millstream.session_of(Principal::anonymous("127.0.0.1"));
    let e = nobody.execute_sql("CREATE USER mole PASSWORD 'hunter2hunter2'").await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Denied, "the first user is made on the store: {e}");
    let owner = millstream.session();
    for sql in
        ["CREATE STREAM s (x BIGINT)", "CREATE USER ann PASSWORD 'hunter2hunter2'", "GRANT read ON STREAM s TO ann"]
    {
        owner.execute_sql(sql).await.unwrap();
    }
    assert!(nobody.execute_sql("SELECT * FROM s").await.is_err(), "who came before there were users is out");
    drop((nobody, owner));
    millstream.close().await.unwrap();
    drop(millstream);
    for entry in std::fs::read_dir(folder.path().join("catalog")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("hunter2"));
    }
    let millstream = Millstream::open(config).await.unwrap();
    let ann = millstream.log_in("ann", Hidden::new("hunter2hunter2"), "127.0.0.1").await.unwrap();
    millstream.session_of(ann).execute_sql("SELECT * FROM s").await.unwrap();
    millstream.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_from_outside_reach_what_was_said_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::create_dir(&outside).unwrap();
    for place in [&inside, &outside] {
        std::fs::write(place.join("a.csv"), "x\n1\n").unwrap();
    }
    let store = folder.path().join("store");
    let plain = Config { parallelism: 1, ..Config::new(store.to_string_lossy()) };
    let reach = Reach::new(Some(&inside), std::slice::from_ref(&store), &[]).unwrap();
    let served = Config { reach: Some(Arc::new(reach)), ..plain.clone() };
    let create = |name: &str, place: &std::path::Path| {
        let path = place.join("a.csv");
        format!("CREATE STREAM {name} (x BIGINT) WITH (connector = 'file', path = '{}')", path.display())
    };
    let nobody = Principal::anonymous("127.0.0.1");

    let millstream = Millstream::open(served.clone()).await.unwrap();
    let session = millstream.session_of(nobody.clone());
    session.execute_sql(&create("a", &inside)).await.unwrap();
    let e = session.execute_sql(&create("b", &outside)).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
    let e = session.execute_sql("CREATE STREAM i (x BIGINT) WITH (connector = 'stdin', format = 'csv')").await;
    assert_eq!(e.err().map(|e| e.kind()), Some(ErrorKind::Denied));
    // The owner is free, and what it has made is for all.
    millstream.session().execute_sql(&create("b", &outside)).await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(run(&session, &format!("SELECT * FROM {name}")).await.unwrap()[0].num_rows(), 1);
    }
    // A link that takes the place of the file is found when it is opened.
    std::fs::remove_file(inside.join("a.csv")).unwrap();
    std::os::unix::fs::symlink(outside.join("a.csv"), inside.join("a.csv")).unwrap();
    assert_eq!(run(&session, "SELECT * FROM a").await.unwrap_err().kind(), ErrorKind::Denied);
    drop(session);
    millstream.close().await.unwrap();
    drop(millstream);

    // Served again with another reach it stays closed; where nothing is served its owner opens it.
    let closed = Config { reach: Some(Arc::default()), ..plain.clone() };
    let millstream = Millstream::open(closed).await.unwrap();
    assert_eq!(run(&millstream.session(), "SELECT * FROM a").await.unwrap_err().kind(), ErrorKind::Denied);
    millstream.close().await.unwrap();
    drop(millstream);
    let millstream = Millstream::open(plain).await.unwrap();
    assert_eq!(run(&millstream.session(), "SELECT * FROM a").await.unwrap()[0].num_rows(), 1);
    let session = millstream.session_of(nobody);
    let e = session.execute_sql(&create("c", &inside)).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Denied, "nothing was said of what may be touched: {e}");
    drop(session);
    millstream.close().await.unwrap();
}

const SECRET: OptionSpec = OptionSpec::new("token", Takes::Text, "secret:k", "how many rows").secret();

/// Makes as many rows as its secret says.
struct Locked;

impl Connector for Locked {
    fn name(&self) -> &str {
        "locked"
    }

    fn about(&self) -> &str {
        "rows for a test"
    }

    fn source(&self) -> Option<&dyn Readable> {
        Some(self)
    }
}

impl Readable for Locked {
    fn options(&self) -> Vec<OptionSpec> {
        vec![SECRET]
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn scan(&self, mut request: SourceRequest) -> millstream_engine::Result<Arc<dyn Source>> {
        let rows = request.options.required(&SECRET)?;
        request.options.finish()?;
        let options = Options::new("stream \"s\"", [("rows".to_owned(), rows)].into());
        built_in().to_read("datagen")?.readable()?.scan(SourceRequest { options, ..request })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_put_in_when_a_connector_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Config { parallelism: 1, ..Config::new(folder.path().to_string_lossy()) };
    let connectors = plain.connectors.clone().with(Locked);
    let key = Some(Key::of("0123456789abcdef0123456789abcdef").unwrap());
    let config = Config { connectors, key, ..plain };
    let millstream = Millstream::open(config.clone()).await.unwrap();
    let owner = millstream.session();
    let with = async |name: &str, value: &str| {
        let create = format!("CREATE STREAM {name} (x BIGINT) WITH (connector = 'locked', token = '{value}')");
        owner.execute_sql(&create).await.map(drop)
    };
    let e = with("s", "3").await.err().unwrap();
    assert!(e.hint().unwrap().contains("CREATE SECRET token AS"), "{e:?}");
    assert_eq!(with("s", "secret:k").await.err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    owner.execute_sql("CREATE SECRET k AS '3'").await.unwrap();
    with("s", "secret:k").await.unwrap();
    let count = async |session: &Session| {
        let rows = run(session, "SELECT count(*) FROM s").await?;
        Ok::<_, millstream_sql::Error>(rows[0].column(0).as_primitive::<Int64Type>().value(0))
    };
    assert_eq!(count(&owner).await.unwrap(), 3);
    owner.execute_sql("CREATE OR REPLACE SECRET k AS '5'").await.unwrap();
    assert_eq!(count(&owner).await.unwrap(), 5, "it is looked up each time");
    let e = owner.execute_sql("DROP SECRET k").await.err().unwrap();
    assert!(e.message().contains("named by stream \"s\""), "{e}");
    assert_eq!(texts(&owner, "SHOW SECRETS", "name").await, ["k"]);
    assert!(texts(&owner, "SHOW CREATE STREAM s", "statement").await[0].contains("'secret:k'"));
    drop(owner);
    millstream.close().await.unwrap();
    drop(millstream);
    let other = Some(Key::of("another key of thirty-two characters").unwrap());
    let millstream = Millstream::open(Config { key: other, ..config }).await.unwrap();
    let e = count(&millstream.session()).await.unwrap_err();
    assert!(e.message().contains("under another key"), "{e}");
    millstream.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_has_what_was_done_and_what_was_refused() {
    let store = Store::guarded().await;
    let _ = store.session("reads_a").execute_sql("SELECT * FROM b").await;
    let _ = store.session("reads_a").execute_sql("CREATE USER mole PASSWORD 'hunter2hunter2'").await;
    let _ = store.millstream.log_in("admin", Hidden::new("wrong"), "10.1.1.1").await;
    let admin = store.session("admin");
    let told =
        async |sql: &str| texts(&admin, &format!("SELECT {sql} AS t FROM millstream.audit ORDER BY at"), "t").await;
    let statements = told("coalesce(\"user\", '-') || ' ' || allowed || ' ' || coalesce(statement, action)").await;
    for expected in [
        "admin true CREATE USER reads_a",
        "admin true GRANT read ON STREAM a TO reads_a",
        "reads_a false SELECT * FROM b",
        "reads_a false CREATE USER mole PASSWORD '***'",
        "admin false login",
    ] {
        assert!(statements.iter().any(|s| s == expected), "{expected}: {statements:#?}");
    }
    assert!(told("coalesce(address, 'here')").await.contains(&"10.1.1.1".to_owned()));
    let e = run(&store.session("reads_a"), "SELECT * FROM millstream.audit").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
}
