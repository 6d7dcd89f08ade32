//! What all parts of one restore share.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rekindle_core::port::{Materialize, RunContext};
use rekindle_core::{Fault, Result};

use super::attributes::Owners;
use super::place::{Directories, DirectoryNumber};
use super::report::Report;
use crate::read::blobs::SharedReader;

/// One restore in progress.
pub(super) struct Site<'a> {
    pub(super) request: &'a Materialize,
    pub(super) context: &'a RunContext,
    /// Name for the monitor: the component.
    pub(super) scope: String,
    pub(super) reader: SharedReader,
    pub(super) target: OwnedFd,
    pub(super) directories: Directories,
    /// File systems mounted below the target, held open from before the first write: `syncfs`
    /// only reports errors since then.
    pub(super) mounts: Vec<(u64, OwnedFd)>,
    pub(super) report: Report,
}

impl Site<'_> {
    /// Path of an entry from the target, for messages.
    pub(super) fn path(&self, directory: DirectoryNumber, name: &[u8]) -> Vec<u8> {
        self.directories.path(directory, name)
    }

    /// Whose the entries become.
    pub(super) fn owners(&self) -> Owners {
        match (self.request.given_to, self.request.owners) {
            (Some((uid, gid)), _) => Owners::Given(uid, gid),
            (None, true) => Owners::Stored,
            (None, false) => Owners::Restorer,
        }
    }

    /// Records a lost entry and tells the monitor.
    pub(super) fn lose(&self, directory: DirectoryNumber, name: &[u8], why: &str) {
        let path = self.path(directory, name);
        let fault = Fault::new(
            rekindle_core::codes::REPO_RESTORE_INCOMPLETE,
            format!("restore `{}`", crate::read::tree::readable(&path)),
        )
        .because(why.to_owned());
        self.context.monitor.problem(&self.scope, &fault);
        self.report.lost(&path, why);
    }

    /// An entry is done.
    pub(super) fn done(&self, bytes: u64, kept: u64) {
        self.report.done(bytes);
        self.report.kept(kept);
        self.context.monitor.advance(&self.scope, 1, kept);
    }

    /// Notes the file system of a directory that was there before.
    pub(super) fn note_file_system(&mut self, directory: OwnedFd) {
        let (Ok(own), Ok(stat)) = (rustix::fs::fstat(&self.target), rustix::fs::fstat(&directory)) else {
            return;
        };
        let known = stat.st_dev == own.st_dev || self.mounts.iter().any(|(d, _)| *d == stat.st_dev);
        if !known {
            self.mounts.push((stat.st_dev, directory));
        }
    }

    /// One open directory of every file system that was written to.
    pub(super) fn file_systems(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.target.as_fd()).chain(self.mounts.iter().map(|(_, fd)| fd.as_fd()))
    }

    /// `Err` once the run is cancelled.
    pub(super) fn check_cancelled(&self) -> Result<()> {
        self.context.cancel.check()
    }
}
