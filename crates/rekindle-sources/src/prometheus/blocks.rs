//! Blocks on disk (<https://github.com/prometheus/prometheus/blob/main/tsdb/docs/format/README.md>):
//! directories named by a ULID whose files never change after they were written.
//!
//! A snapshot hard-links them, which changes their ctime, so the time of change cannot tell that a
//! block is known already. Its identity is its ULID, the bytes of its `meta.json`, and name, size and
//! time of modification of each file: that goes into the place of the inode number.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::entry::{
    Closing, Content, ContentRead, ContentSource, Entry, EntryKind, EntryPath, FileTime, Meta, ReadFault,
};
use rekindle_core::{Fault, Result, codes};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::details::BlockFacts;
use crate::files::show;

/// Directory of a part that holds the blocks.
pub(super) const TOP: &str = "blocks";
/// How often the blocks are listed again because some went or came in between.
const LISTINGS_MAX: usize = 10;
/// Version of `meta.json` that is known.
const META_VERSION: u32 = 1;

/// How the files of a block are reached when they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// By their path: nobody else removes them (a snapshot of ours).
    ByPath,
    /// They are opened at once and stay readable when the server deletes the block.
    KeptOpen,
}

/// A file or directory of a block.
#[derive(Debug, Clone)]
struct Item {
    /// Below the block: `chunks/000001`.
    path: String,
    meta: Meta,
    full: PathBuf,
    open: Option<Arc<File>>,
}

/// A block.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) facts: BlockFacts,
    parents: Vec<String>,
    meta: Meta,
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetaJson {
    version: u32,
    ulid: String,
    min_time: i64,
    max_time: i64,
    #[serde(default)]
    stats: Stats,
    #[serde(default)]
    compaction: Compaction,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stats {
    #[serde(rename = "numSamples")]
    samples: u64,
    #[serde(rename = "numSeries")]
    series: u64,
    #[serde(rename = "numChunks")]
    chunks: u64,
    #[serde(rename = "numTombstones")]
    tombstones: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Compaction {
    level: u32,
    parents: Vec<Parent>,
}

#[derive(Deserialize)]
struct Parent {
    ulid: String,
}

/// Whether a name is a ULID: 26 characters of Crockford's base 32, below 2^128.
pub(super) fn is_ulid(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_digit() || (b.is_ascii_uppercase() && !matches!(b, b'I' | b'L' | b'O' | b'U'));
    name.len() == 26 && name.bytes().all(known) && name.as_bytes()[0] <= b'7'
}

/// The names of the blocks in a directory, sorted.
pub(super) fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let listed = || -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().filter(|name| is_ulid(name));
            if let Some(name) = name
                && entry.file_type()?.is_dir()
            {
                names.insert(name);
            }
        }
        Ok(names)
    };
    listed().map_err(|error| {
        Fault::new(codes::PROM_DATA_DIR, format!("list the blocks in `{}`", show(directory)))
            .because(error)
            .hint("check `data-dir` and the rights of this user")
    })
}

/// Every block of a directory that nobody changes.
pub(super) fn all(directory: &Path) -> Result<Vec<Block>> {
    names(directory)?
        .into_iter()
        .map(|name| load(directory, &name, Reach::ByPath).map_err(|broken| broken.fault(directory, &name)))
        .collect()
}

/// The blocks of a running server's data directory: opened, so that they stay readable, and listed
/// until nothing came or went in between. Blocks that a bigger one replaces are left out.
pub(super) fn all_live(directory: &Path) -> Result<Vec<Block>> {
    'again: for _ in 0..LISTINGS_MAX {
        let before = names(directory)?;
        let mut blocks = Vec::with_capacity(before.len());
        for name in &before {
            match load(directory, name, Reach::KeptOpen) {
                Ok(block) => blocks.push(block),
                Err(Broken::Io(_, error))
                    if error.kind() == io::ErrorKind::NotFound && !directory.join(name).exists() =>
                {
                    continue 'again;
                }
                Err(broken) => return Err(broken.fault(directory, name)),
            }
        }
        if names(directory)? == before {
            let replaced: BTreeSet<String> = blocks.iter().flat_map(|block| block.parents.clone()).collect();
            blocks.retain(|block| !replaced.contains(&block.facts.ulid));
            return Ok(blocks);
        }
    }
    Err(Fault::new(codes::PROM_BLOCK, format!("list the blocks in `{}`", show(directory)))
        .because(format!("blocks came or went at each of {LISTINGS_MAX} tries"))
        .hint("run the backup again; start the server with `--web.enable-admin-api` to do without this"))
}

/// Why a block cannot be used.
enum Broken {
    Io(PathBuf, io::Error),
    Content(String),
}

impl Broken {
    fn fault(self, directory: &Path, name: &str) -> Fault {
        let fault = Fault::new(codes::PROM_BLOCK, format!("read the block `{}`", show(&directory.join(name))));
        match self {
            Self::Io(path, error) => fault
                .because(format!("`{}`: {error}", show(&path)))
                .hint("run as root or as the server's user; `ulimit -n` limits how many files may be open"),
            Self::Content(why) => fault
                .because(why)
                .hint("`promtool tsdb list DATA-DIR` shows its blocks; move a broken one out of the data directory"),
        }
    }
}

fn load(directory: &Path, name: &str, reach: Reach) -> std::result::Result<Block, Broken> {
    let top = directory.join(name);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| Broken::Io(path, error)
    };
    let meta_path = top.join("meta.json");
    let meta_bytes = fs::read(&meta_path).map_err(io(&meta_path))?;
    let meta: MetaJson =
        serde_json::from_slice(&meta_bytes).map_err(|error| Broken::Content(format!("`meta.json`: {error}")))?;
    if meta.version != META_VERSION || meta.ulid != name {
        return Err(Broken::Content(format!(
            "`meta.json` is of version {} and block `{}`",
            meta.version,
            meta.ulid.escape_debug()
        )));
    }
    let mut items = Vec::new();
    collect(&top, "", reach, &mut items)?;
    let identity = xxh3_64(&[name.as_bytes(), &meta_bytes].concat());
    for item in &mut items {
        item.meta.inode = stable_number(identity, item);
    }
    items.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    let has = |wanted: &str| items.iter().any(|item| item.path.starts_with(wanted) && item.meta.size > 0);
    if !has("index") || (meta.stats.chunks > 0 && !has("chunks/")) {
        return Err(Broken::Content("its index or its chunks are missing".to_owned()));
    }
    let status = fs::symlink_metadata(&top).map_err(io(&top))?;
    let facts = BlockFacts {
        ulid: meta.ulid,
        min_time: meta.min_time,
        max_time: meta.max_time,
        samples: meta.stats.samples,
        series: meta.stats.series,
        chunks: meta.stats.chunks,
        tombstones: meta.stats.tombstones,
        level: meta.compaction.level,
        bytes: items.iter().map(|item| item.meta.size).sum(),
    };
    let parents = meta.compaction.parents.into_iter().map(|parent| parent.ulid).collect();
    Ok(Block { facts, parents, meta: attributes(EntryKind::Directory, &status), items })
}

/// Everything inside a directory of a block.
fn collect(directory: &Path, prefix: &str, reach: Reach, items: &mut Vec<Item>) -> std::result::Result<(), Broken> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| Broken::Io(path, error)
    };
    for entry in fs::read_dir(directory).map_err(io(directory))? {
        let full = entry.map_err(io(directory))?.path();
        let Some(name) = full.file_name().and_then(|name| name.to_str()) else {
            return Err(Broken::Content(format!("`{}` is no name of a block's file", show(&full))));
        };
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        let status = fs::symlink_metadata(&full).map_err(io(&full))?;
        if status.is_dir() {
            let meta = attributes(EntryKind::Directory, &status);
            items.push(Item { path: path.clone(), meta, full: full.clone(), open: None });
            collect(&full, &path, reach, items)?;
        } else if status.is_file() {
            let open = match reach {
                Reach::ByPath => None,
                Reach::KeptOpen => Some(File::open(&full).map_err(io(&full))?),
            };
            // What is open is what will be read, whatever has its name by then.
            let status = match &open {
                Some(file) => file.metadata().map_err(io(&full))?,
                None => status,
            };
            let meta = attributes(EntryKind::File, &status);
            items.push(Item { path, meta, full, open: open.map(Arc::new) });
        } else {
            return Err(Broken::Content(format!("`{path}` is neither a file nor a directory")));
        }
    }
    Ok(())
}

/// Attributes without what a hard link changes.
fn attributes(kind: EntryKind, status: &fs::Metadata) -> Meta {
    let modified = FileTime { seconds: status.mtime(), nanoseconds: u32::try_from(status.mtime_nsec()).unwrap_or(0) };
    Meta {
        mode: status.mode() & 0o7777,
        uid: status.uid(),
        gid: status.gid(),
        modified,
        changed: modified,
        accessed: modified,
        size: if matches!(kind, EntryKind::File) { status.size() } else { 0 },
        ..Meta::synthetic(kind, jiff::Timestamp::UNIX_EPOCH)
    }
}

/// The same number for the same file of the same block, and never 0, which means "no inode".
fn stable_number(block: u64, item: &Item) -> u64 {
    let mut record = block.to_le_bytes().to_vec();
    record.extend_from_slice(&item.meta.size.to_le_bytes());
    record.extend_from_slice(&item.meta.modified.seconds.to_le_bytes());
    record.extend_from_slice(&item.meta.modified.nanoseconds.to_le_bytes());
    record.extend_from_slice(item.path.as_bytes());
    xxh3_64(&record).max(1)
}

/// The directory that holds the blocks and everything in it, in the order of a part. `data_dir` lends
/// its owner and mode.
pub(super) fn entries(blocks: Vec<Block>, data_dir: &fs::Metadata) -> Result<Vec<Entry>> {
    let path = |text: String| {
        EntryPath::new(text).map_err(|why| Fault::new(codes::RUN_BUG, "name a file of a block").because(why))
    };
    let top = attributes(EntryKind::Directory, data_dir);
    let mut entries = vec![Entry { path: path(TOP.to_owned())?, meta: top, content: Content::None }];
    for block in blocks {
        let directory = format!("{TOP}/{}", block.facts.ulid);
        entries.push(Entry { path: path(directory.clone())?, meta: block.meta, content: Content::None });
        for item in block.items {
            let path = path(format!("{directory}/{}", item.path))?;
            let meta = item.meta.clone();
            let content = match meta.kind {
                EntryKind::File => Content::File(Box::new(BlockFile(item))),
                _ => Content::None,
            };
            entries.push(Entry { path, meta, content });
        }
    }
    Ok(entries)
}

/// A file of a block, opened when there is time for it.
struct BlockFile(Item);

fn unreadable(path: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(codes::PROM_BLOCK, format!("read `{}`", show(path)))
        .because(why)
        .hint("run the backup again; look at the disk (`dmesg`) if it repeats")
}

impl ContentSource for BlockFile {
    fn open(&mut self) -> std::result::Result<Box<dyn ContentRead>, ReadFault> {
        let item = self.0.clone();
        let file = match &item.open {
            Some(file) => Arc::clone(file),
            None => Arc::new(File::open(&item.full).map_err(|error| unreadable(&item.full, error))?),
        };
        Ok(Box::new(BlockRead { item, file, position: 0 }))
    }

    fn unchanged(self: Box<Self>, _size: u64) {}
}

struct BlockRead {
    item: Item,
    file: Arc<File>,
    position: u64,
}

impl ContentRead for BlockRead {
    fn read(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, ReadFault> {
        loop {
            match self.file.read_at(buffer, self.position) {
                Ok(given) => {
                    self.position += given as u64;
                    return Ok(given);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&self.item.full, error).into()),
            }
        }
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        if self.position != self.item.meta.size {
            let why = format!("it has {} bytes now and had {}", self.position, self.item.meta.size);
            return Err(unreadable(&self.item.full, why));
        }
        Ok(Closing::Keep(Box::new(self.item.meta)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ulids_are_blocks() {
        assert!(is_ulid("01KAP9Z4X7A4K1Q0YV5T2J9N3B"));
        for bad in [
            "wal",
            "01KAP9Z4X7A4K1Q0YV5T2J9N3",
            "01KAP9Z4X7A4K1Q0YV5T2J9N3B.tmp-for-creation",
            "81KAP9Z4X7A4K1Q0YV5T2J9N3B",
            "01kap9z4x7a4k1q0yv5t2j9n3b",
            "01KAP9Z4X7A4K1Q0YV5T2J9N3L",
        ] {
            assert!(!is_ulid(bad), "{bad}");
        }
    }

    fn block(directory: &Path, ulid: &str, parents: &str) {
        let top = directory.join(ulid);
        fs::create_dir_all(top.join("chunks")).unwrap();
        fs::write(top.join("chunks/000001"), "chunks").unwrap();
        fs::write(top.join("index"), "index").unwrap();
        let meta = format!(
            r#"{{"version":1,"ulid":"{ulid}","minTime":1,"maxTime":9,"stats":{{"numSamples":2,"numSeries":1,"numChunks":1}},"compaction":{{"level":1,"parents":[{parents}]}}}}"#
        );
        fs::write(top.join("meta.json"), meta).unwrap();
    }

    const A: &str = "01KAP9Z4X7A4K1Q0YV5T2J9N3A";
    const B: &str = "01KAP9Z4X7A4K1Q0YV5T2J9N3B";

    #[test]
    fn a_hard_linked_block_is_the_same_block() {
        let place = tempfile::tempdir().unwrap();
        block(place.path(), A, "");
        let linked = place.path().join("snapshots/s");
        fs::create_dir_all(linked.join(A).join("chunks")).unwrap();
        for name in ["chunks/000001", "index", "meta.json"] {
            fs::hard_link(place.path().join(A).join(name), linked.join(A).join(name)).unwrap();
        }
        let identity = |directory: &Path| -> Vec<(String, u64, FileTime)> {
            let items = all(directory).unwrap().remove(0).items;
            items
                .into_iter()
                .filter(|i| i.open.is_none() && i.meta.size > 0)
                .map(|i| (i.path, i.meta.inode, i.meta.changed))
                .collect()
        };
        let before = identity(place.path());
        assert_eq!(before, identity(&linked));
        assert_eq!(before.len(), 3);
        fs::write(place.path().join(A).join("tombstones"), "x").unwrap();
        assert_eq!(identity(place.path())[..3], before[..], "a further file changes nothing about the others");
    }

    #[test]
    fn an_opened_block_stays_readable_when_the_server_deletes_it() {
        let place = tempfile::tempdir().unwrap();
        block(place.path(), A, "");
        let blocks = all_live(place.path()).unwrap();
        fs::remove_dir_all(place.path().join(A)).unwrap();
        let mut read = 0;
        for entry in entries(blocks, &fs::metadata(place.path()).unwrap()).unwrap() {
            let Content::File(mut source) = entry.content else { continue };
            let mut content = source.open().unwrap();
            let mut buffer = [0; 64];
            while let Ok(given @ 1..) = content.read(&mut buffer) {
                read += given;
            }
            assert!(matches!(content.close(), Ok(Closing::Keep(_))));
        }
        assert!(read > "chunks".len() + "index".len());
    }

    #[test]
    fn a_replaced_block_is_left_out_and_a_broken_one_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        block(place.path(), A, "");
        block(place.path(), B, &format!(r#"{{"ulid":"{A}"}}"#));
        let blocks = all_live(place.path()).unwrap();
        assert_eq!(blocks.iter().map(|block| block.facts.ulid.as_str()).collect::<Vec<_>>(), [B]);
        fs::remove_file(place.path().join(A).join("index")).unwrap();
        assert!(all_live(place.path()).unwrap_err().is(codes::PROM_BLOCK));
        assert!(all(place.path()).unwrap_err().is(codes::PROM_BLOCK));
    }
}
