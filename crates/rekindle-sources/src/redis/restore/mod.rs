//! Bringing a captured Redis back: into a data directory, or key by key into a running server.

pub(crate) mod directory;
pub(crate) mod install;
pub(crate) mod live;
pub(crate) mod roll_back;
pub(crate) mod source;

/// What a restore leaves to the operator, told with each.
pub(crate) const NOT_APPLIED: &str =
    "configuration and ACL users are in the point (`config.json`, `acl.txt`), not applied";
