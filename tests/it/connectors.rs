//! Connectors that a program adds.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use millstream_engine::connector::registry::{Connector, Guarantee, Readable, SourceRequest};
use millstream_engine::connector::{Source, built_in};
use millstream_engine::options::{OptionSpec, Options, Takes};
use millstream_sql::session::JobState;
use millstream_sql::{Config, Millstream, Outcome};

const COUNT: OptionSpec = OptionSpec::new("count", Takes::Whole, "3", "how many rows").required();

/// What `datagen` makes, under another name and with another option.
struct Made;

impl Connector for Made {
    fn name(&self) -> &str {
        "made"
    }

    fn about(&self) -> &str {
        "rows for a test"
    }

    fn source(&self) -> Option<&dyn Readable> {
        Some(self)
    }
}

impl Readable for Made {
    fn options(&self) -> Vec<OptionSpec> {
        vec![COUNT]
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn scan(&self, mut request: SourceRequest) -> millstream_engine::Result<Arc<dyn Source>> {
        let rows = request.options.required(&COUNT)?;
        request.options.finish()?;
        let options = Options::new("stream \"a\"", [("rows".to_owned(), rows)].into());
        built_in().to_read("datagen")?.readable()?.scan(SourceRequest { options, ..request })
    }
}

async fn rows(millstream: &Arc<Millstream>, sql: &str) -> RecordBatch {
    let Outcome::Rows(rows) = millstream.session().execute_sql(sql).await.unwrap() else { panic!("no rows: {sql}") };
    let (schema, batches) = (rows.schema, rows.rows.try_collect::<Vec<_>>().await.unwrap());
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

async fn count(millstream: &Arc<Millstream>) -> i64 {
    rows(millstream, "SELECT count(*) FROM b").await.column(0).as_primitive::<Int64Type>().value(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_waits_for_its_connector() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Config::new(folder.path().to_string_lossy());
    let with = Config { connectors: plain.connectors.clone().with(Made), ..plain.clone() };

    let millstream = Millstream::open(with.clone()).await.unwrap();
    let session = millstream.session();
    let wrong = session.execute_sql("CREATE STREAM a (x BIGINT) WITH (connector = 'made', cuont = 5)").await;
    assert_eq!(wrong.err().unwrap().hint(), Some("Write count instead of \"cuont\"."));
    session.execute_sql("CREATE STREAM a (x BIGINT) WITH (connector = 'made', count = 5)").await.unwrap();
    session.execute_sql("CREATE STREAM b AS SELECT x FROM a").await.unwrap();
    session.flush().await.unwrap();
    assert_eq!(count(&millstream).await, 5);
    let listed = rows(&millstream, "SHOW CONNECTORS LIKE 'made'").await;
    assert_eq!(listed.num_rows(), 2, "itself and its option");
    millstream.close().await.unwrap();
    drop(session);
    drop(millstream);

    let millstream = Millstream::open(plain).await.unwrap();
    let jobs = millstream.jobs();
    let failed = jobs.iter().find(|j| j.stream == "a").unwrap();
    assert_eq!(failed.state, JobState::Failed);
    assert!(failed.error.as_deref().unwrap().contains("there is no connector 'made'"), "{failed:?}");
    millstream.close().await.unwrap();
    drop(millstream);

    let millstream = Millstream::open(with).await.unwrap();
    assert!(millstream.jobs().iter().all(|j| j.state != JobState::Failed), "{:?}", millstream.jobs());
    assert_eq!(count(&millstream).await, 5, "what was read is not read again");
    millstream.close().await.unwrap();
}
