//! x
use rekindle_core::port::*; use rekindle_core::Result; use super::FilesComponent;
pub(super) fn restore(_: &FilesComponent, _: &dyn PartReader, _: &RestoreRequest, _: &RunContext) -> Result<RestoreReport> { Ok(RestoreReport::default()) }
