//! A private S3 server (SeaweedFS).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::http;
use crate::port::Port;
use crate::process::{Server, Signal, Traces, run, temp_dir};
use crate::s3_request::S3Door;
use crate::tls::Certificate;
use crate::tools;

/// How to start a server.
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    /// Whether the endpoint is HTTPS, with a certificate of an own authority.
    pub tls: bool,
    /// Whether [`S3::access_key`] may only read and list. The full key is then
    /// [`S3::admin_key`].
    pub read_only_key: bool,
    /// Keeps the data on a file system of this many MiB, which runs full. Needs root.
    pub data_dir_tmpfs_mb: Option<u32>,
}

/// A key pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Key {
    /// Access key id.
    pub access: String,
    /// Secret access key.
    pub secret: String,
}

/// The ports that one SeaweedFS with S3 in front uses.
#[derive(Debug)]
struct Ports {
    master: Port,
    master_grpc: Port,
    volume: Port,
    volume_grpc: Port,
    filer: Port,
    filer_grpc: Port,
    s3: Port,
    s3_grpc: Port,
    s3_https: Port,
    admin: Port,
    admin_grpc: Port,
}

/// A running S3 server with one empty bucket; gone with all its files when dropped.
#[derive(Debug)]
pub struct S3 {
    server: Option<Server>,
    certificate: Option<Certificate>,
    ports: Ports,
    options: S3Options,
    // Unmounted before the directory below it is removed.
    mount: Option<Mount>,
    dir: TempDir,
}

impl S3 {
    /// Starts a server.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    pub fn start(options: S3Options) -> Self {
        let dir = temp_dir("s3");
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("make the data directory");
        let mount = options.data_dir_tmpfs_mb.map(|mib| Mount::tmpfs(&data, mib));
        let certificate = options.tls.then(|| Certificate::make(dir.path()));
        let mut s3 = Self { server: None, certificate, ports: Ports::take(), options, mount, dir };
        fs::write(s3.dir.path().join("s3.json"), s3.identities()).expect("write s3.json");
        s3.launch();
        s3
    }

    /// The endpoint URL. Use path-style addressing.
    pub fn endpoint(&self) -> String {
        if self.certificate.is_some() {
            format!("https://127.0.0.1:{}", self.ports.s3_https.number())
        } else {
            format!("http://127.0.0.1:{}", self.ports.s3.number())
        }
    }

    /// The port of the endpoint on 127.0.0.1.
    pub fn port(&self) -> u16 {
        if self.certificate.is_some() { self.ports.s3_https.number() } else { self.ports.s3.number() }
    }

    /// The region to sign requests for.
    pub fn region(&self) -> &'static str {
        "us-east-1"
    }

    /// The access key id that tests use.
    pub fn access_key(&self) -> String {
        self.key().access
    }

    /// The secret access key that tests use.
    pub fn secret_key(&self) -> String {
        self.key().secret
    }

    /// Where it answers without TLS, for requests of the tests' own.
    pub fn door(&self) -> S3Door {
        S3Door { port: self.ports.s3.number(), region: self.region(), owner: self.admin_key() }
    }

    /// The key that may do everything.
    pub fn admin_key(&self) -> S3Key {
        key("ADMIN")
    }

    /// A key that may only read and list.
    pub fn reader_key(&self) -> S3Key {
        key("READER")
    }

    /// A key that may read and write, but not list.
    pub fn writer_key(&self) -> S3Key {
        key("WRITER")
    }

    /// A bucket that exists.
    pub fn bucket(&self) -> &'static str {
        "rekindle-test"
    }

    /// The authority's certificate, of a server started with `tls`.
    pub fn ca(&self) -> Option<&Path> {
        self.certificate.as_ref().map(|certificate| certificate.ca.as_path())
    }

    /// The directory with the server's data.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The process id; `None` while stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// The last part of the server's log.
    pub fn log_tail(&self) -> String {
        crate::process::log_tail(&self.log())
    }

    /// Freezes the server: connections stay open and nothing is answered.
    pub fn sigstop(&self) {
        self.running().signal_group(Signal::STOP);
    }

    /// Lets a frozen server go on.
    pub fn sigcont(&self) {
        self.running().signal_group(Signal::CONT);
    }

    /// Ends the server by SIGKILL, as a crash would.
    pub fn kill9(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill9();
        }
    }

    /// Starts the server again on the same ports and data, stopping it first if it runs.
    pub fn restart(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Signal::TERM);
        }
        self.launch();
    }

    fn key(&self) -> S3Key {
        if self.options.read_only_key { self.reader_key() } else { self.admin_key() }
    }

    fn running(&self) -> &Server {
        self.server.as_ref().expect("the S3 server runs")
    }

    fn launch(&mut self) {
        let mut command = tools::command(tools::find("weed"));
        command.arg("-logtostderr=true").arg("mini").args(self.arguments());
        command.current_dir(self.dir.path());
        let traces =
            Traces { dir: self.dir.path().to_owned(), mount: self.mount.as_ref().map(|mount| mount.0.clone()) };
        // With a full disk it has been seen to ignore SIGTERM for minutes.
        let mut server = Server::spawn("SeaweedFS", command, &self.log(), Signal::KILL, &traces);
        let port = self.ports.s3.number();
        let bucket = format!("/buckets/{}/", self.bucket());
        let filer = self.ports.filer.number();
        server.wait_ready(|| {
            match http::request(port, "GET", "/healthz", &[], b"")? {
                (200, _) => {}
                other => return Err(format!("/healthz: {other:?}")),
            }
            // The bucket is made after the S3 port has opened.
            match http::request(filer, "GET", &bucket, &[], b"")? {
                (200, _) => Ok(()),
                other => Err(format!("bucket: {other:?}")),
            }
        });
        self.server = Some(server);
    }

    fn arguments(&self) -> Vec<String> {
        let dir = self.dir.path().display();
        let mut args: Vec<String> = self.ports.arguments();
        args.extend([
            format!("-dir={dir}/data"),
            format!("-s3.config={dir}/s3.json"),
            format!("-bucket={}", self.bucket()),
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            // On by default, it would report to its makers.
            "-master.telemetry=false".to_owned(),
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
            "-webdav=false".to_owned(),
            "-admin.ui=false".to_owned(),
        ]);
        if let Some(certificate) = &self.certificate {
            args.push(format!("-s3.port.https={}", self.ports.s3_https.number()));
            args.push(format!("-s3.cert.file={}", certificate.cert.display()));
            args.push(format!("-s3.key.file={}", certificate.key.display()));
        }
        args
    }

    fn identities(&self) -> String {
        let identity = |name: &str, key: &S3Key, actions: &str| {
            format!(
                r#"{{"name":"{name}","credentials":[{{"accessKey":"{}","secretKey":"{}"}}],"actions":[{actions}]}}"#,
                key.access, key.secret
            )
        };
        format!(
            r#"{{"identities":[{},{},{}]}}"#,
            identity("admin", &self.admin_key(), r#""Admin","Read","Write","List","Tagging""#),
            identity("reader", &self.reader_key(), r#""Read","List""#),
            identity("writer", &self.writer_key(), r#""Read","Write""#)
        )
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Ports {
    fn take() -> Self {
        Self {
            master: Port::take(),
            master_grpc: Port::take(),
            volume: Port::take(),
            volume_grpc: Port::take(),
            filer: Port::take(),
            filer_grpc: Port::take(),
            s3: Port::take(),
            s3_grpc: Port::take(),
            s3_https: Port::take(),
            admin: Port::take(),
            admin_grpc: Port::take(),
        }
    }

    fn arguments(&self) -> Vec<String> {
        [
            ("master.port", &self.master),
            ("master.port.grpc", &self.master_grpc),
            ("volume.port", &self.volume),
            ("volume.port.grpc", &self.volume_grpc),
            ("filer.port", &self.filer),
            ("filer.port.grpc", &self.filer_grpc),
            ("s3.port", &self.s3),
            ("s3.port.grpc", &self.s3_grpc),
            ("admin.port", &self.admin),
            ("admin.port.grpc", &self.admin_grpc),
        ]
        .map(|(name, port)| format!("-{name}={}", port.number()))
        .to_vec()
    }
}

fn key(name: &str) -> S3Key {
    S3Key { access: format!("REKINDLE{name}"), secret: format!("canary-s3-{}-secret", name.to_lowercase()) }
}

/// A mounted file system, unmounted when dropped.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts an empty memory file system of so many MiB on an existing directory.
    ///
    /// # Panics
    /// When mounting fails; only root can mount.
    pub fn tmpfs(dir: &Path, mib: u32) -> Self {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(dir);
        run(command);
        Self(dir.to_owned())
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a file still open somewhere must not leave the mount behind.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
