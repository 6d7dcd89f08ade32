mod bad;
mod good;
mod random;
