//! The first failure of a session; it ends every component.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rekindle_core::{Fault, Result};

/// Keeps the first failure.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    raised: AtomicBool,
    first: Mutex<Option<Fault>>,
}

impl Failure {
    /// Keeps `fault` if it is the first one.
    pub(crate) fn raise(&self, fault: Fault) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(fault);
            self.raised.store(true, Ordering::Release);
        }
    }

    /// Whether there was one.
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// `Err` with a copy of the first failure.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.is_raised() {
            return Ok(());
        }
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match &*first {
            None => Ok(()),
            Some(fault) => Err(copy(fault)),
        }
    }
}

/// The same error again, its causes as text.
pub(crate) fn copy(fault: &Fault) -> Fault {
    let copy = Fault::new(fault.code(), fault.chain());
    match fault.hint_text() {
        Some(hint) => copy.hint(hint),
        None => copy,
    }
}
