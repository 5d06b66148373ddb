//! What other tools see of a stream in a bucket: objects below its name, copies of the files that count.
//!
//! A file is copied once its manifest is written, so whoever lists the name sees committed files only. Names come and go one
//! by one there. Files of a commit come in the order of the log, so what is listed is the log up to some row. Where a merge
//! takes the place of others, those go first: for the time of two requests their rows are not listed, and never twice.
//! The list of live files is exact at any time.
//!
//! One that was taken over and does not know it yet may come in between. It leaves alone what is later than what it
//! knows; what it puts back is taken away when the owner looks again.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use super::committed::{Committed, FileEntry};
use super::layout::checkpoint_of;
use crate::error::Result;
use crate::store::Store;

/// Copies under way at a time, where nobody can see them one by one.
const AT_ONCE: usize = 8;
/// The owner looks again when names go, and after so many commits.
const LOOKS: u32 = 64;

/// What is known to be copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// The names, once they have been looked at.
    names: Option<BTreeSet<String>>,
    /// Commits since then.
    commits: u32,
}

impl Copied {
    /// Makes what is listed at `to` copies of the files of `committed`, which lie at `from`, and of no others.
    pub(super) async fn show(&mut self, store: &Store, from: &str, to: &str, committed: &Committed) -> Result<()> {
        let files = &committed.files;
        let known = self.names.take();
        let is_first = known.is_none();
        let wanted: BTreeSet<String> = files.iter().map(|f| f.name.clone()).collect();
        let names = match known.filter(|names| names.is_subset(&wanted) && self.commits < LOOKS) {
            Some(names) => names,
            None => {
                self.commits = 0;
                look(store, to, committed).await?
            }
        };
        self.commits += 1;
        let gone = names.difference(&wanted).map(|name| format!("{to}/{name}"));
        store.delete_all(gone.collect()).await?;
        let is_new = |file: &&FileEntry| !names.contains(&file.name);
        let place = |at: &str, file: &FileEntry| format!("{at}/{}", file.name);
        let pairs: Vec<_> = files.iter().filter(is_new).map(|file| (place(from, file), place(to, file))).collect();
        let at_once = if is_first { AT_ONCE } else { 1 };
        let copies = stream::iter(pairs).map(|(from, to)| async move { store.link(&from, &to).await });
        copies.buffered(at_once).try_collect::<()>().await?;
        self.names = Some(wanted);
        Ok(())
    }
}

/// The names at `to` that are ours. What has the name of one of our files and is another goes at once.
async fn look(store: &Store, to: &str, committed: &Committed) -> Result<BTreeSet<String>> {
    let (mut names, mut others) = (BTreeSet::new(), vec![]);
    let is_ours = |name: &str| checkpoint_of(name).is_some_and(|checkpoint| checkpoint <= committed.checkpoint);
    for found in store.files(to).await?.into_iter().filter(|f| is_ours(&f.name)) {
        match committed.files.iter().any(|file| file.name == found.name && file.bytes != found.bytes) {
            true => others.push(format!("{to}/{}", found.name)),
            false => drop(names.insert(found.name)),
        }
    }
    store.delete_all(others).await?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use object_store::memory::InMemory;

    use super::*;

    fn files(names: &[&str], checkpoint: u64) -> Committed {
        let file = |n: &&str| FileEntry { name: (*n).to_owned(), bytes: 3, ..FileEntry::default() };
        Committed { files: names.iter().map(file).collect(), checkpoint, ..Committed::default() }
    }

    #[tokio::test]
    async fn what_counts_is_listed_whatever_was_there() {
        let store = Store::over(Arc::new(InMemory::new()));
        let [a, b, c, merged] =
            ["0000000001-000-g1", "0000000002-000-g1", "0000000003-000-g1", "0000000001-000-m0000000003-g1"]
                .map(|n| format!("{n}.parquet"));
        for name in [&a, &b, &c, &merged] {
            store.put(&format!("from/{name}"), Bytes::from_static(b"new")).await.expect("written");
        }
        // Of a stream that had the name before, and of somebody else.
        for (name, bytes) in [(a.as_str(), "another"), (c.as_str(), "new"), ("notes.txt", "mine")] {
            store.put(&format!("to/{name}"), Bytes::from(bytes)).await.expect("written");
        }
        let mut copied = Copied::default();
        for (live, listed) in [
            (vec![&*a, &*b], vec![&*a, &*b, "notes.txt"]),
            (vec![&*a, &*b, &*c], vec![&*a, &*b, &*c, "notes.txt"]),
            (vec![&*merged], vec![&*merged, "notes.txt"]),
        ] {
            copied.show(&store, "from", "to", &files(&live, 3)).await.expect("shows");
            assert_eq!(store.list("to").await.expect("lists"), listed);
            assert_eq!(store.get(&format!("to/{}", live[0])).await.expect("is there"), "new");
        }
        // Somebody who did not know that it was fenced.
        store.put(&format!("to/{b}"), Bytes::from_static(b"new")).await.expect("written");
        copied.show(&store, "from", "to", &files(&[&c], 3)).await.expect("shows");
        assert_eq!(store.list("to").await.expect("lists"), [&*c, "notes.txt"]);
        // It knows less, and leaves alone what has come since.
        Copied::default().show(&store, "from", "to", &files(&[&a], 1)).await.expect("shows");
        assert_eq!(store.list("to").await.expect("lists"), [&*a, &*c, "notes.txt"]);
        for _ in 0..=LOOKS {
            copied.show(&store, "from", "to", &files(&[&c], 3)).await.expect("shows");
        }
        assert_eq!(store.list("to").await.expect("lists"), [&*c, "notes.txt"]);
    }
}
