//! Containers of Docker or Podman, through the API of their engine.
//!
//! Nothing here is asked for unless the configuration names a container or a compose file.

mod component;
mod compose;
mod engine;
mod exec;
mod hook;
mod inspect;
mod inventory;
mod services;

pub use component::{Build, Contained, Use};
pub use compose::{Project, Service};
pub use engine::{Engine, EnginePlaces};
pub use exec::Inside;
pub(crate) use exec::{Exec, Order};
pub use hook::StackHooks;
pub use inspect::{Check, Container, Mount, State};
pub use inventory::ComposeComponent;
pub use services::{ServicesOptions, StackServices};
