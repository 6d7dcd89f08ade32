//! Reads the records of the log as far as recovery to a moment needs them: where the last whole
//! record is, which transactions ended when, which restore points there are.
//!
//! Layouts: `xlog_internal.h`, `xlogrecord.h` and `xact.h` of PostgreSQL 13 to 18, little-endian.

use super::crc32c::Crc32c;
use super::{Lsn, SegmentName, SegmentSize};

const PAGE_BYTES: usize = 8192;
const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;
const RECORD_HEADER: usize = 24;
/// The record header without its checksum, which is computed last.
const CHECKED_HEADER: usize = 20;
/// Bytes of each record that are kept for a look: enough for the fields that are read.
const HEAD_MAX: usize = 256;
const ALIGN: u64 = 8;

const CONTINUES: u16 = 0x1;
const LONG: u16 = 0x2;
/// The unfinished record before this page was given up after a crash.
const OVERWRITES: u16 = 0x8;

const RM_XLOG: u8 = 0;
const RM_XACT: u8 = 1;
const XLOG_SWITCH: u8 = 0x40;
const XLOG_RESTORE_POINT: u8 = 0x70;
const XACT_MASK: u8 = 0x70;
const XACT_COMMIT: u8 = 0x00;
const XACT_ABORT: u8 = 0x20;
const XACT_COMMIT_PREPARED: u8 = 0x30;
const XACT_ABORT_PREPARED: u8 = 0x40;
/// Block id of the main data when it is short, long; of an origin; of a top-level transaction.
const DATA_SHORT: u8 = 255;
const DATA_LONG: u8 = 254;
const ORIGIN: u8 = 253;
const TOP_LEVEL: u8 = 252;
/// Seconds from 1970 to 2000, where PostgreSQL's time begins.
const EPOCH_SECONDS: i64 = 946_684_800;

/// What a record says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordKind {
    /// A transaction ended. `prepared`: it was a prepared one, whose number is not read.
    Ended {
        committed: bool,
        at: jiff::Timestamp,
        prepared: bool,
    },
    /// `pg_create_restore_point`.
    RestorePoint {
        name: String,
        at: jiff::Timestamp,
    },
    Other,
}

/// A whole record whose checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub start: Lsn,
    pub xid: u32,
    pub kind: RecordKind,
}

/// A record of which bytes are still to come.
#[derive(Debug)]
struct Open {
    start: Lsn,
    length: usize,
    taken: usize,
    head: Vec<u8>,
    crc: Crc32c,
}

/// Takes the segments of a log in order, gives its records.
#[derive(Debug)]
pub struct RecordScan {
    size: SegmentSize,
    open: Option<Open>,
    /// Whether a first record was found: before it, continuations are skipped.
    begun: bool,
    before: Option<Lsn>,
    end: Option<Lsn>,
}

impl RecordScan {
    /// A scan that begins with any segment.
    pub fn new(size: SegmentSize) -> Self {
        Self { size, open: None, begun: false, before: None, end: None }
    }

    /// Where the log ends, when a place was met that holds no valid record: nothing is read beyond.
    pub fn end(&self) -> Option<Lsn> {
        self.end
    }

    /// Start of the last whole record.
    pub fn last(&self) -> Option<Lsn> {
        self.before
    }

    /// Takes the next segment, or the bytes that are known of it from its start.
    pub fn push(&mut self, segment: SegmentName, bytes: &[u8], mut each: impl FnMut(Record)) {
        let start = segment.number.start(self.size);
        for (number, page) in bytes.chunks(PAGE_BYTES).enumerate() {
            let at = Lsn(start.0 + (number * PAGE_BYTES) as u64);
            if self.end.is_some() {
                return;
            }
            match self.page(at, page, &mut each) {
                Page::Next => {}
                Page::Switch => return,
                Page::End(at) => self.end = Some(at),
            }
        }
    }

    fn page(&mut self, at: Lsn, page: &[u8], each: &mut impl FnMut(Record)) -> Page {
        let Some(header) = Header::read(at, page) else { return Page::End(at) };
        let mut position = header.length;
        if header.overwrites {
            self.open = None;
        } else if header.continues > 0 {
            if let Some(open) = &self.open {
                if open.length - open.taken != header.continues {
                    return Page::End(open.start);
                }
            } else if self.begun {
                return Page::End(at);
            } else {
                // A record that began before the first segment: skipped.
                position += header.continues;
                position = position.next_multiple_of(8);
            }
        } else if let Some(open) = &self.open {
            return Page::End(open.start);
        }
        while position < page.len() {
            if self.open.is_none() {
                let aligned = position.next_multiple_of(8);
                let start = Lsn(at.0 + aligned as u64);
                let Some(length) = page.get(aligned..aligned + 4) else { return Page::Next };
                let length = u32_at(length, 0) as usize;
                if length < RECORD_HEADER {
                    return Page::End(start);
                }
                debug_assert_eq!(start.0 % ALIGN, 0);
                self.begun = true;
                self.open = Some(Open { start, length, taken: 0, head: Vec::new(), crc: Crc32c::new() });
                position = aligned;
            }
            match self.take(&page[position..], each) {
                Took::Bytes(taken) => position += taken,
                Took::Switch => return Page::Switch,
                Took::Bad(start) => return Page::End(start),
            }
        }
        Page::Next
    }

    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(Record)) -> Took {
        let Some(open) = &mut self.open else { return Took::Bytes(0) };
        let taken = bytes.len().min(open.length - open.taken);
        let piece = &bytes[..taken];
        let room = HEAD_MAX.saturating_sub(open.head.len()).min(taken);
        open.head.extend_from_slice(&piece[..room]);
        let header_left = RECORD_HEADER.saturating_sub(open.taken).min(taken);
        open.crc.update(&piece[header_left..]);
        open.taken += taken;
        if open.taken < open.length {
            return Took::Bytes(taken);
        }
        let Some(mut open) = self.open.take() else { return Took::Bytes(taken) };
        open.crc.update(&open.head[..CHECKED_HEADER]);
        let previous = Lsn(u64_at(&open.head, 8));
        if open.crc.value() != u32_at(&open.head, 20) || self.before.is_some_and(|before| before != previous) {
            return Took::Bad(open.start);
        }
        self.before = Some(open.start);
        let (info, manager) = (open.head[16], open.head[17]);
        each(Record { start: open.start, xid: u32_at(&open.head, 4), kind: kind(manager, info, &open.head) });
        if manager == RM_XLOG && info & 0xF0 == XLOG_SWITCH { Took::Switch } else { Took::Bytes(taken) }
    }
}

enum Page {
    Next,
    /// The rest of the segment is empty.
    Switch,
    End(Lsn),
}

enum Took {
    Bytes(usize),
    Switch,
    Bad(Lsn),
}

struct Header {
    length: usize,
    /// Bytes of the record that the page before began.
    continues: usize,
    overwrites: bool,
}

impl Header {
    fn read(at: Lsn, page: &[u8]) -> Option<Self> {
        let header = page.get(..SHORT_HEADER)?;
        let info = u16_at(header, 2);
        if u16_at(header, 0) == 0 || u64_at(header, 8) != at.0 {
            return None;
        }
        let continues = if info & CONTINUES == 0 { 0 } else { u32_at(header, 16) as usize };
        let length = if info & LONG == 0 { SHORT_HEADER } else { LONG_HEADER };
        Some(Self { length, continues, overwrites: info & OVERWRITES != 0 })
    }
}

fn kind(manager: u8, info: u8, head: &[u8]) -> RecordKind {
    let operation = if manager == RM_XACT { info & XACT_MASK } else { info & 0xF0 };
    let read = || match (manager, operation) {
        (RM_XLOG, XLOG_RESTORE_POINT) => {
            let data = main_data(head)?;
            let name = data.get(8..)?;
            let name = &name[..name.iter().position(|byte| *byte == 0)?];
            Some(RecordKind::RestorePoint { name: String::from_utf8_lossy(name).into_owned(), at: time(data)? })
        }
        (RM_XACT, operation) => {
            let (committed, prepared) = match operation {
                XACT_COMMIT => (true, false),
                XACT_COMMIT_PREPARED => (true, true),
                XACT_ABORT => (false, false),
                XACT_ABORT_PREPARED => (false, true),
                _ => return None,
            };
            Some(RecordKind::Ended { committed, at: time(main_data(head)?)?, prepared })
        }
        _ => None,
    };
    read().unwrap_or(RecordKind::Other)
}

/// The beginning of a record's own data, for records that name no blocks.
fn main_data(head: &[u8]) -> Option<&[u8]> {
    let mut at = RECORD_HEADER;
    loop {
        match *head.get(at)? {
            DATA_SHORT => return head.get(at + 2..),
            DATA_LONG => return head.get(at + 5..),
            ORIGIN => at += 3,
            TOP_LEVEL => at += 5,
            _ => return None,
        }
    }
}

/// Microseconds since 2000.
fn time(data: &[u8]) -> Option<jiff::Timestamp> {
    let micros = i64::from_le_bytes(data.get(..8)?.try_into().ok()?);
    jiff::Timestamp::from_microsecond(micros.checked_add(EPOCH_SECONDS * 1_000_000)?).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
