//! Sources made up by tests, and a reader that knows nothing but the format.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rekindle_core::entry::{
    Closing, Content, ContentRead, ContentSource, Entries, Entry, EntryKind, EntryPath, FileTime, Meta, ReadFault,
};
use rekindle_core::note::Notes;
use rekindle_core::point::{Draft, RecoveryPoint};
use rekindle_core::port::{Clock, Quiet, Reuse, RunContext, WriteSession};
use rekindle_core::proof::{CaptureProof, Part, StoredPart};
use rekindle_core::witness::Witness;
use rekindle_core::{Cancel, ComponentId, ComponentKind, Fault, Result, RunId, Secret};
use rekindle_repo::format::config::Config;
use rekindle_repo::format::crypto::Key;
use rekindle_repo::format::index::IndexFile;
use rekindle_repo::format::key::KeyFile;
use rekindle_repo::format::node::{Node, NodeContent};
use rekindle_repo::format::pack::PackedBlob;
use rekindle_repo::format::snapshot::Snapshot;
use rekindle_repo::format::{Id, names, pack, tree, unpacked};
use rekindle_repo::{Repo, RepoOptions, Session};
use rekindle_store::blocking::BlockingStore;
use rekindle_store::{Key as ObjectKey, Local, PutMode, Store};
use tokio::runtime::Runtime;

pub(crate) const PASSWORD: &str = "a password for tests only";

pub(crate) struct Now;

impl Clock for Now {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// A runtime, a store and a repository in it, made without any other program.
pub(crate) struct Bench {
    pub(crate) runtime: Runtime,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) directory: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn on(make: impl FnOnce(&Path) -> Arc<dyn Store>) -> Self {
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let store = make(directory.path());
        let bench = Self { runtime, store, directory };
        bench.init();
        bench
    }

    pub(crate) fn memory() -> Self {
        Self::on(|_| Arc::new(rekindle_store::Memory::new()))
    }

    pub(crate) fn local() -> Self {
        Self::on(|directory| local(&directory.join("repo")))
    }

    pub(crate) fn repo_path(&self) -> PathBuf {
        self.directory.path().join("repo")
    }

    fn init(&self) {
        let store = self.blocking();
        let key = Key::generate().unwrap();
        let file = KeyFile::create(&key, PASSWORD, 10, "2026-01-01T00:00:00Z".to_owned()).unwrap().encode().unwrap();
        let config = Config { version: 2, id: Id::of(b"test").hex(), chunker_polynomial: "3da3358b4dc173".to_owned() };
        let sealed = key.seal(&config.encode().unwrap()).unwrap();
        let put = |path: &str, bytes: Vec<u8>| {
            store.put(&ObjectKey::new(path).unwrap(), Bytes::from(bytes), PutMode::IfAbsent).unwrap();
        };
        put(&names::file(names::KEYS, &Id::of(&file)), file.clone());
        put(names::CONFIG, sealed);
    }

    pub(crate) fn blocking(&self) -> BlockingStore {
        BlockingStore::new(Arc::clone(&self.store), self.runtime.handle().clone())
    }

    pub(crate) fn open(&self) -> Repo {
        self.open_as(RepoOptions { workers: 2, ..RepoOptions::default() }).unwrap()
    }

    pub(crate) fn open_as(&self, options: RepoOptions) -> Result<Repo> {
        let password = Secret::new(PASSWORD.to_owned());
        Repo::open(Arc::clone(&self.store), self.runtime.handle().clone(), &password, options)
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        self.blocking().list(prefix).unwrap().iter().map(|meta| meta.key.to_string()).collect()
    }
}

pub(crate) fn local(path: &Path) -> Arc<dyn Store> {
    std::fs::create_dir_all(path).unwrap();
    Arc::new(Local::new(path))
}

pub(crate) fn context() -> RunContext {
    RunContext {
        run: RunId::new(Now.now(), 7),
        cancel: Cancel::new(),
        monitor: Arc::new(Quiet),
        clock: Arc::new(Now),
        scratch: std::env::temp_dir(),
    }
}

pub(crate) fn id(name: &str) -> ComponentId {
    name.parse().unwrap()
}

pub(crate) fn path(text: &str) -> EntryPath {
    EntryPath::new(text).unwrap()
}

pub(crate) fn meta(kind: EntryKind) -> Meta {
    Meta::synthetic(kind, "2026-01-02T03:04:05.6Z".parse().unwrap())
}

/// What a made-up file does when it is read, one per opening; the last one stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Good,
    Retry,
    SkipOpen,
    SkipRead,
    SkipEnd,
    AbortRead,
    AbortEnd,
    Panic,
}

#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) acts: Vec<Act>,
    pub(crate) meta: Meta,
    pub(crate) opened: Arc<AtomicUsize>,
}

fn broken() -> Fault {
    Fault::new(rekindle_core::codes::RUN_SIBLING, "read the made-up file")
}

impl ContentSource for Made {
    fn open(&mut self) -> Result<Box<dyn ContentRead>, ReadFault> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let act = if self.acts.len() > 1 { self.acts.remove(0) } else { self.acts[0] };
        match act {
            Act::SkipOpen => Err(ReadFault::Skip),
            Act::Panic => panic!("a source that panics"),
            _ => Ok(Box::new(MadeRead { made: self.clone(), at: 0, act })),
        }
    }
    fn unchanged(self: Box<Self>, _: u64) {}
}

struct MadeRead {
    made: Made,
    at: usize,
    act: Act,
}

impl ContentRead for MadeRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        let rest = &self.made.bytes[self.at..];
        if rest.len() <= self.made.bytes.len() / 2 {
            match self.act {
                Act::SkipRead => return Err(ReadFault::Skip),
                Act::AbortRead => return Err(broken().into()),
                _ => {}
            }
        }
        let given = rest.len().min(buffer.len()).min(70_000);
        buffer[..given].copy_from_slice(&rest[..given]);
        self.at += given;
        Ok(given)
    }
    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        match self.act {
            Act::Retry => Ok(Closing::Retry),
            Act::SkipEnd => Ok(Closing::Skip),
            Act::AbortEnd => Err(broken()),
            _ => Ok(Closing::Keep(Box::new(self.made.meta.clone()))),
        }
    }
}

pub(crate) fn made(bytes: Vec<u8>, act: Act) -> Made {
    let mut meta = meta(EntryKind::File);
    meta.size = bytes.len() as u64;
    Made { bytes: Arc::new(bytes), acts: vec![act], meta, opened: Arc::default() }
}

pub(crate) fn file(name: &str, made: Made) -> Entry {
    Entry { path: path(name), meta: made.meta.clone(), content: Content::File(Box::new(made)) }
}

pub(crate) fn stream(name: &str, bytes: Vec<u8>, act: Act) -> Entry {
    let mut made = made(bytes, act);
    made.meta.size = 0;
    let meta = made.meta.clone();
    Entry { path: path(name), meta, content: Content::Stream(Box::new(MadeRead { made, at: 0, act })) }
}

pub(crate) fn plain(name: &str, kind: EntryKind) -> Entry {
    Entry { path: path(name), meta: meta(kind), content: Content::None }
}

/// Bytes that look random.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) + 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56).to_le_bytes()[0]
    })
    .take(length)
    .collect()
}

/// Stores entries watched by a witness and joins both accounts.
pub(crate) fn store(
    session: &dyn WriteSession,
    name: &str,
    entries: impl IntoIterator<Item = Entry, IntoIter: Send + 'static>,
    reuse: Reuse,
) -> Result<(Part, StoredPart)> {
    let witness = Witness::new();
    let entries: Entries = Box::new(entries.into_iter().map(Ok));
    let holds = session.store(&id(name), witness.watch(entries), reuse)?;
    let gave = CaptureProof::new(
        id(name),
        ComponentKind::Files,
        &witness,
        Notes::default(),
        Now.now(),
        serde_json::Value::Null,
    )
    .expect("the entries were pulled to their end");
    let part = Part::join(gave, holds.clone()).expect("both accounts say the same");
    Ok((part, holds))
}

pub(crate) fn draft(context: &RunContext, parts: impl IntoIterator<Item = Part>) -> Draft {
    let mut draft = Draft::new("test-stack".to_owned(), "test-host".to_owned(), context.run.clone(), Now.now());
    for part in parts {
        draft.add(part);
    }
    draft
}

/// One point of one component called `files`.
pub(crate) fn save(repo: &Repo, entries: Vec<Entry>, reuse: Reuse) -> Result<(RecoveryPoint, StoredPart)> {
    let context = context();
    let session = Session::begin(repo, &context)?;
    let (part, holds) = match store(&session, "files", entries, reuse) {
        Ok(stored) => stored,
        Err(fault) => {
            session.abandon();
            return Err(fault);
        }
    };
    Ok((session.commit(draft(&context, [part]))?, holds))
}

/// Everything in a repository, decoded: nothing of the reader under test takes part.
pub(crate) struct Decoded {
    blobs: HashMap<Id, Vec<u8>>,
    pub(crate) blobs_in_packs: usize,
    /// Blobs in packs that no index names: left by a run that failed.
    pub(crate) unindexed: usize,
    pub(crate) snapshots: Vec<Snapshot>,
}

impl Decoded {
    pub(crate) fn read(bench: &Bench) -> Self {
        let (store, repo) = (bench.blocking(), bench.open());
        let get = |path: &str| store.get(&ObjectKey::new(path).unwrap()).unwrap();
        let mut decoded = Self { blobs: HashMap::new(), blobs_in_packs: 0, unindexed: 0, snapshots: Vec::new() };
        let mut indexed: Vec<(Id, PackedBlob)> = Vec::new();
        for path in bench.keys("index/") {
            let json = unpacked::decode(repo.key(), &names::id_of(&path).unwrap(), &get(&path)).unwrap();
            for pack in IndexFile::decode(&json).unwrap().packs {
                indexed.extend(pack.blobs.iter().map(|blob| (pack.id, PackedBlob::from(blob))));
            }
        }
        for path in bench.keys("data/") {
            let bytes = get(&path);
            let name = names::id_of(&path).unwrap();
            assert_eq!(Id::of(&bytes), name, "a pack is named by its hash");
            let blobs = pack::decode_pack(repo.key(), &bytes).unwrap();
            assert!(blobs.windows(2).all(|pair| pair[0].kind == pair[1].kind), "trees and data apart");
            for blob in blobs {
                let sealed = &bytes[blob.offset as usize..][..blob.length as usize];
                decoded.blobs.insert(blob.id, blob.open(repo.key(), sealed).unwrap());
                decoded.blobs_in_packs += 1;
                decoded.unindexed += usize::from(!indexed.contains(&(name, blob)));
            }
        }
        for path in bench.keys("snapshots/") {
            let json = unpacked::decode(repo.key(), &names::id_of(&path).unwrap(), &get(&path)).unwrap();
            decoded.snapshots.push(Snapshot::decode(&json).unwrap());
        }
        decoded
    }

    pub(crate) fn tree(&self, id: &Id) -> Vec<Node> {
        tree::decode(&self.blobs[id]).unwrap()
    }

    /// Every entry below a tree with its content.
    pub(crate) fn walk(&self, id: &Id, at: &str, found: &mut BTreeMap<Vec<u8>, (Node, Vec<u8>)>) {
        for node in self.tree(id) {
            let mut name = at.as_bytes().to_vec();
            name.extend_from_slice(&node.name);
            let mut content = Vec::new();
            match &node.content {
                NodeContent::Blobs(blobs) => blobs.iter().for_each(|id| content.extend(&self.blobs[id])),
                NodeContent::Subtree(inner) => {
                    self.walk(inner, &format!("{}/", String::from_utf8_lossy(&name)), found);
                }
                NodeContent::Nothing => {}
            }
            found.insert(name, (node, content));
        }
    }

    pub(crate) fn all(&self, id: &Id) -> BTreeMap<Vec<u8>, (Node, Vec<u8>)> {
        let mut found = BTreeMap::new();
        self.walk(id, "", &mut found);
        found
    }
}

/// A file on disk as a source.
struct DiskFile {
    path: PathBuf,
    meta: Meta,
}

struct DiskRead {
    file: std::fs::File,
    meta: Meta,
}

impl ContentSource for DiskFile {
    fn open(&mut self) -> Result<Box<dyn ContentRead>, ReadFault> {
        let file = std::fs::File::open(&self.path).map_err(|_| ReadFault::Skip)?;
        Ok(Box::new(DiskRead { file, meta: self.meta.clone() }))
    }
    fn unchanged(self: Box<Self>, _: u64) {}
}

impl ContentRead for DiskRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        self.file.read(buffer).map_err(|_| ReadFault::Skip)
    }
    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        Ok(Closing::Keep(Box::new(self.meta)))
    }
}

/// A directory as a lazy run of entries.
pub(crate) fn disk(root: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    visit(root, None, &mut entries);
    entries
}

fn visit(directory: &Path, at: Option<&EntryPath>, entries: &mut Vec<Entry>) {
    let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for name in names {
        let full = directory.join(&name);
        let path = match at {
            None => EntryPath::new(name.as_bytes()).unwrap(),
            Some(at) => at.child(name.as_bytes()).unwrap(),
        };
        let meta = disk_meta(&full);
        let content = match meta.kind {
            EntryKind::File => Content::File(Box::new(DiskFile { path: full.clone(), meta: meta.clone() })),
            _ => Content::None,
        };
        let directory = meta.kind == EntryKind::Directory;
        entries.push(Entry { path: path.clone(), meta, content });
        if directory {
            visit(&full, Some(&path), entries);
        }
    }
}

fn disk_meta(full: &Path) -> Meta {
    let stat = std::fs::symlink_metadata(full).unwrap();
    let kind = match stat.file_type() {
        kind if kind.is_dir() => EntryKind::Directory,
        kind if kind.is_symlink() => {
            EntryKind::Symlink { target: std::fs::read_link(full).unwrap().as_os_str().as_bytes().to_vec() }
        }
        kind if kind.is_fifo() => EntryKind::Fifo,
        _ => EntryKind::File,
    };
    let time = |seconds, nanoseconds| FileTime { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap() };
    Meta {
        kind,
        mode: stat.mode() & 0o7777,
        uid: stat.uid(),
        gid: stat.gid(),
        user: None,
        group: None,
        modified: time(stat.mtime(), stat.mtime_nsec()),
        changed: time(stat.ctime(), stat.ctime_nsec()),
        accessed: time(stat.atime(), stat.atime_nsec()),
        inode: stat.ino(),
        device: stat.dev(),
        links: stat.nlink(),
        size: stat.size(),
        xattrs: disk_xattrs(full),
    }
}

fn disk_xattrs(full: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut buffer = vec![0; 4096];
    let Ok(length) = rustix::fs::lgetxattr(full, "user.note", &mut buffer) else {
        return Vec::new();
    };
    vec![(b"user.note".to_vec(), buffer[..length].to_vec())]
}
