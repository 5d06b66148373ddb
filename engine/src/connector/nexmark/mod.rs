//! `nexmark`: the events of the Nexmark benchmark (Tucker, Tufte, Papadimos, Maier, "NEXMark: a
//! benchmark for queries over data streams", 2002), made by formula: persons, auctions and bids of an
//! auction site, each field a pure function of a seed and the event's number.
//!
//! `table` picks one kind; without it all three come in one stream, with one of the structs `person`,
//! `auction` and `bid` not null in each row. The coordinate of the one split is the position in the
//! order of emission, over all kinds, so streams of different tables are in step.

mod columns;
mod output;
mod run;
mod tables;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use self::columns::Events;
use self::output::Output;
use self::run::{Kind, ROUND, Run, STRIDE};
use crate::changes::Changes;
use crate::connector::generator::{Numbered, Pace};
use crate::connector::registry::{Connector, Guarantee, Readable, SourceRequest};
use crate::connector::{Intake, Opening, Read, Readers, Source, Unit, UnitReader};
use crate::error::{Error, Result};
use crate::options::{OptionSpec, Options, Takes};
use crate::reach::Touch;
use crate::time::EventTime;

/// Rows in a batch, about.
const BATCH: u64 = 8192;
/// Positions in a unit, about.
const UNIT: u64 = 65_536;

const TABLE: OptionSpec = OptionSpec::new(
    "table",
    Takes::OneOf(&["person", "auction", "bid", "events"]),
    "bid",
    "one kind of events, or all three in one stream, as structs",
)
.or("events");
const EVENTS: OptionSpec = OptionSpec::new(
    "events",
    Takes::Whole,
    "1000000",
    "how many events, of all three kinds: of 50, one is a person, 3 are auctions and 46 are bids",
)
.otherwise("no end");
const RATE: OptionSpec = OptionSpec::new("rate", Takes::Whole, "1000", "events a second of event time").or("10000");
const PACE: OptionSpec =
    OptionSpec::new("pace", Takes::Number, "5000", "events a second on the clock").otherwise("full speed");
const BASE_TIME: OptionSpec =
    OptionSpec::new("base_time", Takes::Whole, "1700000000000", "the first event time, in milliseconds since 1970")
        .or("1436918400000");
const OUT_OF_ORDER: OptionSpec =
    OptionSpec::new("ooo", Takes::Whole, "100", "events are out of order within groups of so many").or("1");
const SEED: OptionSpec = OptionSpec::new("seed", Takes::Whole, "7", "what the events are made from").or("42");

/// The connector.
pub(crate) struct NexmarkConnector;

impl Connector for NexmarkConnector {
    fn name(&self) -> &str {
        "nexmark"
    }

    fn about(&self) -> &str {
        "makes the events of the Nexmark benchmark"
    }

    fn source(&self) -> Option<&dyn Readable> {
        Some(self)
    }

    fn touches(&self, _options: &Options) -> Result<Option<Vec<Touch>>> {
        Ok(Some(vec![]))
    }
}

impl Readable for NexmarkConnector {
    fn options(&self) -> Vec<OptionSpec> {
        vec![TABLE, EVENTS, RATE, PACE, BASE_TIME, OUT_OF_ORDER, SEED]
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn columns(&self, options: Options) -> Result<Option<SchemaRef>> {
        infer_schema(options).map(Some)
    }

    fn scan(&self, request: SourceRequest) -> Result<Arc<dyn Source>> {
        open_source(request)
    }
}

/// `WITH (…)`.
#[derive(Debug)]
struct Config {
    /// One kind, or all.
    table: Option<Kind>,
    run: Run,
    rate: u64,
    base_time: i64,
    seed: u64,
    pace: Option<Pace>,
}

impl Config {
    fn read(mut options: Options) -> Result<Config> {
        let owner = options.owner().to_owned();
        let table = match options.choice(&TABLE)? {
            Some("person") => Some(Kind::Person),
            Some("auction") => Some(Kind::Auction),
            Some("bid") => Some(Kind::Bid),
            _ => None,
        };
        let mut count = |spec| options.value::<u64>(spec, "a whole number");
        let events = count(&EVENTS)?;
        let rate = count(&RATE)?.unwrap_or_default();
        let seed = count(&SEED)?.unwrap_or_default();
        let group = count(&OUT_OF_ORDER)?.unwrap_or(1).max(1);
        let base_time = options.value::<i64>(&BASE_TIME, "a time in milliseconds since 1970")?.unwrap_or_default();
        let pace = Pace::option(&mut options, &PACE)?;
        options.finish()?;
        let wrong = |name: &str, what: &str| Err(Error::invalid(format!("option \"{name}\" of {owner} {what}")));
        if rate == 0 {
            return wrong("rate", "is 0");
        }
        if group > u64::from(u32::MAX) || (group > 1 && group.is_multiple_of(STRIDE)) {
            return wrong("ooo", &format!("is {group}, which is too large or a multiple of {STRIDE}"));
        }
        // To the year 9999 either way, so that microseconds do not overflow.
        if base_time.unsigned_abs() > 253_402_300_800_000 {
            return wrong("base_time", "is not in milliseconds since 1970");
        }
        Ok(Config { table, run: Run { events, group }, rate, base_time, seed, pace })
    }

    /// Positions that give a batch.
    fn batch(&self) -> u64 {
        match self.table {
            None => BATCH,
            Some(kind) => {
                let within = kind.within_round();
                BATCH / (within.end - within.start) * ROUND
            }
        }
    }
}

/// Opens the source.
fn open_source(request: SourceRequest) -> Result<Arc<dyn Source>> {
    let owner = request.options.owner().to_owned();
    let config = Config::read(request.options)?;
    let output = Output::new(&owner, config.table, &request.schema, &request.projection)?;
    let rows = Numbered::new("nexmark", config.run.events, UNIT.next_multiple_of(config.batch().min(UNIT)));
    let rows = rows.paced(config.pace).beginning(EventTime(config.base_time * 1000));
    let events = Events::new(config.seed, config.rate, config.base_time);
    Ok(Arc::new(Nexmark { rows, maker: Arc::new(Maker { config, events, output }) }))
}

/// The columns of the table that `options` name.
fn infer_schema(options: Options) -> Result<SchemaRef> {
    Ok(output::schema(Config::read(options)?.table))
}

struct Nexmark {
    rows: Numbered,
    maker: Arc<Maker>,
}

#[async_trait]
impl Source for Nexmark {
    fn describe(&self) -> String {
        let table = match self.maker.config.table {
            None => "events",
            Some(Kind::Person) => "person",
            Some(Kind::Auction) => "auction",
            Some(Kind::Bid) => "bid",
        };
        format!("nexmark {table}, {}", self.rows.describe("events"))
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
impl Readers for Nexmark {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        Ok(Box::new(Reader { maker: self.maker.clone(), left: unit.start..unit.end, numbers: vec![] }))
    }
}

/// Makes the rows at given positions.
struct Maker {
    config: Config,
    events: Events,
    output: Output,
}

impl Maker {
    /// The rows at `positions`; `numbers` is scratch space.
    fn rows(&self, positions: Range<u64>, numbers: &mut Vec<u64>) -> Result<RecordBatch> {
        match self.config.table {
            Some(kind) => {
                self.config.run.numbers_of(kind, positions, numbers);
                self.output.table(&self.events, numbers)
            }
            None => {
                numbers.clear();
                self.config.run.for_each(positions, |n| numbers.push(n));
                self.output.combined(&self.events, numbers)
            }
        }
    }
}

struct Reader {
    maker: Arc<Maker>,
    left: Range<u64>,
    numbers: Vec<u64>,
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let stop = self.left.end.min(self.left.start + self.maker.config.batch());
        let rows = self.maker.rows(self.left.start..stop, &mut self.numbers)?;
        self.left.start = stop;
        Ok(Some(Read::rows(Changes::insertions(rows), stop)))
    }
}
