//! Strict object storage: memory, local disk, S3, GCS and Azure behind one small trait.
//!
//! What "strict" means here: a failed LIST, GET or PUT is an error and never an empty answer; a
//! write that returned `Ok` is durable; bytes that come back short are an error; every wait has a
//! limit. [`open`] gives a store with bounded retries around the adapter that the URL names.
//!
//! Objects are written with one request each. Packs are at most 128 MiB, far below the 5 GB that
//! S3, GCS and Azure take in one PUT, so there is no multipart upload: nothing to clean up after a
//! crash, and the conditional PUT stays one atomic step.

pub mod blocking;
mod capability;
mod cloud;
pub mod contract;
pub mod faulty;
mod key;
mod limited;
mod limits;
mod local;
mod lock;
mod memory;
mod open;
mod options;
mod probe;
mod read_back;
mod retrying;
mod store;

pub use capability::{Capabilities, Support};
pub use key::Key;
pub use limited::Limited;
pub use limits::Limits;
pub use local::Local;
pub use lock::{Destruction, LockMode, Locker, ObjectLock, is_lockable};
pub use memory::Memory;
pub use open::open;
pub use options::{Credentials, StoreOptions, StoreUrl};
pub use probe::probe;
pub use read_back::ReadBack;
pub use retrying::Retrying;
pub use store::{ObjectMeta, PutMode, PutOutcome, Store};
