//! Rows that are kept aside until all of them have come, in memory while they are few, then in a file that has no name:
//! it goes with whoever reads it, whatever happens to the process.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom};
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use tokio::task::spawn_blocking;

use crate::changes::row_bytes;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::MemoryAccount;

/// What is kept in memory.
const HELD_BYTES: usize = 4 << 20;
/// What is written and read at a time.
const BUFFER: usize = 1 << 20;

/// Takes rows in.
pub struct Spool {
    folder: PathBuf,
    schema: SchemaRef,
    rows: u64,
    held: Vec<RecordBatch>,
    /// Their bytes, as a part of the budget.
    held_bytes: MemoryAccount,
    file: Option<StreamWriter<BufWriter<File>>>,
}

/// Rows that are all there.
pub struct Spooled {
    rows: u64,
    kept: Kept,
}

enum Kept {
    Memory { rows: std::vec::IntoIter<RecordBatch>, _held: MemoryAccount },
    File(Box<StreamReader<BufReader<File>>>),
}

impl Spool {
    /// For rows of `schema`; what does not fit into memory, of which `held` is a part, goes into a file in `folder`.
    pub fn new(folder: impl Into<PathBuf>, schema: SchemaRef, held: MemoryAccount) -> Self {
        Spool { folder: folder.into(), schema, rows: 0, held: vec![], held_bytes: held, file: None }
    }

    /// Adds rows of its schema.
    ///
    /// Errors with `Exhausted` when the disk is full, or the budget has no room for rows that come in one piece.
    pub async fn add(mut self, rows: RecordBatch) -> Result<Self> {
        if rows.num_rows() == 0 {
            return Ok(self);
        }
        self.rows += rows.num_rows() as u64;
        let more = row_bytes(&rows);
        self.held_bytes.resize_large(self.held_bytes.held() + more)?;
        self.held.push(rows);
        if self.held_bytes.held() < HELD_BYTES && !self.held_bytes.is_pressed() {
            return Ok(self);
        }
        blocking(move || {
            self.write()?;
            Ok(self)
        })
        .await
    }

    /// All rows have come.
    pub async fn finish(mut self) -> Result<Spooled> {
        if self.file.is_none() {
            return Ok(Spooled {
                rows: self.rows,
                kept: Kept::Memory { rows: self.held.into_iter(), _held: self.held_bytes },
            });
        }
        blocking(move || {
            self.write()?;
            let Some(mut writer) = self.file.take() else { return Err(Error::internal("a spool without a file")) };
            writer.finish().map_err(failed)?;
            let file = writer.into_inner().map_err(failed)?;
            let mut file = file.into_inner().map_err(|e| Error::from(e.into_error()).context(KEPT))?;
            file.seek(SeekFrom::Start(0))?;
            let reader = StreamReader::try_new(BufReader::with_capacity(BUFFER, file), None)?;
            Ok(Spooled { rows: self.rows, kept: Kept::File(Box::new(reader)) })
        })
        .await
    }

    /// Blocks on the disk.
    fn write(&mut self) -> Result<()> {
        let mut writer = match self.file.take() {
            Some(writer) => writer,
            None => {
                let file = tempfile::tempfile_in(&self.folder).map_err(|e| Error::from(e).context(KEPT))?;
                StreamWriter::try_new(BufWriter::with_capacity(BUFFER, file), &self.schema).map_err(failed)?
            }
        };
        for rows in self.held.drain(..) {
            writer.write(&rows).map_err(failed)?;
        }
        self.held_bytes.set(0);
        self.file = Some(writer);
        Ok(())
    }
}

impl Spooled {
    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The next of them.
    pub async fn next(mut self) -> Result<Option<(RecordBatch, Self)>> {
        if let Kept::Memory { rows, .. } = &mut self.kept {
            return Ok(rows.next().map(|rows| (rows, self)));
        }
        blocking(move || {
            let Kept::File(reader) = &mut self.kept else { return Ok(None) };
            Ok(reader.next().transpose()?.map(|rows| (rows, self)))
        })
        .await
    }
}

/// Makes `folder`, and takes out of it what a crash has left of files that were about to lose their name.
pub async fn sweep(folder: PathBuf) -> Result<()> {
    blocking(move || {
        let sweep = || {
            fs::create_dir_all(&folder)?;
            fs::read_dir(&folder)?.try_for_each(|entry| fs::remove_file(entry?.path()))
        };
        sweep().map_err(|e: io::Error| Error::from(e).context(KEPT))
    })
    .await
}

const KEPT: &str = "rows cannot be kept until all have come";

/// A full disk is no fault of the rows.
fn failed(e: arrow::error::ArrowError) -> Error {
    match e {
        arrow::error::ArrowError::IoError(_, e) => Error::from(e).context(KEPT),
        e => Error::new(ErrorKind::Internal, e.to_string()).with_source(e).context(KEPT),
    }
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = |e| Error::internal(format!("a thread ended early: {e}")).with_source(e);
    spawn_blocking(run).await.map_err(ended)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringViewArray};

    use crate::memory::MemoryBudget;

    fn rows(text: &str, n: usize) -> RecordBatch {
        let column: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..n).map(|i| format!("{text} {i}"))));
        RecordBatch::try_from_iter([("t", column)]).expect("one column")
    }

    #[tokio::test]
    async fn rows_come_back_from_memory_and_from_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let long = "x".repeat(300);
        for (text, n) in [("short", 3), (long.as_str(), 9_000)] {
            let budget = MemoryBudget::new(1 << 30);
            let mut spool = Spool::new(folder.path(), rows(text, 0).schema(), budget.account("rows"));
            for _ in 0..4 {
                spool = spool.add(rows(text, n)).await.expect("room");
            }
            assert_eq!(spool.file.is_some(), n > 3);
            assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "the file has no name");
            let mut spooled = spool.finish().await.expect("whole");
            assert_eq!(spooled.rows(), 4 * n as u64);
            let mut seen = 0;
            while let Some((batch, rest)) = spooled.next().await.expect("reads") {
                assert_eq!(batch, rows(text, n));
                (seen, spooled) = (seen + 1, rest);
            }
            assert_eq!((seen, budget.used()), (4, 0));
        }
    }

    #[tokio::test]
    async fn what_a_crash_has_left_goes() {
        let store = tempfile::tempdir().expect("a folder");
        let folder = store.path().join("sources").join("0");
        sweep(folder.clone()).await.expect("is made");
        fs::write(folder.join(".tmpAbC"), "rows").expect("a file");
        sweep(folder.clone()).await.expect("is swept");
        assert_eq!(fs::read_dir(folder).expect("a folder").count(), 0);
    }

    #[tokio::test]
    async fn rows_that_wait_are_a_part_of_the_budget() {
        let folder = tempfile::tempdir().expect("a folder");
        let budget = MemoryBudget::new(2 << 20);
        let long = rows(&"x".repeat(300), 3_000);
        let spool = Spool::new(folder.path(), long.schema(), budget.account("rows put into stream \"s\""));
        let spool = spool.add(long.clone()).await.expect("little");
        assert!(spool.file.is_none() && budget.used() > 900_000, "{}", budget.used());
        let spool = spool.add(long.clone()).await.expect("little");
        assert!(spool.file.is_some() && budget.used() == 0, "memory was short");
        let message = rows(&"x".repeat(300), 20_000);
        let e = spool.add(message).await.err().expect("does not fit");
        assert_eq!(e.kind(), ErrorKind::Exhausted);
        assert!(e.message().contains("rows put into stream \"s\""), "{e}");
        assert_eq!(budget.used(), 0);
    }
}
