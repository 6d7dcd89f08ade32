#![expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]

use super::*;
use crate::wal::{SegmentNumber, Timeline};

/// Lays records out as a server does: pages with headers, continuations, alignment.
struct Log {
    bytes: Vec<u8>,
    first: Lsn,
    previous: Lsn,
}

const SEGMENT: u32 = 1 << 20;

fn size() -> SegmentSize {
    SegmentSize::try_from(SEGMENT).unwrap()
}

impl Log {
    fn new(first: SegmentNumber) -> Self {
        Self { bytes: Vec::new(), first: first.start(size()), previous: Lsn(0) }
    }

    fn at(&self) -> u64 {
        self.first.0 + self.bytes.len() as u64
    }

    fn page_header(&mut self, remaining: usize) {
        let at = self.at();
        let long = at.is_multiple_of(u64::from(SEGMENT));
        let info = u16::from(remaining > 0) | if long { LONG } else { 0 };
        self.bytes.extend(0xD110_u16.to_le_bytes());
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(1_u32.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend((remaining as u64).to_le_bytes());
        if long {
            self.bytes.extend([0; 16]);
        }
    }

    fn add(&mut self, xid: u32, manager: u8, info: u8, data: &[u8]) -> Lsn {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        if self.bytes.len().is_multiple_of(PAGE_BYTES) {
            self.page_header(0);
        }
        let start = Lsn(self.at());
        let mut body = vec![DATA_LONG];
        body.extend((data.len() as u32).to_le_bytes());
        body.extend(data);
        let mut header = ((RECORD_HEADER + body.len()) as u32).to_le_bytes().to_vec();
        header.extend(xid.to_le_bytes());
        header.extend(self.previous.0.to_le_bytes());
        header.extend([info, manager, 0, 0]);
        let mut crc = Crc32c::new();
        crc.update(&body);
        crc.update(&header);
        header.extend(crc.value().to_le_bytes());
        header.extend(body);
        let mut left = &header[..];
        while !left.is_empty() {
            if self.bytes.len().is_multiple_of(PAGE_BYTES) {
                self.page_header(left.len());
            }
            let room = PAGE_BYTES - self.bytes.len() % PAGE_BYTES;
            let (now, later) = left.split_at(room.min(left.len()));
            self.bytes.extend(now);
            left = later;
        }
        self.previous = start;
        start
    }

    fn commit(&mut self, xid: u32, seconds: i64) -> Lsn {
        self.add(xid, RM_XACT, XACT_COMMIT, &((seconds - EPOCH_SECONDS) * 1_000_000).to_le_bytes())
    }

    fn switch(&mut self) {
        self.add(0, RM_XLOG, XLOG_SWITCH, &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(SEGMENT as usize), 0);
    }

    fn scan(&self) -> (RecordScan, Vec<Record>) {
        let mut scan = RecordScan::new(size());
        let mut records = Vec::new();
        let mut segment = SegmentName::holding(Timeline(1), self.first, size());
        for bytes in self.bytes.chunks(SEGMENT as usize) {
            scan.push(segment, bytes, |record| records.push(record));
            segment = segment.next();
        }
        (scan, records)
    }
}

fn at(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(seconds).unwrap()
}

#[test]
fn commits_and_restore_points_are_read_over_pages_and_segments() {
    let mut log = Log::new(SegmentNumber(3));
    let first = log.commit(700, 1_800_000_000);
    for _ in 0..20 {
        log.add(701, 10, 0, &vec![7; 100_000]);
    }
    let mut point = 650_000_000_000_000_i64.to_le_bytes().to_vec();
    point.extend(b"before the migration\0\0\0");
    log.add(0, RM_XLOG, XLOG_RESTORE_POINT, &point);
    log.switch();
    let last = log.commit(702, 1_800_000_009);
    let (scan, records) = log.scan();
    assert_eq!(records.len(), 24);
    let ended = |at| RecordKind::Ended { committed: true, at, prepared: false };
    assert_eq!(records[0], Record { start: first, xid: 700, kind: ended(at(1_800_000_000)) });
    assert!(matches!(&records[21].kind, RecordKind::RestorePoint { name, .. } if name == "before the migration"));
    assert_eq!(records[23], Record { start: last, xid: 702, kind: ended(at(1_800_000_009)) });
    assert_eq!((scan.last(), scan.end()), (Some(last), None));
}

#[test]
fn a_scan_may_begin_in_the_middle_of_a_record() {
    let mut log = Log::new(SegmentNumber(3));
    log.add(1, 10, 0, &vec![1; 1_500_000]);
    let last = log.commit(2, 1_800_000_000);
    let mut scan = RecordScan::new(size());
    let segment = SegmentName { timeline: Timeline(1), number: SegmentNumber(4) };
    let mut records = Vec::new();
    scan.push(segment, &log.bytes[SEGMENT as usize..], |record| records.push(record));
    assert_eq!(records.iter().map(|record| record.start).collect::<Vec<_>>(), [last]);
}

#[test]
fn the_scan_ends_where_a_record_is_not_whole_or_not_right() {
    let mut log = Log::new(SegmentNumber(1));
    let first = log.commit(1, 1_800_000_000);
    let second = log.commit(2, 1_800_000_001);
    // Cut off: the last whole record is the first.
    let whole = log.bytes.len();
    for cut in (second.0 - log.first.0) as usize..whole {
        let cut = Log { bytes: log.bytes[..cut].to_vec(), ..log };
        let (scan, records) = cut.scan();
        assert_eq!((scan.last(), records.len()), (Some(first), 1));
    }
    // Every flipped bit of the second record is noticed.
    for byte in (second.0 - log.first.0) as usize..whole {
        let mut bytes = log.bytes.clone();
        bytes[byte] ^= 0x10;
        let (scan, records) = Log { bytes, ..log }.scan();
        assert_eq!((scan.last(), records.len()), (Some(first), 1), "byte {byte}");
    }
    // What an earlier use of the file left behind is no record.
    let mut stale = log.bytes.clone();
    stale.resize(whole + 300, 0xAA);
    let (scan, records) = Log { bytes: stale, ..log }.scan();
    assert_eq!((scan.last(), records.len()), (Some(second), 2));
}
