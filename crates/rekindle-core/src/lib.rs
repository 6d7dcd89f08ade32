//! The words and rules of rekindle: plain types, ports (traits) and pure decisions.
//!
//! Nothing here does IO, reads a clock, starts a thread or knows tokio. Every other crate
//! depends on this one and on as little else as possible.

pub mod cancel;
pub mod entry;
pub mod fault;
pub mod figures;
pub mod fleet;
pub mod id;
pub mod manifest;
pub mod mark;
pub mod note;
pub mod objective;
pub mod point;
pub mod port;
pub mod proof;
pub mod proof_record;
pub mod retention;
pub mod sandbox;
pub mod schedule;
pub mod secret;
pub mod shamir;
pub mod tally;
pub mod timeline;
pub mod tripwire;
pub mod wal;
pub mod witness;

pub use cancel::Cancel;
pub use fault::{Class, ErrorCode, Fault, Result, codes};
pub use id::{ComponentId, ComponentKind, PointId, RunId};
pub use secret::Secret;
