//! `wal bind`

use clap::Args;
use rekindle_core::wal::{Cluster, SegmentSize, SystemId, WalArchive};
use rekindle_core::{ComponentId, Fault, codes};
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire;

/// Let a component follow another cluster from now on
///
/// A component stays with the first cluster whose WAL it brought, so that two servers never write one log. After
/// `initdb` or `pg_upgrade` the cluster is another one: bind the component to it, then take a base backup. Points and
/// WAL of the old cluster stay.
#[derive(Debug, Args)]
pub(crate) struct Bind {
    /// The postgres component
    component: ComponentId,
    /// System identifier of the new cluster: `SELECT system_identifier FROM pg_control_system()`
    #[arg(long, value_name = "ID")]
    system: SystemId,
    /// Size of its WAL segments in bytes, when it is not 16 MiB
    #[arg(long, value_name = "BYTES", default_value_t = SegmentSize::DEFAULT.bytes())]
    segment_size: u32,
}

impl Bind {
    pub(super) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let owner = super::owner(&config, Some(&self.component))?;
        let segment_size = SegmentSize::try_from(self.segment_size)
            .map_err(|bad| Fault::new(codes::CLI_USAGE, "read --segment-size").because(bad))?;
        let given = wire::password_given(session)?;
        let place = wire::of_config(session, &config, given.as_ref())?;
        let archive = super::archive(&wire::open(session, &place)?);
        archive.rebind(&owner, Cluster { system: self.system, segment_size })?;
        let text = format!(
            "`{}` follows the cluster {} from now on.\nTake a base backup of it: rekindle backup {}\n",
            owner.component, self.system, owner.component
        );
        Ok(Answer::words(json!({"component": owner.component, "system": self.system}), text))
    }
}
