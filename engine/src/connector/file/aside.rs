//! What cannot be read of a file: put aside as a dead letter, so that the other files go on, or given back until the
//! file is found again.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use super::units::Report;
use crate::changes::Changes;
use crate::connector::{DeadLetter, Read, Unit, UnitReader};
use crate::error::{Error, ErrorKind, Result};

/// Whether an error is about the file, and not about this process.
fn is_of_file(e: &Error) -> bool {
    !matches!(e.kind(), ErrorKind::Internal | ErrorKind::Cancelled | ErrorKind::Exhausted | ErrorKind::Fenced)
}

/// Puts the rest of a unit aside, from `at` on, because of `error`. What has been told of the file is not
/// told again.
pub(super) fn put_aside(report: &Report, at: u64, schema: &SchemaRef, error: Error) -> Result<Read> {
    if report.fail || !is_of_file(&error) {
        return Err(error);
    }
    let Unit { split, start, end } = report.unit.clone();
    let reason = match error.hint() {
        Some(hint) => format!("{}: {hint}", error.message()),
        None => error.message().to_owned(),
    };
    let position = match end {
        // Where nothing was read, something must say that this was told.
        u64::MAX if at == 0 => 1,
        u64::MAX => at,
        end => end,
    };
    if end == u64::MAX {
        report.ended(position);
    }
    let odd = at == start && matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported);
    let new = report.queue.lock().put_aside(&split, start, &reason, odd);
    let letter = || DeadLetter { split: split.clone(), position: at, line: None, reason: reason.clone(), raw: vec![] };
    let dead = new.then(letter).into_iter().collect();
    Ok(Read { rows: Changes::empty(schema.clone()), position, dead, watermark: None })
}

/// The file of a unit has vanished: that is told, and the unit waits should it come back.
pub(super) fn vanished(report: &Report, schema: &SchemaRef) -> Result<Said> {
    let Unit { split, start, .. } = report.unit.clone();
    let reason = format!("file \"{split}\" vanished before it was read to its end");
    if report.fail {
        return Err(Error::data(reason));
    }
    let mut queue = report.queue.lock();
    queue.give_back(report.unit.clone());
    let new = queue.tell(&split, &reason);
    let letter =
        || DeadLetter { split: split.clone(), position: start, line: None, reason: reason.clone(), raw: vec![] };
    let dead = new.then(letter).into_iter().collect();
    let read = Read { rows: Changes::empty(schema.clone()), position: start, dead, watermark: None };
    Ok(Said { read: Some(read), whole: false })
}

/// Reads a unit; what is wrong with the file becomes a dead letter.
pub(super) struct Guarded {
    pub(super) reader: Box<dyn UnitReader>,
    pub(super) report: Report,
    pub(super) schema: SchemaRef,
    /// How far it has come.
    pub(super) at: u64,
    /// Whether there is no more.
    pub(super) done: bool,
}

#[async_trait]
impl UnitReader for Guarded {
    async fn next(&mut self) -> Result<Option<Read>> {
        if self.done {
            return Ok(None);
        }
        match self.reader.next().await {
            Ok(Some(read)) => {
                self.at = self.at.max(read.position);
                Ok(Some(read))
            }
            Ok(None) => Ok(None),
            Err(e) => {
                self.done = true;
                if self.report.waits(self.at, &e) {
                    return Ok(None);
                }
                put_aside(&self.report, self.at, &self.schema, e).map(Some)
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.reader.is_whole()
    }
}

/// A reader that has one thing to say, or nothing.
pub(super) struct Said {
    pub(super) read: Option<Read>,
    /// Whether the unit is done with that.
    pub(super) whole: bool,
}

#[async_trait]
impl UnitReader for Said {
    async fn next(&mut self) -> Result<Option<Read>> {
        Ok(self.read.take())
    }

    fn is_whole(&self) -> bool {
        self.whole
    }
}
