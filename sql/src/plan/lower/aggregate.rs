//! `GROUP BY` as operators: what closes groups, panes, and the two phases.

use std::sync::Arc;

use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Aggregate as Plan, Expr};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use millstream_engine::expr::harden_aggregate;
use millstream_engine::graph::{Edge, Exchange, NodeId, NodeKind};
use millstream_engine::operator::aggregate::{Aggregate, Call, EmitMode, Phase, TimeColumn, TimeKey};
use millstream_engine::operator::window::{Closer, WindowAssign, WindowSpec};

use super::{Lowering, Output, TimeProperty, column_of};
use crate::error::{Error, Result};

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, input: Output, plan: &Plan) -> Result<Output> {
        let from = plan.input.schema();
        if plan.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            return Err(Error::unsupported("GROUPING SETS, ROLLUP and CUBE cannot run continuously yet")
                .with_hint("Write one GROUP BY for each set and combine them with UNION ALL."));
        }
        let schema = Arc::clone(plan.schema.inner());
        let mut groups = Vec::with_capacity(plan.group_expr.len());
        let mut times = Vec::with_capacity(plan.group_expr.len());
        for (i, e) in plan.group_expr.iter().enumerate() {
            if !input.append_only {
                super::refuse_volatile(e)?;
            }
            groups.push((self.physical(e, from)?, Arc::new(schema.field(i).clone())));
            times.push(self.time_of(e, from, &input)?);
        }
        if !input.append_only {
            // What an argument, a FILTER or an order was when a row came must be the same when it goes.
            plan.aggr_expr.iter().try_for_each(super::refuse_volatile)?;
        }
        let calls = plan.aggr_expr.iter().map(|e| self.call(e, plan)).collect::<Result<Vec<_>>>()?;
        let computed = plan.group_expr.iter().filter(|e| column_of(e, from).is_none());
        self.note_uses(computed.chain(&plan.aggr_expr), from, &input);
        let time = self.time_key(&times);
        if self.emit == EmitMode::OnClose && time.is_none() {
            return Err(self.never_closes(plan, &input));
        }
        let time = time.map(|t| self.with_panes(t, &times, &input)).transpose()?;
        self.closed_something |= time.is_some();
        self.register_closers(&time, &times);
        let spec = Aggregate {
            groups,
            calls,
            time,
            phase: Phase::Single,
            emit: self.emit,
            append_only: input.append_only,
            input: self.graph.schema(input.node),
            output: schema,
            units: Default::default(),
        };
        Ok(self.add_aggregate(spec, input, times))
    }

    fn call(&self, expr: &Expr, plan: &Plan) -> Result<Call> {
        super::refuse_unstable(expr)?;
        let from = plan.input.schema();
        let context = PhysicalPlanningContext::default();
        let props = self.state.execution_props();
        let lowered = LoweredAggregateBuilder::new(expr, from, from.as_arrow(), props, &context).build()?;
        // What some functions cannot take they say only here.
        lowered.aggregate.create_accumulator()?;
        let (function, filter) = harden_aggregate(&lowered.aggregate, lowered.filter, from.as_arrow())?;
        Ok(Call { function, filter })
    }

    /// Which group columns close, by what they tell of event time.
    fn time_key(&self, times: &[Option<TimeProperty>]) -> Option<TimeKey> {
        let mut columns = vec![];
        let mut windows: Option<WindowSpec> = None;
        for (i, t) in times.iter().enumerate() {
            let Some(TimeProperty::Window { windows: w, end, .. }) = t else { continue };
            if windows.is_none_or(|have| have == *w) {
                windows = Some(*w);
                columns.push((i, if *end { TimeColumn::End } else { TimeColumn::Start }));
            }
        }
        // The end tells all windows apart, the start all but those of CUMULATE.
        columns.sort_by_key(|(_, kind)| !matches!(kind, TimeColumn::End));
        let tells = !matches!(
            (columns.first(), windows),
            (Some((_, TimeColumn::Start)), Some(WindowSpec::Cumulate { .. })) | (None, _)
        );
        if tells {
            return Some(TimeKey { columns, windows, panes: false });
        }
        times.iter().enumerate().find_map(|(i, t)| match t {
            Some(TimeProperty::Function { expr, time, .. }) => {
                let kind = TimeColumn::Function { expr: expr.clone(), time: time.clone() };
                Some(TimeKey { columns: vec![(i, kind)], windows: None, panes: false })
            }
            Some(TimeProperty::Event { scans }) => {
                let time = scans.first().and_then(|s| self.event_type(*s))?;
                let expr = Arc::new(datafusion::physical_expr::expressions::Column::new("t", 0));
                let kind = TimeColumn::Function { expr, time };
                Some(TimeKey { columns: vec![(i, kind)], windows: None, panes: false })
            }
            _ => None,
        })
    }

    fn event_type(&self, scan: NodeId) -> Option<arrow::datatypes::DataType> {
        match &self.graph.nodes.get(scan)?.kind {
            NodeKind::Source(s) => s.time.as_ref().map(|t| s.schema.field(t.column).data_type().clone()),
            _ => None,
        }
    }

    /// Lets windows come as panes where nothing but this aggregate sees their bounds.
    fn with_panes(&mut self, time: TimeKey, times: &[Option<TimeProperty>], input: &Output) -> Result<TimeKey> {
        let Some(TimeProperty::Window { assign, windows, .. }) = &times[time.columns[0].0] else { return Ok(time) };
        let (assign, windows) = (*assign, *windows);
        let usable = self.emit == EmitMode::OnClose
            && assign != usize::MAX
            && !self.looked_at.contains(&assign)
            && self.is_plain_chain(assign, input.node);
        let Some(panes) = windows.panes().filter(|_| usable) else { return Ok(time) };
        let NodeKind::Operator(_) = &self.graph.nodes[assign].kind else { return Ok(time) };
        let from = self.graph.nodes[assign].inputs[0].from;
        let Some(at) = self.assign_columns.get(&assign).copied() else { return Ok(time) };
        let spec = WindowAssign::new(&self.graph.schema(from), at, windows, Some(panes))?;
        self.graph.nodes[assign].kind = NodeKind::Operator(Arc::new(spec));
        Ok(TimeKey { panes: true, ..time })
    }

    /// Tells the scans what closes, so that they know which rows are late.
    fn register_closers(&mut self, time: &Option<TimeKey>, times: &[Option<TimeProperty>]) {
        let Some(time) = time else { return };
        let Some(property) = &times[time.columns[0].0] else { return };
        let closer = match (&time.columns[0].1, time.windows) {
            (TimeColumn::Function { expr, .. }, _) => Closer::Function(expr.clone()),
            (_, Some(windows)) => Closer::Window(windows),
            _ => return,
        };
        for scan in property.scans() {
            if let NodeKind::Source(s) = &mut self.graph.nodes[*scan].kind
                && let Some(t) = &mut s.time
            {
                t.closers.push(closer.clone());
            }
        }
    }

    /// Adds the operators: one, or two with an exchange between.
    fn add_aggregate(&mut self, spec: Aggregate, input: Output, times: Vec<Option<TimeProperty>>) -> Output {
        let keys = spec.groups.len();
        let columns = spec.output.fields().len();
        let on_close = spec.emit == EmitMode::OnClose;
        let (node, parallelism) = if input.parallelism == 1 {
            (self.operator(Arc::new(spec), &input), 1)
        } else {
            let partial = Aggregate { phase: Phase::Partial, ..spec.clone() };
            let routing = partial.routing_columns();
            let from = self.operator(Arc::new(partial), &input);
            let (exchange, parallelism) = match routing.is_empty() {
                true => (Exchange::Single, 1),
                false => (Exchange::Hash(routing), input.parallelism),
            };
            let spec = Aggregate { phase: Phase::Final, ..spec };
            let edge = Edge { from, exchange };
            (self.graph.add(NodeKind::Operator(Arc::new(spec)), vec![edge], parallelism), parallelism)
        };
        let mut time: Vec<Option<TimeProperty>> = times
            .into_iter()
            .map(|t| match t {
                // What a window's rows have become has the window's bounds, whoever looks at them.
                Some(TimeProperty::Window { windows, end, scans, .. }) => {
                    Some(TimeProperty::Window { assign: usize::MAX, windows, end, scans })
                }
                // Values of a function of time are themselves no event time.
                _ => None,
            })
            .collect();
        time.resize(columns, None);
        Output { node, parallelism, append_only: on_close, time, key: Some((0..keys).collect()) }
    }

    fn never_closes(&self, plan: &Plan, input: &Output) -> Error {
        let untimed = self.graph.nodes.iter().find_map(|n| match &n.kind {
            NodeKind::Source(s) if s.time.is_none() => Some(s.stream.clone()),
            _ => None,
        });
        let windowed = plan.input.schema().fields().iter().any(|f| f.name() == "window_end");
        if let Some(stream) = untimed.filter(|_| windowed) {
            return Error::invalid(format!("stream \"{stream}\" has no watermark"))
                .with_hint("Add WATERMARK FOR ts AS ts - INTERVAL '5 seconds' to its columns, or write EMIT CHANGES.");
        }
        let _ = input;
        let keys: Vec<String> = plan.group_expr.iter().map(|e| e.schema_name().to_string()).collect();
        let by = if keys.is_empty() { "without GROUP BY".to_owned() } else { format!("by {}", keys.join(", ")) };
        Error::invalid(format!("EMIT ON WINDOW CLOSE: groups {by} never close"))
            .with_hint("Group by window_start and window_end of a window over the event time, or write EMIT CHANGES.")
    }
}
