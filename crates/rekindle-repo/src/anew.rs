//! New records after the signing key was lost or replaced.

use std::sync::Arc;

use rekindle_core::port::Clock;
use rekindle_core::{Class, Fault, Result, codes};
use rekindle_store::{Key as ObjectKey, PutMode};

use crate::admin::finish;
use crate::audit::{self, Act};
use crate::chain::{Chain, SIGNING_KEY};
use crate::lock::{Lock, LockKind};
use crate::points::{self, PointsView};
use crate::repo::Repo;
use crate::trust;

/// Everything that is signed with the key.
const CHAINS: [&str; 5] =
    ["rekindle/ledger/", "rekindle/audit/", "rekindle/marks/", "rekindle/proofs/", "rekindle/source-proofs/"];

/// Puts aside what nobody can check any more, makes a new key and enters `act`, which says who did. Can be run
/// again when it was interrupted. Gives the number of objects put aside, below `rekindle/aside/TIME/`.
///
/// # Errors
/// `REPO_RECORDS_THERE` when there is nothing to begin anew; `REPO_LOCKED` when somebody works on the repository.
pub fn begin(repo: &Repo, clock: &Arc<dyn Clock>, act: &Act) -> Result<usize> {
    // A run that goes on has the old key in its memory, and would sign with it what comes first in the new chain.
    let lock = Lock::acquire(repo, clock, LockKind::Exclusive)?;
    let begun = points::view(repo).and_then(|view| begin_alone(repo, &view, act));
    finish(lock, begun)
}

fn begin_alone(repo: &Repo, view: &PointsView, act: &Act) -> Result<usize> {
    let present = repo.store().head(&ObjectKey::new(SIGNING_KEY)?)?.is_some();
    let lost = if present {
        match Chain::<audit::Record>::open(repo) {
            Ok(Some(chain)) => trust::replaced(view, &chain.public_key(), || chain.audit())?,
            Ok(None) => true,
            Err(fault) if fault.class() == Class::Damaged => true,
            Err(fault) => return Err(fault),
        }
    } else {
        trust::knows_a_key(view)
    };
    if !lost {
        return Err(Fault::new(codes::REPO_RECORDS_THERE, "begin new records")
            .because("the signing key of this repository is there, and its points know it")
            .hint("rekindle audit verify"));
    }
    let mut old = Vec::new();
    for folder in CHAINS {
        old.extend(repo.store().list(folder)?.into_iter().map(|meta| meta.key));
    }
    if present {
        // Last: until everything else is aside, the next try has to know that there is something to do.
        old.push(ObjectKey::new(SIGNING_KEY)?);
    }
    let aside = format!("rekindle/aside/{}/", act.time.strftime("%Y%m%dT%H%M%SZ"));
    for key in &old {
        let copy = ObjectKey::new(&format!("{aside}{}", key.as_str().trim_start_matches("rekindle/")))?;
        repo.store().put(&copy, repo.store().get(key)?, PutMode::Overwrite)?;
    }
    for key in &old {
        repo.store().delete(key).map_err(|fault| fault.during(format!("put `{key}` aside")))?;
    }
    audit::enter(&Chain::begin(repo)?, act)?;
    Ok(old.len())
}
