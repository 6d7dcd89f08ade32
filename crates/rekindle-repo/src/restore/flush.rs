//! Write-back that begins while files are still being written, so that the `syncfs` at the end has
//! little left to wait for. Its error is the restore's error: a file system tells each one only once.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use rekindle_core::{Fault, Result, codes};

use super::site::Site;

/// Bytes that are written between two flushes.
const FLUSH_EVERY_BYTES: u64 = 32 << 20;

/// Counts what one worker writes and asks for a flush when it is time.
#[derive(Debug, Clone)]
pub(super) struct Written {
    bytes: Arc<AtomicU64>,
    ask: Sender<()>,
}

impl Written {
    /// So many bytes more.
    pub(super) fn add(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before / FLUSH_EVERY_BYTES != (before + bytes) / FLUSH_EVERY_BYTES {
            // While a flush runs and one more waits, nothing is gained by a third.
            let _ = self.ask.try_send(());
        }
    }
}

/// The two ends: for the workers, and for [`run`].
pub(super) fn pair() -> (Written, Receiver<()>) {
    let (ask, asked) = crossbeam_channel::bounded(1);
    (Written { bytes: Arc::default(), ask }, asked)
}

/// Flushes whenever asked, until every worker is done.
pub(super) fn run(site: &Site<'_>, asked: &Receiver<()>) -> Result<()> {
    asked.iter().try_for_each(|()| site.file_systems().try_for_each(flush))
}

/// Waits until everything on a file system is on its disk.
pub(super) fn flush(of: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::syncfs(of).map_err(|error| {
        Fault::new(codes::REPO_TARGET_IO, "bring the restored files safely to disk")
            .because(std::io::Error::from(error))
            .hint("look at the target's file system (`dmesg`), then restore again to another one")
    })
}
