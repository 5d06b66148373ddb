//! Checkpoints: the manifest, whose creation is the one commit of a job's state, offsets and results.
//!
//! ```text
//! jobs/<id>/checkpoints/00000000000000000042.json     the manifest, create-if-absent
//! jobs/<id>/state/42-g3-<name>-<task>.arrow           the states it names
//! jobs/<id>/dead_letters/42-g3.parquet                rows put aside
//! jobs/<id>/sources/<place>/                          what a source puts aside that has come and is not read
//! jobs/<id>/sinks/<place>/                            what a sink keeps for itself, such as rows to be sent
//! ```
//! What a manifest does not name does not exist: files of a checkpoint that was never committed are
//! removed at the next start.
//!
//! Who starts a job *claims* it before it changes anything: the claim is the next manifest, with the content of the last one and
//! a generation of its own. Somebody else who believes to own the job still finds the number of the next commit taken
//! and is fenced. Files have the generation in their names (`g3`), so nobody writes over another's, and a start
//! removes only files of generations before its own: what a later owner has written is none of its business.

mod dead;
mod progress;

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use dead::{DeadLetterFile, DeadLetterLog};
pub(crate) use progress::Consumed;
pub use progress::Progress;

use crate::connector::Staged;
use crate::connector::outbox::SinkPlace;
use crate::error::{Error, ErrorKind, Result};
use crate::key::key_groups;
use crate::state::{Owner, StatePart, StateRegistry};
use crate::store::{Store, blocking};
use crate::time::EventTime;
use crate::token::token;

/// The format of manifests: version 3 has wider states than 2, 4 result files in another place, and 5 bases in the place
/// of history, which builds of then would misread.
const VERSION: u32 = 5;
/// The oldest that can be read.
const OLDEST: u32 = 2;
/// How many manifests are kept besides the last.
const KEPT: u64 = 2;
/// The rows of a state that are written, and read back, at once.
const ROWS_AT_ONCE: usize = 1 << 16;
/// How often a claim is tried: each time, the present owner has committed in between.
const MOST_TRIES: usize = 16;

/// What a checkpoint consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// Its number: 1, 2, 3….
    pub checkpoint: u64,
    /// Which start of the job wrote it, counted from 1; 0 where an older build did not count.
    #[serde(default)]
    pub generation: u64,
    /// A name of that start which no other has.
    #[serde(default)]
    pub owner: String,
    /// The last epoch in it.
    pub epoch: u64,
    /// The watermark at its end.
    pub watermark: EventTime,
    /// Whether the input has ended and the result is complete.
    pub end: bool,
    /// What was read, by source.
    pub sources: Vec<Progress>,
    /// What the sources know besides, by their place among the graph's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source_states: BTreeMap<usize, serde_json::Value>,
    /// What the states depend on, by operator; empty where an older build did not say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fingerprints: BTreeMap<String, String>,
    /// State files in the order in which they are restored.
    pub states: Vec<StateFile>,
    /// What this checkpoint's sinks staged, by their place among the graph's sinks.
    pub staged: BTreeMap<usize, Vec<Staged>>,
    /// The sinks' own state after it, by place.
    pub sinks: BTreeMap<usize, serde_json::Value>,
    /// Files of rows put aside that are kept, oldest first.
    pub dead_letters: Vec<String>,
    /// What is known of them.
    #[serde(default)]
    pub dead: DeadLetterLog,
    /// Rows read so far, by source; empty where an older build did not count them.
    #[serde(default)]
    pub rows: Vec<u64>,
    /// Rows written so far, by sink; empty likewise.
    #[serde(default)]
    pub rows_out: Vec<u64>,
    /// Rows dropped as late so far.
    pub late: u64,
    /// The sources of this depth are read, and all that are deeper.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub depth: usize,
    /// What `now()` was.
    #[serde(default)]
    pub now: Option<EventTime>,
}

fn is_zero(depth: &usize) -> bool {
    *depth == 0
}

/// What every manifest has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// A file of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// The state's name.
    pub name: String,
    /// The task that wrote it.
    pub task: usize,
    /// Of how many; 0 where an older build did not say.
    #[serde(default)]
    pub of: usize,
    /// Where it lies.
    pub path: String,
}

impl StateFile {
    /// Whether keys of `owner` may be in it.
    pub fn concerns(&self, owner: Owner) -> bool {
        let (has, wants) = (key_groups(self.task, self.of), key_groups(owner.task, owner.parallelism));
        self.of == 0 || (has.start < wants.end && wants.start < has.end)
    }

    /// About how many of its `rows` rows belong to `owner`.
    fn rows_of(&self, owner: Owner, rows: usize) -> usize {
        if self.of == 0 {
            return rows / owner.parallelism.max(1);
        }
        let (has, wants) = (key_groups(self.task, self.of), key_groups(owner.task, owner.parallelism));
        let both = has.end.min(wants.end).saturating_sub(has.start.max(wants.start));
        (rows as u64 * both / (has.end - has.start).max(1)) as usize
    }
}

/// A file of state that has just been written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredState {
    /// The file.
    pub file: StateFile,
    /// Whether it replaces the state's files before it.
    pub full: bool,
    /// Its length in bytes.
    pub bytes: u64,
}

impl Manifest {
    /// Before the first checkpoint.
    pub fn start(sources: usize) -> Self {
        Manifest {
            version: VERSION,
            checkpoint: 0,
            generation: 0,
            owner: String::new(),
            epoch: 0,
            watermark: EventTime::MIN,
            end: false,
            sources: vec![Progress::default(); sources],
            source_states: BTreeMap::new(),
            fingerprints: BTreeMap::new(),
            states: vec![],
            staged: BTreeMap::new(),
            sinks: BTreeMap::new(),
            dead_letters: vec![],
            dead: DeadLetterLog::default(),
            rows: vec![0; sources],
            rows_out: vec![],
            late: 0,
            depth: 0,
            now: None,
        }
    }

    /// Whether nothing has been committed yet: the job was claimed at most.
    pub fn is_new(&self) -> bool {
        self.epoch == 0
    }
}

/// The checkpoints of one job.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    store: Store,
    folder: String,
}

impl Checkpoints {
    /// Of job `id` in `store`.
    pub fn new(store: Store, id: &str) -> Self {
        Checkpoints { store, folder: format!("jobs/{id}") }
    }

    fn path(&self, checkpoint: u64) -> String {
        format!("{}/checkpoints/{checkpoint:020}.json", self.folder)
    }

    /// The folder on this machine that is the job's source `place`'s alone. What a run leaves there is of no use to the next.
    pub fn source_folder(&self, place: usize) -> PathBuf {
        self.store.scratch().join(&self.folder).join("sources").join(place.to_string())
    }

    /// The place that is its sink `place`'s alone.
    fn sink_place(&self, place: usize) -> SinkPlace {
        let below = format!("{}/sinks/{place}", self.folder);
        let folder = self.store.scratch().join(&below);
        match self.store.root() {
            Some(_) => SinkPlace::from(folder),
            None => SinkPlace::in_bucket(folder, self.store.clone(), below),
        }
    }

    /// The last committed manifest.
    pub async fn last(&self) -> Result<Option<Manifest>> {
        let names = self.store.list(&format!("{}/checkpoints", self.folder)).await?;
        let Some(name) = names.iter().rfind(|n| n.ends_with(".json")) else { return Ok(None) };
        self.read_at(format!("{}/checkpoints/{name}", self.folder)).await.map(Some)
    }

    async fn read(&self, number: u64) -> Result<Manifest> {
        self.read_at(self.path(number)).await
    }

    async fn read_at(&self, path: String) -> Result<Manifest> {
        let bytes = self.store.get(&path).await?;
        let damaged = |e| Error::from(e).context(format!("manifest \"{}\"", self.store.locate(&path)));
        // First, since what another version has is not known.
        let Version { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if !(OLDEST..=VERSION).contains(&version) {
            let path = self.store.locate(&path);
            let message = format!("manifest \"{path}\" has format {version}, this build reads {OLDEST} to {VERSION}");
            return Err(Error::unsupported(message).with_hint("Open the store with the build that wrote it."));
        }
        let read: Manifest = serde_json::from_slice(&bytes).map_err(damaged)?;
        // What follows from it is written as this build writes.
        Ok(Manifest { version: VERSION, ..read })
    }

    /// What the owner of `generation` has, for tasks of its that run in another process: they read and write files, and commit
    /// nothing. With the manifest `number`, from which that owner goes on.
    pub async fn join(&self, generation: u64, number: u64) -> Result<(Claim, Manifest)> {
        let checkpoints = Checkpoints { store: self.store.patient(), folder: self.folder.clone() };
        let manifest = self.read(number).await?;
        if manifest.generation != generation {
            return Err(self.taken());
        }
        Ok((Claim { checkpoints, generation }, manifest))
    }

    /// Makes the caller the owner of the job, whose graph has `sources`. Gives the manifest from which it goes on.
    ///
    /// Errors with `Fenced` when somebody else claims it at the same time and is quicker.
    pub async fn claim(&self, sources: usize) -> Result<(Claim, Manifest)> {
        let mut before = None;
        for _ in 0..MOST_TRIES {
            let last = self.last().await?.unwrap_or_else(|| Manifest::start(sources));
            if *before.get_or_insert(last.generation) != last.generation {
                break;
            }
            // What a job writes waits for a store that is away, once the job runs.
            let checkpoints = Checkpoints { store: self.store.patient(), folder: self.folder.clone() };
            let claim = Claim { checkpoints, generation: last.generation + 1 };
            let (checkpoint, owner) = (last.checkpoint + 1, token()?);
            let claimed = Manifest { checkpoint, generation: claim.generation, owner, ..last };
            match claim.commit(&claimed).await {
                // The present owner may have committed once more.
                Err(e) if e.kind() == ErrorKind::Fenced => {}
                Err(e) => return Err(e),
                Ok(_) => {
                    // Before anything is removed.
                    claim.check(&claimed).await?;
                    claim.tidy(&claimed, &[]).await?;
                    return Ok((claim, claimed));
                }
            }
        }
        Err(self.taken())
    }

    fn taken(&self) -> Error {
        let message = format!("another process has taken over \"{}\"", self.store.locate(&self.folder));
        Error::new(ErrorKind::Fenced, message).with_hint("Run one process per store.")
    }

    /// Removes everything of the job.
    pub async fn delete(&self) -> Result<()> {
        self.store.delete_folder(&self.folder).await
    }
}

/// The ownership of a job, which lasts until somebody else claims it.
#[derive(Clone, Debug)]
pub struct Claim {
    checkpoints: Checkpoints,
    generation: u64,
}

impl Claim {
    /// Takes the part of `owner` in `file`, whose content is `bytes`, into `state`. Takes long where it is large.
    pub fn restore(&self, file: &StateFile, bytes: Bytes, state: &mut StateRegistry, owner: Owner) -> Result<()> {
        let unreadable = |e: ArrowError| {
            let place = self.checkpoints.store.locate(&file.path);
            Error::from(e).context(format!("state \"{place}\""))
        };
        let reader = FileReader::try_new(Cursor::new(bytes), None).map_err(unreadable)?;
        if reader.num_batches() > 1 {
            state.reserve(&file.name, file.rows_of(owner, reader.num_batches() * ROWS_AT_ONCE));
        }
        for rows in reader {
            for some in pieces(&rows.map_err(unreadable)?) {
                state.restore(&file.name, &some, owner)?;
            }
        }
        Ok(())
    }

    /// Writes the states of `task`, one of `of`, for a checkpoint, and gives the files.
    pub async fn put_states(
        &self,
        checkpoint: u64,
        task: usize,
        of: usize,
        parts: Vec<StatePart>,
    ) -> Result<Vec<StoredState>> {
        let mut files = Vec::with_capacity(parts.len());
        for StatePart { name, full, rows } in parts {
            let slug: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let (folder, generation) = (&self.checkpoints.folder, self.generation);
            let path = format!("{folder}/state/{checkpoint}-g{generation}-{slug}-{task}.arrow");
            // Compressing takes long, and others wait for this thread.
            let parts = blocking(move || encode(&rows).map_err(std::io::Error::other)).await?;
            let length = parts.iter().map(|part| part.len() as u64).sum();
            self.checkpoints.store.put_parts(&path, parts).await?;
            files.push(StoredState { file: StateFile { name, task, of, path }, full, bytes: length });
        }
        Ok(files)
    }

    /// Writes rows put aside and gives the file.
    pub async fn put_dead_letters(&self, checkpoint: u64, bytes: Bytes) -> Result<String> {
        let path = format!("{}/dead_letters/{checkpoint}-g{}.parquet", self.checkpoints.folder, self.generation);
        self.checkpoints.store.put(&path, bytes).await?;
        Ok(path)
    }

    /// Reads a file of the job.
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        self.checkpoints.store.get(path).await
    }

    /// Removes a file of the job that no manifest names.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.checkpoints.store.delete(path).await
    }

    /// Commits `manifest`: from here on it is the truth. Gives its length in bytes.
    ///
    /// Errors with `Fenced` when somebody else has committed this number.
    pub async fn commit(&self, manifest: &Manifest) -> Result<u64> {
        let bytes = Bytes::from(serde_json::to_vec(manifest)?);
        let length = bytes.len() as u64;
        match self.checkpoints.store.create(&self.checkpoints.path(manifest.checkpoint), bytes).await {
            Err(e) if e.kind() == ErrorKind::Exists => Err(self.checkpoints.taken()),
            other => other.map(|()| length),
        }
    }

    /// Checks that nobody has claimed the job since `last` was committed here. What shows the result to others cannot be
    /// created only once, so whoever changes it looks first. And where no lock keeps others out, one that stood
    /// still for long may have created a number that others have created and removed.
    ///
    /// Errors with `Fenced`.
    pub async fn check(&self, last: &Manifest) -> Result<()> {
        let Checkpoints { store, .. } = &self.checkpoints;
        if store.is_shared() {
            let name = format!("{:020}.json", last.checkpoint);
            let is_last = store.is_last(&format!("{}/checkpoints", self.checkpoints.folder), &name).await?;
            return if is_last { Ok(()) } else { Err(self.checkpoints.taken()) };
        }
        match store.size(&self.checkpoints.path(last.checkpoint + 1)).await {
            Ok(_) => Err(self.checkpoints.taken()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The place that is the job's sink `place`'s alone.
    pub fn sink_place(&self, place: usize) -> SinkPlace {
        self.checkpoints.sink_place(place)
    }

    /// Whether what the job reads and writes waits as long as it takes for a store that is away.
    pub fn wait_long(&self, is_patient: bool) {
        self.checkpoints.store.wait_long(is_patient);
    }

    /// Removes manifests that are no longer needed and state files that the last ones do not name.
    pub async fn tidy(&self, last: &Manifest, before: &[StateFile]) -> Result<()> {
        let Checkpoints { store, .. } = &self.checkpoints;
        let old = last.checkpoint.checked_sub(KEPT + 1).map(|old| self.checkpoints.path(old));
        let states = before.iter().filter(|f| !last.states.contains(f)).map(|f| f.path.clone());
        store.delete_all(old.into_iter().chain(states).collect()).await
    }

    /// Removes what earlier generations have written for checkpoints that were never committed. `claimed` is the manifest from
    /// which this one goes on.
    pub async fn sweep(&self, claimed: &Manifest) -> Result<()> {
        let Checkpoints { store, folder } = &self.checkpoints;
        let named = |path: &str| claimed.states.iter().any(|f| f.path == path);
        let dead = |path: &str| claimed.dead_letters.iter().any(|f| f == path);
        let mut left = vec![];
        for kind in ["state", "dead_letters"] {
            for name in store.list(&format!("{folder}/{kind}")).await? {
                let path = format!("{folder}/{kind}/{name}");
                if generation_of(&name) < self.generation && !named(&path) && !dead(&path) {
                    left.push(path);
                }
            }
        }
        store.delete_all(left).await
    }
}

/// The generation in the name of a file of state or of rows put aside; 0 where an older build wrote it.
fn generation_of(name: &str) -> u64 {
    let part = name.split(['-', '.']).nth(1).and_then(|part| part.strip_prefix('g'));
    part.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The rows of `parts`, which have one schema, as a file.
fn encode(parts: &[RecordBatch]) -> Result<Vec<Bytes>> {
    let Some(first) = parts.first() else { return Err(Error::internal("a state without rows")) };
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = FileWriter::try_new_with_options(Parts::default(), &first.schema(), options)?;
    for some in parts.iter().flat_map(pieces) {
        writer.write(&some)?;
    }
    Ok(writer.into_inner()?.end())
}

/// Bytes in parts: one buffer for all would be moved, and held twice, each time that it grows.
#[derive(Default)]
struct Parts {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

/// A part has so many bytes, or a little more.
const PART: usize = 4 << 20;

impl Parts {
    fn end(mut self) -> Vec<Bytes> {
        self.full.push(Bytes::from(self.last));
        self.full
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.last.len() + bytes.len() > PART && !self.last.is_empty() {
            self.full.push(Bytes::from(std::mem::take(&mut self.last)));
        }
        self.last.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `rows` in pieces that are soon read back: what is made of one on the way to its table stays in the cache.
fn pieces(rows: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let starts = (0..rows.num_rows()).step_by(ROWS_AT_ONCE);
    starts.map(|from| rows.slice(from, ROWS_AT_ONCE.min(rows.num_rows() - from)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::key::hash_rows;
    use crate::memory::MemoryBudget;
    use crate::state::State;

    /// Numbers, as they were restored.
    #[derive(Default)]
    struct Numbers {
        expected: usize,
        found: Vec<i64>,
        parts: usize,
    }

    impl State for Arc<parking_lot::Mutex<Numbers>> {
        fn snapshot(&mut self, _full: bool) -> Result<Vec<RecordBatch>> {
            Ok(vec![])
        }

        fn reserve(&mut self, rows: usize) {
            self.lock().expected += rows;
        }

        fn restore(&mut self, rows: &RecordBatch, owner: Owner) -> Result<()> {
            let mut hashes = vec![];
            hash_rows(rows.columns(), rows.num_rows(), &mut hashes)?;
            let mut numbers = self.lock();
            numbers.parts += 1;
            let mine = owner.part_of(rows, &hashes)?;
            numbers.found.extend_from_slice(mine.column(0).as_primitive::<Int64Type>().values());
            Ok(())
        }

        fn restored(&mut self, _watermark: EventTime) -> Result<()> {
            Ok(())
        }

        fn bytes(&self) -> usize {
            0
        }
    }

    #[tokio::test]
    async fn large_states_are_read_in_pieces_by_as_many_tasks_as_there_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("a store");
        let (claim, _) = Checkpoints::new(store, "j").claim(0).await.expect("claimed");
        let all = 3 * ROWS_AT_ONCE as i64 + 5;
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..all));
        let mut hashes = vec![];
        hash_rows(std::slice::from_ref(&numbers), numbers.len(), &mut hashes).expect("hashes");
        let rows = RecordBatch::try_from_iter([("n", numbers)]).expect("rows");
        let mut files = vec![];
        for task in 0..2 {
            let rows = Owner { task, parallelism: 2 }.part_of(&rows, &hashes).expect("a part");
            let part = StatePart { name: "op.n".into(), full: true, rows: vec![rows] };
            files.extend(claim.put_states(1, task, 2, vec![part]).await.expect("written"));
        }
        for parallelism in [1, 2, 3] {
            let mut found = vec![];
            for task in 0..parallelism {
                let (owner, numbers) = (Owner { task, parallelism }, Arc::<parking_lot::Mutex<Numbers>>::default());
                let mut state = StateRegistry::new("j", MemoryBudget::new(1 << 20));
                state.enter("op", Arc::default());
                drop(state.open("n", numbers.clone()));
                for StoredState { file, .. } in files.iter().filter(|f| f.file.concerns(owner)) {
                    let bytes = claim.read(&file.path).await.expect("read");
                    claim.restore(file, bytes, &mut state, owner).expect("restores");
                }
                let numbers = std::mem::take(&mut *numbers.lock());
                let (found_here, at_most) = (numbers.found.len(), numbers.expected);
                assert!(found_here <= at_most && at_most < 2 * found_here, "{found_here} of {at_most}");
                assert!(numbers.parts >= 2);
                found.extend(numbers.found);
            }
            found.sort_unstable();
            assert!(found.into_iter().eq(0..all), "with {parallelism} tasks");
        }
    }

    #[test]
    fn names_tell_their_generation() {
        for (name, generation) in [
            ("42-g7-updating-aggregate-1-groups-0.arrow", 7),
            ("42-g12.parquet", 12),
            ("42-group-table-1-0.arrow", 0),
            ("42-aggregate-1-g9-0.arrow", 0),
            ("42.parquet", 0),
        ] {
            assert_eq!(generation_of(name), generation, "{name}");
        }
    }
}
