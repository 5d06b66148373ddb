//! One file that results are appended to.
//!
//! Before bytes are appended, a small file beside the staged ones is replaced that says where in the target
//! they go. An append that a crash cut off is done again from there, and one that was done is known
//! by its staged files being gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::part::{Layout, failed, sync_folder};
use super::staged::StagedFile;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::format::write::write_header;

/// Where an append goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place {
    run: String,
    checkpoint: u64,
    /// The length of the target before, and by how much it grows.
    base: u64,
    length: u64,
}

/// The target and what has been appended to it.
pub(super) struct Appended {
    path: PathBuf,
    staging: PathBuf,
    layout: Layout,
    last: Option<Place>,
}

impl Appended {
    pub(super) fn new(path: PathBuf, staging: PathBuf, layout: Layout) -> Self {
        Appended { path, staging, layout, last: None }
    }

    fn note(&self) -> PathBuf {
        self.staging.join("appended.json")
    }

    /// The last append that was begun, from memory or from an earlier run.
    fn last(&mut self) -> Result<Option<Place>> {
        if self.last.is_none() {
            self.last = match fs::read(self.note()) {
                Ok(bytes) => Some(serde_json::from_slice(&bytes)?),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(failed(&self.note(), e)),
            };
        }
        Ok(self.last.clone())
    }

    fn open(&self) -> Result<File> {
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path);
        open.map_err(|e| failed(&self.path, e))
    }

    /// Cuts off what a crash left half appended.
    pub(super) fn start(&mut self) -> Result<()> {
        let Some(last) = self.last()? else { return Ok(()) };
        let file = self.open()?;
        let length = file.metadata().map_err(|e| failed(&self.path, e))?.len();
        // A shorter target has been replaced by its owner: it is appended to as it is.
        if length > last.base + last.length {
            file.set_len(last.base + last.length).map_err(|e| failed(&self.path, e))?;
        }
        Ok(())
    }

    /// Appends `staged`, all of one checkpoint, unless that has been done.
    pub(super) fn commit(&mut self, staged: &[StagedFile]) -> Result<()> {
        let Some(StagedFile { run, checkpoint, .. }) = staged.first().cloned() else { return Ok(()) };
        let paths: Vec<_> = staged.iter().map(|s| self.staging.join(&s.name)).collect();
        // They go only when all of them have been appended.
        if paths.iter().any(|p| !p.exists()) {
            return remove(&paths);
        }
        let last = self.last()?;
        let mut file = self.open()?;
        let now = file.metadata().map_err(|e| failed(&self.path, e))?.len();
        let base = match last {
            Some(last) if last.checkpoint == checkpoint && last.run == run => last.base,
            Some(last) => now.min(last.base + last.length),
            None => now,
        };
        let mut header = vec![];
        if base == 0 && self.layout.format == Format::Csv && self.layout.csv.header {
            write_header(&self.layout.csv, &self.layout.schema, &mut header);
            header = self.layout.compression.compress(header)?;
        }
        let mut length = header.len() as u64;
        for path in &paths {
            length += fs::metadata(path).map_err(|e| failed(path, e))?.len();
        }
        self.write_note(Place { run, checkpoint, base, length })?;
        let mut append = || -> io::Result<()> {
            file.set_len(base)?;
            file.seek(SeekFrom::Start(base))?;
            file.write_all(&header)?;
            for path in &paths {
                io::copy(&mut File::open(path)?, &mut file)?;
            }
            file.sync_all()
        };
        append().map_err(|e| failed(&self.path, e))?;
        sync_folder(&self.path)?;
        remove(&paths)
    }

    fn write_note(&mut self, place: Place) -> Result<()> {
        let (to, new) = (self.note(), self.staging.join("appended.json.new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(&place)?)?;
            file.sync_all()?;
            fs::rename(&new, &to)
        };
        write().map_err(|e: io::Error| failed(&to, e))?;
        sync_folder(&to)?;
        self.last = Some(place);
        Ok(())
    }
}

fn remove(paths: &[PathBuf]) -> Result<(), Error> {
    for path in paths {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(path, e)),
            _ => {}
        }
    }
    Ok(())
}
