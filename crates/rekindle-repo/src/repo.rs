//! An opened repository.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rekindle_core::{ComponentId, Fault, Result, Secret, codes};
use rekindle_store::blocking::BlockingStore;
use rekindle_store::{Key as ObjectKey, Store};
use tokio::runtime::Handle;

use crate::chunker::{Chunking, Cutter};
use crate::format::config::{Config, VERSIONS};
use crate::format::crypto::Key;
use crate::format::key::{KeyFault, KeyFile};
use crate::format::{BadFormat, Id, names};
use crate::key_cache::{Cached, KeyCache};
use crate::points::{Reader, ReaderCache};

/// Several of these fit into the 25 minutes after which a lock is not relied on any more.
const LOCK_REFRESH: Duration = Duration::from_mins(4);
/// Most key files that are tried; each may cost a second.
const KEY_FILES_MAX: usize = 64;

/// How a repository is written.
#[derive(Debug, Clone)]
pub struct RepoOptions {
    /// Level of zstd: -7 to 22.
    pub compression_level: i32,
    /// The same for streams (dumps, base backups): a server sends them while it holds a snapshot or a backup open.
    pub stream_level: i32,
    /// Threads that hash, compress and encrypt; 0 means one per core.
    pub workers: usize,
    /// Uploads at the same time.
    pub uploads: usize,
    /// Size at which a pack is closed, in bytes.
    pub pack_bytes: usize,
    /// Time between two refreshes of the lock of a run.
    pub lock_refresh: Duration,
    /// How the content of single components is cut; the others take [`Chunking::Content`].
    pub chunking: BTreeMap<ComponentId, Chunking>,
    /// Where the opened master key is kept for the next run; only for passwords that lie on this
    /// host anyway. `None`: every opening costs one scrypt.
    pub key_cache: Option<KeyCache>,
}

impl Default for RepoOptions {
    fn default() -> Self {
        Self {
            compression_level: 3,
            stream_level: 1,
            workers: 0,
            uploads: 4,
            pack_bytes: 16 << 20,
            lock_refresh: LOCK_REFRESH,
            chunking: BTreeMap::new(),
            key_cache: None,
        }
    }
}

/// An opened repository. Cloning shares it.
#[derive(Clone)]
pub struct Repo(Arc<Inner>);

struct Inner {
    store: BlockingStore,
    key: Key,
    config: Config,
    options: RepoOptions,
    readers: ReaderCache,
}

impl fmt::Debug for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repo")
            .field("id", &self.0.config.id)
            .field("store", &self.0.store.describe())
            .finish_non_exhaustive()
    }
}

impl Repo {
    /// Opens the repository of a store with a password. Blocking; not to be called from async code.
    ///
    /// `REPO_ABSENT` only when the store says for sure that there is no `config` object;
    /// `REPO_WRONG_KEY` when no key file takes the password.
    pub fn open(
        store: Arc<dyn Store>,
        handle: Handle,
        password: &Secret<String>,
        options: RepoOptions,
    ) -> Result<Self> {
        let store = BlockingStore::new(store, handle);
        let sealed = read_config(&store)?;
        let id = Id::of(&sealed);
        if let Some(cache) = &options.key_cache
            && let Some(Cached { key, .. }) = cached_key(&store, cache, &id, password)
            && let Some(config) = key.open(&sealed).ok().and_then(|plain| Config::decode(&plain).ok())
        {
            return Self::assemble(store, key, config, options);
        }
        let (key, key_file) = find_key(&store, password)?;
        let plain = key.open(&sealed).map_err(|bad| damaged_config(&store, bad))?;
        let config = Config::decode(&plain).map_err(|bad| damaged_config(&store, bad))?;
        if let (Some(cache), Some(key_file)) = (&options.key_cache, key_file) {
            cache.keep(&id, password, &Cached { key: key.clone(), id: key_file });
        }
        Self::assemble(store, key, config, options)
    }

    /// Opens the repository with its master key.
    pub fn open_with_key(store: Arc<dyn Store>, handle: Handle, key: Key, options: RepoOptions) -> Result<Self> {
        let store = BlockingStore::new(store, handle);
        let sealed = read_config(&store)?;
        let plain = key.open(&sealed).map_err(|_| wrong_key(&store))?;
        let config = Config::decode(&plain).map_err(|bad| damaged_config(&store, bad))?;
        Self::assemble(store, key, config, options)
    }

    fn assemble(store: BlockingStore, key: Key, config: Config, options: RepoOptions) -> Result<Self> {
        if !VERSIONS.contains(&config.version) {
            let what = format!("open {}: its format version is {}", store.describe(), config.version);
            return Err(Fault::new(codes::REPO_VERSION, what).hint("use a newer version of rekindle"));
        }
        Ok(Self(Arc::new(Inner { store, key, config, options, readers: ReaderCache::default() })))
    }

    /// Where its objects are.
    pub fn store(&self) -> &BlockingStore {
        &self.0.store
    }

    /// The master key.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// What the repository says about itself.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// How it is written.
    pub fn options(&self) -> &RepoOptions {
        &self.0.options
    }

    /// Reads blobs; the index is loaded again only when it has changed.
    pub fn reader(&self) -> Result<Reader> {
        self.0.readers.get(self)
    }

    /// What cuts the content of a component.
    pub(crate) fn cutter(&self, component: &ComponentId) -> Cutter {
        let chunking = self.0.options.chunking.get(component);
        let seed = self.0.config.chunker_polynomial.as_bytes();
        Cutter::new(chunking.copied().unwrap_or_default(), self.key().expose_mac_k(), seed)
    }
}

fn read_config(store: &BlockingStore) -> Result<bytes::Bytes> {
    let key = ObjectKey::new(names::CONFIG)?;
    match store.get(&key) {
        Ok(bytes) => Ok(bytes),
        Err(fault) if fault.is(codes::STORE_NOT_FOUND) => {
            let what = format!("open the repository {}", store.describe());
            Err(Fault::new(codes::REPO_ABSENT, what).because("there is no `config` object").hint(
                "check that the disk is mounted and the URL is right; only for a new repository run `rekindle init`",
            ))
        }
        Err(fault) => Err(fault.during("read the repository's `config`")),
    }
}

fn damaged_config(store: &BlockingStore, bad: BadFormat) -> Fault {
    let what = format!("read `config` of {}", store.describe());
    Fault::new(codes::REPO_DAMAGED, what)
        .because(bad)
        .hint("put back the `config` object from a copy of the repository")
}

fn wrong_key(store: &BlockingStore) -> Fault {
    Fault::new(codes::REPO_WRONG_KEY, format!("open the repository {}", store.describe()))
        .because("no key file takes this password")
        .hint("check `repository.password` in the configuration")
}

/// The key of the cache, as long as the repository still has the key file it came from: a removed
/// password must not open anything. A storage that does not answer is left to [`find_key`].
fn cached_key(store: &BlockingStore, cache: &KeyCache, config: &Id, password: &Secret<String>) -> Option<Cached> {
    let cached = cache.load(config, password)?;
    let object = ObjectKey::new(&names::file(names::KEYS, &cached.id)).ok()?;
    match store.head(&object) {
        Ok(Some(_)) => Some(cached),
        Ok(None) => {
            cache.forget(config);
            None
        }
        Err(_) => None,
    }
}

/// Tries every key file; the name of the one that opened comes with the key. A damaged one does not
/// matter as long as another opens.
fn find_key(store: &BlockingStore, password: &Secret<String>) -> Result<(Key, Option<Id>)> {
    let files = store.list("keys/").map_err(|fault| fault.during("list the key files of the repository"))?;
    if files.is_empty() {
        let what = format!("open the repository {}", store.describe());
        return Err(Fault::new(codes::REPO_DAMAGED, what)
            .because("it has no key file")
            .hint("put back the folder `keys` from a copy of the repository"));
    }
    let (mut broken, mut refused) = (None, false);
    for file in files.iter().take(KEY_FILES_MAX) {
        let opened = match store.get(&file.key) {
            Ok(bytes) => {
                KeyFile::decode(&bytes).map_err(KeyFault::from).and_then(|key_file| key_file.open(password.expose()))
            }
            Err(fault) if fault.is(codes::STORE_NOT_FOUND) => continue,
            Err(fault) => return Err(fault.during("read the key files of the repository")),
        };
        match opened {
            Ok(key) => return Ok((key, names::id_of(file.key.as_str()))),
            Err(KeyFault::WrongPassword) => refused = true,
            Err(KeyFault::Bad(bad)) => broken = Some((file.key.clone(), bad)),
        }
    }
    match broken {
        Some((name, bad)) if !refused => Err(Fault::new(codes::REPO_DAMAGED, format!("read `{name}`"))
            .because(bad)
            .hint("put back the key file from a copy of the repository")),
        _ => Err(wrong_key(store)),
    }
}
