//! How engines are held apart from the rest of the host, with the programs of util-linux. What is not
//! to be had is left out, and the guarantees say so.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, getuid, setpriority_process};

/// Niceness of everything a drill does.
const NICE: i32 = 10;
const SYSTEM_PATHS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// The way engines are started.
#[derive(Debug, Clone)]
pub(crate) struct Confinement {
    root: bool,
    /// `unshare` with its options, when it works here.
    namespaces: Option<Vec<OsString>>,
    prlimit: Option<PathBuf>,
    setpriv: Option<PathBuf>,
    memory_bytes: Option<u64>,
}

/// A user that engines run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Confinement {
    /// Looks what this host offers. Blocking, short.
    pub(crate) fn find(memory_bytes: Option<u64>) -> Self {
        let root = getuid().is_root();
        let unshare = program("unshare");
        let options: &[&str] =
            if root { &["--net", "--ipc"] } else { &["--user", "--map-current-user", "--net", "--ipc"] };
        let namespaces = unshare.filter(|unshare| works(unshare, options)).map(|unshare| {
            let mut all: Vec<OsString> = vec![unshare.into()];
            all.extend(options.iter().map(OsString::from));
            all.push("--".into());
            all
        });
        let setpriv = program("setpriv").filter(|setpriv| works(setpriv, &["--no-new-privs", "--pdeathsig", "KILL"]));
        let prlimit = program("prlimit").filter(|prlimit| works(prlimit, &["--core=0"]));
        Self { root, namespaces, prlimit, setpriv, memory_bytes }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.root
    }

    /// The user for an engine that has its usual user: when we are root, and it exists.
    pub(crate) fn user(&self, usual: &str) -> Option<User> {
        if !self.root {
            return None;
        }
        let found = uzers::get_user_by_name(usual).or_else(|| uzers::get_user_by_name("nobody"))?;
        Some(User {
            name: found.name().to_string_lossy().into_owned(),
            uid: found.uid(),
            gid: found.primary_group_id(),
        })
    }

    /// Everything that stands before the program on its command line. `death` is the signal it gets when
    /// the thread that started it ends.
    pub(crate) fn words(&self, user: Option<&User>, death: &str) -> Vec<OsString> {
        let mut words = self.namespaces.clone().unwrap_or_default();
        if let Some(prlimit) = &self.prlimit {
            words.push(prlimit.into());
            words.push("--core=0".into());
            if let Some(bytes) = self.memory_bytes {
                words.push(format!("--as={bytes}").into());
            }
            words.push("--".into());
        }
        if let Some(setpriv) = &self.setpriv {
            words.push(setpriv.into());
            if let Some(user) = user {
                words.extend([format!("--reuid={}", user.uid).into(), format!("--regid={}", user.gid).into()]);
                words.push("--clear-groups".into());
            }
            words.extend(["--no-new-privs", "--pdeathsig", death, "--"].map(OsString::from));
        }
        words
    }

    /// Whether the words change the user; else the start has to do it.
    pub(crate) fn changes_user(&self) -> bool {
        self.setpriv.is_some()
    }

    /// In sentences, for the report.
    pub(crate) fn guarantees(&self) -> Vec<String> {
        let mut all = Vec::new();
        all.push(match self.namespaces {
            Some(_) => {
                "network: PostgreSQL, Redis and the commands of `checks` run in a network namespace of their own \
                        in which no interface is up; they are reached over Unix sockets only"
                    .to_owned()
            }
            None => {
                "network: PostgreSQL and Redis listen on Unix sockets only; outgoing connections are NOT prevented \
                     by the system (`unshare` does not work here), only by their settings"
                    .to_owned()
            }
        });
        all.push("network: Prometheus listens on loopback and has no target, no alert and no remote write".to_owned());
        all.push(match (self.root, self.setpriv.is_some()) {
            (true, _) => "user: PostgreSQL and Redis run as an unprivileged user".to_owned(),
            (false, _) => "user: engines run as the user who drills".to_owned(),
        });
        if self.setpriv.is_some() {
            all.push("end: PostgreSQL and Redis are killed by the system when the drill dies".to_owned());
        }
        all.push(match (self.memory_bytes, self.prlimit.is_some()) {
            (Some(bytes), true) => format!("memory: each process of PostgreSQL and Redis is limited to {bytes} bytes"),
            _ => "memory: not limited".to_owned(),
        });
        all.push(format!("priority: nice {NICE}, and idle disk priority where `ionice` is installed"));
        all
    }
}

/// Puts every thread of this process, and with it what they start, at low priority. Blocking.
pub fn lower_priority() {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return };
    let ids: Vec<i32> = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
    for pid in ids.iter().filter_map(|id| Pid::from_raw(*id)) {
        // On Linux this is a property of a thread; failing to be nice is no reason to stop.
        let _ = setpriority_process(Some(pid), NICE);
    }
    if let Some(ionice) = program("ionice") {
        let mut command = Command::new(ionice);
        command.args(["-c", "3", "-p"]).args(ids.iter().map(ToString::to_string));
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn program(name: &str) -> Option<PathBuf> {
    SYSTEM_PATHS.iter().map(|place| Path::new(place).join(name)).find(|file| file.is_file())
}

/// Whether a wrapper with these options can run a program here.
fn works(wrapper: &Path, options: &[&str]) -> bool {
    let Some(nothing) = program("true") else { return false };
    let mut command = Command::new(wrapper);
    command.args(options).arg("--").arg(nothing).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
