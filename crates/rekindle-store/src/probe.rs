//! Finds out by trying what a storage really does.

use bytes::Bytes;
use rekindle_core::{Result, codes};

use crate::capability::{Capabilities, Support};
use crate::key::Key;
use crate::store::{PutMode, PutOutcome, Store};

const PROBE_DIRECTORY: &str = "rekindle/probe";

/// Tries everything a repository relies on under a random name below `rekindle/probe/`, cleans up,
/// and keeps the answers in the store. `Err` when a basic call fails altogether (unreachable,
/// denied, full); a call that works but breaks its promise is `Support::Broken`.
pub async fn probe(store: &dyn Store) -> Result<Capabilities> {
    let directory = Key::new(PROBE_DIRECTORY)?.join(&format!("{:032x}", rand::random::<u128>()))?;
    let key = directory.join("object")?;
    let found = try_all(store, &directory, &key).await;
    if found.is_err()
        && let Err(error) = store.delete(&key).await
    {
        tracing::warn!(key = %key, error = %error.chain(), "probe object could not be removed");
    }
    let found = found?;
    store.keep_capabilities(found);
    Ok(found)
}

async fn try_all(store: &dyn Store, directory: &Key, key: &Key) -> Result<Capabilities> {
    let first = Bytes::from_static(b"rekindle probe: first bytes");
    let second = Bytes::from_static(b"rekindle probe: other bytes!");
    let mut found = Capabilities::default();

    let fresh = store.put(key, first.clone(), PutMode::IfAbsent).await?;
    let again = store.put(key, second.clone(), PutMode::IfAbsent).await;
    let refused = match again {
        Ok(PutOutcome::Written | PutOutcome::Existed) => false,
        Err(fault) if fault.is(codes::STORE_EXISTS) => true,
        Err(fault) => return Err(fault),
    };
    let stored = absent_as_none(store.get(key).await)?;
    found.put_if_absent = Support::of(fresh == PutOutcome::Written && refused && stored.as_ref() == Some(&first));

    store.put(key, second.clone(), PutMode::Overwrite).await?;
    found.read_after_write = Support::of(absent_as_none(store.get(key).await)?.as_ref() == Some(&second));
    found.range = match store.get_range(key, 9..14).await {
        Ok(part) => Support::of(part[..] == second[9..14]),
        Err(fault) if fault.is(codes::STORE_SHORT) || fault.is(codes::STORE_NOT_FOUND) => Support::Broken,
        Err(fault) => return Err(fault),
    };
    let prefix = format!("{directory}/");
    let listed = store.list(&prefix).await?;
    found.list_after_write =
        Support::of(listed.len() == 1 && &listed[0].key == key && listed[0].size == second.len() as u64);

    store.delete(key).await?;
    found.delete = Support::of(store.head(key).await?.is_none() && store.list(&prefix).await?.is_empty());
    Ok(found)
}

fn absent_as_none(read: Result<Bytes>) -> Result<Option<Bytes>> {
    match read {
        Ok(data) => Ok(Some(data)),
        Err(fault) if fault.is(codes::STORE_NOT_FOUND) => Ok(None),
        Err(fault) => Err(fault),
    }
}
