//! Every error code of the program, one file per area. A test compares them with `docs/errors/`.

use super::{Class, ErrorCode, Retry};

/// Declares the codes of one area as constants and as a list.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $class:ident, $retry:ident, $title:literal;)*) => {
        $(
            $(#[$doc])*
            pub const $name: &super::ErrorCode = &super::ErrorCode {
                id: $id,
                title: $title,
                class: super::Class::$class,
                retry: super::Retry::$retry,
            };
        )*
        pub(super) const AREA: &[&super::ErrorCode] = &[$($name),*];
    };
}

mod cli;
mod config;
mod container;
mod copy;
mod drill;
mod engine;
mod files;
mod grafana;
mod pitr;
mod postgres;
mod prometheus;
mod recover;
mod redis;
mod repo;
mod run;
mod serve;
mod store;
mod wal;

pub use cli::*;
pub use config::*;
pub use container::*;
pub use copy::*;
pub use drill::*;
pub use engine::*;
pub use files::*;
pub use grafana::*;
pub use pitr::*;
pub use postgres::*;
pub use prometheus::*;
pub use recover::*;
pub use redis::*;
pub use repo::*;
pub use run::*;
pub use serve::*;
pub use store::*;
pub use wal::*;

/// Every code, in the order of the areas.
pub fn all() -> impl Iterator<Item = &'static ErrorCode> {
    [
        cli::AREA,
        config::AREA,
        container::AREA,
        copy::AREA,
        drill::AREA,
        engine::AREA,
        files::AREA,
        grafana::AREA,
        pitr::AREA,
        postgres::AREA,
        prometheus::AREA,
        recover::AREA,
        redis::AREA,
        repo::AREA,
        run::AREA,
        serve::AREA,
        store::AREA,
        wal::AREA,
    ]
    .into_iter()
    .flatten()
    .copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for code in super::all() {
            assert!(seen.insert(code.id), "{} stands twice", code.id);
            let parts: Vec<&str> = code.id.split('-').collect();
            assert!(matches!(parts[..], ["RK", area, number] if area.len() >= 2 && number.len() == 3), "{}", code.id);
            assert!(!code.title.is_empty() && !code.title.ends_with('.'), "{}", code.id);
        }
    }
}
