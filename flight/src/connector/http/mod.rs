//! `http`: a URL that is polled, and a URL to which rows are posted.
//!
//! ```sql
//! CREATE STREAM orders (id BIGINT, total DOUBLE) WITH (connector = 'http', url = 'https://shop.example.com/orders',
//!   interval = '5 s', rows = '/data', cursor = '/next_cursor', cursor_param = 'after', key = '/id');
//! CREATE STREAM alerts WITH (connector = 'http', url = 'https://example.com/alerts') AS SELECT …;
//! ```
//!
//! A poll is not answered the same way twice, so a row that was read and not committed when the process dies counts only if the
//! server still has it. Where the next poll begins (a cursor, the next page, what the server calls the version of its answer)
//! and which keys were seen is committed with the rows. A batch is posted when its checkpoint is committed, again until it
//! is taken, and under the same `Idempotency-Key` whatever crashes.

mod ask;
mod date;
mod options;
mod paging;
mod poll;
mod sink;

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_engine::connector::registry::{Connector, Guarantee, Readable, SinkRequest, SourceRequest, Writable};
use millstream_engine::connector::{Sink, Source};
use millstream_engine::error::Result;
use millstream_engine::options::{OptionSpec, Options};
use millstream_engine::reach::Touch;

use self::options::take_source;
use super::polled::PolledSource;
use super::wire::fix_paths;

/// The connector.
pub(crate) struct HttpConnector;

impl Connector for HttpConnector {
    fn name(&self) -> &str {
        "http"
    }

    fn about(&self) -> &str {
        "a URL that is polled, or posted to"
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

impl Readable for HttpConnector {
    fn options(&self) -> Vec<OptionSpec> {
        options::source_specs()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn promise(&self) -> String {
        "at least once, as long as the server still has the row; with key: once".to_owned()
    }

    fn scan(&self, request: SourceRequest) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(PolledSource(Arc::new(take_source(request)?))))
    }
}

impl Writable for HttpConnector {
    fn options(&self) -> Vec<OptionSpec> {
        options::sink_specs()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn promise(&self) -> String {
        "at least once; once where the server heeds Idempotency-Key".to_owned()
    }

    fn open(&self, request: SinkRequest) -> Result<Arc<dyn Sink>> {
        sink::open(request)
    }
}
