//! What the manifest of a point keeps of a base backup, beside [`BaseBackup`] itself.

use rekindle_core::PointId;
use rekindle_core::wal::{BaseBackup, SlotName, WalMode};
use serde::{Deserialize, Serialize};

/// The version this program writes.
pub const PHYSICAL_DETAILS_VERSION: u32 = 1;

/// How the bytes came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Taken {
    /// Everything was sent.
    Full {
        /// Why not only what changed.
        why: String,
    },
    /// Only what changed since an earlier point was sent; what is stored is whole all the same.
    Incremental { since: PointId },
}

/// The whole record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhysicalDetails {
    pub version: u32,
    /// `physical`.
    pub method: String,
    /// As the server writes its version.
    pub server_version: String,
    /// Host and port we connected to.
    pub address: String,
    pub standby: bool,
    /// With `none`, nothing between points can be recovered.
    pub wal: WalMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotName>,
    pub taken: Taken,
    /// Bytes of archives and manifest that the server sent.
    pub transferred_bytes: u64,
    /// Bytes of a block of the server.
    pub block_bytes: usize,
    /// Content is cut every so many bytes.
    pub chunk_bytes: usize,
    /// SHA-256 of `data/backup_manifest`, 64 hex digits.
    pub manifest_sha256: String,
    pub base: BaseBackup,
}

impl PhysicalDetails {
    /// The record of a component, when it is one of a base backup.
    pub fn of(details: &serde_json::Value) -> Option<Result<Self, serde_json::Error>> {
        let physical = details.get("method").and_then(serde_json::Value::as_str) == Some("physical");
        physical.then(|| Self::deserialize(details))
    }
}
