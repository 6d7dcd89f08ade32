//! Hard links within one component: the second name of a file takes over what the first one
//! stored.

use std::collections::HashMap;

use rekindle_core::entry::{EntryKind, FileTime, Meta};

use crate::format::Id;

/// Files with several names that are remembered; the names of further ones are read again (their
/// blobs are stored once all the same).
const LINKED_FILES_MAX: usize = 1_000_000;

/// What tells one file: device and inode.
pub(super) type LinkKey = (u64, u64);

/// What the first name of a file came to.
#[derive(Debug, Clone)]
enum First {
    /// It is not stored yet.
    Pending,
    /// Its blobs.
    Stored(Vec<Id>),
    /// It was skipped, or changed: the next name is read for itself.
    Unusable,
}

struct Seen {
    size: u64,
    modified: FileTime,
    changed: FileTime,
    names_left: u64,
    first: First,
}

/// The files with several names that were seen.
#[derive(Default)]
pub(super) struct Links(HashMap<LinkKey, Seen>);

/// What to do with an entry.
pub(super) enum LinkRole {
    /// It has one name.
    Single,
    /// Store it, and tell [`Links::stored`] afterwards.
    First(LinkKey),
    /// Its content is that of an earlier entry.
    Further(LinkKey),
}

impl Links {
    /// Looks at the next entry.
    pub(super) fn role(&mut self, meta: &Meta) -> LinkRole {
        if meta.links < 2 || meta.inode == 0 || meta.kind != EntryKind::File {
            return LinkRole::Single;
        }
        let key = (meta.device, meta.inode);
        if let Some(seen) = self.0.get(&key) {
            let same = (seen.size, seen.modified, seen.changed) == (meta.size, meta.modified, meta.changed);
            return if same { LinkRole::Further(key) } else { LinkRole::Single };
        }
        if self.0.len() >= LINKED_FILES_MAX {
            return LinkRole::Single;
        }
        self.0.insert(
            key,
            Seen {
                size: meta.size,
                modified: meta.modified,
                changed: meta.changed,
                names_left: meta.links - 1,
                first: First::Pending,
            },
        );
        LinkRole::First(key)
    }

    /// The first name is settled: with these blobs, or not usable for the others.
    pub(super) fn settle(&mut self, key: LinkKey, blobs: Option<&[Id]>) {
        if let Some(seen) = self.0.get_mut(&key) {
            seen.first = match blobs {
                Some(blobs) => First::Stored(blobs.to_vec()),
                None => First::Unusable,
            };
        }
    }

    /// Blobs and size for a further name, after the first one was settled.
    pub(super) fn take(&mut self, key: LinkKey) -> Option<(Vec<Id>, u64)> {
        let seen = self.0.get_mut(&key)?;
        seen.names_left = seen.names_left.saturating_sub(1);
        let (done, size) = (seen.names_left == 0, seen.size);
        let found = match &seen.first {
            First::Stored(blobs) => Some((blobs.clone(), size)),
            First::Pending | First::Unusable => None,
        };
        if done {
            self.0.remove(&key);
        }
        found
    }
}
