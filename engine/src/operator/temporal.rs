//! Conditions on `now()`: rows that appear, and are taken back, as time passes.
//!
//! ```text
//! WHERE ts > now() - INTERVAL '10 s'
//! now 12:00:00   +(12:00:05)  ->  +(12:00:05)
//! now 12:00:15                ->  -(12:00:05)      with the next epoch, whether or not anything has come
//! ```
//! `now()` is the epoch's own time, which its mark carries and a checkpoint keeps; it never goes back. A condition holds for a row from
//! some time on, or until some time, and both are functions of the row alone. So rows wait until they appear, and those that are there
//! until they go; a row that is taken back is taken back where it is. Rows for which a time is null are left out.
//!
//! Bounded by what is between these times.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_null_array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion_physical_expr::PhysicalExpr;

use super::length::add_months;
use super::{BuildContext, Operator, OperatorSpec, Output, StateBound};
use crate::changes::{Changes, rows_at};
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::expr::{Failures, evaluate};
use crate::format::sql_name;
use crate::spread::Needed;
use crate::state::Handle;
use crate::state::arrangement::{Arrangement, Cursor};
use crate::time::{CLOCK_STEP, micros_of};

/// The column that says with which step of the clock something becomes of a row.
const DUE: &str = "_due";
/// The column that says whether it is there until then.
const THERE: &str = "_there";
/// So many rows of the state are asked for at once.
const ASKED: usize = 1 << 16;
/// No step of the clock.
const NEVER: i64 = i64::MAX;

/// Which way a condition goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It holds from then on.
    From,
    /// It holds until then.
    Until,
}

/// A condition: it begins or ceases to hold when `now()`, so many months and microseconds later, has reached a time of the row.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The time, a timestamp.
    pub time: Arc<dyn PhysicalExpr>,
    /// Which way.
    pub side: Side,
    /// Whether it has to be passed, not only reached.
    pub past: bool,
    /// By how much `now()` is moved: months, then microseconds.
    pub moved: (i32, i64),
}

impl Bound {
    /// The first step of the clock at which the time has been reached.
    fn step(&self, time: i64) -> i64 {
        let (months, micros) = self.moved;
        let wanted = time.saturating_add(i64::from(self.past)).saturating_sub(micros);
        let now = if months == 0 { wanted } else { reached(wanted, months) };
        now.saturating_add(CLOCK_STEP - 1).div_euclid(CLOCK_STEP)
    }
}

/// The first time that is not before `wanted` once it is moved by `months`.
fn reached(wanted: i64, months: i32) -> i64 {
    const DAY: i64 = 86_400_000_000;
    let is_past = |now: i64| add_months(now, months).is_none_or(|moved| moved >= wanted);
    let Some(about) = add_months(wanted, months.saturating_neg()) else { return wanted };
    // Months that end at once may be four days apart.
    let (mut before, mut past) = (about.saturating_sub(4 * DAY), about.saturating_add(4 * DAY));
    while past - before > 1 {
        let middle = before + (past - before) / 2;
        if is_past(middle) { past = middle } else { before = middle }
    }
    past
}

/// The description.
#[derive(Clone, Debug)]
pub struct Temporal {
    /// The conditions, all of which must hold.
    pub bounds: Vec<Bound>,
    /// As they are written, or about so.
    pub text: String,
    /// The columns by whose hash rows are spread: their state is found again by that.
    pub key: Vec<usize>,
    /// The schema of the rows.
    pub schema: SchemaRef,
}

impl OperatorSpec for Temporal {
    fn name(&self) -> &'static str {
        "filter by now"
    }

    fn describe(&self) -> String {
        self.text.clone()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn state_bound(&self) -> StateBound {
        StateBound::Now
    }

    fn fingerprint(&self) -> Option<String> {
        let columns: Vec<_> =
            self.schema.fields().iter().map(|f| format!("{} {}", f.name(), sql_name(f.data_type()))).collect();
        let key: Vec<_> = self.key.iter().map(|k| (k + 1).to_string()).collect();
        Some(format!("rows of ({}) by steps of {CLOCK_STEP} us, spread by ({})", columns.join(", "), key.join(", ")))
    }

    fn needs(&self, _port: usize) -> Needed {
        Needed::hash(self.key.clone())
    }

    fn place_of(&self, _port: usize, column: usize) -> Option<usize> {
        Some(column)
    }

    fn goes_by_clock(&self) -> bool {
        true
    }

    fn build(&self, context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        let nullable = |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_nullable(true));
        let mut fields: Vec<_> = self.schema.fields().iter().map(nullable).collect();
        let due = fields.len();
        fields.push(Arc::new(Field::new(DUE, DataType::Int64, true)));
        fields.push(Arc::new(Field::new(THERE, DataType::Boolean, true)));
        let schema = Arc::new(Schema::new(fields));
        let kept = context.state.open("rows", Arrangement::new(schema.clone(), vec![due])?.owned_by(self.key.clone()));
        Ok(Box::new(Running { spec: self.clone(), kept, schema, steps: None, now: i64::MIN, work: vec![] }))
    }
}

struct Running {
    spec: Temporal,
    /// Rows that wait, by when something becomes of them.
    kept: Handle<Arrangement>,
    schema: SchemaRef,
    /// The steps at which something does, once they are known.
    steps: Option<BTreeSet<i64>>,
    /// The step of the last mark.
    now: i64,
    /// The steps that have been reached, the last first.
    work: Vec<i64>,
}

/// The steps from which on and until which a row is there.
type Span = (i64, i64);

/// What becomes of rows.
#[derive(Default)]
struct Sorted {
    /// Those that are there now, and how often they come.
    said: (Vec<u32>, Vec<i64>),
    /// Those that wait: how often they do, for which step, and whether they are there until then.
    wait: (Vec<u32>, Vec<i64>),
    due: Vec<i64>,
    there: Vec<bool>,
}

impl Sorted {
    /// A row that appears with step `from` and goes with `until`, at step `now`: it is said if it is there, and waits for what comes next.
    fn add(&mut self, row: u32, weight: i64, (from, until): Span, now: i64) {
        if until <= now || from >= until {
            return;
        }
        let is_there = from <= now;
        if is_there {
            self.said.0.push(row);
            self.said.1.push(weight);
        }
        if is_there && until == NEVER {
            return;
        }
        self.wait.0.push(row);
        self.wait.1.push(weight);
        self.due.push(if is_there { until } else { from });
        self.there.push(is_there);
    }
}

impl Running {
    /// From which step to which each row is there, or nothing where a time is null; and the rows of which that can be told.
    fn times(&self, changes: Changes, out: &mut Output) -> Result<(Changes, Vec<Option<Span>>)> {
        let (mut columns, mut failures): (Vec<ArrayRef>, _) = (vec![], Failures::default());
        for bound in &self.spec.bounds {
            let (times, failed) = evaluate(&bound.time, changes.rows())?;
            failures.merge(failed);
            columns.push(times);
        }
        if let Some(good) = failures.good(changes.num_rows()) {
            // Each has a value for the rows on which it did not fail itself.
            columns.clear();
            let changes = changes.filter(&good)?;
            for bound in &self.spec.bounds {
                columns.push(evaluate(&bound.time, changes.rows())?.0);
            }
        }
        let changes = out.put_aside(changes, &failures)?;
        let mut of = vec![Some((i64::MIN, NEVER)); changes.num_rows()];
        for (bound, column) in self.spec.bounds.iter().zip(columns) {
            let times = micros_of(&column)?;
            for (row, of) in of.iter_mut().enumerate() {
                let step = times.is_valid(row).then(|| bound.step(times.value(row)));
                *of = of.zip(step).map(|((from, until), step)| match bound.side {
                    Side::From => (from.max(step), until),
                    Side::Until => (from, until.min(step)),
                });
            }
        }
        Ok((changes, of))
    }

    /// Says and keeps what `sorted` has of `rows`.
    fn settle(&mut self, rows: &RecordBatch, sorted: Sorted, out: &mut Output) -> Result<()> {
        let (said, weights) = sorted.said;
        if !said.is_empty() {
            out.emit(Changes::weighted(rows_at(rows, &said.into())?, weights.into())?);
        }
        let (wait, weights) = sorted.wait;
        if wait.is_empty() {
            return Ok(());
        }
        if let Some(steps) = &mut self.steps {
            steps.extend(&sorted.due);
        }
        let mut columns = rows_at(rows, &wait.into())?.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(sorted.due)));
        columns.push(Arc::new(BooleanArray::from(sorted.there)));
        let rows = Changes::weighted(RecordBatch::try_new(self.schema.clone(), columns)?, weights.into())?;
        self.keep(&rows)
    }

    fn keep(&self, rows: &Changes) -> Result<()> {
        self.kept.with(|kept| {
            let rows = kept.keyed(rows)?;
            kept.insert(&rows)
        })
    }

    /// Finds the steps of the rows that were restored.
    fn load(&mut self) -> Result<&mut BTreeSet<i64>> {
        if self.steps.is_none() {
            let mut steps = BTreeSet::new();
            for part in self.kept.with(|kept| kept.all())? {
                steps.extend(part.rows().column(self.spec.schema.fields().len()).as_primitive::<Int64Type>().values());
            }
            self.steps = Some(steps);
        }
        self.steps.as_mut().ok_or_else(|| Error::internal("steps that were found are gone"))
    }

    /// What becomes of the rows for which step `due` is waited.
    fn pass(&mut self, due: i64, out: &mut Output) -> Result<()> {
        let fields = self.schema.fields();
        let at = self.spec.schema.fields().len();
        let mut columns: Vec<ArrayRef> = fields.iter().map(|f| new_null_array(f.data_type(), 1)).collect();
        columns[at] = Arc::new(Int64Array::from(vec![due]));
        let probe = Changes::insertions(RecordBatch::try_new(self.schema.clone(), columns)?);
        let (probe, all) = (self.kept.with(|kept| kept.keyed(&probe))?, (0..fields.len()).collect::<Vec<_>>());
        let (mut parts, mut cursor, mut done) = (vec![], Cursor::default(), false);
        while !done {
            let pairs;
            (pairs, done) = self.kept.with(|kept| kept.pairs(&probe, &mut cursor, ASKED))?;
            if !pairs.is_empty() {
                let columns = self.kept.with(|kept| kept.columns_in(&pairs, &all))?;
                let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
                parts.push(Changes::weighted(rows, pairs.weights.into())?);
            }
        }
        for part in parts {
            let gone = (0..part.num_rows()).map(|row| -part.weight(row)).collect();
            self.keep(&Changes::weighted(part.rows().clone(), gone)?)?;
            let there = part.rows().column(at + 1).as_boolean().clone();
            let columns = part.rows().columns()[..at].to_vec();
            let part = part.with_rows(RecordBatch::try_new(self.spec.schema.clone(), columns)?);
            let leaving: UInt32Array = (0..part.num_rows() as u32).filter(|row| there.value(*row as usize)).collect();
            let weights = leaving.values().iter().map(|row| -part.weight(*row as usize)).collect();
            if !leaving.is_empty() {
                out.emit(Changes::weighted(rows_at(part.rows(), &leaving)?, weights)?);
            }
            let coming: UInt32Array = (0..part.num_rows() as u32).filter(|row| !there.value(*row as usize)).collect();
            self.arrive(part.take(&coming)?, out)?;
        }
        Ok(())
    }

    fn arrive(&mut self, changes: Changes, out: &mut Output) -> Result<()> {
        let (changes, times) = self.times(changes, out)?;
        let mut sorted = Sorted::default();
        for (row, times) in times.into_iter().enumerate() {
            if let Some(times) = times {
                sorted.add(row as u32, changes.weight(row), times, self.now);
            }
        }
        self.settle(changes.rows(), sorted, out)
    }

    fn advance(&mut self, out: &mut Output) -> Result<()> {
        while let Some(due) = self.work.last().copied() {
            if !out.has_room() {
                out.come_back();
                return Ok(());
            }
            self.work.pop();
            self.pass(due, out)?;
        }
        Ok(())
    }
}

impl Operator for Running {
    fn on_changes(&mut self, _port: usize, changes: Changes, out: &mut Output) -> Result<()> {
        self.arrive(changes, out)
    }

    fn on_epoch(&mut self, mark: &EpochMark, out: &mut Output) -> Result<()> {
        let now = mark.now.0.div_euclid(CLOCK_STEP);
        self.now = self.now.max(now);
        let steps = self.load()?;
        let later = steps.split_off(&(now + 1));
        self.work = std::mem::replace(steps, later).into_iter().rev().collect();
        self.advance(out)
    }

    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        self.advance(out)
    }

    fn due(&self) -> Option<i64> {
        self.steps.as_ref()?.first().map(|step| step.saturating_mul(CLOCK_STEP))
    }
}

/// Whether times of this type are compared exactly: those of nanoseconds are not.
pub fn is_compared(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(unit, _) if *unit != TimeUnit::Nanosecond)
}

#[cfg(test)]
mod tests {
    use datafusion_physical_expr::expressions::Column;

    use super::*;
    use crate::testing::Step::{Mark, Recover, Rows};
    use crate::testing::check;

    const S: i64 = 1_000_000;

    fn schema() -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("ts", time, true)]))
    }

    fn temporal(bounds: &[(Side, bool, (i32, i64))]) -> Arc<Temporal> {
        let time: Arc<dyn PhysicalExpr> = Arc::new(Column::new("ts", 1));
        let bounds = bounds.iter().map(|(side, past, moved)| Bound {
            time: time.clone(),
            side: *side,
            past: *past,
            moved: *moved,
        });
        Arc::new(Temporal { bounds: bounds.collect(), text: String::new(), key: vec![0], schema: schema() })
    }

    // The clock of a script shows the watermark.

    #[test]
    fn rows_go_when_their_time_has_passed() {
        // ts > now() - 10 s
        let script = [
            Rows("+1 1 1970-01-01T00:00:05; +2 2 1970-01-01T00:00:08; +1 3 null; +1 4 1970-01-01T00:00:30"),
            Mark(6, "+1 1 1970-01-01T00:00:05; +2 2 1970-01-01T00:00:08; +1 4 1970-01-01T00:00:30"),
            Mark(14, ""),
            Recover,
            Mark(15, "-1 1 1970-01-01T00:00:05"),
            // One is taken back before its time, one comes too late to be seen.
            Rows("-1 2 1970-01-01T00:00:08; +1 5 1970-01-01T00:00:01"),
            Mark(16, "-1 2 1970-01-01T00:00:08"),
            Mark(18, "-1 2 1970-01-01T00:00:08"),
            // What has gone cannot be taken back once more.
            Rows("-1 1 1970-01-01T00:00:05"),
            Mark(40, "-1 4 1970-01-01T00:00:30"),
        ];
        check(temporal(&[(Side::Until, false, (0, -10 * S))]), &schema(), &script).expect("the last ten seconds");
    }

    #[test]
    fn rows_wait_until_their_time_has_come() {
        // ts <= now() AND ts >= now() - 5 s
        let script = [
            Rows("+1 1 1970-01-01T00:00:10; +1 2 1970-01-01T00:00:12"),
            Mark(9, ""),
            Recover,
            Mark(10, "+1 1 1970-01-01T00:00:10"),
            // One that waits is taken back.
            Rows("-1 2 1970-01-01T00:00:12"),
            Mark(15, ""),
            Recover,
            Mark(16, "-1 1 1970-01-01T00:00:10"),
            // It comes and goes between two marks.
            Rows("+1 3 1970-01-01T00:00:17"),
            Mark(16, ""),
            Mark(60, ""),
        ];
        let bounds = [(Side::From, false, (0, 0)), (Side::Until, true, (0, -5 * S))];
        check(temporal(&bounds), &schema(), &script).expect("five seconds");
    }

    #[test]
    fn months_end_when_they_are_over() {
        let at = |text: &str| text.parse::<chrono::NaiveDateTime>().expect("a time").and_utc().timestamp_micros();
        // ts > now() - 1 month: a row of 30 January is gone a month later, which is the end of February.
        let bound = temporal(&[(Side::Until, false, (-1, 0))]).bounds[0].clone();
        for (time, goes) in [
            ("2023-01-15T12:00:00", "2023-02-15T12:00:00"),
            ("2023-01-30T12:00:00", "2023-03-01T00:00:00"),
            ("2023-02-28T12:00:00", "2023-03-28T12:00:00"),
        ] {
            let found = bound.step(at(time)) * CLOCK_STEP;
            let moved = |now: i64| add_months(now, -1).expect("a date");
            assert!(moved(found) >= at(time) && moved(found - CLOCK_STEP) < at(time), "{time}");
            assert!((found - at(goes)).abs() <= 2 * 86_400 * S, "{time} goes at {found}");
        }
    }
}
