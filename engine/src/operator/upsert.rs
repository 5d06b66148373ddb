//! `PRIMARY KEY`: a later row replaces the one with its key.
//!
//! ```text
//! +(k=1, v=a) +(k=1, v=b)   ->  +(1, b)             within one epoch the last row counts
//! +(k=1, v=c)               ->  -(1, b) +(1, c)
//! -(1, c)                   ->  -(1, c)             a changelog takes rows back
//! -(1, a)                   ->                      what is not there any more is not taken back
//! ```
//! Keeps the last row of each key; bounded by the number of keys. Rows that come with weights are those of a changelog: see
//! [`Weights`].

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, make_comparator, new_null_array};
use arrow::compute::{SortOptions, concat_batches, filter_record_batch, not};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};

use super::{BuildContext, Operator, OperatorSpec, Output, StateBound};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::format::sql_name;
use crate::key::hash_rows;
use crate::spread::Needed;
use crate::state::key_index::KeyIndex;
use crate::state::{Handle, Owner, State, check_columns};
use crate::time::EventTime;

/// The column of a snapshot that says which keys have no row any more; it is there if some have none.
const GONE: &str = "_gone";
/// Keys without a row that are not worth a new index.
const FEW: usize = 1024;
/// Keys of which is said at a time what has become of their rows.
const PIECE: usize = 8192;

/// How rows that come with weights are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// They are those of a changelog with the same key: they are added up over the epoch, so their order in it does not
    /// matter.
    Netted,
    /// Each is said of what there is when it comes. A row that is taken back takes the row of its key along where that has
    /// the values that it gives; nulls give none, nor do the columns `beside`.
    InOrder {
        /// Columns that tell rows, not what is in them.
        beside: Vec<usize>,
    },
}

/// The description.
#[derive(Clone, Debug)]
pub struct Upsert {
    /// The key's columns.
    pub key: Vec<usize>,
    /// The schema of the rows.
    pub schema: SchemaRef,
    /// What weights say.
    pub weights: Weights,
}

impl OperatorSpec for Upsert {
    fn name(&self) -> &'static str {
        "upsert"
    }

    fn describe(&self) -> String {
        let names: Vec<_> = self.key.iter().map(|k| self.schema.field(*k).name().as_str()).collect();
        format!("by {}", names.join(", "))
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn state_bound(&self) -> StateBound {
        let names: Vec<_> = self.key.iter().map(|k| self.schema.field(*k).name().as_str()).collect();
        StateBound::Keys(names.join(", "))
    }

    fn fingerprint(&self) -> Option<String> {
        let key: Vec<_> = self.key.iter().map(|k| format!("column {}", k + 1)).collect();
        let types: Vec<_> = self.schema.fields().iter().map(|f| sql_name(f.data_type())).collect();
        Some(format!("rows of ({}) by {}", types.join(", "), key.join(", ")))
    }

    fn needs(&self, _port: usize) -> Needed {
        Needed::hash(self.key.clone())
    }

    fn place_of(&self, _port: usize, column: usize) -> Option<usize> {
        Some(column)
    }

    fn build(&self, context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        let rows = context.state.open("rows", Rows::new(&self.key, &self.schema)?);
        let said = match &self.weights {
            Weights::Netted => None,
            Weights::InOrder { beside } => {
                let told = |column: &usize| !self.key.contains(column) && !beside.contains(column);
                Some((0..self.schema.fields().len()).filter(told).collect())
            }
        };
        Ok(Box::new(Running { key: self.key.clone(), schema: self.schema.clone(), said, rows }))
    }
}

/// The last row of each key.
struct Rows {
    key: Vec<usize>,
    schema: SchemaRef,
    index: KeyIndex,
    converter: RowConverter,
    rows: Vec<Option<OwnedRow>>,
    /// How many keys have no row.
    gone: usize,
    /// What changelogs have said in this epoch, added up.
    netted: HashMap<OwnedRow, i64>,
    /// What they have said of the rows that are there, by slot: without a copy of each row when many are taken back. Only while no
    /// row has changed in this epoch.
    said: HashMap<u32, i64>,
    netted_bytes: usize,
    /// The index was made anew: only a full snapshot tells what is gone.
    renewed: bool,
    /// The rows that keys touched in this epoch had before it.
    before: Vec<(u32, Option<OwnedRow>)>,
    /// Those of the epoch that has ended of which is still to be said what has become of them.
    saying: std::vec::IntoIter<(u32, Option<OwnedRow>)>,
    touched: Vec<bool>,
    dirty: Vec<u32>,
    is_dirty: Vec<bool>,
    bytes: usize,
}

impl Rows {
    fn new(key: &[usize], schema: &SchemaRef) -> Result<Self> {
        let keys: Vec<_> = key.iter().map(|k| schema.field(*k).clone()).collect();
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        Ok(Rows {
            key: key.to_vec(),
            schema: schema.clone(),
            index: KeyIndex::new(&Schema::new(keys))?,
            converter: RowConverter::new(fields)?,
            rows: vec![],
            gone: 0,
            netted: HashMap::new(),
            said: HashMap::new(),
            netted_bytes: 0,
            renewed: false,
            before: vec![],
            saying: vec![].into_iter(),
            touched: vec![],
            dirty: vec![],
            is_dirty: vec![],
            bytes: 0,
        })
    }

    fn keys(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.key.iter().map(|k| rows.column(*k).clone()).collect()
    }

    /// The slots of the keys of `rows`.
    fn slots(&mut self, rows: &RecordBatch) -> Result<Vec<u32>> {
        let mut slots = vec![];
        self.index.intern(&self.keys(rows), rows.num_rows(), &mut slots)?;
        let n = self.index.len();
        self.gone += n - self.rows.len();
        self.rows.resize(n, None);
        self.touched.resize(n, false);
        self.is_dirty.resize(n, false);
        Ok(slots)
    }

    /// Puts each of `rows` in the place of the one with its key.
    fn put(&mut self, rows: &RecordBatch) -> Result<()> {
        let slots = self.slots(rows)?;
        let encoded = self.converter.convert_columns(rows.columns())?;
        for (i, slot) in slots.iter().enumerate() {
            self.replace(*slot, Some(encoded.row(i).owned()));
        }
        Ok(())
    }

    /// Takes those of `rows` back that are there.
    fn take(&mut self, rows: &RecordBatch) -> Result<()> {
        let slots = self.slots(rows)?;
        let encoded = self.converter.convert_columns(rows.columns())?;
        for (i, slot) in slots.iter().enumerate() {
            if self.rows[*slot as usize].as_ref().is_some_and(|row| row.row() == encoded.row(i)) {
                self.replace(*slot, None);
            }
        }
        Ok(())
    }

    fn replace(&mut self, slot: u32, row: Option<OwnedRow>) {
        let at = slot as usize;
        let is_gone = row.is_none();
        self.bytes += row.as_ref().map_or(0, row_size);
        let old = std::mem::replace(&mut self.rows[at], row);
        self.bytes -= old.as_ref().map_or(0, row_size);
        self.gone = self.gone + usize::from(is_gone) - usize::from(old.is_none());
        if !self.touched[at] {
            self.touched[at] = true;
            self.before.push((slot, old));
        }
        if !self.is_dirty[at] {
            self.is_dirty[at] = true;
            self.dirty.push(slot);
        }
    }

    /// Does what rows of a changelog say, one after the other; `said` are the columns that those give which are taken back.
    fn follow(&mut self, rows: &RecordBatch, weights: &[i64], said: &[usize]) -> Result<()> {
        let slots = self.slots(rows)?;
        let encoded = self.converter.convert_columns(rows.columns())?;
        for (i, (slot, weight)) in slots.iter().zip(weights).enumerate() {
            match &self.rows[*slot as usize] {
                _ if *weight > 0 => self.replace(*slot, Some(encoded.row(i).owned())),
                Some(held) if held.row() == encoded.row(i) || self.agrees(held, rows, i, said)? => {
                    self.replace(*slot, None);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether `held` has all values that row `i` of `rows` gives in the columns `said`.
    fn agrees(&self, held: &OwnedRow, rows: &RecordBatch, i: usize, said: &[usize]) -> Result<bool> {
        let mut given = said.iter().filter(|column| rows.column(**column).is_valid(i)).peekable();
        if given.peek().is_none() {
            return Ok(true);
        }
        let held = self.converter.convert_rows([held.row()])?;
        for column in given {
            let compare = make_comparator(&held[*column], rows.column(*column), SortOptions::default())?;
            if compare(0, i).is_ne() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds up rows of a changelog.
    fn net(&mut self, rows: &RecordBatch, weights: &[i64]) -> Result<()> {
        let slots = self.slots(rows)?;
        let encoded = self.converter.convert_columns(rows.columns())?;
        for ((row, slot), weight) in encoded.iter().zip(slots).zip(weights) {
            let is_there = self.rows[slot as usize].as_ref().is_some_and(|held| held.row() == row);
            match is_there && self.before.is_empty() {
                true => *self.said.entry(slot).or_default() += weight,
                false => self.add_up(row.owned(), *weight),
            }
        }
        Ok(())
    }

    fn add_up(&mut self, row: OwnedRow, weight: i64) {
        let size = row_size(&row);
        *self.netted.entry(row).or_insert_with(|| {
            self.netted_bytes += size;
            0
        }) += weight;
    }

    /// Rows are about to change: what was said of those that are there is kept with them.
    fn keep_said(&mut self) {
        for (slot, weight) in std::mem::take(&mut self.said) {
            if let Some(row) = self.rows[slot as usize].clone() {
                self.add_up(row, weight);
            }
        }
    }

    /// Does what changelogs have said.
    fn settle(&mut self) -> Result<()> {
        let said = std::mem::take(&mut self.said);
        said.into_iter().filter(|(_, weight)| *weight < 0).for_each(|(slot, _)| self.replace(slot, None));
        let netted = std::mem::take(&mut self.netted);
        self.netted_bytes = 0;
        for (is_put, sign) in [(false, -1), (true, 1)] {
            let rows = netted.iter().filter(|(_, weight)| weight.signum() == sign).map(|(row, _)| row.row());
            let columns = self.converter.convert_rows(rows)?;
            let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
            match is_put {
                true => self.put(&rows)?,
                false => self.take(&rows)?,
            }
        }
        Ok(())
    }

    /// Makes the index anew where most keys have no row.
    fn renew(&mut self) -> Result<()> {
        if self.gone <= FEW || self.gone <= self.rows.len() / 2 {
            return Ok(());
        }
        let anew = Rows::new(&self.key, &self.schema)?;
        let old = std::mem::replace(self, anew);
        let mut held = old.rows.iter().flatten().map(|row| row.row()).peekable();
        while held.peek().is_some() {
            let columns = old.converter.convert_rows(held.by_ref().take(PIECE))?;
            self.put(&RecordBatch::try_new(self.schema.clone(), columns)?)?;
        }
        self.forget_before();
        self.renewed = true;
        Ok(())
    }

    /// The present rows are those before the next epoch.
    fn forget_before(&mut self) {
        for (slot, _) in std::mem::take(&mut self.before) {
            self.touched[slot as usize] = false;
        }
    }

    /// Ends the epoch: what it has changed is to be said.
    fn end(&mut self) -> Result<()> {
        if !self.netted.is_empty() || !self.said.is_empty() {
            self.settle()?;
        }
        self.saying = std::mem::take(&mut self.before).into_iter();
        Ok(())
    }

    /// Says what the epoch has changed, or as much of it as there is room for.
    fn say(&mut self, out: &mut Output) -> Result<()> {
        while out.has_room() {
            let piece: Vec<_> = self.saying.by_ref().take(PIECE).collect();
            if piece.is_empty() {
                return self.renew();
            }
            self.difference(&piece)?.into_iter().for_each(|changes| out.emit(changes));
        }
        out.come_back();
        Ok(())
    }

    /// What has become of rows that slots had before the epoch.
    fn difference(&mut self, before: &[(u32, Option<OwnedRow>)]) -> Result<Option<Changes>> {
        let (mut rows, mut weights) = (vec![], vec![]);
        for (slot, old) in before {
            self.touched[*slot as usize] = false;
            let new = self.rows[*slot as usize].as_ref();
            if old.as_ref().map(|o| o.row()) == new.map(|n| n.row()) {
                continue;
            }
            for (row, weight) in [(old.as_ref(), -1), (new, 1)] {
                if let Some(row) = row {
                    rows.push(row.row());
                    weights.push(weight);
                }
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let batch = RecordBatch::try_new(self.schema.clone(), self.converter.convert_rows(rows)?)?;
        Ok(Some(Changes::weighted(batch, weights.into())?))
    }

    /// A snapshot of `rows` that also tells of the keys of `gone`.
    fn with_gone(&self, rows: &RecordBatch, gone: &[u32]) -> Result<RecordBatch> {
        let nullable = self.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let fields = nullable.chain([Field::new(GONE, DataType::Boolean, false)]).collect::<Vec<_>>();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let marked = |mut columns: Vec<ArrayRef>, n: usize, is_gone: bool| {
            columns.push(Arc::new(BooleanArray::from(vec![is_gone; n])));
            RecordBatch::try_new(schema.clone(), columns)
        };
        let mut columns: Vec<_> =
            self.schema.fields().iter().map(|f| new_null_array(f.data_type(), gone.len())).collect();
        for (at, key) in self.key.iter().zip(self.index.gather(gone)?) {
            columns[*at] = key;
        }
        let parts = [marked(rows.columns().to_vec(), rows.num_rows(), false)?, marked(columns, gone.len(), true)?];
        Ok(concat_batches(&schema, &parts)?)
    }

    /// Those of `rows` whose keys belong to `owner`.
    fn mine(&self, rows: &RecordBatch, owner: Owner) -> Result<RecordBatch> {
        let mut hashes = vec![];
        hash_rows(&self.keys(rows), rows.num_rows(), &mut hashes)?;
        owner.part_of(rows, &hashes)
    }
}

/// The bytes of a row, with what keeps it.
fn row_size(row: &OwnedRow) -> usize {
    row.as_ref().len() + 24
}

impl State for Rows {
    fn snapshot(&mut self, full: bool) -> Result<Vec<RecordBatch>> {
        let dirty = std::mem::take(&mut self.dirty);
        for s in &dirty {
            self.is_dirty[*s as usize] = false;
        }
        let slots: Vec<u32> = if full { (0..self.rows.len() as u32).collect() } else { dirty };
        if slots.is_empty() && !full {
            return Ok(vec![]);
        }
        self.renewed &= !full;
        let rows = slots.iter().filter_map(|s| self.rows[*s as usize].as_ref()).map(|r| r.row());
        let rows = RecordBatch::try_new(self.schema.clone(), self.converter.convert_rows(rows)?)?;
        let gone: Vec<u32> = slots.into_iter().filter(|s| !full && self.rows[*s as usize].is_none()).collect();
        Ok(vec![if gone.is_empty() { rows } else { self.with_gone(&rows, &gone)? }])
    }

    fn restore(&mut self, rows: &RecordBatch, owner: Owner) -> Result<()> {
        let all = self.schema.fields().len();
        let (mut rows, gone) = (rows.clone(), rows.column_by_name(GONE).filter(|_| rows.num_columns() > all));
        let gone = gone.and_then(|gone| gone.as_boolean_opt().cloned());
        let mut vanished = None;
        if let Some(gone) = gone {
            let both = rows.project(&(0..all).collect::<Vec<_>>())?;
            vanished = Some(filter_record_batch(&both, &gone)?);
            rows = filter_record_batch(&both, &not(&gone)?)?;
        }
        check_columns(rows.schema_ref(), &self.schema)?;
        let mine = self.mine(&rows, owner)?;
        self.put(&RecordBatch::try_new(self.schema.clone(), mine.columns().to_vec())?)?;
        if let Some(vanished) = vanished {
            let mine = self.mine(&vanished, owner)?;
            self.slots(&mine)?.into_iter().for_each(|slot| self.replace(slot, None));
        }
        Ok(())
    }

    fn needs_full(&self) -> bool {
        self.renewed
    }

    fn reserve(&mut self, rows: usize) {
        if self.rows.is_empty() {
            self.index.reserve(rows);
            self.rows.reserve(rows);
        }
    }

    fn restored(&mut self, _watermark: EventTime) -> Result<()> {
        self.forget_before();
        self.renew()
    }

    fn bytes(&self) -> usize {
        let slots = self.rows.capacity() * size_of::<Option<OwnedRow>>() + self.touched.capacity() * 2;
        let said = self.said.capacity() * (size_of::<(u32, i64)>() + 1);
        self.bytes + self.netted_bytes + said + self.index.bytes() + slots
    }

    fn growth(&self, rows: usize) -> usize {
        let doubles = self.index.len() + rows > self.rows.capacity();
        let slots = self.rows.capacity() * size_of::<Option<OwnedRow>>() + self.index.column_bytes();
        self.index.growth(rows) + if doubles { slots / 2 * 3 } else { 0 }
    }
}

struct Running {
    key: Vec<usize>,
    schema: SchemaRef,
    /// Where weights are followed in order, the columns that rows give which are taken back.
    said: Option<Vec<usize>>,
    rows: Handle<Rows>,
}

impl Operator for Running {
    fn on_changes(&mut self, _port: usize, changes: Changes, _out: &mut Output) -> Result<()> {
        debug_assert!(!self.key.is_empty());
        let columns = changes.rows().columns().to_vec();
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        self.rows.with_rows(rows.num_rows(), |r| match (changes.weights(), &self.said) {
            (Some(weights), None) => r.net(&rows, weights),
            (Some(weights), Some(said)) => r.follow(&rows, weights, said),
            (None, _) => {
                r.keep_said();
                r.put(&rows)
            }
        })
    }

    fn on_epoch(&mut self, _mark: &EpochMark, out: &mut Output) -> Result<()> {
        self.rows.with(|rows| {
            rows.end()?;
            rows.say(out)
        })
    }

    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        self.rows.with(|rows| rows.say(out))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};

    use super::*;
    use crate::testing::Bench;
    use crate::testing::Step::{Mark, Recover, Rows as Given};
    use crate::testing::{check, parse, show};

    fn schema() -> SchemaRef {
        let fields = [("k", DataType::Utf8View), ("v", DataType::Int64)];
        Arc::new(Schema::new(fields.map(|(n, t)| Field::new(n, t, n != "k")).to_vec()))
    }

    fn upsert() -> Arc<Upsert> {
        Arc::new(Upsert { key: vec![0], schema: schema(), weights: Weights::Netted })
    }

    #[test]
    fn a_changelog_takes_rows_back() {
        let script = [
            Given("+1 a 1; +1 b 2; +1 c 3"),
            Mark(0, "+1 a 1; +1 b 2; +1 c 3"),
            Given("-1 a 1; +1 b 4; -1 b 2; -1 d 9"),
            Mark(0, "-1 a 1; -1 b 2; +1 b 4"),
            Recover,
            // What is not there any more is not taken back.
            Given("-1 b 2; -1 a 1"),
            Mark(0, ""),
            Given("-1 b 4; -1 c 3; +1 a 5"),
            Mark(0, "-1 b 4; -1 c 3; +1 a 5"),
            Recover,
            Given("+1 b 6"),
            Mark(0, "+1 b 6"),
            Recover,
            Given("+1 a 7; +1 c null"),
            Mark(0, "-1 a 5; +1 a 7; +1 c null"),
        ];
        check(upsert(), &schema(), &script).expect("the content");
    }

    #[test]
    fn rows_are_taken_back_in_their_order() {
        let upsert = Upsert { weights: Weights::InOrder { beside: vec![] }, ..upsert().as_ref().clone() };
        let script = [
            // What comes after is not taken back by what came before.
            Given("+1 a 1; -1 a 1; +1 a 1; +1 b 1; -1 b 1; +1 c 2"),
            Mark(0, "+1 a 1; +1 c 2"),
            // A row that is not there any more; one that only its key tells; one that comes again in the same epoch.
            Given("-1 a 7; -1 c null; +1 d 4; -1 d 4; -1 d null; +1 d 5"),
            Mark(0, "-1 c 2; +1 d 5"),
            Recover,
            Given("-1 a 1; +1 c 3; -1 d 4"),
            Mark(0, "-1 a 1; +1 c 3"),
            Recover,
            Given("+1 a 2; +1 c 4"),
            Mark(0, "+1 a 2; -1 c 3; +1 c 4"),
        ];
        check(Arc::new(upsert), &schema(), &script).expect("the content");
    }

    #[test]
    fn columns_beside_the_content_need_not_agree() {
        let upsert = Upsert { weights: Weights::InOrder { beside: vec![1] }, ..upsert().as_ref().clone() };
        let script = [Given("+1 a 1; +1 b 2; -1 a 9"), Mark(0, "+1 b 2")];
        check(Arc::new(upsert), &schema(), &script).expect("the content");
    }

    /// `k` goes from 1 to 2 to 3 by the words of two tasks, in any order and however they are cut.
    #[test]
    fn the_order_within_an_epoch_does_not_matter() {
        let words = ["-1 k 1", "+1 k 2", "-1 k 2", "+1 k 3"];
        for order in 0..24 {
            let mut left = words.to_vec();
            let mut bench = Bench::new(upsert()).expect("builds");
            bench.changes(0, parse(&schema(), "+1 k 1").expect("a row")).expect("room");
            bench.mark(EventTime(0)).expect("an epoch");
            let mut n = order;
            while !left.is_empty() {
                let word = left.remove(n % left.len());
                n /= left.len() + 1;
                let (rows, weights) = parse(&schema(), word).expect("a row").into_parts();
                let weights = weights.unwrap_or_else(|| vec![1].into());
                bench.changes(0, Changes::of_changelog(rows, weights).expect("a weight")).expect("room");
            }
            let said = bench.mark(EventTime(0)).expect("an epoch");
            let mut said: Vec<String> = said.iter().flat_map(|c| show(c).expect("shows")).collect();
            said.sort();
            assert_eq!(said, ["+1 k 3", "-1 k 1"], "order {order}");
        }
    }

    /// What is said of rows that are there is kept by slot, until a row that stands alone takes the place of one.
    #[test]
    fn words_and_rows_within_an_epoch() {
        let script = [
            Given("+1 a 1; +1 b 2"),
            Mark(0, "+1 a 1; +1 b 2"),
            Given("-1 a 1"),
            Given("+1 b 7"),
            Given("-1 b 2; +1 c 3"),
            Mark(0, "-1 a 1; -1 b 2; +1 b 7; +1 c 3"),
            Recover,
            Given("-1 b 7; -1 c 3"),
            Given("-1 d 4; +1 b 7"),
            Mark(0, "-1 c 3"),
            Given("-1 b 7; +1 b 8; +1 c 3; -1 c 3"),
            Mark(0, "-1 b 7; +1 b 8"),
        ];
        check(upsert(), &schema(), &script).expect("the content");
    }

    #[test]
    fn many_rows_are_taken_back_without_a_copy_of_each_and_told_in_pieces() {
        let n = 120_000;
        let keys = StringViewArray::from_iter_values((0..n).map(|k| format!("the key of row {k}")));
        let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(Int64Array::from_iter_values(0..n))];
        let rows = RecordBatch::try_new(schema(), columns).expect("two columns");
        let mut bench = Bench::new(upsert()).expect("builds");
        bench.changes(0, Changes::insertions(rows.clone())).expect("room");
        bench.mark(EventTime(0)).expect("an epoch");
        let (full, rounds) = (bench.bytes(), bench.rounds());
        bench.changes(0, Changes::retractions(rows)).expect("room");
        assert!(bench.bytes() < full / 10 * 14, "{} of {full} bytes", bench.bytes());
        let said = bench.mark(EventTime(0)).expect("an epoch");
        assert_eq!(said.iter().map(Changes::num_rows).sum::<usize>(), n as usize);
        assert!(bench.rounds() > rounds, "all at once");
    }

    #[test]
    fn keys_without_a_row_are_forgotten() {
        let all = |weight: i64, from: usize, to: usize| {
            (from..to).map(|k| format!("{weight:+} k{k} {k}")).collect::<Vec<_>>().join("; ")
        };
        let mut bench = Bench::new(upsert()).expect("builds");
        let say = |bench: &mut Bench, text: String, expected: usize| {
            bench.changes(0, parse(&schema(), &text).expect("rows")).expect("room");
            let said = bench.mark(EventTime(0)).expect("an epoch");
            assert_eq!(said.iter().map(Changes::num_rows).sum::<usize>(), expected);
        };
        say(&mut bench, all(1, 0, 5_000), 5_000);
        assert_eq!(bench.checkpoint().expect("writes"), 5_000);
        let full = bench.bytes();
        say(&mut bench, all(-1, 0, 100), 100);
        assert_eq!(bench.checkpoint().expect("writes"), 5_100, "a hundred are told to be gone");
        bench.recover().expect("restores");
        say(&mut bench, all(-1, 100, 4_000), 3_900);
        assert!(bench.bytes() < full / 2, "{} of {full} bytes", bench.bytes());
        assert_eq!(bench.checkpoint().expect("writes"), 1_000, "what is gone is told by a full one");
        bench.recover().expect("restores");
        say(&mut bench, all(-1, 3_990, 4_010), 10);
        say(&mut bench, all(1, 0, 5_000), 4_010);
    }
}
