//! Names and sizes of WAL segments, as `xlog_internal.h` of PostgreSQL defines them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Lsn, Timeline};

/// Bytes of one WAL segment of a cluster: a power of two from 1 MiB to 1 GiB, set by `initdb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SegmentSize(u32);

/// Why text or a number is no segment of the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSegment(pub &'static str);

impl fmt::Display for BadSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadSegment {}

impl SegmentSize {
    /// What `initdb` takes when nobody says otherwise: 16 MiB.
    pub const DEFAULT: Self = Self(16 << 20);

    /// The size in bytes.
    pub fn bytes(self) -> u32 {
        self.0
    }

    /// Segments in 4 GiB of log: the numbers of the last eight digits of a name.
    fn per_id(self) -> u64 {
        (1_u64 << 32) / u64::from(self.0)
    }
}

impl TryFrom<u32> for SegmentSize {
    type Error = BadSegment;
    fn try_from(bytes: u32) -> Result<Self, BadSegment> {
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(BadSegment("a WAL segment size is a power of two from 1 MiB to 1 GiB"))
        }
    }
}

impl From<SegmentSize> for u32 {
    fn from(size: SegmentSize) -> Self {
        size.0
    }
}

/// Position of a segment in the log: its first byte divided by the segment size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The segment that holds a position.
    pub fn of(lsn: Lsn, size: SegmentSize) -> Self {
        Self(lsn.0 / u64::from(size.0))
    }

    /// The position of its first byte.
    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.0.saturating_mul(u64::from(size.0)))
    }

    /// The position behind its last byte.
    pub fn end(self, size: SegmentSize) -> Lsn {
        self.next().start(size)
    }

    /// The segment after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A segment of one timeline. Its text is the name of its file in `pg_wal`: 24 hex digits, whose
/// meaning depends on the segment size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    pub timeline: Timeline,
    pub number: SegmentNumber,
}

impl SegmentName {
    /// The segment of a timeline that holds a position.
    pub fn holding(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Self {
        Self { timeline, number: SegmentNumber::of(lsn, size) }
    }

    /// The segment after it on the same timeline.
    #[must_use]
    pub fn next(self) -> Self {
        Self { timeline: self.timeline, number: self.number.next() }
    }

    /// The name of its file.
    pub fn file(self, size: SegmentSize) -> String {
        let (id, low) = (self.number.0 / size.per_id(), self.number.0 % size.per_id());
        format!("{:08X}{id:08X}{low:08X}", self.timeline.0)
    }

    /// Reads the name of a file.
    pub fn parse(file: &str, size: SegmentSize) -> Result<Self, BadSegment> {
        let upper_hex = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
        if file.len() != 24 || !file.bytes().all(upper_hex) {
            return Err(BadSegment("the name of a WAL segment is 24 upper-case hex digits"));
        }
        let part = |at: usize| u32::from_str_radix(&file[at..at + 8], 16).map_err(|_| BadSegment("not hex digits"));
        let (timeline, id, low) = (part(0)?, u64::from(part(8)?), u64::from(part(16)?));
        if timeline == 0 {
            return Err(BadSegment("timelines are counted from 1"));
        }
        if low >= size.per_id() {
            return Err(BadSegment("the name does not fit the segment size of the cluster"));
        }
        Ok(Self { timeline: Timeline(timeline), number: SegmentNumber(id * size.per_id() + low) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_pg_wal() {
        let name = SegmentName::holding(Timeline(1), Lsn(0x1_0300_0028), SegmentSize::DEFAULT);
        assert_eq!(name.file(SegmentSize::DEFAULT), "000000010000000100000003");
        assert_eq!(SegmentName::parse("000000010000000100000003", SegmentSize::DEFAULT), Ok(name));
        let small = SegmentSize::try_from(1 << 20).unwrap();
        assert_eq!(SegmentName::holding(Timeline(16), Lsn(0xFFF0_0000), small).file(small), "000000100000000000000FFF");
    }

    #[test]
    fn other_names_are_refused() {
        for bad in ["", "00000001000000010000000", "00000001000000010000000g", "000000010000000100000100"] {
            assert!(SegmentName::parse(bad, SegmentSize::DEFAULT).is_err(), "{bad}");
        }
        assert!(SegmentName::parse("000000000000000100000001", SegmentSize::DEFAULT).is_err());
        assert!(SegmentName::parse("0000000a0000000100000001", SegmentSize::DEFAULT).is_err());
        for bad in [0, 3 << 20, 1 << 19, 1 << 31] {
            assert!(SegmentSize::try_from(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_name_is_read_back(timeline in 1_u32.., number in 0_u64..1 << 34, bits in 20_u32..=30) {
            let size = SegmentSize::try_from(1 << bits).unwrap();
            let number = SegmentNumber(number % (size.per_id() << 32));
            let name = SegmentName { timeline: Timeline(timeline), number };
            proptest::prop_assert_eq!(SegmentName::parse(&name.file(size), size), Ok(name));
        }
    }
}
