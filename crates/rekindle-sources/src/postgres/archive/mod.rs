//! Reads the custom format of `pg_dump` while it passes, to know what is in it and that its end is
//! its end.
//!
//! The layout is PostgreSQL's own (`src/bin/pg_dump/pg_backup_archiver.c`, `pg_backup_custom.c`),
//! archive versions 1.12 to 1.16 (PostgreSQL 9.6 to 18): a head, a table of contents, then data
//! blocks until the end of the file. A dump that was cut at a block boundary is still readable to
//! `pg_restore --list`; here it is an error, because a block that the table of contents announces
//! was not seen.

mod bytes;
mod toc;

use std::collections::BTreeSet;
use std::fmt;

use bytes::{Bytes, Layout, Short};
pub use toc::{Head, TocEntry};

/// Oldest and newest archive version that is understood.
pub const VERSIONS: std::ops::RangeInclusive<(u8, u8)> = (1, 12)..=(1, 16);
/// One entry of the table of contents (a function body, say) may be this long.
const TOC_ENTRY_MAX: usize = 256 * 1024 * 1024;
const BLOCK_DATA: u8 = 1;
const BLOCK_BLOBS: u8 = 3;

/// Why a stream is not a whole dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadArchive {
    /// There is not a single byte.
    Empty,
    /// It does not start like a dump in custom format.
    Magic,
    /// A version outside of [`VERSIONS`].
    Version(u8, u8),
    /// The bytes contradict the format.
    Malformed { at: u64, what: &'static str },
    /// It ends inside of something.
    Cut { at: u64, inside: &'static str },
    /// It ends between two blocks, and these entries have no data.
    Missing { count: usize, first: String },
}

impl fmt::Display for BadArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the dump has no bytes"),
            Self::Magic => f.write_str("it does not start like a dump in custom format"),
            Self::Version(major, minor) => {
                write!(f, "its archive version {major}.{minor} is not known")
            }
            Self::Malformed { at, what } => write!(f, "malformed at byte {at}: {what}"),
            Self::Cut { at, inside } => write!(f, "it ends at byte {at}, inside of {inside}"),
            Self::Missing { count, first } => {
                write!(f, "the data of {count} entries is missing, first of {first}")
            }
        }
    }
}

impl std::error::Error for BadArchive {}

/// What a whole archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    pub head: Head,
    pub entries: Vec<TocEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Toc {
        left: u64,
    },
    /// Between two blocks: the only place where an archive may end.
    Block,
    /// Before the length of a chunk of table data.
    Chunk,
    /// Before the number of the next large object.
    Blob,
    /// Before the length of a chunk of a large object.
    BlobChunk,
}

/// A parser that is fed with the bytes as they come.
#[derive(Debug)]
pub struct Archive {
    state: State,
    layout: Layout,
    /// Bytes that were given but are too few to be understood.
    carry: Vec<u8>,
    /// Payload that is still to be passed over.
    skip: u64,
    /// Bytes fully understood.
    at: u64,
    head: Option<Head>,
    entries: Vec<TocEntry>,
    /// Dump ids whose data was announced and not seen.
    awaited: BTreeSet<i64>,
}

impl Default for Archive {
    fn default() -> Self {
        Self {
            state: State::Head,
            layout: Layout::default(),
            carry: Vec::new(),
            skip: 0,
            at: 0,
            head: None,
            entries: Vec::new(),
            awaited: BTreeSet::new(),
        }
    }
}

impl Archive {
    /// A parser that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Head and table of contents, once they have passed.
    pub fn contents(&self) -> Option<Contents> {
        if matches!(self.state, State::Head | State::Toc { .. }) {
            return None;
        }
        Some(Contents { head: self.head.clone()?, entries: self.entries.clone() })
    }

    /// Whether head and table of contents have passed.
    pub fn has_contents(&self) -> bool {
        !matches!(self.state, State::Head | State::Toc { .. })
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), BadArchive> {
        if self.carry.is_empty() {
            let used = self.run(bytes)?;
            self.carry.extend_from_slice(&bytes[used..]);
        } else {
            let mut carry = std::mem::take(&mut self.carry);
            carry.extend_from_slice(bytes);
            let used = self.run(&carry)?;
            carry.drain(..used);
            self.carry = carry;
        }
        if self.carry.len() > TOC_ENTRY_MAX {
            return Err(self.malformed("an entry of the table of contents is too long"));
        }
        Ok(())
    }

    /// After the last byte: whether this was the whole archive.
    pub fn finish(self) -> Result<Contents, BadArchive> {
        if self.at == 0 && self.carry.is_empty() {
            return Err(BadArchive::Empty);
        }
        let inside = match self.state {
            State::Head => "the head",
            State::Toc { .. } => "the table of contents",
            State::Chunk => "the data of a table",
            State::Blob | State::BlobChunk => "the large objects",
            State::Block if self.skip > 0 || !self.carry.is_empty() => "a block",
            State::Block => "",
        };
        if !inside.is_empty() {
            let at = self.at + self.carry.len() as u64;
            return Err(BadArchive::Cut { at, inside });
        }
        if let Some(first) = self.awaited.first() {
            let entry = self.entries.iter().find(|entry| entry.dump_id == *first);
            return Err(BadArchive::Missing {
                count: self.awaited.len(),
                first: entry.map_or_else(|| format!("entry {first}"), TocEntry::describe),
            });
        }
        let head = self.head.ok_or(BadArchive::Empty)?;
        Ok(Contents { head, entries: self.entries })
    }

    fn malformed(&self, what: &'static str) -> BadArchive {
        BadArchive::Malformed { at: self.at, what }
    }

    /// Understands as much of `bytes` as it can; gives how much that was.
    fn run(&mut self, bytes: &[u8]) -> Result<usize, BadArchive> {
        let mut used = 0;
        loop {
            if self.skip > 0 {
                let rest = (bytes.len() - used) as u64;
                let passed = self.skip.min(rest);
                self.skip -= passed;
                self.at += passed;
                used += usize::try_from(passed).unwrap_or(0);
                if self.skip > 0 {
                    return Ok(used);
                }
            }
            let mut view = Bytes::new(&bytes[used..], self.layout);
            match self.step(&mut view) {
                Ok(()) => {
                    used += view.used();
                    self.at += view.used() as u64;
                }
                Err(Short::More) => return Ok(used),
                Err(Short::Bad(what)) => return Err(self.malformed(what)),
                Err(Short::Archive(bad)) => return Err(bad),
            }
        }
    }

    /// Understands one thing. Nothing is changed when there are too few bytes.
    fn step(&mut self, view: &mut Bytes<'_>) -> Result<(), Short> {
        match self.state {
            State::Head => {
                let (head, layout, entries) = toc::head(view)?;
                self.head = Some(head);
                self.layout = layout;
                self.state = State::Toc { left: entries };
                self.after_toc_entry();
            }
            State::Toc { left } => {
                let entry = toc::entry(view)?;
                if entry.has_data && !self.awaited.insert(entry.dump_id) {
                    return Err(Short::Bad("two entries have the same number"));
                }
                self.entries.push(entry);
                self.state = State::Toc { left: left - 1 };
                self.after_toc_entry();
            }
            State::Block => self.block(view)?,
            State::Chunk => {
                self.skip = view.length()?;
                if self.skip == 0 {
                    self.state = State::Block;
                }
            }
            State::Blob => {
                if view.int()? != 0 {
                    self.state = State::BlobChunk;
                } else {
                    self.state = State::Block;
                }
            }
            State::BlobChunk => {
                self.skip = view.length()?;
                if self.skip == 0 {
                    self.state = State::Blob;
                }
            }
        }
        Ok(())
    }

    fn after_toc_entry(&mut self) {
        if self.state == (State::Toc { left: 0 }) {
            self.state = State::Block;
        }
    }

    fn block(&mut self, view: &mut Bytes<'_>) -> Result<(), Short> {
        let kind = view.byte()?;
        let dump_id = view.int()?;
        let next = match kind {
            BLOCK_DATA => State::Chunk,
            BLOCK_BLOBS => State::Blob,
            _ => return Err(Short::Bad("unknown kind of block")),
        };
        if !self.awaited.remove(&dump_id) {
            return Err(Short::Bad("a block that no entry announces"));
        }
        self.state = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
