//! The two halves of a part, and the only way to join them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::entry::EntryPath;
use crate::id::{ComponentId, ComponentKind};
use crate::note::Notes;
use crate::tally::Tally;
use crate::witness::Witness;

/// Length and SHA-256 of one stream, over the content and nothing else, as the source gave it. That
/// the repository holds the same is told by the fingerprint of both accounts; that the same comes back
/// is checked against this digest at every restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDigest {
    /// Path below the component, escaped for reading.
    pub path: String,
    pub bytes: u64,
    /// 64 lower-case hex digits.
    pub sha256: String,
}

impl StreamDigest {
    /// From what a hasher gave.
    pub fn new(path: &EntryPath, bytes: u64, sha256: &[u8; 32]) -> Self {
        Self { path: path.to_string(), bytes, sha256: hex(sha256) }
    }
}

/// Lower-case hex digits of some bytes.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a source says it gave. It exists only when the source's entries ended by themselves and
/// every producer behind them confirmed its end.
#[derive(Debug, Clone)]
pub struct CaptureProof {
    pub(crate) component: ComponentId,
    pub(crate) kind: ComponentKind,
    pub(crate) tally: Tally,
    pub(crate) streams: Vec<StreamDigest>,
    pub(crate) notes: Notes,
    pub(crate) captured_at: jiff::Timestamp,
    pub(crate) details: serde_json::Value,
}

/// A source wanted to prove a capture whose entries were not read to their end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotEnded(pub ComponentId);

impl fmt::Display for NotEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the entries of `{}` were not read to their end", self.0)
    }
}

impl std::error::Error for NotEnded {}

impl CaptureProof {
    /// Only adapters call this, from `Capture::finish`, after every producer ended well.
    ///
    /// `captured_at` is the moment the data stands for; `details` is the kind's own record
    /// (versions, positions, counts) for the manifest.
    pub fn new(
        component: ComponentId,
        kind: ComponentKind,
        witness: &Witness,
        notes: Notes,
        captured_at: jiff::Timestamp,
        details: serde_json::Value,
    ) -> Result<Self, NotEnded> {
        let account = witness.account();
        if !account.ended {
            return Err(NotEnded(component));
        }
        Ok(Self { component, kind, tally: account.tally, streams: account.streams, notes, captured_at, details })
    }

    /// The component it is about.
    pub fn component(&self) -> &ComponentId {
        &self.component
    }

    /// What the source counted.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What the source noted.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
}

/// What the repository says it holds of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    pub component: ComponentId,
    /// Id of the component's tree: 64 hex digits.
    pub tree: String,
    pub tally: Tally,
    /// Bytes of new blobs before compression.
    pub added_bytes: u64,
    /// Bytes these took in the repository.
    pub stored_bytes: u64,
}

/// The two accounts of a component differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    pub component: ComponentId,
    /// What differs, with both figures.
    pub difference: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source and repository disagree about `{}`: {}", self.component, self.difference)
    }
}

impl std::error::Error for Mismatch {}

/// A component of which source and repository say the same. There is no other way to make one.
#[derive(Debug, Clone)]
pub struct Part {
    pub(crate) gave: CaptureProof,
    pub(crate) holds: StoredPart,
}

impl Part {
    /// Compares the two accounts.
    pub fn join(gave: CaptureProof, holds: StoredPart) -> Result<Self, Mismatch> {
        match difference(&gave, &holds) {
            None => Ok(Self { gave, holds }),
            Some(difference) => Err(Mismatch { component: gave.component, difference }),
        }
    }

    /// The component's name.
    pub fn component(&self) -> &ComponentId {
        &self.gave.component
    }

    /// What the repository holds.
    pub fn stored(&self) -> &StoredPart {
        &self.holds
    }

    /// What the source noted.
    pub fn notes(&self) -> &Notes {
        &self.gave.notes
    }
}

fn difference(gave: &CaptureProof, holds: &StoredPart) -> Option<String> {
    let (a, b) = (&gave.tally, &holds.tally);
    if gave.component != holds.component {
        return Some(format!("it holds the component `{}`", holds.component));
    }
    if a.entries != b.entries {
        return Some(format!("{} entries given, {} held", a.entries, b.entries));
    }
    if a.bytes != b.bytes {
        return Some(format!("{} bytes given, {} held", a.bytes, b.bytes));
    }
    if a != b {
        return Some("the same numbers of entries and bytes, but other content".to_owned());
    }
    None
}
