//! What earlier runs of a job have counted.

use std::sync::Arc;

use crate::checkpoint::Manifest;
use crate::graph::{Graph, NodeKind};
use crate::metrics::NodeMetrics;

/// What earlier runs have counted counts on, in the first task of each source and sink.
pub(super) fn go_on_counting(graph: &Graph, metrics: &[Vec<Arc<NodeMetrics>>], manifest: &mut Manifest) {
    // An older build did not count what it read.
    manifest.rows.resize(manifest.sources.len(), 0);
    let sinks = graph.nodes.iter().zip(metrics).filter(|(n, _)| matches!(n.kind, NodeKind::Sink(_)));
    for ((_, tasks), rows) in sinks.zip(&manifest.rows_out) {
        tasks.iter().take(1).for_each(|first| first.rows_in(*rows as usize));
    }
    let sources = graph.nodes.iter().zip(metrics).filter(|(n, _)| matches!(n.kind, NodeKind::Source(_)));
    for (i, (_, tasks)) in sources.enumerate() {
        let Some(first) = tasks.first() else { continue };
        first.rows_out(manifest.rows.get(i).map_or(0, |rows| *rows as usize));
        // These are not told apart by source.
        if i == 0 {
            first.late(manifest.late as usize);
            first.dead_letters((manifest.dead.rows() + manifest.dead.beyond) as usize);
        }
    }
}
