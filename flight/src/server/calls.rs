//! The Flight SQL calls, each a few lines over the other modules.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{DoPutError, FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    ActionCreatePreparedSubstraitPlanRequest, ActionEndSavepointRequest, ActionEndTransactionRequest, Any,
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
    CommandStatementSubstraitPlan, CommandStatementUpdate, DoPutPreparedStatementResult, DoPutUpdateResult,
    ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, PutResult, Ticket,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use millstream_sql::Session;
use millstream_sql::session::IngestMode;
use prost::Message;
use tonic::{Code, Request, Response, Status, Streaming};

use super::actions::FOLLOW_FAILURES;
use super::connection::ConnectionInfo;
use super::parameters::typed_parameters;
use super::prepared::{PreparedStatement, one_batch};
use super::service::Service;
use super::sessions::{AUTHORIZATION, header};
use super::statement::{DataStream, QueryTicket, announced_schema, row_count, run_statement, single_batch};
use super::{delivery, ingest, metadata};
use crate::doors::Peer;
use crate::error::{encoding_failed, from_flight, to_status, unknown_caller};
use crate::wanted::Wanted;
use crate::wire::schema_bytes;

type Infos = Result<Response<FlightInfo>, Status>;
type Rows = Result<Response<DataStream>, Status>;

impl Service {
    async fn ingest_rows(
        &self,
        session: &Session,
        stream: &str,
        mode: IngestMode,
        data: PeekableFlightDataStream,
    ) -> Result<i64, Status> {
        let incoming = ingest::incoming_rows(data, self.millstream.budget()).await?.ok_or_else(ingest::no_schema)?;
        let rows = session.ingest(stream, mode, incoming.schema, incoming.rows).await;
        let rows = rows.map_err(|e| to_status(&e, None))?;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }
}

/// A flight info whose ticket is the command itself.
fn command_info(command: impl ProstMessageExt, schema: &Schema, request: Request<FlightDescriptor>) -> Infos {
    let ticket = Ticket::new(command.as_any().encode_to_vec());
    let info = FlightInfo::new()
        .with_descriptor(request.into_inner())
        .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
        .try_with_schema(schema);
    info.map(Response::new).map_err(encoding_failed)
}

fn batch_rows(batch: Result<RecordBatch, FlightError>) -> Rows {
    let batch = batch.map_err(|e| to_status(&from_flight(e), None))?;
    single_batch(&batch).map(Response::new)
}

/// Each batch of parameters is committed by itself.
fn after_rows(committed: i64, e: &Status) -> Status {
    match committed {
        ..=0 => e.clone(),
        n => Status::new(e.code(), format!("after {n} rows, which are committed: {}", e.message())),
    }
}

fn no_foreign_keys() -> Rows {
    batch_rows(Ok(RecordBatch::new_empty(metadata::foreign_keys_schema())))
}

fn no_substrait() -> Status {
    Status::unimplemented("Substrait plans are not supported\nhint: Send SQL.")
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Service;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<std::pin::Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let authorization = header(request.metadata(), AUTHORIZATION);
        let connection = request.extensions().get::<ConnectionInfo>();
        let peer = connection.map_or_else(Peer::unknown, |connection| connection.peer.clone());
        let (authorization, answer) = (authorization.map(str::to_owned), HandshakeResponse::default());
        drop(request);
        let login = self.doors.log_in(authorization.as_deref(), &peer).await;
        let (token, _) = login.map_err(|e| unknown_caller(&e))?;
        let answer = HandshakeResponse { payload: token.clone().into(), ..answer };
        let mut response = Response::new(stream::iter([Ok(answer)]).boxed());
        // Clients take the token from the header.
        let header = format!("Bearer {token}").parse().map_err(|_| Status::internal("the token is no header"))?;
        response.metadata_mut().insert("authorization", header);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Infos {
        if query.transaction_id.is_some_and(|id| !id.is_empty()) {
            return Err(ingest::no_transactions());
        }
        let session = self.session(&request)?;
        self.statement_info(session, &query.query, request.into_inner()).await.map(Response::new)
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Infos {
        let handle = query.prepared_statement_handle;
        let statement = self.prepared.get(&handle, self.session(&request)?.who())?;
        self.prepared_info(statement, handle, request.into_inner()).await.map(Response::new)
    }

    async fn get_flight_info_substrait_plan(
        &self,
        _query: CommandStatementSubstraitPlan,
        _request: Request<FlightDescriptor>,
    ) -> Infos {
        Err(no_substrait())
    }

    async fn get_flight_info_catalogs(&self, query: CommandGetCatalogs, request: Request<FlightDescriptor>) -> Infos {
        let schema = query.into_builder().schema();
        command_info(query, &schema, request)
    }

    async fn get_flight_info_schemas(&self, query: CommandGetDbSchemas, request: Request<FlightDescriptor>) -> Infos {
        let schema = query.clone().into_builder().schema();
        command_info(query, &schema, request)
    }

    async fn get_flight_info_tables(&self, query: CommandGetTables, request: Request<FlightDescriptor>) -> Infos {
        let schema = query.clone().into_builder().schema();
        command_info(query, &schema, request)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Infos {
        let schema = query.into_builder().schema();
        command_info(query, &schema, request)
    }

    async fn get_flight_info_sql_info(&self, query: CommandGetSqlInfo, request: Request<FlightDescriptor>) -> Infos {
        command_info(query, &self.sql_info.schema(), request)
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Infos {
        command_info(query, &metadata::primary_keys_schema(), request)
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Infos {
        command_info(query, &metadata::foreign_keys_schema(), request)
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Infos {
        command_info(query, &metadata::foreign_keys_schema(), request)
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Infos {
        command_info(query, &metadata::foreign_keys_schema(), request)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Infos {
        command_info(query, &self.xdbc_types.schema(), request)
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Rows {
        let ticket = QueryTicket::decode_handle(&ticket.statement_handle)?;
        let wanted = Wanted::of(request.metadata())?;
        self.redeem(ticket, self.session(&request)?, wanted).await.map(Response::new)
    }

    async fn do_get_prepared_statement(&self, query: CommandPreparedStatementQuery, request: Request<Ticket>) -> Rows {
        let (session, wanted) = (self.session(&request)?, Wanted::of(request.metadata())?);
        self.redeem_handle(query.prepared_statement_handle, session.who(), wanted).await.map(Response::new)
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, _request: Request<Ticket>) -> Rows {
        batch_rows(metadata::catalogs(query))
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, _request: Request<Ticket>) -> Rows {
        batch_rows(metadata::schemas(query))
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Rows {
        batch_rows(metadata::tables(query, &self.session(&request)?.objects()))
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, _request: Request<Ticket>) -> Rows {
        batch_rows(metadata::table_types(query))
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _request: Request<Ticket>) -> Rows {
        batch_rows(query.into_builder(&self.sql_info).build())
    }

    async fn do_get_primary_keys(&self, query: CommandGetPrimaryKeys, request: Request<Ticket>) -> Rows {
        let keys: Result<_, ArrowError> = metadata::primary_keys(&query, &self.session(&request)?.objects());
        batch_rows(keys.map_err(FlightError::from))
    }

    async fn do_get_exported_keys(&self, _query: CommandGetExportedKeys, _request: Request<Ticket>) -> Rows {
        no_foreign_keys()
    }

    async fn do_get_imported_keys(&self, _query: CommandGetImportedKeys, _request: Request<Ticket>) -> Rows {
        no_foreign_keys()
    }

    async fn do_get_cross_reference(&self, _query: CommandGetCrossReference, _request: Request<Ticket>) -> Rows {
        no_foreign_keys()
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, _request: Request<Ticket>) -> Rows {
        batch_rows(self.xdbc_types.record_batch(query.data_type))
    }

    /// A put to a path: rows for that stream, for as long as the client likes. Each result says how many rows of the put
    /// are durable.
    async fn do_put_fallback(
        &self,
        request: Request<PeekableFlightDataStream>,
        message: Any,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        if !message.type_url.is_empty() {
            return Err(Status::unimplemented(format!("there is no command \"{}\"", message.type_url)));
        }
        let session = self.session(&request)?;
        let mut data = request.into_inner();
        let first = data.peek().await.cloned().transpose()?;
        let descriptor = first.and_then(|first| first.flight_descriptor).unwrap_or_default();
        let stream = ingest::stream_of_path(&descriptor)?;
        session.touch(stream);
        let incoming = ingest::incoming_rows(data, self.millstream.budget()).await?.ok_or_else(ingest::no_schema)?;
        let durable = session.put(stream, incoming.rows).map_err(|e| to_status(&e, None))?;
        let results = durable.map(|rows| {
            let record_count = i64::try_from(rows.map_err(|e| to_status(&e, None))?).unwrap_or(i64::MAX);
            Ok(PutResult { app_metadata: DoPutUpdateResult { record_count }.encode_to_vec().into() })
        });
        Ok(Response::new(results.boxed()))
    }

    async fn do_put_error_callback(
        &self,
        _request: Request<PeekableFlightDataStream>,
        error: DoPutError,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        Err(Status::invalid_argument(match error {
            // Some clients send nothing at all when they have no batch.
            DoPutError::MissingCommand => "the put was empty\nhint: Send a schema, or use CREATE STREAM.",
            DoPutError::MissingFlightDescriptor => "the put does not begin with a descriptor",
        }))
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        if command.transaction_id.is_some_and(|id| !id.is_empty()) {
            return Err(ingest::no_transactions());
        }
        self.update(&*self.session(&request)?, &command.query).await
    }

    async fn do_put_statement_ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let mode = ingest::ingest_mode(&command)?;
        let session = self.session(&request)?;
        session.touch(&command.table);
        match delivery::delivery(&command)? {
            None => self.ingest_rows(&session, &command.table, mode, request.into_inner()).await,
            Some(delivery) => self.take_delivery(&session, &command.table, delivery, request.into_inner()).await,
        }
    }

    /// Binds parameters; the statement runs when its flight info is asked for.
    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let (handle, session) = (query.prepared_statement_handle, self.session(&request)?);
        // Before its parameters are taken.
        self.prepared.get(&handle, session.who())?;
        let parameters = match ingest::incoming_rows(request.into_inner(), self.millstream.budget()).await? {
            Some(incoming) => one_batch(incoming.rows).await?,
            None => None,
        };
        let statement = self.prepared.get(&handle, session.who())?;
        let parameters = parameters.map(|values| typed_parameters(&values, &statement.prepared)).transpose()?;
        self.prepared.bind(&handle, session.who(), parameters)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    /// Runs a statement once for each row of parameters that comes with it.
    async fn do_put_prepared_statement_update(
        &self,
        query: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let PreparedStatement { session, prepared, parameters } =
            self.prepared.get(&query.prepared_statement_handle, self.session(&request)?.who())?;
        if prepared.is_query {
            return Err(Status::invalid_argument("the statement gives rows\nhint: Run it as a query."));
        }
        let Some(mut incoming) = ingest::incoming_rows(request.into_inner(), self.millstream.budget()).await? else {
            return Ok(row_count(&run_statement(&session, &prepared, parameters).await?));
        };
        let mut total = 0;
        while let Some(batch) = incoming.rows.next().await {
            let done = async {
                let values = typed_parameters(&batch.map_err(|e| to_status(&e, None))?, &prepared)?;
                run_statement(&session, &prepared, Some(values)).await
            };
            let count = row_count(&done.await.map_err(|e| after_rows(total, &e))?);
            total = if count < 0 || total < 0 { -1 } else { total + count };
        }
        Ok(total)
    }

    async fn do_put_substrait_plan(
        &self,
        _query: CommandStatementSubstraitPlan,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(no_substrait())
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        if query.transaction_id.is_some_and(|id| !id.is_empty()) {
            return Err(ingest::no_transactions());
        }
        let session = self.session(&request)?;
        let prepared = self.prepare(&session, &query.query).await.map_err(|status| match status.code() {
            // Clients take that for a server that does not prepare statements, and go on without.
            Code::Unimplemented => Status::invalid_argument(status.message()),
            _ => status,
        })?;
        // No bytes at all say that there are no rows.
        let dataset_schema = match prepared.is_query {
            true => schema_bytes(&announced_schema(&prepared)).map_err(encoding_failed)?,
            false => Bytes::new(),
        };
        let parameter_schema = crate::wire::wire_schema(&prepared.parameters);
        let parameter_schema = schema_bytes(&parameter_schema).map_err(encoding_failed)?;
        let handle = self.prepared.insert(session, prepared)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.into(),
            dataset_schema,
            parameter_schema,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        self.prepared.remove(&query.prepared_statement_handle, self.session(&request)?.who());
        Ok(())
    }

    async fn do_action_create_prepared_substrait_plan(
        &self,
        _query: ActionCreatePreparedSubstraitPlanRequest,
        _request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        Err(no_substrait())
    }

    async fn do_action_begin_transaction(
        &self,
        _query: ActionBeginTransactionRequest,
        _request: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        Err(ingest::no_transactions())
    }

    async fn do_action_end_transaction(
        &self,
        _query: ActionEndTransactionRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Err(ingest::no_transactions())
    }

    async fn do_action_begin_savepoint(
        &self,
        _query: ActionBeginSavepointRequest,
        _request: Request<Action>,
    ) -> Result<ActionBeginSavepointResult, Status> {
        Err(ingest::no_transactions())
    }

    async fn do_action_end_savepoint(
        &self,
        _query: ActionEndSavepointRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Err(ingest::no_transactions())
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        self.cancel_query(query, &*self.session(&request)?)
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        if request.get_ref().r#type == FOLLOW_FAILURES {
            return Ok(Response::new(self.follow_failures(self.session(&request)?)));
        }
        let body = self.other_action(request).await?;
        Ok(Response::new(stream::iter([Ok(arrow_flight::Result { body })]).boxed()))
    }

    /// The facts about the server are fixed when it starts.
    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
