//! What statements are executed on: a store in this process, or a server ([`crate::remote`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use millstream_sql::session::{FailedStream, JobInfo, ObjectInfo};
use millstream_sql::statement::Parsed;
use millstream_sql::{Config, Millstream, Outcome, Result, Session};
use tokio::sync::broadcast::error::RecvError;

/// Settings by name: the value and a line on what it does.
pub(crate) type Settings = BTreeMap<String, (String, String)>;

/// What happens while nobody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A job has failed.
    Failed(FailedStream),
    /// So many more jobs have failed.
    Missed(u64),
    /// The server does not answer any more.
    Gone,
    /// It answers again.
    Back,
}

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
    fn settings(&self) -> BoxFuture<'_, Result<Settings>>;

    /// What happens from now on.
    fn news(&self) -> BoxStream<'static, News>;

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

    fn settings(&self) -> BoxFuture<'_, Result<Settings>> {
        let settings = self.session.settings().into_iter();
        let settings = settings.map(|(name, (value, about))| (name, (value, about.to_owned()))).collect();
        std::future::ready(Ok(settings)).boxed()
    }

    fn news(&self) -> BoxStream<'static, News> {
        let news = stream::unfold(self.millstream.failures(), |mut failures| async move {
            let news = match failures.recv().await {
                Ok((stream, reason)) => News::Failed(FailedStream { stream, reason }),
                Err(RecvError::Lagged(missed)) => News::Missed(missed),
                Err(RecvError::Closed) => return None,
            };
            Some((news, failures))
        });
        news.boxed()
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
