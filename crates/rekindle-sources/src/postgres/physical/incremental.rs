//! The files of an incremental base backup (PostgreSQL 17, `backup_label` and
//! `basebackup_incremental.c`): only blocks that changed, with their numbers. Together with the
//! file of the earlier point they become the whole file again, while it streams.

use std::ops::Range;
use std::sync::Arc;

use rekindle_core::entry::{Closing, ContentRead, EntryPath, Meta, PatchSource, ReadFault};
use rekindle_core::{Fault, Result, codes};

use super::checksum::{Carried, Checksum, Crc32c};
use super::entries::Before;
use super::manifest::FileFacts;
use super::received::{Received, Shared};

/// Names of such files begin with this.
pub(super) const PREFIX: &[u8] = b"INCREMENTAL.";
const MAGIC: u32 = 0xD3AE_1F0D;
const FIXED_BYTES: usize = 12;
/// Blocks of a relation segment: 1 GiB of the smallest blocks.
const BLOCKS_MAX: u32 = (1 << 30) / 1024;

/// The head of such a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Length of the whole file, in blocks.
    pub(super) length: u32,
    /// Blocks that come with it, ascending.
    pub(super) blocks: Vec<u32>,
}

fn wrong(why: &str) -> Fault {
    Fault::new(codes::PG_BASE, "read an incremental file of the base backup").because(why.to_owned())
}

impl Head {
    /// Reads the head, with what pads it; `crc` sees every byte. Gives the bytes read.
    pub(super) fn read(received: &mut Received, size: u64, block: usize, crc: &mut Crc32c) -> Result<(Self, u64)> {
        let mut take = |length: usize| -> Result<Vec<u8>> {
            let mut bytes = vec![0; length];
            received.read_exact(&mut bytes)?;
            crc.update(&bytes);
            Ok(bytes)
        };
        if size < FIXED_BYTES as u64 {
            return Err(wrong("it is shorter than its head"));
        }
        let fixed = take(FIXED_BYTES)?;
        let [magic, count, truncation] = words(&fixed)[..] else { return Err(wrong("its head is cut")) };
        if magic != MAGIC {
            return Err(wrong("it does not begin as such files do"));
        }
        if count > BLOCKS_MAX || truncation > BLOCKS_MAX {
            return Err(wrong("it has more blocks than a file can have"));
        }
        let count = count as usize;
        let numbers = FIXED_BYTES + count * 4;
        let head = if count == 0 { numbers } else { numbers.next_multiple_of(block) };
        if head as u64 + (count * block) as u64 != size {
            return Err(wrong("its length does not fit its head"));
        }
        let blocks = words(&take(count * 4)?);
        take(head - numbers)?;
        if !blocks.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(wrong("its blocks are not in order"));
        }
        // As pg_combinebackup reckons: a block that comes with it is always part of the file.
        let length = blocks.last().map_or(truncation, |last| truncation.max(last + 1));
        if length > BLOCKS_MAX {
            return Err(wrong("it has more blocks than a file can have"));
        }
        Ok((Self { length, blocks }, head as u64))
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    // In the byte order of the server: every platform that PostgreSQL 17 has packages for is
    // little-endian, but one (s390x), where the magic number does not fit and nothing is guessed.
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}

/// A whole file, made from the blocks on the wire and the file of the earlier point.
struct Whole {
    shared: Shared,
    head: Head,
    block: usize,
    /// The file of the earlier point, and how many blocks of it there are.
    before: Box<dyn ContentRead>,
    before_blocks: u32,
    meta: Box<Meta>,
    came_as: Vec<u8>,
    stored_as: Vec<u8>,
    came: Crc32c,
    came_bytes: u64,
    place: Place,
}

/// How far the file is made.
struct Place {
    next: u32,
    used: usize,
    /// The block being handed out.
    buffer: Vec<u8>,
    at: usize,
    made: Crc32c,
}

impl Place {
    fn start() -> Self {
        Self { next: 0, used: 0, buffer: Vec::new(), at: 0, made: Crc32c::new() }
    }
}

impl Whole {
    fn next_block(&mut self) -> Result<(), ReadFault> {
        let number = self.place.next;
        self.place.next += 1;
        self.place.buffer.resize(self.block, 0);
        self.place.at = 0;
        let changed = self.head.blocks.get(self.place.used) == Some(&number);
        if number < self.before_blocks {
            read_exact(&mut *self.before, &mut self.place.buffer)?;
        } else if !changed {
            // PostgreSQL sends every block that is not zeros.
            self.place.buffer.fill(0);
        }
        if changed {
            self.place.used += 1;
            self.shared.lock().read_exact(&mut self.place.buffer)?;
            self.came.update(&self.place.buffer);
            self.came_bytes += self.block as u64;
        }
        self.place.made.update(&self.place.buffer);
        Ok(())
    }
}

fn read_exact(from: &mut dyn ContentRead, mut buffer: &mut [u8]) -> Result<(), ReadFault> {
    while !buffer.is_empty() {
        match from.read(buffer)? {
            0 => return Err(ReadFault::Abort(wrong("the file of the earlier point is too short"))),
            read => buffer = &mut buffer[read..],
        }
    }
    Ok(())
}

impl ContentRead for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        if self.place.at == self.place.buffer.len() {
            if self.place.next == self.head.length {
                return Ok(0);
            }
            self.next_block()?;
        }
        let there = &self.place.buffer[self.place.at..];
        let read = there.len().min(buffer.len());
        buffer[..read].copy_from_slice(&there[..read]);
        self.place.at += read;
        Ok(read)
    }

    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        let Self { shared, head, block, came_as, stored_as, came, came_bytes, place, meta, .. } = *self;
        if place.used != head.blocks.len() {
            return Err(wrong("a block lies behind its end"));
        }
        let made = FileFacts { size: u64::from(head.length) * block as u64, checksum: place.made.finish() };
        let mut received = shared.lock();
        received.count(&came_as, came_bytes, &came)?;
        received.made.insert(came_as, (stored_as, made));
        Ok(Closing::Keep(meta))
    }
}

/// A file of the earlier point with the blocks that came put in their places: of the earlier one, only the
/// chunks that they lie in are read.
pub(super) struct Patch {
    pub(super) shared: Shared,
    pub(super) head: Head,
    pub(super) block: usize,
    pub(super) before: Arc<Before>,
    /// Its path in the part.
    pub(super) path: EntryPath,
    /// What the earlier manifest says of it.
    pub(super) listed: FileFacts,
    pub(super) meta: Box<Meta>,
    /// Its path in the manifest, as it came and as it is stored.
    pub(super) came_as: Vec<u8>,
    pub(super) stored_as: Vec<u8>,
    pub(super) came: Crc32c,
    pub(super) came_bytes: u64,
    pub(super) progress: Progress,
}

/// How far a file is patched.
#[derive(Default)]
pub(super) struct Progress {
    chunk: u64,
    /// Blocks that were put in their places.
    used: usize,
    carried: Option<Carried>,
    /// Chunks of the earlier file that are needed.
    earlier: Option<Box<dyn ContentRead>>,
}

impl Patch {
    fn start_of(&self, block: u32) -> u64 {
        u64::from(block) * self.block as u64
    }

    /// Chunks of the earlier file that something of comes, and the one in which it ended when it has grown.
    fn parts(&self) -> Vec<Range<u64>> {
        let chunk = self.progress.chunk;
        let grown = (self.size() > self.listed.size && !self.listed.size.is_multiple_of(chunk))
            .then(|| self.listed.size / chunk);
        let mut numbers: Vec<u64> =
            self.head.blocks.iter().map(|block| self.start_of(*block) / chunk).chain(grown).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let part = |number: u64| number * chunk..(number + 1) * chunk;
        numbers.into_iter().map(part).filter(|part| part.start < self.listed.size).collect()
    }

    /// Puts the blocks that came for this chunk in their places.
    fn put_blocks(&mut self, at: u64, chunk: &mut [u8]) -> Result<()> {
        while let Some(block) = self.head.blocks.get(self.progress.used).copied() {
            let place = self.start_of(block).checked_sub(at).ok_or_else(|| wrong("a block was not asked for"))?;
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            if place >= chunk.len() {
                break;
            }
            let there = chunk.get_mut(place..place + self.block).ok_or_else(|| wrong("a block lies across chunks"))?;
            self.shared.lock().read_exact(there)?;
            self.came.update(there);
            self.came_bytes += self.block as u64;
            self.progress.used += 1;
        }
        Ok(())
    }
}

impl PatchSource for Patch {
    fn size(&self) -> u64 {
        u64::from(self.head.length) * self.block as u64
    }

    fn begin(&mut self, chunk_bytes: u64) -> bool {
        // The checksum of a file that became shorter cannot be had without what was cut off.
        let Checksum::Crc32c(crc) = self.listed.checksum else { return false };
        if !chunk_bytes.is_multiple_of(self.block as u64) || self.size() < self.listed.size {
            return false;
        }
        self.progress.chunk = chunk_bytes;
        self.progress.carried = Some(Carried::new(crc, self.listed.size));
        true
    }

    fn changes(&self, chunk: Range<u64>) -> bool {
        let first = self.head.blocks.partition_point(|block| self.start_of(*block) < chunk.start);
        let inside = self.head.blocks.get(first).is_some_and(|block| self.start_of(*block) < chunk.end);
        inside || chunk.end > self.listed.size
    }

    fn read(&mut self, at: u64, chunk: &mut [u8]) -> Result<(), ReadFault> {
        if self.progress.earlier.is_none() {
            self.progress.earlier = Some(self.before.part.open_parts(&self.path, &self.parts())?);
        }
        let earlier = self.progress.earlier.as_mut().ok_or_else(|| wrong("it was not opened"))?;
        let there = usize::try_from(self.listed.size.saturating_sub(at)).unwrap_or(usize::MAX).min(chunk.len());
        let (over, more) = chunk.split_at_mut(there);
        read_exact(&mut **earlier, over)?;
        // PostgreSQL sends every block that is not zeros.
        more.fill(0);
        let before = Crc32c::of(over);
        self.put_blocks(at, chunk)?;
        let carried = self.progress.carried.as_mut().and_then(|carried| carried.put(at, before, chunk));
        carried.ok_or_else(|| wrong("a chunk does not fit the file").into())
    }

    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        let size = self.size();
        let Self { shared, head, meta, came_as, stored_as, came, came_bytes, progress, .. } = *self;
        if progress.used != head.blocks.len() {
            return Err(wrong("a block lies behind its end"));
        }
        let checksum = progress.carried.and_then(|carried| carried.finish(size));
        let made = FileFacts { size, checksum: checksum.ok_or_else(|| wrong("its end was not asked for"))? };
        let mut received = shared.lock();
        received.count(&came_as, came_bytes, &came)?;
        received.made.insert(came_as, (stored_as, made));
        Ok(Closing::Keep(meta))
    }

    fn whole(self: Box<Self>) -> Result<Box<dyn ContentRead>, Fault> {
        let blocks = self.listed.size / self.block as u64;
        Ok(Box::new(Whole {
            before: self.before.part.open(&self.path)?,
            before_blocks: u32::try_from(blocks).map_err(|_| wrong("the file of the earlier point is too long"))?,
            shared: self.shared,
            head: self.head,
            block: self.block,
            meta: self.meta,
            came_as: self.came_as,
            stored_as: self.stored_as,
            came: self.came,
            came_bytes: self.came_bytes,
            place: Place::start(),
        }))
    }
}

/// `backup_label` as a whole backup has it: without the lines that say which backup this one
/// builds on, for which the server would refuse to start.
pub(super) fn whole_label(label: &[u8]) -> Vec<u8> {
    let lines = label.split_inclusive(|b| *b == b'\n');
    lines.filter(|line| !line.starts_with(b"INCREMENTAL FROM ")).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_label_names_no_earlier_backup() {
        let label = b"START WAL LOCATION: 0/5000028 (file 000000010000000000000005)\nSTART TIMELINE: 1\n\
                      INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n";
        let text = String::from_utf8(whole_label(label)).unwrap();
        assert!(text.ends_with("START TIMELINE: 1\n"), "{text}");
    }
}
