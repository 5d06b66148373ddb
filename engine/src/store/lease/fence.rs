//! What keeps a process that was not heard of in time from writing to the store.
//!
//! It goes by the lease as its holder counts it. Who was stopped for a while finds its time over when it goes on, before it
//! writes anything, and waits until it knows whether it still holds the store.

use tokio::sync::watch;

use super::{Held, Standing};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;
use crate::store::patience::Patience;

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    pub(super) clock: Clock,
    pub(super) standing: watch::Receiver<Standing>,
}

impl Fence {
    /// Waits until it is certain that the store is held, for as long as `patience` lasts.
    ///
    /// Errors with `Fenced` where it is not held any more.
    async fn pass(&self, patience: &Patience) -> Result<(), Why> {
        let mut standing = self.standing.clone();
        let certain = standing.wait_for(|standing| standing.held != Held::Yes || self.clock.now() < standing.over);
        match patience.wait(certain).await {
            None => Err(Why::Late),
            // The lease has gone: it was given up.
            Some(Err(_)) => Err(Why::Lost("this process gave it up".to_owned())),
            Some(Ok(standing)) => match &standing.held {
                Held::Yes => Ok(()),
                Held::TakenBy(other) => Err(Why::Lost(format!("it was taken over by {other}"))),
                Held::Resigned => Err(Why::Lost("this process was not heard of in time".to_owned())),
            },
        }
    }
}

/// Why nothing may be written.
enum Why {
    Late,
    Lost(String),
}

impl Store {
    /// Waits until it is certain that this process may write.
    ///
    /// Errors with `Fenced` where another may be at work.
    pub(crate) async fn may_write(&self) -> Result<()> {
        let Some(fence) = &self.fence else { return Ok(()) };
        fence.pass(&self.patience).await.map_err(|why| {
            let store = self.locate("");
            match why {
                Why::Late => Error::unavailable(format!("the lease of store \"{store}\" cannot be renewed"))
                    .with_hint("See whether the store answers, and try again."),
                Why::Lost(why) => {
                    Error::new(ErrorKind::Fenced, format!("store \"{store}\" is not this process's any more: {why}"))
                        .with_hint("Send it again: another process answers.")
                }
            }
        })
    }

    /// Whether other processes may come to write, so that a number that was created must be looked at again.
    pub fn is_shared(&self) -> bool {
        self.root.is_none() || self.fence.is_some()
    }
}
