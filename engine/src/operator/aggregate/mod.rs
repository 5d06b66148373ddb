//! `GROUP BY`: aggregates over groups, over windows, or over everything.
//!
//! Three operators share one description. *Partial* runs before a hash exchange: it adds up one epoch
//! and emits one state per key it saw. *Closing* keeps a table per window (or pane) and emits each group
//! once, when the watermark closes it. *Updating* keeps one table (one per window where there are
//! windows) and emits, per epoch and group touched, the old row with weight -1 and the new one with +1.
//!
//! ```text
//! SELECT k, count(*) … EMIT CHANGES       SELECT k, window_end, count(*) … EMIT ON WINDOW CLOSE
//! epoch 1: a a b   ->  +(a,2) +(b,1)      epoch 1: (a, 12 s), watermark 8 s    ->  nothing
//! epoch 2: a       ->  -(a,2) +(a,3)      epoch 2: nothing,   watermark 20 s   ->  +(a, 20 s, 1)
//! ```
//! Input with weights below 0 takes rows back; a group without rows vanishes.

mod boxed;
mod call;
mod closing;
mod distinct;
mod native;
mod partial;
mod rows;
mod said;
mod seen;
mod sliding;
pub mod sum;
mod tables;
#[cfg(test)]
mod tests;
mod updating;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;
use datafusion_physical_expr::expressions::Column;

use call::Kind;

use super::window::WindowSpec;
use super::{BuildContext, Operator, OperatorSpec, Output, StateBound};
use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::expr::Failures;
use crate::format::sql_name;
use crate::spread::Needed;
use crate::state::accumulate::{Accumulate, Touch};
use crate::state::group_table::{GroupTable, state_column, state_schema};
use crate::state::runs::Run;

/// An aggregate call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function with its arguments.
    pub function: Arc<AggregateFunctionExpr>,
    /// `FILTER (WHERE …)`.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
}

/// Which of the group columns tells when a group closes, and how.
#[derive(Clone, Debug)]
pub struct TimeKey {
    /// The group columns that depend on event time alone, with what each is. The first is the one that
    /// tells windows apart.
    pub columns: Vec<(usize, TimeColumn)>,
    /// The window function behind `window_start` and `window_end`; `None` for other functions of time.
    pub windows: Option<WindowSpec>,
    /// Whether rows come with their panes' bounds instead of their windows'.
    pub panes: bool,
}

impl TimeKey {
    /// Whether the window tells the value of group column `column`, so that it is no key within one.
    pub fn tells(&self, column: usize) -> bool {
        self.columns.iter().any(|(c, kind)| *c == column && !matches!(kind, TimeColumn::SessionEnd))
    }

    /// Whether all groups close at the end of the epoch in which their rows come: sessions that are said as they close.
    fn settles(&self, emit: EmitMode) -> bool {
        emit == EmitMode::OnClose && matches!(self.columns.first(), Some((_, TimeColumn::SessionEnd)))
    }
}

/// The window of all groups that close at the end of their epoch.
const SETTLED: i64 = i64::MAX;

/// So many groups are emitted as one batch.
const PIECE: u32 = 1 << 15;

/// The integer of the group whose function of time is null: only the end of the input closes it.
const NULL_GROUP: i64 = i64::MIN;

/// A group column that depends on event time alone.
#[derive(Clone, Debug)]
pub enum TimeColumn {
    /// `window_start`.
    Start,
    /// `window_end`.
    End,
    /// `window_end` of sessions, which is anywhere: it is a key as well, and groups that end near each other go together.
    SessionEnd,
    /// A monotone function of the event time, given as an expression over one column of that time's type.
    Function {
        /// The function.
        expr: Arc<dyn PhysicalExpr>,
        /// The type of the event time.
        time: DataType,
    },
}

/// Where in a two-phase aggregation this one stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Rows in, results out.
    Single,
    /// Rows in, states out, once an epoch.
    Partial,
    /// States in, results out.
    Final,
}

/// When results are emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitMode {
    /// Once, when the watermark closes their group.
    OnClose,
    /// Per epoch, as changes.
    Changes,
}

/// The description: see the module's text.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// `GROUP BY` expressions over the input, with the fields they become.
    pub groups: Vec<(Arc<dyn PhysicalExpr>, Arc<Field>)>,
    /// The aggregates, in order of output.
    pub calls: Vec<Call>,
    /// What closes groups, if anything does.
    pub time: Option<TimeKey>,
    /// The group columns by whose hash groups are spread over tasks, and their state is cut: some or all of those that are no
    /// times. `None` for all, in their order.
    pub cut: Option<Vec<usize>>,
    /// The phase.
    pub phase: Phase,
    /// When results are emitted.
    pub emit: EmitMode,
    /// Whether the input only grows.
    pub append_only: bool,
    /// The schema of the input rows (before the partial phase).
    pub input: SchemaRef,
    /// The group columns, then the aggregates.
    pub output: SchemaRef,
    /// Which calls share an accumulator; found at first use.
    pub units: std::sync::OnceLock<Vec<Vec<usize>>>,
}

impl Aggregate {
    /// The group columns that are not times, by position.
    pub fn plain_keys(&self) -> Vec<usize> {
        let timed = |i: &usize| self.time.as_ref().is_some_and(|t| t.tells(*i));
        (0..self.groups.len()).filter(|i| !timed(i)).collect()
    }

    /// The input column that is group column `key`, where that is not computed.
    fn key_column(&self, key: usize) -> Option<usize> {
        let (expr, _) = self.groups.get(key)?;
        expr.downcast_ref::<Column>().map(Column::index)
    }

    /// The schema of the keys within a window.
    fn key_schema(&self) -> Schema {
        Schema::new(self.plain_keys().into_iter().map(|i| self.groups[i].1.clone()).collect::<Vec<_>>())
    }

    fn state_types(&self) -> Result<Vec<Vec<DataType>>> {
        self.units()?.iter().map(|u| self.calls[u[0]].state_types(self)).collect()
    }

    /// The columns of states that an older build did not write.
    fn new_state(&self) -> Result<Vec<String>> {
        let mut names = vec![];
        for (i, unit) in self.units()?.iter().enumerate() {
            let call = &self.calls[unit[0]];
            let all = call.state_types(self)?.len();
            names.extend((all - call.new_state(self)?..all).map(|j| state_column(i, j)));
        }
        Ok(names)
    }

    /// The calls by accumulator: `count(DISTINCT x)` with several filters over one `x` share one.
    fn units(&self) -> Result<&[Vec<usize>]> {
        if self.units.get().is_none() {
            // Another thread that was faster has found the same.
            let _ = self.units.set(self.find_units()?);
        }
        Ok(self.units.get().map_or(&[], |u| u))
    }

    fn find_units(&self) -> Result<Vec<Vec<usize>>> {
        let mut units: Vec<Vec<usize>> = vec![];
        for (i, call) in self.calls.iter().enumerate() {
            let shares = matches!(call.kind(self)?, Kind::Seen(_));
            let place = units.iter().position(|u| {
                let first = &self.calls[u[0]];
                shares
                    && u.len() < seen::MOST_FILTERS
                    && matches!(first.kind(self), Ok(Kind::Seen(_)))
                    && first.function.expressions() == call.function.expressions()
            });
            match place {
                Some(at) => units[at].push(i),
                None => units.push(vec![i]),
            }
        }
        Ok(units)
    }

    fn accumulators(&self) -> Result<Vec<Box<dyn Accumulate>>> {
        self.units()?.iter().map(|u| self.calls[u[0]].accumulator(self, u.len())).collect()
    }

    /// Columns in the order of accumulators as columns in the order of calls.
    fn in_order(&self, columns: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
        let order = self.units()?.iter().flatten().copied();
        let mut placed: Vec<(usize, ArrayRef)> = order.zip(columns).collect();
        placed.sort_by_key(|(call, _)| *call);
        Ok(placed.into_iter().map(|(_, column)| column).collect())
    }

    /// The schema of states of one window.
    fn table_schema(&self) -> Result<SchemaRef> {
        Ok(state_schema(&self.key_schema(), &self.state_types()?, self.append_only))
    }

    /// The schema of states with their window: what the partial phase emits.
    fn timed_schema(&self) -> Result<SchemaRef> {
        let table = self.table_schema()?;
        let mut fields = vec![Arc::new(Field::new("w", DataType::Int64, false))];
        fields.extend(table.fields().iter().cloned());
        Ok(Arc::new(Schema::new(fields)))
    }

    /// The places among the plain keys of those by whose hash groups are spread.
    fn cut_keys(&self) -> Vec<usize> {
        let plain = self.plain_keys();
        match &self.cut {
            None => (0..plain.len()).collect(),
            Some(cut) => cut.iter().filter_map(|column| plain.iter().position(|key| key == column)).collect(),
        }
    }

    /// An empty table.
    fn table(&self) -> Result<GroupTable> {
        GroupTable::new(&self.key_schema(), self.accumulators()?, self.table_schema()?, self.append_only)
    }
}

impl OperatorSpec for Aggregate {
    fn name(&self) -> &'static str {
        match (self.phase, self.emit) {
            (Phase::Partial, _) => "aggregate partial",
            (_, EmitMode::OnClose) => "aggregate on close",
            (_, EmitMode::Changes) => "aggregate updating",
        }
    }

    fn describe(&self) -> String {
        let keys: Vec<_> = self.groups.iter().map(|(_, f)| f.name().as_str()).collect();
        let calls: Vec<_> = self.calls.iter().map(|c| c.function.name()).collect();
        let calls = if calls.is_empty() { "distinct".to_owned() } else { calls.join(", ") };
        if keys.is_empty() { calls } else { format!("{calls} by {}", keys.join(", ")) }
    }

    fn schema(&self) -> SchemaRef {
        match self.phase {
            // The schema is known to be right: `build` has made the same one.
            Phase::Partial => self.timed_schema().unwrap_or_else(|_| self.output.clone()),
            _ => self.output.clone(),
        }
    }

    fn state_bound(&self) -> StateBound {
        if self.phase == Phase::Partial {
            return StateBound::Epoch;
        }
        if self.time.is_some() {
            return StateBound::Watermark;
        }
        let keys: Vec<_> = self.groups.iter().map(|(_, f)| f.name().as_str()).collect();
        StateBound::Keys(keys.join(", "))
    }

    fn fingerprint(&self) -> Option<String> {
        if self.phase == Phase::Partial {
            return None;
        }
        let calls: Vec<_> = self.calls.iter().map(|call| call.fingerprint(self)).collect();
        let keys: Vec<_> = self.groups.iter().map(|(_, f)| sql_name(f.data_type())).collect();
        let rows = if self.append_only { "rows that stay" } else { "rows that may go" };
        let time = match &self.time {
            None => String::new(),
            Some(time) if time.panes => ", by pane".to_owned(),
            Some(time) => format!(", by key {}", time.columns.first().map_or(0, |(column, _)| column + 1)),
        };
        let cut = match &self.cut {
            Some(cut) if *cut != self.plain_keys() => {
                let columns: Vec<_> = cut.iter().map(|column| (column + 1).to_string()).collect();
                format!(", spread by key {}", columns.join(", "))
            }
            _ => String::new(),
        };
        Some(format!("({}) by ({}) of {rows}{time}{cut}", calls.join(", "), keys.join(", ")))
    }

    fn needs(&self, _port: usize) -> Needed {
        match self.phase {
            Phase::Partial => Needed::Anywhere,
            // Behind the window in the partial phase's output.
            Phase::Final => Needed::hash(self.cut_keys().into_iter().map(|key| key + 1).collect()),
            Phase::Single => {
                let plain = self.plain_keys();
                let columns = self.cut_keys().into_iter().map(|key| self.key_column(plain[key])).collect::<Option<_>>();
                columns.map_or(Needed::Single, Needed::hash)
            }
        }
    }

    fn place_of(&self, _port: usize, column: usize) -> Option<usize> {
        let keys = self.plain_keys();
        match self.phase {
            Phase::Partial => keys.into_iter().position(|key| self.key_column(key) == Some(column)).map(|key| key + 1),
            Phase::Final => keys.get(column.checked_sub(1)?).copied(),
            Phase::Single => keys.into_iter().find(|key| self.key_column(*key) == Some(column)),
        }
    }

    fn build(&self, context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        let spec = Arc::new(self.clone());
        Ok(match (self.phase, self.emit) {
            (Phase::Partial, _) => Box::new(partial::Partial::new(spec, context)?),
            (_, EmitMode::OnClose) => Box::new(closing::Closing::new(spec, context)?),
            (_, EmitMode::Changes) => Box::new(updating::Updating::new(spec, context)?),
        })
    }
}

/// The evaluated inputs of a batch: times, keys, and per call its arguments and filter.
struct Inputs {
    /// Which window (or pane) each row belongs to; `None` without a time key.
    windows: Option<ArrayRef>,
    keys: Vec<ArrayRef>,
    units: Vec<UnitInput>,
}

/// The input of one accumulator: its arguments, and the filter of each call it serves.
struct UnitInput {
    args: Vec<ArrayRef>,
    filters: Vec<Option<BooleanBuffer>>,
}

impl UnitInput {
    fn touch<'a>(&'a self, slots: &'a [u32], runs: &'a [Run], weights: Option<&'a [i64]>) -> Touch<'a> {
        let keep = if self.filters.len() == 1 { self.filters[0].as_ref() } else { None };
        Touch { slots, weights, keep, filters: &self.filters, runs }
    }
}

impl Aggregate {
    /// Evaluates what the aggregation needs of `changes`. A row on which a key, an argument or a filter fails
    /// counts in no group: it is put aside in `out`, and is not among the changes that are given back.
    fn inputs(&self, changes: Changes, out: &mut Output) -> Result<(Changes, Inputs)> {
        let (inputs, failures) = self.evaluated(changes.rows())?;
        if failures.is_empty() {
            return Ok((changes, inputs));
        }
        let good = out.put_aside(changes, &failures)?;
        let (inputs, failures) = self.evaluated(good.rows())?;
        match failures.error() {
            None => Ok((good, inputs)),
            Some(e) => Err(Error::from(e).context("a row that was good among others")),
        }
    }

    /// The inputs over `rows`, with the rows that fail. Calls that share an argument or a filter share its
    /// column.
    fn evaluated(&self, rows: &RecordBatch) -> Result<(Inputs, Failures)> {
        let mut seen: Vec<(Arc<dyn PhysicalExpr>, ArrayRef)> = vec![];
        let mut failures = Failures::default();
        let mut evaluate = |e: &Arc<dyn PhysicalExpr>| -> Result<ArrayRef> {
            if let Some((_, array)) = seen.iter().find(|(s, _)| s == e) {
                return Ok(array.clone());
            }
            let (array, failed) = crate::expr::evaluate(e, rows)?;
            failures.merge(failed);
            seen.push((e.clone(), array.clone()));
            Ok(array)
        };
        let windows = match &self.time {
            None => None,
            Some(time) => {
                let (column, kind) = &time.columns[0];
                Some(self.window_ids(time, kind, &evaluate(&self.groups[*column].0)?)?)
            }
        };
        let keys = self.plain_keys().iter().map(|i| evaluate(&self.groups[*i].0)).collect::<Result<_>>()?;
        let mut units = Vec::with_capacity(self.calls.len());
        for unit in self.units()? {
            let call = &self.calls[unit[0]];
            let args = if self.counts_all(call) {
                vec![]
            } else {
                call.inputs().iter().map(&mut evaluate).collect::<Result<Vec<_>>>()?
            };
            let mut filters = Vec::with_capacity(unit.len());
            for call in unit.iter().map(|i| &self.calls[*i]) {
                filters.push(match &call.filter {
                    None => None,
                    Some(f) => {
                        let mask = evaluate(f)?;
                        Some(crate::state::accumulate::true_rows(arrow::array::AsArray::as_boolean(&mask)))
                    }
                });
            }
            units.push(UnitInput { args, filters });
        }
        Ok((Inputs { windows, keys, units }, failures))
    }

    /// `count(*)`, written as `count(1)`: no argument to look at.
    fn counts_all(&self, call: &Call) -> bool {
        use datafusion_physical_expr::expressions::Literal;
        let literal = |e: &Arc<dyn PhysicalExpr>| e.downcast_ref::<Literal>().is_some_and(|l| !l.value().is_null());
        call.function.fun().name() == "count"
            && !call.function.is_distinct()
            && call.function.expressions().iter().all(literal)
    }

    /// Windows are told apart by one integer: the window's end (its start, for panes), or the value of
    /// the function of time.
    fn window_ids(&self, time: &TimeKey, kind: &TimeColumn, column: &ArrayRef) -> Result<ArrayRef> {
        use arrow::array::Int64Array;
        let Some(windows) = time.windows else {
            let ids = integers(column)?;
            let named = |id: Option<i64>| id.unwrap_or(NULL_GROUP);
            return Ok(Arc::new(if arrow::array::Array::null_count(&ids) == 0 {
                ids
            } else {
                ids.iter().map(named).map(Some).collect()
            }));
        };
        let micros = crate::time::micros_of(column)?;
        let ids: Int64Array = match (kind, time.panes, windows.panes()) {
            (TimeColumn::Start, true, _) => micros,
            (_, true, Some(panes)) => micros.unary(|end| end - panes.len),
            (TimeColumn::End, _, _) => micros,
            (TimeColumn::SessionEnd, _, _) if time.settles(self.emit) => micros.unary(|_| SETTLED),
            (TimeColumn::SessionEnd, _, _) => {
                let step = windows.near_ends();
                micros.unary(|end| end.saturating_add(step - 1).div_euclid(step).saturating_mul(step))
            }
            // One start names one window, but for CUMULATE, whose windows are told apart by their end: the
            // plan puts `window_end` first there.
            _ => micros.unary(|start| end_of(windows, start)),
        };
        Ok(Arc::new(ids))
    }
}

fn end_of(windows: WindowSpec, start: i64) -> i64 {
    let mut end = start;
    windows.each(start, |s, e| {
        if s == start {
            end = e;
        }
    });
    end
}

/// An orderable column as integers that sort and compare alike.
fn integers(column: &ArrayRef) -> Result<arrow::array::Int64Array> {
    use arrow::array::AsArray;
    if column.data_type().is_temporal() || column.data_type().is_integer() {
        let raw = arrow::compute::cast(column, &DataType::Int64)?;
        return Ok(raw.as_primitive::<Int64Type>().clone());
    }
    if let DataType::Float64 = column.data_type() {
        // The usual order-preserving map from floats to integers.
        let bits = |v: f64| {
            let b = v.to_bits() as i64;
            b ^ (((b >> 63) as u64) >> 1) as i64
        };
        return Ok(column.as_primitive::<Float64Type>().unary(bits));
    }
    Err(Error::unsupported(format!("groups of type {} cannot be closed by time", column.data_type())))
}
