//! Objects in buckets, read as files are: each is fetched to this machine when it is its turn, and is a unit by itself.
//!
//! What is in a bucket under a name is whole and should stay as it is. So there is nothing to be told from a rotated file, and nothing to be
//! waited for but new names. An object that was replaced after it was taken is refused, as a file would be.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::buckets::{Buckets, Fetching, Found, urls};
use super::listing::listed;
use super::options::FileOptions;
use super::paced::Pacer;
use super::queue::{Input, Queue};
use super::readers::{FileReaders, Spec};
use crate::connector::{Intake, Offsets, Opening, Reach, Readers, Split, Unit};
use crate::error::{Error, Result};

/// What is kept of an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Seen {
    version: String,
    /// Where it ends, once it has been read to there.
    end: Option<u64>,
}

/// Objects being read.
pub(super) struct OpenObjects {
    options: FileOptions,
    buckets: Arc<Buckets>,
    queue: Arc<Mutex<Queue>>,
    found: Arc<Mutex<Found>>,
    readers: Arc<FileReaders>,
    consumed: Offsets,
    /// When they were last looked for.
    looked: tokio::sync::Mutex<Instant>,
}

impl OpenObjects {
    /// Lists what there is.
    pub(super) async fn begin(spec: Arc<Spec>, opening: Opening) -> Result<Arc<Self>> {
        let Opening { reader, consumed, state, conditions, .. } = opening;
        let mut options = spec.options.clone();
        options.pruning = (!conditions.is_empty()).then(|| Arc::new(spec.pruning(conditions)));
        let pacer = options.rate.map(Pacer::new);
        let buckets = Arc::new(Buckets::open(urls(&options.path)?, reader.is_some())?);
        let (queue, found): (Arc<Mutex<Queue>>, Arc<Mutex<Found>>) = Default::default();
        let fetched = Fetching::beside(&buckets, &found);
        let readers = FileReaders::of_objects(spec, &queue, pacer, fetched);
        let looked = tokio::sync::Mutex::new(Instant::now());
        let objects = OpenObjects { options, buckets, queue, found, readers, consumed, looked };
        let saved: BTreeMap<String, Seen> = state.map(serde_json::from_value).transpose()?.unwrap_or_default();
        objects.look(&saved).await?;
        Ok(Arc::new(objects))
    }

    /// Takes the objects that are new.
    async fn look(&self, saved: &BTreeMap<String, Seen>) -> Result<()> {
        let files = self.options.fit(listed(self.buckets.list().await?))?;
        let (mut queue, mut found) = (self.queue.lock(), self.found.lock());
        for file in files {
            let Some(object) = file.object else { continue };
            let (name, path) = (file.name, file.path);
            let before = saved.get(&*name);
            let read = self.consumed.prefix(&name);
            let known = match found.get(&name) {
                Some(version) if queue.is_touched(&name) => Some(version),
                _ => before.filter(|_| read > 0).map(|seen| &seen.version),
            };
            if known.is_some_and(|version| *version != object.version) {
                return Err(Error::data(format!("object \"{name}\" was replaced by another one after it was taken"))
                    .with_hint("Write new objects beside those that are read. To read it again, drop the stream and create it again."));
            }
            if found.insert(name.clone(), object.version).is_some() {
                continue;
            }
            let mut input = Input::new(name.clone(), path, self.options.compression_of(&name));
            let end = before.and_then(|seen| seen.end).filter(|end| *end <= read && read > 0);
            input.end = end;
            queue.add_input(input);
            let unit = end.is_none().then_some(read..u64::MAX);
            queue.add_units(&name, unit.into_iter().collect(), true);
        }
        Ok(())
    }
}

#[async_trait]
impl Intake for OpenObjects {
    fn splits(&self) -> Vec<Split> {
        self.queue.lock().splits(self.options.ordered)
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        loop {
            // Nothing is awaited between taking a unit and giving it.
            if let Some(unit) = self.queue.lock().pop() {
                return Ok(Some(unit));
            }
            if !self.options.follow {
                return Ok(None);
            }
            let mut looked = self.looked.lock().await;
            if !self.queue.lock().is_empty() {
                continue;
            }
            tokio::time::sleep_until(*looked + self.options.poll_interval).await;
            self.look(&BTreeMap::new()).await?;
            *looked = Instant::now();
        }
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self.readers.clone())
    }

    fn ended(&self, unit: &Unit, at: u64) {
        self.queue.lock().set_end(&unit.split, at);
    }

    async fn state(&self) -> Result<serde_json::Value> {
        let (queue, found) = (self.queue.lock(), self.found.lock());
        let seen = |(name, version): (&Arc<str>, &String)| {
            let end = queue.input(name).and_then(|input| input.end);
            (name.to_string(), Seen { version: version.clone(), end })
        };
        Ok(serde_json::to_value(found.iter().map(seen).collect::<BTreeMap<_, _>>())?)
    }

    fn there(&self) -> Vec<Reach> {
        self.queue.lock().there()
    }
}
