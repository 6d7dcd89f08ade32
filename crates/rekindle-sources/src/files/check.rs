//! x
use rekindle_core::port::*; use rekindle_core::Result;
pub(super) fn check(_: &dyn PartReader, _: &RestoreReport, _: &RunContext) -> Result<Vec<Finding>> { Ok(Vec::new()) }
