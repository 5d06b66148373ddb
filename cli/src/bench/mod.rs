//! `millstream bench nexmark`: the Nexmark queries at full speed, one process a query.

mod queries;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use millstream_sql::{Config, ErrorKind, Millstream, Result, Session};
use serde::Serialize;

use crate::args::{BenchArgs, BenchFormat, BenchOutput, BenchSource, BenchSuite, NexmarkArgs};
use crate::report;
use queries::{BenchQuery, QUERIES};

/// The figures of a run.
#[derive(Debug, Serialize)]
struct Figures {
    query: &'static str,
    source: &'static str,
    events: u64,
    parallelism: usize,
    /// From the start of the query to its end.
    seconds: f64,
    /// All events, also those of tables that the query does not read.
    events_per_second: f64,
    /// Of the whole process while the query ran.
    cpu_seconds: f64,
    /// Of the whole process so far.
    peak_memory_mb: f64,
    rows_out: u64,
}

/// Runs a benchmark and prints its figures.
pub(crate) async fn run(args: BenchArgs) -> Result<ExitCode> {
    let BenchSuite::Nexmark(args) = args.suite;
    let chosen = chosen(&args.query)?;
    if let [one] = chosen[..] {
        let figures = measure(one, &args).await?;
        print(&figures, args.output);
        return Ok(ExitCode::SUCCESS);
    }
    if args.output == BenchOutput::Table {
        println!("{}", header());
    }
    for query in chosen {
        // A process of its own, so that peak memory is the query's.
        let exe = std::env::current_exe().map_err(|e| report::io_error("cannot find this program", e))?;
        let given: Vec<String> = std::env::args().skip(1).collect();
        let mut words = without_query(&given);
        words.extend(["--query".to_owned(), query.name.to_owned()]);
        let status = tokio::process::Command::new(exe).args(words).env("MILLSTREAM_BENCH_ROW", "1").status().await;
        let status = status.map_err(|e| report::io_error("cannot start this program again", e))?;
        if !status.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn without_query(words: &[String]) -> Vec<String> {
    let mut rest = vec![];
    let mut skip = false;
    for word in words {
        match (skip, word.as_str()) {
            (true, _) => skip = false,
            (_, "--query") => skip = true,
            (_, w) if w.starts_with("--query=") => {}
            _ => rest.push(word.clone()),
        }
    }
    rest
}

fn chosen(names: &[String]) -> Result<Vec<&'static BenchQuery>> {
    if names.iter().any(|n| n == "all") {
        return Ok(QUERIES.iter().collect());
    }
    let find = |name: &String| {
        QUERIES.iter().find(|q| q.name == *name).ok_or_else(|| {
            let known: Vec<_> = QUERIES.iter().map(|q| q.name).collect();
            report::fail(ErrorKind::NotFound, format!("there is no query \"{name}\""))
                .with_hint(format!("The queries are: {}.", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

/// A folder that goes when it is dropped, unless the user named it.
struct Folder {
    path: PathBuf,
    ours: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

async fn measure(query: &'static BenchQuery, args: &NexmarkArgs) -> Result<Figures> {
    let folder = match &args.path {
        Some(path) => Folder { path: path.clone(), ours: false },
        None => {
            Folder { path: std::env::temp_dir().join(format!("millstream-bench-{}", std::process::id())), ours: true }
        }
    };
    let store = folder.path.join(format!("store-{}-{}", query.name, std::process::id()));
    let mut config = Config::new(store.display().to_string());
    config.parallelism = args.parallelism.map_or(config.parallelism, usize::from);
    config.checkpoint_interval = args.checkpoint_interval.unwrap_or(config.checkpoint_interval);
    let parallelism = config.parallelism;
    let millstream = Millstream::open(config).await?;
    let session = millstream.session();
    for (table, columns) in TABLES {
        if query.reads(table) {
            prepare(&session, args, parallelism, &folder.path, table, columns).await?;
        }
    }
    if query.reads("side_input") {
        side_input(&session, &folder.path).await?;
    }
    let (cpu, start) = (cpu_seconds(), Instant::now());
    session.execute_sql(&format!("CREATE STREAM result WITH (connector = 'blackhole') AS {}", query.sql)).await?;
    millstream.flush().await?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds() - cpu;
    let rows_out = millstream.jobs().iter().filter(|j| j.stream == "result").filter_map(|j| j.rows_out).sum();
    millstream.close().await?;
    let _ = std::fs::remove_dir_all(&store);
    Ok(Figures {
        query: query.name,
        source: match (args.source, args.format) {
            (BenchSource::Generator, _) => "generator",
            (BenchSource::Files, BenchFormat::Json) => "json files",
            (BenchSource::Files, BenchFormat::Csv) => "csv files",
            (BenchSource::Files, BenchFormat::Parquet) => "parquet files",
        },
        events: args.events,
        parallelism,
        seconds,
        events_per_second: args.events as f64 / seconds,
        cpu_seconds,
        peak_memory_mb: peak_memory_mb(),
        rows_out,
    })
}

const WATERMARK: &str = "WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'";
/// The tables, with their columns.
const TABLES: [(&str, &str); 3] = [
    ("bid", "auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, date_time TIMESTAMP, extra TEXT"),
    (
        "auction",
        "id BIGINT, item_name TEXT, description TEXT, initial_bid BIGINT, reserve BIGINT, date_time TIMESTAMP, \
         expires TIMESTAMP, seller BIGINT, category BIGINT, extra TEXT",
    ),
    (
        "person",
        "id BIGINT, name TEXT, email_address TEXT, credit_card TEXT, city TEXT, state TEXT, date_time TIMESTAMP, \
         extra TEXT",
    ),
];

/// Creates the stream of a table, over the generator or over files that are written first: one for each task.
async fn prepare(
    session: &Session,
    args: &NexmarkArgs,
    files: usize,
    folder: &Path,
    table: &str,
    columns: &str,
) -> Result<()> {
    let events = args.events;
    let generator = format!("connector = 'nexmark', \"table\" = '{table}', events = '{events}'");
    if args.source == BenchSource::Generator {
        return done(session, &format!("CREATE STREAM {table} ({columns}, {WATERMARK}) WITH ({generator})")).await;
    }
    let (format, ending) = match args.format {
        BenchFormat::Json => ("json", "jsonl"),
        BenchFormat::Csv => ("csv", "csv"),
        BenchFormat::Parquet => ("parquet", "parquet"),
    };
    let path = folder.join(format!("{table}-{events}-{files}-{ending}"));
    let text = path.display();
    if !path.exists() {
        done(session, &format!("CREATE STREAM made_{table} ({columns}) WITH ({generator})")).await?;
        done(
            session,
            &format!(
                "CREATE STREAM written_{table} WITH (connector = 'file', path = '{text}/', format = '{format}', \
                 parallelism = '{files}') AS SELECT * FROM made_{table}"
            ),
        )
        .await?;
        session.millstream().flush().await?;
    }
    done(
        session,
        &format!(
            "CREATE STREAM {table} ({columns}, {WATERMARK}) WITH (connector = 'file', path = '{text}/', \
             format = '{format}')"
        ),
    )
    .await
}

/// The table in which q13 looks bids up: a file of 10,000 keys, each with its value.
async fn side_input(session: &Session, folder: &Path) -> Result<()> {
    let path = folder.join("side_input.csv");
    let rows: String = (0..10_000).map(|key| format!("{key},{key}\n")).collect();
    std::fs::write(&path, rows).map_err(|e| report::io_error("cannot write side_input.csv", e))?;
    let text = path.display();
    done(
        session,
        &format!(
            "CREATE STREAM side_input (key BIGINT, value TEXT) \
             WITH (connector = 'file', path = '{text}', format = 'csv', header = false)"
        ),
    )
    .await
}

async fn done(session: &Session, sql: &str) -> Result<()> {
    session.execute_sql(sql).await.map(|_| ())
}

fn header() -> String {
    format!(
        "{:<6} {:<14} {:>12} {:>3} {:>9} {:>14} {:>9} {:>10} {:>12}",
        "query", "source", "events", "P", "seconds", "events/s", "cpu s", "peak MB", "rows out"
    )
}

fn print(f: &Figures, output: BenchOutput) {
    match output {
        BenchOutput::Json => match serde_json::to_string(f) {
            Ok(line) => println!("{line}"),
            Err(e) => report::say(format_args!("{e}")),
        },
        BenchOutput::Table => {
            if std::env::var_os("MILLSTREAM_BENCH_ROW").is_none() {
                println!("{}", header());
            }
            println!(
                "{:<6} {:<14} {:>12} {:>3} {:>9.3} {:>14.0} {:>9.2} {:>10.1} {:>12}",
                f.query,
                f.source,
                f.events,
                f.parallelism,
                f.seconds,
                f.events_per_second,
                f.cpu_seconds,
                f.peak_memory_mb,
                f.rows_out
            );
        }
    }
}

/// User and system time of this process, where the system tells.
fn cpu_seconds() -> f64 {
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
    };
    // The kernel counts in hundredths of a second wherever Rust's Linux targets run.
    ticks().unwrap_or(0.0) / 100.0
}

fn peak_memory_mb() -> f64 {
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    peak().unwrap_or(0.0) / 1024.0
}
