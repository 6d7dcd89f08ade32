//! See the crate description.

pub mod hook;

pub mod child;
pub mod postgres;

pub mod files;
pub mod redis;
