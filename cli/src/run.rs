//! `millstream run`: statements from a file, the command line or a pipe, in order, until one fails.
//!
//! Before a statement that reads results, and at the end, everything over bounded input has been waited for: a script
//! gives the same rows each time it runs on a new store.

use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::StreamExt;
use millstream_sql::session::{ChangeFeed, Done, JobState, LeftOut, LeftOutRows, RowStream};
use millstream_sql::statement::{self, Parsed};
use millstream_sql::{Error, Outcome, Result};

use crate::args::RunArgs;
use crate::backend::{Backend, Embedded};
use crate::output::{Expanded, Format, RowWriter, View, cannot_write};
use crate::report::{self, Script};
use crate::stands::Standing;
use crate::terminal::Screen;
use crate::{closing, config, lex, progress, signal};

/// What a shell gives a process that was ended by SIGPIPE.
const BROKEN_PIPE: u8 = 141;
/// A wait that took longer is worth a line.
const LONG: Duration = Duration::from_secs(1);

/// Runs the script.
pub(crate) async fn run(store: Option<String>, args: RunArgs) -> Result<ExitCode> {
    let script = read(args.file.as_deref())?;
    let backend = Embedded::open(config::engine(config::store(store), &args.engine)?).await?;
    execute_and_close(&backend, &[script], args.format).await
}

/// The script in `file`; none or `-` is stdin.
pub(crate) fn read(file: Option<&Path>) -> Result<Script> {
    match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file)
                .map_err(|e| report::io_error(format_args!("cannot read the script \"{name}\""), e))?;
            Ok(Script { name: Some(name), text: without_mark(text) })
        }
        None => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| report::io_error("cannot read the script on stdin", e))?;
            Ok(Script { name: Some("stdin".to_owned()), text: without_mark(text) })
        }
    }
}

/// Editors of some systems put a byte order mark before the text.
fn without_mark(text: String) -> String {
    text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)
}

/// Executes scripts with results on stdout, waits for their streams, and closes the store, also after an error or
/// when the process is told to end.
pub(crate) async fn execute_and_close(backend: &dyn Backend, scripts: &[Script], format: Format) -> Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout());
    let screen = Screen { height: usize::MAX, ..Screen::stdout() };
    let view = View { screen, expanded: Expanded::Auto, limit: None };
    close_after(backend, execute_all(backend, scripts, format, view, &mut out)).await
}

/// Closes the store after `work`, which gives the exit code, or when the process is told to end.
pub(crate) async fn close_after(backend: &dyn Backend, work: impl Future<Output = u8>) -> Result<ExitCode> {
    let code = tokio::select! {
        code = work => code,
        code = signal::shutdown() => {
            report::say(format_args!("interrupted: closing"));
            code
        }
    };
    let left = closing::close(backend).await?;
    Ok(ExitCode::from(left.unwrap_or(code)))
}

async fn execute_all(
    backend: &dyn Backend,
    scripts: &[Script],
    format: Format,
    view: View,
    out: &mut (dyn Write + Send),
) -> u8 {
    for script in scripts {
        if let Err(e) = execute(backend, script, format, view, out).await {
            return stopped(&e, Some(script));
        }
    }
    complete(backend).await
}

/// Waits for what the statements have started; gives the exit code.
pub(crate) async fn complete(backend: &dyn Backend) -> u8 {
    match flush(backend).await {
        Ok(_) => 0,
        Err(e) => stopped(&e, None),
    }
}

/// Says why a script stopped; gives the exit code.
pub(crate) fn stopped(e: &Error, script: Option<&Script>) -> u8 {
    if report::is_broken_pipe(e) {
        return BROKEN_PIPE;
    }
    report::error(e, script);
    1
}

/// Executes the statements of a script one after the other.
pub(crate) async fn execute(
    backend: &dyn Backend,
    script: &Script,
    format: Format,
    view: View,
    out: &mut (dyn Write + Send),
) -> Result<()> {
    let mut warned = String::new();
    for statement in statement::parse(&script.text)? {
        if lex::reads_results(&statement.text) {
            // The statement may well be about other streams than the one that has failed: the script goes on, and
            // ends with the error, if it has to do with that stream.
            let said = flush(backend).await.unwrap_or_else(|e| Some(e.message().to_owned()));
            if let Some(said) = said.filter(|said| *said != warned) {
                report::say(format_args!("warning: {said}"));
                warned = said;
            }
        }
        let start = Instant::now();
        let outcome = progress::shown(backend, backend.execute(&statement)).await?;
        match outcome {
            Outcome::Done(done) => {
                if let Some(notice) = &done.notice {
                    report::say(format_args!("notice: {notice}"));
                }
                report::say(format_args!("{} ({})", tag(&done), seconds(start.elapsed())));
            }
            Outcome::Rows(rows) => {
                let left_out = rows.left_out.clone();
                let count = write_rows(backend, rows, format, view, out).await?;
                warn_of_failed(&left_out, &warned);
                let what = besides(report::rows(count), left_out.get().as_ref());
                report::say(format_args!("({what}, {})", seconds(start.elapsed())));
            }
            Outcome::Changes(feed) => {
                let count = write_changes(feed, format, view, out).await?;
                report::say(format_args!("({}, {})", changes(count), seconds(start.elapsed())));
            }
        }
    }
    Ok(())
}

/// Waits until all that reads bounded input is complete, and says so if it took long.
async fn flush(backend: &dyn Backend) -> Result<Option<String>> {
    let start = Instant::now();
    let before = backend.jobs().await.unwrap_or_default();
    let notice = progress::shown(backend, backend.flush()).await?;
    let took = start.elapsed();
    if took < LONG {
        return Ok(notice);
    }
    for job in backend.jobs().await.unwrap_or_default() {
        let known = before.iter().find(|b| b.stream == job.stream);
        let Some(rows) = job.rows_in else { continue };
        let gained = rows.saturating_sub(known.and_then(|b| b.rows_in).unwrap_or_default());
        if job.state == JobState::Finished && gained > 0 {
            let rate = (gained as f64 / took.as_secs_f64()) as u64;
            report::say(format_args!(
                "{}: complete after {} in {} ({} rows/s)",
                job.stream,
                report::rows(rows),
                seconds(took),
                report::grouped(rate)
            ));
        }
    }
    Ok(notice)
}

async fn write_rows(
    backend: &dyn Backend,
    mut rows: RowStream,
    format: Format,
    view: View,
    out: &mut (dyn Write + Send),
) -> Result<u64> {
    let mut writer = RowWriter::new(format, rows.schema.clone(), view);
    let mut count = 0;
    while let Some(batch) = progress::shown(backend, rows.rows.next()).await {
        let batch = batch?;
        count += batch.num_rows() as u64;
        writer.write(&batch, out)?;
    }
    writer.finish(out)?;
    Ok(count)
}

/// Each epoch is on its way to the reader before the next is waited for.
async fn write_changes(mut feed: ChangeFeed, format: Format, view: View, out: &mut (dyn Write + Send)) -> Result<u64> {
    let mut writer = ChangeWriter::new(format, &feed, view);
    let (mut count, mut standing) = (0, Standing::of(&feed));
    while let Some(epoch) = feed.epochs.next().await.transpose()? {
        for batch in &epoch.batches {
            count += batch.num_rows() as u64;
            writer.write(batch, out)?;
        }
        out.flush().map_err(cannot_write)?;
        standing.see(&epoch);
    }
    writer.finish(out)?;
    Ok(count)
}

/// Changes in any format.
pub(crate) enum ChangeWriter {
    /// As a growing table.
    Table(crate::output::ChangeTable),
    /// As rows of CSV or JSON.
    Rows(RowWriter),
}

impl ChangeWriter {
    /// A writer for the changes of `feed`.
    pub(crate) fn new(format: Format, feed: &ChangeFeed, view: View) -> Self {
        match format {
            Format::Table => ChangeWriter::Table(crate::output::ChangeTable::new(feed.schema.clone(), view)),
            format => ChangeWriter::Rows(RowWriter::new(format, feed.schema.clone(), view)),
        }
    }

    /// Writes changes.
    pub(crate) fn write(&mut self, batch: &arrow::array::RecordBatch, out: &mut dyn Write) -> Result<()> {
        match self {
            ChangeWriter::Table(table) => table.write(batch, out),
            ChangeWriter::Rows(rows) => rows.write(batch, out),
        }
    }

    /// Writes what is left.
    pub(crate) fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        if let ChangeWriter::Rows(rows) = self {
            rows.finish(out)?;
        }
        Ok(())
    }
}

/// A command tag with its count, as `INSERT 5`, and what was left out.
pub(crate) fn tag(done: &Done) -> String {
    let tag = done.rows.map_or_else(|| done.tag.clone(), |rows| format!("{} {rows}", done.tag));
    besides(tag, done.left_out.as_ref())
}

/// `what`, and what the input had besides: `2 rows, 1 left out: orders.csv line 3: …`.
pub(crate) fn besides(what: String, left_out: Option<&LeftOut>) -> String {
    left_out.map_or_else(|| what.clone(), |left_out| format!("{what}, {left_out}"))
}

/// Says which streams below a result have failed, but for what was `said` already.
pub(crate) fn warn_of_failed(left_out: &LeftOutRows, said: &str) {
    for failed in left_out.failed() {
        if !said.contains(&format!("stream \"{}\" has failed", failed.stream)) {
            report::say(format_args!("notice: {failed}"));
        }
    }
}

/// `1 change`, `2 changes`.
pub(crate) fn changes(n: u64) -> String {
    report::counted(n, "change")
}

/// A duration as people read it: `0.013 s`.
pub(crate) fn seconds(took: Duration) -> String {
    format!("{:.3} s", took.as_secs_f64())
}

/// Whether statements come from a pipe or a file rather than from a person.
pub(crate) fn is_piped() -> bool {
    !io::stdin().is_terminal()
}

/// Parses a text for the shell, where the whole of it is what was typed.
pub(crate) fn parse(text: &str) -> Result<Vec<Parsed>> {
    statement::parse(text)
}
