//! Questions about the place where a component lives.

use rekindle_core::port::{RestoreRequest, Target};
use rekindle_core::{Fault, Result, codes};

/// A request for the configured place, of no certain point: for asking, never for writing.
pub(crate) fn request() -> Result<RestoreRequest> {
    let point = "0".repeat(64).parse().map_err(|bad| Fault::new(codes::RUN_BUG, "name no point").because(bad))?;
    Ok(RestoreRequest {
        point,
        target: Target::InPlace { discard_old: false },
        select: Vec::new(),
        overwrite: false,
        jobs: 1,
        server: None,
        recovery: None,
    })
}
