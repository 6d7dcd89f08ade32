//! A private Ceph: one monitor, one storage daemon, one gateway that speaks S3.
//!
//! Debian's packages, no systemd, no cluster of the machine: everything is in one temporary directory and on
//! loopback. There is no manager daemon; nothing here needs one. Keys are cephx: without them the gateway waits
//! five minutes for an authentication that nobody answers.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::http;
use crate::port::Port;
use crate::process::{Server, Signal, Traces, run, temp_dir};
use crate::s3::S3Key;
use crate::s3_request::S3Door;
use crate::tools;

/// Where the storage daemon looks for its eight ports: above those of [`Port`], below those of outgoing
/// connections.
const OSD_PORTS: (u16, u16) = (32_100, 32_767);
/// Sparse: what is not written takes no room.
const DISK_BYTES: u64 = 8 << 30;

/// A running Ceph with one empty bucket; gone with all its files when dropped.
#[derive(Debug)]
pub struct Ceph {
    // Ended in this order.
    gateway: Option<Server>,
    storage: Option<Server>,
    monitor: Option<Server>,
    ports: [Port; 3],
    dir: TempDir,
}

impl Ceph {
    /// Starts one; takes about fifteen seconds.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    pub fn start() -> Self {
        let dir = temp_dir("ceph");
        for name in ["run", "mon", "osd", "log"] {
            fs::create_dir(dir.path().join(name)).expect("make a directory for ceph");
        }
        let ports = [Port::take(), Port::take(), Port::take()];
        let mut ceph = Self { gateway: None, storage: None, monitor: None, ports, dir };
        let cluster = uuid();
        fs::write(ceph.path("ceph.conf"), ceph.configuration(&cluster)).expect("write ceph.conf");
        ceph.make_keys();
        ceph.start_monitor(&cluster);
        ceph.start_storage();
        ceph.start_gateway();
        let owner = ceph.door().owner;
        ceph.add_user("owner", &owner);
        ceph.door().make_bucket(ceph.bucket());
        ceph
    }

    /// Where its gateway answers.
    pub fn door(&self) -> S3Door {
        let owner = S3Key { access: "REKINDLEOWNER".to_owned(), secret: "canary-ceph-owner-secret".to_owned() };
        S3Door { port: self.ports[2].number(), region: "default", owner }
    }

    /// A bucket that exists.
    pub fn bucket(&self) -> &'static str {
        "rekindle-test"
    }

    /// Another user, who may do nothing with the owner's buckets until a policy allows it.
    pub fn agent(&self) -> S3Key {
        let key = S3Key { access: "REKINDLEAGENT".to_owned(), secret: "canary-ceph-agent-secret".to_owned() };
        self.add_user("agent", &key);
        key
    }

    /// Ends the storage daemon by SIGKILL: the gateway stays, and waits for it.
    pub fn kill_storage(&mut self) {
        if let Some(server) = self.storage.take() {
            server.kill9();
        }
    }

    /// Starts the storage daemon again on its data.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart_storage(&mut self) {
        self.launch_storage();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn addresses(&self) -> String {
        format!("[v2:127.0.0.1:{}/0,v1:127.0.0.1:{}/0]", self.ports[0].number(), self.ports[1].number())
    }

    fn configuration(&self, cluster: &str) -> String {
        let dir = self.dir.path().display();
        let (first, last) = OSD_PORTS;
        format!(
            "[global]\nfsid = {cluster}\nmon initial members = a\nmon host = {addresses}\npublic addr = 127.0.0.1\n\
             ms bind ipv6 = false\nms bind port min = {first}\nms bind port max = {last}\n\
             auth cluster required = cephx\nauth service required = cephx\nauth client required = cephx\n\
             keyring = {dir}/keyring\nosd pool default size = 1\nosd pool default min size = 1\n\
             osd pool default pg num = 4\nmon allow pool size one = true\nosd crush chooseleaf type = 0\n\
             mon data avail warn = 2\nmon data avail crit = 1\n\
             log file = {dir}/log/$name.log\nrun dir = {dir}/run\nadmin socket = {dir}/run/$name.asok\n\
             crash dir = {dir}\nmon data = {dir}/mon\nosd data = {dir}/osd\nosd objectstore = bluestore\n\
             bluestore block create = true\nbluestore block size = {DISK_BYTES}\nosd memory target = 939524096\n\
             [client.rgw]\nrgw frontends = beast endpoint=127.0.0.1:{port}\nrgw thread pool size = 64\n",
            addresses = self.addresses(),
            port = self.ports[2].number(),
        )
    }

    /// Runs one of Ceph's programs to its end.
    fn tool(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        run(self.command(program, arguments))
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let found = tools::try_find(program)
            .unwrap_or_else(|| panic!("`{program}` is not installed: run scripts/setup --clusters"));
        let mut command = tools::command(found);
        command.args(arguments).env("CEPH_CONF", self.path("ceph.conf")).current_dir(self.dir.path());
        command
    }

    fn make_keys(&self) {
        let everything = "allow *";
        let keys: [(&str, &[(&str, &str)]); 4] = [
            ("mon.", &[("mon", everything)]),
            ("client.admin", &[("mon", everything), ("osd", everything), ("mgr", everything)]),
            ("osd.0", &[("mon", "allow profile osd"), ("osd", everything)]),
            ("client.rgw", &[("mon", "allow rw"), ("osd", "allow rwx")]),
        ];
        self.tool("ceph-authtool", &["--create-keyring", "keyring"]);
        for (name, rights) in keys {
            let mut arguments = vec!["keyring", "--gen-key", "-n", name];
            for (daemon, right) in rights {
                arguments.extend(["--cap", daemon, right]);
            }
            self.tool("ceph-authtool", &arguments);
        }
    }

    fn start_monitor(&mut self, cluster: &str) {
        self.tool("monmaptool", &["--create", "--addv", "a", &self.addresses(), "--fsid", cluster, "monmap"]);
        self.tool("ceph-mon", &["--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "keyring"]);
        self.monitor = Some(self.spawn("monitor", "ceph-mon", &["-f", "-i", "a"]));
        self.wait_for("monitor", &["--connect-timeout", "5", "mon", "stat"]);
    }

    fn start_storage(&mut self) {
        let disk = uuid();
        self.tool("ceph", &["auth", "import", "-i", "keyring"]);
        self.tool("ceph", &["osd", "new", &disk]);
        self.tool("ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", &disk]);
        self.launch_storage();
    }

    fn launch_storage(&mut self) {
        self.storage = Some(self.spawn("storage daemon", "ceph-osd", &["-f", "-i", "0"]));
        self.wait_for("storage daemon", &["osd", "stat"]);
    }

    fn start_gateway(&mut self) {
        let mut server = self.spawn("gateway", "radosgw", &["-f", "-n", "client.rgw"]);
        let port = self.ports[2].number();
        server.wait_ready(|| match http::request(port, "GET", "/", &[], b"")? {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        self.gateway = Some(server);
    }

    /// Until `ceph` answers, and with as many storage daemons up as run.
    fn wait_for(&mut self, name: &str, arguments: &[&str]) {
        let mut command = self.command("ceph", arguments);
        let wanted = if self.storage.is_some() { "1 up" } else { "" };
        let server = self.storage.as_mut().or(self.monitor.as_mut()).expect("it was started");
        server.wait_ready(|| {
            let answer = command.output().map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&answer.stdout).into_owned();
            if answer.status.success() && text.contains(wanted) { Ok(()) } else { Err(format!("{name}: {text}")) }
        });
    }

    fn spawn(&self, name: &str, program: &str, arguments: &[&str]) -> Server {
        let traces = Traces { dir: self.dir.path().to_owned(), mount: None };
        let command = self.command(program, arguments);
        Server::spawn(&format!("Ceph's {name}"), command, &self.path("log/all"), Signal::KILL, &traces)
    }

    fn add_user(&self, name: &str, key: &S3Key) {
        let (uid, shown) = (format!("--uid={name}"), format!("--display-name={name}"));
        let keys = [format!("--access-key={}", key.access), format!("--secret-key={}", key.secret)];
        self.tool("radosgw-admin", &["user", "create", &uid, &shown, &keys[0], &keys[1]]);
    }
}

fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel makes one").trim().to_owned()
}
