//! `unnest(list)`: a row for each element.
//!
//! Stateless; a retraction takes back the rows that its insertion gave. Several lists go side by side, the shorter ones with
//! null. What a null or an empty list gives is as planned: nothing, or a row with null.
//!
//! ```text
//! SELECT id, unnest(l)     +(1, [5, 6]) -(2, [7])  ->  +(1, 5) +(1, 6) -(2, 7)
//! ```

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{is_null, nullif, take};
use arrow::datatypes::{DataType, SchemaRef};

use super::{BuildContext, Operator, OperatorSpec, Output};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::{Error, Result};

/// About so many rows are made at once.
const PIECE: usize = 1 << 14;

/// A column of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unnested {
    /// The input's column, with each element.
    Passed(usize),
    /// The elements of this list.
    Elements(usize),
    /// A field of this struct.
    Field(usize, usize),
}

/// The description.
#[derive(Clone, Debug)]
pub struct Unnest {
    /// The columns of the result.
    pub columns: Vec<Unnested>,
    /// Whether a null list gives a row with null.
    pub keeps_null: bool,
    /// Whether an empty list does.
    pub keeps_empty: bool,
    /// The schema of the result.
    pub schema: SchemaRef,
}

impl OperatorSpec for Unnest {
    fn name(&self) -> &'static str {
        "unnest"
    }

    fn describe(&self) -> String {
        let made = self.columns.iter().zip(self.schema.fields()).filter(|(c, _)| !matches!(c, Unnested::Passed(_)));
        made.map(|(_, f)| f.name().as_str()).collect::<Vec<_>>().join(", ")
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn place_of(&self, _port: usize, column: usize) -> Option<usize> {
        self.columns.iter().position(|c| *c == Unnested::Passed(column))
    }

    fn build(&self, _context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Running { spec: self.clone(), left: None }))
    }
}

struct Running {
    spec: Unnest,
    /// Rows that are not said yet, and how many rows each gives.
    left: Option<(Changes, Vec<u32>)>,
}

impl Running {
    fn lists(&self) -> Vec<usize> {
        let list = |c: &Unnested| match c {
            Unnested::Elements(column) => Some(*column),
            _ => None,
        };
        self.spec.columns.iter().filter_map(list).collect()
    }

    /// How many rows each of `rows` gives.
    fn lengths(&self, rows: &RecordBatch) -> Result<Vec<u32>> {
        let lists = self.lists();
        let mut longest = vec![u32::from(lists.is_empty()); rows.num_rows()];
        for list in lists {
            let of = Lists::of(rows.column(list))?;
            for (row, longest) in longest.iter_mut().enumerate() {
                *longest = (*longest).max(match of.at(row) {
                    None => u32::from(self.spec.keeps_null),
                    Some((_, 0)) => u32::from(self.spec.keeps_empty),
                    Some((_, length)) => length,
                });
            }
        }
        Ok(longest)
    }

    fn advance(&mut self, out: &mut Output) -> Result<()> {
        while let Some((changes, lengths)) = self.left.take() {
            if !out.has_room() {
                self.left = Some((changes, lengths));
                out.come_back();
                return Ok(());
            }
            let (mut rows, mut many) = (0, 0);
            while rows < lengths.len() && (rows == 0 || many + lengths[rows] as usize <= PIECE) {
                many += lengths[rows] as usize;
                rows += 1;
            }
            out.emit(self.made(&changes.slice(0, rows), &lengths[..rows], many)?);
            if rows < lengths.len() {
                self.left = Some((changes.slice(rows, lengths.len() - rows), lengths[rows..].to_vec()));
            }
        }
        Ok(())
    }

    /// The `many` rows of `changes`.
    fn made(&self, changes: &Changes, lengths: &[u32], many: usize) -> Result<Changes> {
        let repeated = || lengths.iter().enumerate().flat_map(|(row, n)| std::iter::repeat_n(row as u32, *n as usize));
        let from: UInt32Array = repeated().collect();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.spec.columns.len());
        for column in &self.spec.columns {
            columns.push(match column {
                Unnested::Passed(at) => take(changes.rows().column(*at), &from, None)?,
                Unnested::Field(at, field) => {
                    // A field of a null struct is null.
                    let structs = changes.rows().column(*at);
                    let masked = nullif(structs.as_struct().column(*field), &is_null(structs)?)?;
                    take(&masked, &from, None)?
                }
                Unnested::Elements(at) => Lists::of(changes.rows().column(*at))?.elements(lengths, many)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(many));
        let rows = RecordBatch::try_new_with_options(self.spec.schema.clone(), columns, &options)?;
        match changes.weights() {
            None => Ok(Changes::insertions(rows)),
            Some(weights) => Changes::weighted(rows, repeated().map(|row| weights[row as usize]).collect()),
        }
    }
}

/// The lists of a column.
struct Lists<'a> {
    values: &'a ArrayRef,
    column: &'a ArrayRef,
    begin: Begin<'a>,
}

/// Where the list of a row begins, and where it ends.
type Begin<'a> = Box<dyn Fn(usize) -> (usize, usize) + 'a>;

impl<'a> Lists<'a> {
    fn of(column: &'a ArrayRef) -> Result<Self> {
        let (values, begin): (&ArrayRef, Begin<'a>) = match column.data_type() {
            DataType::List(_) => {
                let lists = column.as_list::<i32>();
                let offsets = lists.value_offsets();
                (lists.values(), Box::new(|row| (offsets[row] as usize, offsets[row + 1] as usize)))
            }
            DataType::LargeList(_) => {
                let lists = column.as_list::<i64>();
                let offsets = lists.value_offsets();
                (lists.values(), Box::new(|row| (offsets[row] as usize, offsets[row + 1] as usize)))
            }
            DataType::FixedSizeList(_, _) => {
                let lists = column.as_fixed_size_list();
                let begin = |row| (lists.value_offset(row) as usize, lists.value_offset(row + 1) as usize);
                (lists.values(), Box::new(begin))
            }
            other => return Err(Error::internal(format!("unnest of {other}"))),
        };
        Ok(Lists { values, column, begin })
    }

    /// Where the list of a row begins, and how long it is.
    fn at(&self, row: usize) -> Option<(usize, u32)> {
        let (from, to) = (self.begin)(row);
        (!self.column.is_null(row)).then_some((from, (to - from) as u32))
    }

    /// The elements of each list, and null up to the row's length.
    fn elements(&self, lengths: &[u32], many: usize) -> Result<ArrayRef> {
        let mut places: Vec<Option<u32>> = Vec::with_capacity(many);
        for (row, length) in lengths.iter().enumerate() {
            let (from, has) = self.at(row).unwrap_or((0, 0));
            let has = has.min(*length);
            places.extend((0..has).map(|i| Some(from as u32 + i)));
            places.extend(std::iter::repeat_n(None, (*length - has) as usize));
        }
        Ok(take(self.values, &UInt32Array::from(places), None)?)
    }
}

impl Operator for Running {
    fn on_changes(&mut self, _port: usize, changes: Changes, out: &mut Output) -> Result<()> {
        let lengths = self.lengths(changes.rows())?;
        self.left = Some((changes, lengths));
        self.advance(out)
    }

    fn on_epoch(&mut self, _mark: &EpochMark, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        self.advance(out)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray};
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;
    use crate::testing::{Bench, show};
    use crate::time::EventTime;

    fn unnest(keeps_null: bool, keeps_empty: bool) -> Unnest {
        let fields = ["id", "a", "b"].map(|n| Field::new(n, DataType::Int64, true));
        let columns = vec![Unnested::Passed(0), Unnested::Elements(1), Unnested::Elements(2)];
        Unnest { columns, keeps_null, keeps_empty, schema: Arc::new(Schema::new(fields.to_vec())) }
    }

    fn rows(a: Vec<Option<Vec<Option<i64>>>>, b: Vec<Option<Vec<Option<i64>>>>) -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..a.len() as i64));
        let list = |of| -> ArrayRef { Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(of)) };
        RecordBatch::try_from_iter([("id", ids), ("a", list(a)), ("b", list(b))]).expect("rows")
    }

    fn said(of: Unnest, changes: Changes) -> Vec<String> {
        let mut bench = Bench::new(Arc::new(of)).expect("builds");
        bench.changes(0, changes).expect("takes them");
        let said = bench.mark(EventTime(0)).expect("a mark");
        said.iter().flat_map(|c| show(c).expect("text")).collect()
    }

    #[test]
    fn lists_go_side_by_side_and_rows_keep_their_weights() {
        let a = vec![Some(vec![Some(1), None]), Some(vec![]), None, Some(vec![Some(7)])];
        let b = vec![Some(vec![Some(5)]), None, Some(vec![]), Some(vec![Some(8), Some(9)])];
        let changes = Changes::weighted(rows(a, b), vec![1, 1, 1, -2].into()).expect("weights");
        let full = ["+1 0 1 5", "+1 0 null null", "-2 3 7 8", "-2 3 null 9"];
        assert_eq!(said(unnest(false, false), changes.clone()), full);
        let with_null = ["+1 0 1 5", "+1 0 null null", "+1 1 null null", "+1 2 null null", "-2 3 7 8", "-2 3 null 9"];
        assert_eq!(said(unnest(true, false), changes.clone()), with_null);
        assert_eq!(said(unnest(false, true), changes), with_null, "both rows have an empty list");
    }

    #[test]
    fn long_lists_are_said_piece_by_piece() {
        let long = || (0..200).map(|_| Some((0..20_000).map(Some).collect())).collect();
        let mut bench = Bench::new(Arc::new(unnest(false, false))).expect("builds");
        bench.changes(0, Changes::insertions(rows(long(), long()))).expect("takes them");
        let said = bench.mark(EventTime(0)).expect("a mark");
        assert_eq!(said.iter().map(Changes::num_rows).sum::<usize>(), 4_000_000);
        assert!(bench.rounds() > 10 && said.iter().all(|c| c.bytes() < 1 << 20), "{} rounds", bench.rounds());
    }
}
