//! The launchers start real servers, and the comparators see every difference.

mod cloud;
mod fixtures;
mod postgres;
mod proxy;
mod redis;
mod s3;
mod trees;
