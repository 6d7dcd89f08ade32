//! One run of a stack at a time on one host.

use std::fs::{File, TryLockError};

use rekindle_config::Config;
use rekindle_core::{Fault, Result, codes};

/// Keeps a second run of this stack on this host from starting. A configuration file is what a stack
/// is, so the lock (flock(2)) is on it: it needs no place of its own and ends with the process.
pub(crate) fn alone(config: &Config) -> Result<Option<File>> {
    let what = || format!("start a run of the stack `{}`", config.stack.name);
    match File::open(&config.file).map(|file| (file.try_lock(), file)) {
        Ok((Ok(()), file)) => Ok(Some(file)),
        Ok((Err(TryLockError::WouldBlock), _)) => Err(Fault::new(codes::ENGINE_RUNNING, what())
            .because(format!("another run with {} is active", config.file.display()))
            .hint("wait until it has ended")),
        // Some network file systems have no such locks; the repository's own lock is still there.
        Ok((Err(TryLockError::Error(error)), _)) | Err(error) => {
            tracing::warn!(
                file = %config.file.display(),
                %error,
                "a second run of this stack on this host is not kept out: the file system of the configuration has no locks"
            );
            Ok(None)
        }
    }
}
