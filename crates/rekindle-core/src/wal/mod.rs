//! Words of PostgreSQL's write-ahead log: position, timeline, segment, history; and the port of
//! the archive that keeps them.

pub mod absence;
mod base;
mod control;
mod crc32c;
mod file;
mod header;
mod history;
pub mod lineage;
mod log;
mod mode;
mod records;
pub mod retention;
mod segment;

pub use base::{BaseBackup, Tablespace, WalRange};
pub use control::cluster_of_control;
pub use file::{Extra, WalFile, history_file};
pub use header::{BadHeader, LONG_HEADER_BYTES, LongHeader, PAGE_BYTES, check_pages, check_segment, sample_segment};
pub use history::{BadHistory, History, Switch};
pub use lineage::Lineage;
pub use log::{Cluster, Gap, Hold, Inventory, Owner, Put, Sealed, Tail, TailPart, WalArchive, WalLog};
pub use mode::{BadSlotName, SlotName, WalMode};
pub use records::{Record, RecordKind, RecordScan};
pub use segment::{BadSegment, SegmentName, SegmentNumber, SegmentSize};

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A position in the write-ahead log: bytes since the cluster was made, over all timelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

/// Text that is no position of the write-ahead log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLsn(pub String);

impl fmt::Display for BadLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no WAL position: write it as PostgreSQL does, for example 0/16B3748", self.0.escape_debug())
    }
}

impl std::error::Error for BadLsn {}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = BadLsn;

    fn from_str(text: &str) -> Result<Self, BadLsn> {
        let half = |text: &str| {
            let digits = !text.is_empty() && text.len() <= 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
        };
        let halves = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
        let (high, low) = halves.ok_or_else(|| BadLsn(text.to_owned()))?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

impl TryFrom<String> for Lsn {
    type Error = BadLsn;
    fn try_from(text: String) -> Result<Self, BadLsn> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

/// A line of history of a cluster; a promotion or a recovery to a moment starts the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number that `initdb` gives a cluster; its copies and standbys share it. JSON holds it as
/// text, since it is larger than what other readers of JSON keep exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for SystemId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for SystemId {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SystemId> for String {
    fn from(id: SystemId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_written_as_postgresql_writes_them() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!((lsn.0, lsn.to_string()), (0x16_B374_D848, "16/B374D848".to_owned()));
        assert_eq!("0/0".parse(), Ok(Lsn(0)));
        for bad in ["", "/", "1", "0/", "g/0", "0/1/2", "123456789/0", "0/+1"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn system_ids_survive_json() {
        let id = SystemId(u64::MAX);
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text, "\"18446744073709551615\"");
        assert_eq!(serde_json::from_str::<SystemId>(&text).unwrap(), id);
    }
}
