//! See the crate description.

pub mod container;
pub mod grafana;
mod home;
pub mod hook;
pub mod http;

mod document;
mod occupied;
pub mod sandbox;
mod steps;

pub mod child;
pub mod postgres;
pub mod prometheus;

pub mod files;
pub mod redis;
