//! The restic repository format, version 2 (version 1 is read and written too): pure encoding and
//! decoding, no IO.
//!
//! Source of all outside behaviour: restic's design document (`doc/design.rst`) and what restic
//! 0.9 to 0.19 and rustic write. Decoders take hostile bytes: they give [`BadFormat`], never panic,
//! and have limits on what they allocate.

pub mod config;
pub mod crypto;
pub mod id;
pub mod index;
pub mod json;
pub mod key;
pub mod lock;
pub mod names;
pub mod node;
pub mod pack;
pub mod quote;
pub mod snapshot;
pub mod time;
pub mod tree;
pub mod unpacked;

pub use id::Id;

use std::fmt;

/// Why bytes are not what they should be. The caller knows which object they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFormat(pub String);

impl BadFormat {
    /// With a fixed reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for BadFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadFormat {}

impl From<serde_json::Error> for BadFormat {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}
