//! Room on the target, and errors that mean there is none.

use std::os::fd::BorrowedFd;

use rekindle_core::{Fault, codes};
use rustix::io::Errno;

/// How an error of the target is to be taken.
#[derive(Debug)]
pub(super) enum TargetError {
    /// Nothing more can be written: the whole restore ends.
    Fatal(Fault),
    /// This entry only.
    Entry(String),
}

/// Judges an error of the target. `what` is verb and object.
pub(super) fn judge(what: &str, error: Errno) -> TargetError {
    let cause = std::io::Error::from(error);
    match error {
        Errno::NOSPC | Errno::DQUOT => TargetError::Fatal(full(what).because(cause)),
        Errno::IO | Errno::ROFS | Errno::MFILE | Errno::NFILE => TargetError::Fatal(
            Fault::new(codes::REPO_TARGET_IO, what.to_owned())
                .because(cause)
                .hint("look at the target's file system (`dmesg`, `df`, `mount`), then run the restore again: what is there is kept"),
        ),
        _ => TargetError::Entry(format!("{what}: {cause}")),
    }
}

fn full(what: &str) -> Fault {
    Fault::new(codes::REPO_TARGET_FULL, what.to_owned())
        .hint("free space on the target or choose another one, then run the restore again: what is there is kept")
}

/// Refuses when the target has surely less room than needed. `bytes` is a lower bound: what the
/// repository itself holds compressed to almost nothing may become holes and is not counted.
pub(super) fn check(target: BorrowedFd<'_>, bytes: u64, entries: u64) -> Result<(), Fault> {
    let Ok(room) = rustix::fs::fstatvfs(target) else {
        // Not every file system tells; writing will show.
        return Ok(());
    };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if room.f_blocks > 0 && bytes > free {
        return Err(full("restore to the target")
            .because(format!("{bytes} bytes are needed and {free} are free: {} more", bytes - free)));
    }
    // File systems without a fixed number of inodes report none at all.
    if room.f_files > 0 && entries > room.f_favail {
        return Err(full("restore to the target")
            .because(format!("{entries} inodes are needed and {} are free", room.f_favail)));
    }
    Ok(())
}

/// Adds how much was still to be written to an error that says the target is full.
pub(super) fn with_need(fault: Fault, left_bytes: u64) -> Fault {
    if fault.is(codes::REPO_TARGET_FULL) {
        let what = format!("restore to the target: up to {left_bytes} bytes more are needed");
        return fault.during(what);
    }
    fault
}
