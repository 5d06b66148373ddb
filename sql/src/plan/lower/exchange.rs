//! The exchange between where rows lie and where they are needed.
//!
//! Who needs what is found in the second pass; where rows lie by the hash of a reader's keys already, they stay.

use millstream_engine::graph::{Edge, Exchange, NodeId};
use millstream_engine::spread::{Needed, Spread};

use super::operators::Lowering;

impl Lowering<'_> {
    /// The edge to a reader of `from`, whose rows lie so: the one place that puts exchanges into a graph.
    pub(super) fn exchange(from: NodeId, lie: &Spread, needed: &Needed) -> Edge {
        let exchange = match needed {
            _ if lie.fits(needed) => Exchange::Forward,
            Needed::Anywhere => Exchange::Forward,
            Needed::Hash(columns) => Exchange::Hash(columns.clone()),
            Needed::Single => Exchange::Single,
        };
        Edge { from, exchange }
    }
}
