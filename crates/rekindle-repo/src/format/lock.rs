//! Lock files, as restic writes and honours them.

use serde::{Deserialize, Serialize};

use super::BadFormat;

/// Who works on the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFile {
    /// RFC 3339; moved forward by writing a new file and removing the old one.
    pub time: String,
    #[serde(default)]
    pub exclusive: bool,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub pid: u32,
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
    /// Where `pid` means something. Ours only; other programs read past it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_space: Option<ProcessSpace>,
}

/// Process ids that are told apart by their number: those of one boot of one kernel, in one pid namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpace {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// `/proc/self/ns/pid`.
    pub pid_namespace: String,
    /// SHA-256 of `/etc/machine-id`, in hex; none where there is no such file, as in many containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

impl LockFile {
    /// Reads the JSON.
    pub fn decode(json: &[u8]) -> Result<Self, BadFormat> {
        Ok(serde_json::from_slice(json)?)
    }

    /// The JSON.
    pub fn encode(&self) -> Result<Vec<u8>, BadFormat> {
        Ok(serde_json::to_vec(self)?)
    }
}
