//! Reading a repository: index, blobs, trees, streams, parts.

pub(crate) mod blobs;
pub(crate) mod blocks;
pub(crate) mod index;
pub(crate) mod parallel;
pub(crate) mod part;
pub(crate) mod stream;
pub(crate) mod tree;
