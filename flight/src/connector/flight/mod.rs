//! The connector `flight`: streams of another Millstream server, and queries of any Flight SQL server.
//!
//! ```text
//! CREATE STREAM requests WITH (connector = 'flight', url = 'grpc+tls://a.example:31337', stream = 'requests')
//!   reads what is kept there, then what comes; its epochs are the positions, so nothing is lost or doubled
//! CREATE STREAM out WITH (connector = 'flight', url = 'grpc+tls://b.example:31337', stream = 'counts') AS SELECT …
//!   puts what is committed here into a stored stream there, which knows what it has taken
//! CREATE STREAM orders WITH (connector = 'flight', url = 'grpc://warehouse.example:32010', poll_interval = '10 s',
//!   query = 'SELECT * FROM orders WHERE id > {cursor} ORDER BY id LIMIT 10000', cursor = 'id', first_cursor = '0')
//!   polls any server that speaks Flight SQL; the cursor is committed with the rows
//! ```
//! Columns, whether rows can be taken back, the key and the event time are asked for once, at CREATE.

mod cursor;
mod hearing;
mod messages;
mod options;
mod query;
mod receiver;
mod shape;
mod sink;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_engine::connector::registry::{
    Connector, Guarantee, Readable, Shape, SinkRequest, SourceRequest, Writable,
};
use millstream_engine::connector::{Sink, Source};
use millstream_engine::error::Result;
use millstream_engine::options::{OptionSpec, Options};
use millstream_engine::reach::Touch;

use super::wire::fix_paths;

/// The connector.
pub(super) struct FlightConnector;

impl Connector for FlightConnector {
    fn name(&self) -> &str {
        "flight"
    }

    fn about(&self) -> &str {
        "streams of another Millstream server; queries of any Flight SQL server, polled"
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

impl Readable for FlightConnector {
    fn options(&self) -> Vec<OptionSpec> {
        options::READ.to_vec()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn find_options(&self, options: &Options) -> Result<BTreeMap<String, String>> {
        shape::find(options)
    }

    fn columns(&self, options: Options) -> Result<Option<SchemaRef>> {
        shape::known(&options).map(|shape| Some(shape.columns))
    }

    fn shape(&self, options: &Options) -> Result<Shape> {
        shape::known(options).map(|known| known.shape)
    }

    fn promise(&self) -> String {
        "exactly once; polled, an answer whole or not at all: with cursor, or key, each row once".to_owned()
    }

    fn scan(&self, mut request: SourceRequest) -> Result<Arc<dyn Source>> {
        match query::open(&mut request)? {
            Some(polled) => Ok(polled),
            None => source::open(request),
        }
    }
}

impl Writable for FlightConnector {
    fn options(&self) -> Vec<OptionSpec> {
        options::WRITTEN.to_vec()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn check(&self, request: SinkRequest) -> Result<()> {
        sink::check(request)
    }

    fn open(&self, request: SinkRequest) -> Result<Arc<dyn Sink>> {
        sink::open(request)
    }
}
