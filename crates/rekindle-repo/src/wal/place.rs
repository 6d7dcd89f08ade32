//! What was found out about the storage of a log. The probe takes eight requests, so its answer
//! is kept in the repository, under the hash of the storage's URL: `wal push` runs for each segment.

use rekindle_core::wal::Cluster;
use rekindle_core::{Fault, Result, codes};
use rekindle_store::Support;
use serde::{Deserialize, Serialize};

use super::name::Name;
use super::{ClusterRecord, RECORD_VERSION, Shelf, json, same_size};
use crate::format::Id;

/// The object `clusters/<system>.<place>`: it also says that the cluster's record is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Place {
    version: u32,
    cluster: Cluster,
    /// The URL of the storage, without secrets.
    url: String,
    /// Whether the storage refuses a second put-if-absent, as tried.
    pub(super) put_if_absent: bool,
}

fn name(shelf: &Shelf<'_>, cluster: Cluster) -> Name {
    let hash = Id::of(shelf.repo.store().describe().as_bytes()).hex();
    Name::Place(cluster.system, hash[..16].to_owned())
}

impl Place {
    /// What is known of the storage; the cluster has a record in it afterwards.
    pub(super) fn of(shelf: &Shelf<'_>, cluster: Cluster) -> Result<Self> {
        if let Some(known) = Self::read(shelf, cluster)? {
            return Ok(known);
        }
        let found = Self::find_out(shelf, cluster)?;
        let record = ClusterRecord { version: RECORD_VERSION, cluster };
        match shelf.record::<ClusterRecord>(&Name::Cluster(cluster.system))? {
            Some(known) => same_size(&known, cluster)?,
            None => {
                shelf.put_once(&Name::Cluster(cluster.system), &json(&record)?, found.put_if_absent)?;
            }
        }
        found.write(shelf)?;
        Ok(found)
    }

    /// What was found out earlier; `None` when nobody tried here, or for another segment size
    /// (which the cluster's record then decides).
    fn read(shelf: &Shelf<'_>, cluster: Cluster) -> Result<Option<Self>> {
        let known = shelf.record::<Self>(&name(shelf, cluster))?;
        let known = known.filter(|known| known.cluster == cluster && known.url == shelf.repo.store().describe());
        if known.as_ref().is_some_and(|known| !known.put_if_absent) {
            warn(shelf);
        }
        Ok(known)
    }

    /// Tries the storage. One that does not even give back what was written is refused.
    fn find_out(shelf: &Shelf<'_>, cluster: Cluster) -> Result<Self> {
        let store = shelf.repo.store();
        let found = store.handle.block_on(rekindle_store::probe(store.store.as_ref()))?;
        if !found.is_usable() {
            return Err(Fault::new(codes::REPO_UNFIT_STORE, format!("keep a WAL log in {}", store.describe()))
                .because("a probe wrote objects, and the storage did not give back what it must")
                .hint("rekindle doctor"));
        }
        let put_if_absent = found.put_if_absent == Support::Kept;
        if !put_if_absent {
            warn(shelf);
        }
        Ok(Self { version: RECORD_VERSION, cluster, url: store.describe(), put_if_absent })
    }

    fn write(&self, shelf: &Shelf<'_>) -> Result<()> {
        shelf.put_over(&name(shelf, self.cluster), &json(self)?)
    }
}

fn warn(shelf: &Shelf<'_>) {
    tracing::warn!(
        store = %shelf.repo.store().describe(),
        "this storage does not keep a conditional put: each WAL object is read back instead, and two servers \
         that write the same timeline at the same moment may not be noticed"
    );
}
