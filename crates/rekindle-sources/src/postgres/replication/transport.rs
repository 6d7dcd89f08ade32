//! Bytes to and from a server: TCP or a Unix socket, with or without TLS. Every wait is cut into
//! short pieces that look at the cancel flag, and none lasts longer than its limit.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rekindle_core::{Cancel, Fault, Result, codes};
use rustix::net::sockopt;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::ReplicationOptions;
use crate::postgres::tls;
use crate::postgres::url::{Host, SslMode};

/// How often a wait looks at the cancel flag.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest time a write may be held up by the server or the network.
const WRITE_MAX: Duration = Duration::from_mins(2);
/// A silent connection is probed after this time, so often, and given up after so many probes.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;

/// `SSLRequest` (PostgreSQL manual, 53.7): length and a number that is no protocol version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buffer),
            Self::Unix(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// A connection as a stream of bytes.
pub(super) struct Transport {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    cancel: Cancel,
    address: String,
}

fn is_pause(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Transport {
    /// Connects, and agrees on TLS as `sslmode` wants it.
    pub(super) fn connect(options: &ReplicationOptions, cancel: &Cancel) -> Result<Self> {
        let socket = match &options.url.host {
            Host::Tcp(name) => Socket::Tcp(tcp(name, options, cancel)?),
            Host::Socket(directory) => {
                let path = directory.join(format!(".s.PGSQL.{}", options.url.port));
                Socket::Unix(UnixStream::connect(path).map_err(|error| unreachable(options).because(error))?)
            }
        };
        let mut transport = Self { socket, tls: None, cancel: cancel.clone(), address: options.url.to_string() };
        transport.set_timeouts().map_err(|error| unreachable(options).because(error))?;
        let mode = options.url.ssl_mode;
        // As in libpq: nobody listens in on a Unix socket.
        if mode != SslMode::Disable && !transport.is_unix() {
            transport.agree_on_tls(options)?;
        }
        Ok(transport)
    }

    fn set_timeouts(&self) -> std::io::Result<()> {
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, Some(LOOK_EVERY))?;
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Send, Some(LOOK_EVERY))?;
        if let Socket::Tcp(socket) = &self.socket {
            socket.set_nodelay(true)?;
            sockopt::set_socket_keepalive(socket, true)?;
            sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
            sockopt::set_tcp_keepintvl(socket, KEEPALIVE_EVERY)?;
            sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
        }
        Ok(())
    }

    fn agree_on_tls(&mut self, options: &ReplicationOptions) -> Result<()> {
        self.write(&SSL_REQUEST)?;
        let mut answer = [0_u8];
        // Exactly one byte: whatever else is there belongs to the handshake, so that nobody can
        // put words into the encrypted conversation beforehand (CVE-2021-23222).
        self.read_within(&mut answer, options.connect_timeout)?;
        match (answer[0], options.url.ssl_mode) {
            (b'S', _) => {}
            (b'N', SslMode::Prefer) => return Ok(()),
            (b'N', mode) => {
                return Err(unreachable(options)
                    .because(format!("the server does not offer TLS, and `sslmode` is {}", mode.as_str()))
                    .hint("switch TLS on in the server (`ssl = on`), or set `sslmode = \"prefer\"`"));
            }
            _ => return Err(unreachable(options).because("it does not answer as PostgreSQL does")),
        }
        let Host::Tcp(name) = &options.url.host else {
            return Ok(());
        };
        let config = tls::client_config(&options.url)?;
        let name = ServerName::try_from(name.clone()).map_err(|error| unreachable(options).because(error))?;
        let failed = |error: rustls::Error| unreachable(options).because(error);
        let mut connection = ClientConnection::new(std::sync::Arc::new(config), name).map_err(failed)?;
        let deadline = Instant::now() + options.connect_timeout;
        while connection.is_handshaking() {
            self.cancel.check()?;
            if Instant::now() > deadline {
                return Err(unreachable(options).because("the TLS handshake takes too long"));
            }
            let step = if connection.wants_write() {
                connection.write_tls(&mut self.socket).map(|_| ())
            } else {
                match connection.read_tls(&mut self.socket) {
                    Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                    Ok(_) => {
                        let processed = connection.process_new_packets();
                        if processed.is_err() {
                            // Tells the server why.
                            let _ = connection.write_tls(&mut self.socket);
                        }
                        processed.map(|_| ()).map_err(std::io::Error::other)
                    }
                    Err(error) => Err(error),
                }
            };
            match step {
                Err(error) if !is_pause(error.kind()) => return Err(unreachable(options).because(error)),
                _ => {}
            }
        }
        self.tls = Some(Box::new(connection));
        Ok(())
    }

    /// Whether nobody on the way can read along.
    pub(super) fn is_private(&self) -> bool {
        self.tls.is_some() || self.is_unix()
    }

    fn is_unix(&self) -> bool {
        matches!(self.socket, Socket::Unix(_))
    }

    /// The server's certificate, when TLS is used.
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        Some(self.tls.as_ref()?.peer_certificates()?.first()?.as_ref())
    }

    /// Whether TLS is used.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    fn closed(&self) -> Fault {
        Fault::new(codes::PG_RESTARTED, format!("read from {}", self.address))
            .because("the server closed the connection")
            .hint("see the server's log for why; then run again")
    }

    fn broken(&self, doing: &str, error: std::io::Error) -> Fault {
        Fault::new(codes::PG_RESTARTED, format!("{doing} {}", self.address))
            .because(error)
            .hint("see the server's log for why the connection ended; then run again")
    }

    /// Some bytes, at least one; `None` when none came for so long.
    pub(super) fn read(&mut self, buffer: &mut [u8], wait: Duration) -> Result<Option<usize>> {
        let deadline = Instant::now() + wait;
        loop {
            self.cancel.check()?;
            match self.read_now(buffer) {
                Ok(0) => return Err(self.closed()),
                Ok(read) => return Ok(Some(read)),
                Err(error) if is_pause(error.kind()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(self.closed()),
                Err(error) => return Err(self.broken("read from", error)),
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    fn read_now(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.read(buffer);
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            if tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
            if tls.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(std::io::Error::other)?;
        }
    }

    /// Fills the whole buffer.
    fn read_within(&mut self, mut buffer: &mut [u8], longest: Duration) -> Result<()> {
        while !buffer.is_empty() {
            let Some(read) = self.read(buffer, longest)? else {
                let what = format!("connect to {}", self.address);
                return Err(Fault::new(codes::PG_CONNECT, what).because("the server does not answer"));
            };
            buffer = &mut buffer[read..];
        }
        Ok(())
    }

    /// Writes everything.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        let deadline = Instant::now() + WRITE_MAX;
        while !bytes.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            self.cancel.check()?;
            match self.write_now(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_pause(error.kind()) => {
                    if Instant::now() >= deadline {
                        return Err(self.broken("write to", error));
                    }
                }
                Err(error) => return Err(self.broken("write to", error)),
            }
        }
        Ok(())
    }

    fn write_now(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return match self.socket.write(bytes)? {
                0 => Err(ErrorKind::WriteZero.into()),
                written => Ok(written),
            };
        };
        // What could not be sent before goes first, so that the buffer of rustls stays small.
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        let written = if bytes.is_empty() { 0 } else { tls.writer().write(bytes)? };
        Ok(written)
    }
}

fn unreachable(options: &ReplicationOptions) -> Fault {
    Fault::new(codes::PG_CONNECT, format!("connect to {}", options.url)).hint(format!(
        "start the server, or look at what it is doing: `pg_isready -h {} -p {}`",
        options.url.host, options.url.port
    ))
}

/// The first address that answers.
fn tcp(name: &str, options: &ReplicationOptions, cancel: &Cancel) -> Result<TcpStream> {
    let addresses = (name, options.url.port).to_socket_addrs().map_err(|error| unreachable(options).because(error))?;
    let mut last = std::io::Error::from(ErrorKind::AddrNotAvailable);
    for address in addresses {
        cancel.check()?;
        match TcpStream::connect_timeout(&address, options.connect_timeout) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(unreachable(options).because(last))
}
