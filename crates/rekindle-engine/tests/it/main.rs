//! The order and the honesty of a run, over small ports. Real servers are tested at the adapters
//! and at the command line.

mod backup;
mod fakes;
mod restore;
mod retain;
