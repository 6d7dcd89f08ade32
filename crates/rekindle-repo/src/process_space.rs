//! Whether the process that wrote a lock is gone.
//!
//! The name of a host does not tell: two machines or containers may have the same one, and then a process id of
//! the other is unknown here although it lives. A lock is taken for left behind only if its process id means
//! something here, or if this machine was started after the lock was written. Locks of restic say neither; they
//! expire.

use std::sync::LazyLock;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::format::lock::{LockFile, ProcessSpace};
use crate::format::{Id, time};
use crate::lock::hostname;

static OWN: LazyLock<Option<ProcessSpace>> = LazyLock::new(read);

/// That of this process; `None` where `/proc` does not tell.
pub(crate) fn own() -> Option<ProcessSpace> {
    OWN.clone()
}

fn read() -> Option<ProcessSpace> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let pid_namespace = std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
    let machine = std::fs::read_to_string("/etc/machine-id").ok().map(|text| text.trim().to_owned());
    let machine = machine.filter(|text| !text.is_empty()).map(|text| Id::of(text.as_bytes()).hex());
    Some(ProcessSpace { boot, pid_namespace, machine })
}

/// Whether the process of a lock has certainly ended.
pub(crate) fn is_gone(lock: &LockFile) -> bool {
    let (Some(there), Some(here)) = (&lock.process_space, &*OWN) else { return false };
    if (&there.boot, &there.pid_namespace) == (&here.boot, &here.pid_namespace) {
        let pid = i32::try_from(lock.pid).ok().and_then(Pid::from_raw);
        return pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH));
    }
    let same_machine = there.machine.is_some() && there.machine == here.machine && lock.hostname == hostname();
    same_machine && there.boot != here.boot && time::parse(&lock.time).is_ok_and(|at| before_start(at.seconds))
}

/// Whether this moment, in seconds since 1970, was before the kernel was started.
fn before_start(seconds: i64) -> bool {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let started = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
    started.is_some_and(|started| seconds < started)
}
