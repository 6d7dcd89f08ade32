//! The RDB format: walking, counting, taking apart key by key.

pub(crate) mod crc64;
pub(crate) mod digest;
pub(crate) mod format;
pub(crate) mod payload;
pub(crate) mod record;
pub(crate) mod summary;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub(crate) mod walk;
