//! Standard input has one reader at a time: two would each get a part of it.

use millstream_engine::runtime::{JobHandle, JobPhase, JobStatus};
use tokio::sync::watch;

use super::Millstream;
use crate::error::{Error, Result};

/// A job that reads standard input.
pub(super) struct StdinReader {
    name: String,
    status: watch::Receiver<JobStatus>,
}

impl StdinReader {
    fn reads_on(&self) -> bool {
        // A job that was aborted tells no more.
        self.status.borrow().phase == JobPhase::Running && self.status.has_changed().is_ok()
    }
}

impl Millstream {
    /// Errors when one of the streams `reads` is standard input, which another job than that of `name` reads
    /// already.
    pub(super) fn refuse_second_stdin(&self, name: &str, reads: &[String]) -> Result<()> {
        let Some(stream) = self.stdin_among(reads) else { return Ok(()) };
        match &*self.stdin.lock() {
            Some(reader) if reader.reads_on() && reader.name != name => Err(Error::unsupported(format!(
                "stream \"{stream}\" is standard input, which {} reads already",
                reader.name
            ))
            .with_hint("Read it once, into a stream AS SELECT * FROM it, and derive the others from that.")),
            _ => Ok(()),
        }
    }

    /// Notes that `job`, which messages call `name`, reads standard input, if that is among `reads`.
    pub(super) fn note_stdin(&self, name: &str, reads: &[String], job: &JobHandle) {
        if self.stdin_among(reads).is_some() {
            *self.stdin.lock() = Some(StdinReader { name: name.to_owned(), status: job.watch() });
        }
    }

    fn stdin_among(&self, reads: &[String]) -> Option<String> {
        let objects = self.objects.read();
        let stdin = |name: &&String| {
            let connector = objects.streams.get(*name).and_then(|d| d.connector.as_ref());
            connector.and_then(|(connector, _)| connector.source()).is_some_and(|source| source.is_single())
        };
        reads.iter().find(stdin).cloned()
    }
}
