//! A client of a Millstream server: gives what a [`millstream_sql::Session`] gives, from afar.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    CommandGetTables, CommandStatementIngest, CommandStatementQuery, DoPutUpdateResult, ProstMessageExt,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, Ticket};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use hyper_util::rt::TokioIo;
use millstream_sql::rights::Hidden;
use millstream_sql::session::{
    ChangeFeed, Delivery, Done, EpochChanges, FailedStream, FeedEnd, LeftOutRows, ObjectInfo, Outcome, RowStream,
};
use millstream_sql::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use prost::Message;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tower::Service;

use crate::base64::basic_authorization;
use crate::compression::{Compression, HEADER};
use crate::doors::tls::{Identity, client_config};
use crate::error::{no_answer, of_call, of_stream};
use crate::notes::{DoneNote, EpochNote, FailedNote, FeedNote, RowsNote};
use crate::server::{DELIVERY, FOLLOW_FAILURES, object_of_table};
use crate::unpack::checked;
use crate::wire::schema_of_bytes;

/// See the server's windows: a stream that is not read must not hold up the others.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// The largest message taken: a single row may be large.
const LARGEST_MESSAGE: usize = 512 << 20;

/// Where servers listen if nothing else is said.
pub(crate) const DEFAULT_PORT: u16 = 31337;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A connection to a Millstream server. Clones share it and its session. When the server has gone, the next call connects
/// again, and has a new session.
#[derive(Clone, Debug)]
pub struct FlightClient {
    inner: FlightServiceClient<Channel>,
    login: Option<Arc<Login>>,
    headers: MetadataMap,
    address: Arc<str>,
}

/// How a client connects.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// A user and the password.
    pub login: Option<(String, Hidden)>,
    /// The file of the authorities to trust, in place of the system's, where there is TLS.
    pub ca: Option<PathBuf>,
    /// The certificate to show.
    pub identity: Option<Identity>,
    /// How rows are to be compressed on their way.
    pub compression: Compression,
    /// Further headers of each call, such as an `authorization` in place of a login.
    pub headers: MetadataMap,
}

/// Who a client is, and the token that stands for it until it expires.
struct Login {
    user: String,
    password: Hidden,
    token: Mutex<MetadataValue<Ascii>>,
}

/// Without the password and the token.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl FlightClient {
    /// Connects to `address`: `grpc+tls://host:port`; or without TLS `grpc://host:port`, `grpc+tcp://…`, `http://…` or
    /// `host:port`.
    ///
    /// With a login, a user and a password, it logs in and has a session that outlives the connection. When its token has
    /// expired it logs in again, and has a new session.
    pub async fn connect(address: &str, options: ConnectOptions) -> Result<Self> {
        let (uri, is_tls) = http_uri(address)?;
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|e| Error::invalid(format!("\"{address}\" is not an address: {e}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let channel = match is_tls {
            true => endpoint.connect_with_connector(connector(options.ca, options.identity).await?).await,
            false if options.ca.is_some() || options.identity.is_some() => {
                return Err(Error::invalid(format!("\"{address}\" is without TLS, and certificates are given"))
                    .with_hint("Write grpc+tls://host:port."));
            }
            false => endpoint.connect().await,
        };
        let channel = channel.map_err(|e| no_answer(address, &e))?;
        let inner = FlightServiceClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
        let mut headers = options.headers;
        if let Some(compression) = options.compression.header() {
            headers.insert(HEADER, compression);
        }
        let mut client = FlightClient { inner, login: None, headers, address: address.into() };
        if let Some((user, password)) = options.login {
            let token = Mutex::new(client.token(&user, &password).await?);
            client.login = Some(Arc::new(Login { user, password, token }));
        }
        Ok(client)
    }

    async fn token(&self, user: &str, password: &Hidden) -> Result<MetadataValue<Ascii>> {
        let basic = basic_authorization(user, password.reveal());
        let mut basic: MetadataValue<Ascii> =
            basic.parse().map_err(|_| Error::internal("a login does not fit into a header"))?;
        basic.set_sensitive(true);
        let mut request = Request::new(stream::iter([HandshakeRequest::default()]));
        *request.metadata_mut() = self.headers.clone();
        request.metadata_mut().insert("authorization", basic.clone());
        let response = match self.inner.clone().handshake(request).await {
            // Some servers know no logins, and look at each call.
            Err(status) if status.code() == Code::Unimplemented => return Ok(basic),
            response => response.map_err(|s| of_call(&s, &self.address))?,
        };
        let header = response.metadata().get("authorization").cloned();
        let mut token = match header {
            Some(token) => token,
            // Others give the token as the answer itself.
            None => match response.into_inner().next().await {
                Some(Ok(answer)) if !answer.payload.is_empty() => {
                    let token = [b"Bearer ", &answer.payload[..]].concat();
                    MetadataValue::try_from(token).map_err(|_| Error::internal("the server's token is no header"))?
                }
                _ => basic,
            },
        };
        token.set_sensitive(true);
        Ok(token)
    }

    /// Logs in again where `status` says that the token is not known any more. Says whether it did.
    async fn renew(&self, status: &Status) -> Result<bool> {
        let Some(login) = self.login.as_ref().filter(|_| status.code() == Code::Unauthenticated) else {
            return Ok(false);
        };
        let token = self.token(&login.user, &login.password).await?;
        *login.token.lock() = token;
        Ok(true)
    }

    /// Runs one statement. Dropping the rows or the changes cancels it.
    pub async fn execute(&self, sql: &str) -> Result<Outcome> {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let info = self.flight_info(&command).await?;
        // The server runs what is not a query when asked for its info, and says there what it did.
        if let Ok(done) = serde_json::from_slice::<DoneNote>(&info.app_metadata) {
            return Ok(Outcome::Done(Done::from(done)));
        }
        self.fetch(info).await
    }

    /// The objects of the catalog, by name; types are those of the wire.
    pub async fn objects(&self) -> Result<Vec<ObjectInfo>> {
        let command = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
        let info = self.flight_info(&command).await?;
        let Outcome::Rows(rows) = self.fetch(info).await? else {
            return Err(Error::internal("the server gave changes where it should list tables"));
        };
        let batches: Vec<RecordBatch> = rows.rows.try_collect().await?;
        let mut objects = Vec::new();
        for batch in &batches {
            objects.extend(objects_of(batch)?);
        }
        objects.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(objects)
    }

    /// The jobs that fail from now on, until the server ends or the stream is dropped. Servers of earlier versions have no
    /// such call, which is [`ErrorKind::Unsupported`].
    pub async fn failures(&self) -> Result<BoxStream<'static, Result<FailedStream>>> {
        let action = Action { r#type: FOLLOW_FAILURES.to_owned(), body: Bytes::new() };
        let mut results = self.inner.clone().do_action(self.request(action.clone())).await;
        if let Err(status) = &results
            && self.renew(status).await?
        {
            results = self.inner.clone().do_action(self.request(action)).await;
        }
        let results = results.map_err(|s| of_call(&s, &self.address))?.into_inner();
        let address = Arc::clone(&self.address);
        let failures = results.map(move |result| {
            let body = result.map_err(|s| of_call(&s, &address))?.body;
            let note: FailedNote = serde_json::from_slice(&body)
                .map_err(|e| Error::internal(format!("the server tells of a failure in a form of its own: {e}")))?;
            Ok(FailedStream { stream: note.stream, reason: note.reason })
        });
        Ok(failures.boxed())
    }

    /// Puts rows into a stored stream of the server, once: see [`Delivery`]. The first of `messages` is the schema. Gives how
    /// many rows were taken now.
    pub(crate) async fn deliver(
        &self,
        stream: &str,
        delivery: &Delivery,
        messages: impl Stream<Item = FlightData> + Send + 'static,
    ) -> Result<u64> {
        let told = serde_json::to_string(delivery).map_err(|e| Error::internal(e.to_string()))?;
        let options = HashMap::from([(DELIVERY.to_owned(), told)]);
        let command = CommandStatementIngest { table: stream.to_owned(), options, ..Default::default() };
        let mut descriptor = Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
        let messages = messages.map(move |message| FlightData { flight_descriptor: descriptor.take(), ..message });
        let mut results = match self.inner.clone().do_put(self.request(messages)).await {
            Ok(results) => results.into_inner(),
            // The messages are spent.
            Err(status) if self.renew(&status).await? => {
                return Err(Error::new(ErrorKind::Unavailable, "the login had expired"));
            }
            Err(status) => return Err(of_call(&status, &self.address)),
        };
        let result = results.message().await.map_err(|s| of_call(&s, &self.address))?;
        let untold = || Error::new(ErrorKind::Unavailable, "the server does not say whether it took the rows");
        let result = result.ok_or_else(untold)?;
        let taken = DoPutUpdateResult::decode(result.app_metadata)
            .map_err(|e| Error::internal(format!("the server says in a form of its own what it took: {e}")))?;
        Ok(taken.record_count.try_into().unwrap_or_default())
    }

    async fn flight_info(&self, command: &impl ProstMessageExt) -> Result<FlightInfo> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let mut info = self.inner.clone().get_flight_info(self.request(descriptor.clone())).await;
        if let Err(status) = &info
            && self.renew(status).await?
        {
            info = self.inner.clone().get_flight_info(self.request(descriptor)).await;
        }
        Ok(info.map_err(|s| of_call(&s, &self.address))?.into_inner())
    }

    async fn fetch(&self, info: FlightInfo) -> Result<Outcome> {
        let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket);
        let ticket: Ticket = ticket.ok_or_else(|| Error::internal("the server gave no ticket for the rows"))?;
        let (schema, note, decoder) = self.redeem(ticket).await?;
        let address = &self.address;
        Ok(match serde_json::from_slice::<FeedNote>(&note) {
            Ok(FeedNote { updating, key, event_time, incarnation, alive, .. }) => {
                let alive = alive.map(Duration::from_millis);
                let epochs = epochs(decoder, Arc::clone(address));
                Outcome::Changes(ChangeFeed { schema, updating, key, event_time, incarnation, alive, epochs })
            }
            Err(_) => {
                let left_out = LeftOutRows::default();
                let rows = rows(decoder, left_out.clone(), Arc::clone(address));
                Outcome::Rows(RowStream { schema, rows, left_out })
            }
        })
    }

    /// The columns of what `sql` gives, which any Flight SQL server may be asked for.
    pub(crate) async fn query_schema(&self, sql: &str) -> Result<SchemaRef> {
        let info = self.query_info(sql).await?;
        // Some servers do not know it before they run the query.
        let told = (!info.schema.is_empty()).then(|| schema_of_bytes(info.schema.clone())).transpose()?;
        match told.filter(|schema| !schema.fields().is_empty()) {
            Some(schema) => Ok(Arc::new(schema)),
            None => Ok(self.rows_of(info).await?.0),
        }
    }

    /// The rows that `sql` gives, and their schema, of any Flight SQL server: of all parts of the answer, one after the other.
    /// They are all asked for at the server itself, which may stand for those that it names.
    pub(crate) async fn query(&self, sql: &str) -> Result<(SchemaRef, BoxStream<'static, Result<RecordBatch>>)> {
        self.rows_of(self.query_info(sql).await?).await
    }

    async fn query_info(&self, sql: &str) -> Result<FlightInfo> {
        self.flight_info(&CommandStatementQuery { query: sql.to_owned(), transaction_id: None }).await
    }

    async fn rows_of(&self, info: FlightInfo) -> Result<(SchemaRef, BoxStream<'static, Result<RecordBatch>>)> {
        let mut tickets = info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket);
        let first = tickets.next().ok_or_else(|| Error::internal("the server gave no ticket for the rows"))?;
        let (schema, _, decoder) = self.redeem(first).await?;
        let (client, same) = (self.clone(), schema.clone());
        let further = stream::iter(tickets).then(move |ticket| {
            let (client, same) = (client.clone(), same.clone());
            async move {
                let (schema, _, decoder) = client.redeem(ticket).await?;
                match schema.fields() == same.fields() {
                    true => Ok(rows(decoder, LeftOutRows::default(), client.address)),
                    false => Err(Error::new(ErrorKind::Data, "the parts of the server's answer have other columns")),
                }
            }
        });
        let all = rows(decoder, LeftOutRows::default(), self.address.clone()).chain(further.try_flatten());
        Ok((schema, all.boxed()))
    }

    /// What a ticket stands for: the schema, its note, and what comes behind.
    async fn redeem(&self, ticket: Ticket) -> Result<(SchemaRef, Bytes, FlightDataDecoder)> {
        let messages = self.inner.clone().do_get(self.request(ticket)).await;
        let messages = messages.map_err(|s| of_call(&s, &self.address))?;
        let messages = messages.into_inner().map_err(FlightError::from);
        // The decoder knows no messages without Arrow data.
        let messages = messages.try_filter(|message| future::ready(!message.data_header.is_empty()));
        let messages = messages.and_then(|message| future::ready(checked(message, LARGEST_MESSAGE)));
        let mut decoder = FlightDataDecoder::new(messages);
        let (schema, note) = first_message(&mut decoder, &self.address).await?;
        Ok((schema, note, decoder))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        if let Some(login) = &self.login {
            request.metadata_mut().insert("authorization", login.token.lock().clone());
        }
        request
    }
}

/// The schema of a stream and the `app_metadata` that came with it.
async fn first_message(decoder: &mut FlightDataDecoder, address: &str) -> Result<(SchemaRef, Bytes)> {
    match decoder.next().await.transpose().map_err(|e| of_stream(e, address))? {
        Some(DecodedFlightData { payload: DecodedPayload::Schema(schema), inner }) => Ok((schema, inner.app_metadata)),
        _ => Err(Error::internal("the server sent no schema before its rows")),
    }
}

fn rows(
    decoder: FlightDataDecoder,
    left_out: LeftOutRows,
    address: Arc<str>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let batches = decoder.map_err(move |e| of_stream(e, &address)).try_filter_map(move |message| {
        if let Some(note) = RowsNote::read(&message.inner.app_metadata) {
            note.tell(&left_out);
            return future::ok(None);
        }
        future::ok(match message.payload {
            DecodedPayload::RecordBatch(batch) => Some(batch),
            DecodedPayload::Schema(_) | DecodedPayload::None => None,
        })
    });
    batches.boxed()
}

/// The parts of epochs, as they come. The message that ends one says so.
fn epochs(decoder: FlightDataDecoder, address: Arc<str>) -> BoxStream<'static, Result<EpochChanges>> {
    let parts = stream::try_unfold((decoder, address, false), |(mut decoder, address, mut open)| async move {
        while let Some(message) = decoder.next().await.transpose().map_err(|e| of_stream(e, &address))? {
            let note = message.app_metadata();
            let DecodedPayload::RecordBatch(batch) = message.payload else { continue };
            let end = match note.is_empty() {
                true => None,
                false => Some(end_of(&note)?),
            };
            // One without either is a sign of life.
            if batch.num_rows() > 0 || end.is_some() {
                open = end.is_none();
            }
            let batches = if batch.num_rows() > 0 { vec![batch] } else { vec![] };
            return Ok(Some((EpochChanges { batches, end }, (decoder, address, open))));
        }
        match open {
            false => Ok(None),
            true => Err(Error::new(ErrorKind::Unavailable, "the server stopped in the middle of an epoch")),
        }
    });
    parts.boxed()
}

fn end_of(note: &[u8]) -> Result<FeedEnd> {
    let note: EpochNote =
        serde_json::from_slice(note).map_err(|e| Error::internal(format!("an epoch has no readable end: {e}")))?;
    Ok(match note.limit {
        true => FeedEnd::Limit,
        false => FeedEnd::Epoch { epoch: note.epoch, watermark: note.event_time(), ahead: note.ahead },
    })
}

/// The objects in a batch of tables with schemas.
fn objects_of(batch: &RecordBatch) -> Result<Vec<ObjectInfo>> {
    let text = |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let schemas = batch.column_by_name("table_schema").and_then(|column| column.as_binary_opt::<i32>());
    let columns = (text("db_schema_name"), text("table_name"), text("table_type"), schemas);
    let (Some(namespaces), Some(names), Some(types), Some(schemas)) = columns else {
        return Err(Error::internal("the server lists tables in a form of its own"));
    };
    let object = |row: usize| {
        let schema = schema_of_bytes(Bytes::copy_from_slice(schemas.value(row)))?;
        Ok(object_of_table(namespaces.value(row), names.value(row), types.value(row), &schema))
    };
    (0..batch.num_rows()).filter(|row| names.is_valid(*row)).map(object).collect()
}

/// gRPC's addresses as HTTP's, and whether there is TLS below.
fn http_uri(address: &str) -> Result<(String, bool)> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("grpc", address));
    match scheme {
        "grpc" | "grpc+tcp" | "http" => Ok((format!("http://{rest}"), false)),
        // The connector speaks TLS, whatever the scheme is here.
        "grpc+tls" | "grpcs" | "https" => Ok((format!("http://{rest}"), true)),
        _ => Err(Error::invalid(format!("address \"{address}\" has the unknown scheme \"{scheme}\""))
            .with_hint("Write grpc://host:port or grpc+tls://host:port.")),
    }
}

/// What makes connections with TLS. The files are read once.
async fn connector(
    ca: Option<PathBuf>,
    identity: Option<Identity>,
) -> Result<impl Service<Uri, Response = TokioIo<TlsStream<TcpStream>>, Error = io::Error, Future: Send> + Send + 'static>
{
    let loaded = tokio::task::spawn_blocking(move || client_config(ca.as_deref(), identity.as_ref())).await;
    let mut config = loaded.map_err(|e| Error::internal(format!("certificates were not read: {e}")))??;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    Ok(tower::service_fn(move |uri: Uri| {
        let tls = tls.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
            let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(DEFAULT_PORT))).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(host).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        }) as Pin<Box<dyn Future<Output = io::Result<_>> + Send>>
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for address in ["grpc://h:1", "grpc+tcp://h:1", "http://h:1", "h:1"] {
            assert_eq!(http_uri(address).unwrap(), ("http://h:1".to_owned(), false));
        }
        assert_eq!(http_uri("grpc+tls://h:1").unwrap(), ("http://h:1".to_owned(), true));
        assert!(http_uri("ftp://h:1").is_err());
    }

    #[tokio::test]
    async fn nobody_at_home() {
        let error = FlightClient::connect("grpc://127.0.0.1:1", ConnectOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("127.0.0.1:1"), "{error}");
    }
}
