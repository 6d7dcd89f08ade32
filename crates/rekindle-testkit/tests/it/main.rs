//! The launchers start real servers, and the comparators see every difference.

mod postgres;
mod redis;
mod s3;
