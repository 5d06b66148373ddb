//! Logging in: a name and a password become who a session works for.

use std::sync::Arc;
use std::time::Instant;

use super::Millstream;
use crate::error::{Error, ErrorKind, Result};
use crate::rights::{Hidden, Principal, is_password};

impl Millstream {
    /// Who comes from `address` as `user` with `password`. It takes as long for who is not known. Failed logins slow down.
    ///
    /// Errors are the same whatever is wrong with the login.
    pub async fn log_in(self: &Arc<Self>, user: &str, password: Hidden, address: &str) -> Result<Principal> {
        let entered = self.enter(user, password, address).await;
        self.note_login(Some(user), address, entered.as_ref().err().map(Error::message));
        entered
    }

    async fn enter(self: &Arc<Self>, user: &str, password: Hidden, address: &str) -> Result<Principal> {
        let busy = || Error::new(ErrorKind::Exhausted, "too many logins at once").with_hint("Try again.");
        let _place = self.throttle.places.try_acquire().map_err(|_| busy())?;
        let wait = self.throttle.begin(user, address, Instant::now())?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let turn = self.throttle.turn(self.budget()).await?;
        // Those who came at the same time may have failed meanwhile.
        self.throttle.begin(user, address, Instant::now())?;
        let found = self.access().login(user, address.into());
        let (hash, who) = found.map_or((None, None), |(hash, who)| (Some(hash), Some(who)));
        let right = turn.spend(move || is_password(&password, hash.as_ref())).await?;
        self.throttle.end(user, address, right, Instant::now());
        who.filter(|_| right)
            .ok_or_else(|| Error::new(ErrorKind::Denied, "user name or password is wrong").with_hint("Log in again."))
    }
}
