//! A mail server that takes mail and keeps it: plain, with STARTTLS, or TLS from the first byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::tls::Certificate;

/// How its line is kept private.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    None,
    StartTls,
    Wrapped,
}

/// The running server, on 127.0.0.1.
#[derive(Debug)]
pub struct SmtpReceiver {
    port: u16,
    /// The authority a client has to trust.
    ca: PathBuf,
    mails: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

trait Line: Read + Write {}
impl<T: Read + Write> Line for T {}

impl SmtpReceiver {
    /// Starts one; its certificates go into `dir`. It wants `login` (user, password) if given.
    ///
    /// # Panics
    /// When no port or no certificate can be had.
    pub fn start(dir: &Path, tls: SmtpTls, login: Option<(&str, &str)>) -> Self {
        let certificate = Certificate::make(dir);
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_file_iter(&certificate.cert).expect("read").map(|one| one.expect("parse")).collect();
        let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("read the key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("use the certificate");
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let receiver = Self {
            port: listener.local_addr().expect("the port").port(),
            ca: certificate.ca,
            mails: Arc::default(),
            over: Arc::default(),
        };
        let (config, mails, over) = (Arc::new(config), Arc::clone(&receiver.mails), Arc::clone(&receiver.over));
        let login = login.map(|(user, password)| plain_login(user, password));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
                let _ = take(stream, tls, &config, login.as_deref(), &mails);
            }
        });
        receiver
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority's certificate (PEM).
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// The mails so far, each with its envelope lines first.
    ///
    /// # Panics
    /// When the thread of it has panicked.
    pub fn mails(&self) -> Vec<String> {
        self.mails.lock().expect("the mails").clone()
    }
}

impl Drop for SmtpReceiver {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// `AUTH PLAIN`'s argument.
fn plain_login(user: &str, password: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"))
}

type Mails = Mutex<Vec<String>>;

fn take(
    mut stream: TcpStream,
    tls: SmtpTls,
    config: &Arc<ServerConfig>,
    login: Option<&str>,
    mails: &Mails,
) -> std::io::Result<()> {
    let secured = |stream: TcpStream| {
        let connection = ServerConnection::new(Arc::clone(config)).expect("a TLS connection");
        StreamOwned::new(connection, stream)
    };
    match tls {
        SmtpTls::Wrapped => talk(secured(stream), true, "", login, mails).map(drop),
        SmtpTls::None => talk(stream, true, "", login, mails).map(drop),
        SmtpTls::StartTls => {
            let again = stream.try_clone()?;
            if talk(&mut stream, true, "250-STARTTLS\r\n", Some("nobody"), mails)? {
                talk(secured(again), false, "", login, mails)?;
            }
            Ok(())
        }
    }
}

/// Whether the client wants STARTTLS now.
fn talk(line: impl Line, greets: bool, offers: &str, login: Option<&str>, mails: &Mails) -> std::io::Result<bool> {
    let mut line = BufReader::with_capacity(1, line);
    if greets {
        line.get_mut().write_all(b"220 test\r\n")?;
    }
    let (mut envelope, mut known) = (String::new(), login.is_none());
    loop {
        let mut text = String::new();
        if line.read_line(&mut text)? == 0 {
            return Ok(false);
        }
        let upper = text.to_ascii_uppercase();
        let answer = match upper.split([' ', '\r']).next().unwrap_or_default() {
            "EHLO" => format!("250-test\r\n{offers}250 AUTH PLAIN\r\n"),
            "STARTTLS" => {
                line.get_mut().write_all(b"220 go\r\n")?;
                return Ok(true);
            }
            "AUTH" => {
                known = login.is_some_and(|login| text.trim_end().ends_with(login));
                if known { "235 welcome\r\n" } else { "535 wrong\r\n" }.to_owned()
            }
            "MAIL" | "RCPT" if !known => "530 who are you\r\n".to_owned(),
            "MAIL" | "RCPT" => {
                envelope.push_str(&text);
                "250 ok\r\n".to_owned()
            }
            "DATA" => {
                line.get_mut().write_all(b"354 go on\r\n")?;
                let mut mail = std::mem::take(&mut envelope);
                while !mail.ends_with("\r\n.\r\n") {
                    if line.read_line(&mut mail)? == 0 {
                        return Ok(false);
                    }
                }
                mails.lock().expect("the mails").push(mail);
                "250 taken\r\n".to_owned()
            }
            "QUIT" => {
                line.get_mut().write_all(b"221 bye\r\n")?;
                return Ok(false);
            }
            _ => "250 ok\r\n".to_owned(),
        };
        line.get_mut().write_all(answer.as_bytes())?;
        line.get_mut().flush()?;
    }
}
