//! The whole Flight service: answers also the calls that arrow-flight's Flight SQL leaves out
//! (`GetSchema`, `PollFlightInfo`, `ListFlights`, paths instead of commands).

use std::sync::Arc;

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, PollInfo,
    SchemaResult, Ticket,
};
use futures::{StreamExt, stream};
use millstream_sql::session::{ObjectInfo, ObjectKind};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::actions::FOLLOW_FAILURES;
use super::ingest::stream_of_path;
use super::metadata::{CATALOG, SYSTEM_SCHEMA};
use super::service::Service;
use super::statement::announced_schema;
use crate::error::encoding_failed;
use crate::wire::{schema_bytes, wire_schema};

/// See the module.
pub(crate) struct Gateway {
    service: Arc<Service>,
}

impl Gateway {
    pub(crate) fn new(service: Service) -> Self {
        Gateway { service: Arc::new(service) }
    }
}

const ACTIONS: [(&str, &str); 8] = [
    ("CreatePreparedStatement", "Types a statement and gives a handle for it"),
    ("ClosePreparedStatement", "Forgets a prepared statement"),
    ("CancelQuery", "Cancels a running query (older clients)"),
    ("CancelFlightInfo", "Cancels a running query"),
    ("SetSessionOptions", "Changes settings of the session"),
    ("GetSessionOptions", "Gives the settings of the session"),
    ("CloseSession", "Ends the session"),
    (FOLLOW_FAILURES, "Tells of each job that fails, as JSON, until cancelled"),
];

/// The query for all that the stream of `descriptor`'s path holds.
fn query_of_path(descriptor: &FlightDescriptor) -> Result<String, Status> {
    let name = match descriptor.path.as_slice() {
        [schema, name] if schema == SYSTEM_SCHEMA => return Ok(select_all(schema, name)),
        [catalog, schema, name] if catalog == CATALOG && schema == SYSTEM_SCHEMA => {
            return Ok(select_all(schema, name));
        }
        _ => stream_of_path(descriptor)?,
    };
    Ok(select_all(super::metadata::DEFAULT_SCHEMA, name))
}

fn select_all(schema: &str, name: &str) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    format!("SELECT * FROM {}.{}", quoted(schema), quoted(name))
}

fn is_path(descriptor: &FlightDescriptor) -> bool {
    descriptor.r#type == DescriptorType::Path as i32 || (descriptor.cmd.is_empty() && !descriptor.path.is_empty())
}

fn listed(object: &ObjectInfo) -> Result<FlightInfo, Status> {
    let path = vec![object.namespace.clone(), object.name.clone()];
    let schema = wire_schema(&object.schema);
    let info = FlightInfo::new().with_descriptor(FlightDescriptor::new_path(path));
    info.try_with_schema(&schema).map_err(encoding_failed)
}

#[tonic::async_trait]
impl FlightService for Gateway {
    type HandshakeStream = <Service as FlightService>::HandshakeStream;
    type ListFlightsStream = <Service as FlightService>::ListFlightsStream;
    type DoGetStream = <Service as FlightService>::DoGetStream;
    type DoPutStream = <Service as FlightService>::DoPutStream;
    type DoActionStream = <Service as FlightService>::DoActionStream;
    type ListActionsStream = <Service as FlightService>::ListActionsStream;
    type DoExchangeStream = <Service as FlightService>::DoExchangeStream;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        self.service.handshake(request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let objects = self.service.session(&request)?.objects();
        // What goes out to a connector cannot be read here.
        let readable = objects.iter().filter(|object| object.kind != ObjectKind::Written);
        let flights: Vec<_> = readable.map(listed).collect();
        Ok(Response::new(stream::iter(flights).boxed()))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        if is_path(request.get_ref()) {
            let sql = query_of_path(request.get_ref())?;
            let session = self.service.session(&request)?;
            return self.service.statement_info(session, &sql, request.into_inner()).await.map(Response::new);
        }
        self.service.get_flight_info(request).await
    }

    /// Queries are ready at once: their work is done when their rows are fetched.
    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let info = self.get_flight_info(request).await?.into_inner();
        let poll = PollInfo { info: Some(info), flight_descriptor: None, progress: Some(1.0), expiration_time: None };
        Ok(Response::new(poll))
    }

    /// The schema of what `GetFlightInfo` would give, without running anything.
    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let descriptor = request.get_ref();
        let session = self.service.session(&request)?;
        let prepared = if is_path(descriptor) {
            self.service.prepare(&session, &query_of_path(descriptor)?).await?
        } else {
            match command_of(descriptor)? {
                Command::CommandStatementQuery(query) => self.service.prepare(&session, &query.query).await?,
                Command::CommandPreparedStatementQuery(query) => {
                    self.service.prepared.get(&query.prepared_statement_handle, session.who())?.prepared
                }
                // The other commands only look things up.
                _ => {
                    let info = self.service.get_flight_info(request).await?.into_inner();
                    return Ok(Response::new(SchemaResult { schema: info.schema }));
                }
            }
        };
        let schema = schema_bytes(&announced_schema(&prepared)).map_err(encoding_failed)?;
        Ok(Response::new(SchemaResult { schema }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        self.service.do_get(request).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        self.service.do_put(request).await
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        self.service.do_action(request).await
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = ACTIONS
            .map(|(name, description)| Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() }));
        Ok(Response::new(stream::iter(actions).boxed()))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("there is no exchange\nhint: Send rows with DoPut and fetch rows with DoGet."))
    }
}

fn command_of(descriptor: &FlightDescriptor) -> Result<Command, Status> {
    let any = Any::decode(descriptor.cmd.as_ref());
    let any = any.map_err(|e| Status::invalid_argument(format!("the command cannot be decoded: {e}")))?;
    Command::try_from(any).map_err(|e| Status::invalid_argument(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_queries() {
        let query =
            |parts: &[&str]| query_of_path(&FlightDescriptor::new_path(parts.iter().map(|p| p.to_string()).collect()));
        assert_eq!(query(&["hot"]).unwrap(), "SELECT * FROM \"public\".\"hot\"");
        assert_eq!(query(&["a\"b"]).unwrap(), "SELECT * FROM \"public\".\"a\"\"b\"");
        assert_eq!(query(&["millstream", "dead_letters"]).unwrap(), "SELECT * FROM \"millstream\".\"dead_letters\"");
        assert!(query(&[]).is_err());
    }
}
