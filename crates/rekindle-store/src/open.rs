//! From options to a store that is ready to use.

use std::sync::Arc;

use rekindle_core::Result;

use crate::cloud;
use crate::local::Local;
use crate::memory::Memory;
use crate::options::{StoreOptions, StoreUrl};
use crate::retrying::Retrying;
use crate::store::Store;

/// Opens the place in `options`, with deadlines and bounded retries. Nothing is sent yet: a wrong
/// password or an unreachable host shows at the first call.
pub fn open(options: &StoreOptions) -> Result<Arc<dyn Store>> {
    let limits = options.limits.clone();
    match &options.url {
        StoreUrl::Memory => Ok(Arc::new(Retrying::new(Memory::new(), limits))),
        StoreUrl::Local(root) => {
            let local = Local::new(root.clone());
            if options.create_root {
                local.create_root()?;
            }
            Ok(Arc::new(Retrying::new(local, limits)))
        }
        StoreUrl::S3 { .. } | StoreUrl::Gcs { .. } | StoreUrl::Azure { .. } => {
            let cloud = cloud::open(options, &|name| std::env::var(name).ok())?;
            Ok(Arc::new(Retrying::new(cloud, limits)))
        }
    }
}
