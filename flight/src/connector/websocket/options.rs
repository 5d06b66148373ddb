//! The options of WebSockets, and what they come to.

use std::time::Duration;

use axum::http::HeaderMap;
use millstream_engine::connector::registry::SourceRequest;
use millstream_engine::error::{Error, Result};
use millstream_engine::format::metadata::Layout;
use millstream_engine::format::records::RecordOptions;
use millstream_engine::options::{OptionSpec, Options, Takes};
use millstream_engine::reach::Touch;
use url::Url;

use crate::connector::count::{at_least, some_time};
use crate::connector::headers::take_headers;
use crate::connector::wire::{Address, Dialer, TLS_CA, TLS_CERT, TLS_KEY, TLS_SERVER_NAME, touched_files};

const URL: OptionSpec =
    OptionSpec::new("url", Takes::Text, "wss://feed.example.com/ws", "the server; wss is over TLS").required();
const SUBSCRIBE: OptionSpec = OptionSpec::new(
    "subscribe",
    Takes::Text,
    "{\"subscribe\": \"trades\"}",
    "messages, one a line, that are sent whenever a connection is made",
);
const HEADERS: OptionSpec = OptionSpec::new(
    "headers",
    Takes::Text,
    "Origin: https://example.com",
    "headers, one a line, that the connection is asked for with",
);
const AUTHORIZATION: OptionSpec =
    OptionSpec::new("authorization", Takes::Text, "secret:feed", "the header of that name, such as Bearer and a token")
        .secret();
const QUEUE_BYTES: OptionSpec = OptionSpec::new(
    "queue_bytes",
    Takes::Whole,
    "1048576",
    "what may wait to be read: beyond it the server is read no further",
)
.or("16777216");
const MAX_MESSAGE_BYTES: OptionSpec = OptionSpec::new(
    "max_message_bytes",
    Takes::Whole,
    "1048576",
    "a message that is longer becomes a dead letter, and the connection is made anew",
)
.or("16777216");
const PING_INTERVAL: OptionSpec =
    OptionSpec::new("ping_interval", Takes::Duration, "5 s", "how often the server is asked whether it is there")
        .or("20 s");
const CONNECTION_TIMEOUT: OptionSpec = OptionSpec::new(
    "connection_timeout",
    Takes::Duration,
    "15 s",
    "a connection over which nothing comes for so long, not even an answer, is made anew",
)
.or("60 s");
const MAX_RETRY_DELAY: OptionSpec = OptionSpec::new(
    "max_retry_delay",
    Takes::Duration,
    "1 min",
    "the waits between attempts to connect double up to this",
)
.or("10 s");

/// All that there are.
pub(super) fn specs() -> Vec<OptionSpec> {
    let own = [
        URL,
        SUBSCRIBE,
        HEADERS,
        AUTHORIZATION,
        QUEUE_BYTES,
        MAX_MESSAGE_BYTES,
        PING_INTERVAL,
        CONNECTION_TIMEOUT,
        MAX_RETRY_DELAY,
        TLS_CA,
        TLS_CERT,
        TLS_KEY,
        TLS_SERVER_NAME,
    ];
    [&own[..], &RecordOptions::specs()].concat()
}

/// What a source of messages goes by.
pub(super) struct Messages {
    pub(super) url: Url,
    pub(super) dialer: Dialer,
    pub(super) headers: HeaderMap,
    pub(super) subscriptions: Vec<String>,
    pub(super) layout: Layout,
    pub(super) records: RecordOptions,
    pub(super) queue_bytes: usize,
    pub(super) max_bytes: usize,
    pub(super) ping_every: Duration,
    pub(super) patience: Duration,
    pub(super) longest_wait: Duration,
}

impl Messages {
    /// The server, for messages: what stands behind `?` may be a secret.
    pub(super) fn describe(&self) -> String {
        format!("websocket {}://{}{}", self.url.scheme(), self.dialer.address, self.url.path())
    }
}

/// What a WebSocket touches: its server, and files of certificates.
pub(super) fn touches(options: &Options) -> Result<Vec<Touch>> {
    let (_, address) = take_url(&mut options.clone())?;
    Ok(std::iter::once(address.into()).chain(touched_files(options)).collect())
}

/// Takes the options of a source.
pub(super) fn take(mut request: SourceRequest) -> Result<Messages> {
    let layout = request.layout()?;
    let o = &mut request.options;
    let (url, address) = take_url(o)?;
    let headers = take_headers(o, &HEADERS, &AUTHORIZATION)?;
    let subscriptions = o.text(&SUBSCRIBE).unwrap_or_default();
    let subscriptions = subscriptions.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    let records = RecordOptions::take(o)?;
    let (queue_bytes, max_bytes) = (at_least(o, &QUEUE_BYTES, 1)?, at_least(o, &MAX_MESSAGE_BYTES, 1)?);
    let ping_every = some_time(o, &PING_INTERVAL)?;
    let patience = some_time(o, &CONNECTION_TIMEOUT)?;
    let longest_wait = o.duration(&MAX_RETRY_DELAY)?.unwrap_or_default();
    let dialer = Dialer::take(o, address, url.scheme() == "wss")?;
    request.options.finish()?;
    Ok(Messages {
        url,
        dialer,
        headers,
        subscriptions,
        layout,
        records,
        queue_bytes,
        max_bytes,
        ping_every,
        patience,
        longest_wait,
    })
}

fn take_url(o: &mut Options) -> Result<(Url, Address)> {
    let text = o.required(&URL)?;
    let wrong = |why: &str| {
        Error::invalid(format!("option \"url\" of {} {why}", o.owner()))
            .with_hint("Write it like url = 'wss://host:port/path'.")
    };
    let url = Url::parse(&text).map_err(|e| wrong(&format!("is no URL: {e}")))?;
    if !matches!(url.scheme(), "ws" | "wss") {
        return Err(wrong(&format!("begins with {}://, not with ws:// or wss://", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let e = Error::invalid(format!("option \"url\" of {} has a user in it", o.owner()));
        return Err(e.with_hint("Say who you are by a header: authorization = 'secret:…'."));
    }
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_or_known_default().unwrap_or_default();
    Ok((url, Address { host, port }))
}
