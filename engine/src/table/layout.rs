//! Where the files of a stream lie, what is left over among them, and how stores of older builds become such.
//!
//! A file's name has the number of the checkpoint that it was written for, so whatever has a higher number than the
//! last one was never committed. Older builds kept the files in `streams/<name>/` alone and
//! replaced a small last one under its name.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::committed::{Committed, FileEntry};
use super::staged::StagedFile;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Store, StoredFile, folder_name};

/// The folder in which job `job` keeps its stream's files.
pub(super) fn files_of_job(job: &str) -> String {
    format!("jobs/{job}/files")
}

/// The folder in which the base of the changelog of job `job` lies.
pub(super) fn base_of_job(job: &str) -> String {
    format!("jobs/{job}/base")
}

/// The folder that shows the files of `stream` to other tools.
pub(super) fn shown_folder(stream: &str) -> String {
    format!("streams/{}", folder_name(stream))
}

/// Where the list of the live files of `stream` is.
pub(super) fn list_path(stream: &str) -> String {
    format!("live/{}.json", folder_name(stream))
}

/// Removes what shows the files of `stream` to other tools. `folder` is its name as [`folder_name`] gives it.
pub async fn remove_shown(store: &Store, folder: &str) -> Result<()> {
    store.delete(&format!("live/{folder}.json")).await?;
    store.delete_folder(&format!("streams/{folder}")).await
}

/// The name of what `task` has for `checkpoint`, written by `generation`. Names are in the order of the log.
pub(super) fn file_name(checkpoint: u64, task: usize, generation: u64) -> String {
    format!("{checkpoint:010}-{task:03}{GENERATION}{generation}.parquet")
}

/// The name of a file for `checkpoint` or later that has the rows of file `first` and of its next neighbours.
pub(super) fn merged_name(first: &str, checkpoint: u64, generation: u64) -> String {
    let stem = first.strip_suffix(".parquet").unwrap_or(first);
    let (place, _) = stem.split_once(MERGED).unwrap_or((stem, ""));
    let (place, _) = place.split_once(GENERATION).unwrap_or((place, ""));
    format!("{place}{MERGED}{checkpoint:010}{GENERATION}{generation}.parquet")
}

/// What comes before the number of the checkpoint that a merged file was written for.
const MERGED: &str = "-m";
/// What comes before the generation that wrote a file. Older builds did not say it.
const GENERATION: &str = "-g";

/// The generation that wrote a file of ours; 0 where an older build did.
fn generation_of(name: &str) -> u64 {
    let stem = name.strip_suffix(".parquet").unwrap_or(name);
    stem.rsplit_once(GENERATION).and_then(|(_, n)| n.parse().ok()).unwrap_or(0)
}

/// Whether a file was made of others.
pub(super) fn is_merged(name: &str) -> bool {
    name.contains(MERGED)
}

/// The checkpoint that a file was written for; `None` for names that are not ours.
pub(super) fn checkpoint_of(name: &str) -> Option<u64> {
    let stem = name.strip_suffix(".parquet")?;
    let stem = stem.rsplit_once(GENERATION).map_or(stem, |(stem, _)| stem);
    let place = stem.split_once('-').map_or(stem, |(place, _)| place);
    let number = stem.split_once(MERGED).map_or(place, |(_, merged)| merged);
    let ours = |n: &str| n.len() >= 10 && n.bytes().all(|b| b.is_ascii_digit());
    if ours(place) && ours(number) { number.parse().ok() } else { None }
}

/// Sees to it that the files of `committed`, of which `staged` came last, lie with `job`.
pub(super) async fn adopt(
    store: &Store,
    stream: &str,
    job: &str,
    committed: &Committed,
    staged: &[StagedFile],
) -> Result<()> {
    let (files, pending) = (files_of_job(job), format!("jobs/{job}/pending"));
    let there: BTreeSet<String> = store.files(&files).await?.into_iter().map(|f| f.name).collect();
    for file in committed.files.iter().filter(|f| !there.contains(&f.name)) {
        // The last commit of an older build may not have been moved to where it shows.
        let mut places: Vec<String> =
            staged.iter().filter(|s| s.name == file.name).filter_map(|s| s.pending.clone()).collect();
        places.iter_mut().for_each(|name| *name = format!("{pending}/{name}"));
        places.push(format!("{}/{}", shown_folder(stream), file.name));
        for from in places {
            match store.size(&from).await {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                found => check_size(store, &from, found?, file)?,
            }
            store.link(&from, &format!("{files}/{}", file.name)).await?;
            break;
        }
    }
    store.delete_folder(&pending).await
}

/// That a file has the name does not say that it is the one: it may be one that was to be replaced.
fn check_size(store: &Store, path: &str, found: u64, file: &FileEntry) -> Result<()> {
    if found == file.bytes {
        return Ok(());
    }
    let place = store.locate(path);
    Err(Error::data(format!("file \"{place}\" has {found} bytes, {} were committed", file.bytes)))
}

/// Files that have been replaced, until nobody can be reading them.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    files: Vec<ReplacedFile>,
}

#[derive(Debug)]
struct ReplacedFile {
    name: String,
    at: SystemTime,
    /// The commit of this process that replaced it.
    by: u64,
}

impl Replaced {
    /// What the folder of `job` has besides the files of `committed`: what was never committed goes at once, what
    /// was replaced stays for `grace`, and what `generation` or a later one wrote is left alone.
    pub(super) async fn found(
        store: &Store,
        job: &str,
        committed: &Committed,
        grace: Duration,
        generation: u64,
    ) -> Result<Self> {
        let folder = files_of_job(job);
        let mut replaced = Replaced::default();
        let live: BTreeSet<&String> = committed.files.iter().map(|f| &f.name).collect();
        for StoredFile { name, changed, .. } in store.files(&folder).await? {
            if live.contains(&name) || generation_of(&name) >= generation {
                continue;
            }
            let Some(checkpoint) = checkpoint_of(&name) else { continue };
            // A bucket tells when a file was made, by a clock of its own, and not when it was replaced.
            let at = if store.root().is_some() { changed } else { SystemTime::now() };
            if checkpoint > committed.checkpoint || is_over(at, grace) {
                store.delete(&format!("{folder}/{name}")).await?;
            } else {
                replaced.files.push(ReplacedFile { name, at, by: 0 });
            }
        }
        Ok(replaced)
    }

    /// Notes that commit `by` has replaced the file `name`.
    pub(super) async fn add(&mut self, store: &Store, job: &str, name: &str, by: u64) -> Result<()> {
        // The next process counts the grace from then.
        store.touch(&format!("{}/{name}", files_of_job(job))).await?;
        self.files.push(ReplacedFile { name: name.to_owned(), at: SystemTime::now(), by });
        Ok(())
    }

    /// Takes out those that were replaced `grace` ago, and up to commit `held`, since which others are held.
    pub(super) fn take_over(&mut self, grace: Duration, held: u64) -> Vec<String> {
        self.files.extract_if(.., |f| f.by <= held && is_over(f.at, grace)).map(|f| f.name).collect()
    }
}

/// A clock that was set back keeps a file for longer.
fn is_over(at: SystemTime, grace: Duration) -> bool {
    SystemTime::now().duration_since(at).is_ok_and(|age| age >= grace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_checkpoint() {
        assert_eq!(checkpoint_of("0000000007.parquet"), Some(7), "as older builds call them");
        assert_eq!(checkpoint_of("0000000007-003-m0000000019.parquet"), Some(19), "likewise");
        assert_eq!(generation_of("0000000007-003-m0000000019.parquet"), 0);
        let first = file_name(12_345_678_901, 3, 4);
        assert_eq!((checkpoint_of(&first), generation_of(&first)), (Some(12_345_678_901), 4));
        let merged = merged_name(&file_name(7, 3, 2), 19, 5);
        assert_eq!(merged, "0000000007-003-m0000000019-g5.parquet");
        assert_eq!((checkpoint_of(&merged), generation_of(&merged)), (Some(19), 5));
        let again = merged_name(&merged, 31, 11);
        assert_eq!(again, "0000000007-003-m0000000031-g11.parquet");
        assert_eq!(merged_name("0000000007-003-m0000000019.parquet", 31, 11), again);
        assert!(file_name(7, 2, 9) < merged && merged < again);
        assert!(again < file_name(7, 4, 1) && again < file_name(8, 0, 1));
        for foreign in ["notes.txt", "7.parquet", "part-0000000007.parquet", "0000000007.json", "größe.parquet"] {
            assert_eq!(checkpoint_of(foreign), None, "{foreign}");
        }
    }
}
