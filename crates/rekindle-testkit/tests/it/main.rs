//! The launchers start real servers, and the comparators see every difference.

#[cfg(test)]
mod cloud;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod s3;
#[cfg(test)]
mod trees;
