//! Object Lock: what is still needed is kept longer, and `doctor` tries to get around it.

use rekindle_core::port::Finding;
use rekindle_core::{Fault, Result};
use rekindle_repo::{Repo, immutable};
use rekindle_store::{Destruction, ObjectLock, StoreOptions};
use serde_json::json;

use crate::human;
use crate::output::Answer;
use crate::session::Session;

/// Extends the retention of every object, when it is time. A failure makes the answer worse: what was
/// done stays done.
pub(super) fn extend(answer: Answer, session: &Session, repo: &Repo) -> Answer {
    match immutable::extend(repo, session.now(), false, &session.cancel) {
        Ok(None) => answer,
        Ok(Some(extended)) => {
            let text = if extended.due {
                format!("\n{} objects are locked until {}\n", extended.objects, human::time(extended.until))
            } else {
                String::new()
            };
            answer.adding("object_lock", json!(extended), &text)
        }
        Err(fault) => answer.worse(fault),
    }
}

/// Whether the credentials of this program can destroy what it wrote; tried on an object of its own.
pub(super) fn findings(session: &Session, options: &StoreOptions) -> Result<Vec<Finding>> {
    let store = rekindle_store::open(options)?;
    let Some(locker) = store.locker() else { return Ok(Vec::new()) };
    Ok(match session.runtime.block_on(locker.try_to_destroy()) {
        Ok(tried) => judge(locker.lock(), &tried),
        Err(fault) if locker.lock().is_some() => vec![unusable(&fault)],
        Err(fault) => vec![Finding::unproved(
            format!("storage: whether this key can destroy points could not be tried: {}", fault.chain()),
            "allow the key to write below `rekindle/probe/`",
        )],
    })
}

fn unusable(fault: &Fault) -> Finding {
    Finding::bad(
        format!("storage: an object with a retention could not be written: {}", fault.chain()),
        "make the bucket with Object Lock, or remove `object-lock`",
    )
}

const LOCK: &str = "make a bucket with Object Lock and set `object-lock` and `object-lock-days`, or take the rights to delete and overwrite from this key";

fn judge(lock: Option<ObjectLock>, tried: &Destruction) -> Vec<Finding> {
    let how = match (tried.overwritten, tried.deleted) {
        (true, _) => "overwrite",
        (false, true) => "delete",
        (false, false) => "",
    };
    match lock {
        None if tried.is_possible() => vec![Finding::warning(
            format!("storage: this key can {how} what it wrote: whoever takes this host can destroy every point"),
            LOCK,
        )],
        None => vec![Finding::good("storage: this key can neither delete nor overwrite what it wrote")],
        Some(lock) if tried.is_possible() => vec![Finding::bad(
            format!(
                "storage: `object-lock` is set ({}), and this key can {how} a locked object all the same",
                lock.mode
            ),
            match lock.mode {
                rekindle_store::LockMode::Governance => {
                    "take s3:BypassGovernanceRetention from this key (with Ceph: deny it, which is more than not allowing it), or use `compliance`"
                }
                rekindle_store::LockMode::Compliance => "this storage does not keep locks: use another one",
            },
        )],
        Some(_) if tried.retention.is_none() => vec![Finding::bad(
            "storage: an object was written with a retention, and the storage says it has none",
            "make the bucket with Object Lock, or use another storage",
        )],
        Some(lock) => {
            let hidden = if tried.hidden { "; a plain delete only hides it, its version stays" } else { "" };
            vec![Finding::good(format!(
                "storage: this key can neither delete nor overwrite a locked object ({}, {} days){hidden}",
                lock.mode, lock.days
            ))]
        }
    }
}

#[cfg(test)]
mod tests {
    use rekindle_core::port::Level;
    use rekindle_store::LockMode;

    use super::*;

    #[test]
    fn only_what_was_tried_and_held_is_good() {
        let lock = Some(ObjectLock { mode: LockMode::Compliance, days: 30 });
        let held = Destruction {
            retention: Some(jiff::Timestamp::MAX),
            overwritten: false,
            deleted: false,
            hidden: true,
            refusal: None,
        };
        let level = |lock, tried: &Destruction| judge(lock, tried)[0].level;
        assert_eq!(level(lock, &held), Level::Good);
        assert_eq!(level(None, &held), Level::Good);
        assert_eq!(level(lock, &Destruction { retention: None, ..held.clone() }), Level::Bad);
        for lost in [Destruction { deleted: true, ..held.clone() }, Destruction { overwritten: true, ..held.clone() }] {
            assert_eq!(level(lock, &lost), Level::Bad);
            assert_eq!(level(None, &lost), Level::Warning);
        }
    }
}
