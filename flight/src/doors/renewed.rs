//! What is made of files, and made anew when they change, so that a certificate is renewed without a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use millstream_engine::error::Result;
use parking_lot::Mutex;

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// See the module's text.
pub(crate) struct Renewed<T> {
    files: Vec<PathBuf>,
    make: Box<dyn Fn() -> Result<T> + Send + Sync>,
    now: Mutex<Made<T>>,
}

struct Made<T> {
    value: Arc<T>,
    /// What the files were like then.
    stamps: Vec<Stamp>,
    looked: Instant,
}

/// When a file was changed, and its size.
type Stamp = Option<(SystemTime, u64)>;

impl<T: Send + Sync + 'static> Renewed<T> {
    /// What `make` makes of `files`. Blocks on the disk.
    pub(crate) fn new(files: Vec<PathBuf>, make: impl Fn() -> Result<T> + Send + Sync + 'static) -> Result<Arc<Self>> {
        let (stamps, looked) = (stamps(&files), Instant::now());
        let now = Mutex::new(Made { value: Arc::new(make()?), stamps, looked });
        Ok(Arc::new(Renewed { files, make: Box::new(make), now }))
    }

    /// What counts now. Files that cannot be used are told of, and the last good ones count.
    pub(crate) async fn get(self: &Arc<Self>) -> Arc<T> {
        {
            let mut now = self.now.lock();
            if self.files.is_empty() || now.looked.elapsed() < LOOK {
                return now.value.clone();
            }
            // The others go on with what there is while one looks.
            now.looked = Instant::now();
        }
        let own = self.clone();
        // It never panics; a runtime that ends needs nothing new.
        let _ = tokio::task::spawn_blocking(move || own.look()).await;
        self.now.lock().value.clone()
    }

    fn look(&self) {
        let stamps = stamps(&self.files);
        if self.now.lock().stamps == stamps {
            return;
        }
        let shown = self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        match (self.make)() {
            Ok(value) => {
                tracing::info!(files = shown, "files that changed were read again");
                let mut now = self.now.lock();
                (now.value, now.stamps) = (Arc::new(value), stamps);
            }
            // Perhaps one of several is new and another is not yet: they are looked at again.
            Err(e) => {
                tracing::warn!(files = shown, error = %e, "files that changed cannot be used; what was in them counts")
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let data = std::fs::metadata(file).ok()?;
        Some((data.modified().ok()?, data.len()))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use millstream_engine::error::Error;

    use super::*;

    #[tokio::test]
    async fn the_last_good_content_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("n");
        fs::write(&file, "1").expect("writes");
        let read = {
            let file = file.clone();
            move || {
                let text = fs::read_to_string(&file).map_err(|e| Error::invalid(e.to_string()))?;
                text.parse::<u64>().map_err(|e| Error::invalid(e.to_string()))
            }
        };
        let renewed = Renewed::new(vec![file.clone()], read).expect("a number");
        let look = async |text: &str| {
            fs::write(&file, text).expect("writes");
            let before = *renewed.get().await;
            renewed.now.lock().looked -= LOOK;
            (before, *renewed.get().await)
        };
        assert_eq!(look("22").await, (1, 22), "not looked at at once");
        assert_eq!(look("none").await, (22, 22));
        assert_eq!(look("4444").await, (22, 4444));
        fs::remove_file(&file).expect("removes");
        renewed.now.lock().looked -= LOOK;
        assert_eq!(*renewed.get().await, 4444);
        assert!(Renewed::new(vec![], || Err::<u64, _>(Error::invalid("no"))).is_err());
    }
}
