//! Where the objects of a repository stand.

use super::Id;

/// The `config` object.
pub const CONFIG: &str = "config";
/// Folder of the key files.
pub const KEYS: &str = "keys";
/// Folder of the packs; below it one folder per first byte of the name.
pub const DATA: &str = "data";
/// Folder of the index files.
pub const INDEX: &str = "index";
/// Folder of the snapshots.
pub const SNAPSHOTS: &str = "snapshots";
/// Folder of the locks.
pub const LOCKS: &str = "locks";

/// Path of a pack.
pub fn pack(id: &Id) -> String {
    let hex = id.hex();
    format!("{DATA}/{}/{hex}", &hex[..2])
}

/// Path of an object in one of the other folders.
pub fn file(folder: &str, id: &Id) -> String {
    format!("{folder}/{id}")
}

/// The id in the last part of an object's path, if it is one.
pub fn id_of(path: &str) -> Option<Id> {
    path.rsplit('/').next()?.parse().ok()
}
