//! A blocking byte stream to the server: TCP, TLS or Unix socket, with deadlines and cancellation.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rekindle_core::{Cancel, Fault, Result, codes};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::options::{Endpoint, RedisOptions, Transport};

/// How long a connection may take to come up, per address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may say nothing. It sends a newline every ten seconds
/// (`repl-ping-replica-period`) while it prepares a synchronisation.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// How often a waiting read looks at the cancel flag.
const CANCEL_PERIOD: Duration = Duration::from_millis(250);

enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// The stream. A read waits in short slices, so that a cancelled run ends soon, and gives up after
/// `IDLE_TIMEOUT` without a byte.
pub(crate) struct Stream {
    wire: Wire,
    cancel: Cancel,
}

impl Stream {
    /// Connects.
    pub(crate) fn open(endpoint: &Endpoint, options: &RedisOptions, cancel: &Cancel) -> Result<Self> {
        let wire = match &endpoint.transport {
            Transport::Unix(path) => Wire::Unix(unix(path).map_err(|e| refused(endpoint, e))?),
            Transport::Tcp { host, port, tls } => {
                let tcp = tcp(host, *port).map_err(|e| refused(endpoint, e))?;
                if *tls { Wire::Tls(Box::new(secured(tcp, host, options)?)) } else { Wire::Tcp(tcp) }
            }
        };
        Ok(Self { wire, cancel: cancel.clone() })
    }
}

fn refused(endpoint: &Endpoint, error: io::Error) -> Fault {
    Fault::new(codes::REDIS_CONNECT, format!("connect to Redis at {endpoint}"))
        .because(error)
        .hint("start the server, or correct `url` in the configuration")
}

fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(CANCEL_PERIOD))?;
                stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unix(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(CANCEL_PERIOD))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok(stream)
}

fn secured(mut tcp: TcpStream, host: &str, options: &RedisOptions) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = Arc::new(tls_config(options)?);
    let fault = |what: String| Fault::new(codes::REDIS_TLS, what);
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| fault(format!("use `{host}` as a TLS server name")).because(error))?;
    let mut connection =
        ClientConnection::new(config, name).map_err(|error| fault("start TLS with Redis".to_owned()).because(error))?;
    let started = Instant::now();
    while connection.is_handshaking() {
        match connection.complete_io(&mut tcp) {
            Ok(_) => {}
            Err(error) if waits(&error) && started.elapsed() < CONNECT_TIMEOUT => {}
            Err(error) => {
                return Err(fault(format!("agree on TLS with Redis at {host}"))
                    .because(error)
                    .hint("set `ca-file` to the certificate that signed the server's"));
            }
        }
    }
    Ok(StreamOwned::new(connection, tcp))
}

fn tls_config(options: &RedisOptions) -> Result<ClientConfig> {
    let fault = |path: &Path, error: rustls::pki_types::pem::Error| {
        Fault::new(codes::REDIS_TLS, format!("read `{}`", path.display())).because(error)
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| fault(path, error))
    };
    let mut roots = RootCertStore::empty();
    if let Some(path) = &options.ca_file {
        roots.add_parsable_certificates(certificates(path)?);
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let wrong = |error: rustls::Error| Fault::new(codes::REDIS_TLS, "prepare TLS for Redis").because(error);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(roots);
    match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, error))?;
            builder.with_client_auth_cert(certificates(cert)?, secret).map_err(wrong)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let started = Instant::now();
        loop {
            let given = match &mut self.wire {
                Wire::Tcp(stream) => stream.read(buffer),
                Wire::Unix(stream) => stream.read(buffer),
                Wire::Tls(stream) => stream.read(buffer),
            };
            match given {
                Err(error) if waits(&error) => {
                    if self.cancel.is_cancelled() {
                        return Err(io::Error::other("the run was stopped"));
                    }
                    if started.elapsed() > IDLE_TIMEOUT {
                        let seconds = IDLE_TIMEOUT.as_secs();
                        return Err(io::Error::new(
                            ErrorKind::TimedOut,
                            format!("the server sent nothing for {seconds} s"),
                        ));
                    }
                }
                other => return other,
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.wire {
            Wire::Tcp(stream) => stream.write(bytes),
            Wire::Unix(stream) => stream.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.wire {
            Wire::Tcp(stream) => stream.flush(),
            Wire::Unix(stream) => stream.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}
