//! The repository as the use cases see it.

use std::sync::Arc;

use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{PartReader, Repository, RunContext, WriteSession};
use rekindle_core::{ComponentId, Fault, PointId, Result};

use rekindle_store::Support;

use crate::points;
use crate::repo::Repo;
use crate::write::Session;

impl Repository for Repo {
    fn begin(&self, context: &RunContext) -> Result<Arc<dyn WriteSession>> {
        Ok(Arc::new(Session::begin(self, context)?))
    }

    /// Fails when a point cannot be read; [`points::view`] gives the others as well.
    fn points(&self) -> Result<Vec<RecoveryPoint>> {
        let view = points::view(self)?;
        match view.unreadable.into_iter().next() {
            None => Ok(view.points),
            Some(bad) => Err(Fault::new(bad.fault.code(), format!("read point {}", bad.id.short()))
                .because(bad.fault.chain())
                .hint("run `rekindle verify`; the other points are not affected")),
        }
    }

    fn open(&self, point: &PointId, component: &ComponentId) -> Result<Arc<dyn PartReader>> {
        points::open_part(self, &self.reader()?, point, component)
    }

    fn may_be_shared(&self) -> Result<bool> {
        let store = self.store();
        let mut known = store.capabilities().put_if_absent;
        if known == Support::Unknown {
            known = store.handle.block_on(rekindle_store::probe(store.store.as_ref()))?.put_if_absent;
        }
        Ok(known == Support::Kept)
    }
}
