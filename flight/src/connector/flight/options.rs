//! The options of links, and the other side that they name.

use std::time::Duration;

use millstream_engine::error::{Error, Result};
use millstream_engine::options::{OptionSpec, Options, Takes};
use millstream_engine::reach::Touch;
use millstream_sql::rights::Hidden;
use tonic::metadata::MetadataMap;
use url::Url;

use super::cursor::PLACEHOLDER;
use crate::client::{ConnectOptions, FlightClient};
use crate::compression::Compression;
use crate::connector::count::{at_least, some_time};
use crate::connector::headers::take_headers;
use crate::connector::wire::{Files, TLS_CA, TLS_CERT, TLS_KEY, take_files, touched_files};
use crate::wanted::Wanted;

const URL: OptionSpec = OptionSpec::new(
    "url",
    Takes::Text,
    "grpc+tls://a.example:31337",
    "the server: grpc+tls://host:port, or grpc://host:port without TLS",
)
.required();
const STREAM: OptionSpec = OptionSpec::new(
    "stream",
    Takes::Text,
    "requests",
    "the stored or derived stream there; read, this or query is needed",
);
const QUERY: OptionSpec = OptionSpec::new(
    "query",
    Takes::Text,
    "SELECT id, body FROM requests WHERE size > 0",
    "in place of stream: a query over one stored or derived stream, with WHERE and a list of columns",
);
const USER: OptionSpec = OptionSpec::new("user", Takes::Text, "site_b", "who to log in as");
const PASSWORD: OptionSpec = OptionSpec::new("password", Takes::Text, "secret:site_b", "the user's password").secret();
const MAX_RETRY_DELAY: OptionSpec = OptionSpec::new(
    "max_retry_delay",
    Takes::Duration,
    "1 min",
    "while the server does not answer the waits between attempts double up to this",
)
.or("10 s");

const COMPRESSION: OptionSpec =
    OptionSpec::new("compression", Takes::OneOf(Compression::NAMES), "zstd", "how rows are compressed on their way")
        .or("none");
const AUTHORIZATION: OptionSpec = OptionSpec::new(
    "authorization",
    Takes::Text,
    "secret:warehouse",
    "in place of user: the header of that name, such as Bearer and a token",
)
.secret();
const HEADERS: OptionSpec =
    OptionSpec::new("headers", Takes::Text, "database: shop", "headers of each call, one a line");
const BUFFER_BYTES: OptionSpec = OptionSpec::new(
    "buffer_bytes",
    Takes::Whole,
    "1000000",
    "what may have come and wait to be read, on disk beyond a few MiB: then the server waits",
)
.or("268435456");
const POLL_INTERVAL: OptionSpec = OptionSpec::new(
    "poll_interval",
    Takes::Duration,
    "10 s",
    "the server is any that speaks Flight SQL, and query is asked so often",
);
const CURSOR: OptionSpec = OptionSpec::new(
    "cursor",
    Takes::Text,
    "id",
    "a column that grows from row to row: its last value stands for {cursor} in the next query",
);
const FIRST_CURSOR: OptionSpec = OptionSpec::new("first_cursor", Takes::Text, "0", "the value of {cursor} at first");
const KEY: OptionSpec =
    OptionSpec::new("key", Takes::Text, "id, at", "columns that tell rows apart: one that was seen is dropped");
const KEY_MEMORY: OptionSpec =
    OptionSpec::new("key_memory", Takes::Whole, "1000", "how many keys are remembered").or("20000");

const INTO: OptionSpec =
    OptionSpec::new("stream", Takes::Text, "counts", "the stored stream there that takes the rows").required();
const UNSENT_BYTES: OptionSpec = OptionSpec::new(
    "buffer_bytes",
    Takes::Whole,
    "1000000",
    "what may wait on disk while the server does not take it: beyond it the query waits",
)
.or("268435456");

/// All that a sink may have.
pub(super) const WRITTEN: [OptionSpec; 12] = [
    URL,
    INTO,
    USER,
    PASSWORD,
    AUTHORIZATION,
    HEADERS,
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    MAX_RETRY_DELAY,
    COMPRESSION,
    UNSENT_BYTES,
];

/// All that a source may have.
pub(super) const READ: [OptionSpec; 18] = [
    URL,
    STREAM,
    QUERY,
    USER,
    PASSWORD,
    AUTHORIZATION,
    HEADERS,
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    MAX_RETRY_DELAY,
    BUFFER_BYTES,
    COMPRESSION,
    POLL_INTERVAL,
    CURSOR,
    FIRST_CURSOR,
    KEY,
    KEY_MEMORY,
];

/// What is read of the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A stream.
    Stream(String),
    /// A query.
    Query(String),
}

/// The other side.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    /// Its address.
    pub(super) url: String,
    login: Option<(String, Hidden)>,
    files: Files,
    /// The longest wait between attempts to connect.
    pub(super) longest: Duration,
    /// How rows are compressed on their way.
    pub(super) compression: Compression,
    headers: MetadataMap,
}

impl Remote {
    /// Takes it out of `options`.
    pub(super) fn take(options: &mut Options) -> Result<Self> {
        let owner = options.owner().to_owned();
        let url = options.text(&URL).ok_or_else(|| {
            Error::invalid(format!("{owner} needs option url")).with_hint("Write url = 'grpc+tls://host:port'.")
        })?;
        let (user, password) = (options.text(&USER), options.text(&PASSWORD));
        let login = match (user, password) {
            (Some(user), Some(password)) => Some((user, Hidden::new(password))),
            (None, None) => None,
            _ => {
                return Err(Error::invalid(format!("{owner}: user and password belong together"))
                    .with_hint("Write both, or none."));
            }
        };
        let files = take_files(options)?;
        let longest = options.duration(&MAX_RETRY_DELAY)?.unwrap_or(Duration::from_secs(10));
        let compression = options.choice(&COMPRESSION)?.and_then(Compression::named).unwrap_or_default();
        if login.is_some() && options.is_set(&AUTHORIZATION) {
            return Err(
                Error::invalid(format!("{owner} says both user and authorization")).with_hint("Leave one of them out.")
            );
        }
        let mut headers = MetadataMap::from_headers(take_headers(options, &HEADERS, &AUTHORIZATION)?);
        Wanted::ask_for_life(&mut headers);
        Ok(Remote { url, login, files, longest, compression, headers })
    }

    /// A connection to it.
    pub(super) async fn connect(&self) -> Result<FlightClient> {
        let options = ConnectOptions {
            login: self.login.clone(),
            ca: self.files.ca.clone(),
            identity: self.files.identity.clone(),
            compression: self.compression,
            headers: self.headers.clone(),
        };
        FlightClient::connect(&self.url, options).await.map_err(engine_error)
    }
}

/// An error of the client, or of the other side, as one of the connector.
pub(super) fn engine_error(e: millstream_sql::Error) -> Error {
    e.to_engine()
}

/// What is written to.
#[derive(Debug)]
pub(super) struct Target {
    /// The other side.
    pub(super) remote: Remote,
    /// The stream there.
    pub(super) stream: String,
    /// Bytes that may wait.
    pub(super) buffer_bytes: u64,
}

/// Takes what is written to out of `options`.
pub(super) fn take_target(mut options: Options) -> Result<Target> {
    let remote = Remote::take(&mut options)?;
    let stream = options.required(&INTO)?;
    let owner = options.owner().to_owned();
    let buffer_bytes = options.value::<u64>(&UNSENT_BYTES, "a number of bytes")?.unwrap_or_default();
    if buffer_bytes == 0 {
        return Err(Error::invalid(format!("{owner}: buffer_bytes is 0, and nothing could be sent"))
            .with_hint("Write a number of bytes, or leave it out."));
    }
    options.finish()?;
    Ok(Target { remote, stream, buffer_bytes })
}

/// Takes what is read out of `options`.
pub(super) fn take_asked(options: &mut Options) -> Result<Asked> {
    match (options.text(&STREAM), options.text(&QUERY)) {
        (Some(stream), None) => Ok(Asked::Stream(stream)),
        (None, Some(query)) => Ok(Asked::Query(query.trim().trim_end_matches(';').to_owned())),
        (None, None) => Err(Error::invalid(format!("{} does not say what to read", options.owner()))
            .with_hint("Write stream = 'name', or query = 'SELECT …'.")),
        (Some(_), Some(_)) => Err(Error::invalid(format!("{} says both stream and query", options.owner()))
            .with_hint("Leave one of them out.")),
    }
}

/// What is asked of a server that is polled.
pub(super) struct Polls {
    pub(super) query: String,
    pub(super) interval: Duration,
    /// The column of the cursor, and where it begins.
    pub(super) cursor: Option<(String, String)>,
    pub(super) key: Vec<String>,
    pub(super) key_memory: usize,
}

/// Takes what is polled out of `options`, if the server is.
pub(super) fn take_polls(options: &mut Options) -> Result<Option<Polls>> {
    let owner = options.owner().to_owned();
    if !options.is_set(&POLL_INTERVAL) {
        return match [CURSOR, FIRST_CURSOR, KEY].iter().find(|spec| options.is_set(spec)) {
            Some(spec) => Err(Error::invalid(format!("{owner} has {} without poll_interval", spec.name))
                .with_hint("A stream of another Millstream server is read by its epochs. Of any other server write poll_interval = '10 s'.")),
            None => Ok(None),
        };
    }
    let interval = some_time(options, &POLL_INTERVAL)?;
    let Asked::Query(query) = take_asked(options)? else {
        return Err(Error::invalid(format!("{owner} has poll_interval and stream"))
            .with_hint("Write query = 'SELECT …', which is asked again and again."));
    };
    let cursor = match (options.text(&CURSOR), options.text(&FIRST_CURSOR)) {
        (Some(column), Some(first)) => Some((column, first)),
        (None, None) => None,
        _ => {
            return Err(Error::invalid(format!("{owner}: cursor and first_cursor belong together"))
                .with_hint("Write both, such as cursor = 'id', first_cursor = '0', or none."));
        }
    };
    if cursor.is_some() != query.contains(PLACEHOLDER) {
        return Err(Error::invalid(format!("{owner}: cursor and {PLACEHOLDER} in query belong together"))
            .with_hint(format!("Write cursor = 'id' and query = 'SELECT … WHERE id > {PLACEHOLDER} ORDER BY id'.")));
    }
    let key: Vec<_> = options.text(&KEY).iter().flat_map(|key| key.split(',')).map(|c| c.trim().to_owned()).collect();
    if cursor.is_some() && !key.is_empty() {
        return Err(Error::invalid(format!("{owner} has both cursor and key"))
            .with_hint("With a cursor no row comes twice: leave key out."));
    }
    let key_memory = at_least(options, &KEY_MEMORY, 1)?.min(1_000_000);
    Ok(Some(Polls { query, interval, cursor, key, key_memory }))
}

/// Takes how many bytes may have come and wait to be read. An epoch may be larger, and then is alone.
pub(super) fn take_buffer(options: &mut Options) -> Result<usize> {
    at_least(options, &BUFFER_BYTES, 1)
}

/// What a link touches.
pub(super) fn touches(options: &Options) -> Result<Vec<Touch>> {
    let remote = Remote::take(&mut options.clone())?;
    let unknown =
        || Error::invalid(format!("\"{}\" is not an address", remote.url)).with_hint("Write grpc+tls://host:port.");
    let text = if remote.url.contains("://") { remote.url.clone() } else { format!("grpc://{}", remote.url) };
    let url = Url::parse(&text).map_err(|_| unknown())?;
    let host = url.host_str().ok_or_else(unknown)?.trim_matches(['[', ']']).to_owned();
    let port = url.port().unwrap_or(crate::client::DEFAULT_PORT);
    Ok([Touch::Address { host, port }].into_iter().chain(touched_files(options)).collect())
}
