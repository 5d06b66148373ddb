//! Scripts for operators: rows in, marks, restarts, and what must come out.
//!
//! ```text
//! Rows("+1 a 3; -1 b null")      changes: a weight, then a value per column
//! At(1, "+1 a 3")                the same, at another input than the first
//! Mark(8, "+1 a 3")              the epoch ends with the watermark at 8 s, and this was said since the last mark
//! Recover                        a checkpoint, and a new operator restored from it
//! ```

mod faulty;

use std::sync::Arc;

pub use faulty::Faulty;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::memory::MemoryBudget;
use crate::operator::{Aside, BuildContext, Operator, Output, SpecRef};
use crate::state::{Owner, StatePart, StateRegistry};
use crate::time::EventTime;

/// A step of a script: see the module's text.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Changes come in.
    Rows(&'a str),
    /// Changes come in at this port.
    At(usize, &'a str),
    /// The epoch ends with the watermark at so many seconds; what was said since the last mark, in any order.
    Mark(i64, &'a str),
    /// The input ends; what was said since the last mark.
    End(&'a str),
    /// A checkpoint, and a new operator restored from it.
    Recover,
}

/// An operator under test.
pub struct Bench {
    spec: SpecRef,
    operator: Box<dyn Operator>,
    state: StateRegistry,
    budget: Arc<MemoryBudget>,
    /// All parts of checkpoints so far.
    parts: Vec<StatePart>,
    out: Output,
    said: Vec<Changes>,
    rounds: usize,
    epoch: u64,
    watermark: EventTime,
}

impl Bench {
    /// Builds the operator as the only task.
    pub fn new(spec: SpecRef) -> Result<Self> {
        let budget = MemoryBudget::new(1 << 30);
        let (operator, state) = built(&spec, &budget)?;
        let (parts, out, said, rounds) = (vec![], Output::default(), vec![], 0);
        Ok(Bench { spec, operator, state, budget, parts, out, said, rounds, epoch: 0, watermark: EventTime::MIN })
    }

    /// Gives it changes at `port`.
    pub fn changes(&mut self, port: usize, changes: Changes) -> Result<()> {
        self.operator.on_changes(port, changes, &mut self.out)?;
        self.pass_on()
    }

    /// Passes on what was said, until all has been.
    fn pass_on(&mut self) -> Result<()> {
        self.said.extend(self.out.take());
        while self.out.take_comes_back() {
            self.operator.go_on(&mut self.out)?;
            self.rounds += 1;
            self.said.extend(self.out.take());
        }
        Ok(())
    }

    /// How often the operator has been asked to go on.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// Ends the epoch and gives all that was said in it.
    pub fn mark(&mut self, watermark: EventTime) -> Result<Vec<Changes>> {
        self.epoch += 1;
        self.watermark = self.watermark.max(watermark);
        let end = watermark == EventTime::MAX;
        // The clock of a script shows the watermark.
        let (epoch, now, watermark) = (self.epoch, self.watermark, self.watermark);
        let mark = EpochMark { epoch, now, watermark, checkpoint: None, end, depth: 0 };
        self.operator.on_epoch(&mark, &mut self.out)?;
        self.pass_on()?;
        Ok(std::mem::take(&mut self.said))
    }

    /// Takes what has been put aside since the last call.
    pub fn take_aside(&mut self) -> Vec<Aside> {
        self.out.take_aside()
    }

    /// Takes a checkpoint and goes on with a new operator restored from it. Call it between epochs.
    pub fn recover(&mut self) -> Result<()> {
        self.checkpoint()?;
        (self.operator, self.state) = built(&self.spec, &self.budget)?;
        for part in &self.parts {
            for rows in &part.rows {
                self.state.restore(&part.name, rows, Owner { task: 0, parallelism: 1 })?;
            }
        }
        self.state.restored(self.watermark)
    }

    /// Takes a checkpoint. Gives the rows of all parts that a restore would read.
    pub fn checkpoint(&mut self) -> Result<usize> {
        for part in self.state.snapshot()? {
            if part.full {
                self.parts.retain(|p| p.name != part.name);
            }
            self.parts.push(part);
        }
        Ok(self.parts.iter().flat_map(|p| &p.rows).map(RecordBatch::num_rows).sum())
    }

    /// Bytes of state held.
    pub fn bytes(&self) -> usize {
        self.budget.used()
    }
}

fn built(spec: &SpecRef, budget: &Arc<MemoryBudget>) -> Result<(Box<dyn Operator>, StateRegistry)> {
    let mut state = StateRegistry::new("test", budget.clone());
    let operator = spec.build(&mut BuildContext { state: &mut state })?;
    Ok((operator, state))
}

/// Runs a script over an operator with input of `schema`.
///
/// Errors where the operator says something else.
pub fn check(spec: SpecRef, schema: &SchemaRef, script: &[Step<'_>]) -> Result<()> {
    let mut bench = Bench::new(spec)?;
    for (i, step) in script.iter().enumerate() {
        let (said, expected) = match step {
            Step::Rows(text) => {
                bench.changes(0, parse(schema, text)?)?;
                continue;
            }
            Step::At(port, text) => {
                bench.changes(*port, parse(schema, text)?)?;
                continue;
            }
            Step::Recover => {
                bench.recover()?;
                continue;
            }
            Step::Mark(seconds, expected) => (bench.mark(EventTime(seconds * 1_000_000))?, *expected),
            Step::End(expected) => (bench.mark(EventTime::MAX)?, *expected),
        };
        let mut said: Vec<String> = said.iter().map(show).collect::<Result<Vec<_>>>()?.concat();
        let mut expected: Vec<String> = lines(expected).map(str::to_owned).collect();
        said.sort();
        expected.sort();
        if said != expected {
            return Err(Error::internal(format!("step {i}: said {said:?}, not {expected:?}")));
        }
    }
    Ok(())
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|l| !l.is_empty())
}

/// Changes of `schema` from text: a weight and a value per column, rows parted by `;`.
pub fn parse(schema: &SchemaRef, text: &str) -> Result<Changes> {
    let rows: Vec<Vec<&str>> = lines(text).map(|l| l.split_whitespace().collect()).collect();
    if let Some(row) = rows.iter().find(|r| r.len() != schema.fields().len() + 1) {
        return Err(Error::internal(format!("{row:?} is not a weight and {} values", schema.fields().len())));
    }
    let weight = |r: &Vec<&str>| r[0].parse::<i64>().map_err(|_| Error::internal(format!("{} is no weight", r[0])));
    let weights = rows.iter().map(weight).collect::<Result<Vec<_>>>()?;
    let column = |i: usize| -> Result<ArrayRef> {
        let texts: ArrayRef =
            Arc::new(rows.iter().map(|r| Some(r[i + 1]).filter(|v| *v != "null")).collect::<StringArray>());
        Ok(cast(&texts, schema.field(i).data_type())?)
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
    Changes::weighted(RecordBatch::try_new(schema.clone(), columns)?, weights.into())
}

/// Changes as text, one line a row.
pub fn show(changes: &Changes) -> Result<Vec<String>> {
    let options = FormatOptions::default().with_null("null");
    let columns = changes.rows().columns().iter().map(|c| ArrayFormatter::try_new(c, &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let row = |i: usize| {
        let values: Vec<String> = columns.iter().map(|c| c.value(i).to_string()).collect();
        format!("{:+} {}", changes.weight(i), values.join(" "))
    };
    Ok((0..changes.num_rows()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use datafusion_physical_expr::PhysicalExpr;
    use datafusion_physical_expr::expressions::{BinaryExpr, Column, lit};

    use super::Step::{Mark, Recover, Rows};
    use super::*;
    use crate::operator::filter::Filter;
    use crate::operator::project::Project;
    use crate::operator::union::Union;
    use crate::operator::upsert::{Upsert, Weights};
    use crate::operator::window::{Length, WindowAssign, WindowSpec};

    fn schema() -> SchemaRef {
        let at = DataType::Timestamp(TimeUnit::Microsecond, None);
        let fields = [("k", DataType::Utf8View), ("v", DataType::Int64), ("at", at)];
        Arc::new(Schema::new(fields.map(|(n, t)| Field::new(n, t, true)).to_vec()))
    }

    fn column(name: &str, at: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(name, at))
    }

    #[test]
    fn one_row_in_one_result_out_while_the_input_stays_open() {
        let above = BinaryExpr::new(column("v", 1), datafusion_expr::Operator::Gt, lit(0_i64));
        let filter = Filter { predicate: Arc::new(above), schema: schema() };
        let narrow = Arc::new(schema().project(&[1]).expect("one column"));
        let project = Project { expressions: vec![column("v", 1)], schema: narrow };
        let tumble = WindowSpec::Tumble { size: Length::Micros(10_000_000), offset: 0 };
        let window = WindowAssign::new(&schema(), 2, tumble, None).expect("a timestamp");
        let upsert = Upsert { key: vec![0], schema: schema(), weights: Weights::Netted };
        let row = "+1 a 1 1970-01-01T00:00:12";
        let windowed = "+1 a 1 1970-01-01T00:00:12 1970-01-01T00:00:10 1970-01-01T00:00:20";
        let specs: [(SpecRef, &str); 5] = [
            (Arc::new(filter), row),
            (Arc::new(project), "+1 1"),
            (Arc::new(Union { schema: schema() }), row),
            (Arc::new(window), windowed),
            (Arc::new(upsert), row),
        ];
        for (spec, expected) in specs {
            let name = spec.name();
            let script = [Rows(row), Mark(0, expected), Mark(0, ""), Recover, Mark(0, "")];
            check(spec, &schema(), &script).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn a_later_row_replaces_the_one_with_its_key() {
        let upsert = Arc::new(Upsert { key: vec![0], schema: schema(), weights: Weights::Netted });
        let script = [
            Rows("+1 a 1 null; +1 a 2 null; +1 null 7 null"),
            Mark(0, "+1 a 2 null; +1 null 7 null"),
            Rows("+1 a 2 null"),
            Mark(0, ""),
            Recover,
            Rows("+1 a 3 null; +1 b 4 null"),
            Mark(0, "-1 a 2 null; +1 a 3 null; +1 b 4 null"),
        ];
        check(upsert, &schema(), &script).expect("the last row of each key");
    }

    #[test]
    fn weights_pass_through_what_keeps_no_state() {
        let above = BinaryExpr::new(column("v", 1), datafusion_expr::Operator::Gt, lit(0_i64));
        let filter = Arc::new(Filter { predicate: Arc::new(above), schema: schema() });
        let script =
            [Rows("+2 a 1 null; -1 b 2 null; +1 c null null; -1 d 0 null"), Mark(0, "+2 a 1 null; -1 b 2 null")];
        check(filter, &schema(), &script).expect("weights as they were");
    }
}
