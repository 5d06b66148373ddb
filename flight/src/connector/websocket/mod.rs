//! `websocket`: the messages of a WebSocket server, which most public feeds are.
//!
//! ```sql
//! CREATE STREAM trades (s TEXT, p DOUBLE, t TIMESTAMP) WITH (connector = 'websocket', url = 'wss://feed.example.com/ws',
//!   subscribe = '{"method": "SUBSCRIBE", "params": ["trade"]}');
//! ```
//!
//! A message is a record. A server sends what happens from then on and nothing again: what was read and not committed when
//! the process dies, and what happens while there is no connection, is lost.

mod options;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use millstream_engine::connector::Source;
use millstream_engine::connector::registry::{Connector, Guarantee, Readable, SourceRequest};
use millstream_engine::error::Result;
use millstream_engine::format::form::Form;
use millstream_engine::format::metadata::MetadataKey;
use millstream_engine::format::records::RecordOptions;
use millstream_engine::options::{OptionSpec, Options};
use millstream_engine::reach::Touch;

use super::wire::fix_paths;

/// The metadata of a row: when its message came.
const ARRIVED: &str = "arrived";

/// The connector.
pub(crate) struct WebSocketConnector;

impl Connector for WebSocketConnector {
    fn name(&self) -> &str {
        "websocket"
    }

    fn about(&self) -> &str {
        "messages of a WebSocket server"
    }

    fn source(&self) -> Option<&dyn Readable> {
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

impl Readable for WebSocketConnector {
    fn options(&self) -> Vec<OptionSpec> {
        options::specs()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    fn metadata(&self) -> Vec<MetadataKey> {
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        vec![MetadataKey::new(ARRIVED, instant, "when the message was received")]
    }

    fn form(&self, options: &Options) -> Form {
        RecordOptions::form(options)
    }

    fn scan(&self, request: SourceRequest) -> Result<Arc<dyn Source>> {
        source::open(request)
    }
}
