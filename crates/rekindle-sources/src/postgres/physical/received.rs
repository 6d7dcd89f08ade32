//! What arrives on the wire of a base backup, and what has been counted of it so far. Shared by
//! the entries and the content of the entry that is being read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rekindle_core::{Fault, Result, codes};

use super::checksum::Crc32c;
use super::manifest::FileFacts;
use super::tar::{Bytes, Member, Tar};
use crate::postgres::replication::{BaseItem, BaseStream};

/// What began on the wire and was not dealt with yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boundary {
    Archive(usize),
    Manifest,
    Over,
}

/// The bytes of the wire.
pub(super) struct Tap {
    stream: Option<BaseStream>,
    /// What is left of the piece that the stream gave last: it stays there until the next.
    left: usize,
    boundary: Option<Boundary>,
    /// Bytes of archives and manifest.
    pub(super) transferred: u64,
}

impl Tap {
    fn fill(&mut self) -> Result<()> {
        let stream = self.stream.as_mut().ok_or_else(|| Fault::new(codes::RUN_BUG, "read a base backup that ended"))?;
        match stream.item()? {
            Some(BaseItem::Data(bytes)) => {
                self.left = bytes.len();
                self.transferred += bytes.len() as u64;
            }
            Some(BaseItem::Archive(index)) => self.boundary = Some(Boundary::Archive(index)),
            Some(BaseItem::Manifest) => self.boundary = Some(Boundary::Manifest),
            None => self.boundary = Some(Boundary::Over),
        }
        Ok(())
    }

    /// What comes after the current archive or manifest; the rest of it is thrown away, which is
    /// padding at most.
    pub(super) fn next_boundary(&mut self) -> Result<Boundary> {
        loop {
            if let Some(boundary) = self.boundary.take() {
                self.left = 0;
                return Ok(boundary);
            }
            self.fill()?;
        }
    }
}

impl Bytes for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while self.left == 0 {
            if self.boundary.is_some() {
                return Ok(0);
            }
            self.fill()?;
        }
        let piece = self.stream.as_ref().map_or(&[][..], BaseStream::last);
        let rest = &piece[piece.len() - self.left..];
        let read = buffer.len().min(rest.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        self.left -= read;
        Ok(read)
    }
}

/// Everything about a running base backup.
pub(super) struct Received {
    pub(super) tap: Tap,
    pub(super) tar: Tar,
    /// Every file as it came, by its path in the manifest.
    pub(super) files: BTreeMap<Vec<u8>, FileFacts>,
    /// Files that are stored under another name or with other content than they came with: by
    /// the path they came under, what is stored.
    pub(super) made: BTreeMap<Vec<u8>, (Vec<u8>, FileFacts)>,
}

/// Shared by the entries and their content.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Received>>);

impl Shared {
    pub(super) fn new(stream: BaseStream) -> Self {
        let tap = Tap { stream: Some(stream), left: 0, boundary: None, transferred: 0 };
        Self(Arc::new(Mutex::new(Received { tap, tar: Tar::default(), files: BTreeMap::new(), made: BTreeMap::new() })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Received> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Received {
    /// Gives the stream up, to end it.
    pub(super) fn take_stream(&mut self) -> Result<BaseStream> {
        self.tap.stream.take().ok_or_else(|| Fault::new(codes::RUN_BUG, "end a base backup twice"))
    }

    /// The next member of the current archive.
    pub(super) fn next_member(&mut self) -> Result<Option<Member>> {
        self.tar.next(&mut self.tap)
    }

    /// Some content of the current member; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.tar.read(&mut self.tap, buffer)
    }

    /// Fills the whole buffer from the current member.
    pub(super) fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            match self.read(buffer)? {
                0 => return Err(Fault::new(codes::PG_BASE, "read the base backup").because("a file is cut short")),
                read => buffer = &mut buffer[read..],
            }
        }
        Ok(())
    }

    /// The rest of the current archive or manifest. For the manifest, which is in no archive.
    pub(super) fn read_raw(&mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.tap.read(&mut buffer)? {
                0 => return Ok(all),
                read => all.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// Counts a file that has come whole.
    pub(super) fn count(&mut self, path: &[u8], size: u64, crc: &Crc32c) -> Result<()> {
        let facts = FileFacts { size, checksum: crc.finish() };
        if self.files.insert(path.to_vec(), facts).is_some() {
            let shown = String::from_utf8_lossy(path).escape_debug().to_string();
            return Err(Fault::new(codes::PG_BASE, "read the base backup").because(format!("`{shown}` came twice")));
        }
        Ok(())
    }
}
