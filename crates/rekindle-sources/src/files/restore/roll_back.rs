//! Taking a restore in place back: the kept old state stands at its place again, the restored one beside it.

use std::path::{Path, PathBuf};

use rekindle_core::Result;
use rekindle_core::port::RestoreReport;

use super::super::bug;
use super::super::layout::show;
use super::plan::Placed;
use super::swap::{free_name, parent_of, rename_new, swap};
use super::swap_contents::swap_contents;
use super::swap_fault;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

/// What the restored state is called afterwards. In a mount the name begins with `.`, as those do that a
/// swap never moves.
const BESIDE: &str = ".rekindle-rolled-back";

/// Puts the kept state back at `live`; what stands there now is kept beside it. `kept`: none when nothing
/// stood there before the restore.
pub(crate) fn take_back(live: &Path, kept: Option<&Path>) -> Result<()> {
    match kept {
        Some(kept) if kept.parent() == Some(live) => swap_contents(kept, live, BESIDE).map(|_| ()),
        Some(kept) => swap(kept, live, BESIDE).map(|_| ()),
        None => move_away(live),
    }
}

fn move_away(live: &Path) -> Result<()> {
    let parent = parent_of(live)?;
    let mut stem = live.file_name().unwrap_or_default().to_owned();
    stem.push(BESIDE);
    let free = free_name(parent.as_fd(), live.parent().unwrap_or(Path::new("/")), &stem)?;
    let name = |path: &Path| path.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
    rename_new((parent.as_fd(), &name(live)), (parent.as_fd(), &name(&free)))
        .map_err(|errno| swap_fault("move the restored tree away from", live, errno))
}

/// Takes back what a restore of files in place did.
pub(in super::super) fn roll_back(report: &RestoreReport) -> Result<()> {
    let placed: Placed = serde_json::from_value(report.details.clone())
        .map_err(|error| bug("read the record of a restore").because(error))?;
    let path = |bytes: super::plan::PathBytes| PathBuf::from(std::ffi::OsString::from_vec(bytes.into_bytes()));
    let mut done = Vec::new();
    for place in placed.places.into_iter().rev() {
        let live = path(place.path);
        let kept = place.kept.map(path);
        take_back(&live, kept.as_deref()).map_err(|fault| {
            let before: Vec<String> = std::mem::take(&mut done);
            fault.hint(format!(
                "the old state of `{}` stands in `{}`; brought back already: {}",
                show(&live),
                kept.as_deref().map_or_else(|| "nothing".to_owned(), show),
                if before.is_empty() { "nothing".to_owned() } else { before.join(", ") }
            ))
        })?;
        done.push(show(&live));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_state_comes_back_and_the_restored_one_stays_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir(at("data")).unwrap();
        std::fs::write(at("data/new"), "new").unwrap();
        std::fs::create_dir(at("data.pre-restore-x")).unwrap();
        std::fs::write(at("data.pre-restore-x/old"), "old").unwrap();
        take_back(&at("data"), Some(&at("data.pre-restore-x"))).unwrap();
        assert!(at("data/old").exists() && !at("data/new").exists() && !at("data.pre-restore-x").exists());
        assert!(at("data.rekindle-rolled-back/new").exists());
        // Once more, and this time nothing was there before.
        take_back(&at("data"), None).unwrap();
        assert!(!at("data").exists() && at("data.rekindle-rolled-back-2/old").exists());
    }

    #[test]
    fn what_is_in_a_mount_is_exchanged_name_by_name() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::write(at("new"), "new").unwrap();
        std::fs::create_dir(at(".pre-restore-x")).unwrap();
        std::fs::write(at(".pre-restore-x/old"), "old").unwrap();
        take_back(place.path(), Some(&at(".pre-restore-x"))).unwrap();
        assert!(at("old").exists() && !at("new").exists() && at(".rekindle-rolled-back/new").exists());
    }
}
