//! Statements on a server, spoken to over Flight SQL.
//!
//! A server that has gone may come back. Its client connects again by itself, and what was SET in the session that went
//! with the connection is set again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use millstream_flight::doors::tls::Identity;
use millstream_flight::{ConnectOptions, FlightClient};
use millstream_sql::session::{FailedStream, JobInfo, ObjectInfo};
use millstream_sql::statement::{Parsed, Statement};
use millstream_sql::{ErrorKind, Outcome, Result};

use crate::args::ConnectArgs;
use crate::backend::{Backend, News, Settings};
use crate::password;

/// How often a server that has gone is asked whether it is back.
const RETRY: Duration = Duration::from_secs(1);

/// A server.
pub(crate) struct Remote {
    client: FlightClient,
    url: String,
    session: Arc<SessionState>,
}

/// What the session on the server knows, which is gone when the connection is.
#[derive(Default)]
struct SessionState {
    /// The statements that have changed settings, in order.
    settings: Mutex<Vec<String>>,
    /// Whether they have to be executed again.
    lost: AtomicBool,
}

/// A server, and who to be there.
pub(crate) struct Place {
    url: String,
    options: ConnectOptions,
}

impl Place {
    /// What `args` name, if they name a server. Asks for a password where one is needed.
    pub(crate) fn of(args: &ConnectArgs) -> Result<Option<Self>> {
        let Some(url) = args.connect.clone() else { return Ok(None) };
        let login = match &args.user {
            Some(user) => Some((user.clone(), password::of_login(user)?)),
            None => None,
        };
        let identity = args.tls_cert.clone().zip(args.tls_key.clone()).map(|(cert, key)| Identity { cert, key });
        let options = ConnectOptions { login, ca: args.tls_ca.clone(), identity, ..ConnectOptions::default() };
        Ok(Some(Place { url, options }))
    }

    /// Connects to it.
    pub(crate) async fn connect(self) -> Result<Arc<dyn Backend>> {
        let client = FlightClient::connect(&self.url, self.options).await?;
        Ok(Arc::new(Remote { client, url: self.url, session: Arc::default() }))
    }
}

impl Remote {
    async fn run(&self, sql: &str) -> Result<Outcome> {
        if self.session.lost.swap(false, Ordering::SeqCst) {
            let settings = self.session.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for set in settings {
                self.noted(self.client.execute(&set).await)?;
            }
        }
        self.noted(self.client.execute(sql).await)
    }

    /// Notes when the server has gone, and the session with it.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if matches!(&result, Err(e) if e.kind() == ErrorKind::Unavailable) {
            self.session.lost.store(true, Ordering::SeqCst);
        }
        result
    }
}

impl Backend for Remote {
    fn execute<'a>(&'a self, statement: &'a Parsed) -> BoxFuture<'a, Result<Outcome>> {
        async {
            let outcome = self.run(&statement.text).await?;
            if matches!(statement.statement, Statement::Set { .. } | Statement::Reset(_)) {
                let mut settings = self.session.settings.lock().unwrap_or_else(PoisonError::into_inner);
                // A setting that is set over and over counts once.
                settings.retain(|set| *set != statement.text);
                settings.push(statement.text.clone());
            }
            Ok(outcome)
        }
        .boxed()
    }

    fn execute_sql<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Outcome>> {
        self.run(sql).boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<Option<String>>> {
        let notice = |outcome| match outcome {
            Outcome::Done(done) => done.notice,
            Outcome::Rows(_) | Outcome::Changes(_) => None,
        };
        async move { self.run("FLUSH").await.map(notice) }.boxed()
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

    fn settings(&self) -> BoxFuture<'_, Result<Settings>> {
        async {
            let mut settings = Settings::new();
            let Outcome::Rows(mut rows) = self.run("SHOW ALL").await? else { return Ok(settings) };
            while let Some(batch) = rows.rows.next().await {
                let batch = batch?;
                let texts: Vec<_> = batch.columns().iter().flat_map(|c| cast(c, &DataType::Utf8)).collect();
                let text = |column: usize, row: usize| {
                    let texts = texts.get(column).and_then(|c| c.as_string_opt::<i32>());
                    texts.filter(|c| c.is_valid(row)).map(|c| c.value(row).to_owned()).unwrap_or_default()
                };
                settings.extend((0..batch.num_rows()).map(|row| (text(0, row), (text(1, row), text(2, row)))));
            }
            Ok(settings)
        }
        .boxed()
    }

    fn news(&self) -> BoxStream<'static, News> {
        let follower =
            Follower { client: self.client.clone(), session: Arc::clone(&self.session), feed: Feed::Unknown };
        stream::unfold(follower, Follower::next).boxed()
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

/// Follows what the server tells, over all its lives.
struct Follower {
    client: FlightClient,
    session: Arc<SessionState>,
    feed: Feed,
}

enum Feed {
    /// Not asked for yet.
    Unknown,
    /// It tells.
    Open(BoxStream<'static, Result<FailedStream>>),
    /// It has gone.
    Gone,
}

impl Follower {
    async fn next(mut self) -> Option<(News, Self)> {
        loop {
            match &mut self.feed {
                Feed::Open(failures) => match failures.next().await {
                    Some(Ok(failed)) => return Some((News::Failed(failed), self)),
                    Some(Err(_)) | None => return Some((News::Gone, self.gone())),
                },
                Feed::Unknown | Feed::Gone => {
                    let was_gone = matches!(self.feed, Feed::Gone);
                    match self.client.failures().await {
                        Ok(failures) => {
                            self.feed = Feed::Open(failures);
                            if was_gone {
                                return Some((News::Back, self));
                            }
                        }
                        Err(e) if e.kind() == ErrorKind::Unavailable && was_gone => tokio::time::sleep(RETRY).await,
                        Err(e) if e.kind() == ErrorKind::Unavailable => return Some((News::Gone, self.gone())),
                        // A server of an earlier version, which tells nothing.
                        Err(_) => return None,
                    }
                }
            }
        }
    }

    fn gone(mut self) -> Self {
        self.session.lost.store(true, Ordering::SeqCst);
        self.feed = Feed::Gone;
        self
    }
}
