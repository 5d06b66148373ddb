//! Reading a range of a log's rows: from memory where the last commits are kept, else from the files.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::committed::FileEntry;
use super::handout::{FirstBase, Open};
use super::log::StreamLog;
use super::parquet_file::open_rows;
use crate::changelog::{OP, weights};
use crate::changes::Changes;
use crate::connector::{Read, UnitReader};
use crate::error::{Error, Result};
use crate::format::stored::cast_rows;
use crate::store::Store;

/// Where the rows are.
pub(super) enum Rows {
    Memory(std::vec::IntoIter<Changes>),
    Closed,
    /// A file, which it is, and the row of the log before which what is read of it ends.
    File(Box<ParquetRecordBatchReader>, FileEntry, u64),
}

/// See the module's text.
pub(super) struct Reader {
    pub(super) log: Arc<StreamLog>,
    /// That of the log. A job waits for it as long as it takes.
    pub(super) store: Store,
    pub(super) projection: Vec<usize>,
    pub(super) schema: SchemaRef,
    /// The base to which the unit belongs.
    pub(super) first: Option<Arc<FirstBase>>,
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) rows: Rows,
    pub(super) said: bool,
    pub(super) _open: Open,
}

impl Reader {
    /// Opens the file that holds row `at`. Once it is open, it does not matter when it is replaced.
    async fn open_file(&mut self) -> Result<()> {
        let _hold = self.log.hold();
        let file = match &self.first {
            Some(first) => first.file.clone(),
            None => self.file()?,
        };
        let mut names: Vec<String> = self.schema.fields().iter().map(|f| f.name().clone()).collect();
        if self.log.is_changelog() {
            names.push(OP.to_owned());
        }
        let range = self.at - file.start..(self.end - file.start).min(file.rows);
        let path = self.log.path(&file.name);
        let last = file.start + range.end;
        let rows = open_rows(&self.store, &path, range, &names).await?;
        self.rows = Rows::File(Box::new(rows), file, last);
        Ok(())
    }

    /// The file with row `at` of the log.
    fn file(&self) -> Result<FileEntry> {
        let mut files = self.log.snapshot().files;
        let place = files.partition_point(|f| f.end() <= self.at);
        match files.get_mut(place).map(std::mem::take) {
            None => Err(Error::data(format!("stream \"{}\" has no file with row {}", self.log.name(), self.at))),
            Some(base) if base.upto.is_some() => Err(self.log.behind(self.at)),
            Some(file) => Ok(file),
        }
    }

    /// Columns as the stream declares them, in the order asked for, with their weights.
    fn changes(&self, batch: RecordBatch) -> Result<Changes> {
        let n = batch.num_rows();
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for f in self.schema.fields() {
            let column = batch.column_by_name(f.name());
            columns.push(column.cloned().ok_or_else(|| Error::data(format!("no column \"{}\"", f.name())))?);
        }
        let found: Vec<_> = self
            .schema
            .fields()
            .iter()
            .zip(&columns)
            .map(|(f, c)| Arc::new(f.as_ref().clone().with_data_type(c.data_type().clone()).with_nullable(true)))
            .collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(n));
        let raw = RecordBatch::try_new_with_options(Arc::new(Schema::new(found)), columns, &options)?;
        let rows = cast_rows(&raw, &self.schema)?;
        match batch.column_by_name(OP).filter(|_| self.log.is_changelog()) {
            Some(ops) => Changes::weighted(rows, weights(ops)?),
            None => Ok(Changes::insertions(rows)),
        }
    }

    async fn step(&mut self) -> Result<Option<Changes>> {
        loop {
            match &mut self.rows {
                Rows::Memory(batches) => {
                    let Some(next) = batches.next() else { return Ok(None) };
                    let rows = next.rows().project(&self.projection)?;
                    return Ok(Some(next.with_rows(rows)));
                }
                Rows::Closed if self.at >= self.end => return Ok(None),
                Rows::Closed => self.open_file().await?,
                Rows::File(reader, file, last) => match reader.next() {
                    Some(batch) => {
                        let batch = batch?;
                        return Ok(Some(self.changes(batch)?));
                    }
                    None if self.at < *last => return Err(self.log.too_short(file, self.at - file.start)),
                    None => {
                        // Behind the last row of a base nothing of it is left.
                        if file.upto.is_some() && *last == file.rows {
                            self.at = self.end;
                        }
                        self.rows = Rows::Closed;
                    }
                },
            }
        }
    }
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        match self.step().await? {
            Some(rows) => {
                self.at += rows.num_rows() as u64;
                Ok(Some(Read::rows(rows, self.at)))
            }
            None if !self.said => {
                // Behind the last row of the unit the log's watermark holds.
                self.said = true;
                let rows = Changes::empty(self.schema.clone());
                Ok(Some(Read { watermark: self.log.watermark_at(self.end), ..Read::rows(rows, self.end) }))
            }
            None => Ok(None),
        }
    }
}
