//! `datagen`: rows of any declared columns, made by rule: random values, sequences, a rising event time.
//!
//! Each value is a function of the seed, its column's name and the row's number, so that tasks make rows
//! in any order and a restart makes the same again.
//!
//! `rows` ends the stream, `rate` paces it (rows a second of wall-clock time), `event_rate` is the pace
//! of event time. Of a column `c`: `fields.c.kind` is `random` or `sequence`; `min` and `max` bound random
//! values (both inclusive, for floats `max` is not); `start` and `end` bound a sequence, and the first
//! sequence to end ends the stream; `length` is that of a random text; `null_rate` is the share of nulls.

mod column;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use async_trait::async_trait;

use self::column::{Clock, Column};
use crate::changes::Changes;
use crate::connector::generator::{Numbered, Pace};
use crate::connector::registry::{Connector, Guarantee, Readable, SourceRequest};
use crate::connector::{Intake, Opening, Read, Readers, Source, Unit, UnitReader};
use crate::error::Result;
use crate::options::{OptionSpec, Options, Takes};
use crate::reach::Touch;

/// Rows in a batch.
const BATCH: u64 = 8192;
/// Rows in a unit.
const UNIT: u64 = 8 * BATCH;

const ROWS: OptionSpec = OptionSpec::new("rows", Takes::Whole, "1000000", "how many").otherwise("no end");
const RATE: OptionSpec =
    OptionSpec::new("rate", Takes::Number, "1000", "rows a second on the clock").otherwise("full speed");
const EVENT_RATE: OptionSpec =
    OptionSpec::new("event_rate", Takes::Number, "10", "rows a second of event time").otherwise("rate, else 1000");
const SEED: OptionSpec = OptionSpec::new("seed", Takes::Whole, "7", "what the values are made from").or("42");

/// The connector.
pub(crate) struct DatagenConnector;

impl Connector for DatagenConnector {
    fn name(&self) -> &str {
        "datagen"
    }

    fn about(&self) -> &str {
        "makes rows of the columns you declare"
    }

    fn source(&self) -> Option<&dyn Readable> {
        Some(self)
    }

    fn touches(&self, _options: &Options) -> Result<Option<Vec<Touch>>> {
        Ok(Some(vec![]))
    }
}

impl Readable for DatagenConnector {
    fn options(&self) -> Vec<OptionSpec> {
        [&[ROWS, RATE, EVENT_RATE, SEED], &column::listed()[..]].concat()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn scan(&self, request: SourceRequest) -> Result<Arc<dyn Source>> {
        open_source(request)
    }
}

/// Opens the source.
fn open_source(request: SourceRequest) -> Result<Arc<dyn Source>> {
    let mut options = request.options;
    let rows = options.value::<u64>(&ROWS, "a whole number")?;
    let pace = Pace::option(&mut options, &RATE)?;
    let seed = options.value::<u64>(&SEED, "a whole number")?.unwrap_or_default();
    let event_rate = Pace::option(&mut options, &EVENT_RATE)?.or(pace).map_or(1000.0, Pace::per_second);
    let read = |field: &FieldRef| {
        let group = options.group(&format!("fields.{}.", field.name()), SHOWN);
        Column::read(field, group, seed, Clock { event_rate })
    };
    let columns = request.schema.fields().iter().map(read).collect::<Result<Vec<_>>>()?;
    options.finish()?;
    let end = columns.iter().filter_map(Column::rows).chain(rows).min();
    let table = Table::new(&request.schema, columns, &request.projection)?;
    Ok(Arc::new(Datagen { rows: Numbered::new("datagen", end, UNIT).paced(pace), table: Arc::new(table) }))
}

/// How hints write the options of a column.
const SHOWN: &str = "fields.<column>.<kind, min, max, start, end, length or null_rate>";

struct Datagen {
    rows: Numbered,
    table: Arc<Table>,
}

#[async_trait]
impl Source for Datagen {
    fn describe(&self) -> String {
        format!("datagen, {}", self.rows.describe("rows"))
    }

    fn bounded(&self) -> bool {
        self.rows.bounded()
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        Ok(self.rows.open(&opening.consumed))
    }
}

#[async_trait]
impl Readers for Datagen {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        Ok(Box::new(Reader { table: self.table.clone(), left: unit.start..unit.end }))
    }
}

/// The columns that are read.
struct Table {
    schema: SchemaRef,
    columns: Vec<Column>,
}

impl Table {
    fn new(schema: &Schema, columns: Vec<Column>, projection: &[usize]) -> Result<Self> {
        let columns = projection.iter().map(|i| columns[*i].clone()).collect();
        Ok(Table { schema: Arc::new(schema.project(projection)?), columns })
    }

    fn rows(&self, rows: Range<u64>) -> Result<RecordBatch> {
        let columns = self.columns.iter().map(|c| c.make(rows.clone())).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some((rows.end - rows.start) as usize));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

struct Reader {
    table: Arc<Table>,
    left: Range<u64>,
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let stop = self.left.end.min(self.left.start + BATCH);
        let rows = self.table.rows(self.left.start..stop)?;
        self.left.start = stop;
        Ok(Some(Read::rows(Changes::insertions(rows), stop)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{Array, AsArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{
        DataType, Date32Type, Decimal128Type, Field, Float64Type, Int16Type, Int64Type, TimeUnit,
        TimestampMicrosecondType, TimestampSecondType, UInt64Type,
    };
    use futures::executor::block_on;

    use super::*;
    use crate::connector::{Offsets, Opened};
    use crate::memory::MemoryBudget;

    fn open(columns: &[(&str, DataType)], pairs: &[(&str, &str)], projection: &[usize]) -> Result<Arc<dyn Source>> {
        let fields = columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>();
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        open_source(SourceRequest {
            stream: "s".to_owned(),
            schema: Arc::new(Schema::new(fields)),
            projection: projection.to_vec(),
            metadata: BTreeMap::new(),
            options: Options::new("stream \"s\"", pairs.collect::<BTreeMap<_, _>>()),
            key: vec![],
            event_time: None,
            parallelism: 1,
        })
    }

    /// The source without what was `consumed`.
    fn opened(source: &Arc<dyn Source>, consumed: Offsets) -> Opened {
        let opening = Opening { consumed, ..Opening::new(MemoryBudget::new(0)) };
        block_on(Opened::of(source, opening)).expect("opens")
    }

    fn read_all(source: &Arc<dyn Source>) -> RecordBatch {
        read_rest(source, Offsets::default())
    }

    fn read_rest(source: &Arc<dyn Source>, consumed: Offsets) -> RecordBatch {
        let Opened { intake, readers } = opened(source, consumed);
        let mut batches = vec![];
        while let Some(unit) = block_on(intake.next_unit()).expect("no error") {
            let mut reader = block_on(readers.read(&unit)).expect("opens");
            let mut at = unit.start;
            while let Some(read) = block_on(reader.next()).expect("reads") {
                assert_eq!(read.position, at + read.rows.num_rows() as u64);
                at = read.position;
                batches.push(read.rows.into_rows());
            }
            assert_eq!(at, unit.end);
        }
        concat_batches(&batches[0].schema(), &batches).expect("one schema")
    }

    /// All rows of all columns.
    fn made(columns: &[(&str, DataType)], pairs: &[(&str, &str)]) -> RecordBatch {
        let all: Vec<usize> = (0..columns.len()).collect();
        read_all(&open(columns, pairs, &all).expect("opens"))
    }

    fn message(columns: &[(&str, DataType)], pairs: &[(&str, &str)]) -> String {
        open(columns, pairs, &[]).expect_err("is refused").message().to_owned()
    }

    const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    #[test]
    fn every_type_is_made_within_its_bounds() {
        let columns = [
            ("i8", DataType::Int8),
            ("i16", DataType::Int16),
            ("i32", DataType::Int32),
            ("i64", DataType::Int64),
            ("u8", DataType::UInt8),
            ("u16", DataType::UInt16),
            ("u32", DataType::UInt32),
            ("u64", DataType::UInt64),
            ("f32", DataType::Float32),
            ("f64", DataType::Float64),
            ("bool", DataType::Boolean),
            ("text", DataType::Utf8View),
            ("ts", MICROS),
            ("seconds", DataType::Timestamp(TimeUnit::Second, Some("UTC".into()))),
            ("day", DataType::Date32),
            ("money", DataType::Decimal128(10, 2)),
        ];
        let pairs = [
            ("rows", "20_000"),
            ("fields.i16.min", "-3"),
            ("fields.i16.max", "3"),
            ("fields.u64.min", "5"),
            ("fields.f64.min", "-1"),
            ("fields.money.min", "0.25"),
            ("fields.money.max", "0.75"),
            ("fields.text.length", "21"),
            ("fields.seconds.kind", "random"),
            ("fields.seconds.min", "2024-02-01 00:00:00"),
            ("fields.seconds.max", "2024-02-01 00:00:05"),
            ("event_rate", "10"),
        ];
        let rows = made(&columns, &pairs);
        assert_eq!(rows.num_rows(), 20_000);
        assert!(rows.columns().iter().all(|c| c.null_count() == 0));
        let distinct = |values: Vec<i128>| values.into_iter().collect::<std::collections::BTreeSet<_>>();
        let i16s = rows["i16"].as_primitive::<Int16Type>().values().iter().map(|v| (*v).into()).collect();
        assert_eq!(distinct(i16s), (-3..=3).collect());
        let seconds =
            rows["seconds"].as_primitive::<TimestampSecondType>().values().iter().map(|v| (*v).into()).collect();
        assert_eq!(distinct(seconds), (1_706_745_600..=1_706_745_605).collect());
        let money = rows["money"].as_primitive::<Decimal128Type>().values().to_vec();
        assert_eq!(distinct(money), (25..=75).collect());
        assert!(rows["u64"].as_primitive::<UInt64Type>().values().iter().all(|v| (5..=1_000_000).contains(v)));
        let floats = rows["f64"].as_primitive::<Float64Type>();
        assert!(floats.values().iter().all(|v| (-1.0..0.0).contains(v)));
        let mean = floats.values().iter().sum::<f64>() / 20_000.0;
        assert!((mean + 0.5).abs() < 0.01, "{mean}");
        let heads = rows["bool"].as_boolean().true_count();
        assert!((9_500..10_500).contains(&heads), "{heads}");
        let texts = rows["text"].as_string_view();
        assert!(texts.iter().flatten().all(|t| t.len() == 21 && t.bytes().all(|b| b.is_ascii_lowercase())));
        // Event time: a row each tenth of a second.
        let times = rows["ts"].as_primitive::<TimestampMicrosecondType>();
        assert_eq!((times.value(0), times.value(15)), (1_704_067_200_000_000, 1_704_067_201_500_000));
        let days = rows["day"].as_primitive::<Date32Type>();
        assert_eq!((days.value(0), days.value(19_999)), (19_723, 19_723));
    }

    #[test]
    fn the_first_sequence_to_end_ends_the_stream() {
        let columns = [("id", DataType::Int64), ("name", DataType::Utf8View), ("price", DataType::Decimal128(8, 2))];
        let pairs = [
            ("fields.id.kind", "sequence"),
            ("fields.id.start", "100"),
            ("fields.id.end", "10_099"),
            ("fields.name.kind", "sequence"),
            ("fields.price.kind", "sequence"),
            ("fields.price.start", "0.50"),
        ];
        let rows = made(&columns, &pairs);
        assert_eq!(rows.num_rows(), 10_000);
        assert_eq!(rows["id"].as_primitive::<Int64Type>().value(9_999), 10_099);
        assert_eq!(rows["name"].as_string_view().value(9_999), "9999");
        assert_eq!(rows["price"].as_primitive::<Decimal128Type>().value(3), 350);
        assert!(!open(&columns, &pairs[3..], &[0]).expect("opens").bounded());
        let narrow = [("id", DataType::Int8)];
        let source = open(&narrow, &[("fields.id.kind", "sequence")], &[0]).expect("opens");
        let Opened { intake, readers } = opened(&source, Offsets::default());
        let unit = block_on(intake.next_unit()).expect("no error").expect("no end");
        let e = block_on(block_on(readers.read(&unit)).expect("opens").next()).expect_err("128 is out of range");
        assert!(e.message().starts_with("column \"id\": "), "{e}");
    }

    #[test]
    fn values_depend_on_seed_column_and_row_alone() {
        let columns = [("a", DataType::Int64), ("b", DataType::Int64), ("t", MICROS)];
        let pairs = [("rows", "100000"), ("fields.b.null_rate", "0.25")];
        let all = made(&columns, &pairs);
        let nulls = all["b"].null_count();
        assert!((24_000..26_000).contains(&nulls), "{nulls}");
        // Alone, declared in another place, and only the later rows.
        let source = open(&[columns[2].clone(), columns[1].clone()], &pairs, &[1]).expect("opens");
        let mut consumed = Offsets::default();
        consumed.add("datagen", 0..70_001);
        let rest = read_rest(&source, consumed);
        assert_eq!(rest["b"].as_ref(), all["b"].slice(70_001, 29_999).as_ref());
        assert_ne!(all["a"].as_ref(), made(&columns, &[("rows", "100000"), ("seed", "1")])["a"].as_ref());
        let none = open(&columns, &pairs, &[]).expect("opens");
        assert_eq!(read_all(&none).num_rows(), 100_000);
    }

    #[test]
    fn wrong_options_are_named() {
        let columns = [("a", DataType::Int8), ("b", DataType::Boolean), ("c", DataType::Utf8View)];
        let cases = [
            ("fields.a.mx", "1", "stream \"s\" has no option \"fields.a.mx\""),
            ("fields.d.min", "1", "stream \"s\" has no option \"fields.d.min\""),
            ("fields.a.length", "1", "stream \"s\" has no option \"fields.a.length\""),
            ("rate", "0", "option \"rate\" of stream \"s\" is 0, which is not above 0"),
            ("fields.a.max", "-1", "column \"a\" of stream \"s\" has a max below its min"),
            ("fields.b.kind", "sequence", "column \"b\" of stream \"s\" is a boolean and has no sequence"),
            (
                "fields.b.null_rate",
                "2",
                "option \"fields.b.null_rate\" of stream \"s\" is 2, which is not between 0 and 1",
            ),
            ("fields.c.length", "5000", "column \"c\" of stream \"s\" has length 5000, which is above 4096"),
        ];
        for (name, value, expected) in cases {
            assert_eq!(message(&columns, &[(name, value)]), expected);
        }
        let range = "which is not a whole number in the range of the column";
        let expected = format!("option \"fields.a.max\" of stream \"s\" is '200', {range}");
        assert_eq!(message(&columns, &[("fields.a.max", "200")]), expected);
        let e = open(&[("l", DataType::Float16)], &[], &[]).expect_err("is refused");
        assert_eq!(e.message(), "connector 'datagen' cannot make column \"l\" of stream \"s\": Float16");
    }

    #[test]
    fn a_paced_stream_keeps_its_rate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let source = open(&[("a", DataType::Int64)], &[("rows", "200"), ("rate", "2000")], &[0]).expect("opens");
        let intake = opened(&source, Offsets::default()).intake;
        let start = std::time::Instant::now();
        let units = runtime.block_on(async {
            let mut units = 0;
            while intake.next_unit().await.expect("no error").is_some() {
                units += 1;
            }
            units
        });
        assert!(start.elapsed() >= std::time::Duration::from_millis(100));
        assert!((2..=50).contains(&units), "{units}");
    }
}
