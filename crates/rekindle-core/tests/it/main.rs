//! Rules of the core against long histories.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod month;
mod world;
