//! Names of the objects of the WAL log. What an object *is* stands in its name alone, and its name
//! is sealed into it.

use std::fmt;

use rekindle_core::Result;
use rekindle_core::wal::{Extra, Lsn, SegmentName, SegmentSize, SystemId, Timeline, WalFile};
use rekindle_store::Key as ObjectKey;

/// Folder of everything.
pub(super) const ROOT: &str = "rekindle/wal/";
/// Folder of the clusters.
pub(super) const CLUSTERS: &str = "rekindle/wal/clusters/";
/// Folder of the owners.
pub(super) const OWNERS: &str = "rekindle/wal/owners/";

/// The name of an object. Segments are held with the segment size of their cluster, which their
/// text depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Cluster(SystemId),
    /// What is known of a storage: the hash is of its URL.
    Place(SystemId, String),
    /// Hash of the owner, and a number that grows.
    Owner(String, u32),
    /// A segment, history, `.partial` or `.backup` file.
    File(SystemId, WalFile, SegmentSize),
    Tail {
        system: SystemId,
        segment: SegmentName,
        size: SegmentSize,
        from: u32,
        to: u32,
    },
    Gap {
        system: SystemId,
        timeline: Timeline,
        from: Lsn,
    },
}

impl Name {
    pub(super) fn key(&self) -> Result<ObjectKey> {
        super::object_key(&self.to_string())
    }

    /// Longest content that an object of this name may hold, in bytes.
    pub(super) fn content_bytes_max(&self) -> u64 {
        match self {
            Self::File(_, WalFile::Segment(_) | WalFile::Extra(Extra::Partial(_)), size) => u64::from(size.bytes()),
            Self::Tail { from, to, .. } => u64::from(to.saturating_sub(*from)),
            _ => 1 << 20,
        }
    }

    /// Reads a name that does not depend on a segment size: records, histories and gaps.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix(ROOT)?.split('/').collect();
        let name = match parts[..] {
            ["clusters", file] => match file.split_once('.') {
                None => Self::Cluster(file.parse().ok()?),
                Some((system, place)) => Self::Place(system.parse().ok()?, place.to_owned()),
            },
            ["owners", hash, number] => Self::Owner(hash.to_owned(), number.parse().ok()?),
            [system, "history", file] => {
                let file = WalFile::parse(file, SegmentSize::DEFAULT).ok()?;
                matches!(file, WalFile::History(_)).then_some(())?;
                Self::File(system.parse().ok()?, file, SegmentSize::DEFAULT)
            }
            [system, "gaps", file] => {
                let (timeline, from) = file.split_once('.')?;
                Self::Gap {
                    system: system.parse().ok()?,
                    timeline: Timeline(u32::from_str_radix(timeline, 16).ok()?),
                    from: Lsn(u64::from_str_radix(from, 16).ok()?),
                }
            }
            _ => return None,
        };
        // One text per name: no leading zeros, no lower-case digits.
        (name.to_string() == path).then_some(name)
    }

    /// Reads any name in the folder of a cluster whose segment size is known.
    pub(super) fn parse_sized(path: &str, size: SegmentSize) -> Option<Self> {
        if let Some(name) = Self::parse(path) {
            return Some(match name {
                Self::File(system, file, _) => Self::File(system, file, size),
                other => other,
            });
        }
        let parts: Vec<&str> = path.strip_prefix(ROOT)?.split('/').collect();
        let name = match parts[..] {
            [system, _timeline, file] => Self::File(system.parse().ok()?, WalFile::parse(file, size).ok()?, size),
            [system, _timeline, folder, piece] => {
                let segment = SegmentName::parse(folder.strip_suffix(".tail")?, size).ok()?;
                let (from, to) = piece.split_once('-')?;
                let (from, to) = (u32::from_str_radix(from, 16).ok()?, u32::from_str_radix(to, 16).ok()?);
                (from < to && to <= size.bytes()).then_some(())?;
                Self::Tail { system: system.parse().ok()?, segment, size, from, to }
            }
            _ => return None,
        };
        (name.to_string() == path).then_some(name)
    }
}

/// The folder of a timeline of a cluster, with its slash.
pub(super) fn timeline_folder(system: SystemId, timeline: Timeline) -> String {
    format!("{ROOT}{system}/{:08X}/", timeline.0)
}

/// The folder of the tail parts of a segment, with its slash.
pub(super) fn tail_folder(system: SystemId, segment: SegmentName, size: SegmentSize) -> String {
    format!("{}{}.tail/", timeline_folder(system, segment.timeline), segment.file(size))
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(system) => write!(f, "{CLUSTERS}{system}"),
            Self::Place(system, place) => write!(f, "{CLUSTERS}{system}.{place}"),
            Self::Owner(hash, number) => write!(f, "{OWNERS}{hash}/{number:06}"),
            Self::File(system, file @ WalFile::History(_), size) => {
                write!(f, "{ROOT}{system}/history/{}", file.file(*size))
            }
            Self::File(system, file, size) => {
                let timeline = match file {
                    WalFile::Segment(segment) => segment.timeline,
                    WalFile::Extra(extra) => extra.segment().timeline,
                    WalFile::History(timeline) => *timeline,
                };
                write!(f, "{}{}", timeline_folder(*system, timeline), file.file(*size))
            }
            Self::Tail { system, segment, size, from, to } => {
                write!(f, "{}{from:08X}-{to:08X}", tail_folder(*system, *segment, *size))
            }
            Self::Gap { system, timeline, from } => {
                write!(f, "{ROOT}{system}/gaps/{:08X}.{:016X}", timeline.0, from.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rekindle_core::wal::SegmentNumber;

    use super::*;

    #[test]
    fn every_name_is_read_back_and_nothing_else() {
        let size = SegmentSize::try_from(1 << 20).unwrap();
        let system = SystemId(7_434_000_000_000_000_001);
        let segment = SegmentName { timeline: Timeline(18), number: SegmentNumber(4097) };
        for name in [
            Name::Cluster(system),
            Name::Place(system, "0123456789abcdef".to_owned()),
            Name::Owner("ab".repeat(16), 3),
            Name::File(system, WalFile::Segment(segment), size),
            Name::File(system, WalFile::History(Timeline(18)), size),
            Name::File(system, WalFile::Extra(Extra::Partial(segment)), size),
            Name::File(system, WalFile::Extra(Extra::Label { segment, offset: 40 }), size),
            Name::Tail { system, segment, size, from: 0, to: 1 << 20 },
            Name::Gap { system, timeline: Timeline(18), from: Lsn(0x1_2345_6789) },
        ] {
            let path = name.to_string();
            assert!(ObjectKey::new(&path).is_ok(), "{path}");
            assert_eq!(Name::parse_sized(&path, size), Some(name));
        }
        for bad in [
            "rekindle/wal/1/00000001/000000020000000000000001",
            "rekindle/wal/01/00000001/000000010000000000000001",
            "rekindle/wal/1/00000001/000000010000000000000001.tail/00000005-00000005",
            "rekindle/wal/1/00000001/000000010000000000000001.tail/0-5",
            "rekindle/wal/1/history/000000010000000000000001",
            "rekindle/wal/x",
            "rekindle/wal/",
        ] {
            assert_eq!(Name::parse_sized(bad, size), None, "{bad}");
        }
    }
}
