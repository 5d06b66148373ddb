//! What statements are executed on: a store in this process, or a server.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use millstream_sql::session::{JobInfo, ObjectInfo};
use millstream_sql::statement::Parsed;
use millstream_sql::{Config, Millstream, Outcome, Result, Session};
use tokio::sync::broadcast;

/// Settings by name: the value and a line on what it does.
pub(crate) type Settings = BTreeMap<String, (String, String)>;

/// A place that executes statements for one user.
pub(crate) trait Backend: Send + Sync {
    /// Executes one statement. Dropping the future, or what it gave, cancels the statement.
    fn execute<'a>(&'a self, statement: &'a Parsed) -> BoxFuture<'a, Result<Outcome>>;

    /// Executes a text that holds exactly one statement.
    fn execute_sql<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Outcome>>;

    /// Waits until every job over bounded input has finished. Gives a word on streams that have failed and are nobody's
    /// concern here.
    fn flush(&self) -> BoxFuture<'_, Result<Option<String>>>;

    /// The objects of the catalog.
    fn objects(&self) -> BoxFuture<'_, Result<Vec<ObjectInfo>>>;

    /// The jobs.
    fn jobs(&self) -> BoxFuture<'_, Result<Vec<JobInfo>>>;

    /// The settings.
    fn settings(&self) -> Settings;

    /// Failures of jobs as they happen: (stream, reason); `None` where they cannot be followed.
    fn failures(&self) -> Option<broadcast::Receiver<(String, String)>>;

    /// Ends the work in good order.
    fn close(&self) -> BoxFuture<'_, Result<()>>;

    /// What to call it in the banner: `store ./millstream-data`, `grpc://host:31337`.
    fn place(&self) -> String;

    /// Whether jobs end with this process.
    fn is_embedded(&self) -> bool;
}

/// A store that this process has open.
pub(crate) struct Embedded {
    millstream: Arc<Millstream>,
    session: Session,
    store: String,
}

impl Embedded {
    /// Opens the store.
    pub(crate) async fn open(config: Config) -> Result<Self> {
        let store = config.store.clone();
        let millstream = Millstream::open(config).await?;
        let session = millstream.session();
        Ok(Embedded { millstream, session, store })
    }

    /// The folder of the store.
    pub(crate) fn store(&self) -> &str {
        &self.store
    }
}

impl Backend for Embedded {
    fn execute<'a>(&'a self, statement: &'a Parsed) -> BoxFuture<'a, Result<Outcome>> {
        self.session.execute(statement).boxed()
    }

    fn execute_sql<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Outcome>> {
        self.session.execute_sql(sql).boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<Option<String>>> {
        self.session.flush().boxed()
    }

    fn objects(&self) -> BoxFuture<'_, Result<Vec<ObjectInfo>>> {
        std::future::ready(Ok(self.millstream.objects())).boxed()
    }

    fn jobs(&self) -> BoxFuture<'_, Result<Vec<JobInfo>>> {
        std::future::ready(Ok(self.millstream.jobs())).boxed()
    }

    fn settings(&self) -> Settings {
        let settings = self.session.settings();
        settings.into_iter().map(|(name, (value, about))| (name, (value, about.to_owned()))).collect()
    }

    fn failures(&self) -> Option<broadcast::Receiver<(String, String)>> {
        Some(self.millstream.failures())
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.millstream.close().boxed()
    }

    fn place(&self) -> String {
        format!("store {}", self.store)
    }

    fn is_embedded(&self) -> bool {
        true
    }
}

/// A server, spoken to over Flight SQL.
struct Remote {
    client: millstream_flight::FlightClient,
    url: String,
}

impl Backend for Remote {
    fn execute<'a>(&'a self, statement: &'a Parsed) -> BoxFuture<'a, Result<Outcome>> {
        self.client.execute(&statement.text).boxed()
    }

    fn execute_sql<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Outcome>> {
        self.client.execute(sql).boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<Option<String>>> {
        let notice = |outcome| match outcome {
            Outcome::Done(done) => done.notice,
            Outcome::Rows(_) | Outcome::Changes(_) => None,
        };
        async move { self.client.execute("FLUSH").await.map(notice) }.boxed()
    }

    fn objects(&self) -> BoxFuture<'_, Result<Vec<ObjectInfo>>> {
        self.client.objects().boxed()
    }

    fn jobs(&self) -> BoxFuture<'_, Result<Vec<JobInfo>>> {
        async {
            let Outcome::Rows(mut rows) = self.client.execute("SHOW JOBS").await? else { return Ok(vec![]) };
            let mut jobs = vec![];
            while let Some(batch) = rows.rows.next().await {
                jobs.extend(JobInfo::of_rows(&batch?)?);
            }
            Ok(jobs)
        }
        .boxed()
    }

    fn settings(&self) -> Settings {
        Settings::new()
    }

    fn failures(&self) -> Option<broadcast::Receiver<(String, String)>> {
        None
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        std::future::ready(Ok(())).boxed()
    }

    fn place(&self) -> String {
        self.url.clone()
    }

    fn is_embedded(&self) -> bool {
        false
    }
}

/// Connects to a server.
pub(crate) async fn connect(url: &str) -> Result<Arc<dyn Backend>> {
    let client = millstream_flight::FlightClient::connect(url, None).await?;
    Ok(Arc::new(Remote { client, url: url.to_owned() }))
}
