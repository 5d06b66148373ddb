//! The interactive shell: reads statements and commands, executes them, shows what they gave.

mod commands;
mod complete;
pub(crate) mod describe;
mod history;
mod input;
mod keyboard;
mod render;
mod script;
mod tty;
pub(crate) mod watch;
mod words;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use millstream_sql::session::{FailedStream, JobState};
use millstream_sql::{ErrorKind, Result};
use reedline::Signal;

use crate::args::ShellArgs;
use crate::backend::{Backend, Embedded, News};
use crate::remote::Place;
use crate::report::{self, Script};
use crate::terminal::{Screen, paint};
use crate::{closing, config, export, run, signal};

use complete::{Names, SharedNames};
use keyboard::Keyboard;
use render::{Next, Shell};
use tty::Tty;

/// `millstream` and `millstream shell`: statements of `-c` or of a pipe are executed as a script, otherwise
/// somebody types.
pub(crate) async fn run(store: Option<String>, args: ShellArgs) -> Result<ExitCode> {
    let scripts: Vec<Script> = if !args.commands.is_empty() {
        args.commands.iter().map(|text| Script { name: None, text: text.clone() }).collect()
    } else if run::is_piped() {
        vec![run::read(None)?]
    } else {
        return interactive(store, &args).await;
    };
    let place = Place::of(&args.server)?;
    let backend = open(store, place, &args).await?;
    let shell = Shell::piped(Arc::clone(&backend), args.format);
    run::close_after(backend.as_ref(), script::execute(shell, &scripts)).await
}

async fn open(store: Option<String>, place: Option<Place>, args: &ShellArgs) -> Result<Arc<dyn Backend>> {
    Ok(match place {
        Some(place) => place.connect().await?,
        None => Arc::new(Embedded::open(config::engine(config::store(store), &args.engine)?).await?),
    })
}

/// Talks until the user leaves, the terminal goes away, or the process is told to end.
async fn interactive(store: Option<String>, args: &ShellArgs) -> Result<ExitCode> {
    // Signals have their handlers before the terminal is taken: it must be given back.
    let mut stop = std::pin::pin!(signal::shutdown());
    let stopped = std::future::poll_fn(|context| std::task::Poll::Ready(stop.as_mut().poll(context).is_ready()));
    if stopped.await {
        return Ok(ExitCode::FAILURE);
    }
    // It is typed where the terminal is not taken yet.
    let place = Place::of(&args.server)?;
    let Some((tty, ahead)) = Tty::take() else {
        return Err(report::fail(ErrorKind::Unavailable, "the terminal cannot be set"));
    };
    let backend = tokio::select! {
        backend = open(store, place, args) => backend?,
        code = stop => return Ok(ExitCode::from(code)),
    };
    banner(backend.as_ref()).await;
    let code = talk(&backend, &tty, ahead).await;
    drop(tty);
    farewell(backend.as_ref()).await;
    let left = closing::close(backend.as_ref()).await?;
    code.map(|code| ExitCode::from(left.unwrap_or(code)))
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

/// Gives the exit code.
async fn talk(backend: &Arc<dyn Backend>, tty: &Tty, ahead: String) -> Result<u8> {
    let events = Arc::new(Events::default());
    let watching = watch(backend.as_ref(), &events);
    let names = SharedNames::default();
    let editor = input::editor(Arc::clone(&names), Arc::clone(&events.interrupt), Screen::stdout().colour);
    let mut keyboard = Keyboard::start(editor, Arc::clone(&events.interrupt), ahead).map_err(cannot_read)?;
    let talked = tokio::select! {
        talked = converse(backend, tty, &mut keyboard, &events, &names) => talked.map(|()| 0),
        code = signal::terminated() => Ok(code),
        () = tty::gone() => Ok(signal::HANGUP),
    };
    watching.abort();
    if keyboard.leave().await {
        // what comes goes below the prompt
        report::say(format_args!(""));
    }
    talked
}

/// Executes lines until the user leaves.
async fn converse(
    backend: &Arc<dyn Backend>,
    tty: &Tty,
    keyboard: &mut Keyboard,
    events: &Events,
    names: &SharedNames,
) -> Result<()> {
    let mut shell = Shell::new(Arc::clone(backend));
    let (mut at_prompt, mut afresh) = (false, false);
    loop {
        events.print(at_prompt);
        if !at_prompt {
            refresh(backend.as_ref(), names).await;
        }
        tty.raw();
        let typed = attended(keyboard.line(afresh), || events.interrupt.store(true, Ordering::SeqCst)).await;
        tty.quiet();
        (at_prompt, afresh) = (false, false);
        match typed.map_err(cannot_read)? {
            Signal::Success(text) => match attended(shell.take(&text), || tty.quiet()).await {
                Next::Prompt => {}
                Next::Afresh => afresh = true,
                Next::Quit => return Ok(()),
            },
            Signal::CtrlD => return Ok(()),
            Signal::ExternalBreak(_) => at_prompt = true,
            _ => {}
        }
    }
}

/// Does `work`. A process that was stopped may find the terminal as others have left it, and sets it `anew`.
async fn attended<T>(work: impl Future<Output = T>, anew: impl Fn()) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = signal::resumed() => anew(),
        }
    }
}

fn cannot_read(e: std::io::Error) -> millstream_sql::Error {
    report::io_error("cannot read the terminal", e)
}

/// Tells of what happens while somebody types.
fn watch(backend: &dyn Backend, events: &Arc<Events>) -> tokio::task::JoinHandle<()> {
    let (mut news, events, place) = (backend.news(), Arc::clone(events), backend.place());
    let label = paint("notice:", "1;33", Screen::stderr().colour);
    tokio::spawn(async move {
        while let Some(news) = news.next().await {
            let told = match news {
                News::Failed(FailedStream { stream, reason }) => format!(
                    "the job of stream \"{stream}\" has stopped: {reason}\nRESUME STREAM {} tries again, \\dj shows all jobs",
                    export::quoted(&stream)
                ),
                News::Missed(missed) => format!("{missed} more jobs have stopped: \\dj"),
                News::Gone => format!("the server at {place} has gone; the shell connects again when it is back"),
                News::Back => format!("the server at {place} is back"),
            };
            events.notice(format!("{label} {told}"));
        }
    })
}

async fn refresh(backend: &dyn Backend, names: &SharedNames) {
    // without names there is just less to complete
    let objects = backend.objects().await.unwrap_or_default();
    let settings =
        backend.settings().await.unwrap_or_default().into_iter().map(|(name, (_, about))| (name, about)).collect();
    let fresh = Names { objects: objects.iter().map(Into::into).collect(), settings };
    *names.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
}
