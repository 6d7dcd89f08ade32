//! The manifest: what a recovery point says about itself, at `/rekindle/manifest.json`.
//!
//! Old readers must be able to say clearly that they are too old: `version` comes first and a
//! reader refuses a version it does not know. New optional fields do not change the version.

use serde::{Deserialize, Serialize};

use crate::id::{ComponentId, ComponentKind, RunId};
use crate::note::Notes;
use crate::proof::StreamDigest;
use crate::tally::Tally;
use crate::tripwire::Suspicion;

/// The version this program writes, and the newest one it reads.
pub const MANIFEST_VERSION: u32 = 1;

/// Everything a recovery point says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    /// Name and version of the program that wrote it.
    pub tool: String,
    /// Name of the stack in the configuration.
    pub stack: String,
    pub host: String,
    pub run: RunId,
    pub started: jiff::Timestamp,
    pub finished: jiff::Timestamp,
    pub state: Completeness,
    /// What was captured, in the order of the configuration.
    pub components: Vec<ComponentRecord>,
    /// What should have been captured and was not.
    pub missing: Vec<MissingRecord>,
    /// Milliseconds between the earliest and the latest `captured_at`.
    pub skew_ms: u64,
    /// Number and hash of the newest ledger record when this point was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_head: Option<LedgerHead>,
    /// Number and hash of the newest proof record when this point was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_head: Option<LedgerHead>,
    /// Ed25519 public key (hex) that signs the ledger of this repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
    /// Number and hash of the newest mark when this point was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks_head: Option<LedgerHead>,
    /// Number and hash of the newest record of the audit log when this point was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_head: Option<LedgerHead>,
    /// Words that people gave to the run, for `keep-tags`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What the tripwire found odd; the point itself is as complete as `state` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspicions: Vec<Suspicion>,
}

/// Whether everything that was asked for is in the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Completeness {
    Complete,
    Partial,
}

impl Completeness {
    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
        }
    }
}

/// Where a chain of records stood: of committed points, or of proofs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHead {
    pub sequence: u64,
    /// SHA-256 of the record, hex.
    pub hash: String,
}

/// One captured component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentRecord {
    pub id: ComponentId,
    pub kind: ComponentKind,
    /// Id of its tree in the repository.
    pub tree: String,
    /// The moment its data stands for.
    pub captured_at: jiff::Timestamp,
    pub tally: Tally,
    pub streams: Vec<StreamDigest>,
    /// Bytes of new blobs before compression, and what they took.
    pub added_bytes: u64,
    pub stored_bytes: u64,
    pub notes: Notes,
    /// The kind's own record: versions, positions, counts.
    pub details: serde_json::Value,
}

/// One component that is not in the point, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingRecord {
    pub id: ComponentId,
    pub kind: ComponentKind,
    /// Error code, as `RK-PG-005`.
    pub code: String,
    /// The whole error chain, without secrets.
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Why a manifest cannot be used.
#[derive(Debug)]
pub enum BadManifest {
    /// Written by a newer program.
    TooNew { version: u32 },
    /// Not a manifest.
    Syntax(serde_json::Error),
    /// Its parts contradict each other.
    Contradiction(&'static str),
}

impl std::fmt::Display for BadManifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooNew { version } => {
                write!(f, "manifest version {version} is newer than this program knows ({MANIFEST_VERSION})")
            }
            Self::Syntax(error) => write!(f, "not a manifest: {error}"),
            Self::Contradiction(what) => write!(f, "the manifest contradicts itself: {what}"),
        }
    }
}

impl std::error::Error for BadManifest {}

impl Manifest {
    /// Reads a stored manifest and checks that it does not contradict itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadManifest> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(bytes).map_err(BadManifest::Syntax)?;
        if version > MANIFEST_VERSION {
            return Err(BadManifest::TooNew { version });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(BadManifest::Syntax)?;
        let partial = !manifest.missing.is_empty() || manifest.components.iter().any(|c| c.notes.make_partial());
        if partial != (manifest.state == Completeness::Partial) {
            return Err(BadManifest::Contradiction("`state` does not fit what is missing"));
        }
        Ok(manifest)
    }

    /// The bytes to store.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }

    /// The record of one component.
    pub fn component(&self, id: &ComponentId) -> Option<&ComponentRecord> {
        self.components.iter().find(|record| &record.id == id)
    }
}
