//! Objects as files of a local or mounted disk, safe against crashes at any instruction.
//!
//! A file appears under its name only after its bytes are on the disk, and a call returns only
//! after the name is on the disk too. Unfinished files start with `.tmp-`; no listing shows them,
//! and [`Local::sweep`] removes those a crash left.

mod failure;
mod read;
mod walk;
mod write;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rekindle_core::{Fault, Result, codes};

use crate::key::{Key, check_prefix};
use crate::store::{ObjectMeta, PutMode, PutOutcome, Store};

/// An unfinished file this old belongs to a writer that is gone.
pub(crate) const TEMPORARY_AGE_MIN: Duration = Duration::from_hours(24);

/// A directory as object storage.
#[derive(Debug, Clone)]
pub struct Local {
    root: Arc<Path>,
}

impl Local {
    /// The store in an existing directory; it is looked at only when used. A missing directory is
    /// never made by itself: it is most likely a disk that is not mounted.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into().into() }
    }

    /// Makes the directory and those above it (mode 0700), durably.
    pub fn create_root(&self) -> Result<()> {
        write::create_directories(&self.root, None)
    }

    /// Removes unfinished files older than a day and gives their number. Call it
    /// from maintenance; a file of a living writer is younger.
    pub async fn sweep(&self) -> Result<u64> {
        self.sweep_older_than(TEMPORARY_AGE_MIN).await
    }

    /// As [`sweep`](Self::sweep), with another age.
    pub async fn sweep_older_than(&self, age: Duration) -> Result<u64> {
        self.blocking(move |root| walk::sweep(root, age)).await
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let root = Arc::clone(&self.root);
        match tokio::task::spawn_blocking(move || work(&root)).await {
            Ok(result) => result,
            Err(ended) => Err(Fault::new(codes::RUN_BUG, "work on the local storage").because(ended)),
        }
    }
}

#[async_trait]
impl Store for Local {
    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<PutOutcome> {
        let key = key.clone();
        self.blocking(move |root| write::put(root, &key, &data, mode)).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let key = key.clone();
        self.blocking(move |root| read::whole(root, &key)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let key = key.clone();
        self.blocking(move |root| read::range(root, &key, &range)).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        let key = key.clone();
        self.blocking(move |root| read::head(root, &key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.blocking(move |root| walk::list(root, &prefix)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.clone();
        self.blocking(move |root| write::delete(root, &key)).await
    }

    fn describe(&self) -> String {
        format!("file://{}", self.root.display())
    }
}
