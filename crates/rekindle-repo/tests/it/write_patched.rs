//! Content of which only some pieces changed since an earlier point.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use rekindle_core::entry::{Closing, Content, ContentRead, Entries, Entry, EntryKind, Meta, PatchSource, ReadFault};
use rekindle_core::note::Notes;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{Clock, Repository, Reuse, StoreShape, WriteSession};
use rekindle_core::proof::{CaptureProof, Part, StoredPart};
use rekindle_core::witness::Witness;
use rekindle_core::{ComponentKind, Fault, Result, codes};
use rekindle_repo::{Repo, Session};

use crate::write_support::*;

const CHUNK: usize = 64 << 10;

/// What was asked of a source: places of chunks, or everything.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    chunks: Vec<u64>,
    whole: bool,
}

/// The content as it is now, and what of it is not as before.
struct Changed {
    now: Vec<u8>,
    changes: Vec<Range<u64>>,
    before: u64,
    /// Whether it can be read in pieces, and whether its end is good.
    pieces: bool,
    good: bool,
    asked: Arc<Mutex<Asked>>,
}

fn whole_meta(bytes: &[u8]) -> Meta {
    let mut meta = meta(EntryKind::File);
    meta.size = bytes.len() as u64;
    meta
}

impl PatchSource for Changed {
    fn size(&self) -> u64 {
        self.now.len() as u64
    }
    fn begin(&mut self, chunk_bytes: u64) -> bool {
        assert_eq!(chunk_bytes, CHUNK as u64);
        self.pieces
    }
    fn changes(&self, chunk: Range<u64>) -> bool {
        chunk.end > self.before || self.changes.iter().any(|one| one.start < chunk.end && chunk.start < one.end)
    }
    fn read(&mut self, at: u64, chunk: &mut [u8]) -> Result<(), ReadFault> {
        self.asked.lock().unwrap().chunks.push(at);
        let at = usize::try_from(at).unwrap();
        chunk.copy_from_slice(&self.now[at..at + chunk.len()]);
        Ok(())
    }
    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        if self.good {
            Ok(Closing::Keep(Box::new(whole_meta(&self.now))))
        } else {
            Err(Fault::new(codes::PG_BASE, "a change was not asked for"))
        }
    }
    fn whole(self: Box<Self>) -> Result<Box<dyn ContentRead>, Fault> {
        self.asked.lock().unwrap().whole = true;
        Ok(Box::new(Reading { meta: whole_meta(&self.now), bytes: self.now, at: 0 }))
    }
}

struct Reading {
    bytes: Vec<u8>,
    at: usize,
    meta: Meta,
}

impl ContentRead for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        let given = buffer.len().min(self.bytes.len() - self.at).min(30_001);
        buffer[..given].copy_from_slice(&self.bytes[self.at..self.at + given]);
        self.at += given;
        Ok(given)
    }
    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        Ok(Closing::Keep(Box::new(self.meta)))
    }
}

fn point(
    repo: &Repo,
    content: Content,
    size: usize,
    reuse: Reuse,
    chunk: usize,
) -> Result<(RecoveryPoint, StoredPart)> {
    let context = context();
    let session = Session::begin(repo, &context)?;
    let mut meta = meta(EntryKind::File);
    meta.size = size as u64;
    let entry = Entry { path: path("relation"), meta, content };
    let witness = Witness::new();
    let entries: Entries = witness.watch(Box::new(std::iter::once(Ok(entry))));
    let shape = StoreShape { any_order: true, chunk_bytes: Some(chunk) };
    let holds = match session.store_shaped(&id("database"), entries, reuse, shape) {
        Ok(holds) => holds,
        Err(fault) => {
            session.abandon();
            return Err(fault);
        }
    };
    let (kind, details) = (ComponentKind::Postgres, serde_json::Value::Null);
    let gave = CaptureProof::new(id("database"), kind, &witness, Notes::default(), Now.now(), details).unwrap();
    let part = Part::join(gave, holds.clone()).expect("both accounts say the same");
    Ok((session.commit(draft(&context, [part]))?, holds))
}

fn full(repo: &Repo, bytes: &[u8], chunk: usize) -> StoredPart {
    let read = Reading { meta: whole_meta(bytes), bytes: bytes.to_vec(), at: 0 };
    point(repo, Content::Member(Box::new(read)), bytes.len(), Reuse::Nothing, chunk).unwrap().1
}

fn read_back(repo: &Repo, point: &RecoveryPoint) -> Vec<u8> {
    let part = repo.open(point.id(), &id("database")).unwrap();
    read_all(&mut *part.open(&path("relation")).unwrap())
}

fn read_all(content: &mut dyn ContentRead) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 50_000]);
    loop {
        match content.read(&mut buffer).unwrap() {
            0 => return all,
            given => all.extend_from_slice(&buffer[..given]),
        }
    }
}

/// Ten chunks and a half, then one byte in two of them and four more chunks.
fn contents() -> (Vec<u8>, Vec<u8>, Vec<Range<u64>>) {
    let before = noise(10 * CHUNK + CHUNK / 2, 1);
    let mut now = before.clone();
    let changed = [2 * CHUNK + 5, 7 * CHUNK];
    for at in changed {
        now[at] ^= 1;
    }
    now.extend(noise(4 * CHUNK, 2));
    (before, now, changed.iter().map(|at| *at as u64..*at as u64 + 1).collect())
}

fn changed(before: &[u8], now: &[u8], changes: &[Range<u64>]) -> (Changed, Arc<Mutex<Asked>>) {
    let asked = Arc::<Mutex<Asked>>::default();
    let (changes, before) = (changes.to_vec(), before.len() as u64);
    (Changed { now: now.to_vec(), changes, before, pieces: true, good: true, asked: Arc::clone(&asked) }, asked)
}

#[test]
fn chunks_without_a_change_are_taken_over_unread() {
    let bench = Bench::memory();
    let (before, now, changes) = contents();
    let first = full(&bench.open(), &before, CHUNK);
    let (source, asked) = changed(&before, &now, &changes);
    let repo = bench.open();
    let reuse = Reuse::Tree(first.tree.clone());
    let (point, holds) = point(&repo, Content::Patched(Box::new(source)), now.len(), reuse, CHUNK).unwrap();
    let places = [2, 7, 10, 11, 12, 13, 14].map(|number| number * CHUNK as u64).to_vec();
    assert_eq!(*asked.lock().unwrap(), Asked { chunks: places, whole: false });
    assert_eq!((holds.tally.bytes, holds.tally.unchanged_bytes), (now.len() as u64, 8 * CHUNK as u64));
    assert!(read_back(&repo, &point) == now);
}

#[test]
fn what_cannot_be_taken_over_is_read_whole() {
    for case in ["no earlier tree", "other chunks", "a source that cannot", "nothing there"] {
        let bench = Bench::memory();
        let (before, now, changes) = contents();
        let first = match case {
            "other chunks" => full(&bench.open(), &before, CHUNK / 2),
            "nothing there" => full(&bench.open(), b"", CHUNK),
            _ => full(&bench.open(), &before, CHUNK),
        };
        let (mut source, asked) = changed(&before, &now, &changes);
        source.pieces = case != "a source that cannot";
        let reuse = if case == "no earlier tree" { Reuse::Nothing } else { Reuse::Tree(first.tree) };
        let repo = bench.open();
        let (point, holds) = point(&repo, Content::Patched(Box::new(source)), now.len(), reuse, CHUNK).unwrap();
        assert_eq!(*asked.lock().unwrap(), Asked { chunks: Vec::new(), whole: true }, "{case}");
        assert_eq!((holds.tally.bytes, holds.tally.unchanged_bytes), (now.len() as u64, 0), "{case}");
        assert!(read_back(&repo, &point) == now, "{case}");
    }
}

#[test]
fn a_change_that_does_not_end_well_makes_no_point() {
    let bench = Bench::memory();
    let (before, now, changes) = contents();
    let first = full(&bench.open(), &before, CHUNK);
    let (mut source, _) = changed(&before, &now, &changes);
    source.good = false;
    let reuse = Reuse::Tree(first.tree);
    let fault = point(&bench.open(), Content::Patched(Box::new(source)), now.len(), reuse, CHUNK).unwrap_err();
    assert!(fault.is(codes::PG_BASE), "{fault:?}");
    assert_eq!(bench.open().points().unwrap().len(), 1);
}

#[test]
fn parts_of_a_file_are_its_chunks() {
    let bench = Bench::memory();
    let (before, ..) = contents();
    let repo = bench.open();
    full(&repo, &before, CHUNK);
    let points = repo.points().unwrap();
    let part = repo.open(points[0].id(), &id("database")).unwrap();
    let chunk = |number: usize| (number * CHUNK) as u64..((number + 1) * CHUNK) as u64;
    let parts = [chunk(1), chunk(4), chunk(10), chunk(12)];
    let read = read_all(&mut *part.open_parts(&path("relation"), &parts).unwrap());
    let wanted = [&before[CHUNK..2 * CHUNK], &before[4 * CHUNK..5 * CHUNK], &before[10 * CHUNK..]].concat();
    assert!(read == wanted);
    assert!(read_all(&mut *part.open_parts(&path("relation"), &[]).unwrap()).is_empty());
    let inside = 100..200;
    let across = part.open_parts(&path("relation"), std::slice::from_ref(&inside)).map(drop).unwrap_err();
    assert!(across.is(codes::RUN_BUG), "{across:?}");
}
