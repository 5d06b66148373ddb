//! An object store that fails now and then: before it has done what it was asked, or after.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Faulty {
    objects: Arc<dyn ObjectStore>,
    percent: u64,
    random: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Faulty {
    /// `objects`, of which about `percent` in a hundred requests fail, which ones `seed` says.
    pub fn new(objects: Arc<dyn ObjectStore>, seed: u64, percent: u64) -> Self {
        Faulty { objects, percent, random: Arc::new(AtomicU64::new(seed)), failed: Arc::default() }
    }

    /// How many have failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// What is to happen: nothing, a fault before, or one after.
    fn fate(&self) -> (Result<()>, Result<()>) {
        // splitmix64
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let random = mixed ^ (mixed >> 31);
        if random % 100 >= self.percent {
            return (Ok(()), Ok(()));
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        let fault = |text: &str| Err(Error::Generic { store: "faulty", source: text.into() });
        match random >> 63 {
            0 => (fault("Server returned non-2xx status code: 503 Service Unavailable: "), Ok(())),
            _ => (Ok(()), fault("the answer was lost")),
        }
    }

    async fn within<T>(&self, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let (before, after) = self.fate();
        before?;
        let answer = request.await;
        after.and(answer)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a faulty {}", self.objects)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.within(self.objects.put_opts(at, bytes, options)).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.within(self.objects.put_multipart_opts(at, options)).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.within(self.objects.get_opts(at, options)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let faulty = self.clone();
        let delete = move |path: Path| {
            let faulty = faulty.clone();
            async move { faulty.within(faulty.objects.delete(&path)).await.map(|()| path) }
        };
        paths.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fate() {
            (Ok(()), Ok(())) => self.objects.list(prefix),
            (before, after) => match before.and(after) {
                Err(e) => stream::iter([Err(e)]).boxed(),
                Ok(()) => stream::empty().boxed(),
            },
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.within(self.objects.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.within(self.objects.copy_opts(from, to, options)).await
    }
}
