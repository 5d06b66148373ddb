//! What a changelog adds up to, read in bounded memory.
//!
//! The content is its base (see [`super::base`]) and the net of the changes since. The net is held as one entry a
//! distinct row, in its row form; then the base passes by, and what was taken back of it is left out. Where the net
//! does not fit, only the rows whose hash is in the lower half are kept, and the others get a pass of their own: so
//! any content is read with any room, in more passes.
//!
//! Zeros of either sign are one value: a build that told them apart may have written the row that another takes
//! back. The last that arrived stands for all of them.

use std::hash::BuildHasher;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use async_trait::async_trait;
use hashbrown::HashTable;

use super::base::Base;
use super::committed::FileEntry;
use super::log::{Hold, StreamLog};
use super::parquet_file::open_rows;
use crate::changelog::{OP, Op, weights};
use crate::error::{Error, Result};
use crate::float::canonical_columns;
use crate::format::stored::file_schema;

/// Rows given at once.
const BATCH: usize = 8192;
/// Ranges of hashes are not made smaller than this: rows that are still too large then do not fit.
const LEAST_RANGE: u64 = 1 << 48;
/// Entries that may be gone before those that are left move together.
const MOST_GONE: usize = 1 << 12;

/// Takes in what a changelog adds up to.
#[async_trait(?Send)]
pub trait ContentSink {
    /// Notes that `bytes` are held; an error when there is no room for them, and then less is asked for.
    fn hold(&mut self, bytes: usize) -> Result<()>;

    /// Whether nobody waits for the rest any more.
    fn is_cancelled(&self) -> bool;

    /// Takes rows that stand (`Insert`) or, in a changelog that takes back what it has not, are owed to it (`Delete`).
    async fn give(&mut self, rows: RecordBatch, op: Op) -> Result<()>;
}

/// What a changelog adds up to at one moment. Its files stay while this lives.
#[derive(Debug)]
pub struct Content {
    pub(super) log: Arc<StreamLog>,
    pub(super) files: Vec<FileEntry>,
    /// Rows of the log that count.
    pub(super) rows: u64,
    /// Its base, and where that lies.
    pub(super) base: Option<(Base, String)>,
    /// The last epoch in it.
    pub(super) epoch: u64,
    pub(super) _hold: Hold,
}

impl StreamLog {
    /// What the log, a changelog, adds up to now.
    pub fn content(self: &Arc<Self>) -> Content {
        self.content_upto(u64::MAX)
    }

    /// What its first `rows` rows add up to, where a commit ends with them.
    pub(super) fn content_upto(self: &Arc<Self>, rows: u64) -> Content {
        let hold = self.hold();
        let (files, rows, base, epoch) = self.with_bases(|bases, c| {
            let rows = rows.min(c.rows);
            let files: Vec<FileEntry> = c.files.iter().filter(|f| f.start < rows).cloned().collect();
            (files, rows, bases.of(&c.files, rows), c.epoch)
        });
        let (base, in_log) = base;
        let base_path = base.as_ref().map(|b| if in_log { self.path(&b.file) } else { self.base_path(&b.file) });
        Content { log: self.clone(), files, rows, base: base.zip(base_path), epoch, _hold: hold }
    }
}

impl Content {
    /// The stream's name.
    pub fn stream(&self) -> &str {
        self.log.name()
    }

    /// Reads `columns` of the stream's, which may be none, as `schema` has them. It waits for the disk: not for a thread
    /// that may not.
    pub async fn read(&self, columns: &[usize], schema: &SchemaRef, sink: &mut dyn ContentSink) -> Result<()> {
        let out = Out { columns: columns.to_vec(), schema: schema.clone() };
        let from = self.base.as_ref().map_or(0, |(b, _)| b.upto);
        if from >= self.rows {
            return self.give_base(None, &out, sink).await;
        }
        let fields = file_schema(self.log.schema());
        let mut ranges = vec![HashRange::ALL];
        while let Some(range) = ranges.pop() {
            let mut net = Net::new(&fields, range, self.base.is_some())?;
            if !self.add_changes(from, &mut net, &mut ranges, sink).await? {
                return Ok(());
            }
            let whole = net.entries.is_empty() && net.range == HashRange::ALL;
            self.give_base(if whole { None } else { Some(&mut net) }, &out, sink).await?;
            net.give(&out, sink).await?;
            sink.hold(0)?;
        }
        Ok(())
    }

    /// Adds the changes from row `from` of the log on that fall into the range of `net`; what does not fit goes to `ranges`.
    /// `false` when it was cancelled.
    async fn add_changes(
        &self,
        from: u64,
        net: &mut Net,
        ranges: &mut Vec<HashRange>,
        sink: &mut dyn ContentSink,
    ) -> Result<bool> {
        let names = self.names(None);
        for file in self.files.iter().filter(|f| f.end() > from) {
            let skipped = from.saturating_sub(file.start);
            let mut rows = skipped;
            for batch in open_rows(self.log.store(), &self.log.path(&file.name), skipped..u64::MAX, &names).await? {
                if sink.is_cancelled() {
                    return Ok(false);
                }
                let batch = batch?;
                rows += batch.num_rows() as u64;
                net.add(&typed(&batch, net.fields.fields().iter())?, &weights_of(&batch)?)?;
                while let Err(e) = sink.hold(net.bytes()) {
                    let (lower, upper) = net.range.halves().ok_or(e)?;
                    net.keep(lower);
                    ranges.push(upper);
                }
            }
            if rows != file.rows {
                return Err(self.log.too_short(file, rows));
            }
        }
        Ok(true)
    }

    /// Gives the rows of the base, but for those in the range of `net` of which it knows better.
    async fn give_base(&self, mut net: Option<&mut Net>, out: &Out, sink: &mut dyn ContentSink) -> Result<()> {
        let Some((base, path)) = &self.base else { return Ok(()) };
        let names = self.names(net.is_none().then_some(&out.columns[..]));
        let mut rows = 0;
        for batch in open_rows(self.log.store(), path, 0..u64::MAX, &names).await? {
            if sink.is_cancelled() {
                return Ok(());
            }
            let batch = batch?;
            rows += batch.num_rows() as u64;
            let weights = weights_of(&batch)?;
            let (given, left) = match &mut net {
                None => {
                    let fields = out.schema.fields().iter();
                    (out.batch(typed(&batch, fields)?, batch.num_rows())?, vec![true; batch.num_rows()])
                }
                Some(net) => {
                    let columns = typed(&batch, net.fields.fields().iter())?;
                    let left = net.meet(&columns, &weights)?;
                    (out.project(&columns, batch.num_rows())?, left)
                }
            };
            for (op, sign) in [(Op::Insert, 1), (Op::Delete, -1)] {
                let keep: Vec<bool> = left.iter().zip(&weights).map(|(left, w)| *left && w.signum() == sign).collect();
                match keep.iter().filter(|k| **k).count() {
                    0 => {}
                    n if n == keep.len() => sink.give(given.clone(), op).await?,
                    _ => sink.give(filter_record_batch(&given, &BooleanArray::from(keep))?, op).await?,
                }
            }
        }
        if rows != base.rows {
            let path = self.log.store().locate(path);
            return Err(Error::data(format!("file \"{path}\" has {rows} rows, {} were written", base.rows))
                .with_hint("It was changed or damaged: remove it, it is made again from the stream's other files."));
        }
        Ok(())
    }

    /// The names of `columns`, or of all, and of the operation.
    fn names(&self, columns: Option<&[usize]>) -> Vec<String> {
        let fields = self.log.schema().fields();
        let mut names: Vec<String> = match columns {
            None => fields.iter().map(|f| f.name().clone()).collect(),
            Some(some) => some.iter().filter_map(|c| fields.get(*c)).map(|f| f.name().clone()).collect(),
        };
        names.push(OP.to_owned());
        names
    }
}

/// What is asked for.
struct Out {
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl Out {
    /// Of all columns those asked for.
    fn project(&self, all: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        let asked = self.columns.iter().filter_map(|c| all.get(*c)).cloned().collect();
        self.batch(asked, rows)
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let to = |(column, field): (ArrayRef, &Arc<arrow::datatypes::Field>)| match column.data_type() {
            same if same == field.data_type() => Ok(column),
            _ => cast(&column, field.data_type()),
        };
        let columns = columns.into_iter().zip(self.schema.fields()).map(to).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// The columns `fields` of `batch`, by name, with their types.
fn typed<'a>(
    batch: &RecordBatch,
    fields: impl Iterator<Item = &'a Arc<arrow::datatypes::Field>>,
) -> Result<Vec<ArrayRef>> {
    let column = |field: &Arc<arrow::datatypes::Field>| {
        let found = batch.column_by_name(field.name());
        let found = found.ok_or_else(|| Error::data(format!("no column \"{}\"", field.name())))?;
        Ok(if found.data_type() == field.data_type() { found.clone() } else { cast(found, field.data_type())? })
    };
    fields.map(column).collect()
}

fn weights_of(batch: &RecordBatch) -> Result<Vec<i64>> {
    let ops = batch.column_by_name(OP).ok_or_else(|| Error::data("a changelog without operations"))?;
    Ok(weights(ops)?.to_vec())
}

/// Hashes from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HashRange {
    first: u64,
    last: u64,
}

impl HashRange {
    const ALL: HashRange = HashRange { first: 0, last: u64::MAX };

    fn has(self, hash: u64) -> bool {
        self.first <= hash && hash <= self.last
    }

    fn halves(self) -> Option<(Self, Self)> {
        let half = (self.last - self.first) / 2;
        let middle = self.first + half;
        (half >= LEAST_RANGE).then_some((HashRange { last: middle, ..self }, HashRange { first: middle + 1, ..self }))
    }
}

/// Net changes by row.
struct Net {
    fields: SchemaRef,
    range: HashRange,
    /// Whether a base passes by afterwards.
    over_base: bool,
    converter: RowConverter,
    hasher: foldhash::fast::FixedState,
    /// Places among `entries`.
    table: HashTable<usize>,
    /// In order of arrival, with gaps.
    entries: Vec<Option<Entry>>,
    gone: usize,
    /// The bytes of the rows.
    row_bytes: usize,
    /// Used again for each batch.
    rows: Rows,
}

/// One row.
struct Entry {
    hash: u64,
    weight: i64,
    /// Its canonical form.
    key: Box<[u8]>,
    /// As it last arrived, where that is something else.
    as_arrived: Option<Box<[u8]>>,
    /// Whether it arrived at all, and whether ever in another than the canonical form.
    arrived: bool,
    odd: bool,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.key.len() + self.as_arrived.as_ref().map_or(0, |r| r.len())
    }
}

impl Net {
    fn new(fields: &Schema, range: HashRange, over_base: bool) -> Result<Self> {
        let sorted = fields.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(sorted)?;
        let rows = converter.empty_rows(0, 0);
        Ok(Net {
            fields: Arc::new(fields.clone()),
            range,
            over_base,
            converter,
            hasher: foldhash::fast::FixedState::default(),
            table: HashTable::new(),
            entries: vec![],
            gone: 0,
            row_bytes: 0,
            rows,
        })
    }

    /// The bytes held.
    fn bytes(&self) -> usize {
        let places = self.table.capacity() * (size_of::<usize>() + 2);
        // What an allocation costs besides its bytes.
        let rows = self.row_bytes + self.table.len() * 16;
        places + self.entries.capacity() * size_of::<Option<Entry>>() + rows
    }

    /// The row forms of `columns` into `self.rows`: canonical; and as they are, where that may be something else.
    fn convert(&mut self, columns: &[ArrayRef]) -> Result<Option<Rows>> {
        let canonical = canonical_columns(columns)?;
        self.rows.clear();
        self.converter.append(&mut self.rows, &canonical)?;
        let same = columns.iter().zip(&canonical).all(|(a, b)| Arc::ptr_eq(a, b));
        Ok(if same { None } else { Some(self.converter.convert_columns(columns)?) })
    }

    /// Adds rows with their weights.
    fn add(&mut self, columns: &[ArrayRef], weights: &[i64]) -> Result<()> {
        let as_they_are = self.convert(columns)?;
        for (i, weight) in weights.iter().enumerate() {
            let key = self.rows.row(i).data();
            let hash = self.hasher.hash_one(key);
            if !self.range.has(hash) {
                continue;
            }
            let odd = as_they_are.as_ref().map(|rows| rows.row(i).data()).filter(|row| *row != key);
            let entries = &mut self.entries;
            let same = |at: &usize| entries.get(*at).is_some_and(|e| e.as_ref().is_some_and(|e| *e.key == *key));
            let at = match self.table.find(hash, same) {
                Some(at) => *at,
                None => {
                    let at = entries.len();
                    let hash_of = |at: &usize| entries.get(*at).and_then(Option::as_ref).map_or(0, |e| e.hash);
                    self.table.insert_unique(hash, at, hash_of);
                    self.row_bytes += key.len();
                    let key = key.into();
                    entries.push(Some(Entry { hash, weight: 0, key, as_arrived: None, arrived: false, odd: false }));
                    at
                }
            };
            let Some(Some(entry)) = entries.get_mut(at) else { continue };
            entry.weight += weight;
            entry.odd |= odd.is_some();
            if *weight > 0 {
                entry.arrived = true;
                if odd.is_some() || entry.as_arrived.is_some() {
                    self.row_bytes -= entry.bytes();
                    entry.as_arrived = odd.map(Into::into);
                    self.row_bytes += entry.bytes();
                }
            }
            // One that came in several forms still decides in which the base's rows stand.
            if entry.weight == 0 && !(entry.odd && self.over_base) {
                self.forget(at, hash);
            }
        }
        if self.gone > MOST_GONE && self.gone > self.entries.len() / 2 {
            self.keep(self.range);
        }
        Ok(())
    }

    fn forget(&mut self, at: usize, hash: u64) {
        if let Ok(found) = self.table.find_entry(hash, |place| *place == at) {
            found.remove();
        }
        if let Some(entry) = self.entries.get_mut(at).and_then(Option::take) {
            self.row_bytes -= entry.bytes();
            self.gone += 1;
        }
    }

    /// Keeps what is in `range` only, and moves it together.
    fn keep(&mut self, range: HashRange) {
        self.range = range;
        self.entries.retain(|e| e.as_ref().is_some_and(|e| range.has(e.hash)));
        self.entries.shrink_to(self.entries.len() * 2);
        self.gone = 0;
        self.row_bytes = self.entries.iter().flatten().map(Entry::bytes).sum();
        self.table = HashTable::with_capacity(self.entries.len());
        for (at, entry) in self.entries.iter().enumerate() {
            let hash_of = |at: &usize| self.entries.get(*at).and_then(Option::as_ref).map_or(0, |e| e.hash);
            self.table.insert_unique(entry.as_ref().map_or(0, |e| e.hash), at, hash_of);
        }
    }

    /// Which rows of the base are left as they are. Those that are taken back, or stand in another form now, are not: they
    /// count here.
    fn meet(&mut self, columns: &[ArrayRef], weights: &[i64]) -> Result<Vec<bool>> {
        // The form in which they are is of no interest.
        self.convert(columns)?;
        let mut left = Vec::with_capacity(weights.len());
        for (i, weight) in weights.iter().enumerate() {
            let key = self.rows.row(i).data();
            let hash = self.hasher.hash_one(key);
            let entries = &mut self.entries;
            let same = |at: &usize| entries.get(*at).is_some_and(|e| e.as_ref().is_some_and(|e| *e.key == *key));
            let found = self.table.find(hash, same).copied();
            let is_left = match found.and_then(|at| entries.get_mut(at)) {
                Some(Some(e)) if *weight < 0 || e.weight < 0 || (e.odd && e.arrived) => {
                    e.weight += weight;
                    false
                }
                _ => self.range.has(hash),
            };
            left.push(is_left);
        }
        Ok(left)
    }

    /// Gives what the changes have added.
    async fn give(&self, out: &Out, sink: &mut dyn ContentSink) -> Result<()> {
        for op in [Op::Delete, Op::Insert] {
            let parser = self.converter.parser();
            let mut rows = Vec::with_capacity(BATCH);
            for entry in self.entries.iter().flatten() {
                let n = if op == Op::Insert { entry.weight } else { -entry.weight };
                for _ in 0..n.max(0) {
                    rows.push(parser.parse(entry.as_arrived.as_ref().unwrap_or(&entry.key)));
                    if rows.len() == BATCH {
                        if sink.is_cancelled() {
                            return Ok(());
                        }
                        let full = out.project(&self.converter.convert_rows(rows.drain(..))?, BATCH)?;
                        sink.give(full, op).await?;
                    }
                }
            }
            if !rows.is_empty() {
                let n = rows.len();
                sink.give(out.project(&self.converter.convert_rows(rows)?, n)?, op).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
