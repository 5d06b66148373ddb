//! Closing a store in good order: the jobs commit what they have. It is said when it takes long, and need not be
//! waited for.

use std::time::Duration;

use millstream_sql::Result;
use millstream_sql::session::JobState;

use crate::backend::Backend;
use crate::{report, signal};

/// What takes less needs no word.
const PATIENCE: Duration = Duration::from_millis(300);

/// Closes what `backend` has open. Gives an exit code when Ctrl-C cut it short.
pub(crate) async fn close(backend: &dyn Backend) -> Result<Option<u8>> {
    // A server's jobs go on.
    let jobs = if backend.is_embedded() { backend.jobs().await.unwrap_or_default() } else { Vec::new() };
    let running = jobs.iter().filter(|job| job.state == JobState::Running).count();
    let mut closed = std::pin::pin!(backend.close());
    if let Ok(closed) = tokio::time::timeout(PATIENCE, &mut closed).await {
        return closed.map(|()| None);
    }
    report::say(format_args!(
        "closing: waiting for {} to commit; Ctrl-C leaves at once and loses nothing",
        report::counted(running as u64, "job")
    ));
    tokio::select! {
        closed = closed => closed.map(|()| None),
        () = signal::interrupted() => Ok(Some(signal::INTERRUPT)),
    }
}
