//! COPY to a bucket: files are made on this machine and put in their place when all of them are whole.

use std::fs::File;
use std::path::{Path, PathBuf};

use millstream_engine::connector::file::export::{Existing, ExportRequest};
use millstream_engine::format::Format;
use millstream_engine::store::{Place, Store};
use millstream_engine::token::token;

use crate::error::{Error, ErrorKind, Result};

/// The place of a COPY in a bucket.
pub(super) struct BucketTarget {
    store: Store,
    /// Where the files are made.
    made: PathBuf,
    /// Data files that go when the new ones are there.
    replaced: Vec<String>,
}

impl BucketTarget {
    /// Sends `request` to this machine first, where its target is in a bucket. Refuses a folder with files as on a disk.
    pub(super) async fn of(request: &mut ExportRequest) -> Result<Option<Self>> {
        let target = request.target.clone();
        if !target.contains("://") {
            return Ok(None);
        }
        let last = target.rsplit('/').next().unwrap_or_default();
        let is_folder = !request.partition_by.is_empty() || Path::new(last).extension().is_none();
        let (folder, file) = match target.rsplit_once('/') {
            Some((folder, file)) if !is_folder => (folder, Some(file)),
            _ => (target.as_str(), None),
        };
        let place = Place::parse(folder)?;
        let store = Store::at(&place, &token()?).await?;
        let there = match file {
            Some(_) => vec![],
            None => store.list_below("").await?,
        };
        if !there.is_empty() && request.existing == Existing::Refuse {
            return Err(Error::new(ErrorKind::Exists, format!("folder \"{target}\" has files already")).with_hint(
                "Add OVERWRITE to the statement, which removes its data files when the new ones are there, or APPEND, which leaves them.",
            ));
        }
        let is_data = |path: &String| Format::of_name(path).is_some();
        let overwrites = request.existing == Existing::Overwrite;
        let replaced = there.into_iter().filter(|path| overwrites && is_data(path)).collect();
        let made = store.scratch().join("copy");
        let local = made.join(file.unwrap_or_default());
        request.target = local.to_string_lossy().into_owned();
        if file.is_none() {
            request.target.push('/');
        }
        Ok(Some(BucketTarget { store, made, replaced }))
    }

    /// Puts the files, which are whole, in their place.
    pub(super) async fn finish(self) -> Result<()> {
        let made = self.made.clone();
        let files = tokio::task::spawn_blocking(move || files_below(&made)).await;
        let files = files.map_err(|e| Error::internal(format!("a reading thread ended early: {e}")))??;
        for path in files {
            let Ok(name) = path.strip_prefix(&self.made) else { continue };
            let name = name.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
            self.store.put_draft(&name, File::open(&path).map_err(unreadable)?).await?;
        }
        self.store.delete_all(self.replaced).await?;
        Ok(())
    }
}

/// The files below `folder`, at any depth.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        match entry.file_type().map_err(unreadable)?.is_dir() {
            true => files.extend(files_below(&entry.path())?),
            false => files.push(entry.path()),
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(e: std::io::Error) -> Error {
    millstream_engine::Error::from(e).context("cannot read a temporary file").into()
}
