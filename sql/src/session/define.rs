//! What a CREATE statement defines, and the dataflow that feeds it.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;
use millstream_engine::connector::ingest::IngestSource;
use millstream_engine::connector::options::Options;
use millstream_engine::connector::registry::{SINKS, SOURCES, SinkRequest, infer_schema, open_sink};
use millstream_engine::graph::{Edge, Exchange, Graph, NodeKind, ScanTime, SinkNode, SourceNode, TimeBound};
use millstream_engine::nearest::nearest;
use millstream_engine::operator::aggregate::EmitMode;
use millstream_engine::operator::upsert::Upsert;
use millstream_engine::table::{StreamLog, TableSink, check_storable};

use super::Millstream;
use super::outcome::ObjectKind;
use super::settings::checkpoint_interval;
use super::tables::{StreamDef, StreamTable};
use crate::error::{Error, Result};
use crate::plan::lower::{Lowered, StreamScan, TimeProperty, finish, lower};
use crate::plan::{expression, query_plan, session_state, streaming_plan};
use crate::statement::{CreateStream, Emit, Query, Watermark};

/// A split without rows for this long stops holding the watermark.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

const OWN: [&str; 3] = ["checkpoint_interval", "idle_timeout", "parallelism"];

/// Options that are Millstream's own, not a connector's.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OwnOptions {
    pub(super) parallelism: Option<usize>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) checkpoint_interval: Option<Duration>,
}

impl OwnOptions {
    /// Parts our own options from the connector's.
    fn of(create: &CreateStream) -> Result<(Self, Option<(String, Options)>)> {
        let owner = format!("stream \"{}\"", create.name.name);
        let mut values = create.options.clone();
        let connector = values.remove("connector");
        let own = OWN.iter().filter_map(|name| values.remove_entry(*name)).collect();
        let mut own = Options::new(owner.clone(), own);
        let interval = own.text("checkpoint_interval").map(|text| checkpoint_interval(&text)).transpose();
        let result = OwnOptions {
            parallelism: own.value("parallelism", "a number from 1 to 256")?,
            idle_timeout: own.duration("idle_timeout")?,
            checkpoint_interval: interval
                .map_err(|e| e.context(format!("option \"checkpoint_interval\" of {owner}")))?,
        };
        if result.parallelism.is_some_and(|n: usize| n == 0 || n > 256) {
            return Err(Error::invalid(format!("option \"parallelism\" of {owner} is not a number from 1 to 256")));
        }
        match (connector, values.keys().next()) {
            (Some(name), _) => Ok((result, Some((name, Options::new(owner, values))))),
            (None, None) => Ok((result, None)),
            (None, Some(left)) => Err(without_connector(create, left)),
        }
    }
}

/// Options that a stream without a connector does not have.
fn without_connector(create: &CreateStream, option: &str) -> Error {
    let message = format!("stream \"{}\" has option \"{option}\" and no connector", create.name.name);
    let hint = match nearest(option, OWN.into_iter().chain(["connector"])) {
        Some(near) => format!("Did you mean {near}?"),
        None => {
            let connectors = if create.query.is_some() { &SINKS[..] } else { &SOURCES[..] };
            format!(
                "Add connector = '…', one of {}. Without one its options are: {}.",
                connectors.join(", "),
                OWN.join(", ")
            )
        }
    };
    Error::invalid(message).with_hint(hint)
}

/// The event-time column, and the bound that each row sets.
type EventColumn = (usize, Option<Arc<dyn PhysicalExpr>>);

/// A continuous query, planned and lowered.
pub(super) struct Planned {
    pub(super) lowered: Lowered,
    pub(super) schema: SchemaRef,
    pub(super) reads: Vec<String>,
}

impl Millstream {
    /// Plans a continuous query for `parallelism` tasks.
    pub(super) fn plan_continuous(self: &Arc<Self>, query: &Query, parallelism: usize) -> Result<Planned> {
        let state = session_state();
        let plan = query_plan(&state, self.resolver(true), &query.query)?;
        let plan = streaming_plan(&state, plan)?;
        let reads = streams_of(&plan)?;
        let lowered = lower(&state, &plan, query.emit, parallelism)?;
        Ok(Planned { lowered, schema: Arc::new(plan.schema().as_arrow().clone()), reads })
    }

    /// What `create` defines. `job` names the folder of its job. Columns that the connector knows are
    /// written into `create`, so that the catalog keeps them.
    pub(super) fn define(
        self: &Arc<Self>,
        create: &mut CreateStream,
        sql: String,
        parallelism: usize,
    ) -> Result<StreamDef> {
        let (own, connector) = OwnOptions::of(create)?;
        let mut def = StreamDef {
            name: create.name.name.clone(),
            kind: ObjectKind::External,
            sql,
            schema: Arc::new(Schema::empty()),
            primary_key: vec![],
            key: None,
            changelog: false,
            event_time: None,
            idle_timeout: own.idle_timeout.unwrap_or(IDLE_TIMEOUT),
            connector: None,
            place: None,
            log: None,
            ingest: None,
            reads: vec![],
        };
        match (create.query.clone(), connector) {
            (None, Some(connector)) => self.define_external(&mut def, create, connector, parallelism)?,
            (None, None) => self.define_stored(&mut def, create)?,
            (Some(query), connector) => self.define_derived(&mut def, create, &query, connector, parallelism)?,
        }
        Ok(def)
    }

    fn define_external(
        self: &Arc<Self>,
        def: &mut StreamDef,
        create: &mut CreateStream,
        (connector, options): (String, Options),
        parallelism: usize,
    ) -> Result<()> {
        if create.primary_key.is_some() {
            return Err(Error::unsupported(format!(
                "stream \"{}\": a connector cannot have a PRIMARY KEY yet",
                def.name
            ))
            .with_hint("Read it into a stored stream with a PRIMARY KEY, or leave the key out."));
        }
        def.schema = declared(create, || Ok(infer_schema(&connector, options.clone())?))?;
        def.connector = Some((connector, options));
        def.event_time = self.event_time(create.watermark.as_ref(), &def.schema, &def.name)?;
        // Opened once to find wrong options and missing files now.
        def.open((0..def.schema.fields().len()).collect(), parallelism)?;
        Ok(())
    }

    fn define_stored(self: &Arc<Self>, def: &mut StreamDef, create: &mut CreateStream) -> Result<()> {
        def.kind = ObjectKind::Stored;
        if create.columns.is_empty() {
            return Err(Error::invalid(format!("stream \"{}\" has no columns", def.name))
                .with_hint("Declare them, name a connector WITH (connector = …), or give a query AS SELECT …."));
        }
        def.schema = declared(create, || Err(Error::internal("no columns")))?;
        def.primary_key = key_columns(create, &def.schema)?;
        def.changelog = !def.primary_key.is_empty();
        def.key = def.changelog.then(|| def.primary_key.clone());
        let time = self.event_time(create.watermark.as_ref(), &def.schema, &def.name)?;
        // Readers are told the watermark by the log.
        def.event_time = time.map(|(column, _)| (column, None));
        def.log = Some(self.log_of(def)?);
        def.ingest = Some(IngestSource::new());
        Ok(())
    }

    fn define_derived(
        self: &Arc<Self>,
        def: &mut StreamDef,
        create: &CreateStream,
        query: &Query,
        connector: Option<(String, Options)>,
        parallelism: usize,
    ) -> Result<()> {
        if !create.columns.is_empty() || create.watermark.is_some() || create.primary_key.is_some() {
            return Err(Error::unsupported(format!("stream \"{}\" declares columns and has a query", def.name))
                .with_hint("Leave the columns out: the query names them (SELECT a AS b)."));
        }
        let planned = self.plan_continuous(query, parallelism)?;
        unique_names(&planned.schema, &def.name)?;
        let output = &planned.lowered.output;
        def.changelog = !output.append_only;
        def.key = output.key.clone();
        def.event_time = event_column(&output.time).map(|c| (c, None));
        def.schema = planned.schema;
        def.reads = planned.reads;
        match connector {
            None => {
                def.kind = ObjectKind::Derived;
                def.log = Some(self.log_of(def)?);
            }
            Some((connector, options)) => {
                def.kind = ObjectKind::Written;
                let sink = open_sink(&connector, sink_request(def, options.clone(), parallelism))?;
                def.place = sink.place();
                self.refuse_shared_place(def)?;
                def.connector = Some((connector, options));
            }
        }
        Ok(())
    }

    fn log_of(&self, def: &StreamDef) -> Result<Arc<StreamLog>> {
        check_storable(&def.schema).map_err(|e| e.context(format!("stream \"{}\"", def.name)))?;
        Ok(StreamLog::new(self.store().clone(), &def.name, def.schema.clone(), def.changelog))
    }

    /// Refuses a file or folder into which another stream is written: each would take the other's files for its own.
    fn refuse_shared_place(&self, def: &StreamDef) -> Result<()> {
        let Some(place) = &def.place else { return Ok(()) };
        let objects = self.objects.read();
        let Some(other) = objects.streams.values().find(|d| d.place == def.place && d.name != def.name) else {
            return Ok(());
        };
        let (name, place) = (&def.name, place.display());
        Err(Error::invalid(format!("stream \"{name}\": stream \"{}\" is written to \"{place}\" already", other.name))
            .with_hint("Give each stream a path of its own, or write one stream of both with UNION ALL."))
    }

    /// The event-time column, and the bound that each row sets.
    fn event_time(
        self: &Arc<Self>,
        watermark: Option<&Watermark>,
        schema: &SchemaRef,
        stream: &str,
    ) -> Result<Option<EventColumn>> {
        let Some(watermark) = watermark else { return Ok(None) };
        let column = schema.index_of(&watermark.column).map_err(|_| {
            Error::invalid(format!("WATERMARK FOR \"{}\": stream \"{stream}\" has no such column", watermark.column))
        })?;
        let is_time = |t: &DataType| matches!(t, DataType::Timestamp(_, _));
        let data_type = schema.field(column).data_type();
        if !is_time(data_type) {
            return Err(Error::invalid(format!(
                "WATERMARK FOR \"{}\": the column is {data_type}, not a timestamp",
                watermark.column
            ))
            .with_hint("Declare it as TIMESTAMP; option timestamp_format says how it is written."));
        }
        let state = session_state();
        let df_schema = DFSchema::try_from_qualified_schema(stream, schema)?;
        let expr = expression(&state, self.resolver(true), &watermark.expr, &df_schema)?;
        let bound = state.create_physical_expr(expr, &df_schema)?;
        if !is_time(&bound.data_type(schema)?) {
            return Err(Error::invalid(format!("the watermark of stream \"{stream}\" is not a timestamp"))
                .with_hint("Write it like WATERMARK FOR ts AS ts - INTERVAL '5 seconds'."));
        }
        Ok(Some((column, Some(bound))))
    }

    /// The dataflow that feeds `def`, and its settings.
    pub(super) fn dataflow(
        self: &Arc<Self>,
        def: &StreamDef,
        create: &CreateStream,
        job: &str,
        parallelism: usize,
    ) -> Result<(Graph, OwnOptions)> {
        let (own, connector) = OwnOptions::of(create)?;
        let parallelism = own.parallelism.unwrap_or(parallelism);
        if let Some(ingest) = &def.ingest {
            return Ok((self.stored_graph(def, create, ingest, job)?, own));
        }
        let query = create.query.as_ref().ok_or_else(|| Error::internal("a job without a query"))?;
        let mut planned = self.plan_continuous(query, parallelism)?;
        let name = def.name.clone();
        match (connector, &def.log) {
            (Some((connector, options)), _) => {
                let single = matches!(connector.as_str(), "stdout");
                let tasks = if single { 1 } else { planned.lowered.output.parallelism };
                let sink = open_sink(&connector, sink_request(def, options, tasks))?;
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
        let (own, _) = OwnOptions::of(create)?;
        let idle_timeout = own.idle_timeout.unwrap_or(IDLE_TIMEOUT);
        let time = self.event_time(create.watermark.as_ref(), &def.schema, &def.name)?;
        let time = time.map(|(column, bound)| {
            let bound = bound.map(|b| TimeBound::of(b, column));
            ScanTime { column, bound, closers: vec![], idle_timeout }
        });
        let source = SourceNode { stream: def.name.clone(), source: ingest.clone(), schema: def.schema.clone(), time };
        let mut at = graph.add(NodeKind::Source(source), vec![], 1);
        let forward = |from| vec![Edge { from, exchange: Exchange::Forward }];
        if !def.primary_key.is_empty() {
            let spec = Upsert { key: def.primary_key.clone(), schema: def.schema.clone() };
            at = graph.add(NodeKind::Operator(Arc::new(spec)), forward(at), 1);
        }
        let log = def.log.clone().ok_or_else(|| Error::internal("a stored stream without a log"))?;
        let sink = Arc::new(TableSink::new(log, job, def.key.clone()));
        graph.add(NodeKind::Sink(SinkNode { name: def.name.clone(), sink }), forward(at), 1);
        Ok(graph)
    }
}

/// The tasks that `create` asks for.
pub(super) fn own_parallelism(create: &CreateStream) -> Result<Option<usize>> {
    Ok(OwnOptions::of(create)?.0.parallelism)
}

fn sink_request(def: &StreamDef, options: Options, parallelism: usize) -> SinkRequest {
    SinkRequest { stream: def.name.clone(), schema: def.schema.clone(), retracts: def.changelog, options, parallelism }
}

fn declared(create: &mut CreateStream, infer: impl Fn() -> Result<SchemaRef>) -> Result<SchemaRef> {
    if create.columns.is_empty() {
        return infer();
    }
    let fields: Vec<_> = create.columns.iter().map(|c| c.field()).collect();
    let schema = Arc::new(Schema::new(fields));
    unique_names(&schema, &create.name.name)?;
    Ok(schema)
}

fn unique_names(schema: &Schema, stream: &str) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for f in schema.fields() {
        if !seen.insert(f.name()) {
            return Err(Error::invalid(format!("stream \"{stream}\" would have two columns \"{}\"", f.name()))
                .with_hint("Give one of them another name: SELECT a AS b."));
        }
        if matches!(f.name().as_str(), "_op" | "_epoch") {
            return Err(Error::invalid(format!("column \"{}\" of stream \"{stream}\" has a reserved name", f.name()))
                .with_hint("Names _op and _epoch belong to changelogs: choose another."));
        }
        if f.data_type() == &DataType::Null {
            return Err(Error::invalid(format!("column \"{}\" of stream \"{stream}\" has no type", f.name()))
                .with_hint("Cast it: CAST(NULL AS BIGINT)."));
        }
    }
    Ok(())
}

fn key_columns(create: &CreateStream, schema: &Schema) -> Result<Vec<usize>> {
    let Some(key) = &create.primary_key else { return Ok(vec![]) };
    let place = |name: &String| {
        schema.index_of(name).map_err(|_| {
            Error::invalid(format!("PRIMARY KEY: stream \"{}\" has no column \"{name}\"", create.name.name))
        })
    };
    key.iter().map(place).collect()
}

/// The column that tells a derived stream's event time: one that is it already, else a window's end.
fn event_column(time: &[Option<TimeProperty>]) -> Option<usize> {
    let event = time.iter().position(|t| matches!(t, Some(TimeProperty::Event { .. })));
    event.or_else(|| time.iter().position(|t| matches!(t, Some(TimeProperty::Window { end: true, .. }))))
}

/// The streams that a plan reads.
pub(super) fn streams_of(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut names = vec![];
    plan.apply(|p| {
        if let LogicalPlan::TableScan(scan) = p
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(table) = provider.downcast_ref::<StreamTable>()
        {
            names.push(crate::plan::lower::ScanTable::stream(table).name().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    names.sort();
    names.dedup();
    Ok(names)
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
