//! A private Azure Blob server (Azurite).

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tempfile::TempDir;

use crate::http;
use crate::port::Port;
use crate::process::{Server, Signal, Traces, run, temp_dir};
use crate::tools;

const API_VERSION: &str = "2023-11-03";

/// A running server with one empty container; gone with all its files when dropped.
#[derive(Debug)]
pub struct Azurite {
    server: Option<Server>,
    key: String,
    port: Port,
    dir: TempDir,
}

impl Azurite {
    /// Starts a server.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    pub fn start() -> Self {
        let key = BASE64.encode([0x5a_u8; 64]);
        let mut azurite = Self { server: None, key, port: Port::take(), dir: temp_dir("az") };
        azurite.launch();
        azurite.make_container();
        azurite
    }

    /// The blob service's URL, the account name at its end.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.port(), self.account())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The storage account's name.
    pub fn account(&self) -> &'static str {
        "backupacct"
    }

    /// The account key (base64).
    pub fn account_key(&self) -> &str {
        &self.key
    }

    /// A container that exists.
    pub fn container(&self) -> &'static str {
        "rekindle-test"
    }

    /// Ends the server by SIGKILL, as a crash would.
    pub fn kill9(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill9();
        }
    }

    /// Starts the server again on the same port and data, stopping it first if it runs. In
    /// order, because Azurite keeps its index in memory for a few seconds.
    pub fn restart(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Signal::TERM);
        }
        self.launch();
    }

    fn launch(&mut self) {
        let port = self.port();
        let mut command = tools::command(tools::find("azurite"));
        command
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location"])
            .arg(self.dir.path().join("data"))
            .args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"])
            .env("AZURITE_ACCOUNTS", format!("{}:{}", self.account(), self.key))
            .current_dir(self.dir.path());
        let traces = Traces { dir: self.dir.path().to_owned(), mount: None };
        let mut server = Server::spawn("Azurite", command, &self.log(), Signal::KILL, &traces);
        // Without a signature every answer is a refusal, but an answer.
        server.wait_ready(|| http::request(port, "GET", "/", &[], b"").map(|_| ()));
        self.server = Some(server);
    }

    /// Create Container, signed with Shared Key as in
    /// <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>.
    fn make_container(&self) {
        let mut clock = tools::command("date");
        clock.args(["-u", "+%a, %d %b %Y %H:%M:%S GMT"]).env("LC_ALL", "C");
        let date = String::from_utf8_lossy(&run(clock)).trim().to_owned();
        let (account, container) = (self.account(), self.container());
        let to_sign = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{API_VERSION}\n\
             /{account}/{account}/{container}\nrestype:container"
        );
        let key = BASE64.decode(&self.key).expect("our own key is base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes any key");
        mac.update(to_sign.as_bytes());
        let signature = BASE64.encode(mac.finalize().into_bytes());
        let headers = [
            ("x-ms-date".to_owned(), date),
            ("x-ms-version".to_owned(), API_VERSION.to_owned()),
            ("Authorization".to_owned(), format!("SharedKey {account}:{signature}")),
        ];
        let target = format!("/{account}/{container}?restype=container");
        let answer = http::request(self.port(), "PUT", &target, &headers, b"");
        assert!(matches!(answer, Ok((201, _))), "make a container: {answer:?}");
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}
