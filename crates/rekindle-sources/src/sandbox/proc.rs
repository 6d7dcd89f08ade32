//! What `/proc` says about processes (proc(5)).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long killed processes may take to go.
const GONE_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process, so that its number cannot be taken for that of a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks after the boot.
    pub(crate) started: u64,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; the state is the first field after it, the start
        // time the twentieth.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let started = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, started })
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal if it is still the same process.
    pub(crate) fn signal(self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.is_alive()) {
            // An error means that it is gone, which is what is wanted.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Every process that works in a directory or below it: engines change into their place, and their
/// children stay there. Processes of other users are seen only by root.
pub(crate) fn working_in(directory: &Path) -> Vec<Process> {
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory)))
        .filter_map(Process::of)
        .collect()
}

/// Kills the recorded processes and all that work in the directory, until there are none. Gives how
/// many there were, and those that stayed.
pub(crate) fn kill_all(directory: &Path, recorded: &[Process]) -> (usize, Vec<Process>) {
    let since = Instant::now();
    let mut seen: Vec<Process> = Vec::new();
    loop {
        let mut left: Vec<Process> = recorded.iter().copied().filter(|process| process.is_alive()).collect();
        left.extend(working_in(directory).into_iter().filter(|process| !recorded.contains(process)));
        if left.is_empty() || since.elapsed() > GONE_MAX {
            return (seen.len(), left);
        }
        for process in left {
            process.signal(Signal::KILL);
            if !seen.contains(&process) {
                seen.push(process);
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.is_alive() && own.started > 0);
        assert!(!Process { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn what_works_in_a_directory_is_found_and_killed() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().canonicalize().unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").current_dir(&directory).spawn().unwrap();
        assert!(working_in(&directory).iter().any(|process| process.pid == child.id()));
        let (seen, left) = kill_all(&directory, &[]);
        assert_eq!((seen, left.len()), (1, 0));
        assert!(!child.wait().unwrap().success());
    }
}
