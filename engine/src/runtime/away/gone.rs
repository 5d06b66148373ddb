//! Nodes that are not there any more.

use crate::error::Error;

/// The node at `address` is not there any more, and `how` that shows. The kind is `Unavailable`, and it is
/// [lost](Error::lost_node): the job can be started with others.
pub fn gone_away(address: &str, how: &str) -> Error {
    Error::unavailable(format!("node \"{address}\" {how}"))
        .of_lost_node(address)
        .with_hint("Jobs go on from their last checkpoint on the nodes that are left.")
}
