//! The interactive shell: reads statements and commands, executes them, shows what they gave.

mod commands;
mod complete;
pub(crate) mod describe;
mod input;
mod render;
mod script;
pub(crate) mod watch;
mod words;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use millstream_sql::session::JobState;
use millstream_sql::{ErrorKind, Result};
use reedline::Signal;

use crate::args::ShellArgs;
use crate::backend::{self, Backend, Embedded};
use crate::report::{self, Script};
use crate::terminal::{Screen, paint};
use crate::{config, run, signal};

use complete::{Names, SharedNames};
use render::{Next, Shell};

/// `millstream` and `millstream shell`: statements of `-c` or of a pipe are executed as a script, otherwise
/// somebody types.
pub(crate) async fn run(store: Option<String>, args: ShellArgs) -> Result<ExitCode> {
    let scripts: Vec<Script> = if !args.commands.is_empty() {
        args.commands.iter().map(|text| Script { name: None, text: text.clone() }).collect()
    } else if run::is_piped() {
        vec![run::read(None)?]
    } else {
        Vec::new()
    };
    let backend: Arc<dyn Backend> = match &args.connect {
        Some(url) => backend::connect(url).await?,
        None => Arc::new(Embedded::open(config::engine(config::store(store), &args.engine)).await?),
    };
    if !scripts.is_empty() {
        let shell = Shell::piped(Arc::clone(&backend), args.format);
        return run::close_after(backend.as_ref(), script::execute(shell, &scripts)).await;
    }
    banner(backend.as_ref()).await;
    let talked = talk(&backend).await;
    farewell(backend.as_ref()).await;
    backend.close().await?;
    talked.map(|()| ExitCode::SUCCESS)
}

async fn banner(backend: &dyn Backend) {
    let objects = backend.objects().await.unwrap_or_default();
    let jobs = backend.jobs().await.unwrap_or_default();
    let streams = objects.iter().filter(|o| o.namespace == "public").count();
    let colour = Screen::stderr().colour;
    report::say(format_args!(
        "{} {}: {}, {}",
        paint("millstream", "1;36", colour),
        env!("CARGO_PKG_VERSION"),
        report::counted(streams as u64, "stream"),
        report::counted(jobs.len() as u64, "job")
    ));
    report::say(format_args!("{}; \\? for help", backend.place()));
}

async fn farewell(backend: &dyn Backend) {
    let jobs = backend.jobs().await.unwrap_or_default();
    let running = jobs.iter().filter(|job| job.state == JobState::Running).count();
    if running > 0 && backend.is_embedded() {
        let (jobs, go) = if running == 1 { ("job", "goes") } else { ("jobs", "go") };
        report::say(format_args!("{running} running {jobs} {go} on when the store is opened again"));
    }
}

/// What happens elsewhere while somebody types.
#[derive(Default)]
struct Events {
    notices: Mutex<Vec<String>>,
    ended: AtomicBool,
    /// Makes the line editor return.
    interrupt: Arc<AtomicBool>,
}

impl Events {
    fn notice(&self, text: String) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        self.interrupt.store(true, Ordering::SeqCst);
    }

    /// Prints what has happened. At the prompt, what is typed so far moves below it.
    fn print(&self, at_prompt: bool) {
        let notices = std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner));
        self.interrupt.store(false, Ordering::SeqCst);
        let start = if at_prompt { "\r\x1b[J" } else { "" };
        for (i, notice) in notices.iter().enumerate() {
            report::say(format_args!("{}{notice}", if i == 0 { start } else { "" }));
        }
    }
}

async fn talk(backend: &Arc<dyn Backend>) -> Result<()> {
    let events = Arc::new(Events::default());
    let tasks = [watch_failures(backend.as_ref(), &events), Some(watch_end(&events))];
    let names = SharedNames::default();
    let screen = Screen::stdout();
    let mut editor = input::editor(Arc::clone(&names), Arc::clone(&events.interrupt), screen.colour);
    let mut shell = Shell::new(Arc::clone(backend));
    let mut at_prompt = false;
    let talked = loop {
        events.print(at_prompt);
        if !at_prompt {
            refresh(backend.as_ref(), &names).await;
        }
        at_prompt = false;
        // the editor waits for keys, so this thread gives its other work away
        match tokio::task::block_in_place(|| editor.read_line(&input::StatementPrompt)) {
            Ok(Signal::Success(text)) => match shell.take(&text).await {
                Next::Prompt => {}
                Next::Quit => break Ok(()),
            },
            Ok(Signal::CtrlD) => break Ok(()),
            Ok(Signal::ExternalBreak(_)) if events.ended.load(Ordering::SeqCst) => break Ok(()),
            Ok(Signal::ExternalBreak(_)) => at_prompt = true,
            Ok(_) => {}
            Err(e) => break Err(report::fail(ErrorKind::Unavailable, format!("cannot read the terminal: {e}"))),
        }
        if events.ended.load(Ordering::SeqCst) {
            break Ok(());
        }
    };
    for task in tasks.into_iter().flatten() {
        task.abort();
    }
    talked
}

fn watch_failures(backend: &dyn Backend, events: &Arc<Events>) -> Option<tokio::task::JoinHandle<()>> {
    use tokio::sync::broadcast::error::RecvError;
    let mut failures = backend.failures()?;
    let events = Arc::clone(events);
    let label = paint("notice:", "1;33", Screen::stderr().colour);
    Some(tokio::spawn(async move {
        loop {
            match failures.recv().await {
                Ok((stream, reason)) => events.notice(format!(
                    "{label} the job of stream \"{stream}\" has stopped: {reason}\n\
                     RESUME STREAM {} tries again, \\dj shows all jobs",
                    crate::export::quoted(&stream)
                )),
                Err(RecvError::Lagged(missed)) => {
                    events.notice(format!("{label} {missed} more jobs have stopped: \\dj"))
                }
                Err(RecvError::Closed) => return,
            }
        }
    }))
}

fn watch_end(events: &Arc<Events>) -> tokio::task::JoinHandle<()> {
    let events = Arc::clone(events);
    tokio::spawn(async move {
        signal::terminated().await;
        events.ended.store(true, Ordering::SeqCst);
        events.interrupt.store(true, Ordering::SeqCst);
    })
}

async fn refresh(backend: &dyn Backend, names: &SharedNames) {
    // without names there is just less to complete
    let objects = backend.objects().await.unwrap_or_default();
    let settings = backend.settings().into_iter().map(|(name, (_, about))| (name, about)).collect();
    let fresh = Names { objects: objects.iter().map(Into::into).collect(), settings };
    *names.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
}
