//! Weights at the edges: `_op` and `_epoch` columns.
//!
//! Within Millstream a change is a row with a weight. Where changes leave it (files, the shell, Flight)
//! they become rows with an operation: `+I` a row arrives, `-D` it is taken back, and where the key is
//! known `-U` and `+U` are the old and the new row of one key. Each stands for one occurrence.
//!
//! All that let changes out go through [`Outgoing`], so that an epoch reads the same wherever it is read.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;

use crate::changes::{Changes, rows_at};
use crate::error::{Error, Result};
use crate::float::{canonical, with_one_nan};
use crate::key::hash_rows;

/// The column that holds the operation.
pub const OP: &str = "_op";
/// The column that holds the epoch.
pub const EPOCH: &str = "_epoch";

/// What of a large epoch is netted at a time, about.
const PIECE_BYTES: usize = 8 << 20;
/// Pieces of an epoch at most.
const MOST_PIECES: usize = 256;

/// A row operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `+I`
    Insert,
    /// `-U`
    Before,
    /// `+U`
    After,
    /// `-D`
    Delete,
}

impl Op {
    /// Its text.
    pub fn text(self) -> &'static str {
        match self {
            Op::Insert => "+I",
            Op::Before => "-U",
            Op::After => "+U",
            Op::Delete => "-D",
        }
    }
}

/// The changes of an epoch on their way out of Millstream.
///
/// Rows that nobody takes back go on as they come. Of a changelog all are kept until the epoch ends, and what is left of
/// them then is given at once, in the order of [`consolidate`].
pub struct Outgoing {
    schema: SchemaRef,
    retracts: bool,
    key: Option<Vec<usize>>,
    parts: Vec<Changes>,
    bytes: usize,
}

impl Outgoing {
    /// Of changes of `schema`, which take rows back if it `retracts`; the columns of `key` identify a row, where known.
    pub fn new(schema: SchemaRef, retracts: bool, key: Option<Vec<usize>>) -> Self {
        Outgoing { schema, retracts, key, parts: vec![], bytes: 0 }
    }

    /// Takes in changes of the present epoch; gives the rows that need not wait for its end.
    ///
    /// Errors when a row is taken back that cannot be.
    pub fn write(&mut self, changes: Changes) -> Result<Option<RecordBatch>> {
        if self.retracts {
            self.bytes += changes.bytes();
            self.parts.push(changes);
            return Ok(None);
        }
        let Some(weights) = changes.weights() else { return Ok(Some(changes.into_rows())) };
        if weights.iter().any(|w| *w < 0) {
            return Err(Error::internal("rows that only grow were given one to take back"));
        }
        let times = weights.iter().enumerate();
        let rows = times.flat_map(|(row, w)| std::iter::repeat_n(row as u32, w.unsigned_abs() as usize));
        Ok(Some(rows_at(changes.rows(), &rows.collect())?))
    }

    /// Ends the epoch: what its changes come to, each with its operation; nothing where nothing is left of them.
    pub fn end(&mut self) -> Result<Option<(Changes, Vec<Op>)>> {
        let parts = std::mem::take(&mut self.parts);
        self.bytes = 0;
        if parts.is_empty() {
            return Ok(None);
        }
        let (changes, ops) = consolidate(&self.schema, &parts, self.key.as_deref())?;
        Ok((!changes.is_empty()).then_some((changes, ops)))
    }

    /// The same in pieces, where there is much of it: a key's changes are in one of them, and the order holds within each.
    pub fn end_in_pieces(&mut self) -> Result<Pieces> {
        let (schema, key, parts) = (self.schema.clone(), self.key.clone(), std::mem::take(&mut self.parts));
        let bytes = std::mem::take(&mut self.bytes);
        if parts.iter().all(|part| part.weights().is_none()) {
            let count = parts.len();
            return Ok(Pieces { schema, key, hashes: vec![], parts, at: 0, count });
        }
        let count = (bytes / PIECE_BYTES + 1).min(MOST_PIECES);
        let hashes_of = |part: &Changes| {
            let columns = match &key {
                Some(key) => key.iter().map(|at| part.rows().column(*at).clone()).collect(),
                None => part.rows().columns().to_vec(),
            };
            let mut hashes = vec![];
            hash_rows(&columns, part.num_rows(), &mut hashes)?;
            Ok(hashes)
        };
        let hashes = if count > 1 { parts.iter().map(hashes_of).collect::<Result<Vec<_>>>()? } else { vec![] };
        Ok(Pieces { schema, key, parts, hashes, at: 0, count })
    }

    /// Bytes kept until the epoch ends.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The changes of an epoch that has ended, a piece after the other, so that what is made to net them is small.
pub struct Pieces {
    schema: SchemaRef,
    key: Option<Vec<usize>>,
    parts: Vec<Changes>,
    /// Of the rows of each part, where there are several pieces.
    hashes: Vec<Vec<u64>>,
    at: usize,
    count: usize,
}

impl Pieces {
    /// The next piece that has something in it.
    pub fn next_piece(&mut self) -> Result<Option<(Changes, Vec<Op>)>> {
        while self.at < self.count {
            let piece = self.piece(self.at)?;
            self.at += 1;
            if piece.is_empty() {
                continue;
            }
            let (changes, ops) = consolidate(&self.schema, &piece, self.key.as_deref())?;
            if !changes.is_empty() {
                return Ok(Some((changes, ops)));
            }
        }
        Ok(None)
    }

    fn piece(&mut self, at: usize) -> Result<Vec<Changes>> {
        if self.parts.iter().all(|part| part.weights().is_none()) {
            // Nothing is taken back.
            let part = self.parts.get_mut(at).map(|part| std::mem::replace(part, Changes::empty(self.schema.clone())));
            return Ok(part.into_iter().filter(|part| !part.is_empty()).collect());
        }
        if self.hashes.is_empty() {
            return Ok(std::mem::take(&mut self.parts));
        }
        let of_part = |(part, hashes): (&Changes, &Vec<u64>)| {
            let mine = hashes.iter().enumerate().filter(|(_, hash)| (**hash >> 32) as usize % self.count == at);
            let rows: UInt32Array = mine.map(|(row, _)| row as u32).collect();
            if rows.is_empty() { Ok(None) } else { part.take(&rows).map(Some) }
        };
        self.parts.iter().zip(&self.hashes).filter_map(|pair| of_part(pair).transpose()).collect()
    }
}

/// The net changes of one epoch in their order of publication, one occurrence a row: rows whose weights
/// cancel are gone, and with a `key` (columns) the old and new row of a key stand together; without one retractions come
/// first.
pub fn consolidate(schema: &SchemaRef, parts: &[Changes], key: Option<&[usize]>) -> Result<(Changes, Vec<Op>)> {
    let all = Changes::concat(schema, parts)?;
    if all.weights().is_none() {
        let ops = vec![Op::Insert; all.num_rows()];
        return Ok((all, ops));
    }
    // Zeros keep their signs, so that a change of nothing but the sign is still published.
    let net = net_rows(&all, with_one_nan)?;
    let (order, ops) = match key {
        None => plain_order(&net),
        Some(key) => paired_order(&all, &net, key)?,
    };
    let rows = rows_at(all.rows(), &UInt32Array::from(order))?;
    let weights = ops.iter().map(|op| if matches!(op, Op::Insert | Op::After) { 1 } else { -1 }).collect();
    Ok((Changes::weighted(rows, weights)?, ops))
}

/// The rows that are left when all `parts` of a changelog have been applied, one occurrence a row: what [`crate::table::Content`]
/// gives, from all parts at once.
#[cfg(test)]
pub(crate) fn content(schema: &SchemaRef, parts: &[Changes]) -> Result<RecordBatch> {
    let all = Changes::concat(schema, parts)?;
    if all.weights().is_none() {
        return Ok(all.into_rows());
    }
    let net = net_rows(&all, canonical)?;
    let left = net.iter().flat_map(|(row, w)| std::iter::repeat_n(*row, (*w).max(0) as usize));
    rows_at(all.rows(), &left.collect())
}

/// (last row that arrived, net weight) of each distinct row whose weight is not 0, in order of appearance; rows are told apart
/// by what `identity` makes of their columns.
fn net_rows(
    all: &Changes,
    identity: impl Fn(&ArrayRef) -> std::result::Result<ArrayRef, ArrowError>,
) -> Result<Vec<(u32, i64)>> {
    let columns = all.rows().columns();
    if columns.is_empty() {
        let sum: i64 = (0..all.num_rows()).map(|i| all.weight(i)).sum();
        return Ok(if sum == 0 { vec![] } else { vec![(0, sum)] });
    }
    let converter = converter(columns)?;
    let identical = columns.iter().map(identity).collect::<Result<Vec<_>, _>>()?;
    let rows = converter.convert_columns(&identical)?;
    let mut places: HashMap<arrow::row::Row<'_>, usize, foldhash::fast::FixedState> = HashMap::default();
    let mut net: Vec<(u32, i64)> = vec![];
    for i in 0..all.num_rows() {
        let place = *places.entry(rows.row(i)).or_insert_with(|| {
            net.push((i as u32, 0));
            net.len() - 1
        });
        net[place].1 += all.weight(i);
        if all.weight(i) > 0 {
            net[place].0 = i as u32;
        }
    }
    net.retain(|(_, w)| *w != 0);
    Ok(net)
}

fn converter(columns: &[ArrayRef]) -> Result<RowConverter> {
    Ok(RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect())?)
}

fn plain_order(net: &[(u32, i64)]) -> (Vec<u32>, Vec<Op>) {
    let (mut order, mut ops) = (vec![], vec![]);
    // Retractions first, so that no reader holds both rows of a change.
    for negative in [true, false] {
        for (row, w) in net.iter().filter(|(_, w)| (*w < 0) == negative) {
            for _ in 0..w.unsigned_abs() {
                order.push(*row);
                ops.push(if negative { Op::Delete } else { Op::Insert });
            }
        }
    }
    (order, ops)
}

fn paired_order(all: &Changes, net: &[(u32, i64)], key: &[usize]) -> Result<(Vec<u32>, Vec<Op>)> {
    let columns = key.iter().map(|c| canonical(all.rows().column(*c))).collect::<Result<Vec<_>, _>>()?;
    let mut groups: Vec<(Vec<u32>, Vec<u32>)> = vec![];
    if columns.is_empty() {
        groups.push((vec![], vec![]));
    }
    let converter = converter(&columns)?;
    let rows = if columns.is_empty() { None } else { Some(converter.convert_columns(&columns)?) };
    let mut places: HashMap<&[u8], usize, foldhash::fast::FixedState> = HashMap::default();
    for (row, w) in net {
        let place = match &rows {
            None => 0,
            Some(rows) => *places.entry(rows.row(*row as usize).data()).or_insert_with(|| {
                groups.push((vec![], vec![]));
                groups.len() - 1
            }),
        };
        let side = if *w < 0 { &mut groups[place].0 } else { &mut groups[place].1 };
        side.extend(std::iter::repeat_n(*row, w.unsigned_abs() as usize));
    }
    let (mut order, mut ops) = (vec![], vec![]);
    for (old, new) in groups {
        let paired = old.len().min(new.len());
        for i in 0..paired {
            order.extend([old[i], new[i]]);
            ops.extend([Op::Before, Op::After]);
        }
        order.extend(&old[paired..]);
        ops.extend(std::iter::repeat_n(Op::Delete, old.len() - paired));
        order.extend(&new[paired..]);
        ops.extend(std::iter::repeat_n(Op::Insert, new.len() - paired));
    }
    Ok((order, ops))
}

/// `schema` with `_op` before its columns.
pub fn op_schema(schema: &Schema) -> SchemaRef {
    let mut fields = vec![Arc::new(Field::new(OP, DataType::Utf8, false))];
    fields.extend(schema.fields().iter().cloned());
    Arc::new(Schema::new(fields))
}

/// Rows with `_op` before their columns.
pub fn with_ops(rows: &RecordBatch, ops: &[Op]) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from_iter_values(ops.iter().map(|o| o.text())))];
    columns.extend(rows.columns().iter().cloned());
    Ok(RecordBatch::try_new(op_schema(&rows.schema()), columns)?)
}

/// `schema` with `_op` and `_epoch` behind its columns: the form of stored changelogs.
pub fn stored_schema(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(OP, DataType::Utf8, false)));
    fields.push(Arc::new(Field::new(EPOCH, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

/// Rows in the form of stored changelogs.
pub fn stored(rows: &RecordBatch, ops: &[Op], epoch: u64) -> Result<RecordBatch> {
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(StringArray::from_iter_values(ops.iter().map(|o| o.text()))));
    columns.push(Arc::new(Int64Array::from(vec![epoch as i64; ops.len()])));
    Ok(RecordBatch::try_new(stored_schema(&rows.schema()), columns)?)
}

/// The weights that an `_op` column says.
pub fn weights(ops: &ArrayRef) -> Result<arrow::buffer::ScalarBuffer<i64>> {
    let ops = arrow::compute::cast(ops, &DataType::Utf8)?;
    let weight = |op: Option<&str>| match op {
        Some("+I" | "+U") => Ok(1),
        Some("-D" | "-U") => Ok(-1),
        other => Err(Error::data(format!("{OP} is {other:?}, not one of +I, -U, +U, -D"))),
    };
    debug_assert_eq!(ops.null_count(), 0);
    ops.as_string::<i32>().iter().map(weight).collect::<Result<Vec<i64>>>().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(rows: &[(i64, i64, i64)]) -> Changes {
        let k: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
        let v: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)));
        let batch = RecordBatch::try_from_iter([("k", k), ("v", v)]).expect("two columns");
        Changes::weighted(batch, rows.iter().map(|r| r.2).collect()).expect("as many weights as rows")
    }

    fn show(c: &Changes, ops: &[Op]) -> Vec<String> {
        let column = |i: usize| c.rows().column(i).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec();
        let (k, v) = (column(0), column(1));
        ops.iter().enumerate().map(|(i, o)| format!("{} {} {}", o.text(), k[i], v[i])).collect()
    }

    #[test]
    fn old_and_new_rows_of_a_key_stand_together() {
        let c = changes(&[(1, 10, -1), (2, 20, -1), (3, 30, 1), (1, 11, 1), (4, 5, 1), (4, 5, -1)]);
        let (c, ops) = consolidate(&c.schema(), std::slice::from_ref(&c), Some(&[0])).expect("consolidates");
        assert_eq!(show(&c, &ops), ["-U 1 10", "+U 1 11", "-D 2 20", "+I 3 30"]);
    }

    #[test]
    fn without_a_key_retractions_come_first_and_weights_become_rows() {
        let c = changes(&[(1, 10, 2), (2, 20, -1), (1, 10, -3)]);
        let (c, ops) = consolidate(&c.schema(), std::slice::from_ref(&c), None).expect("consolidates");
        assert_eq!(show(&c, &ops), ["-D 1 10", "-D 2 20"]);
    }

    #[test]
    fn rows_with_nan_cancel_whatever_its_bits_and_zeros_are_one_key() {
        let row = |v: f64, weight: i64| {
            let v: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![v]));
            let batch = RecordBatch::try_from_iter([("v", v)]).expect("a column");
            Changes::weighted(batch, vec![weight].into()).expect("a weight")
        };
        let parts = [row(f64::NAN, -1), row(-f64::NAN, 1), row(0.0, -1), row(-0.0, 1)];
        let (c, ops) = consolidate(&parts[0].schema(), &parts, Some(&[0])).expect("consolidates");
        assert_eq!((c.num_rows(), ops), (2, vec![Op::Before, Op::After]));
    }

    #[test]
    fn rows_that_only_grow_go_on_as_they_come() {
        let some = changes(&[(1, 10, 2), (2, 20, 1)]);
        let mut growing = Outgoing::new(some.schema(), false, None);
        let rows = growing.write(some.clone()).expect("grows").expect("at once");
        assert_eq!((rows.num_rows(), growing.bytes()), (3, 0), "a row of weight 2 is there twice");
        let plain = Changes::insertions(some.rows().clone());
        assert_eq!(growing.write(plain).expect("grows").expect("at once").num_rows(), 2);
        assert!(growing.end().expect("ends").is_none());
        assert!(growing.write(changes(&[(1, 10, -1)])).is_err());
    }

    #[test]
    fn a_changelog_waits_for_the_end_of_its_epoch() {
        let some = changes(&[(1, 10, 1)]);
        let mut log = Outgoing::new(some.schema(), true, Some(vec![0]));
        assert!(log.write(some).expect("kept").is_none() && log.bytes() > 0);
        assert!(log.write(changes(&[(1, 10, -1), (1, 11, 1), (2, 5, 1)])).expect("kept").is_none());
        let (c, ops) = log.end().expect("ends").expect("something is left");
        assert_eq!(show(&c, &ops), ["+I 1 11", "+I 2 5"]);
        assert!(log.bytes() == 0 && log.end().expect("ends").is_none());
        log.write(changes(&[(1, 11, -1), (1, 11, 1)])).expect("kept");
        assert!(log.end().expect("ends").is_none(), "nothing is left");
    }

    #[test]
    fn much_is_ended_in_pieces_that_add_up_to_the_same() {
        let n = 500_000;
        let rows: Vec<(i64, i64, i64)> = (0..n).flat_map(|k| [(k, k, -1), (k, k + k % 2, 1)]).collect();
        for key in [Some(vec![0]), None] {
            let (mut whole, mut log) = (vec![], Outgoing::new(changes(&[]).schema(), true, key.clone()));
            let mut twin = Outgoing::new(changes(&[]).schema(), true, key);
            for part in rows.chunks(100_000) {
                log.write(changes(part)).expect("kept");
                twin.write(changes(part)).expect("kept");
            }
            let (mut pieces, mut count) = (log.end_in_pieces().expect("ends"), 0);
            assert_eq!(log.bytes(), 0);
            while let Some((c, ops)) = pieces.next_piece().expect("nets") {
                let shown = show(&c, &ops);
                let pairs = shown.chunks(2).filter(|pair| pair[0].starts_with("-U") && pair[1].starts_with("+U"));
                assert!(pairs.count() == if log.key.is_some() { shown.len() / 2 } else { 0 });
                whole.extend(shown);
                count += 1;
            }
            let (c, ops) = twin.end().expect("ends").expect("something is left");
            let mut expected = show(&c, &ops);
            whole.sort();
            expected.sort();
            assert!(whole == expected && whole.len() == n as usize, "{} of {}", whole.len(), expected.len());
            assert!(count > 1, "{count} pieces");
        }
        let mut grown = Outgoing::new(changes(&[]).schema(), true, Some(vec![0]));
        (0..3).for_each(|k| drop(grown.write(changes(&[(k, k, 1)])).expect("kept")));
        let (mut pieces, mut shown) = (grown.end_in_pieces().expect("ends"), vec![]);
        while let Some((c, ops)) = pieces.next_piece().expect("passes on") {
            shown.extend(show(&c, &ops));
        }
        assert_eq!(shown, ["+I 0 0", "+I 1 1", "+I 2 2"]);
    }

    #[test]
    fn one_row_without_a_key_is_paired_too() {
        let c = changes(&[(0, 3, -1), (0, 4, 1)]);
        let (c, ops) = consolidate(&c.schema(), std::slice::from_ref(&c), Some(&[])).expect("consolidates");
        assert_eq!(show(&c, &ops), ["-U 0 3", "+U 0 4"]);
    }
}
