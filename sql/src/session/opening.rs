//! What a connector is opened with: its options with the secrets that they name, and bounded by what who made the stream
//! may touch. Asked each time that something is opened, not only when the stream is made.

use std::sync::Arc;

use millstream_engine::connector::registry::Connector;
use millstream_engine::options::{Options, SECRET};
use millstream_engine::reach::Reach;
use tokio::sync::watch;

use super::Millstream;
use crate::catalog::Maker;
use crate::error::{Error, ErrorKind, Result};
use crate::rights::{Access, Key, Principal};

/// See the module's text.
#[derive(Clone)]
pub(crate) struct Opening {
    /// What it is bounded by, if it is.
    reach: Option<Arc<Reach>>,
    key: Option<Key>,
    access: watch::Receiver<Arc<Access>>,
}

impl Opening {
    /// `options` as `connector` gets them.
    ///
    /// Errors where they would touch what they must not, or name a secret that there is not.
    pub(crate) fn options(&self, connector: &dyn Connector, options: &Options) -> Result<Options> {
        let mut options = options.clone();
        if let Some(reach) = &self.reach {
            let touched = connector.touches(&options)?.ok_or_else(|| {
                let message =
                    format!("{}: connector '{}' is not for statements from outside", options.owner(), connector.name());
                Error::new(ErrorKind::Denied, message).with_hint("Make the stream where the store is.")
            })?;
            reach.check(&touched).map_err(|e| e.context(options.owner()))?;
            options = options.within(reach.clone());
        }
        let revealed = options.with_values(|_, value| match value.strip_prefix(SECRET) {
            Some(name) => Ok(Some(self.reveal(name)?)),
            None => Ok(None),
        });
        Ok(revealed?)
    }

    fn reveal(&self, name: &str) -> millstream_engine::Result<String> {
        let access = self.access.borrow();
        let opened = access.open_secret(name, self.key.as_ref());
        Ok(opened.map_err(|e| e.to_engine())?.reveal().to_owned())
    }
}

impl Millstream {
    /// How what `maker` has made is opened.
    pub(super) fn opening(&self, maker: &Maker) -> Opening {
        let config = self.config();
        let reach = config.reach.clone().filter(|_| maker.remote);
        Opening { reach, key: config.key.clone(), access: self.access.subscribe() }
    }

    /// How what `who` is about to make is opened: bounded also where nobody has said how.
    pub(super) fn first_opening(&self, who: &Principal) -> Opening {
        Opening { reach: self.reach_of(who), ..self.opening(&Maker::of(who)) }
    }

    /// What `who` may touch, if that is bounded.
    pub(super) fn reach_of(&self, who: &Principal) -> Option<Arc<Reach>> {
        who.is_remote().then(|| self.config().reach.clone().unwrap_or_default())
    }
}
