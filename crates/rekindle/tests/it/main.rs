//! The program as its users see it.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod acceptance;
mod bad_input;
mod base;
mod bucket;
mod flow;
mod help;
mod keys;
mod manifests;
mod pitr;
mod refused;
mod run;
mod set_up;
mod stack;
