//! A private Google Cloud Storage server (fake-gcs-server).
//!
//! It checks no credentials and no MD5: it proves our requests, not our authentication.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::http;
use crate::port::Port;
use crate::process::{Server, Signal, Traces, temp_dir};
use crate::tools;

/// A running server with one empty bucket; gone with all its files when dropped.
#[derive(Debug)]
pub struct FakeGcs {
    server: Option<Server>,
    port: Port,
    dir: TempDir,
}

impl FakeGcs {
    /// Starts a server.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    pub fn start() -> Self {
        let mut gcs = Self { server: None, port: Port::take(), dir: temp_dir("gcs") };
        gcs.launch();
        let body = format!(r#"{{"name":"{}"}}"#, gcs.bucket());
        let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
        let target = "/storage/v1/b?project=test";
        let answer = http::request(gcs.port(), "POST", target, &headers, body.as_bytes());
        assert!(matches!(answer, Ok((200, _))), "make a bucket: {answer:?}");
        gcs
    }

    /// The base URL of the service.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// A bucket that exists.
    pub fn bucket(&self) -> &'static str {
        "rekindle-test"
    }

    /// A service account file that turns signing off and points at this server.
    pub fn service_account_json(&self) -> String {
        format!(
            r#"{{"gcs_base_url":"{}","disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}}"#,
            self.endpoint()
        )
    }

    /// Ends the server by SIGKILL, as a crash would.
    pub fn kill9(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill9();
        }
    }

    /// Starts the server again on the same port and data.
    pub fn restart(&mut self) {
        self.kill9();
        self.launch();
    }

    fn launch(&mut self) {
        let port = self.port();
        let mut command = tools::command(tools::find("fake-gcs-server"));
        command
            .args(["-scheme", "http", "-host", "127.0.0.1", "-port", &port.to_string()])
            .args(["-public-host", &format!("127.0.0.1:{port}"), "-external-url", &self.endpoint()])
            .args(["-backend", "filesystem", "-log-level", "warn", "-filesystem-root"])
            .arg(self.dir.path().join("data"))
            .current_dir(self.dir.path());
        let traces = Traces { dir: self.dir.path().to_owned(), mount: None };
        let log = self.log();
        let mut server = Server::spawn("fake-gcs-server", command, &log, Signal::KILL, &traces);
        server.wait_ready(|| match http::request(port, "GET", "/_internal/healthcheck", &[], b"")? {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        self.server = Some(server);
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}
