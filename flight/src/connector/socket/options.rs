//! The options of sockets, and what they come to.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use millstream_engine::connector::registry::{SinkRequest, SourceRequest};
use millstream_engine::error::{Error, Result};
use millstream_engine::format::Format;
use millstream_engine::format::form::{CHANGES, DEBEZIUM_JSON, Form};
use millstream_engine::format::metadata::Layout;
use millstream_engine::format::options::{CsvOptions, JsonOptions, ON_ERROR, RECORD_TEXT};
use millstream_engine::format::records::{RecordFormat, RecordOptions};
use millstream_engine::options::{OptionSpec, Options, Takes};
use millstream_engine::reach::Touch;

use crate::connector::count::at_least;
use crate::connector::wire::{
    Address, Dialer, Doorman, TLS, TLS_CA, TLS_CERT, TLS_KEY, TLS_SERVER_NAME, take_flag, touched_files,
};

const PROTOCOL: OptionSpec =
    OptionSpec::new("protocol", Takes::OneOf(&["tcp", "udp"]), "udp", "what is spoken").or("tcp");
const MODE: OptionSpec = OptionSpec::new(
    "mode",
    Takes::OneOf(&["client", "listener"]),
    "listener",
    "tcp: connects to the address, and again when the connection ends; or waits there for others to connect",
)
.or("client");
const ADDRESS: OptionSpec = OptionSpec::new(
    "address",
    Takes::Text,
    "127.0.0.1:7000",
    "host:port: the other side's; one's own for a listener and where udp is read",
)
.required();
const FORMAT: OptionSpec =
    OptionSpec::new("format", Takes::OneOf(&["json", "csv"]), "csv", "how a line, or a datagram, is written")
        .or("json");
const READ_FORMAT: OptionSpec = OptionSpec::new(
    "format",
    Takes::OneOf(&["json", "csv", DEBEZIUM_JSON]),
    "csv",
    "how a line, or a datagram, is written",
)
.or("json");
const HEADER: OptionSpec =
    OptionSpec::new("header", Takes::Flag, "true", "tcp, CSV: the first line of each connection names the columns")
        .or("false");
const QUEUE_BYTES: OptionSpec = OptionSpec::new(
    "queue_bytes",
    Takes::Whole,
    "1048576",
    "what may wait to be read: beyond it tcp is read no further, and datagrams are dropped and counted",
)
.or("16777216");
const MAX_CONNECTIONS: OptionSpec = OptionSpec::new(
    "max_connections",
    Takes::Whole,
    "10",
    "listener: how many there are at a time; one more is closed at once and counted",
)
.or("100");
const MAX_LINE_BYTES: OptionSpec = OptionSpec::new(
    "max_line_bytes",
    Takes::Whole,
    "65536",
    "tcp: a line that is longer becomes a dead letter of its beginning",
)
.or("1048576");
const CONNECTION_TIMEOUT: OptionSpec = OptionSpec::new(
    "connection_timeout",
    Takes::Duration,
    "30 s",
    "tcp: a connection that gives no whole line for so long is closed; 0 never",
)
.otherwise("5 min for a listener, 0 for a client");
const MAX_DATAGRAM_BYTES: OptionSpec = OptionSpec::new(
    "max_datagram_bytes",
    Takes::Whole,
    "1400",
    "udp: a row, or a datagram, that is longer becomes a dead letter",
)
.or("65507");
const RATE: OptionSpec = OptionSpec::new(
    "rate",
    Takes::Whole,
    "5000",
    "udp: so many datagrams a second at most, for a receiver that cannot take at once what a checkpoint commits",
)
.otherwise("no bound");
const MAX_RETRY_DELAY: OptionSpec = OptionSpec::new(
    "max_retry_delay",
    Takes::Duration,
    "1 min",
    "client: the waits between attempts to connect double up to this",
)
.or("10 s");
const BUFFER_BYTES: OptionSpec = OptionSpec::new(
    "buffer_bytes",
    Takes::Whole,
    "1048576",
    "tcp: while so much waits for the other side the query waits too; a listener lets a client go that is so far behind",
)
.or("16777216");
const RESEND_FOR: OptionSpec = OptionSpec::new(
    "resend_for",
    Takes::Duration,
    "5 s",
    "client: what was sent so long before a connection ended is sent again on the next, since it may not have been read",
)
.or("30 s");

/// All that a source may have.
pub(super) fn source_specs() -> Vec<OptionSpec> {
    let own = [
        PROTOCOL,
        MODE,
        ADDRESS,
        READ_FORMAT,
        CHANGES,
        HEADER,
        ON_ERROR,
        QUEUE_BYTES,
        MAX_CONNECTIONS,
        MAX_LINE_BYTES,
        CONNECTION_TIMEOUT,
        MAX_DATAGRAM_BYTES,
        MAX_RETRY_DELAY,
    ];
    [&own, RECORD_TEXT, &TLS_SPECS].concat()
}

/// What the records of a source say under `options`.
pub(super) fn form(options: &Options) -> Form {
    Form::of(options, &READ_FORMAT, "json")
}

/// All that a sink may have.
pub(super) fn sink_specs() -> Vec<OptionSpec> {
    let own = [
        PROTOCOL,
        MODE,
        ADDRESS,
        FORMAT,
        HEADER,
        MAX_CONNECTIONS,
        MAX_DATAGRAM_BYTES,
        RATE,
        MAX_RETRY_DELAY,
        BUFFER_BYTES,
        RESEND_FOR,
    ];
    [&own, RECORD_TEXT, &TLS_SPECS].concat()
}

const TLS_SPECS: [OptionSpec; 5] = [TLS, TLS_CA, TLS_CERT, TLS_KEY, TLS_SERVER_NAME];

/// How often and how long a client tries.
pub(super) type Longest = Duration;

/// Where lines come from, or go to.
#[derive(Clone)]
pub(super) enum Way {
    /// To an address, with waits of at most so long between attempts.
    Client(Dialer, Longest),
    /// From whoever connects.
    Listener(Listening),
}

impl Way {
    /// For EXPLAIN and for dead letters: `tcp 127.0.0.1:7000`.
    pub(super) fn describe(&self) -> String {
        let (way, address, secure) = match self {
            Way::Client(dialer, _) => ("", &dialer.address, dialer.is_secure()),
            Way::Listener(listening) => (" listener", &listening.address, listening.doorman.is_secure()),
        };
        format!("{}{way} {address}", if secure { "tls" } else { "tcp" })
    }
}

/// A listener.
#[derive(Clone)]
pub(super) struct Listening {
    pub(super) address: Address,
    pub(super) doorman: Doorman,
    pub(super) most: usize,
}

/// What a source of lines goes by.
pub(super) struct Lines {
    pub(super) way: Way,
    pub(super) layout: Layout,
    pub(super) decoding: Decoding,
    /// Whether a line that cannot be read ends the job.
    pub(super) fail: bool,
    pub(super) queue_bytes: usize,
    pub(super) max_line: usize,
    /// How long a connection may give no whole line.
    pub(super) patience: Option<Duration>,
}

/// How lines are written.
#[derive(Clone)]
pub(super) enum Decoding {
    Json(JsonOptions),
    Csv(CsvOptions),
}

impl Decoding {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Decoding::Json(_) => Format::Json.name(),
            Decoding::Csv(_) => Format::Csv.name(),
        }
    }
}

/// What a source of datagrams goes by.
pub(super) struct Datagrams {
    pub(super) address: Address,
    pub(super) layout: Layout,
    pub(super) records: RecordOptions,
    pub(super) queue_bytes: usize,
    pub(super) max_bytes: usize,
}

/// What is to be read.
pub(super) enum Reading {
    Lines(Arc<Lines>),
    Datagrams(Datagrams),
}

/// What a socket touches: its address, whoever's that is, and files of certificates.
pub(super) fn touches(options: &Options) -> Result<Vec<Touch>> {
    let address = take_address(&mut options.clone())?;
    Ok(std::iter::once(address.into()).chain(touched_files(options)).collect())
}

/// Takes the options of a source.
pub(super) fn take_source(mut request: SourceRequest) -> Result<Reading> {
    let layout = request.layout()?;
    let o = &mut request.options;
    let udp = o.choice(&PROTOCOL)? == Some("udp");
    let address = take_address(o)?;
    let queue_bytes = at_least(o, &QUEUE_BYTES, 1)?;
    let fail = o.choice(&ON_ERROR)? == Some("fail");
    let format = o.choice(&READ_FORMAT)?.unwrap_or("json");
    let (csv, form) = (format == "csv", Form::take(o, format)?);
    let reading = if udp {
        let format = match csv {
            true => RecordFormat::Csv(CsvOptions { form, ..CsvOptions::take_for_records(o)? }),
            false => RecordFormat::Json(JsonOptions { form, ..JsonOptions::take(o)? }),
        };
        let max_bytes = take_max_datagram(o)?;
        Reading::Datagrams(Datagrams {
            address,
            layout,
            records: RecordOptions { format, fail },
            queue_bytes,
            max_bytes,
        })
    } else {
        let way = take_way(o, address)?;
        let decoding = match csv {
            true => Decoding::Csv(CsvOptions { form, ..csv_lines(o)? }),
            false => Decoding::Json(JsonOptions { form, ..JsonOptions::take(o)? }),
        };
        let default = matches!(way, Way::Listener(_)).then_some(Duration::from_secs(300));
        let patience = o.duration(&CONNECTION_TIMEOUT)?.or(default).filter(|time| !time.is_zero());
        let max_line = at_least(o, &MAX_LINE_BYTES, 1)?;
        Reading::Lines(Arc::new(Lines { way, layout, decoding, fail, queue_bytes, max_line, patience }))
    };
    request.options.finish()?;
    Ok(reading)
}

/// How rows are written.
#[derive(Clone)]
pub(super) struct Wording {
    pub(super) format: Format,
    pub(super) csv: CsvOptions,
}

/// Where rows go.
pub(super) enum Writing {
    Client { dialer: Dialer, longest: Longest, buffer_bytes: u64, resend_for: Duration },
    Listener { listening: Listening, buffer_bytes: usize },
    Datagrams { address: Address, max_bytes: usize, rate: Option<u64> },
}

/// Takes the options of a sink.
pub(super) fn take_sink(request: &mut SinkRequest) -> Result<(Writing, Wording)> {
    let o = &mut request.options;
    let udp = o.choice(&PROTOCOL)? == Some("udp");
    let address = take_address(o)?;
    let csv = o.choice(&FORMAT)? == Some("csv");
    let writing = if udp {
        let rate = o.value::<NonZeroU64>(&RATE, "a number of datagrams from 1 on")?.map(NonZeroU64::get);
        Writing::Datagrams { address, max_bytes: take_max_datagram(o)?, rate }
    } else {
        let buffer_bytes = at_least(o, &BUFFER_BYTES, 1)?;
        match take_way(o, address)? {
            Way::Listener(listening) => Writing::Listener { listening, buffer_bytes },
            Way::Client(dialer, longest) => {
                let resend_for = o.duration(&RESEND_FOR)?.unwrap_or_default();
                Writing::Client { dialer, longest, buffer_bytes: buffer_bytes as u64, resend_for }
            }
        }
    };
    let wording = match (csv, udp) {
        (false, _) => Wording { format: Format::Json, csv: CsvOptions::default() },
        (true, true) => Wording { format: Format::Csv, csv: CsvOptions::take_for_records(o)? },
        (true, false) => Wording { format: Format::Csv, csv: csv_lines(o)? },
    };
    std::mem::take(&mut request.options).finish()?;
    Ok((writing, wording))
}

/// CSV whose lines are its records.
fn csv_lines(o: &mut Options) -> Result<CsvOptions> {
    let header = o.flag(&HEADER)?;
    Ok(CsvOptions { header, newlines_in_values: false, ..CsvOptions::take_for_records(o)? })
}

fn take_address(o: &mut Options) -> Result<Address> {
    let text = o.required(&ADDRESS)?;
    Address::of_option(o.owner(), &ADDRESS, &text)
}

fn take_way(o: &mut Options, address: Address) -> Result<Way> {
    let listens = o.choice(&MODE)? == Some("listener");
    let tls = take_flag(o)?;
    if listens {
        let (doorman, most) = (Doorman::take(o, tls)?, at_least(o, &MAX_CONNECTIONS, 1)?);
        return Ok(Way::Listener(Listening { address, doorman, most }));
    }
    let longest = o.duration(&MAX_RETRY_DELAY)?.unwrap_or_default();
    Ok(Way::Client(Dialer::take(o, address, tls)?, longest))
}

fn take_max_datagram(o: &mut Options) -> Result<usize> {
    let most = at_least(o, &MAX_DATAGRAM_BYTES, 1)?;
    match most > LARGEST_DATAGRAM {
        true => Err(Error::invalid(format!(
            "option \"{}\" of {} is {most}, and no datagram is longer than {LARGEST_DATAGRAM}",
            MAX_DATAGRAM_BYTES.name,
            o.owner()
        ))),
        false => Ok(most),
    }
}

/// What fits into UDP over IPv4.
const LARGEST_DATAGRAM: usize = 65_507;
