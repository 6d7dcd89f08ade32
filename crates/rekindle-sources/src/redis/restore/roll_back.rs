//! Taking a restore in place back: the old files, which were kept, are installed as the restored ones were.

use std::fs;
use std::path::Path;

use rekindle_core::port::RestoreReport;
use rekindle_core::{Fault, Result, codes};

use super::directory::process_in;
use super::install::{fault, install, make_directory};
use crate::redis::details::{FileNames, Placed};

/// The directory of the restored files afterwards.
const ASIDE: &str = "rekindle-rolled-back";
/// Stands for the old files when there were none.
const NOTHING: &str = ".rekindle-nothing";

/// Blocking.
pub(crate) fn roll_back(report: &RestoreReport) -> Result<()> {
    let placed: Placed = serde_json::from_value(report.details.clone())
        .map_err(|error| Fault::new(codes::RUN_BUG, "read the report of a Redis restore").because(error))?;
    let Placed::Directory { directory, rdb, aof_base, kept } = placed else {
        return Err(Fault::new(codes::ENGINE_ROLL_BACK, "take back a restore into a running Redis")
            .because("its keys were replaced one by one")
            .hint("restore the safety point"));
    };
    if let Some(process) = directory.canonicalize().ok().and_then(|real| process_in(&real)) {
        return Err(Fault::new(
            codes::REDIS_TARGET_RUNNING,
            format!("bring back the old files in `{}`", directory.display()),
        )
        .because(format!("a server runs there as process {process}"))
        .hint("stop it first"));
    }
    let old = if let Some(kept) = kept {
        kept
    } else {
        let nothing = directory.join(NOTHING);
        make_directory(&nothing)?;
        nothing
    };
    let mut replaced = names(&directory, [Some(rdb), aof_base].into_iter().flatten());
    replaced.sort();
    replaced.dedup();
    install(&directory, &old, &replaced, ASIDE)?;
    // Empty by now.
    fs::remove_dir(&old).map_err(|error| fault("remove", &old, error))
}

/// Everything a server could have loaded or written: by its usual names, and by those of the restore.
fn names(directory: &Path, restored: impl Iterator<Item = std::path::PathBuf>) -> Vec<String> {
    let usual = FileNames::default();
    let top = restored.filter_map(|path| {
        let inside = path.strip_prefix(directory).ok()?.components().next()?.as_os_str().to_owned();
        inside.into_string().ok()
    });
    [usual.dbfilename, usual.appendfilename, usual.appenddirname].into_iter().chain(top).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(directory: &Path, kept: Option<std::path::PathBuf>) -> RestoreReport {
        let placed = Placed::Directory {
            directory: directory.to_owned(),
            rdb: directory.join("dump.rdb"),
            aof_base: Some(directory.join("appendonlydir/base")),
            kept,
        };
        RestoreReport { details: serde_json::to_value(placed).unwrap(), ..RestoreReport::default() }
    }

    #[test]
    fn old_files_come_back_and_restored_ones_stay_aside() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let write = |name: &str, text: &str| {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), text).unwrap();
        };
        for (name, text) in
            [("dump.rdb", "new"), ("appendonlydir/base", "new"), ("kept/dump.rdb", "old"), ("other", "stays")]
        {
            write(name, text);
        }
        roll_back(&report(place.path(), Some(at("kept")))).unwrap();
        assert_eq!(fs::read_to_string(at("dump.rdb")).unwrap(), "old");
        assert!(!at("appendonlydir").exists() && !at("kept").exists() && at("other").exists());
        assert_eq!(fs::read_to_string(at("rekindle-rolled-back/appendonlydir/base")).unwrap(), "new");
        // Nothing was there before.
        roll_back(&report(place.path(), None)).unwrap();
        assert!(!at("dump.rdb").exists() && !at(NOTHING).exists());
        assert_eq!(fs::read_to_string(at("rekindle-rolled-back-2/dump.rdb")).unwrap(), "old");
    }
}
