//! Whether the operators of a graph are those whose state a manifest names.
//!
//! Columns of a state are read by place. That their types fit is checked where it is restored; here it is checked that
//! they mean the same, as a build that plans a query otherwise could read one sum for another.

use std::collections::BTreeMap;

use super::fragment::labels;
use crate::checkpoint::Manifest;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeKind};
use crate::operator::window::Closer;
use crate::state::unfit;

/// What the states of `graph` depend on, by operator.
pub(super) fn fingerprints(graph: &Graph) -> BTreeMap<String, String> {
    let named = labels(graph).into_iter().zip(&graph.nodes);
    let of_operator = named.filter_map(|(label, node)| match &node.kind {
        NodeKind::Operator(spec) => Some((label, spec.fingerprint()?)),
        _ => None,
    });
    of_operator.collect()
}

/// What `graph` is: the same words are the same dataflow, as all nodes of a job must have it.
pub(super) fn of_graph(graph: &Graph) -> String {
    use std::fmt::Write;
    let mut text = format!("{}\n", env!("CARGO_PKG_VERSION"));
    for (id, node) in graph.nodes.iter().enumerate() {
        let what = match &node.kind {
            NodeKind::Source(s) => {
                let closer = |closer: &Closer| match closer {
                    Closer::Window(window) => format!("{window:?}"),
                    Closer::Function(function) => function.to_string(),
                };
                let time = s.time.as_ref().map(|t| (t.column, t.closers.iter().map(closer).collect::<Vec<_>>()));
                let conditions = s.conditions.iter().flatten().map(ToString::to_string).collect::<Vec<_>>();
                format!("scan {} {} {} {time:?} {conditions:?}", s.stream, s.source.describe(), s.depth)
            }
            NodeKind::Operator(spec) => format!("{} {} {:?}", spec.name(), spec.describe(), spec.fingerprint()),
            // Where it writes may be called otherwise on another machine.
            NodeKind::Sink(s) => format!("sink {}", s.name),
        };
        let schema = graph.schema(id);
        let columns = schema.fields().iter().map(|f| format!("{} {} {}", f.name(), f.data_type(), f.is_nullable()));
        let columns = columns.collect::<Vec<_>>().join(", ");
        // Writing to text does not fail.
        let _ = writeln!(text, "{id} x{} {:?} {what} {columns}", node.parallelism, node.inputs);
    }
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
}

/// Notes in `manifest` what the states of `graph`, which feeds `stream`, depend on.
///
/// Errors where an operator has been another one: its state would be misread.
pub(super) fn settle(graph: &Graph, manifest: &mut Manifest, stream: &str) -> Result<()> {
    let now = fingerprints(graph);
    for (label, kept) in &manifest.fingerprints {
        if let Some(needed) = now.get(label).filter(|needed| *needed != kept) {
            let why = Error::data(format!("it is that of {kept}, the query now needs {needed}"));
            return Err(unfit(&format!("{label}."), stream, &why));
        }
    }
    manifest.fingerprints = now;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Schema, SchemaRef};

    use super::*;
    use crate::error::ErrorKind;
    use crate::operator::{BuildContext, Operator, OperatorSpec};

    #[derive(Debug)]
    struct Sums(&'static str);

    impl OperatorSpec for Sums {
        fn name(&self) -> &'static str {
            "sums"
        }

        fn describe(&self) -> String {
            String::new()
        }

        fn schema(&self) -> SchemaRef {
            Arc::new(Schema::empty())
        }

        fn fingerprint(&self) -> Option<String> {
            Some(self.0.to_owned())
        }

        fn build(&self, _context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
            Err(Error::internal("is not run"))
        }
    }

    fn graph(sums: &[&'static str]) -> Graph {
        let mut graph = Graph::default();
        for sum in sums {
            graph.add(NodeKind::Operator(Arc::new(Sums(sum))), vec![], 1);
        }
        graph
    }

    #[test]
    fn a_graph_is_told_by_what_it_does() {
        let one = of_graph(&graph(&["sum(BIGINT)", "sum(DOUBLE)"]));
        assert_eq!(one, of_graph(&graph(&["sum(BIGINT)", "sum(DOUBLE)"])));
        for other in [&["sum(BIGINT)"][..], &["sum(DOUBLE)", "sum(BIGINT)"]] {
            assert_ne!(one, of_graph(&graph(other)));
        }
        let mut wider = graph(&["sum(BIGINT)", "sum(DOUBLE)"]);
        wider.nodes[1].parallelism = 2;
        assert_ne!(one, of_graph(&wider));
    }

    #[test]
    fn what_means_something_else_is_refused() {
        let mut manifest = Manifest::start(0);
        settle(&graph(&["sum(BIGINT)", "sum(DOUBLE)"]), &mut manifest, "s").expect("nothing was noted yet");
        assert_eq!(manifest.fingerprints["sums 2"], "sum(DOUBLE)");
        settle(&graph(&["sum(BIGINT)", "sum(DOUBLE)", "sum(INTEGER)"]), &mut manifest, "s").expect("the same and more");
        let e = settle(&graph(&["sum(BIGINT)", "avg(DOUBLE)"]), &mut manifest, "s").expect_err("another one");
        assert_eq!(e.kind(), ErrorKind::Data);
        assert_eq!(
            e.message(),
            "the stored state of operator \"sums 2\" of stream \"s\" does not fit: it is that of sum(DOUBLE), the query \
             now needs avg(DOUBLE)"
        );
    }
}
