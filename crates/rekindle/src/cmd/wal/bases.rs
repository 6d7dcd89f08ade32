//! The base backups of a repository.

use rekindle_core::wal::BaseBackup;

pub(super) use rekindle_repo::wal::bases as of;

/// A base backup and the short id of its point.
pub(super) type Base = (String, BaseBackup);
