//! A private Podman whose API answers as Docker's does, with containers made from the image that
//! `scripts/setup` built (Debian with PostgreSQL and Redis).

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{READY_MAX, Server, Signal, Traces, temp_dir};
use crate::tools;

/// The image: its name in the store.
pub const IMAGE: &str = "localhost/rekindle-test-stack:1";
const POLL: Duration = Duration::from_millis(50);

/// These machines have neither a network plugin nor systemd, may not raise limits, and crun fails on their
/// mixed cgroups.
const CONFIGURATION: &str = "[containers]\ndefault_ulimits = [\"nofile=1000:1000\", \"nproc=1000:1000\"]\nnetns = \"host\"\n\
     [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";

/// Removes containers, mounts and the directory when this process dies without dropping its values.
const WATCHDOG: &str = r#"
read -r word && exit 0
"$@" rm -f -a -t 0
grep -o " $DIRECTORY/[^ ]* " /proc/self/mounts | sort -r | while read -r at; do umount -l -- "$at"; done
rm -rf -- "$DIRECTORY"
"#;

/// A Podman with a store, a socket and containers of its own.
#[derive(Debug)]
pub struct Podman {
    service: Option<Server>,
    watchdog: Child,
    dir: TempDir,
}

impl Podman {
    /// Starts the API.
    ///
    /// # Panics
    /// When Podman or the image are not installed.
    pub fn start() -> Self {
        let dir = temp_dir("pod");
        fs::write(dir.path().join("containers.conf"), CONFIGURATION).expect("write containers.conf");
        let store = image_store();
        assert!(store.is_dir(), "{} is not there: run scripts/setup --tests", store.display());
        let command = command(dir.path());
        let mut watchdog = Command::new("/bin/sh");
        watchdog.args(["-c", WATCHDOG, "watchdog"]).arg(command.get_program()).args(command.get_args());
        let watchdog = watchdog
            .env("CONTAINERS_CONF", dir.path().join("containers.conf"))
            .env("DIRECTORY", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("start the watchdog of podman");
        let mut podman = Self { service: None, watchdog, dir };
        podman.start_service();
        podman
    }

    /// Starts the API again after [`Podman::stop_service`].
    ///
    /// # Panics
    /// When it does not answer.
    pub fn start_service(&mut self) {
        let socket = self.socket();
        let mut command = command(self.dir.path());
        command.args(["system", "service", "--time=0"]).arg(self.host());
        let log = self.dir.path().join("service.log");
        let mut server = Server::spawn("podman", command, &log, Signal::TERM, &Traces::default());
        server.wait_ready(|| {
            std::os::unix::net::UnixStream::connect(&socket).map(|_| ()).map_err(|error| error.to_string())
        });
        self.service = Some(server);
    }

    /// Serves the API on a TCP port of 127.0.0.1 too, for as long as the answer lives.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn serve_tcp(&self, port: u16) -> Server {
        let mut command = command(self.dir.path());
        command.args(["system", "service", "--time=0"]).arg(format!("tcp:127.0.0.1:{port}"));
        let log = self.dir.path().join("service-tcp.log");
        let mut server = Server::spawn("podman (tcp)", command, &log, Signal::TERM, &Traces::default());
        server.wait_ready(|| {
            std::net::TcpStream::connect(("127.0.0.1", port)).map(|_| ()).map_err(|error| error.to_string())
        });
        server
    }

    /// Ends the API; containers go on.
    pub fn stop_service(&mut self) {
        self.service = None;
        let _ = fs::remove_file(self.socket());
    }

    /// The socket of the API.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    /// As for DOCKER_HOST.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Runs `podman` and gives what it says.
    ///
    /// # Panics
    /// When it fails.
    pub fn podman(&self, arguments: &[&str]) -> String {
        let output = self.try_podman(arguments);
        assert!(output.status.success(), "podman {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs `podman`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn try_podman(&self, arguments: &[&str]) -> Output {
        command(self.dir.path()).args(arguments).stdin(Stdio::null()).output().expect("start podman")
    }

    /// Whether a container runs.
    pub fn runs(&self, container: &str) -> bool {
        let output = self.try_podman(&["inspect", "--format", "{{.State.Running}}", container]);
        output.status.success() && String::from_utf8_lossy(&output.stdout).trim() == "true"
    }

    /// When a container was started last, as a number that grows.
    ///
    /// # Panics
    /// When there is no such container.
    pub fn started(&self, container: &str) -> u64 {
        let text = self.podman(&["inspect", "--format", "{{.State.StartedAt.UnixNano}}", container]);
        text.parse().unwrap_or_else(|_| panic!("a time: {text}"))
    }

    /// Where the data of a volume is on this host.
    ///
    /// # Panics
    /// When there is no such volume.
    pub fn volume(&self, name: &str) -> PathBuf {
        PathBuf::from(self.podman(&["volume", "inspect", "--format", "{{.Mountpoint}}", name]))
    }

    /// Runs a container in the background: `podman run -d --name NAME MORE… IMAGE COMMAND…`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, name: &str, more: &[&str], command: &[&str]) {
        let head = ["run", "-d", "--name", name];
        let arguments: Vec<&str> = head.iter().chain(more).chain(&[IMAGE]).chain(command).copied().collect();
        self.podman(&arguments);
    }

    /// Waits until a command inside a container succeeds.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub fn wait(&self, container: &str, command: &[&str]) {
        let until = Instant::now() + READY_MAX;
        let arguments: Vec<&str> = ["exec", container].iter().chain(command).copied().collect();
        loop {
            let output = self.try_podman(&arguments);
            if output.status.success() {
                return;
            }
            let logs = self.try_podman(&["logs", "--tail", "20", container]);
            assert!(
                Instant::now() < until,
                "{arguments:?}: {}\n{}{}",
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&logs.stdout),
                String::from_utf8_lossy(&logs.stderr)
            );
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.try_podman(&["rm", "-f", "-a", "-t", "0"]);
        self.service = None;
        for mount in mounts_below(self.dir.path()) {
            let _ = Command::new("umount").args(["-l", "--"]).arg(mount).status();
        }
        if let Some(mut stdin) = self.watchdog.stdin.take() {
            let _ = stdin.write_all(b"done\n");
        }
        let _ = self.watchdog.wait();
    }
}

/// Innermost first.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut found: Vec<PathBuf> = places.filter(|place| place.starts_with(dir)).collect();
    found.sort();
    found.reverse();
    found
}

/// The store that `scripts/setup` filled; it is only read.
fn image_store() -> PathBuf {
    tools::tools_dir().unwrap_or_default().join("containers/store")
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(tools::find("podman"));
    command.env("CONTAINERS_CONF", dir.join("containers.conf"));
    for (flag, name) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
        command.arg(flag).arg(dir.join(name));
    }
    command.args(["--storage-driver", "overlay", "--storage-opt"]);
    command.arg(format!("overlay.imagestore={}", image_store().display()));
    command
}
