//! Asking over a network where a statement waits for the answer, on whichever thread it does.

use tokio::runtime::{Builder, Handle, RuntimeFlavor};

use crate::error::{Error, Result};

/// Waits for `work`, from any thread: it runs on one of its own.
pub fn ask<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let run = move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work)
    };
    let asking = std::thread::Builder::new().name("millstream-ask".to_owned()).spawn(run)?;
    let wait = move || asking.join().unwrap_or_else(|_| Err(Error::internal("asking the other side ended early")));
    match Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    }
}
