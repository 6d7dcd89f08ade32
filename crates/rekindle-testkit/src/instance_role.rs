//! The metadata service of a cloud machine: it lends the machine's role to whoever asks from it.
//!
//! Version 2 of EC2's protocol
//! (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>).

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use crate::S3Key;
use crate::http_proxy::Request;
use crate::port::Port;

const POLL: Duration = Duration::from_millis(10);
const TOKEN: &str = "a-session-of-the-metadata-service";
const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/";
const ROLE: &str = "backup-role";

/// A running metadata service; it ends when dropped.
#[derive(Debug)]
pub struct InstanceRole {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    port: Port,
}

#[derive(Debug)]
struct Shared {
    /// `None`: the machine has no role.
    lent: Mutex<Option<(S3Key, String)>>,
    asked: AtomicU32,
    over: AtomicBool,
}

impl InstanceRole {
    /// Starts a service that lends this key until `expires` (RFC 3339).
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(key: S3Key, expires: &str) -> Self {
        let port = Port::take();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).expect("listen");
        listener.set_nonblocking(true).expect("set a listener non-blocking");
        let lent = Mutex::new(Some((key, expires.to_owned())));
        let shared = Arc::new(Shared { lent, asked: AtomicU32::new(0), over: AtomicBool::new(false) });
        let for_thread = Arc::clone(&shared);
        let acceptor = thread::spawn(move || for_thread.accept(&listener));
        Self { shared, acceptor: Some(acceptor), port }
    }

    /// What clients are told as `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// How often the key was lent.
    pub fn asked(&self) -> u32 {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Takes the role away from the machine.
    pub fn revoke(&self) {
        *self.shared.lent.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for InstanceRole {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept(&self, listener: &TcpListener) {
        while !self.over.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((client, _)) => {
                    // A client that goes away is no concern of ours.
                    let _ = self.serve(&client);
                    let _ = client.shutdown(Shutdown::Both);
                }
                Err(_) => sleep(POLL),
            }
        }
    }

    fn serve(&self, mut client: &TcpStream) -> std::io::Result<()> {
        client.set_nonblocking(false)?;
        let Some(request) = Request::read(client)? else { return Ok(()) };
        let (status, body) = self.answer(&request);
        let length = body.len();
        write!(client, "HTTP/1.1 {status} Answer\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    }

    fn answer(&self, request: &Request) -> (u16, String) {
        let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (request.method.as_str(), request.target.as_str(), lent) {
            ("PUT", "/latest/api/token", _) => (200, TOKEN.to_owned()),
            _ if !request.head.contains(TOKEN) => (401, String::new()),
            ("GET", CREDENTIALS, Some(_)) => (200, ROLE.to_owned()),
            ("GET", target, Some((key, expires))) if target.strip_prefix(CREDENTIALS) == Some(ROLE) => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                let S3Key { access, secret, .. } = key;
                let body = format!(
                    r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{access}","SecretAccessKey":"{secret}","Token":"","Expiration":"{expires}","LastUpdated":"2026-01-01T00:00:00Z"}}"#
                );
                (200, body)
            }
            _ => (404, String::new()),
        }
    }
}
