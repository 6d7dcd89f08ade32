//! What a capture writes down about single entries, and what the configuration makes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rekindle_core::entry::{EntryKind, EntryPath, Meta};
use rekindle_core::note::{NoteClass, Notebook, Notes, Severity};
use rekindle_core::{Fault, Result, codes};
use serde::{Deserialize, Serialize};

use super::attributes::{OwnerNames, Xattrs};
use super::sys::Status;

/// What is to happen when something is to be noted about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It is listed; the point is complete.
    Note,
    /// It is listed and makes the point partial.
    Partial,
    /// The component is missing from the point.
    Fail,
}

/// What a walk met, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub files: u64,
    pub directories: u64,
    pub symlinks: u64,
    /// FIFOs, sockets and devices.
    pub special: u64,
    /// Names of files with more than one hard link.
    pub hard_links: u64,
    /// Bytes of the files as listed.
    pub bytes: u64,
    /// Bytes the file system has really given to them; smaller where there are holes.
    pub allocated_bytes: u64,
    /// Entries left out by the user's patterns, each directory counted once.
    pub excluded: u64,
    /// Directories with a `CACHEDIR.TAG`, of which only the tag was taken.
    pub caches: u64,
}

/// Shared by the walk and by everything that reads a file for it.
pub(super) struct Journal {
    policy: BTreeMap<NoteClass, Policy>,
    notebook: Notebook,
    counts: Mutex<Counts>,
    owners: Mutex<OwnerNames>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    pub(super) fn new(policy: BTreeMap<NoteClass, Policy>) -> Self {
        Self { policy, notebook: Notebook::default(), counts: Mutex::default(), owners: Mutex::default() }
    }

    /// Notes something about an entry; `Err` when the policy says that this fails the component.
    pub(super) fn note(&self, class: NoteClass, path: &EntryPath, text: impl Into<String>) -> Result<()> {
        let severity = match self.policy.get(&class) {
            None => class.usual_severity(),
            Some(Policy::Note) => Severity::Note,
            Some(Policy::Partial) => Severity::Partial,
            Some(Policy::Fail) => {
                let text = text.into();
                let hint =
                    format!("the policy for `{}` is `fail`; exclude the path or relax the policy", class.as_str());
                return Err(Fault::new(codes::FILES_READ, format!("save `/{path}`")).because(text).hint(hint));
            }
        };
        self.notebook.add_as(severity, class, path.to_string(), text);
        Ok(())
    }

    /// What was noted so far.
    pub(super) fn notes(&self) -> Notes {
        self.notebook.notes()
    }

    /// Changes the counts.
    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
    }

    /// What was met so far.
    pub(super) fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// Attributes of an entry, with the names of its owners.
    pub(super) fn meta(&self, kind: EntryKind, status: &Status, xattrs: Xattrs) -> Meta {
        lock(&self.owners).meta(kind, status, xattrs)
    }
}
