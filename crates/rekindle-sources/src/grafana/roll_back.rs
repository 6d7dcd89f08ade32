//! Taking a restore in place back: the kept database, with everything that belongs to it, stands at its
//! place again.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rekindle_core::port::RestoreReport;
use rekindle_core::{Fault, Result, codes};

use super::restore::{BESIDE, Placed, beside, refuse_running, target_fault};
use crate::files::show;

/// Rolled-back states that may stand beside a database.
const TRIES_MAX: u32 = 100;

pub(super) fn roll_back(report: &RestoreReport) -> Result<()> {
    let Placed { database, kept } = serde_json::from_value(report.details.clone())
        .map_err(|error| Fault::new(codes::RUN_BUG, "read the record of a restore").because(error))?;
    refuse_running(&database)?;
    let aside = make_aside(&database)?;
    let mut moves: Vec<(PathBuf, PathBuf)> = std::iter::once(database.clone())
        .chain(BESIDE.iter().map(|end| beside(&database, end)))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| (path.clone(), aside.join(path.file_name().unwrap_or_default())))
        .collect();
    if let Some(kept) = &kept {
        let parent = database.parent().unwrap_or(Path::new("/"));
        for entry in fs::read_dir(kept).map_err(|error| target_fault("list", kept, error))? {
            let entry = entry.map_err(|error| target_fault("list", kept, error))?;
            moves.push((entry.path(), parent.join(entry.file_name())));
        }
    }
    move_all(&moves)?;
    if let Some(kept) = &kept {
        // Empty by now; if it is not, it is better kept.
        let _ = fs::remove_dir(kept);
    }
    let parent = database.parent().unwrap_or(Path::new("/"));
    fs::File::open(parent).and_then(|open| open.sync_all()).map_err(|error| target_fault("sync", parent, error))
}

/// All of them, or none.
fn move_all(moves: &[(PathBuf, PathBuf)]) -> Result<()> {
    for (done, (from, to)) in moves.iter().enumerate() {
        if let Err(error) = fs::rename(from, to) {
            for (from, to) in moves[..done].iter().rev() {
                // The first error is the one to tell; what cannot be moved back stays where it is.
                let _ = fs::rename(to, from);
            }
            return Err(
                target_fault("move", from, error).hint(format!("the old database is still at `{}`", show(from)))
            );
        }
    }
    Ok(())
}

fn make_aside(database: &Path) -> Result<PathBuf> {
    for number in 1..=TRIES_MAX {
        let end = if number == 1 { String::new() } else { format!("-{number}") };
        let place = beside(database, &format!(".rekindle-rolled-back{end}"));
        match DirBuilder::new().mode(0o700).create(&place) {
            Ok(()) => return Ok(place),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(target_fault("create", &place, error)),
        }
    }
    Err(target_fault("find a free name beside", database, std::io::ErrorKind::AlreadyExists)
        .hint("remove old `*.rekindle-rolled-back*` directories there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_database_comes_back_with_what_belongs_to_it() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for (name, text) in [("grafana.db", "new"), ("grafana.db-wal", "new"), ("plugin", "stays")] {
            fs::write(at(name), text).unwrap();
        }
        fs::create_dir(at("kept")).unwrap();
        fs::write(at("kept/grafana.db"), "old").unwrap();
        fs::write(at("kept/grafana.db-journal"), "old").unwrap();
        let placed = Placed { database: at("grafana.db"), kept: Some(at("kept")) };
        let report = RestoreReport { details: serde_json::to_value(placed).unwrap(), ..RestoreReport::default() };
        roll_back(&report).unwrap();
        let read = |name: &str| fs::read_to_string(at(name)).ok();
        assert_eq!(read("grafana.db").as_deref(), Some("old"));
        assert_eq!(read("grafana.db-journal").as_deref(), Some("old"));
        assert_eq!((read("grafana.db-wal"), at("kept").exists()), (None, false));
        assert_eq!(read("grafana.db.rekindle-rolled-back/grafana.db-wal").as_deref(), Some("new"));
    }
}
