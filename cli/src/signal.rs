//! Signals: interruption by Ctrl-C, and requests to end.

/// The exit code of what Ctrl-C has ended.
pub(crate) const INTERRUPT: u8 = 130;
/// The exit code of what SIGTERM has ended.
const TERMINATE: u8 = 143;
/// The exit code of what ended because its terminal has gone.
pub(crate) const HANGUP: u8 = 129;

/// Waits for Ctrl-C.
pub(crate) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // no handler could be installed, so the default action, which ends the process, is still in force
        std::future::pending::<()>().await;
    }
}

/// Waits for a request to end other than Ctrl-C, SIGTERM or SIGHUP, and gives the exit code that shells expect then.
#[cfg(unix)]
pub(crate) async fn terminated() -> u8 {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut hup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => TERMINATE,
        _ = hup.recv() => HANGUP,
    }
}

/// Waits for a request to end other than Ctrl-C: there is none here.
#[cfg(not(unix))]
pub(crate) async fn terminated() -> u8 {
    std::future::pending().await
}

/// Waits until the process goes on after it was stopped, as Ctrl-Z does.
#[cfg(unix)]
pub(crate) async fn resumed() {
    use tokio::signal::unix::{SignalKind, signal};
    const SIGCONT: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 18 } else { 19 };
    match signal(SignalKind::from_raw(SIGCONT)) {
        Ok(mut resumed) => drop(resumed.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// Waits until the process goes on after it was stopped, which does not happen here.
#[cfg(not(unix))]
pub(crate) async fn resumed() {
    std::future::pending().await
}

/// Waits until the process is to end, and gives the exit code that shells expect then.
pub(crate) async fn shutdown() -> u8 {
    tokio::select! {
        () = interrupted() => INTERRUPT,
        code = terminated() => code,
    }
}
