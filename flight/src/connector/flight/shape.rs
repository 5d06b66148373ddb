//! What the other side says of what is read: asked for once, when the stream is made, and kept in the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use millstream_engine::connector::ask;
use millstream_engine::connector::registry::Shape;
use millstream_engine::error::{Error, ErrorKind, Result};
use millstream_engine::format::columnar::native_schema;
use millstream_engine::format::sql_name;
use millstream_engine::format::stored::cast_rows;
use millstream_engine::options::Options;
use millstream_sql::Outcome;
use millstream_sql::session::ChangeFeed;
use millstream_sql::statement::quote_name;
use serde::{Deserialize, Serialize};

use super::cursor::PLACEHOLDER;
use super::options::{Asked, Polls, Remote, engine_error, take_asked, take_polls};
use crate::wire::{schema_bytes, schema_of_bytes};

/// The name under which it is kept.
const SHAPE: &str = "shape";

/// What is known of it.
pub(super) struct Known {
    /// The columns as the other side has them.
    pub(super) offered: SchemaRef,
    /// The same as they are here.
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
    let (remote, polls) = (Remote::take(&mut options)?, take_polls(&mut options)?);
    let kept = match polls {
        Some(polls) => ask(async move { look_once(&remote, &polls).await }),
        None => {
            let asked = take_asked(&mut options)?;
            ask(async move { look(&remote, &asked).await })
        }
    };
    let kept = kept.map_err(|e| e.context(owner))?;
    Ok(BTreeMap::from([(SHAPE.to_owned(), serde_json::to_string(&kept)?)]))
}

/// What the answers of a server are like that is polled: it may say later that a column has NULLs.
async fn look_once(remote: &Remote, polls: &Polls) -> Result<Kept> {
    let client = remote.connect().await?;
    // The type of a cursor is not known yet: NULL is of all types, but has no rows.
    let mut schema = client.query_schema(&polls.query.replace(PLACEHOLDER, "NULL")).await.map_err(engine_error)?;
    if let Some((_, first)) = polls.cursor.as_ref().filter(|_| schema.fields().is_empty()) {
        let literal = if first.parse::<f64>().is_ok() { first.clone() } else { format!("'{first}'") };
        schema = client.query_schema(&polls.query.replace(PLACEHOLDER, &literal)).await.map_err(engine_error)?;
    }
    if schema.fields().is_empty() {
        return Err(Error::unsupported("the server does not say which columns the query has")
            .with_hint("Some know them only of a query that gives rows: make the stream when there are some."));
    }
    let nullable: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let schema = hexadecimal(&Schema::new(nullable))?;
    Ok(Kept { schema, changelog: false, key: None, event_time: None })
}

/// A schema as an IPC message, in digits.
fn hexadecimal(schema: &Schema) -> Result<String> {
    Ok(schema_bytes(schema)?.iter().map(|b| format!("{b:02x}")).collect())
}

async fn look(remote: &Remote, asked: &Asked) -> Result<Kept> {
    let client = remote.connect().await?;
    let feed = feed_of(client.execute(&asked.followed(None, None)).await.map_err(engine_error)?)?;
    let schema = match feed.updating {
        true => Arc::new(feed.schema.project(&(1..feed.schema.fields().len()).collect::<Vec<_>>())?),
        false => feed.schema,
    };
    let name = |column: usize| schema.fields().get(column).map(|f| f.name().clone());
    Ok(Kept {
        schema: hexadecimal(&schema)?,
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
        _ => Err(Error::unsupported("the other side does not follow queries").with_hint(
            "It has to be a Millstream server. Any other is polled: poll_interval = '10 s', query = 'SELECT …'.",
        )),
    }
}

/// What was found when the stream was made.
pub(super) fn known(options: &Options) -> Result<Known> {
    let text = options.found(SHAPE).ok_or_else(|| Error::internal("a link without what was found out about it"))?;
    let kept: Kept = serde_json::from_str(text)?;
    let digits = |at: usize| kept.schema.get(at..at + 2).and_then(|d| u8::from_str_radix(d, 16).ok());
    let bytes: Option<Vec<u8>> = (0..kept.schema.len()).step_by(2).map(digits).collect();
    let bytes = bytes.ok_or_else(|| Error::internal("a schema that cannot be read"))?;
    let offered = Arc::new(schema_of_bytes(bytes.into())?);
    let columns = Arc::new(native_schema(&offered));
    Ok(Known {
        offered,
        columns,
        shape: Shape { changelog: kept.changelog, key: kept.key, event_time: kept.event_time },
    })
}

impl Known {
    /// Those columns of `schema` that `projection` names, if all of `schema` are there.
    pub(super) fn read(&self, schema: &SchemaRef, projection: &[usize], owner: &str) -> Result<SchemaRef> {
        for field in schema.fields() {
            let found = self.columns.field_with_name(field.name()).map_err(|_| {
                Error::invalid(format!("{owner} has column \"{}\", which is not there on the other side", field.name()))
                    .with_hint("Leave the columns out: they are those of the other side then.")
            })?;
            if found.data_type() != field.data_type() {
                let (there, here) = (sql_name(found.data_type()), sql_name(field.data_type()));
                return Err(Error::invalid(format!(
                    "{owner} has column \"{}\" as {here}, and there it is {there}",
                    field.name()
                ))
                .with_hint("Leave the columns out, and cast where they are read."));
            }
        }
        Ok(Arc::new(schema.project(projection)?))
    }
}

/// Those columns of rows, as the other side sent them, that are read here: `schema`.
pub(super) fn taken(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |name: &str| {
        batch.column_by_name(name).cloned().ok_or_else(|| {
            Error::data(format!("the other side sends no column \"{name}\" any more"))
                .with_hint("Make the stream anew, with CREATE OR REPLACE STREAM.")
        })
    };
    let fields = schema.fields().iter();
    let columns = fields.clone().map(|f| column(f.name())).collect::<Result<Vec<_>>>()?;
    let sent = fields.zip(&columns).map(|(f, c)| Field::new(f.name(), c.data_type().clone(), true));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let sent = Arc::new(Schema::new(sent.collect::<Vec<_>>()));
    cast_rows(&RecordBatch::try_new_with_options(sent, columns, &options)?, schema)
}

/// Whether it may be better the next time.
pub(super) fn may_pass(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled | ErrorKind::Exhausted)
}
