//! Names of things: component, run, point.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What kind of thing a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentKind {
    Postgres,
    Redis,
    Files,
    Prometheus,
    Grafana,
}

impl ComponentKind {
    /// The word used in configuration, manifests and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Files => "files",
            Self::Prometheus => "prometheus",
            Self::Grafana => "grafana",
        }
    }
}

impl fmt::Display for ComponentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a name is not usable as an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadId {
    /// The rejected text.
    pub given: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a usable name: {}", self.given.escape_debug(), self.rule)
    }
}

impl std::error::Error for BadId {}

/// The name of a component: it is also the name of its top directory in a recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ComponentId(String);

/// The directory of a recovery point that holds rekindle's own files.
pub const RESERVED_DIRECTORY: &str = "rekindle";
const COMPONENT_ID_LENGTH_MAX: usize = 63;

impl ComponentId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ComponentId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = |rule| Err(BadId { given: text.to_owned(), rule });
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        match text.as_bytes() {
            [] => bad("it is empty"),
            bytes if bytes.len() > COMPONENT_ID_LENGTH_MAX => bad("it is longer than 63 characters"),
            bytes if !bytes.iter().copied().all(good) => bad("use only a-z, 0-9, `-` and `_`"),
            [b'-' | b'_', ..] => bad("it must start with a letter or a digit"),
            _ if text == RESERVED_DIRECTORY => bad("`rekindle` is reserved for the manifest"),
            _ if text == "full" || text == "latest" => bad("`full` and `latest` are words of the command line"),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ComponentId {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<ComponentId> for String {
    fn from(id: ComponentId) -> Self {
        id.0
    }
}

impl fmt::Display for ComponentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of one run: sortable by start time, unique by random bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// `20261122T143000Z-1a2b3c4d` from the start of the run and random bits of the caller.
    pub fn new(started: jiff::Timestamp, random: u32) -> Self {
        Self(format!("{}-{random:08x}", started.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = BadId;

    /// Reads what [`RunId::new`] made.
    fn from_str(text: &str) -> Result<Self, BadId> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if text.is_empty() || text.len() > COMPONENT_ID_LENGTH_MAX || !text.bytes().all(good) {
            return Err(BadId { given: text.to_owned(), rule: "it is no run id" });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a recovery point: the id of its restic snapshot, 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PointId(String);

impl PointId {
    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 8 digits, as restic prints ids.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl FromStr for PointId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadId { given: text.to_owned(), rule: "a point id is 64 lower-case hex digits" })
        }
    }
}

impl TryFrom<String> for PointId {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<PointId> for String {
    fn from(id: PointId) -> Self {
        id.0
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn component_ids_are_safe_directory_names() {
        for good in ["database", "uploads-2", "a", "0_x"] {
            assert_eq!(good.parse::<ComponentId>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "..", "a/b", "Übung", "-x", "rekindle", "full", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<ComponentId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn point_ids_are_snapshot_ids() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(text.parse::<PointId>().map(|id| id.short().to_owned()), Ok("01234567".to_owned()));
        assert!(text.to_uppercase().parse::<PointId>().is_err());
        assert!(text[1..].parse::<PointId>().is_err());
    }
}
