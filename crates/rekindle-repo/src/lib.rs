//! Repositories in the restic format, version 2: our own writer, reader, restorer and verifier.

pub mod admin;
pub mod anew;
pub mod audit;
pub mod chain;
pub mod chunker;
pub mod copy;
pub mod diff;
pub mod format;
pub mod immutable;
mod key_cache;
pub mod lease;
pub mod ledger;
pub mod lock;
pub mod marks;
pub mod points;
mod port;
mod process_space;
pub mod proofs;
mod read;
pub mod repo;
mod restore;
pub mod source_proofs;
pub mod trust;
pub mod verify;
pub mod wal;
pub mod write;

pub use chunker::Chunking;
pub use key_cache::KeyCache;
pub use repo::{Repo, RepoOptions};
pub use write::Session;
