//! The source's own account of what it gave.
//!
//! A source wraps its entries with a [`Witness`] before it hands them out. The witness sees every
//! byte that leaves the source and counts an entry only after its end was reached and its producer
//! confirmed it. The repository counts for itself what it stored; `Part::join` compares the two.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3Default;

use crate::entry::{
    Closing, Content, ContentRead, ContentSource, Entries, Entry, EntryKind, EntryPath, PatchSource, ReadFault,
};
use crate::fault::Fault;
use crate::proof::StreamDigest;
use crate::tally::{Counted, Pieces, Tally};

/// Counts what a source gives. Cloning shares the count.
#[derive(Debug, Clone, Default)]
pub struct Witness(Arc<Mutex<Account>>);

/// What a witness has seen.
#[derive(Debug, Clone, Default)]
pub struct Account {
    pub tally: Tally,
    /// One digest per stream, sorted by path.
    pub streams: Vec<StreamDigest>,
    /// Whether the entries ended by themselves, without an error.
    pub ended: bool,
}

impl Witness {
    /// A witness that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was given so far.
    pub fn account(&self) -> Account {
        let mut account = self.lock().clone();
        account.streams.sort_by(|a, b| a.path.cmp(&b.path));
        account
    }

    /// Puts the witness between a source and whoever pulls its entries.
    pub fn watch(&self, entries: Entries) -> Entries {
        Box::new(Watched { witness: self.clone(), inner: Some(entries) })
    }

    fn count(&self, path: &EntryPath, kind: &EntryKind, counted: Counted) {
        self.lock().tally.add(path, kind, counted);
    }
}

struct Watched {
    witness: Witness,
    inner: Option<Entries>,
}

impl Iterator for Watched {
    type Item = Result<Entry, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.inner.as_mut()?.next() {
            None => {
                self.inner = None;
                self.witness.lock().ended = true;
                None
            }
            Some(Err(fault)) => {
                self.inner = None;
                Some(Err(fault))
            }
            Some(Ok(entry)) => Some(Ok(self.wrap(entry))),
        }
    }
}

impl Watched {
    fn wrap(&self, entry: Entry) -> Entry {
        let place = Place { witness: self.witness.clone(), path: entry.path.clone(), kind: entry.meta.kind.clone() };
        let content = match entry.content {
            Content::None => {
                self.witness.count(&place.path, &place.kind, Counted::Nothing);
                Content::None
            }
            Content::Stream(inner) => Content::Stream(Box::new(WatchedRead {
                place,
                inner,
                bytes: 0,
                hash: Box::default(),
                sha256: Some(Sha256::new()),
            })),
            Content::Member(inner) => {
                Content::Member(Box::new(WatchedRead { place, inner, bytes: 0, hash: Box::default(), sha256: None }))
            }
            Content::File(inner) => Content::File(Box::new(WatchedSource { place, inner })),
            Content::Unchanged(inner) => Content::Unchanged(Box::new(WatchedSource { place, inner })),
            Content::Patched(inner) => {
                Content::Patched(Box::new(WatchedPatch { place, inner, pieces: Box::default() }))
            }
        };
        Entry { content, ..entry }
    }
}

#[derive(Clone)]
struct Place {
    witness: Witness,
    path: EntryPath,
    kind: EntryKind,
}

struct WatchedSource {
    place: Place,
    inner: Box<dyn ContentSource>,
}

impl ContentSource for WatchedSource {
    fn open(&mut self) -> Result<Box<dyn ContentRead>, ReadFault> {
        let inner = self.inner.open()?;
        Ok(Box::new(WatchedRead { place: self.place.clone(), inner, bytes: 0, hash: Box::default(), sha256: None }))
    }

    fn unchanged(self: Box<Self>, size: u64) {
        self.place.witness.count(&self.place.path, &self.place.kind, Counted::Unchanged { bytes: size });
        self.inner.unchanged(size);
    }
}

struct WatchedPatch {
    place: Place,
    inner: Box<dyn PatchSource>,
    pieces: Box<Pieces>,
}

impl PatchSource for WatchedPatch {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn begin(&mut self, chunk_bytes: u64) -> bool {
        self.inner.begin(chunk_bytes)
    }

    fn changes(&self, chunk: Range<u64>) -> bool {
        self.inner.changes(chunk)
    }

    fn read(&mut self, at: u64, chunk: &mut [u8]) -> Result<(), ReadFault> {
        self.inner.read(at, chunk)?;
        self.pieces.add(at, chunk);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        let Self { place, inner, pieces } = *self;
        let size = inner.size();
        let closing = inner.close()?;
        if let Closing::Keep(_) = closing {
            place.witness.count(&place.path, &place.kind, pieces.of(size));
        }
        Ok(closing)
    }

    fn whole(self: Box<Self>) -> Result<Box<dyn ContentRead>, Fault> {
        let inner = self.inner.whole()?;
        Ok(Box::new(WatchedRead { place: self.place, inner, bytes: 0, hash: Box::default(), sha256: None }))
    }
}

struct WatchedRead {
    place: Place,
    inner: Box<dyn ContentRead>,
    bytes: u64,
    hash: Box<Xxh3Default>,
    sha256: Option<Sha256>,
}

impl ContentRead for WatchedRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        let given = self.inner.read(buffer)?;
        let bytes = &buffer[..given];
        self.hash.update(bytes);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        self.bytes += given as u64;
        Ok(given)
    }

    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        let Self { place, inner, bytes, hash, sha256 } = *self;
        let closing = inner.close()?;
        if let Closing::Keep(_) = closing {
            let mut account = place.witness.lock();
            account.tally.add(&place.path, &place.kind, Counted::Read { bytes, hash: hash.digest128() });
            if let Some(sha256) = sha256 {
                account.streams.push(StreamDigest::new(&place.path, bytes, &sha256.finalize().into()));
            }
        }
        Ok(closing)
    }
}
