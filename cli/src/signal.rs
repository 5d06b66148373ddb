//! Signals: interruption by Ctrl-C, and requests to end.

/// Waits for Ctrl-C.
pub(crate) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // no handler could be installed, so the default action, which ends the process, is still in force
        std::future::pending::<()>().await;
    }
}

/// Waits for a request to end other than Ctrl-C: SIGTERM or SIGHUP.
#[cfg(unix)]
pub(crate) async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut hup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        return std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = hup.recv() => {}
    }
}

/// Waits for a request to end other than Ctrl-C: there is none here.
#[cfg(not(unix))]
pub(crate) async fn terminated() {
    std::future::pending::<()>().await;
}

/// Waits until the process is to end, and gives the exit code that shells expect then.
pub(crate) async fn shutdown() -> u8 {
    tokio::select! {
        () = interrupted() => 130,
        () = terminated() => 143,
    }
}
