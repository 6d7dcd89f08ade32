//! Garage: three nodes on loopback that keep every object three times.
//!
//! A write is done when two nodes have it, a read asks two, so one node may be lost at any moment and two
//! may not. Garage accepts conditional writes and does not keep them.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::http;
use crate::port::Port;
use crate::process::{Server, Signal, Traces, run, temp_dir};
use crate::s3::S3Key;
use crate::s3_request::S3Door;
use crate::tools;

/// Nodes of the cluster, and copies of each object.
pub const NODES: usize = 3;
const ADMIN_TOKEN: &str = "canary-garage-admin-token";

/// A running cluster with one empty bucket; gone with all its files when dropped.
#[derive(Debug)]
pub struct Garage {
    nodes: Vec<Node>,
    dir: TempDir,
}

#[derive(Debug)]
struct Node {
    server: Option<Server>,
    s3: Port,
    rpc: Port,
    admin: Port,
}

impl Garage {
    /// Starts three nodes; takes about five seconds.
    ///
    /// # Panics
    /// When Garage is not installed or does not start.
    pub fn start() -> Self {
        let dir = temp_dir("garage");
        let node = || Node { server: None, s3: Port::take(), rpc: Port::take(), admin: Port::take() };
        let mut garage = Self { nodes: (0..NODES).map(|_| node()).collect(), dir };
        for number in 0..NODES {
            garage.write_configuration(number);
            garage.launch(number);
        }
        let ids: Vec<String> = (0..NODES).map(|number| garage.tool(number, &["node", "id", "-q"])).collect();
        for id in &ids[1..] {
            garage.tool(0, &["node", "connect", id.trim()]);
        }
        for (number, id) in ids.iter().enumerate() {
            let id = id.split('@').next().expect("an id");
            garage.tool(0, &["layout", "assign", "-z", &format!("zone{number}"), "-c", "4G", id]);
        }
        garage.tool(0, &["layout", "apply", "--version", "1"]);
        let owner = garage.door(0).owner;
        garage.tool(0, &["key", "import", "--yes", "-n", "owner", &owner.access, &owner.secret]);
        garage.tool(0, &["key", "allow", "--create-bucket", &owner.access]);
        garage.tool(0, &["bucket", "create", garage.bucket()]);
        let rights = ["bucket", "allow", "--read", "--write", "--owner", garage.bucket(), "--key", &owner.access];
        garage.tool(0, &rights);
        garage.wait_healthy();
        garage
    }

    /// Where this node answers, counted from 0. All of them give the same objects.
    pub fn door(&self, node: usize) -> S3Door {
        let owner = S3Key { access: format!("GK{}", "5eed".repeat(6)), secret: "ca4a51e7".repeat(8) };
        S3Door { port: self.nodes[node].s3.number(), region: "garage", owner }
    }

    /// A bucket that exists.
    pub fn bucket(&self) -> &'static str {
        "rekindle-test"
    }

    /// Ends a node by SIGKILL, as a crash would.
    pub fn kill9(&mut self, node: usize) {
        if let Some(server) = self.nodes[node].server.take() {
            server.kill9();
        }
    }

    /// Starts a killed node again on the same ports and data. Whether the cluster is whole is asked by
    /// [`Garage::wait_healthy`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self, node: usize) {
        self.kill9(node);
        self.launch(node);
    }

    /// Waits until every node that should run sees all others.
    ///
    /// # Panics
    /// When that takes more than a minute.
    pub fn wait_healthy(&mut self) {
        for node in 0..NODES {
            let port = self.nodes[node].admin.number();
            let server = self.nodes[node].server.as_mut().expect("every node runs");
            server.wait_ready(|| {
                let token = ("authorization".to_owned(), format!("Bearer {ADMIN_TOKEN}"));
                match http::request(port, "GET", "/v2/GetClusterHealth", &[token], b"")? {
                    (200, text) if text.contains("\"healthy\"") => Ok(()),
                    other => Err(format!("node {node}: {other:?}")),
                }
            });
        }
    }

    /// Has the nodes compare what they hold now, and not some minutes later.
    ///
    /// # Panics
    /// When a node does not run.
    pub fn compare_nodes(&self) {
        self.tool(0, &["repair", "--all-nodes", "--yes", "tables"]);
    }

    /// The last part of a node's log.
    pub fn log_tail(&self, node: usize) -> String {
        crate::process::log_tail(&self.path(node, "log"))
    }

    fn path(&self, node: usize, name: &str) -> PathBuf {
        self.dir.path().join(format!("node{node}")).join(name)
    }

    fn write_configuration(&self, number: usize) {
        use std::os::unix::fs::PermissionsExt;
        let node = &self.nodes[number];
        let dir = self.dir.path().join(format!("node{number}"));
        for name in ["meta", "data"] {
            fs::create_dir_all(dir.join(name)).expect("make a directory of a node");
        }
        let file = dir.join("garage.toml");
        let text = format!(
            "metadata_dir = \"{dir}/meta\"\ndata_dir = \"{dir}/data\"\ndb_engine = \"lmdb\"\n\
             replication_factor = {NODES}\nmetadata_fsync = true\ndata_fsync = true\n\
             rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{secret}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{s3}\"\nroot_domain = \".s3.localhost\"\n\
             [admin]\napi_bind_addr = \"127.0.0.1:{admin}\"\nadmin_token = \"{ADMIN_TOKEN}\"\n",
            dir = dir.display(),
            rpc = node.rpc.number(),
            secret = "0123456789abcdef".repeat(4),
            s3 = node.s3.number(),
            admin = node.admin.number(),
        );
        fs::write(&file, text).expect("write garage.toml");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("close garage.toml to others");
    }

    fn command(&self, node: usize) -> std::process::Command {
        let program = tools::try_find("garage")
            .unwrap_or_else(|| panic!("`garage` is not installed: run scripts/setup --clusters"));
        let mut command = tools::command(program);
        command.arg("-c").arg(self.path(node, "garage.toml")).env("RUST_LOG", "warn");
        command
    }

    /// Asks a node something, with its own program.
    fn tool(&self, node: usize, arguments: &[&str]) -> String {
        let mut command = self.command(node);
        command.args(arguments);
        String::from_utf8_lossy(&run(command)).into_owned()
    }

    fn launch(&mut self, node: usize) {
        let mut command = self.command(node);
        command.arg("server");
        let traces = Traces { dir: self.dir.path().to_owned(), mount: None };
        let name = format!("Garage's node {node}");
        let mut server = Server::spawn(&name, command, &self.path(node, "log"), Signal::KILL, &traces);
        let port = self.nodes[node].s3.number();
        // Any answer will do: without a layout, and without its neighbours, it has nothing to give.
        server.wait_ready(|| http::request(port, "GET", "/", &[], b"").map(drop));
        self.nodes[node].server = Some(server);
    }
}
