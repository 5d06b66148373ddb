//! What the other side says of what is read: asked for once, when the stream is made, and kept in the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_engine::connector::registry::Shape;
use millstream_engine::error::{Error, ErrorKind, Result};
use millstream_engine::format::columnar::native_schema;
use millstream_engine::options::Options;
use millstream_sql::Outcome;
use millstream_sql::session::ChangeFeed;
use millstream_sql::statement::quote_name;
use serde::{Deserialize, Serialize};

use super::options::{Asked, Remote, engine_error, take_asked};
use crate::wire::{schema_bytes, schema_of_bytes};

/// The name under which it is kept.
const SHAPE: &str = "shape";

/// What is known of it.
pub(super) struct Known {
    pub(super) columns: SchemaRef,
    pub(super) shape: Shape,
}

/// The same, as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The schema as an IPC message, in hexadecimal digits.
    schema: String,
    changelog: bool,
    key: Option<Vec<String>>,
    event_time: Option<String>,
}

impl Asked {
    /// The query that follows it, with `columns` of a stream.
    pub(super) fn followed(&self, columns: Option<&[&str]>, since: Option<(&str, u64)>) -> String {
        let query = match self {
            Asked::Query(query) => query.clone(),
            Asked::Stream(name) => {
                let columns: Vec<String> = columns.unwrap_or_default().iter().map(|c| quote_name(c)).collect();
                let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
                format!("SELECT {columns} FROM {}", quote_name(name))
            }
        };
        let since = since.map(|(of, epoch)| format!(" SINCE EPOCH {epoch} OF '{}'", of.replace('\'', "''")));
        format!("{query} EMIT CHANGES{}", since.unwrap_or_default())
    }
}

/// Asks the other side. What is found is for [`known`].
pub(super) fn find(options: &Options) -> Result<BTreeMap<String, String>> {
    let mut options = options.clone();
    let owner = options.owner().to_owned();
    let (remote, asked) = (Remote::take(&mut options)?, take_asked(&mut options)?);
    let kept = ask(async move { look(&remote, &asked).await }).map_err(|e| e.context(owner))?;
    Ok(BTreeMap::from([(SHAPE.to_owned(), serde_json::to_string(&kept)?)]))
}

async fn look(remote: &Remote, asked: &Asked) -> Result<Kept> {
    let client = remote.connect().await?;
    let feed = feed_of(client.execute(&asked.followed(None, None)).await.map_err(engine_error)?)?;
    let schema = match feed.updating {
        true => Arc::new(feed.schema.project(&(1..feed.schema.fields().len()).collect::<Vec<_>>())?),
        false => feed.schema,
    };
    let name = |column: usize| schema.fields().get(column).map(|f| f.name().clone());
    let bytes = schema_bytes(&schema)?;
    Ok(Kept {
        schema: bytes.iter().map(|b| format!("{b:02x}")).collect(),
        changelog: feed.updating,
        key: feed.key.and_then(|key| key.into_iter().map(name).collect()),
        event_time: feed.event_time.and_then(name),
    })
}

/// The feed of a followed query that can be gone on with.
pub(super) fn feed_of(outcome: Outcome) -> Result<ChangeFeed> {
    match outcome {
        Outcome::Changes(feed) if feed.incarnation.is_some() => Ok(feed),
        Outcome::Changes(_) => Err(Error::unsupported(
            "the query cannot be gone on with after a break: it puts rows together",
        )
        .with_hint("Make a stream of it there, with CREATE STREAM name AS SELECT …, and read that: stream = 'name'.")),
        _ => {
            Err(Error::unsupported("the other side does not follow queries")
                .with_hint("It has to be a Millstream server."))
        }
    }
}

/// What was found when the stream was made.
pub(super) fn known(options: &Options) -> Result<Known> {
    let text = options.found(SHAPE).ok_or_else(|| Error::internal("a link without what was found out about it"))?;
    let kept: Kept = serde_json::from_str(text)?;
    let digits = |at: usize| kept.schema.get(at..at + 2).and_then(|d| u8::from_str_radix(d, 16).ok());
    let bytes: Option<Vec<u8>> = (0..kept.schema.len()).step_by(2).map(digits).collect();
    let bytes = bytes.ok_or_else(|| Error::internal("a schema that cannot be read"))?;
    let columns = Arc::new(native_schema(&schema_of_bytes(bytes.into())?));
    Ok(Known { columns, shape: Shape { changelog: kept.changelog, key: kept.key, event_time: kept.event_time } })
}

/// Waits for `work`, from any thread: it runs on one of its own.
pub(super) fn ask<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work)
    };
    let asking = std::thread::Builder::new().name("millstream-ask".to_owned()).spawn(run)?;
    let wait = move || asking.join().unwrap_or_else(|_| Err(Error::internal("asking the other side ended early")));
    match tokio::runtime::Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    }
}

/// Whether it may be better the next time.
pub(super) fn may_pass(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled | ErrorKind::Exhausted)
}
