//! Cooperative cancellation that both threads and async code can look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::fault::{Fault, Result, codes};

/// Why a run was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Ctrl-C (SIGINT).
    Interrupted,
    /// SIGTERM, a service manager or a deadline.
    Terminated,
    /// Another part of the same run failed; going on would be wasted work.
    SiblingFailed,
}

const AGAIN: &str = "run the same command again";

/// A flag shared by everything that works for one run. Cloning shares the flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicU8>);

impl Cancel {
    /// A flag that nobody has raised yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag; the first reason given stays.
    pub fn cancel(&self, reason: Reason) {
        let value = match reason {
            Reason::Interrupted => 1,
            Reason::Terminated => 2,
            Reason::SiblingFailed => 3,
        };
        let _ = self.0.compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Why the run has to stop, if it has to.
    pub fn reason(&self) -> Option<Reason> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Reason::Interrupted),
            2 => Some(Reason::Terminated),
            _ => Some(Reason::SiblingFailed),
        }
    }

    /// Whether the run has to stop.
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// `Err` with the matching code once the flag is raised. Call it between units of work.
    pub fn check(&self) -> Result<()> {
        match self.reason() {
            None => Ok(()),
            Some(Reason::Interrupted) => {
                Err(Fault::new(codes::RUN_INTERRUPTED, "stop the run: interrupted").hint(AGAIN))
            }
            Some(Reason::Terminated) => Err(Fault::new(codes::RUN_TERMINATED, "stop the run: terminated").hint(AGAIN)),
            Some(Reason::SiblingFailed) => Err(Fault::new(codes::RUN_SIBLING, "stop: another part of this run failed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let cancel = Cancel::new();
        assert!(cancel.check().is_ok());
        cancel.clone().cancel(Reason::Terminated);
        cancel.cancel(Reason::Interrupted);
        assert_eq!(cancel.reason(), Some(Reason::Terminated));
        assert_eq!(cancel.check().unwrap_err().exit_code(), 143);
    }
}
