//! Where the other nodes are, and how jobs reach them: as their store, or the one that leads, says where they are and what they show.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millstream_sql::{Error, ErrorKind, Result};
use tokio::sync::{Notify, watch};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use super::dial::{NodePlace, dial_by};
use super::key::{ClusterKey, NODE};
use crate::compression::Compression;
use crate::doors::tls::Identity;
use crate::exchange::{Calling, for_lines};

/// See the module's text.
pub(super) struct NodeCalling {
    /// This node's own.
    pub(super) address: String,
    key: Arc<ClusterKey>,
    identity: Option<Identity>,
    /// How rows are compressed that are sent to others.
    pub(super) compression: Compression,
    /// All that are there, as the one that leads has said last.
    known: watch::Sender<Vec<NodePlace>>,
    /// Rouses who asks it.
    pub(super) asks: Notify,
}

impl NodeCalling {
    /// Of the node that others reach at `address`; it has `key` and shows `identity`.
    pub(super) fn new(
        address: &str,
        key: Arc<ClusterKey>,
        identity: Option<Identity>,
        compression: Compression,
    ) -> Self {
        let (known, asks) = (watch::Sender::default(), Notify::new());
        NodeCalling { address: address.to_owned(), key, identity, compression, known, asks }
    }

    /// All nodes are these.
    pub(super) fn know(&self, places: Vec<NodePlace>) {
        self.known.send_replace(places);
    }

    /// The addresses of all nodes.
    pub(super) fn known(&self) -> Vec<String> {
        self.known.borrow().iter().map(|place| place.address.clone()).collect()
    }

    fn known_at(&self, address: &str) -> Option<NodePlace> {
        self.known.borrow().iter().find(|place| place.address == address).cloned()
    }

    /// The node at `address`. Of one that has just come this node may not have heard yet: then that is waited for.
    async fn place_of(&self, address: &str, patience: Duration) -> Result<NodePlace> {
        let mut known = self.known.subscribe();
        if let Some(place) = self.known_at(address) {
            return Ok(place);
        }
        self.asks.notify_one();
        let heard = known.wait_for(|places| places.iter().any(|place| place.address == address));
        let _ = tokio::time::timeout(patience, heard).await;
        self.known_at(address).ok_or_else(|| self.unknown(address))
    }

    fn unknown(&self, address: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("node \"{}\" knows no node \"{address}\"", self.address))
    }
}

#[async_trait]
impl Calling for NodeCalling {
    async fn connect(&self, address: &str, node_timeout: Duration) -> millstream_engine::Result<Channel> {
        let connected = async {
            let place = self.place_of(address, node_timeout).await?;
            dial_by(&place, self.identity.as_ref(), |endpoint| for_lines(endpoint, node_timeout)).await
        };
        connected.await.map_err(|e| e.to_engine())
    }

    fn sign(&self, address: &str, headers: &mut MetadataMap) -> millstream_engine::Result<()> {
        let place = self.known_at(address).ok_or_else(|| self.unknown(address));
        let proof = place.and_then(|place| self.key.header(&place.name)).map_err(|e| e.to_engine())?;
        headers.insert(NODE, proof);
        Ok(())
    }

    fn refused(&self, address: &str) {
        self.known.send_modify(|places| places.retain(|place| place.address != address));
    }
}
