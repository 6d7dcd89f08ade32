//! Repositories in the restic format, version 2: our own writer, reader, restorer and verifier.

pub mod format;
