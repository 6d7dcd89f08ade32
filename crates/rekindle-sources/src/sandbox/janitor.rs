//! Clears away what killed runs left behind.

use std::fs;
use std::path::{Path, PathBuf};

use rekindle_core::Result;
use serde::Serialize;

use super::proc::{Process, kill_all};
use super::site::{PREFIX, PROCESSES, fault, remove};

/// A left-over that is gone now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    pub directory: PathBuf,
    /// Processes that still worked for it and were killed.
    pub processes: usize,
}

/// Removes every site below `base` whose run does not live any more, with its processes. Sites of
/// living runs stay. Blocking.
pub fn clean(base: &Path) -> Result<Vec<Cleaned>> {
    let entries = match fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fault("list", base, error)),
    };
    let own = rustix::process::geteuid().as_raw();
    let mut cleaned = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(owner) else { continue };
        // A link or a directory of somebody else with such a name is none of ours.
        let ours = entry.path().symlink_metadata().is_ok_and(|meta| {
            use std::os::unix::fs::MetadataExt;
            meta.is_dir() && meta.uid() == own
        });
        if !ours || owner.is_alive() {
            continue;
        }
        let directory = entry.path().canonicalize().map_err(|error| fault("find", &entry.path(), error))?;
        let recorded = recorded(&directory);
        let (processes, _) = kill_all(&directory, &recorded);
        remove(&directory, &recorded)?;
        cleaned.push(Cleaned { directory, processes });
    }
    cleaned.sort_by(|a, b| a.directory.cmp(&b.directory));
    Ok(cleaned)
}

/// The process that made a site, by the site's name.
fn owner(name: &str) -> Option<Process> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let (pid, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let _: u32 = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(Process { pid, started })
}

fn recorded(directory: &Path) -> Vec<Process> {
    let list = fs::read_to_string(directory.join(PROCESSES)).unwrap_or_default();
    let parse = |line: &str| {
        let (pid, started) = line.split_once(' ')?;
        Some(Process { pid: pid.parse().ok()?, started: started.parse().ok()? })
    };
    list.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_overs_go_with_their_processes_and_living_sites_stay() {
        let base = tempfile::tempdir().unwrap();
        let own = Process::of(std::process::id()).unwrap();
        let make = |name: String| {
            let directory = base.path().join(name);
            fs::create_dir(&directory).unwrap();
            directory
        };
        let living = make(format!("{PREFIX}{}-{}-0", own.pid, own.started));
        // The same number, started at another time: the run is gone.
        let dead = make(format!("{PREFIX}{}-{}-0", own.pid, own.started + 1));
        let other = make(format!("{PREFIX}notes"));
        let mut inside = std::process::Command::new("sleep").arg("600").current_dir(&dead).spawn().unwrap();
        let mut listed = std::process::Command::new("sleep").arg("600").current_dir("/").spawn().unwrap();
        let mut stranger = std::process::Command::new("sleep").arg("600").current_dir("/").spawn().unwrap();
        let known = Process::of(listed.id()).unwrap();
        let reused = Process::of(stranger.id()).unwrap();
        let lines = format!("{} {}\n{} {}\n", known.pid, known.started, reused.pid, reused.started + 7);
        fs::write(dead.join(PROCESSES), lines).unwrap();
        let cleaned = clean(base.path()).unwrap();
        assert_eq!(cleaned, [Cleaned { directory: dead.clone(), processes: 2 }]);
        assert!(living.exists() && other.exists() && !dead.exists());
        assert!(!inside.wait().unwrap().success() && !listed.wait().unwrap().success());
        assert!(stranger.try_wait().unwrap().is_none(), "a process that only has the number lives on");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert_eq!(clean(base.path()).unwrap(), []);
    }
}
