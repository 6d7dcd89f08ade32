//! The program as its users see it.

mod acceptance;
mod bad_input;
mod flow;
mod help;
mod keys;
mod refused;
mod run;
mod set_up;
mod stack;
