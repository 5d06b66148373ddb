//! The connection to the one that leads that belongs to a client's connection here: so a session is one's own there as well, and
//! nobody who does not read holds up others.

use std::sync::Arc;

use millstream_sql::Result;
use parking_lot::Mutex;
use tonic::transport::Channel;

use super::dial::dial;
use super::node::{Leader, Node};

/// See the module's text.
#[derive(Clone, Default)]
pub(super) struct Upstream(Arc<Mutex<Option<(String, Channel)>>>);

impl Upstream {
    /// The way to `leader`. It is there before a request is begun, which could not be repeated.
    pub(super) async fn to(&self, leader: &Leader, node: &Node) -> Result<Channel> {
        let name = &leader.place.name;
        if let Some((_, channel)) = self.0.lock().as_ref().filter(|(of, _)| of == name) {
            return Ok(channel.clone());
        }
        let channel = dial(&leader.place, node.options.identity.as_ref(), node.timeout()).await?;
        let mut own = self.0.lock();
        // Two requests may have come at once: one connection is one session.
        if let Some((_, channel)) = own.as_ref().filter(|(of, _)| of == name) {
            return Ok(channel.clone());
        }
        *own = Some((name.clone(), channel.clone()));
        Ok(channel)
    }

    /// The connection has broken off: the next request has another.
    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }
}
