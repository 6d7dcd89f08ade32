//! The headers of WAL pages (`xlog_internal.h` of PostgreSQL): what a segment says about itself.
//!
//! Little-endian, as on every machine that PostgreSQL packages are built for today.

use std::fmt;

use super::{Cluster, SegmentName, SegmentSize, SystemId, Timeline};

/// Bytes of a WAL page; other sizes need a server compiled with `--with-wal-blocksize`.
pub const PAGE_BYTES: usize = 8192;
/// Bytes of the long header, with which each segment begins.
pub const LONG_HEADER_BYTES: usize = 40;
/// Flag of the long header in `xlp_info`.
const LONG: u16 = 0x0002;
/// `XLOG_PAGE_MAGIC` by major version.
const MAGICS: [(u16, u32); 6] = [(0xD106, 13), (0xD10D, 14), (0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)];

/// Why bytes are not the segment that they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadHeader {
    /// Too short to hold a header.
    Short,
    /// The segment has so many bytes instead of the cluster's segment size.
    Length(usize),
    /// No page of a version from 13 on.
    Magic(u16),
    /// The first page lacks the long header.
    NotLong,
    /// Made by another cluster.
    System(SystemId),
    /// The cluster has another segment size.
    SegmentSize(u32),
    /// The server was compiled with another WAL page size.
    PageSize(u32),
    /// The page at this offset belongs to a later timeline than the name says.
    Timeline { offset: usize, timeline: Timeline },
    /// The page at this offset says it stands somewhere else in the log.
    Address { offset: usize, says: u64, stands: u64 },
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("it is too short for a WAL segment"),
            Self::Length(bytes) => write!(f, "it has {bytes} bytes, which is not the cluster's segment size"),
            Self::Magic(magic) => write!(f, "a page starts with {magic:04X}, no WAL of PostgreSQL 13 to 18"),
            Self::NotLong => f.write_str("its first page has no long header"),
            Self::System(system) => write!(f, "it belongs to the cluster with the system identifier {system}"),
            Self::SegmentSize(bytes) => write!(f, "its cluster has segments of {bytes} bytes"),
            Self::PageSize(bytes) => write!(f, "its server uses WAL pages of {bytes} bytes; only 8192 are known"),
            Self::Timeline { offset, timeline } => {
                write!(f, "the page at {offset} is of timeline {timeline}, later than its name says")
            }
            Self::Address { offset, says, stands } => {
                write!(f, "the page at {offset} says it is number {says:X} of the log and stands at {stands:X}")
            }
        }
    }
}

impl std::error::Error for BadHeader {}

/// The long header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader {
    /// Major version of the server that wrote it.
    pub major: u32,
    pub timeline: Timeline,
    /// Position of its first byte.
    pub address: u64,
    pub cluster: Cluster,
}

impl LongHeader {
    /// Reads the first page of a segment.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadHeader> {
        let page = Page::parse(bytes)?;
        let field = |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
        let (Some(low), Some(high), Some(size), Some(page_bytes)) = (field(24), field(28), field(32), field(36)) else {
            return Err(BadHeader::Short);
        };
        if page.info & LONG == 0 {
            return Err(BadHeader::NotLong);
        }
        if page_bytes as usize != PAGE_BYTES {
            return Err(BadHeader::PageSize(page_bytes));
        }
        let segment_size = SegmentSize::try_from(size).map_err(|_| BadHeader::SegmentSize(size))?;
        let system = SystemId(u64::from(high) << 32 | u64::from(low));
        let cluster = Cluster { system, segment_size };
        Ok(Self { major: page.major, timeline: page.timeline, address: page.address, cluster })
    }

    /// Whether it can be the header of `segment` of a cluster.
    pub fn check(&self, segment: SegmentName, cluster: Cluster) -> Result<(), BadHeader> {
        if self.cluster.system != cluster.system {
            return Err(BadHeader::System(self.cluster.system));
        }
        if self.cluster.segment_size != cluster.segment_size {
            return Err(BadHeader::SegmentSize(self.cluster.segment_size.bytes()));
        }
        check_page(self.timeline, self.address, 0, segment, cluster.segment_size)
    }
}

struct Page {
    major: u32,
    info: u16,
    timeline: Timeline,
    address: u64,
}

impl Page {
    fn parse(bytes: &[u8]) -> Result<Self, BadHeader> {
        let (Some(head), Some(timeline), Some(address)) = (
            bytes.first_chunk::<4>(),
            bytes.get(4..8).and_then(|b| b.try_into().ok()),
            bytes.get(8..16).and_then(|b| b.try_into().ok()),
        ) else {
            return Err(BadHeader::Short);
        };
        let magic = u16::from_le_bytes([head[0], head[1]]);
        let major = MAGICS.iter().find(|(known, _)| *known == magic).ok_or(BadHeader::Magic(magic))?.1;
        Ok(Self {
            major,
            info: u16::from_le_bytes([head[2], head[3]]),
            timeline: Timeline(u32::from_le_bytes(timeline)),
            address: u64::from_le_bytes(address),
        })
    }
}

fn check_page(
    timeline: Timeline,
    says: u64,
    offset: usize,
    segment: SegmentName,
    size: SegmentSize,
) -> Result<(), BadHeader> {
    // The first segment of a timeline begins with pages copied from its parent.
    if timeline > segment.timeline {
        return Err(BadHeader::Timeline { offset, timeline });
    }
    let stands = segment.number.start(size).0 + offset as u64;
    if says == stands { Ok(()) } else { Err(BadHeader::Address { offset, says, stands }) }
}

/// Whether `bytes` are a whole segment of this name and cluster: length and first page.
pub fn check_segment(bytes: &[u8], segment: SegmentName, cluster: Cluster) -> Result<LongHeader, BadHeader> {
    let header = LongHeader::parse(bytes)?;
    header.check(segment, cluster)?;
    if bytes.len() != cluster.segment_size.bytes() as usize {
        return Err(BadHeader::Length(bytes.len()));
    }
    Ok(header)
}

/// As [`check_segment`], and the header of every page. The rest of a segment that was switched
/// early is zero.
pub fn check_pages(bytes: &[u8], segment: SegmentName, cluster: Cluster) -> Result<LongHeader, BadHeader> {
    let header = check_segment(bytes, segment, cluster)?;
    for (number, page) in bytes.chunks(PAGE_BYTES).enumerate().skip(1) {
        if page.iter().all(|byte| *byte == 0) {
            continue;
        }
        let read = Page::parse(page)?;
        check_page(read.timeline, read.address, number * PAGE_BYTES, segment, cluster.segment_size)?;
    }
    Ok(header)
}

/// A segment as a server of `major` begins and goes on with it: headers, no records. For tests of
/// everything that moves WAL without reading its records.
pub fn sample_segment(segment: SegmentName, cluster: Cluster, major: u32, fill: u8) -> Vec<u8> {
    let magic = MAGICS.iter().find(|(_, known)| *known == major).map_or(0xD110, |(magic, _)| *magic);
    let mut bytes = vec![fill; cluster.segment_size.bytes() as usize];
    let start = segment.number.start(cluster.segment_size).0;
    for (number, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        let info = if number == 0 { LONG } else { 0 };
        page[..2].copy_from_slice(&magic.to_le_bytes());
        page[2..4].copy_from_slice(&info.to_le_bytes());
        page[4..8].copy_from_slice(&segment.timeline.0.to_le_bytes());
        page[8..16].copy_from_slice(&(start + (number * PAGE_BYTES) as u64).to_le_bytes());
        page[16..24].fill(0);
    }
    bytes[24..32].copy_from_slice(&cluster.system.0.to_le_bytes());
    bytes[32..36].copy_from_slice(&cluster.segment_size.bytes().to_le_bytes());
    bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::{Lsn, SegmentNumber};
    use super::*;

    fn cluster() -> Cluster {
        Cluster { system: SystemId(7_434_000_000_000_000_001), segment_size: SegmentSize::try_from(1 << 20).unwrap() }
    }

    fn name(timeline: u32, number: u64) -> SegmentName {
        SegmentName { timeline: Timeline(timeline), number: SegmentNumber(number) }
    }

    #[test]
    fn a_segment_is_taken_only_under_its_name_and_cluster() {
        let good = sample_segment(name(3, 77), cluster(), 18, 5);
        let header = check_pages(&good, name(3, 77), cluster()).unwrap();
        assert_eq!((header.major, header.timeline), (18, Timeline(3)));
        assert_eq!(Lsn(header.address), SegmentNumber(77).start(cluster().segment_size));
        // A later timeline may begin with pages of an earlier one.
        assert!(check_pages(&good, name(4, 77), cluster()).is_ok());
        assert!(matches!(check_pages(&good, name(2, 77), cluster()), Err(BadHeader::Timeline { .. })));
        assert!(matches!(check_segment(&good, name(3, 78), cluster()), Err(BadHeader::Address { .. })));
        let other = Cluster { system: SystemId(1), ..cluster() };
        assert_eq!(check_segment(&good, name(3, 77), other), Err(BadHeader::System(cluster().system)));
        let wide = Cluster { segment_size: SegmentSize::DEFAULT, ..cluster() };
        assert!(matches!(check_segment(&good, name(3, 77), wide), Err(BadHeader::SegmentSize(_))));
        assert_eq!(check_segment(&good[..8192], name(3, 77), cluster()), Err(BadHeader::Length(8192)));
        assert_eq!(check_segment(&[], name(3, 77), cluster()), Err(BadHeader::Short));
        assert_eq!(check_segment(&[0; 9000], name(3, 77), cluster()), Err(BadHeader::Magic(0)));
    }

    #[test]
    fn a_wrong_page_in_the_middle_is_found() {
        let mut bytes = sample_segment(name(1, 9), cluster(), 15, 0);
        bytes[5 * PAGE_BYTES..].fill(0);
        assert!(check_pages(&bytes, name(1, 9), cluster()).is_ok(), "zero pages end a switched segment");
        bytes[3 * PAGE_BYTES + 9] ^= 1;
        assert!(check_segment(&bytes, name(1, 9), cluster()).is_ok());
        assert!(matches!(check_pages(&bytes, name(1, 9), cluster()), Err(BadHeader::Address { offset: 24_576, .. })));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..20_000)) {
            let _ = check_pages(&bytes, name(1, 1), cluster());
        }
    }
}
