//! The server of a component, for replication.

use rekindle_config::{Config, Kind, Postgres, PostgresMethod};
use rekindle_core::wal::SlotName;
use rekindle_core::{ComponentId, Fault, Result, codes};
use rekindle_sources::postgres::replication::ReplicationOptions;

use crate::wire::components;

fn postgres<'a>(config: &'a Config, component: &ComponentId) -> Result<&'a Postgres> {
    let found = config.components.iter().find(|one| one.id == *component).map(|one| &one.kind);
    match found {
        Some(Kind::Postgres(postgres)) => Ok(postgres),
        _ => Err(Fault::new(codes::ENGINE_NO_COMPONENT, format!("find the postgres component `{component}`"))),
    }
}

/// How the server is reached, and the slot for it.
pub(super) fn options(config: &Config, component: &ComponentId) -> Result<(ReplicationOptions, SlotName)> {
    let postgres = postgres(config, component)?;
    let slot = match &postgres.method {
        PostgresMethod::Physical(physical) => physical.slot_for(&config.stack.name, component),
        PostgresMethod::Logical => SlotName::derived(&config.stack.name, component.as_str()),
    };
    Ok((components::replication(postgres)?, slot))
}

/// Whether a receiver is meant to hold a slot.
pub(super) fn streams(config: &Config, component: &ComponentId) -> bool {
    postgres(config, component).is_ok_and(
        |postgres| matches!(&postgres.method, PostgresMethod::Physical(physical) if physical.wal.uses_slot()),
    )
}
