//! A base backup as entries, in the order of the wire: `data/…` is the data directory,
//! `tablespaces/OID/…` what lies outside of it, and its links point there.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use rekindle_core::entry::{
    Closing, Content, ContentRead, ContentSource, Entry, EntryKind, EntryPath, FileTime, Meta, ReadFault,
};
use rekindle_core::port::PartReader;
use rekindle_core::wal::{SegmentName, SegmentSize, SystemId};
use rekindle_core::{Fault, Result, codes};
use sha2::{Digest, Sha256};

use super::checksum::{Checksum, Crc32c, Summing};
use super::incremental::{self, Head, Patch, Progress};
use super::manifest::{BackupManifest, FileFacts, Listed, MANIFEST_NAME};
use super::received::{Boundary, Received, Shared};
use super::tar::{Member, MemberKind};
use crate::postgres::replication::{BaseEnd, BaseStart, BaseStream};

/// The data directory in the part.
pub(super) const DATA: &str = "data";
/// The directory of the tablespaces in the part.
pub(super) const TABLESPACES: &str = "tablespaces";
const LABEL: &[u8] = b"backup_label";
/// A `backup_label` has a few hundred bytes.
const LABEL_BYTES_MAX: u64 = 64 << 10;

/// The earlier point that an incremental backup builds on.
pub(super) struct Before {
    pub(super) part: Arc<dyn PartReader>,
    pub(super) manifest: BackupManifest,
    /// Bytes of a block of the server.
    pub(super) block: usize,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) end: BaseEnd,
    /// By the server's clock, after the last byte.
    pub(super) stopped: jiff::Timestamp,
    pub(super) manifest: BackupManifest,
    /// SHA-256 of `backup_manifest` as it is stored.
    pub(super) manifest_sha256: [u8; 32],
    pub(super) transferred: u64,
}

/// Where the capture finds how it ended.
pub(super) type EndedSlot = Arc<Mutex<Option<Ended>>>;

/// What must hold at the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) system: SystemId,
    pub(super) segment_size: SegmentSize,
}

/// Where the archive that is read goes.
struct Archive {
    /// In the part.
    prefix: String,
    /// In the manifest; empty or with a slash at its end.
    listed: String,
    /// Whether its directory was given.
    opened: bool,
}

/// The entries of a base backup.
pub(super) struct BaseEntries {
    shared: Shared,
    start: BaseStart,
    before: Option<Arc<Before>>,
    expected: Expected,
    archive: Option<Archive>,
    /// Directories given that no archive has of itself.
    made: BTreeSet<String>,
    /// User and group of the server's files, for what we add ourselves.
    owner: (u32, u32),
    pending: VecDeque<Entry>,
    over: bool,
    ended: EndedSlot,
}

fn base(why: impl Into<String>) -> Fault {
    Fault::new(codes::PG_BASE, "read the base backup").because(why.into())
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

impl BaseEntries {
    pub(super) fn new(stream: BaseStream, before: Option<Before>, expected: Expected, ended: EndedSlot) -> Self {
        let start = stream.start().clone();
        Self {
            shared: Shared::new(stream),
            start,
            before: before.map(Arc::new),
            expected,
            archive: None,
            made: BTreeSet::new(),
            owner: (0, 0),
            pending: VecDeque::new(),
            over: false,
            ended,
        }
    }

    fn advance(&mut self) -> Result<()> {
        let mut received = self.shared.lock();
        if !received.tar.is_drained() {
            return Err(Fault::new(codes::RUN_BUG, "read the base backup: an entry was not read to its end"));
        }
        if self.archive.is_some() {
            match received.next_member()? {
                Some(member) => {
                    drop(received);
                    return self.member(&member);
                }
                None => self.archive = None,
            }
        }
        let boundary = received.tap.next_boundary()?;
        drop(received);
        match boundary {
            Boundary::Archive(index) => {
                self.archive = Some(self.archive_of(index)?);
                self.shared.lock().tar = super::tar::Tar::default();
                Ok(())
            }
            Boundary::Manifest => self.end(),
            Boundary::Over => Err(base("it ends without a manifest")),
        }
    }

    fn archive_of(&self, index: usize) -> Result<Archive> {
        let tablespace = self.start.tablespaces.get(index).ok_or_else(|| base("an archive of no tablespace"))?;
        Ok(match tablespace.oid {
            None => Archive { prefix: DATA.to_owned(), listed: String::new(), opened: false },
            // A tablespace inside the data directory (`allow_in_place_tablespaces`).
            Some(oid) if !tablespace.path.starts_with('/') => {
                let listed = format!("pg_tblspc/{oid}");
                Archive { prefix: format!("{DATA}/{listed}"), listed: format!("{listed}/"), opened: false }
            }
            Some(oid) => {
                let prefix = format!("{TABLESPACES}/{oid}");
                Archive { prefix, listed: format!("pg_tblspc/{oid}/"), opened: false }
            }
        })
    }

    /// Directories that are in no archive: the top of each, and the one around tablespaces.
    fn open_archive(&mut self, like: &Member) -> Result<()> {
        let Some(archive) = &mut self.archive else { return Ok(()) };
        if std::mem::replace(&mut archive.opened, true) {
            return Ok(());
        }
        let prefix = archive.prefix.clone();
        self.owner = (like.uid, like.gid);
        let around = prefix.strip_prefix(TABLESPACES).map(|_| TABLESPACES.to_owned());
        for path in around.into_iter().chain([prefix]) {
            if self.made.insert(path.clone()) {
                let meta = meta(&Member { kind: MemberKind::Directory, mode: 0o700, ..like.clone() });
                self.pending.push_back(Entry { path: entry_path(path.as_bytes())?, meta, content: Content::None });
            }
        }
        Ok(())
    }

    fn member(&mut self, member: &Member) -> Result<()> {
        self.open_archive(member)?;
        let Some(archive) = &self.archive else { return Err(base("a member outside of an archive")) };
        let listed = [archive.listed.as_bytes(), &member.path].concat();
        let full = [archive.prefix.as_bytes(), b"/", &member.path].concat();
        let entry = match &member.kind {
            MemberKind::Directory => {
                // An in-place tablespace comes twice: as a directory of the data directory too.
                if !self.made.insert(shown(&full)) {
                    return Ok(());
                }
                Entry { path: entry_path(&full)?, meta: meta(member), content: Content::None }
            }
            MemberKind::Symlink { .. } => {
                let target = self.link(&member.path)?;
                let mut meta = meta(member);
                meta.kind = EntryKind::Symlink { target };
                Entry { path: entry_path(&full)?, meta, content: Content::None }
            }
            MemberKind::File => self.file(member, &full, listed)?,
        };
        self.pending.push_back(entry);
        Ok(())
    }

    /// The link to a tablespace points to where it stands in the part, wherever that is restored:
    /// the place on the server may be the live one.
    fn link(&self, path: &[u8]) -> Result<Vec<u8>> {
        let text = std::str::from_utf8(path).ok().and_then(|text| text.strip_prefix("pg_tblspc/"));
        let oid: Option<u32> = text.and_then(|text| text.parse().ok());
        let known = oid.is_some() && self.start.tablespaces.iter().any(|tablespace| tablespace.oid == oid);
        match oid {
            Some(oid) if known => Ok(format!("../../{TABLESPACES}/{oid}").into_bytes()),
            _ => Err(base(format!("the link `{}` leads to no tablespace", shown(path)))),
        }
    }

    fn file(&self, member: &Member, full: &[u8], listed: Vec<u8>) -> Result<Entry> {
        let name = full.rsplit(|b| *b == b'/').next().unwrap_or(full);
        if let Some(before) = &self.before {
            if let Some(plain) = name.strip_prefix(incremental::PREFIX) {
                return self.incremental_file(before, member, full, listed, plain);
            }
            if listed == LABEL {
                return self.label(member, full);
            }
        }
        let meta = meta(member);
        let read = MemberRead {
            shared: self.shared.clone(),
            meta: Box::new(meta.clone()),
            listed,
            crc: Crc32c::new(),
            bytes: 0,
        };
        Ok(Entry { path: entry_path(full)?, meta, content: Content::Member(Box::new(read)) })
    }

    /// A `backup_label` that is stored as a whole backup has it.
    fn label(&self, member: &Member, full: &[u8]) -> Result<Entry> {
        if member.size > LABEL_BYTES_MAX {
            return Err(base("its label is too long"));
        }
        let mut label = vec![0; usize::try_from(member.size).unwrap_or_default()];
        let mut received = self.shared.lock();
        received.read_exact(&mut label)?;
        let mut came = Crc32c::new();
        came.update(&label);
        received.count(LABEL, member.size, &came)?;
        let label = incremental::whole_label(&label);
        let facts = FileFacts { size: label.len() as u64, checksum: Checksum::Crc32c(Crc32c::of(&label)) };
        received.made.insert(LABEL.to_vec(), (LABEL.to_vec(), facts));
        bytes_entry(full, meta(member), label)
    }

    /// A file of which only what changed came.
    fn incremental_file(
        &self,
        before: &Arc<Before>,
        member: &Member,
        full: &[u8],
        came_as: Vec<u8>,
        plain: &[u8],
    ) -> Result<Entry> {
        let rename = |path: &[u8]| {
            let end = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
            [&path[..end], plain].concat()
        };
        let (full, stored_as) = (rename(full), rename(&came_as));
        let listed = before
            .manifest
            .files
            .get(&stored_as)
            .ok_or_else(|| base(format!("`{}` is not in the earlier point it builds on", shown(&stored_as))))?;
        let mut came = Crc32c::new();
        let mut received = self.shared.lock();
        let (head, came_bytes) = Head::read(&mut received, member.size, before.block, &mut came)?;
        let size = u64::from(head.length) * before.block as u64;
        let path = entry_path(&full)?;
        let mut meta = meta(member);
        meta.size = size;
        if head.blocks.is_empty() && listed.facts.size == size {
            received.count(&came_as, came_bytes, &came)?;
            received.made.insert(came_as, (stored_as, listed.facts.clone()));
            let source = Held {
                before: Arc::clone(before),
                path: path.clone(),
                meta: meta.clone(),
                facts: listed.facts.clone(),
            };
            return Ok(Entry { path, meta, content: Content::Unchanged(Box::new(source)) });
        }
        drop(received);
        let patch = Patch {
            shared: self.shared.clone(),
            head,
            block: before.block,
            before: Arc::clone(before),
            path: path.clone(),
            listed: listed.facts.clone(),
            meta: Box::new(meta.clone()),
            came_as,
            stored_as,
            came,
            came_bytes,
            progress: Progress::default(),
        };
        Ok(Entry { path, meta, content: Content::Patched(Box::new(patch)) })
    }

    /// The manifest has come: everything is compared with it.
    fn end(&mut self) -> Result<()> {
        let mut received = self.shared.lock();
        let text = received.read_raw()?;
        if received.tap.next_boundary()? != Boundary::Over {
            return Err(base("something comes after its manifest"));
        }
        let manifest = BackupManifest::parse(&text)?;
        manifest.compare(&received.files)?;
        if manifest.system.is_some_and(|system| system != self.expected.system) {
            return Err(base("its manifest is of another cluster"));
        }
        wal_is_there(&manifest, &received, self.expected.segment_size)?;
        let (end, session) = received.take_stream()?.finish()?;
        let fits = |range: &rekindle_core::wal::WalRange| range.timeline == end.timeline && range.end == end.stop;
        if !manifest.wal_ranges.iter().any(fits) {
            return Err(base("its manifest ends elsewhere than the server says"));
        }
        let (stopped, session) = session.clock()?;
        session.close();
        let (manifest, text) = if self.before.is_some() {
            let manifest = whole_manifest(manifest, &received);
            let text = manifest.encode()?;
            (manifest, text)
        } else {
            (manifest, text)
        };
        let mut meta = Meta::synthetic(EntryKind::File, stopped);
        (meta.size, meta.uid, meta.gid) = (text.len() as u64, self.owner.0, self.owner.1);
        let manifest_sha256 = Sha256::digest(&text).into();
        let transferred = received.tap.transferred;
        drop(received);
        let full = format!("{DATA}/{MANIFEST_NAME}");
        self.pending.push_back(bytes_entry(full.as_bytes(), meta, text)?);
        let ended = Ended { end, stopped, manifest, manifest_sha256, transferred };
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        self.over = true;
        Ok(())
    }
}

/// The manifest of what is stored instead of what came.
fn whole_manifest(mut manifest: BackupManifest, received: &Received) -> BackupManifest {
    for (came_as, (stored_as, facts)) in &received.made {
        if let Some(Listed { modified, .. }) = manifest.files.remove(came_as) {
            manifest.files.insert(stored_as.clone(), Listed { facts: facts.clone(), modified });
        }
    }
    manifest
}

/// Whether every segment that the backup needs came with it, so that it stands for itself.
fn wal_is_there(manifest: &BackupManifest, received: &Received, size: SegmentSize) -> Result<()> {
    for range in &manifest.wal_ranges {
        let mut segment = SegmentName::holding(range.timeline, range.start, size);
        // The end is behind the last byte.
        while segment.number.start(size) < range.end {
            let path = format!("pg_wal/{}", segment.file(size));
            let there = received.files.get(path.as_bytes());
            if there.is_none_or(|facts| facts.size != u64::from(size.bytes())) {
                return Err(base(format!("the WAL segment `{path}` did not come with it")));
            }
            segment = segment.next();
        }
    }
    Ok(())
}

fn entry_path(path: &[u8]) -> Result<EntryPath> {
    EntryPath::new(path).map_err(|bad| base(format!("`{}`: {bad}", shown(path))))
}

fn meta(member: &Member) -> Meta {
    let kind = match &member.kind {
        MemberKind::File => EntryKind::File,
        MemberKind::Directory => EntryKind::Directory,
        MemberKind::Symlink { target } => EntryKind::Symlink { target: target.clone() },
    };
    let time = FileTime { seconds: member.modified, nanoseconds: 0 };
    let mut meta = Meta::synthetic(kind, jiff::Timestamp::UNIX_EPOCH);
    (meta.modified, meta.changed, meta.accessed) = (time, time, time);
    (meta.mode, meta.uid, meta.gid, meta.size) = (member.mode, member.uid, member.gid, member.size);
    meta
}

fn bytes_entry(path: &[u8], meta: Meta, bytes: Vec<u8>) -> Result<Entry> {
    let read = BytesRead { bytes, at: 0, meta: Box::new(meta.clone()) };
    Ok(Entry { path: entry_path(path)?, meta, content: Content::Member(Box::new(read)) })
}

impl Iterator for BaseEntries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.pending.pop_front() {
                return Some(Ok(entry));
            }
            if self.over {
                return None;
            }
            if let Err(fault) = self.advance() {
                self.over = true;
                return Some(Err(fault));
            }
        }
    }
}

/// A file as it comes.
struct MemberRead {
    shared: Shared,
    meta: Box<Meta>,
    listed: Vec<u8>,
    crc: Crc32c,
    bytes: u64,
}

impl ContentRead for MemberRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        let read = self.shared.lock().read(buffer)?;
        self.crc.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }

    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        let Self { shared, meta, listed, crc, bytes } = *self;
        shared.lock().count(&listed, bytes, &crc)?;
        Ok(Closing::Keep(meta))
    }
}

/// Bytes in memory.
struct BytesRead {
    bytes: Vec<u8>,
    at: usize,
    meta: Box<Meta>,
}

impl ContentRead for BytesRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        let there = &self.bytes[self.at..];
        let read = there.len().min(buffer.len());
        buffer[..read].copy_from_slice(&there[..read]);
        self.at += read;
        Ok(read)
    }

    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        Ok(Closing::Keep(self.meta))
    }
}

/// A file that did not change since the earlier point. It is read only when the repository cannot
/// take it over.
struct Held {
    before: Arc<Before>,
    path: EntryPath,
    meta: Meta,
    facts: FileFacts,
}

impl ContentSource for Held {
    fn open(&mut self) -> Result<Box<dyn ContentRead>, ReadFault> {
        Ok(Box::new(HeldRead {
            inner: self.before.part.open(&self.path)?,
            meta: Box::new(self.meta.clone()),
            facts: self.facts.clone(),
            summing: Summing::like(self.facts.checksum),
        }))
    }

    fn unchanged(self: Box<Self>, _size: u64) {}
}

struct HeldRead {
    inner: Box<dyn ContentRead>,
    meta: Box<Meta>,
    facts: FileFacts,
    summing: Summing,
}

impl ContentRead for HeldRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        let read = self.inner.read(buffer)?;
        self.summing.update(&buffer[..read]);
        Ok(read)
    }

    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        if self.summing.finish() != self.facts.checksum {
            return Err(base("a file of the earlier point is not what its manifest says"));
        }
        Ok(Closing::Keep(self.meta))
    }
}
