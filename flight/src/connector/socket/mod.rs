//! `socket`: rows as lines over TCP, in the clear or over TLS, and as datagrams of UDP.
//!
//! ```sql
//! CREATE STREAM clicks (id BIGINT, url TEXT) WITH (connector = 'socket', mode = 'listener', address = '0.0.0.0:7000');
//! CREATE STREAM out WITH (connector = 'socket', protocol = 'udp', address = '10.0.0.7:9000') AS SELECT …;
//! ```
//!
//! A socket cannot be asked for anything twice. What a source has read and not committed when the process dies is lost: at
//! most once. What a sink sends has been committed; a TCP client sends it at least once, a listener and UDP at most once.

mod broadcast;
mod courier;
mod datagrams;
mod lines;
mod options;
mod port;
mod rows;
mod sink;
mod source;
mod throw;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use millstream_engine::connector::registry::{Connector, Guarantee, Readable, SinkRequest, SourceRequest, Writable};
use millstream_engine::connector::{Sink, Source};
use millstream_engine::error::Result;
use millstream_engine::format::form::Form;
use millstream_engine::format::metadata::MetadataKey;
use millstream_engine::options::{OptionSpec, Options};
use millstream_engine::reach::Touch;

use super::wire::fix_paths;

/// The metadata of a row: who sent it, and when it came.
const PEER: &str = "peer";
const ARRIVED: &str = "arrived";

/// The connector.
pub(crate) struct SocketConnector;

impl Connector for SocketConnector {
    fn name(&self) -> &str {
        "socket"
    }

    fn about(&self) -> &str {
        "lines over TCP or TLS, datagrams of UDP"
    }

    fn source(&self) -> Option<&dyn Readable> {
        Some(self)
    }

    fn sink(&self) -> Option<&dyn Writable> {
        Some(self)
    }

    fn fix_paths(&self, options: &mut BTreeMap<String, String>) -> BTreeMap<String, String> {
        fix_paths(options);
        BTreeMap::new()
    }

    fn touches(&self, options: &Options) -> Result<Option<Vec<Touch>>> {
        options::touches(options).map(Some)
    }
}

impl Readable for SocketConnector {
    fn options(&self) -> Vec<OptionSpec> {
        options::source_specs()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    fn metadata(&self) -> Vec<MetadataKey> {
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        vec![
            MetadataKey::new(PEER, DataType::Utf8View, "the address and port that the row came from"),
            MetadataKey::new(ARRIVED, instant, "when the row was received"),
        ]
    }

    fn form(&self, options: &Options) -> Form {
        options::form(options)
    }

    fn scan(&self, request: SourceRequest) -> Result<Arc<dyn Source>> {
        source::open(request)
    }
}

impl Writable for SocketConnector {
    fn options(&self) -> Vec<OptionSpec> {
        options::sink_specs()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    fn promise(&self) -> String {
        format!("tcp client: {}; listener and udp: {}", Guarantee::AtLeastOnce, Guarantee::AtMostOnce)
    }

    fn open(&self, request: SinkRequest) -> Result<Arc<dyn Sink>> {
        sink::open(request)
    }

    fn is_single(&self) -> bool {
        true
    }
}
