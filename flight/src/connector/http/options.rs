//! The options of `http`, and what they come to.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use millstream_engine::connector::registry::{SinkRequest, SourceRequest};
use millstream_engine::error::{Error, Result};
use millstream_engine::format::metadata::Layout;
use millstream_engine::options::{OptionSpec, Options, Takes};
use millstream_engine::reach::Touch;
use reqwest::Method;
use url::Url;

use super::ask::Client;
use super::paging::Paging;
use crate::connector::count::{at_least, some_time};
use crate::connector::headers::take_headers;
use crate::connector::wire::{TLS_CA, TLS_CERT, TLS_KEY};

const URL: OptionSpec =
    OptionSpec::new("url", Takes::Text, "https://example.com/orders", "what is asked, or posted to").required();
const METHOD: OptionSpec =
    OptionSpec::new("method", Takes::OneOf(&["GET", "POST"]), "POST", "how the URL is asked").or("GET");
const SINK_METHOD: OptionSpec =
    OptionSpec::new("method", Takes::OneOf(&["POST", "PUT", "PATCH"]), "PUT", "how rows are sent").or("POST");
const HEADERS: OptionSpec =
    OptionSpec::new("headers", Takes::Text, "Accept-Language: en", "headers of each request, one a line");
const AUTHORIZATION: OptionSpec =
    OptionSpec::new("authorization", Takes::Text, "secret:shop", "the header of that name, such as Bearer and a token")
        .secret();
const PARAMS: OptionSpec =
    OptionSpec::new("params", Takes::Text, "status=open&limit=100", "parameters, as stand behind the ? of a URL");
const BODY: OptionSpec = OptionSpec::new("body", Takes::Text, "{\"query\": \"open\"}", "the body of each request");
const INTERVAL: OptionSpec = OptionSpec::new("interval", Takes::Duration, "1 min", "the time between polls").or("10 s");
const FORMAT: OptionSpec =
    OptionSpec::new("format", Takes::OneOf(&["json", "ndjson", "csv", "arrow"]), "csv", "what the answers hold")
        .or("json");
const SINK_FORMAT: OptionSpec =
    OptionSpec::new("format", Takes::OneOf(&["json", "ndjson", "csv"]), "ndjson", "how rows are written").or("json");
const ON_ERROR: OptionSpec = OptionSpec::new(
    "on_error",
    Takes::OneOf(&["dead_letter", "fail"]),
    "fail",
    "what cannot be decoded is put aside as a dead letter, or ends the stream",
)
.or("dead_letter");
const ROWS: OptionSpec =
    OptionSpec::new("rows", Takes::Text, "/data/items", "JSON pointer to the rows in an answer").otherwise("all of it");
const NEXT: OptionSpec = OptionSpec::new(
    "next",
    Takes::Text,
    "/links/next",
    "where an answer has the URL of the next page: a JSON pointer, or link for the header Link",
);
const CURSOR: OptionSpec =
    OptionSpec::new("cursor", Takes::Text, "/next_cursor", "JSON pointer to where the next request goes on");
const CURSOR_PARAM: OptionSpec =
    OptionSpec::new("cursor_param", Takes::Text, "after", "the parameter that takes the cursor").otherwise("cursor");
const PAGE_PARAM: OptionSpec =
    OptionSpec::new("page_param", Takes::Text, "page", "the parameter that takes the number of a page");
const FIRST_PAGE: OptionSpec = OptionSpec::new("first_page", Takes::Whole, "0", "the number of the first page").or("1");
const KEY: OptionSpec = OptionSpec::new(
    "key",
    Takes::Text,
    "/id",
    "JSON pointer in a row to what tells it apart: one that was seen is dropped",
);
const KEY_MEMORY: OptionSpec =
    OptionSpec::new("key_memory", Takes::Whole, "1000", "how many keys are remembered").or("20000");
const TIMEOUT: OptionSpec =
    OptionSpec::new("timeout", Takes::Duration, "5 s", "how long a request may take").or("30 s");
const MAX_RETRY_DELAY: OptionSpec =
    OptionSpec::new("max_retry_delay", Takes::Duration, "5 s", "the waits between attempts double up to this")
        .or("30 s");
const MAX_BYTES: OptionSpec =
    OptionSpec::new("max_response_bytes", Takes::Whole, "1000000", "an answer that is longer is not read")
        .or("67108864");
const BATCH_ROWS: OptionSpec =
    OptionSpec::new("batch_rows", Takes::Whole, "100", "rows of a request at most").or("1000");
const BUFFER_BYTES: OptionSpec = OptionSpec::new(
    "buffer_bytes",
    Takes::Whole,
    "1000000",
    "what may wait on disk while the server does not take it: beyond it the query waits",
)
.or("268435456");

/// Those of a source.
pub(super) fn source_specs() -> Vec<OptionSpec> {
    let own = [
        URL,
        METHOD,
        HEADERS,
        AUTHORIZATION,
        PARAMS,
        BODY,
        INTERVAL,
        FORMAT,
        ON_ERROR,
        ROWS,
        NEXT,
        CURSOR,
        CURSOR_PARAM,
        PAGE_PARAM,
        FIRST_PAGE,
        KEY,
        KEY_MEMORY,
        TIMEOUT,
        MAX_RETRY_DELAY,
        MAX_BYTES,
        TLS_CA,
        TLS_CERT,
        TLS_KEY,
    ];
    own.to_vec()
}

/// Those of a sink.
pub(super) fn sink_specs() -> Vec<OptionSpec> {
    let own = [
        URL,
        SINK_METHOD,
        HEADERS,
        AUTHORIZATION,
        SINK_FORMAT,
        BATCH_ROWS,
        BUFFER_BYTES,
        TIMEOUT,
        MAX_RETRY_DELAY,
        TLS_CA,
        TLS_CERT,
        TLS_KEY,
    ];
    own.to_vec()
}

/// What answers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Json,
    JsonLines,
    Csv,
    Arrow,
}

/// What a source goes by.
pub(super) struct Polling {
    pub(super) stream: String,
    pub(super) client: Client,
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) body: Option<String>,
    pub(super) interval: Duration,
    pub(super) holds: Holds,
    pub(super) fail: bool,
    pub(super) rows: String,
    pub(super) paging: Paging,
    pub(super) key: Option<String>,
    pub(super) key_memory: usize,
    pub(super) max_bytes: usize,
    pub(super) layout: Layout,
}

/// What a sink goes by.
pub(super) struct Posting {
    pub(super) stream: String,
    pub(super) client: Client,
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) holds: Holds,
    pub(super) batch_rows: usize,
    pub(super) buffer_bytes: u64,
    pub(super) schema: SchemaRef,
    pub(super) retracts: bool,
    pub(super) key: Option<Vec<usize>>,
}

/// A URL without what may be a secret.
pub(super) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// What a request touches. A server is not followed to another.
pub(super) fn touches(options: &Options) -> Result<Vec<Touch>> {
    let mut options = options.clone();
    let url = take_url(&mut options)?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or_default();
    let files = [TLS_CA, TLS_CERT, TLS_KEY].into_iter().filter_map(|spec| options.text(&spec));
    let files: Vec<_> = files.map(|file| Touch::File(file.into())).collect();
    Ok([vec![Touch::Address { host, port }], files].concat())
}

/// Takes the options of a source.
pub(super) fn take_source(mut request: SourceRequest) -> Result<Polling> {
    let layout = request.layout()?;
    let o = &mut request.options;
    let mut url = take_url(o)?;
    if let Some(params) = o.text(&PARAMS) {
        url.query_pairs_mut().extend_pairs(url::form_urlencoded::parse(params.as_bytes()));
    }
    let method = if o.choice(&METHOD)? == Some("POST") { Method::POST } else { Method::GET };
    let body = o.text(&BODY);
    let interval = some_time(o, &INTERVAL)?;
    let holds = holds(o.choice(&FORMAT)?);
    let fail = o.choice(&ON_ERROR)? == Some("fail");
    let json_only = [ROWS, NEXT, CURSOR, KEY].into_iter().find(|spec| o.is_set(spec));
    if let (Some(spec), false) = (json_only, holds == Holds::Json) {
        return Err(Error::invalid(format!("{} has {} without format = 'json'", o.owner(), spec.name))
            .with_hint("Only JSON documents have such a place."));
    }
    let rows = pointer(o, &ROWS)?.unwrap_or_default();
    let paging = take_paging(o)?;
    let key = pointer(o, &KEY)?;
    let (key_memory, max_bytes) = (at_least(o, &KEY_MEMORY, 1)?, at_least(o, &MAX_BYTES, 1)?);
    let client = take_client(o, &url)?;
    request.options.finish()?;
    let stream = request.stream;
    Ok(Polling {
        stream,
        client,
        url,
        method,
        body,
        interval,
        holds,
        fail,
        rows,
        paging,
        key,
        key_memory: key_memory.min(1_000_000),
        max_bytes,
        layout,
    })
}

fn take_paging(o: &mut Options) -> Result<Paging> {
    let (next, cursor, page) = (o.text(&NEXT), pointer(o, &CURSOR)?, o.text(&PAGE_PARAM));
    let cursor_param = o.text(&CURSOR_PARAM).unwrap_or_else(|| "cursor".to_owned());
    let first = o.value::<u64>(&FIRST_PAGE, "a whole number")?.unwrap_or(1);
    match (next, cursor, page) {
        (None, None, None) => Ok(Paging::None),
        (Some(link), None, None) if link.eq_ignore_ascii_case("link") => Ok(Paging::Link),
        (Some(pointer), None, None) => Ok(Paging::Next(checked(o, &NEXT, pointer)?)),
        (None, Some(pointer), None) => Ok(Paging::Cursor { pointer, param: cursor_param }),
        (None, None, Some(param)) => Ok(Paging::Page { param, first }),
        _ => Err(Error::invalid(format!("{} has several of next, cursor and page_param", o.owner()))
            .with_hint("Write the one by which the server gives its pages.")),
    }
}

/// Takes the options of a sink.
pub(super) fn take_sink(mut request: SinkRequest) -> Result<Posting> {
    let o = &mut request.options;
    let url = take_url(o)?;
    let method = match o.choice(&SINK_METHOD)? {
        Some("PUT") => Method::PUT,
        Some("PATCH") => Method::PATCH,
        _ => Method::POST,
    };
    let holds = holds(o.choice(&SINK_FORMAT)?);
    let (batch_rows, buffer_bytes) = (at_least(o, &BATCH_ROWS, 1)?, at_least(o, &BUFFER_BYTES, 1)? as u64);
    let client = take_client(o, &url)?;
    request.options.finish()?;
    let SinkRequest { stream, schema, retracts, key, .. } = request;
    Ok(Posting { stream, client, url, method, holds, batch_rows, buffer_bytes, schema, retracts, key })
}

fn holds(format: Option<&str>) -> Holds {
    match format {
        Some("ndjson") => Holds::JsonLines,
        Some("csv") => Holds::Csv,
        Some("arrow") => Holds::Arrow,
        _ => Holds::Json,
    }
}

fn take_client(o: &mut Options, url: &Url) -> Result<Client> {
    let headers = take_headers(o, &HEADERS, &AUTHORIZATION)?;
    let (timeout, longest) = (some_time(o, &TIMEOUT)?, o.duration(&MAX_RETRY_DELAY)?.unwrap_or_default());
    Client::new(o, url.scheme() == "https", headers, timeout, longest)
}

fn take_url(o: &mut Options) -> Result<Url> {
    let text = o.required(&URL)?;
    let wrong = |why: &str| {
        Error::invalid(format!("option \"url\" of {} {why}", o.owner()))
            .with_hint("Write it like url = 'https://host:port/path'.")
    };
    let url = Url::parse(&text).map_err(|e| wrong(&format!("is no URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(&format!("begins with {}://, not with http:// or https://", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let e = Error::invalid(format!("option \"url\" of {} has a user in it", o.owner()));
        return Err(e.with_hint("Say who you are by a header: authorization = 'secret:…'."));
    }
    Ok(url)
}

/// An option that is a JSON pointer.
fn pointer(o: &mut Options, spec: &OptionSpec) -> Result<Option<String>> {
    o.text(spec).map(|text| checked(o, spec, text)).transpose()
}

fn checked(o: &Options, spec: &OptionSpec, text: String) -> Result<String> {
    match text.is_empty() || text.starts_with('/') {
        true => Ok(text),
        false => Err(Error::invalid(format!(
            "option \"{}\" of {} is '{text}', which is no JSON pointer",
            spec.name,
            o.owner()
        ))
        .with_hint(format!("Write it like {} = '{}'.", spec.name, spec.example))),
    }
}
