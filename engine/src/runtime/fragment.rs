//! Fragments: the parts of a graph between exchanges, whose nodes run in one task.

use crate::graph::{Exchange, Graph, NodeId, NodeKind};

/// A graph cut at its exchanges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fragments {
    /// The nodes of each fragment, its head first.
    pub(super) nodes: Vec<Vec<NodeId>>,
    /// The fragment of each node.
    pub(super) of_node: Vec<usize>,
}

impl Fragments {
    /// A node joins the fragment of its inputs when all come forward from one; else it heads its own.
    pub(super) fn of(graph: &Graph) -> Self {
        let mut nodes: Vec<Vec<NodeId>> = vec![];
        let mut of_node: Vec<usize> = vec![];
        for (id, node) in graph.nodes.iter().enumerate() {
            let mut inputs = node.inputs.iter();
            let first = inputs.next().filter(|e| e.exchange == Exchange::Forward).map(|e| of_node[e.from]);
            let joins = first.filter(|f| inputs.all(|e| e.exchange == Exchange::Forward && of_node[e.from] == *f));
            match joins {
                Some(fragment) => {
                    nodes[fragment].push(id);
                    of_node.push(fragment);
                }
                None => {
                    nodes.push(vec![id]);
                    of_node.push(nodes.len() - 1);
                }
            }
        }
        Fragments { nodes, of_node }
    }
}

/// A name for each node that stays the same when the parallelism changes: the operator's name and how
/// many of that name came before. State goes by it.
pub fn labels(graph: &Graph) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::new();
    let mut label = |name: &str| {
        let n = counts.entry(name.to_owned()).or_insert(0);
        *n += 1;
        format!("{name} {n}")
    };
    let names = graph.nodes.iter().map(|n| match &n.kind {
        NodeKind::Source(_) => label("scan"),
        NodeKind::Operator(spec) => label(spec.name()),
        NodeKind::Sink(_) => label("sink"),
    });
    names.collect()
}
