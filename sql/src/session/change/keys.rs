//! Keys that a statement remembers, to see that no two of its rows, and no other row of the stream, have the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrow::array::RecordBatch;
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use millstream_engine::float::canonical_columns;
use millstream_engine::memory::MemoryAccount;

use crate::error::{Error, Result};
use crate::session::tables::StreamDef;

/// What an entry takes besides the key itself.
const ENTRY: usize = size_of::<(OwnedRow, i64)>() + 24;

/// How many rows with each key have come, less those that have gone.
pub(super) struct Keys {
    columns: Vec<usize>,
    names: Vec<String>,
    converter: RowConverter,
    rows: HashMap<OwnedRow, i64>,
    bytes: usize,
    held: MemoryAccount,
}

impl Keys {
    /// None yet of the keys of `def`; they are a part of `held`.
    pub(super) fn new(def: &StreamDef, held: MemoryAccount) -> Result<Self> {
        let field = |at: &usize| def.schema.field(*at);
        let fields = def.primary_key.iter().map(|at| SortField::new(field(at).data_type().clone()));
        let converter = RowConverter::new(fields.collect())?;
        let names = def.primary_key.iter().map(|at| field(at).name().clone()).collect();
        Ok(Keys { columns: def.primary_key.clone(), names, converter, rows: HashMap::new(), bytes: 0, held })
    }

    /// Notes that `rows` come, or go.
    pub(super) fn add(&mut self, rows: &RecordBatch, weight: i64) -> Result<()> {
        for key in self.of(rows)? {
            self.bytes += key.row().data().len() + ENTRY;
            *self.rows.entry(key).or_default() += weight;
        }
        self.hold()
    }

    /// Notes that `rows` come. Gives which of them are the first with their keys.
    pub(super) fn claim(&mut self, rows: &RecordBatch) -> Result<Vec<bool>> {
        let mut first = vec![];
        for key in self.of(rows)? {
            let bytes = key.row().data().len() + ENTRY;
            match self.rows.entry(key) {
                Entry::Occupied(_) => first.push(false),
                Entry::Vacant(entry) => {
                    entry.insert(1);
                    self.bytes += bytes;
                    first.push(true);
                }
            }
        }
        self.hold()?;
        Ok(first)
    }

    /// Forgets the keys with as many rows as before; gives one that more than one row has come to, if there is one.
    pub(super) fn settle(&mut self) -> Result<Option<String>> {
        self.rows.retain(|_, weight| *weight > 0);
        match self.rows.iter().find(|(_, weight)| **weight > 1) {
            Some((key, _)) => self.name(key).map(Some),
            None => Ok(None),
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A key of `rows`, the columns of the key alone, that is among these.
    pub(super) fn met(&self, rows: &RecordBatch) -> Result<Option<String>> {
        let found = self.keys(rows)?.into_iter().find(|key| self.rows.contains_key(key));
        found.map(|key| self.name(&key)).transpose()
    }

    /// The first row whose key in `one` is not that in `other`.
    pub(super) fn first_difference(&self, one: &RecordBatch, other: &RecordBatch) -> Result<Option<usize>> {
        let (one, other) = (self.of(one)?, self.of(other)?);
        Ok(one.iter().zip(&other).position(|(a, b)| a != b))
    }

    /// The key of row `at` of `rows`, as a message has it.
    pub(super) fn name_of(&self, rows: &RecordBatch, at: usize) -> Result<String> {
        match self.of(&rows.slice(at, 1))?.first() {
            Some(key) => self.name(key),
            None => Err(Error::internal("a row that is not there")),
        }
    }

    fn of(&self, rows: &RecordBatch) -> Result<Vec<OwnedRow>> {
        self.keys(&rows.project(&self.columns)?)
    }

    fn keys(&self, columns: &RecordBatch) -> Result<Vec<OwnedRow>> {
        let rows = self.converter.convert_columns(&canonical_columns(columns.columns())?)?;
        Ok(rows.iter().map(|row| row.owned()).collect())
    }

    fn name(&self, key: &OwnedRow) -> Result<String> {
        let columns = self.converter.convert_rows([key.row()])?;
        let values = columns.iter().map(|column| array_value_to_string(column, 0));
        let values = values.collect::<std::result::Result<Vec<_>, _>>()?.join(", ");
        Ok(format!("({}) = ({values})", self.names.join(", ")))
    }

    fn hold(&mut self) -> Result<()> {
        self.held.resize(self.bytes).map_err(|e| {
            Error::from(e).with_hint(
                "The keys of the rows are kept until all are known: change fewer rows at a time, or raise the budget with \
                 SET memory_limit = '8GB'.",
            )
        })
    }
}
