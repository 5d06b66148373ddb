//! The dataflow of a stream: its query planned, lowered and ended with its sink.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use millstream_engine::connector::ingest::IngestSource;
use millstream_engine::graph::{Edge, Exchange, Graph, NodeKind, ScanTime, SinkNode, SourceNode, TimeBound};
use millstream_engine::operator::aggregate::EmitMode;
use millstream_engine::operator::upsert::{Upsert, Weights};
use millstream_engine::table::TableSink;

use super::Millstream;
use super::define::IDLE_TIMEOUT;
use super::own_options::OwnOptions;
use super::reading::Reading;
use super::resolve::{cannot_go_on, conform};
use super::tables::StreamDef;
use crate::error::{Error, Result};
use crate::plan::lower::{Lowered, finish, lower};
use crate::plan::{Semantics, named_plan, session_state_of, streaming_plan};
use crate::statement::{CreateStream, Emit, Query};

/// A continuous query, planned and lowered.
pub(super) struct Planned {
    pub(super) lowered: Lowered,
    pub(super) schema: SchemaRef,
    /// The streams and views that it reads, also through others.
    pub(super) reads: Vec<String>,
}

impl Millstream {
    /// Plans a new continuous query for `parallelism` tasks.
    pub(super) fn plan_continuous(
        self: &Arc<Self>,
        query: &Query,
        parallelism: usize,
        reading: &Reading,
    ) -> Result<Planned> {
        self.plan_query(query, parallelism, Semantics::NOW, reading, Ok)
    }

    /// Plans a continuous query by the rules of `semantics`; `fit` has the last word about the plan.
    pub(super) fn plan_query(
        self: &Arc<Self>,
        query: &Query,
        parallelism: usize,
        semantics: Semantics,
        reading: &Reading,
        fit: impl FnOnce(LogicalPlan) -> Result<LogicalPlan>,
    ) -> Result<Planned> {
        let state = session_state_of(semantics);
        let plan = named_plan(&state, self.noting_resolver(reading), query, "the stream")?;
        let placed = |e: Error| {
            let place = query.place_of(e.message());
            e.or_at(place)
        };
        let plan = fit(streaming_plan(&state, plan).map_err(placed)?)?;
        let lowered = lower(&state, &plan, query.emit, parallelism).map_err(placed)?;
        Ok(Planned { lowered, schema: Arc::new(plan.schema().as_arrow().clone()), reads: reading.names() })
    }

    /// Plans the query of `def` as that stream has it: by the rules that it was made with, into its columns.
    pub(super) fn plan_stream(
        self: &Arc<Self>,
        def: &StreamDef,
        query: &Query,
        parallelism: usize,
        reading: &Reading,
    ) -> Result<Planned> {
        def.semantics.check().map_err(|e| e.context(format!("stream \"{}\"", def.name)))?;
        let fit = |plan| conform(plan, &def.schema, def.kind, &def.name);
        let planned = self.plan_query(query, parallelism, def.semantics, reading, fit)?;
        if !planned.lowered.output.append_only && !def.changelog {
            return Err(cannot_go_on(def.kind, &def.name, "only grows, and its query now takes rows back"));
        }
        Ok(planned)
    }

    /// The dataflow that feeds `def`, and its settings.
    pub(super) fn dataflow(
        self: &Arc<Self>,
        def: &StreamDef,
        create: &CreateStream,
        job: &str,
        parallelism: usize,
        reading: &Reading,
    ) -> Result<(Graph, OwnOptions)> {
        let (own, connector) = OwnOptions::of(create, &self.config().connectors)?;
        let parallelism = own.parallelism.unwrap_or(parallelism);
        if let Some(ingest) = &def.ingest {
            return Ok((self.stored_graph(def, create, ingest, job)?, own));
        }
        let query = create.query.as_ref().ok_or_else(|| Error::internal("a job without a query"))?;
        let mut planned = self.plan_stream(def, query, parallelism, reading)?;
        let name = def.name.clone();
        match (connector, &def.log) {
            (Some((connector, options)), _) => {
                let connector = self.config().connectors.to_write(&connector)?;
                let single = connector.writable()?.is_single();
                let tasks = if single { 1 } else { planned.lowered.output.parallelism };
                let sink = connector.writable()?.open(def.sink_request(&*connector, &options, tasks)?)?;
                finish(&mut planned.lowered, SinkNode { name, sink }, single);
            }
            (None, Some(log)) => {
                let key = planned.lowered.output.key.clone();
                let sink = Arc::new(TableSink::new(log.clone(), job, key));
                finish(&mut planned.lowered, SinkNode { name, sink }, false);
            }
            _ => return Err(Error::internal("a job without a result")),
        }
        Ok((planned.lowered.graph, own))
    }

    fn stored_graph(
        self: &Arc<Self>,
        def: &StreamDef,
        create: &CreateStream,
        ingest: &Arc<IngestSource>,
        job: &str,
    ) -> Result<Graph> {
        let mut graph = Graph::default();
        let (own, _) = OwnOptions::of(create, &self.config().connectors)?;
        let idle_timeout = own.idle_timeout.unwrap_or(IDLE_TIMEOUT);
        let time = self.event_time(create.watermark.as_ref(), &def.schema, &def.name, def.semantics)?;
        let time = time.map(|(column, bound)| {
            let bound = bound.map(|b| TimeBound::of(b, column));
            ScanTime { column, bound, closers: vec![], idle_timeout }
        });
        let source = SourceNode::new(&def.name, ingest.clone(), def.schema.clone());
        let source = SourceNode { time, ..source };
        let mut at = graph.add(NodeKind::Source(source), vec![], 1);
        let forward = |from| vec![Edge { from, exchange: Exchange::Forward }];
        if !def.primary_key.is_empty() {
            let spec = Upsert { key: def.primary_key.clone(), schema: def.schema.clone(), weights: Weights::Netted };
            at = graph.add(NodeKind::Operator(Arc::new(spec)), forward(at), 1);
        }
        let log = def.log.clone().ok_or_else(|| Error::internal("a stored stream without a log"))?;
        let sink = Arc::new(TableSink::new(log, job, def.key.clone()));
        graph.add(NodeKind::Sink(SinkNode { name: def.name.clone(), sink }), forward(at), 1);
        Ok(graph)
    }
}

/// `EMIT EVERY` as the length of epochs.
pub(super) fn every(emit: Option<Emit>) -> Option<Duration> {
    match emit {
        Some(Emit::Every(d)) => Some(d),
        _ => None,
    }
}

/// How a mode reads in EXPLAIN.
pub(super) fn emit_text(emit: EmitMode, asked: Option<Emit>, append_only: bool) -> String {
    match (asked, emit, append_only) {
        (Some(Emit::Every(d)), _, _) => format!("changes every {d:?}"),
        (_, EmitMode::OnClose, _) => "on window close".to_owned(),
        (_, _, true) => "rows as they come (append-only)".to_owned(),
        _ => "changes".to_owned(),
    }
}
