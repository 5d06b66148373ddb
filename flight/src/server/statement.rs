//! Running statements: flight infos with their tickets, and what a ticket is redeemed for.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::{Any, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use bytes::Bytes;
use futures::future;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use millstream_engine::memory::MemoryAccount;
use millstream_sql::session::{Done, Outcome, Prepared, RowStream};
use millstream_sql::{Principal, Session};
use prost::Message;
use tonic::Status;

use super::parameters::number_parameters;
use super::prepared::PreparedStatement;
use super::service::Service;
use super::sessions::random_token;
use super::subscribe::change_messages;
use crate::compression::Compression;
use crate::encode::{Encoder, one_by_one};
use crate::error::{encoding_failed, to_status};
use crate::notes::{DoneNote, RowsNote, to_bytes};
use crate::wanted::Wanted;
use crate::wire::{schema_bytes, schema_of_bytes, wire_schema};

/// What `DoGet` answers with.
pub(crate) type DataStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send + 'static>>;

/// What a ticket holds. It is all that `DoGet` needs, so the server remembers nothing between the two calls and
/// a ticket can be redeemed again: the query runs again.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct QueryTicket {
    /// By which a running query is cancelled.
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    /// The text of the query.
    #[prost(string, tag = "2")]
    pub(crate) sql: String,
    /// The schema that was announced: what is sent must equal it.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) schema: Bytes,
    /// The handle of the prepared statement to run, if it is one.
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) handle: Bytes,
    /// The statement has run and has no rows.
    #[prost(bool, tag = "5")]
    pub(crate) done: bool,
    /// The user that it was given to. Who writes another name into it, asks for what that one may ask for anyhow: it runs
    /// with the rights of who redeems it.
    #[prost(string, tag = "6")]
    pub(crate) user: String,
}

impl QueryTicket {
    fn into_ticket(self) -> Ticket {
        let ticket = TicketStatementQuery { statement_handle: self.encode_to_vec().into() };
        Ticket::new(ticket.as_any().encode_to_vec())
    }

    /// What `handle`, from a `TicketStatementQuery`, holds.
    pub(crate) fn decode_handle(handle: &[u8]) -> Result<Self, Status> {
        QueryTicket::decode(handle).map_err(|_| Status::invalid_argument("this ticket was not given by this server"))
    }

    /// The ids of the queries that the endpoints of `info` would run.
    pub(crate) fn ids_of(info: &FlightInfo) -> Vec<String> {
        let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
        let queries = tickets.filter_map(|ticket| {
            let any = Any::decode(ticket.ticket.as_ref()).ok()?;
            let query: TicketStatementQuery = any.unpack().ok()??;
            QueryTicket::decode(query.statement_handle.as_ref()).ok()
        });
        queries.map(|query| query.id).collect()
    }
}

impl Service {
    /// Types `sql`.
    pub(crate) async fn prepare(&self, session: &Session, sql: &str) -> Result<Prepared, Status> {
        let sql = number_parameters(sql);
        session.prepare(&sql).await.map_err(|e| to_status(&e, Some(&sql)))
    }

    /// Types `sql`; runs it when it is not a query.
    pub(crate) async fn statement_info(
        &self,
        session: Arc<Session>,
        sql: &str,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let prepared = self.prepare(&session, sql).await?;
        let statement = PreparedStatement { session, prepared, parameters: None };
        self.prepared_info(statement, Bytes::new(), descriptor).await
    }

    /// The flight info of a statement; one that is not a query runs now. Clients come for the rows of a query
    /// with `DoGet`, but several do not come after anything else.
    pub(crate) async fn prepared_info(
        &self,
        statement: PreparedStatement,
        handle: Bytes,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let statement = announced(statement)?;
        let PreparedStatement { session, prepared, parameters } = statement;
        let mut info = FlightInfo::new().with_descriptor(descriptor);
        if !prepared.is_query {
            let done = run_statement(&session, &prepared, parameters).await?;
            info = info.with_total_records(row_count(&done)).with_app_metadata(to_bytes(&DoneNote::from(done)));
        }
        let schema = announced_schema(&prepared);
        let ticket = QueryTicket {
            id: random_token()?,
            // What has run may have a password in it.
            sql: if prepared.is_query { prepared.sql } else { String::new() },
            schema: schema_bytes(&schema).map_err(encoding_failed)?,
            handle,
            done: !prepared.is_query,
            user: session.who().user_name().unwrap_or_default().to_owned(),
        };
        let endpoint = FlightEndpoint::new().with_ticket(ticket.into_ticket());
        info.with_endpoint(endpoint).try_with_schema(&schema).map_err(encoding_failed)
    }

    /// Runs the query of a ticket.
    pub(crate) async fn redeem(
        &self,
        ticket: QueryTicket,
        session: Arc<Session>,
        wanted: Wanted,
    ) -> Result<DataStream, Status> {
        if ticket.user != session.who().user_name().unwrap_or_default() {
            return Err(Status::permission_denied("this ticket was given to another user"));
        }
        let schema = Arc::new(schema_of_bytes(ticket.schema.clone()).map_err(encoding_failed)?);
        if ticket.done {
            return single_batch(&RecordBatch::new_empty(schema));
        }
        let mut run = self.running.begin(&ticket.id, session.who());
        let outcome = if ticket.handle.is_empty() {
            run.until_stopped(session.execute_sql(&ticket.sql)).await?
        } else {
            let PreparedStatement { session, prepared, parameters } =
                self.prepared.get(&ticket.handle, session.who())?;
            run.until_stopped(session.execute_prepared(&prepared, parameters)).await?
        };
        let outcome = outcome.map_err(|e| to_status(&e, Some(&ticket.sql)))?;
        let messages = match outcome {
            Outcome::Rows(rows) => {
                row_messages(rows, schema, ticket.sql, self.unsent("the result of a query"), wanted.compression)?
            }
            Outcome::Changes(feed) => {
                change_messages(feed, schema, ticket.sql, self.unsent("a followed query"), wanted)?
            }
            Outcome::Done(_) => single_batch(&RecordBatch::new_empty(schema))?,
        };
        Ok(Box::pin(run.over(messages)))
    }

    /// An account for messages of `what` that its client has not taken yet.
    fn unsent(&self, what: &str) -> MemoryAccount {
        self.millstream.budget().account(format!("{what} that its client has not taken yet"))
    }

    /// Runs a prepared statement that is asked for by its handle alone.
    pub(crate) async fn redeem_handle(
        &self,
        handle: Bytes,
        who: &Principal,
        wanted: Wanted,
    ) -> Result<DataStream, Status> {
        let PreparedStatement { session, prepared, .. } = announced(self.prepared.get(&handle, who)?)?;
        let ticket = QueryTicket {
            id: random_token()?,
            schema: schema_bytes(&announced_schema(&prepared)).map_err(encoding_failed)?,
            done: !prepared.is_query,
            sql: prepared.sql,
            handle,
            user: who.user_name().unwrap_or_default().to_owned(),
        };
        self.redeem(ticket, session, wanted).await
    }

    /// Runs `sql`, which must not be a query, and gives the number of rows it touched, -1 if there is none.
    pub(crate) async fn update(&self, session: &Session, sql: &str) -> Result<i64, Status> {
        match session.execute_sql(sql).await.map_err(|e| to_status(&e, Some(sql)))? {
            Outcome::Done(done) => {
                warn_of(&done);
                Ok(row_count(&done))
            }
            Outcome::Rows(_) | Outcome::Changes(_) => {
                Err(Status::invalid_argument("the statement gives rows\nhint: Run it as a query."))
            }
        }
    }
}

/// A prepared statement with the columns that it gives with the parameters bound to it.
fn announced(mut statement: PreparedStatement) -> Result<PreparedStatement, Status> {
    if let (true, Some(parameters)) = (statement.prepared.is_query, &statement.parameters) {
        let schema = statement.session.prepared_schema(&statement.prepared, parameters);
        statement.prepared.schema = schema.map_err(|e| to_status(&e, Some(&statement.prepared.sql)))?;
    }
    Ok(statement)
}

/// Runs a statement that is not a query.
pub(crate) async fn run_statement(
    session: &Session,
    prepared: &Prepared,
    parameters: Option<RecordBatch>,
) -> Result<Done, Status> {
    let outcome = session.execute_prepared(prepared, parameters).await;
    match outcome.map_err(|e| to_status(&e, Some(&prepared.sql)))? {
        Outcome::Done(done) => {
            warn_of(&done);
            Ok(done)
        }
        Outcome::Rows(_) | Outcome::Changes(_) => {
            Err(Status::internal("the statement gave rows, although it was prepared as one without"))
        }
    }
}

/// An update is answered with a number alone: what it left out is said in the server's log.
fn warn_of(done: &Done) {
    if let Some(left_out) = &done.left_out {
        tracing::warn!("{left_out}");
    }
    if let Some(notice) = done.notice.as_ref().filter(|_| done.rows.is_some()) {
        tracing::warn!("{notice}");
    }
}

/// The schema that clients are told of.
pub(crate) fn announced_schema(prepared: &Prepared) -> SchemaRef {
    if prepared.is_query { wire_schema(&prepared.schema) } else { Arc::new(Schema::empty()) }
}

/// As Flight counts rows: -1 where there is no number.
pub(crate) fn row_count(done: &Done) -> i64 {
    done.rows.and_then(|rows| i64::try_from(rows).ok()).unwrap_or(-1)
}

fn row_messages(
    rows: RowStream,
    schema: SchemaRef,
    sql: String,
    account: MemoryAccount,
    compression: Compression,
) -> Result<BoxStream<'static, Result<FlightData, Status>>, Status> {
    let mut encoder = Encoder::compressed(schema.clone(), compression).map_err(encoding_failed)?;
    let first = encoder.schema_message();
    let batches = rows.rows.map_err(move |e| to_status(&e, Some(&sql)));
    let messages = batches.map(move |batch| encoder.encode(&batch?).map_err(encoding_failed));
    let messages = one_by_one(messages, account);
    // Known only behind the last row.
    let note = stream::once(async move { RowsNote::of(&rows.left_out) }).filter_map(future::ready);
    let last =
        note.map(move |note| Encoder::new(schema.clone()).note_message(to_bytes(&note)).map_err(encoding_failed));
    Ok(stream::once(async { Ok(first) }).chain(messages).chain(last).boxed())
}

/// `batch` (of plain types) as a whole stream.
pub(crate) fn single_batch(batch: &RecordBatch) -> Result<DataStream, Status> {
    let mut encoder = Encoder::new(batch.schema());
    let mut messages = vec![encoder.schema_message()];
    messages.extend(encoder.encode(batch).map_err(encoding_failed)?);
    Ok(stream::iter(messages.into_iter().map(Ok)).boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    use arrow::array::{Array, ArrayRef, StringArray, StringViewArray};
    use arrow_flight::decode::FlightRecordBatchStream;
    use arrow_flight::error::FlightError;
    use millstream_engine::memory::MemoryBudget;
    use millstream_sql::Error;
    use millstream_sql::session::LeftOutRows;

    #[test]
    fn a_ticket_can_be_found_in_its_info() {
        let ticket = QueryTicket { id: "q1".into(), sql: "SELECT 1".into(), ..QueryTicket::default() };
        let endpoint = FlightEndpoint::new().with_ticket(ticket.into_ticket());
        let foreign = FlightEndpoint::new().with_ticket(Ticket::new("something else"));
        let info = FlightInfo::new().with_endpoint(foreign).with_endpoint(endpoint);
        assert_eq!(QueryTicket::ids_of(&info), vec!["q1"]);
        assert!(QueryTicket::decode_handle(b"\xff\xff").is_err());
    }

    #[tokio::test]
    async fn rows_are_sent_as_announced_until_an_error() {
        let view: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b"]));
        let batch = RecordBatch::try_from_iter([("t", view)]).unwrap();
        let rows = vec![Ok(batch.clone()), Err(Error::invalid("no more"))];
        let rows = stream::iter(rows).boxed();
        let rows = RowStream { schema: batch.schema(), rows, left_out: LeftOutRows::default() };
        let schema = wire_schema(batch.schema_ref());
        let account = MemoryBudget::new(1 << 30).account("a query");
        let messages = row_messages(rows, Arc::clone(&schema), "SELECT".into(), account, Compression::None).unwrap();
        let messages = messages.map_err(FlightError::from);
        let mut decoded = FlightRecordBatchStream::new_from_flight_data(messages);
        let batch = decoded.next().await.unwrap().unwrap();
        assert_eq!(batch.schema(), schema);
        assert_eq!(batch.column(0).as_any().downcast_ref::<StringArray>().unwrap().value(1), "b");
        assert!(decoded.next().await.unwrap().unwrap_err().to_string().contains("no more"));
    }

    #[tokio::test]
    async fn a_result_without_rows_still_has_its_schema() {
        let mut messages = single_batch(&RecordBatch::new_empty(Arc::new(Schema::empty()))).unwrap();
        let first = messages.next().await.unwrap().unwrap();
        assert_eq!(Schema::try_from(&first).unwrap(), Schema::empty());
        assert!(messages.next().await.is_none());
    }
}
