//! The `millstream` binary: a shell, scripts, a server, exports, a demo and benchmarks over one engine.
//!
//! Every command opens a store (or a connection) as a [`backend::Backend`] and executes statements on it; what
//! differs is where the statements come from and how the outcomes are shown.

mod args;
mod backend;
mod bench;
mod closing;
mod config;
mod demo;
mod export;
mod lex;
mod output;
mod password;
mod progress;
mod quantity;
mod remote;
mod report;
mod run;
mod serve;
mod shell;
mod signal;
mod stands;
mod terminal;
mod user;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use args::{Cli, Command};
use millstream_sql::plan::TURNS;
use millstream_sql::statement::STACK;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Work that is still queued when a command has ended may take this long; all that must be durable is by then.
const LAST_WORK: Duration = Duration::from_secs(1);

/// What lies below logs the headers of requests in its smaller levels, and with them passwords and tokens.
const BELOW: [&str; 8] = [
    "h2=info",
    "hyper=info",
    "hyper_util=info",
    "object_store=warn",
    "rustls=info",
    "reqwest=info",
    "tokio_tungstenite=info",
    "tungstenite=info",
];

fn main() -> ExitCode {
    let cli = Cli::read();
    start_log(&cli);
    // Queries run here, and are to hear soon that they are cancelled.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().event_interval(TURNS).thread_stack_size(STACK).enable_all().build();
    let run = |runtime: tokio::runtime::Runtime| {
        let work = move || {
            let code = runtime.block_on(dispatch(cli));
            runtime.shutdown_timeout(LAST_WORK);
            code
        };
        // Statements are read and planned here, and the first thread's stack is whatever the system gives.
        std::thread::Builder::new().name("millstream".to_owned()).stack_size(STACK).spawn(work)
    };
    match runtime.and_then(run) {
        Ok(worker) => worker.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked)),
        Err(e) => {
            report::say(format_args!("error: cannot start threads: {e}"));
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(cli: Cli) -> ExitCode {
    let store = cli.store;
    let done = match cli.command {
        None => shell::run(store, cli.shell).await,
        Some(Command::Shell(args)) => shell::run(store, args).await,
        Some(Command::Run(args)) => run::run(store, args).await,
        Some(Command::Serve(args)) => serve::run(store, args).await,
        Some(Command::User(args)) => user::run(store, args).await,
        Some(Command::Export(args)) => export::run(store, args).await,
        Some(Command::Demo(args)) => demo::run(store, args).await,
        Some(Command::Bench(args)) => bench::run(args).await,
    };
    done.unwrap_or_else(|e| {
        report::error(&e, None);
        ExitCode::FAILURE
    })
}

/// Logs go to stderr. Only a server logs that a job has failed: elsewhere it is said as a notice or as the error of
/// the statement that waits for the job.
fn start_log(cli: &Cli) {
    let level = match &cli.command {
        None | Some(Command::Shell(_) | Command::Demo(_)) => "error,millstream_engine::runtime::status=off",
        Some(Command::Serve(_)) => "info",
        Some(_) => "warn,millstream_engine::runtime::status=off",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("MILLSTREAM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let below = BELOW.iter().filter_map(|directive| directive.parse().ok());
    let filter = below.fold(filter, tracing_subscriber::EnvFilter::add_directive);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
}
