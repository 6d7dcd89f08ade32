//! The `config` object: sealed, never compressed.

use serde::{Deserialize, Serialize};

use super::BadFormat;

/// Format versions this program reads and writes.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 1..=2;

/// What a repository says about itself. Fields of other programs are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub version: u32,
    /// 64 hex digits.
    pub id: String,
    /// Hex; restic's chunker needs it, ours takes it as a part of its seed.
    #[serde(default)]
    pub chunker_polynomial: String,
}

impl Config {
    /// Reads the opened object.
    pub fn decode(plain: &[u8]) -> Result<Self, BadFormat> {
        Ok(serde_json::from_slice(plain)?)
    }

    /// The bytes to seal.
    pub fn encode(&self) -> Result<Vec<u8>, BadFormat> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Whether blobs and files may be compressed.
    pub fn compression(&self) -> bool {
        self.version >= 2
    }
}
