mod bad;
mod good;
mod random;
mod service;
