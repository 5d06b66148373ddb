//! Rows that come in: bulk ingestion, puts to a path, and the parameters of prepared statements.
//!
//! Batches are decoded as the engine asks for them; while it does not, nothing is read and the client's window
//! closes.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, future};
use millstream_engine::memory::MemoryBudget;
use millstream_sql::session::IngestMode;
use millstream_sql::{Error, ErrorKind, Result as SqlResult};
use tonic::Status;

use super::LARGEST_REQUEST;
use super::metadata::{CATALOG, DEFAULT_SCHEMA, SYSTEM_SCHEMA};
use crate::error::{from_flight, to_status};
use crate::unpack::with_room;

/// Rows with their schema, as a client sends them.
pub(crate) struct IncomingRows {
    /// The schema that the client announced.
    pub(crate) schema: SchemaRef,
    /// The rows.
    pub(crate) rows: BoxStream<'static, SqlResult<RecordBatch>>,
}

/// The rows of a put, once their schema has come; none when the client sends only a command.
pub(crate) async fn incoming_rows(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    budget: &Arc<MemoryBudget>,
) -> Result<Option<IncomingRows>, Status> {
    let mut held = budget.account("rows that a client sends");
    // The decoder knows no messages without Arrow data; clients put commands into them.
    let messages = messages.try_filter(|m| future::ready(!m.data_header.is_empty())).map_err(FlightError::from);
    let messages = messages.and_then(move |m| future::ready(with_room(m, LARGEST_REQUEST, &mut held)));
    let mut decoder = FlightDataDecoder::new(messages);
    let schema = loop {
        let Some(message) = decoder.next().await else { return Ok(None) };
        match message.map_err(|e| to_status(&from_flight(e), None))?.payload {
            DecodedPayload::Schema(schema) => break schema,
            DecodedPayload::None => {}
            DecodedPayload::RecordBatch(_) => return Err(Status::invalid_argument("rows came before their schema")),
        }
    };
    let rows = decoder.filter_map(|message| {
        future::ready(match message.map(|m| m.payload) {
            Ok(DecodedPayload::RecordBatch(batch)) => Some(Ok(batch)),
            Ok(DecodedPayload::None) => None,
            Ok(DecodedPayload::Schema(_)) => Some(Err(Error::new(ErrorKind::Invalid, "a second schema came in"))),
            Err(e) => Some(Err(from_flight(e))),
        })
    });
    Ok(Some(IncomingRows { schema, rows: rows.boxed() }))
}

/// What a bulk ingestion asks for, or why it cannot be had.
pub(crate) fn ingest_mode(command: &CommandStatementIngest) -> Result<IngestMode, Status> {
    if command.temporary {
        return Err(Status::unimplemented(
            "there are no temporary streams\nhint: Leave `temporary` out, and drop the stream when it is done with.",
        ));
    }
    if command.transaction_id.as_ref().is_some_and(|id| !id.is_empty()) {
        return Err(no_transactions());
    }
    let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    if let Some(catalog) = named(&command.catalog).filter(|c| c != CATALOG) {
        return Err(Status::not_found(format!("catalog \"{catalog}\" does not exist\nhint: Use \"{CATALOG}\".")));
    }
    match named(&command.schema).as_deref() {
        None | Some(DEFAULT_SCHEMA) => {}
        Some(SYSTEM_SCHEMA) => {
            return Err(Status::invalid_argument(format!("schema \"{SYSTEM_SCHEMA}\" takes no rows from outside")));
        }
        Some(other) => {
            let hint = format!("hint: Use \"{DEFAULT_SCHEMA}\".");
            return Err(Status::not_found(format!("schema \"{other}\" does not exist\n{hint}")));
        }
    }
    mode_of_options(command.table_definition_options.as_ref())
}

fn mode_of_options(options: Option<&TableDefinitionOptions>) -> Result<IngestMode, Status> {
    let Some(options) = options else { return Ok(IngestMode::Append) };
    match (options.if_not_exist(), options.if_exists()) {
        (TableNotExistOption::Create, TableExistsOption::Fail) => Ok(IngestMode::Create),
        (TableNotExistOption::Fail, TableExistsOption::Append) => Ok(IngestMode::Append),
        (TableNotExistOption::Create, TableExistsOption::Append) => Ok(IngestMode::CreateAppend),
        (TableNotExistOption::Create, TableExistsOption::Replace) => Ok(IngestMode::Replace),
        (if_not_exist, if_exists) => Err(Status::invalid_argument(format!(
            "an ingest cannot be {} and {} at once\n\
             hint: Use create, append, create_append or replace.",
            if_not_exist.as_str_name(),
            if_exists.as_str_name(),
        ))),
    }
}

/// The stream that a put to a path means.
pub(crate) fn stream_of_path(descriptor: &FlightDescriptor) -> Result<&str, Status> {
    match descriptor.path.as_slice() {
        [name] => Ok(name),
        [schema, name] if schema == DEFAULT_SCHEMA => Ok(name),
        [catalog, schema, name] if catalog == CATALOG && schema == DEFAULT_SCHEMA => Ok(name),
        _ => Err(Status::invalid_argument(
            "rows were put to neither a command nor the path of a stream\nhint: Use a path of one name.",
        )),
    }
}

/// What a put without any schema gets.
pub(crate) fn no_schema() -> Status {
    Status::invalid_argument("an ingest needs a schema, even when it has no rows")
}

/// What an attempt at a transaction gets.
pub(crate) fn no_transactions() -> Status {
    Status::unimplemented(
        "there are no transactions: every statement and every ingest is durable when it returns\n\
         hint: Use autocommit.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use futures::stream;
    use tonic::Code;

    fn command(if_not_exist: TableNotExistOption, if_exists: TableExistsOption) -> CommandStatementIngest {
        let options = TableDefinitionOptions { if_not_exist: if_not_exist as i32, if_exists: if_exists as i32 };
        CommandStatementIngest {
            table_definition_options: Some(options),
            table: "t".into(),
            schema: None,
            catalog: None,
            temporary: false,
            transaction_id: None,
            options: Default::default(),
        }
    }

    #[test]
    fn the_four_modes_of_adbc() {
        use {TableExistsOption as E, TableNotExistOption as N};
        let mode = |n, e| ingest_mode(&command(n, e));
        assert_eq!(mode(N::Create, E::Fail).unwrap(), IngestMode::Create);
        assert_eq!(mode(N::Fail, E::Append).unwrap(), IngestMode::Append);
        assert_eq!(mode(N::Create, E::Replace).unwrap(), IngestMode::Replace);
        assert_eq!(mode(N::Create, E::Append).unwrap(), IngestMode::CreateAppend);
        assert_eq!(mode(N::Fail, E::Fail).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(mode(N::Unspecified, E::Append).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let good = command(TableNotExistOption::Create, TableExistsOption::Append);
        let with = |change: fn(&mut CommandStatementIngest)| {
            let mut command = good.clone();
            change(&mut command);
            ingest_mode(&command).map_err(|status| status.code())
        };
        assert_eq!(with(|c| c.temporary = true), Err(Code::Unimplemented));
        assert_eq!(with(|c| c.transaction_id = Some("1".into())), Err(Code::Unimplemented));
        assert_eq!(with(|c| c.catalog = Some("other".into())), Err(Code::NotFound));
        assert_eq!(with(|c| c.schema = Some("other".into())), Err(Code::NotFound));
        assert_eq!(with(|c| c.schema = Some("millstream".into())), Err(Code::InvalidArgument));
        assert!(with(|c| (c.schema, c.catalog) = (Some("public".into()), Some("millstream".into()))).is_ok());
        assert!(with(|c| (c.schema, c.catalog) = (Some(String::new()), Some(String::new()))).is_ok());
    }

    fn budget() -> Arc<MemoryBudget> {
        MemoryBudget::new(1 << 30)
    }

    #[tokio::test]
    async fn rows_are_decoded_behind_messages_without_data() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let encoded = FlightDataEncoderBuilder::new().build(stream::iter([Ok(batch.clone()), Ok(batch.clone())]));
        let command = FlightData::new().with_descriptor(FlightDescriptor::new_cmd("x"));
        let messages = stream::once(async { Ok(command) }).chain(encoded.map_err(Status::from));
        let incoming = incoming_rows(messages, &budget()).await.unwrap().unwrap();
        assert_eq!(incoming.schema, batch.schema());
        let rows: Vec<RecordBatch> = incoming.rows.try_collect().await.unwrap();
        assert_eq!(rows, vec![batch.clone(), batch]);
    }

    #[tokio::test]
    async fn a_command_alone_has_no_rows_and_a_broken_stream_is_an_error() {
        let command = FlightData::new().with_descriptor(FlightDescriptor::new_cmd("x"));
        assert!(incoming_rows(stream::iter([Ok(command)]), &budget()).await.unwrap().is_none());
        let broken = stream::iter([Err(Status::cancelled("gone"))]);
        assert_eq!(incoming_rows(broken, &budget()).await.err().unwrap().code(), Code::Cancelled);
    }

    #[test]
    fn paths() {
        let path = |parts: &[&str]| FlightDescriptor::new_path(parts.iter().map(|p| p.to_string()).collect());
        for good in [&["s"][..], &["public", "s"], &["millstream", "public", "s"]] {
            assert_eq!(stream_of_path(&path(good)).unwrap(), "s");
        }
        for bad in [&[][..], &["millstream", "s"], &["a", "b", "c", "d"]] {
            assert!(stream_of_path(&path(bad)).is_err());
        }
    }
}
