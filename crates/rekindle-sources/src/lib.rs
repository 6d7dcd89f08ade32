//! See the crate description.

pub mod hook;
pub mod http;

mod occupied;
mod steps;

pub mod child;
pub mod postgres;
pub mod prometheus;

pub mod files;
pub mod redis;
