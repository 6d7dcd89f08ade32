//! What recovery is asked for.

use std::fmt;

use serde::Serialize;

use crate::wal::{Lsn, Timeline};

/// Longest name of a restore point (`MAXFNAMELEN` of PostgreSQL, without its end).
const NAME_BYTES_MAX: usize = 63;

/// Where recovery stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// Before the first transaction that ended after this time.
    Time(jiff::Timestamp),
    /// At the end of this transaction.
    Xid(u32),
    /// At this position of the log.
    Lsn(Lsn),
    /// At a restore point made by `pg_create_restore_point`.
    Name(String),
    /// As soon as the base backup is consistent.
    Immediate,
    /// At the end of the log.
    Latest,
}

/// Which line of the cluster's history is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimelineChoice {
    /// The newest in the log.
    #[default]
    Latest,
    /// The one on which the base backup was taken.
    Current,
    Number(Timeline),
}

/// What recovery is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryTarget {
    pub stop: Stop,
    /// Whether what stands exactly at the target is taken too.
    pub inclusive: bool,
    pub timeline: TimelineChoice,
}

/// A target that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTarget {
    pub given: String,
    pub why: String,
}

impl fmt::Display for BadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.given.escape_debug(), self.why)
    }
}

impl std::error::Error for BadTarget {}

impl RecoveryTarget {
    /// A target on the newest timeline, what stands at it included.
    pub fn new(stop: Stop) -> Self {
        Self { stop, inclusive: true, timeline: TimelineChoice::Latest }
    }
}

impl Stop {
    /// A restore point's name.
    pub fn name(text: &str) -> Result<Self, BadTarget> {
        let bad = |why: &str| Err(BadTarget { given: text.to_owned(), why: why.to_owned() });
        match text {
            // PostgreSQL takes an empty target for none and recovers to the end.
            "" => bad("the name of a restore point is not empty"),
            _ if text.len() > NAME_BYTES_MAX => bad("the name of a restore point has at most 63 bytes"),
            _ if text.chars().any(char::is_control) => bad("control characters are no part of a name"),
            _ => Ok(Self::Name(text.to_owned())),
        }
    }

    /// A transaction's number, as `pg_current_xact_id()` gives it.
    pub fn xid(text: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget { given: text.to_owned(), why: "a transaction's number is at least 3".to_owned() };
        let number: u64 = text.parse().map_err(|_| bad())?;
        // The upper half counts the wraparounds; the log holds the lower half.
        match u32::try_from(number & u64::from(u32::MAX)) {
            Ok(low @ 3..) => Ok(Self::Xid(low)),
            _ => Err(bad()),
        }
    }

    /// A position of the log.
    pub fn lsn(text: &str) -> Result<Self, BadTarget> {
        let bad = |why: String| BadTarget { given: text.to_owned(), why };
        let lsn: Lsn = text.parse().map_err(|error: crate::wal::BadLsn| bad(error.to_string()))?;
        if lsn.0 == 0 { Err(bad("the log does not begin at 0/0".to_owned())) } else { Ok(Self::Lsn(lsn)) }
    }
}

impl TimelineChoice {
    /// `latest`, `current` or a number, in decimal as PostgreSQL writes it.
    pub fn parse(text: &str) -> Result<Self, BadTarget> {
        match text {
            "latest" => Ok(Self::Latest),
            "current" => Ok(Self::Current),
            _ => match text.parse() {
                Ok(number @ 1..) => Ok(Self::Number(Timeline(number))),
                _ => Err(BadTarget {
                    given: text.to_owned(),
                    why: "a timeline is `latest`, `current` or a number from 1".to_owned(),
                }),
            },
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(at) => write!(f, "time {at}"),
            Self::Xid(xid) => write!(f, "transaction {xid}"),
            Self::Lsn(lsn) => write!(f, "WAL position {lsn}"),
            Self::Name(name) => write!(f, "restore point `{}`", name.escape_debug()),
            Self::Immediate => f.write_str("the end of the base backup"),
            Self::Latest => f.write_str("the end of the log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_odd_targets_are_refused() {
        for bad in ["", "0", "2", "x", "-5", "4294967296"] {
            assert!(Stop::xid(bad).is_err(), "{bad}");
        }
        assert_eq!(Stop::xid("4294968000"), Ok(Stop::Xid(704)));
        for bad in ["", "0/0", "now"] {
            assert!(Stop::lsn(bad).is_err(), "{bad}");
        }
        for bad in ["", "a\nb", &"x".repeat(64)] {
            assert!(Stop::name(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "newest", "-1"] {
            assert!(TimelineChoice::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(TimelineChoice::parse("3"), Ok(TimelineChoice::Number(Timeline(3))));
    }
}
