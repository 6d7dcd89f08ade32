//! Nothing is written before the lock is known to be ours; until then sources are read and packs filled.

use std::sync::{Arc, Mutex, PoisonError};

use rekindle_core::{Fault, Result, codes};

use super::failure::{Failure, copy};
use crate::lock::Settler;

/// Closed until the pause after writing the lock object is over and nobody else was found.
pub(crate) struct Gate {
    settler: Settler,
    /// What was found; held by whoever looks, so that all others wait for that look.
    found: Mutex<Option<Result<()>>>,
}

impl Gate {
    /// Looks in the background as soon as the pause is over; somebody else's lock ends the session then.
    pub(super) fn new(settler: Settler, failure: &Arc<Failure>) -> Result<Arc<Self>> {
        let gate = Arc::new(Self { settler, found: Mutex::default() });
        let (looking, failure) = (Arc::clone(&gate), Arc::clone(failure));
        std::thread::Builder::new()
            .name("repository-gate".to_owned())
            .spawn(move || looking.pass().unwrap_or_else(|fault| failure.raise(fault)))
            .map_err(|error| Fault::new(codes::RUN_BUG, "start the thread that looks at the lock").because(error))?;
        Ok(gate)
    }

    /// Waits until the lock is known to be ours; `Err` for ever once it is not.
    pub(crate) fn pass(&self) -> Result<()> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match found.get_or_insert_with(|| self.settler.settle()) {
            Ok(()) => Ok(()),
            Err(fault) => Err(copy(fault)),
        }
    }
}
