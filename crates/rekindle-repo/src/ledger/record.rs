//! What a record of the ledger says.

use rekindle_core::{PointId, codes};
use serde::{Deserialize, Serialize};

use crate::chain::chained;

/// The version this program writes, and the newest one it reads.
pub const RECORD_VERSION: u32 = 1;

/// What happened to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A run committed it.
    Committed,
    /// It was found in the repository without a record (a crash right after the commit) and
    /// taken over.
    Adopted,
    /// It was removed on purpose.
    Forgotten,
}

/// One record, as it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    /// 1, 2, 3, … without a gap; also the object's name.
    pub sequence: u64,
    /// Hash of the record before it; `None` only in the first.
    pub previous: Option<String>,
    pub time: jiff::Timestamp,
    pub action: Action,
    pub point: PointId,
    /// Id of the snapshot's tree, 64 hex digits.
    pub tree: String,
    /// Name of the host that acted.
    pub host: String,
    /// The run that acted, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Of a copied point: the point it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<PointId>,
}

chained!(Record in "rekindle/ledger/": "ledger", "ledger record", codes::REPO_LEDGER, RECORD_VERSION);
