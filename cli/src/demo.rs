//! `millstream demo`: four weeks of flights through two continuous queries, shown as they run.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use futures::StreamExt;
use millstream_engine::store::Place;
use millstream_engine::time::EventTime;
use millstream_sql::session::ChangeFeed;
use millstream_sql::{ErrorKind, Outcome, Result};

use crate::args::DemoArgs;
use crate::backend::{Backend, Embedded};
use crate::output::{Expanded, Format, RowWriter, Table, View, cannot_write, render};
use crate::progress::Meter;
use crate::report::{self, grouped};
use crate::terminal::{Live, Screen, paint, shorten};
use crate::{closing, config, run, signal};

/// The flights: a sample of the airline on-time data of the US Bureau of Transportation Statistics, public domain.
const FLIGHTS: &[u8] = include_bytes!("../demo/flights.parquet");
const FLIGHTS_FILE: &str = "demo/flights.parquet";
const SCRIPT: &str = include_str!("../demo/flights.sql");
const RESULT: &str = include_str!("../demo/busiest.sql");
const STORE: &str = "./millstream-demo";
/// What the script makes, in the order in which it can be dropped.
const STREAMS: [&str; 3] = ["busiest", "hourly", "flights"];
/// The first instant after the data; windows that reach beyond it are not full.
const DATA_END: EventTime = EventTime(980_726_400_000_000);
const FRAME: Duration = Duration::from_millis(100);
/// How long the last changes may take to arrive when the queries have finished.
const LAST_CHANGES: Duration = Duration::from_millis(300);
const SHOWN: usize = 5;

/// Runs the demo.
pub(crate) async fn run(store: Option<String>, args: DemoArgs) -> Result<ExitCode> {
    let store = match store {
        Some(store) => in_a_folder(store)?,
        None => fresh_store()?,
    };
    let flights = write_flights(Path::new(&store))?;
    let backend = Embedded::open(config::engine(store, &args.engine)?).await?;
    let shown = tokio::select! {
        shown = show(&backend, &flights, args.speed) => shown.map(|()| ExitCode::SUCCESS),
        code = signal::shutdown() => Ok(ExitCode::from(code)),
    };
    match closing::close(&backend).await? {
        Some(code) => Ok(ExitCode::from(code)),
        None => shown,
    }
}

/// `store`, if it is a folder: the demo puts its data there, and shows how files in it are used.
fn in_a_folder(store: String) -> Result<String> {
    match Place::parse(&store)? {
        Place::Folder(_) => Ok(store),
        Place::Bucket(_) => {
            let e = report::fail(ErrorKind::Unsupported, format!("the demo needs a folder, \"{store}\" is a bucket"));
            Err(e.with_hint("Name a folder: millstream demo --store DIR"))
        }
    }
}

/// The demo's own store, without what an earlier demo left.
fn fresh_store() -> Result<String> {
    let path = Path::new(STORE);
    if path.exists() {
        // never delete a folder that the demo has not made
        if !path.join(FLIGHTS_FILE).exists() {
            let e = report::fail(ErrorKind::Exists, format!("folder \"{STORE}\" exists and is not of the demo"));
            return Err(e.with_hint("Name another folder: millstream demo --store DIR"));
        }
        fs::remove_dir_all(path).map_err(|e| report::io_error(format_args!("cannot remove the old \"{STORE}\""), e))?;
    }
    Ok(STORE.to_owned())
}

fn write_flights(store: &Path) -> Result<PathBuf> {
    let file = store.join(FLIGHTS_FILE);
    let write = || {
        fs::create_dir_all(file.parent().unwrap_or(store))?;
        fs::write(&file, FLIGHTS)?;
        // the name in the catalog must hold wherever the store is opened from
        file.canonicalize()
    };
    write().map_err(|e| report::io_error(format_args!("cannot write \"{}\"", file.display()), e))
}

async fn show(backend: &Embedded, flights: &Path, speed: Option<u64>) -> Result<()> {
    let colour = Screen::stderr().colour;
    let title = paint("Millstream", "1;36", colour);
    report::say(format_args!("{title}: four weeks of departures of US airlines, January 2001, as a stream\n"));
    report::say(format_args!(
        "  {}   departures and mean delay of each airport, hour by hour",
        paint("hourly ", "1", colour)
    ));
    report::say(format_args!(
        "  {}   departures of each airport in the last 24 hours, every hour\n",
        paint("busiest", "1", colour)
    ));
    drop_earlier(backend).await?;
    let start = Instant::now();
    let options = speed.map(|rows| format!(", rate = '{rows}'")).unwrap_or_default();
    let path = flights.display().to_string().replace('\'', "''");
    let script = SCRIPT.replace("{flights}", &path).replace("{options}", &options);
    for statement in run::parse(&script)? {
        backend.execute(&statement).await?;
    }
    let changes = "SELECT origin, window_end, departures FROM busiest EMIT CHANGES";
    let Outcome::Changes(feed) = backend.execute_sql(changes).await? else {
        return Err(report::fail(ErrorKind::Internal, "the changes of stream \"busiest\" are no changes"));
    };
    follow(backend, feed).await?;
    let took = start.elapsed();
    summary(backend, took).await?;
    report::say(format_args!("\nbusiest airports on 28 January, with their mean delay in minutes:\n"));
    let Outcome::Rows(mut rows) = backend.execute_sql(RESULT.trim_end().trim_end_matches(';')).await? else {
        return Err(report::fail(ErrorKind::Internal, "the result of the demo is no rows"));
    };
    let view = View { screen: Screen::stdout(), expanded: Expanded::Off, limit: None };
    let mut writer = RowWriter::new(Format::Table, rows.schema.clone(), view);
    while let Some(batch) = rows.rows.next().await {
        writer.write(&batch?, &mut io::stdout())?;
    }
    writer.finish(&mut io::stdout())?;
    next_steps(backend.store());
    Ok(())
}

/// In a store of the user's own, an earlier demo makes room; anything else keeps its name.
async fn drop_earlier(backend: &Embedded) -> Result<()> {
    let objects = backend.objects().await?;
    let there = |name: &str| objects.iter().find(|o| o.name == name && o.namespace == "public");
    let Some(first) = STREAMS.iter().find_map(|name| there(name)) else { return Ok(()) };
    if !there("flights").is_some_and(|flights| flights.sql.contains(FLIGHTS_FILE)) {
        let e = report::fail(ErrorKind::Exists, format!("stream \"{}\" exists in this store", first.name));
        return Err(e.with_hint("Name another folder: millstream demo --store DIR"));
    }
    for name in STREAMS.iter().filter(|name| there(name).is_some()) {
        backend.execute_sql(&format!("DROP STREAM {name}")).await?;
    }
    Ok(())
}

/// Shows the changes of `busiest` until the queries have read all.
async fn follow(backend: &Embedded, mut feed: ChangeFeed) -> Result<()> {
    let (mut live, mut latest, mut meter) = (Live::default(), Latest::default(), Meter::default());
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut flush = backend.flush();
    let mut told = None;
    let (mut complete, mut ended) = (false, false);
    while !(complete && ended) {
        tokio::select! {
            epoch = feed.epochs.next(), if !ended => match epoch {
                Some(epoch) => for batch in &epoch?.batches {
                    latest.apply(batch)?;
                },
                None => ended = true,
            },
            done = &mut flush, if !complete => {
                done?;
                complete = true;
            }
            _ = frames.tick() => {
                if Screen::stderr().is_terminal() {
                    let jobs = meter.look(&backend.jobs().await?, usize::MAX).unwrap_or_default();
                    live.draw(&latest.picture(&jobs, Screen::stderr()), &mut io::stderr()).map_err(cannot_write)?;
                }
            }
            () = tokio::time::sleep(LAST_CHANGES), if complete => ended = true,
        }
        if !Screen::stderr().is_terminal() && latest.day() != told {
            told = latest.day();
            report::say(format_args!("{}", latest.line()));
        }
    }
    if Screen::stderr().is_terminal() {
        live.draw(&latest.picture("", Screen::stderr()), &mut io::stderr()).map_err(cannot_write)?;
    }
    Ok(())
}

/// The departures of each airport in the last full window that has closed.
#[derive(Default)]
struct Latest {
    end: Option<i64>,
    departures: BTreeMap<String, i64>,
    rows: u64,
}

impl Latest {
    /// Takes rows `(origin, window_end, departures)`.
    fn apply(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        let column = |i: usize, wanted: DataType| {
            let found =
                batch.columns().get(i).ok_or_else(|| report::fail(ErrorKind::Internal, "a column is missing"))?;
            cast(found, &wanted).map_err(|e| report::fail(ErrorKind::Internal, e.to_string()))
        };
        let origins = column(0, DataType::Utf8)?;
        let ends = column(1, DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let counts = column(2, DataType::Int64)?;
        let (origins, counts) = (origins.as_string::<i32>(), counts.as_primitive::<Int64Type>());
        for (row, end) in ends.as_primitive::<TimestampMicrosecondType>().iter().enumerate() {
            let Some(end) = end.filter(|end| *end <= DATA_END.0 && self.end.is_none_or(|latest| *end >= latest)) else {
                continue;
            };
            if self.end != Some(end) {
                self.end = Some(end);
                self.departures.clear();
            }
            if !origins.is_null(row) {
                self.departures.insert(origins.value(row).to_owned(), counts.value(row));
            }
        }
        Ok(())
    }

    fn top(&self) -> Vec<(&str, i64)> {
        let mut all: Vec<(&str, i64)> = self.departures.iter().map(|(origin, n)| (origin.as_str(), *n)).collect();
        all.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        all.truncate(SHOWN);
        all
    }

    /// The day that the window ends on, counted from 1970.
    fn day(&self) -> Option<i64> {
        self.end.map(|end| end.div_euclid(86_400_000_000))
    }

    fn time(&self) -> String {
        self.end.map_or_else(|| "…".to_owned(), |end| EventTime(end).to_string())
    }

    fn line(&self) -> String {
        let top =
            self.top().iter().map(|(origin, n)| format!("{origin} {}", grouped(n.unsigned_abs()))).collect::<Vec<_>>();
        format!("24 h to {}: {}", self.time(), top.join(", "))
    }

    /// What is shown in place: always as high.
    fn picture(&self, jobs: &str, screen: Screen) -> String {
        let top = self.top();
        let most = top.first().map_or(1, |(_, n)| (*n).max(1));
        let rows = (0..SHOWN).map(|i| match top.get(i) {
            Some((origin, n)) => {
                let bar = usize::try_from(n * 24 / most).unwrap_or(0);
                vec![Some((*origin).to_owned()), Some(grouped(n.unsigned_abs())), Some("█".repeat(bar))]
            }
            None => vec![Some("…".to_owned()), Some(String::new()), Some(String::new())],
        });
        let table = Table::texts(&["airport", "departures", ""], rows.collect()).with_number(1);
        let width = screen.width.unwrap_or(80);
        let now = shorten(&format!("24 hours to {}", self.time()), width);
        let jobs = paint(&shorten(&jobs.replace(" | ", "  "), width), "2", screen.colour);
        format!("{now}\n{}{jobs}\n", render(&table, screen, Expanded::Off))
    }
}

async fn summary(backend: &Embedded, took: Duration) -> Result<()> {
    let jobs = backend.jobs().await?;
    let read: u64 =
        jobs.iter().filter(|job| STREAMS.contains(&job.stream.as_str())).filter_map(|job| job.rows_in).sum();
    let rate = (read as f64 / took.as_secs_f64().max(1e-3)) as u64;
    report::say(format_args!(
        "\n{} read by two queries in {:.1} s: {} rows/s. The results are Parquet:",
        report::rows(read),
        took.as_secs_f64(),
        grouped(rate)
    ));
    for stream in ["hourly", "busiest"] {
        let folder = folder(backend.store(), stream);
        let (files, bytes) = parquet_in(&folder);
        let rows = count(backend, stream).await?;
        report::say(format_args!(
            "  {:<40} {} in {}, {:.1} MB",
            folder.display().to_string(),
            report::rows(rows),
            report::counted(files, "file"),
            bytes as f64 / 1e6
        ));
    }
    Ok(())
}

async fn count(backend: &Embedded, stream: &str) -> Result<u64> {
    let Outcome::Rows(mut rows) = backend.execute_sql(&format!("SELECT count(*) FROM {stream}")).await? else {
        return Ok(0);
    };
    let mut count = 0;
    while let Some(batch) = rows.rows.next().await {
        let batch = batch?;
        let counts =
            cast(batch.column(0), &DataType::Int64).map_err(|e| report::fail(ErrorKind::Internal, e.to_string()))?;
        count += counts.as_primitive::<Int64Type>().iter().flatten().map(i64::unsigned_abs).sum::<u64>();
    }
    Ok(count)
}

/// Where the rows of a stream lie.
fn folder(store: &str, stream: &str) -> PathBuf {
    Path::new(store).join("streams").join(stream)
}

/// The number of Parquet files below `folder`, and their bytes.
fn parquet_in(folder: &Path) -> (u64, u64) {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            let (f, b) = parquet_in(&path);
            (files, bytes) = (files + f, bytes + b);
        } else if path.extension().is_some_and(|e| e == "parquet") {
            (files, bytes) = (files + 1, bytes + entry.metadata().map_or(0, |m| m.len()));
        }
    }
    (files, bytes)
}

fn next_steps(store: &str) {
    let colour = Screen::stderr().colour;
    let command = |text: &str| paint(text, "36", colour);
    let files = folder(store, "busiest").join("**").join("*.parquet");
    report::say(format_args!("\nnext:\n  ask it yourself      {}", command(&format!("millstream --store {store}"))));
    let duckdb = format!("duckdb -c \"SELECT * FROM '{}' LIMIT 5\"", files.display());
    report::say(format_args!("  read the Parquet     {}", command(&duckdb)));
    report::say(format_args!("  use it from Python   {}", command(&format!("millstream serve --store {store} &"))));
    report::say(format_args!(
        "                       {}",
        command("pip install adbc-driver-flightsql pyarrow && python3 -c \\")
    ));
    let python = "\"import adbc_driver_flightsql.dbapi as f; c = f.connect('grpc://127.0.0.1:31337').cursor(); \
        c.execute('SELECT * FROM hourly LIMIT 5'); print(c.fetch_arrow_table())\"";
    report::say(format_args!("                       {}", command(python)));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;
    use crate::terminal::width;

    fn rows(rows: &[(&str, i64, i64)]) -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("origin", Arc::new(StringArray::from(rows.iter().map(|r| r.0).collect::<Vec<_>>()))),
            ("window_end", Arc::new(TimestampMicrosecondArray::from(rows.iter().map(|r| r.1).collect::<Vec<_>>()))),
            ("departures", Arc::new(Int64Array::from(rows.iter().map(|r| r.2).collect::<Vec<_>>()))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn the_last_full_window_is_shown() {
        let hour = 3_600_000_000;
        let mut latest = Latest::default();
        latest.apply(&rows(&[("ATL", hour, 1), ("ORD", 2 * hour, 5), ("ATL", 2 * hour, 7)])).unwrap();
        latest.apply(&rows(&[("LAX", hour, 9), ("XXX", DATA_END.0 + hour, 99), ("DFW", 2 * hour, 6)])).unwrap();
        assert_eq!(latest.top(), [("ATL", 7), ("DFW", 6), ("ORD", 5)]);
        assert_eq!(latest.line(), "24 h to 1970-01-01 02:00:00: ATL 7, DFW 6, ORD 5");
    }

    #[test]
    fn the_picture_is_always_as_high() {
        let screen = Screen { width: Some(80), height: 24, colour: false };
        let mut latest = Latest::default();
        let empty = latest.picture("hourly: 5 rows", screen);
        latest.apply(&rows(&[("ATL", 1, 1_000), ("ORD", 1, 500)])).unwrap();
        let full = latest.picture("", screen);
        assert_eq!(empty.lines().count(), full.lines().count());
        assert!(full.lines().all(|line| width(line) <= 80), "{full}");
    }

    #[test]
    fn the_script_has_its_places() {
        assert!(SCRIPT.contains("'{flights}'{options}") && SCRIPT.matches("CREATE STREAM").count() == 3);
        assert_eq!(DATA_END.to_string(), "2001-01-29 00:00:00");
    }
}
