//! Rows of another server that must come once: an ingest with an option that says which they are.

use arrow_flight::sql::CommandStatementIngest;
use arrow_flight::sql::server::PeekableFlightDataStream;
use millstream_sql::Session;
use millstream_sql::session::Delivery;
use tonic::Status;

use super::ingest;
use super::service::Service;
use crate::error::to_status;

/// The option of an ingest that says what it is of, as JSON, for rows that must come once: see [`Delivery`].
pub(crate) const DELIVERY: &str = "millstream.delivery";

/// What `command` says of rows that must come once; nothing for those of an ordinary ingest.
pub(super) fn delivery(command: &CommandStatementIngest) -> Result<Option<Delivery>, Status> {
    let Some(text) = command.options.get(DELIVERY) else { return Ok(None) };
    let read = serde_json::from_str(text);
    read.map(Some).map_err(|e| Status::invalid_argument(format!("option {DELIVERY} cannot be read: {e}")))
}

impl Service {
    /// Takes the rows of `data` into `stream`; gives how many were taken now.
    pub(super) async fn take_delivery(
        &self,
        session: &Session,
        stream: &str,
        delivery: Delivery,
        data: PeekableFlightDataStream,
    ) -> Result<i64, Status> {
        let incoming = ingest::incoming_rows(data).await?.ok_or_else(ingest::no_schema)?;
        let rows = session.deliver(stream, delivery, &incoming.schema, incoming.rows).await;
        Ok(i64::try_from(rows.map_err(|e| to_status(&e, None))?).unwrap_or(i64::MAX))
    }
}
