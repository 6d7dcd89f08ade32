//! Every kind of file that PostgreSQL hands to `archive_command` or asks `restore_command` for.

use super::{BadSegment, SegmentName, SegmentSize, Timeline};

/// A file of the archive, read from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WalFile {
    Segment(SegmentName),
    /// `<8 hex digits>.history`.
    History(Timeline),
    Extra(Extra),
}

/// What is archived beside segments and histories. Recovery never asks for it; it is kept because
/// the server counts on it, and an administrator may want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Extra {
    /// `<segment>.partial`: the last, unfinished segment of a timeline that a promotion ended.
    Partial(SegmentName),
    /// `<segment>.<offset>.backup`: where a base backup began and ended.
    Label { segment: SegmentName, offset: u32 },
}

impl Extra {
    /// The segment it belongs to.
    pub fn segment(self) -> SegmentName {
        match self {
            Self::Partial(segment) | Self::Label { segment, .. } => segment,
        }
    }

    /// The name of its file.
    pub fn file(self, size: SegmentSize) -> String {
        match self {
            Self::Partial(segment) => format!("{}.partial", segment.file(size)),
            Self::Label { segment, offset } => format!("{}.{offset:08X}.backup", segment.file(size)),
        }
    }
}

impl WalFile {
    /// The name of its file.
    pub fn file(self, size: SegmentSize) -> String {
        match self {
            Self::Segment(segment) => segment.file(size),
            Self::History(timeline) => history_file(timeline),
            Self::Extra(extra) => extra.file(size),
        }
    }

    /// Reads the name of a file. Everything else that may lie in `pg_wal` is refused.
    pub fn parse(file: &str, size: SegmentSize) -> Result<Self, BadSegment> {
        let unknown = BadSegment("it is no WAL segment, `.history`, `.partial` or `.backup` file");
        match file.split('.').collect::<Vec<_>>()[..] {
            [segment] => Ok(Self::Segment(SegmentName::parse(segment, size)?)),
            [timeline, "history"] => {
                let number = hex8(timeline).filter(|number| *number > 0).ok_or(unknown)?;
                Ok(Self::History(Timeline(number)))
            }
            [segment, "partial"] => Ok(Self::Extra(Extra::Partial(SegmentName::parse(segment, size)?))),
            [segment, offset, "backup"] => {
                let segment = SegmentName::parse(segment, size)?;
                let offset = hex8(offset).filter(|offset| *offset < size.bytes()).ok_or(unknown)?;
                Ok(Self::Extra(Extra::Label { segment, offset }))
            }
            _ => Err(unknown),
        }
    }
}

/// The name of a timeline's history file.
pub fn history_file(timeline: Timeline) -> String {
    format!("{:08X}.history", timeline.0)
}

fn hex8(text: &str) -> Option<u32> {
    let digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_kinds_are_read_and_written() {
        for name in [
            "000000010000000A000000FF",
            "0000000A.history",
            "000000010000000A000000FF.partial",
            "000000010000000A000000FF.00000028.backup",
        ] {
            let file = WalFile::parse(name, SegmentSize::DEFAULT).unwrap();
            assert_eq!(file.file(SegmentSize::DEFAULT), name);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for name in [
            "",
            ".",
            "..",
            "archive_status",
            "00000000.history",
            "1.history",
            "0000000a.history",
            "000000010000000A000000FF.gz",
            "000000010000000A000000FF.01000000.backup",
            "000000010000000A000000FF.00000028.backup.x",
            "../000000010000000A000000FF",
            "000000010000000A000000FF.partial.partial",
            "RECOVERYXLOG",
        ] {
            assert!(WalFile::parse(name, SegmentSize::DEFAULT).is_err(), "{name}");
        }
    }
}
