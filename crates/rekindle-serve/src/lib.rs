//! The long-running face: runs what is due, remembers it, and tells about it.
//!
//! Every run is a child process of its own, so that neither a panic nor the kernel's hunger for
//! memory can take the scheduler with it. What happened stands in a journal (SQLite) that is
//! written before a run starts and after it has ended; the repository stays the only place that
//! says what was saved.

pub mod child;
pub mod http;
pub mod journal;
pub mod metrics;
pub mod notice;
pub mod notify;
pub mod service;
pub mod streams;
pub mod systemd;
pub mod view;

pub use child::{Launcher, Order, Report};
pub use journal::{Journal, RunRecord};
pub use service::{Service, Setup, Stop};
