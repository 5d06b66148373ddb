//! A connector of messages: what the stream reads of them, and what is known of them besides.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use futures::TryStreamExt as _;
use millstream_engine::connector::generator::Numbered;
use millstream_engine::connector::registry::{Connector, Guarantee, Readable, SourceRequest};
use millstream_engine::connector::{Intake, Opening, Read, Readers, Source, Unit, UnitReader, built_in};
use millstream_engine::format::metadata::{Layout, MetadataKey};
use millstream_engine::format::records::{RecordDecoder, RecordOptions, Records};
use millstream_engine::options::OptionSpec;
use millstream_sql::session::{Config, Millstream, Outcome};

/// The messages of partition 0: key, seconds, content.
const MESSAGES: [(Option<&str>, i64, Option<&str>); 5] = [
    (Some("a"), 10, Some(r#"{"v": 1}"#)),
    (None, 11, Some("{\"v\":\n 2}")),
    (Some("c"), 12, Some(r#"{"v": "two"}"#)),
    (Some("d"), 13, None),
    (Some("e"), 14, Some(r#"[{"v": 3}, {"v": 4}]"#)),
];

/// A queue that holds them, from number 100 on.
struct Queue;

impl Connector for Queue {
    fn name(&self) -> &str {
        "queue"
    }

    fn about(&self) -> &str {
        "messages for a test"
    }

    fn source(&self) -> Option<&dyn Readable> {
        Some(self)
    }
}

impl Readable for Queue {
    fn options(&self) -> Vec<OptionSpec> {
        RecordOptions::specs()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn metadata(&self) -> Vec<MetadataKey> {
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        vec![
            MetadataKey::new("key", DataType::Utf8View, "what it is about").nullable(),
            MetadataKey::new("timestamp", instant, "when it was sent"),
            MetadataKey::new("offset", DataType::Int64, "its number"),
        ]
    }

    fn scan(&self, mut request: SourceRequest) -> millstream_engine::Result<Arc<dyn Source>> {
        let options = RecordOptions::take(&mut request.options)?;
        let layout = request.layout()?;
        request.options.finish()?;
        Ok(Arc::new(Messages { options, layout }))
    }
}

struct Messages {
    options: RecordOptions,
    layout: Layout,
}

#[async_trait]
impl Source for Messages {
    fn describe(&self) -> String {
        "queue".to_owned()
    }

    fn bounded(&self) -> bool {
        true
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    async fn open(self: Arc<Self>, opening: Opening) -> millstream_engine::Result<Arc<dyn Intake>> {
        Ok(Numbered::new("0", Some(105), 105).open(&opening.consumed))
    }
}

#[async_trait]
impl Readers for Messages {
    async fn read(&self, unit: &Unit) -> millstream_engine::Result<Box<dyn UnitReader>> {
        let decoder = RecordDecoder::new(&self.options, self.layout.clone(), unit.split.clone())?;
        Ok(Box::new(Reader { decoder, layout: self.layout.clone(), done: false }))
    }
}

struct Reader {
    decoder: RecordDecoder,
    layout: Layout,
    done: bool,
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> millstream_engine::Result<Option<Read>> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let contents: BinaryArray = MESSAGES.iter().map(|m| m.2.map(str::as_bytes)).collect();
        let mut records = Records::new(contents, (100..105).collect())?;
        // What is not read need not be made.
        if self.layout.reads("key") {
            let keys: StringViewArray = MESSAGES.iter().map(|m| m.0).collect();
            records = records.with("key", Arc::new(keys))?;
        }
        if self.layout.reads("timestamp") {
            let times = TimestampMicrosecondArray::from_iter_values(MESSAGES.iter().map(|m| m.1 * 1_000_000));
            let times: ArrayRef = Arc::new(times.with_timezone("UTC"));
            records = records.with("timestamp", times)?;
        }
        if self.layout.reads("offset") {
            records = records.with("offset", Arc::new(Int64Array::from_iter_values(100..105)))?;
        }
        let (rows, dead) = self.decoder.decode(&records)?.into_changes()?;
        Ok(Some(Read { rows, position: 105, dead, watermark: None }))
    }
}

async fn rows(millstream: &Arc<Millstream>, sql: &str) -> RecordBatch {
    let Outcome::Rows(rows) = millstream.session().execute_sql(sql).await.unwrap() else { panic!("no rows: {sql}") };
    let (schema, batches) = (rows.schema, rows.rows.try_collect::<Vec<_>>().await.unwrap());
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

fn lines(rows: &RecordBatch) -> Vec<String> {
    let format = FormatOptions::default().with_null("-");
    let columns: Vec<_> = rows.columns().iter().map(|c| ArrayFormatter::try_new(c, &format).unwrap()).collect();
    let line = |row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(" ");
    (0..rows.num_rows()).map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_give_rows_metadata_and_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new(folder.path().to_str().unwrap());
    config.connectors = built_in().with(Queue);
    let millstream = Millstream::open(config).await.unwrap();
    let session = millstream.session();
    let columns = "v BIGINT, sent TIMESTAMP NOT NULL METADATA FROM 'timestamp', key TEXT METADATA, \
                   n BIGINT METADATA FROM 'offset', WATERMARK FOR sent AS sent";
    let create = format!("CREATE STREAM s ({columns}) WITH (connector = 'queue')");
    session.execute_sql(&create).await.unwrap();
    session.execute_sql("CREATE STREAM t AS SELECT n, key, v, sent FROM s").await.unwrap();
    session.flush().await.unwrap();
    let expected = [
        "100 a 1 1970-01-01T00:00:10",
        "101 - 2 1970-01-01T00:00:11",
        "104 e 3 1970-01-01T00:00:14",
        "104 e 4 1970-01-01T00:00:14",
    ];
    for stream in ["s", "t"] {
        let found = lines(&rows(&millstream, &format!("SELECT n, key, v, sent FROM {stream} ORDER BY n, v")).await);
        assert_eq!(found, expected, "{stream}");
    }
    let dead =
        "SELECT source, position, line, reason FROM millstream.dead_letters WHERE stream = 't' ORDER BY position";
    let dead = lines(&rows(&millstream, dead).await);
    let expected = ["0 102 - column \"v\": \"two\" is not a BIGINT", "0 103 - the record has no value"];
    assert_eq!(dead, expected);
    // Windows follow the time of the messages, and what is not read need not be decoded.
    session.execute_sql("CREATE STREAM w AS SELECT window_end, count(*) AS c FROM TUMBLE(s, sent, INTERVAL '2 seconds') GROUP BY window_end").await.unwrap();
    session.flush().await.unwrap();
    let counts = rows(&millstream, "SELECT c FROM w ORDER BY window_end").await;
    assert_eq!(counts.column(0).as_primitive::<Int64Type>().values(), &[2, 1, 2], "the record without a value is none");
    let wrong = session.execute_sql("CREATE STREAM x (k TEXT NOT NULL METADATA FROM 'key') WITH (connector = 'queue')");
    let e = wrong.await.err().unwrap();
    assert_eq!(e.message(), "column \"k\" of stream \"x\": metadata 'key' of connector 'queue' may be null");
    millstream.close().await.unwrap();
}
