//! The merge: both sides come in the order of their keys and times, and each row of the left side finds its match as it passes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{filter, interleave};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::Result as DfResult;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use millstream_engine::float::with_one_nan;
use millstream_engine::operator::as_of::{Way, distance};

use crate::error::Result;

/// How both sides are merged: the columns behind those that are given are the key and, the last, the time.
#[derive(Clone, Debug)]
pub(super) struct Merging {
    pub(super) way: Way,
    pub(super) left_outer: bool,
    /// So many columns of each side are given.
    pub(super) given: [usize; 2],
    pub(super) schema: SchemaRef,
}

/// A batch of one side, with its keys and times as bytes.
struct Piece {
    rows: RecordBatch,
    places: Rows,
    nulls: Option<NullBuffer>,
    key_bytes: Option<Rows>,
}

impl Piece {
    fn new(rows: RecordBatch, given: usize) -> DfResult<Self> {
        let by = &rows.columns()[given..];
        let nulls = by.iter().map(|column| column.logical_nulls());
        let nulls = nulls.fold(None, |all, nulls| NullBuffer::union(all.as_ref(), nulls.as_ref()));
        let encoded = |columns: &[ArrayRef]| -> DfResult<Rows> {
            let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
            Ok(RowConverter::new(fields.collect())?.convert_columns(columns)?)
        };
        let places = encoded(by)?;
        let key_bytes = if by.len() > 1 { Some(encoded(&by[..by.len() - 1])?) } else { None };
        Ok(Piece { places, nulls: nulls.filter(|nulls| nulls.null_count() > 0), key_bytes, rows })
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    fn place(&self, row: usize) -> &[u8] {
        self.places.row(row).data()
    }

    fn key(&self, row: usize) -> &[u8] {
        self.key_bytes.as_ref().map_or(&[], |keys| keys.row(row).data())
    }

    /// The time, as the last of its bytes.
    fn time(&self, row: usize) -> &[u8] {
        &self.place(row)[self.key(row).len()..]
    }
}

/// The row that counts of those with one key and time.
#[derive(Clone)]
struct Last {
    piece: Arc<Piece>,
    row: usize,
}

impl Last {
    fn place(&self) -> &[u8] {
        self.piece.place(self.row)
    }
}

/// The right side, a key and a time at a time.
struct Reader {
    rows: SendableRecordBatchStream,
    given: usize,
    at: Option<Last>,
    /// Makes bytes of all columns that are given.
    all: Option<RowConverter>,
}

impl Reader {
    /// The row at hand, whose key and time are not null.
    async fn peek(&mut self) -> DfResult<Option<&Last>> {
        loop {
            match &mut self.at {
                Some(at) if at.row < at.piece.rows.num_rows() => {
                    if !at.piece.is_null(at.row) {
                        break;
                    }
                    at.row += 1;
                }
                _ => match self.rows.next().await.transpose()? {
                    Some(rows) => self.at = Some(Last { piece: Arc::new(Piece::new(rows, self.given)?), row: 0 }),
                    None => return Ok(None),
                },
            }
        }
        Ok(self.at.as_ref())
    }

    fn pass(&mut self) {
        if let Some(at) = &mut self.at {
            at.row += 1;
        }
    }

    /// The last of the rows with the next key and time.
    async fn next(&mut self) -> DfResult<Option<Last>> {
        let Some(mut last) = self.peek().await?.cloned() else { return Ok(None) };
        self.pass();
        let mut bytes: Option<Vec<u8>> = None;
        while let Some(other) = self.peek().await?.filter(|other| other.place() == last.place()).cloned() {
            self.pass();
            let known = match bytes.take() {
                Some(known) => known,
                None => self.bytes(&last)?,
            };
            let others = self.bytes(&other)?;
            if others > known {
                last = other;
                bytes = Some(others);
            } else {
                bytes = Some(known);
            }
        }
        Ok(Some(last))
    }

    /// A row as bytes that sort as rows do by all columns.
    fn bytes(&mut self, of: &Last) -> DfResult<Vec<u8>> {
        let columns = of.piece.rows.columns()[..self.given].iter();
        let columns = columns.map(|column| with_one_nan(&column.slice(of.row, 1))).collect::<Result<Vec<_>, _>>()?;
        if columns.is_empty() {
            return Ok(vec![]);
        }
        let all = match self.all.take() {
            Some(all) => all,
            None => RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect())?,
        };
        let bytes = all.convert_columns(&columns)?.row(0).data().to_vec();
        self.all = Some(all);
        Ok(bytes)
    }
}

/// A merge under way.
pub(super) struct Merge {
    merging: Merging,
    left: SendableRecordBatchStream,
    right: Reader,
    /// The last row of the right side that has been passed, and the next.
    before: Option<Last>,
    next: Option<Last>,
    begun: bool,
}

impl Merge {
    pub(super) fn new(merging: Merging, left: SendableRecordBatchStream, right: SendableRecordBatchStream) -> Self {
        let right = Reader { rows: right, given: merging.given[1], at: None, all: None };
        Merge { merging, left, right, before: None, next: None, begun: false }
    }

    /// The next batch of the left side with its matches.
    pub(super) async fn batch(&mut self) -> DfResult<Option<RecordBatch>> {
        if !std::mem::replace(&mut self.begun, true) {
            self.next = self.right.next().await?;
        }
        let Some(rows) = self.left.next().await.transpose()? else { return Ok(None) };
        let piece = Piece::new(rows, self.merging.given[0])?;
        let mut found = Found::default();
        for row in 0..piece.rows.num_rows() {
            if piece.is_null(row) {
                found.none();
                continue;
            }
            while self.next.as_ref().is_some_and(|next| self.merging.passes(next.place(), piece.place(row))) {
                self.before = std::mem::replace(&mut self.next, self.right.next().await?);
            }
            match self.merging.matched(&piece, row, self.before.as_ref(), self.next.as_ref()) {
                Some(last) => found.some(last),
                None => found.none(),
            }
        }
        Ok(Some(self.merging.joined(&piece, &found)?))
    }
}

impl Merging {
    /// Whether a row of the right side is passed before one of the left side is looked at.
    fn passes(&self, right: &[u8], left: &[u8]) -> bool {
        match self.way {
            Way::Last | Way::FirstBehind | Way::Nearest => right <= left,
            Way::LastBefore | Way::First => right < left,
        }
    }

    fn matched<'a>(
        &self,
        left: &Piece,
        row: usize,
        before: Option<&'a Last>,
        next: Option<&'a Last>,
    ) -> Option<&'a Last> {
        let of_key = |last: &&Last| last.piece.key(last.row) == left.key(row);
        let (before, next) = (before.filter(of_key), next.filter(of_key));
        match self.way {
            Way::Last | Way::LastBefore => before,
            Way::First | Way::FirstBehind => next,
            Way::Nearest => match (before, next) {
                (Some(a), Some(b)) => {
                    let far = |last: &Last| distance(last.piece.time(last.row), left.time(row));
                    Some(if far(a) < far(b) { a } else { b })
                }
                (a, b) => a.or(b),
            },
        }
    }

    fn joined(&self, left: &Piece, found: &Found) -> DfResult<RecordBatch> {
        let [of_left, of_right] = self.given;
        let mut columns: Vec<ArrayRef> = left.rows.columns()[..of_left].to_vec();
        for (field, column) in self.schema.fields()[of_left..].iter().zip(0..of_right) {
            let none = new_null_array(field.data_type(), 1);
            let of: Vec<&dyn Array> = [none.as_ref()]
                .into_iter()
                .chain(found.pieces.iter().map(|piece| piece.rows.column(column).as_ref()))
                .collect();
            columns.push(interleave(&of, &found.places)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(found.places.len()));
        if self.left_outer {
            return Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?);
        }
        let matched: BooleanArray = found.places.iter().map(|(piece, _)| Some(*piece > 0)).collect();
        // Not null by its schema is what is left.
        let columns: Vec<ArrayRef> = columns.iter().map(|c| filter(c, &matched)).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(matched.true_count()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// The matches of a batch: pieces of the right side, and for each row a piece, from 1 on, and a place there.
#[derive(Default)]
struct Found {
    pieces: Vec<Arc<Piece>>,
    known: HashMap<usize, usize>,
    places: Vec<(usize, usize)>,
}

impl Found {
    fn none(&mut self) {
        self.places.push((0, 0));
    }

    fn some(&mut self, last: &Last) {
        let at = *self.known.entry(Arc::as_ptr(&last.piece) as usize).or_insert_with(|| {
            self.pieces.push(Arc::clone(&last.piece));
            self.pieces.len()
        });
        self.places.push((at, last.row));
    }
}
