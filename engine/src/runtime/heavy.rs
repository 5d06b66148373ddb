//! Work that takes long, on threads that others wait for.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does `work`, which takes long without waiting for anything, so that the other tasks of this thread can go on.
pub(super) fn heavy<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
