//! Sandboxes: throw-away places with real engines, for drills and for a look at the past.
//!
//! A *site* is one directory on this host that holds everything of one run; each component has a
//! *place* in it. Engines listen on Unix sockets in their place only, run without a network where the
//! host lets us (a network namespace of their own), as an unprivileged user when we are root, at low
//! priority and with a limit of memory. What a killed run leaves behind is found again by the name of
//! its directory, by the processes recorded in it, and by the processes that work in it.
//!
//! The engines' own parts are with their kinds: `postgres::PostgresSandbox`, `redis::RedisSandbox`.

mod confine;
mod directory;
pub(crate) mod engine;
mod janitor;
mod proc;
mod site;
mod users_checks;

pub use confine::lower_priority;
pub use directory::DirectorySandbox;
pub use janitor::{Cleaned, clean};
pub(crate) use site::fault;
pub use site::{Site, SiteOptions};
pub use users_checks::Checks;
