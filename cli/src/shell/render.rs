//! What a line does: executes its statements or its command, and shows the outcome.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use millstream_sql::session::{ChangeFeed, Done, ObjectKind, RowStream};
use millstream_sql::statement::Parsed;
use millstream_sql::{ErrorKind, Outcome, Result};

use super::commands::{self, Command, Switch};
use super::{describe, keyboard, watch};
use crate::backend::Backend;
use crate::output::{Expanded, Format, RowWriter, Table, View, cannot_write, render};
use crate::report::{self, Script, grouped};
use crate::run::{self, ChangeWriter, changes, seconds};
use crate::stands::Standing;
use crate::terminal::Screen;
use crate::{lex, progress, signal};

/// So many rows of a result are shown unless `\limit` says otherwise.
const LIMIT: usize = 1_000;

/// What results are written to.
pub(crate) type Out = BufWriter<Box<dyn Write + Send>>;

/// What comes after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next line.
    Prompt,
    /// The next line that is typed from now on: what went before was cancelled.
    Afresh,
    /// The end.
    Quit,
}

/// Whether a statement was done or cancelled with Ctrl-C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    Cancelled,
}

/// The state of a shell: its place to execute, and how it shows results.
pub(crate) struct Shell {
    backend: Arc<dyn Backend>,
    timing: bool,
    expanded: Expanded,
    limit: usize,
    format: Format,
    is_piped: bool,
    file: Option<(File, Format)>,
}

impl Shell {
    /// A shell that shows timings, and tables where they fit.
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Shell {
            backend,
            timing: true,
            expanded: Expanded::Auto,
            limit: LIMIT,
            format: Format::Table,
            is_piped: false,
            file: None,
        }
    }

    /// A shell for statements that nobody types: it shows all rows, as `format`.
    pub(crate) fn piped(backend: Arc<dyn Backend>, format: Format) -> Self {
        Shell { limit: 0, format, is_piped: true, ..Shell::new(backend) }
    }

    /// What it works on.
    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Does what a line says. Errors are printed.
    pub(crate) async fn take(&mut self, line: &str) -> Next {
        let done = match commands::parse(line) {
            Some(Ok(Command::Quit)) => return Next::Quit,
            Some(Ok(command)) => self.command(command).await,
            Some(Err(message)) => Err(report::fail(ErrorKind::Invalid, message)),
            None => Ok(self.script(&Script { name: None, text: line.to_owned() }).await),
        };
        match done {
            Ok(Ended::Done) => return Next::Prompt,
            Ok(Ended::Cancelled) => return Next::Afresh,
            Err(e) => report::error(&e, None),
        }
        Next::Prompt
    }

    /// Does what a command says.
    pub(crate) async fn command(&mut self, command: Command) -> Result<Ended> {
        let start = Instant::now();
        match command {
            Command::Watch(sql) => return self.watch(&sql).await,
            Command::Include(file) => return Ok(self.script(&run::read(Some(Path::new(&file)))?).await),
            Command::Functions(pattern) => return Ok(self.listing("FUNCTIONS", pattern).await),
            Command::Nodes => return Ok(self.listing("NODES", None).await),
            Command::Connectors(pattern) => return Ok(self.listing("CONNECTORS", pattern).await),
            _ => {}
        }
        tokio::select! {
            done = self.answer(command) => done.map(|()| Ended::Done),
            () = signal::interrupted() => Ok(cancelled(start)),
        }
    }

    /// Does what a command says that runs no statement.
    async fn answer(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Quit | Command::Watch(_) | Command::Include(_) => {}
            Command::Functions(_) | Command::Connectors(_) | Command::Nodes => {}
            Command::Help => self.print(&format!("{}{}", commands::help(), self.connectors().await))?,
            Command::Describe(None) => self.objects(|_| true).await?,
            Command::Describe(Some(name)) => self.describe(&name).await?,
            Command::Streams => self.objects(|kind| kind != ObjectKind::View).await?,
            Command::Views => self.objects(|kind| kind == ObjectKind::View).await?,
            Command::Jobs => self.table(&describe::jobs(&self.backend.jobs().await?))?,
            Command::Settings => self.table(&describe::settings(&self.backend.settings().await?))?,
            Command::Timing(on) => {
                self.timing = on.unwrap_or(!self.timing);
                report::say(format_args!("timing is {}", if self.timing { "on" } else { "off" }));
            }
            Command::Expanded(switch) => self.expand(switch),
            Command::Limit(limit) => {
                self.limit = limit.unwrap_or(self.limit);
                match self.limit {
                    0 => report::say(format_args!("all rows are shown")),
                    limit => report::say(format_args!("up to {} are shown", report::rows(limit as u64))),
                }
            }
            Command::Output(file) => self.redirect(file)?,
        }
        Ok(())
    }

    fn expand(&mut self, switch: Option<Switch>) {
        self.expanded = match switch {
            Some(Switch::On) => Expanded::On,
            Some(Switch::Off) => Expanded::Off,
            Some(Switch::Auto) => Expanded::Auto,
            None if self.expanded == Expanded::On => Expanded::Auto,
            None => Expanded::On,
        };
        let way = match self.expanded {
            Expanded::On => "on",
            Expanded::Off => "off",
            Expanded::Auto => "used where a table does not fit",
        };
        report::say(format_args!("expanded display is {way}"));
    }

    fn redirect(&mut self, file: Option<String>) -> Result<()> {
        self.file = match file {
            Some(name) => {
                let file = File::create(&name)
                    .map_err(|e| report::io_error(format_args!("cannot write the file \"{name}\""), e))?;
                report::say(format_args!("results go to {name}; \\o brings them back"));
                Some((file, Format::of_file(&name)))
            }
            None => None,
        };
        Ok(())
    }

    async fn objects(&self, wanted: impl Fn(ObjectKind) -> bool) -> Result<()> {
        let (objects, jobs) = (self.backend.objects().await?, self.backend.jobs().await?);
        self.table(&describe::objects(&objects, &jobs, wanted))
    }

    async fn describe(&self, name: &str) -> Result<()> {
        let folded =
            lex::tokens(name).iter().map(|t| t.name().unwrap_or_else(|| t.text.to_owned())).collect::<String>();
        let objects = self.backend.objects().await?;
        let Some(object) = objects.iter().find(|o| describe::full_name(o) == folded || o.name == name) else {
            let e = report::fail(ErrorKind::NotFound, format!("stream or view \"{name}\" does not exist"));
            return Err(e.with_hint("\\d lists all of them."));
        };
        let jobs = self.backend.jobs().await?;
        let job = jobs.iter().find(|job| job.stream == object.name).map(|job| describe::job_line(job) + "\n");
        self.print(&format!("{} \"{}\"\n", describe::kind_name(object.kind), describe::full_name(object)))?;
        self.table(&describe::columns(object))?;
        self.print(&format!("{}{}\n", job.unwrap_or_default(), object.sql))
    }

    async fn listing(&mut self, what: &str, pattern: Option<String>) -> Ended {
        let like = pattern.map(|p| format!(" LIKE '%{}%'", p.replace('\'', "''"))).unwrap_or_default();
        self.script(&Script { name: None, text: format!("SHOW {what}{like};") }).await
    }

    /// A line for each connector. A server of an older build has no list: then there is none.
    async fn connectors(&self) -> String {
        let Ok(Outcome::Rows(rows)) = self.backend.execute_sql("SHOW CONNECTORS").await else { return String::new() };
        let batches: Vec<_> = rows.rows.filter_map(|batch| std::future::ready(batch.ok())).collect().await;
        describe::connectors(&batches)
    }

    /// Executes statements until one fails or is cancelled.
    async fn script(&mut self, script: &Script) -> Ended {
        match self.statements(script).await {
            Ok(ended) => ended,
            Err(e) => {
                report::error(&e, Some(script));
                Ended::Done
            }
        }
    }

    async fn statements(&mut self, script: &Script) -> Result<Ended> {
        for statement in &run::parse(&script.text)? {
            if self.statement(statement).await? == Ended::Cancelled {
                return Ok(Ended::Cancelled);
            }
        }
        Ok(Ended::Done)
    }

    async fn statement(&mut self, statement: &Parsed) -> Result<Ended> {
        let start = Instant::now();
        let backend = Arc::clone(&self.backend);
        let outcome = tokio::select! {
            outcome = progress::shown(backend.as_ref(), backend.execute(statement)) => outcome?,
            () = signal::interrupted() => return Ok(cancelled(start)),
        };
        match outcome {
            Outcome::Done(done) => self.done(&done, start.elapsed()),
            Outcome::Rows(rows) => {
                tokio::select! {
                    shown = self.rows(rows, start) => shown?,
                    () = signal::interrupted() => return Ok(cancelled(start)),
                }
            }
            Outcome::Changes(feed) => return self.changes(feed, start).await,
        }
        Ok(Ended::Done)
    }

    fn done(&self, done: &Done, took: Duration) {
        if let Some(notice) = &done.notice {
            report::say(format_args!("notice: {notice}"));
        }
        let tag = run::tag(done);
        match self.timing {
            true => report::say(format_args!("{tag} ({})", seconds(took))),
            false => report::say(format_args!("{tag}")),
        }
    }

    async fn rows(&self, mut rows: RowStream, start: Instant) -> Result<()> {
        let (mut out, format, view) = self.output()?;
        let mut writer = RowWriter::new(format, rows.schema.clone(), view);
        let mut count = 0;
        while let Some(batch) = progress::shown(self.backend.as_ref(), rows.rows.next()).await {
            let batch = batch?;
            count += batch.num_rows() as u64;
            writer.write(&batch, &mut out)?;
        }
        let shown = writer.finish(&mut out)?.unwrap_or(count);
        run::warn_of_failed(&rows.left_out, "");
        let mut line = report::rows(count);
        if shown < count {
            line += &format!(", the first {} shown: \\limit, \\o or COPY give all", grouped(shown));
        }
        self.conclude(&run::besides(line, rows.left_out.get().as_ref()), start);
        Ok(())
    }

    /// Shows changes until they end or Ctrl-C.
    async fn changes(&self, mut feed: ChangeFeed, start: Instant) -> Result<Ended> {
        let (mut out, format, view) = self.output()?;
        let mut writer = ChangeWriter::new(format, &feed, view);
        let mut interrupt = std::pin::pin!(signal::interrupted());
        let (mut count, mut standing) = (0, Standing::of(&feed));
        let ended = loop {
            let epoch = tokio::select! {
                epoch = feed.epochs.next() => epoch,
                () = &mut interrupt => {
                    keyboard::drop_keys();
                    break Ended::Cancelled;
                }
            };
            let Some(epoch) = epoch.transpose()? else { break Ended::Done };
            for batch in &epoch.batches {
                count += batch.num_rows() as u64;
                writer.write(batch, &mut out)?;
            }
            out.flush().map_err(cannot_write)?;
            standing.see(&epoch);
        };
        writer.finish(&mut out)?;
        if ended == Ended::Cancelled {
            report::say(format_args!(""));
        }
        self.conclude(&changes(count), start);
        Ok(ended)
    }

    async fn watch(&mut self, sql: &str) -> Result<Ended> {
        let sql = sql.trim().trim_end_matches(';');
        let (query, _) = watch::unordered(sql);
        let continuous = if lex::emits(&lex::tokens(&query)) { query } else { format!("{query} EMIT CHANGES") };
        let script = Script { name: None, text: continuous };
        let start = Instant::now();
        let backend = Arc::clone(&self.backend);
        let outcome = tokio::select! {
            outcome = backend.execute_sql(&script.text) => outcome,
            () = signal::interrupted() => return Ok(cancelled(start)),
        };
        match outcome {
            Ok(Outcome::Changes(feed)) => watch::follow(feed, sql, self.expanded).await?,
            Ok(Outcome::Rows(rows)) => self.rows(rows, start).await?,
            Ok(Outcome::Done(done)) => self.done(&done, start.elapsed()),
            Err(e) => report::error(&e, Some(&script)),
        }
        Ok(Ended::Done)
    }

    /// Where results go now, and how they look there.
    pub(crate) fn output(&self) -> Result<(Out, Format, View)> {
        let (out, format, screen): (Box<dyn Write + Send>, _, _) = match &self.file {
            Some((file, format)) => {
                let file = file.try_clone().map_err(cannot_write)?;
                (Box::new(file), *format, Screen::PLAIN)
            }
            // Nobody waits for the next page of what is piped.
            None if self.is_piped => {
                (Box::new(io::stdout()), self.format, Screen { height: usize::MAX, ..Screen::stdout() })
            }
            None => (Box::new(io::stdout()), self.format, Screen::stdout()),
        };
        let limit = (self.limit > 0 && self.file.is_none()).then_some(self.limit);
        Ok((BufWriter::new(out), format, View { screen, expanded: self.expanded, limit }))
    }

    fn conclude(&self, what: &str, start: Instant) {
        match self.timing {
            true => report::say(format_args!("({what}, {})", seconds(start.elapsed()))),
            false => report::say(format_args!("({what})")),
        }
    }

    fn table(&self, table: &Table) -> Result<()> {
        let (_, _, view) = self.output()?;
        self.print(&render(table, view.screen, view.expanded))?;
        report::say(format_args!("({})", report::rows(table.rows.len() as u64)));
        Ok(())
    }

    fn print(&self, text: &str) -> Result<()> {
        let (mut out, _, _) = self.output()?;
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(cannot_write)
    }
}

fn cancelled(start: Instant) -> Ended {
    keyboard::drop_keys();
    report::say(format_args!("\ncancelled after {}", seconds(start.elapsed())));
    Ended::Cancelled
}
