//! TOML text → checked [`Config`].
//!
//! The keys, their shapes and their meaning stand in one table ([`spec`]): the reader, the "did
//! you mean", the JSON Schema and the documentation come from it. Every problem of a file is
//! reported, each with file, line, column, key and a remedy. Nothing is guessed.

mod edit;
mod load;
mod model;
mod problem;
mod read;

mod schema;
mod secret_ref;
mod section;
mod spec;
mod template;
mod url;
mod value;

pub use edit::{Reference, references, set};
pub use load::{default_places, load, load_fleet, parse, read_text};
pub use model::{
    Access, Channel, Checks, Command, Component, Compose, Config, CopyTo, Databases, Drill, Email, EmailTls, Files,
    Fleet, Grafana, Hooks, HttpLogin, InContainer, Kind, Member, MemberCopy, ObjectLock, OnChange, Physical, Postgres,
    PostgresMethod, Prometheus, PrometheusMethod, Receiver, Recover, Redis, Repository, Retention, Serve, Stack, Value,
};
pub use problem::{Problem, Problems};
pub use rekindle_core::schedule::Schedule;
pub use schema::json_schema;
pub use secret_ref::{SecretRef, Surroundings};
pub use template::{Draft, DraftComponent};
pub use url::without_password;
