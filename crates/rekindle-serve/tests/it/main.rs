//! The service against real receivers, a real journal file and a real promtool.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod journal;
mod metrics;
mod receivers;
