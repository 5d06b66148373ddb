//! Windows as a node of the logical plan: `TUMBLE`, `HOP`, `CUMULATE` and `SESSION` append `window_start` and
//! `window_end` to each row, once for each window the row is in.
//!
//! ```text
//! HOP(t, ts, INTERVAL '5 s', INTERVAL '10 s')      ts = 00:00:07
//!   -> [00:00:00, 00:00:10)  [00:00:05, 00:00:15)
//! ```
//! A row without a time is in no window. In which session a row is the others of its partition tell.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, ExprSchema, TableReference};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use millstream_engine::operator::gap::Sessions;
use millstream_engine::operator::window::Length;

use crate::error::{Error, Result};

/// The column with a window's first instant.
pub const WINDOW_START: &str = "window_start";
/// The column with the instant after a window's last.
pub const WINDOW_END: &str = "window_end";

/// More windows for one row than this are taken for a mistake of units.
const MOST_WINDOWS_PER_ROW: i64 = 10_000;

/// Longer windows are taken for a mistake too: all arithmetic with times and lengths stays in range.
const MOST_MONTHS: i64 = 12 * 10_000;

/// A length of time: fixed, or by the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowLength {
    /// Microseconds.
    Micros(i64),
    /// Calendar months.
    Months(i32),
}

/// Which windows there are. All begin at 1970-01-01 00:00 plus `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowSpec {
    /// Windows of `size`, side by side.
    Tumble {
        /// Length of a window.
        size: WindowLength,
        /// Shifts all windows.
        offset: WindowLength,
    },
    /// Windows of `size`, one beginning every `slide`.
    Hop {
        /// From one window's start to the next.
        slide: WindowLength,
        /// Length of a window.
        size: WindowLength,
        /// Shifts all windows.
        offset: WindowLength,
    },
    /// Windows that share a start every `size` and end after one, two, three … `step`s.
    Cumulate {
        /// How much each window is longer than the one before.
        step: WindowLength,
        /// Length of the longest.
        size: WindowLength,
        /// Shifts all windows.
        offset: WindowLength,
    },
    /// As long as rows of a partition come without a gap.
    Session {
        /// A row that comes so much later than the one before begins another window.
        gap: WindowLength,
        /// One that comes so much later than the first does too.
        most: Option<WindowLength>,
    },
}

impl WindowLength {
    /// The number, whatever it counts.
    pub fn count(self) -> i64 {
        match self {
            WindowLength::Micros(micros) => micros,
            WindowLength::Months(months) => i64::from(months),
        }
    }

    /// Whether two lengths can be compared and divided.
    pub fn same_unit(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

impl fmt::Display for WindowLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match *self {
            WindowLength::Months(n) => (i64::from(n), "month"),
            WindowLength::Micros(n) => {
                let units = [
                    (86_400_000_000, "day"),
                    (3_600_000_000, "hour"),
                    (60_000_000, "minute"),
                    (1_000_000, "second"),
                    (1_000, "millisecond"),
                    (1, "microsecond"),
                ];
                let (divisor, unit) =
                    units.into_iter().find(|(d, _)| n != 0 && n % d == 0).unwrap_or((1_000_000, "second"));
                (n / divisor, unit)
            }
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

impl WindowSpec {
    /// The function's name in SQL.
    pub fn function(&self) -> &'static str {
        match self {
            WindowSpec::Tumble { .. } => "TUMBLE",
            WindowSpec::Hop { .. } => "HOP",
            WindowSpec::Cumulate { .. } => "CUMULATE",
            WindowSpec::Session { .. } => "SESSION",
        }
    }

    /// Length of the longest window; the gap of sessions.
    pub fn size(&self) -> WindowLength {
        match *self {
            WindowSpec::Tumble { size, .. } | WindowSpec::Hop { size, .. } | WindowSpec::Cumulate { size, .. } => size,
            WindowSpec::Session { gap, .. } => gap,
        }
    }

    /// Slide or step; the size, or the gap, where there is neither.
    pub fn step(&self) -> WindowLength {
        match *self {
            WindowSpec::Tumble { size, .. } => size,
            WindowSpec::Hop { slide, .. } => slide,
            WindowSpec::Cumulate { step, .. } => step,
            WindowSpec::Session { gap, .. } => gap,
        }
    }

    /// How far all windows are shifted.
    pub fn offset(&self) -> WindowLength {
        match *self {
            WindowSpec::Tumble { offset, .. }
            | WindowSpec::Hop { offset, .. }
            | WindowSpec::Cumulate { offset, .. } => offset,
            WindowSpec::Session { .. } => WindowLength::Micros(0),
        }
    }

    /// How many windows a row can be in, at most.
    pub fn windows_per_row(&self) -> usize {
        let (size, step) = (self.size().count(), self.step().count().max(1));
        let windows = size / step + i64::from(size % step != 0);
        usize::try_from(windows).unwrap_or(1).max(1)
    }

    /// Whether these windows can be, over a column of `time_type`. Errors name the argument.
    pub fn check(&self, time_type: &DataType) -> Result<()> {
        let function = self.function();
        let (size, step, offset) = (self.size(), self.step(), self.offset());
        let (size_name, step_name) = match self {
            WindowSpec::Hop { .. } => ("size", "slide"),
            WindowSpec::Session { .. } => ("gap", "gap"),
            _ => ("size", "step"),
        };
        let most = if let WindowSpec::Session { most, .. } = self { most.map(|most| ("max", most)) } else { None };
        for (name, length) in [(size_name, size), (step_name, step)].into_iter().chain(most) {
            if length.count() <= 0 {
                return Err(Error::invalid(format!("argument \"{name}\" of {function} must be above zero")));
            }
        }
        for (name, length) in [(size_name, size), ("offset", offset)].into_iter().chain(most) {
            let month = if matches!(length, WindowLength::Months(_)) { 1 } else { 31 * 86_400_000_000 };
            if length.count().unsigned_abs() > MOST_MONTHS.unsigned_abs() * month {
                return Err(Error::invalid(format!("argument \"{name}\" of {function} is above 10,000 years")));
            }
        }
        if !size.same_unit(step) {
            return Err(Error::invalid(format!(
                "arguments \"{step_name}\" and \"{size_name}\" of {function} mix months with shorter units"
            ))
            .with_hint("Months differ in length: write both in months, or both in days or less."));
        }
        if matches!(offset, WindowLength::Months(_)) && !offset.same_unit(size) {
            return Err(Error::invalid(format!(
                "argument \"offset\" of {function} is in months, which differ in length"
            ))
            .with_hint("Write it in days or less."));
        }
        match self {
            WindowSpec::Hop { .. } if step > size => {
                return Err(Error::invalid("argument \"slide\" of HOP must not be longer than \"size\"").with_hint(
                    "The order is slide, then size. Rows between windows would be lost: leave them out with WHERE.",
                ));
            }
            WindowSpec::Cumulate { .. } if size.count() % step.count() != 0 => {
                return Err(Error::invalid("argument \"size\" of CUMULATE must be a multiple of \"step\"")
                    .with_hint("The order is step, then size."));
            }
            _ => {}
        }
        if size.count() / step.count() > MOST_WINDOWS_PER_ROW {
            let message = format!("{function} would put each row into {} windows", size.count() / step.count());
            return Err(Error::unsupported(message).with_hint(format!(
                "Write a longer \"{step_name}\": at most {MOST_WINDOWS_PER_ROW} windows share a row."
            )));
        }
        let lengths = [(size_name, size), (step_name, step), ("offset", offset)];
        self.check_precision(time_type, lengths.into_iter().chain(most))
    }

    /// A window's bounds must be values of the time column's type.
    fn check_precision<'a>(
        &self,
        time_type: &DataType,
        lengths: impl Iterator<Item = (&'a str, WindowLength)>,
    ) -> Result<()> {
        let tick = match time_type {
            DataType::Timestamp(TimeUnit::Second, _) => 1_000_000,
            DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000,
            _ => 1,
        };
        for (name, length) in lengths {
            if let WindowLength::Micros(micros) = length
                && micros % tick != 0
            {
                let function = self.function();
                return Err(Error::invalid(format!("argument \"{name}\" of {function} is finer than the time column"))
                    .with_hint("Cast the column to TIMESTAMP, which has microseconds."));
            }
        }
        Ok(())
    }
}

impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WindowSpec::Tumble { size, .. } => write!(f, "TUMBLE size={size}")?,
            WindowSpec::Hop { slide, size, .. } => write!(f, "HOP slide={slide}, size={size}")?,
            WindowSpec::Cumulate { step, size, .. } => write!(f, "CUMULATE step={step}, size={size}")?,
            WindowSpec::Session { gap, most } => {
                write!(f, "SESSION gap={gap}")?;
                most.map_or(Ok(()), |most| write!(f, ", max={most}"))?;
            }
        }
        let offset = self.offset();
        if offset.count() != 0 { write!(f, ", offset={offset}") } else { Ok(()) }
    }
}

/// The node: its input's columns, then `window_start` and `window_end` in the time column's type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowAssign {
    input: LogicalPlan,
    time_column: Column,
    spec: WindowSpec,
    partition: Vec<Column>,
    schema: DFSchemaRef,
}

impl WindowAssign {
    /// Assigns the rows of `input` to the windows of `spec` by `time_column`, which must be a timestamp; to sessions within each
    /// `partition`.
    pub fn try_new(input: LogicalPlan, time_column: Column, spec: WindowSpec, partition: Vec<Column>) -> Result<Self> {
        let function = spec.function();
        let field = Arc::clone(input.schema().field_from_column(&time_column)?);
        let time_type = field.data_type();
        if !matches!(time_type, DataType::Timestamp(..)) {
            let message = format!("column \"{}\" in {function} is not a timestamp", time_column.name);
            return Err(Error::invalid(message).with_hint("Windows are over a TIMESTAMP or TIMESTAMPTZ."));
        }
        spec.check(time_type)?;
        for column in &partition {
            let data_type = input.schema().field_from_column(column)?.data_type().clone();
            if data_type.is_floating() || data_type.is_nested() {
                let what = if data_type.is_nested() { "is nested" } else { "has floats" };
                let message = format!("column \"{}\" in PARTITION BY of {function} {what}", column.name);
                return Err(Error::unsupported(message)
                    .with_hint("Partition by a number without a fraction, a text or a time, made in a subquery."));
            }
        }
        let schema = window_schema(input.schema(), time_column.relation.as_ref(), time_type, function)?;
        Ok(WindowAssign { input, time_column, spec, partition, schema: Arc::new(schema) })
    }

    /// What the rows come from.
    pub fn input(&self) -> &LogicalPlan {
        &self.input
    }

    /// The column with the time of a row.
    pub fn time_column(&self) -> &Column {
        &self.time_column
    }

    /// By which rows are told apart before they are put into sessions.
    pub fn partition(&self) -> &[Column] {
        &self.partition
    }

    /// The places of the time column and of those of the partition among the input's columns.
    pub fn places(&self) -> Result<(usize, Vec<usize>)> {
        let place = |column: &Column| Ok(self.input.schema().index_of_column(column)?);
        Ok((place(&self.time_column)?, self.partition.iter().map(place).collect::<Result<_>>()?))
    }

    /// The windows.
    pub fn spec(&self) -> WindowSpec {
        self.spec
    }
}

/// A length as the engine has it.
pub fn length(length: WindowLength) -> Length {
    match length {
        WindowLength::Micros(us) => Length::Micros(us),
        WindowLength::Months(n) => Length::Months(n),
    }
}

/// Sessions as the engine has them, if `spec` is of such.
pub fn sessions(spec: WindowSpec) -> Option<Sessions> {
    match spec {
        WindowSpec::Session { gap, most } => Some(Sessions { gap: length(gap), most: most.map(length) }),
        _ => None,
    }
}

/// The two columns that a window function appends.
pub fn window_fields(time_type: &DataType) -> [FieldRef; 2] {
    [WINDOW_START, WINDOW_END].map(|name| Arc::new(Field::new(name, time_type.clone(), false)))
}

/// The window columns belong to the same relation as the time column, so that `FROM TUMBLE(a, …), TUMBLE(b, …)`
/// can tell `a.window_start` from `b.window_start`.
fn window_schema(
    input: &DFSchema,
    relation: Option<&TableReference>,
    time_type: &DataType,
    function: &str,
) -> Result<DFSchema> {
    let mut fields: Vec<(Option<TableReference>, FieldRef)> =
        input.iter().map(|(relation, field)| (relation.cloned(), Arc::clone(field))).collect();
    for name in [WINDOW_START, WINDOW_END] {
        if fields.iter().any(|(_, field)| field.name() == name) {
            return Err(Error::invalid(format!("the input of {function} has a column \"{name}\" already"))
                .with_hint("Rename it in a subquery: (SELECT window_start AS first_start, … FROM …)."));
        }
    }
    fields.extend(window_fields(time_type).map(|field| (relation.cloned(), field)));
    // The input's keys are not kept: a row of it may be here several times.
    Ok(DFSchema::new_with_metadata(fields, input.metadata().clone())?)
}

impl PartialOrd for WindowAssign {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.input.partial_cmp(&other.input) {
            Some(Ordering::Equal) => (&self.time_column, self.spec, &self.partition).partial_cmp(&(
                &other.time_column,
                other.spec,
                &other.partition,
            )),
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for WindowAssign {
    fn name(&self) -> &str {
        "WindowAssign"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        [&self.time_column].into_iter().chain(&self.partition).cloned().map(Expr::Column).collect()
    }

    /// A filter on the input's columns takes all windows of a row or none: it may go below. One of sessions only if it takes all rows
    /// of a partition.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let bounds = [WINDOW_START, WINDOW_END].map(str::to_owned);
        if !matches!(self.spec, WindowSpec::Session { .. }) {
            return bounds.into();
        }
        let is_key = |name: &String| self.partition.iter().any(|column| column.name == *name);
        let others = self.input.schema().fields().iter().map(|f| f.name().clone()).filter(|name| !is_key(name));
        others.chain(bounds).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowAssign: {}, {}", self.time_column.flat_name(), self.spec)?;
        if !self.partition.is_empty() {
            let names: Vec<_> = self.partition.iter().map(Column::flat_name).collect();
            write!(f, ", partition=({})", names.join(", "))?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let column = |expr: Expr| match expr {
            Expr::Column(column) => Ok(column),
            _ => Err(DataFusionError::Internal("a window's time or partition is not a column".to_owned())),
        };
        let mut columns = exprs.into_iter().map(column).collect::<DfResult<Vec<_>>>()?;
        if columns.is_empty() {
            return Err(DataFusionError::Internal("a window has no time".to_owned()));
        }
        let time = columns.remove(0);
        let [input] = <[LogicalPlan; 1]>::try_from(inputs)
            .map_err(|_| DataFusionError::Internal("a window has one input".to_owned()))?;
        Ok(WindowAssign::try_new(input, time, self.spec, columns)?)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let inputs = self.input.schema().fields().len();
        let (time, partition) = self.places().ok()?;
        let mut needed: Vec<_> = output_columns.iter().copied().filter(|i| *i < inputs).collect();
        needed.extend([time].into_iter().chain(partition));
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
