//! Snapshot files: what makes a tree a point in time.

use serde::{Deserialize, Serialize};

use super::{BadFormat, Id};

/// A snapshot. Fields of other programs are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// RFC 3339.
    pub time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Id>,
    pub tree: Id,
    #[serde(default)]
    pub paths: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Id>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// Figures of the run that wrote a snapshot (restic 0.17 and later show them).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// RFC 3339.
    pub backup_start: String,
    /// RFC 3339.
    pub backup_end: String,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unmodified: u64,
    pub dirs_new: u64,
    pub dirs_changed: u64,
    pub dirs_unmodified: u64,
    pub data_blobs: u64,
    pub tree_blobs: u64,
    pub data_added: u64,
    pub data_added_packed: u64,
    pub total_files_processed: u64,
    pub total_bytes_processed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants this signature")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Snapshot {
    /// Reads the JSON.
    pub fn decode(json: &[u8]) -> Result<Self, BadFormat> {
        Ok(serde_json::from_slice(json)?)
    }

    /// The JSON.
    pub fn encode(&self) -> Result<Vec<u8>, BadFormat> {
        Ok(serde_json::to_vec(self)?)
    }

    /// The value of a tag `name:value`.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.as_deref().unwrap_or_default().iter().find_map(|tag| tag.strip_prefix(name)?.strip_prefix(':'))
    }

    /// Whether it has this tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.as_deref().unwrap_or_default().iter().any(|own| own == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_snapshot_is_read() {
        let tree = Id::of(b"t");
        let old = format!(
            r#"{{"time":"2014-11-12T22:33:00.1+01:00","tree":"{tree}","paths":["/x"],"hostname":"h","username":"u","tags":["rekindle","stack:a:b"],"unknown":1}}"#
        );
        let snapshot = Snapshot::decode(old.as_bytes()).unwrap();
        assert_eq!(snapshot.tag("stack"), Some("a:b"));
        assert!(snapshot.has_tag("rekindle") && !snapshot.has_tag("stack"));
        let again = Snapshot::decode(&snapshot.encode().unwrap()).unwrap();
        assert_eq!(again, snapshot);
        let null = format!(r#"{{"time":"x","tree":"{tree}","paths":[],"tags":null}}"#);
        assert!(Snapshot::decode(null.as_bytes()).is_ok());
    }
}
