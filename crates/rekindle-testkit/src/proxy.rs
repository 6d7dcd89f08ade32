//! A TCP proxy on loopback that breaks connections on demand.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::port::Port;

/// How often a waiting thread looks whether something has changed.
const POLL: Duration = Duration::from_millis(10);
const CHUNK_BYTES: usize = 16 << 10;
/// What is passed slowly goes in so many pieces per second, if it has as many bytes.
const SLOW_PIECES_PER_SECOND: u64 = 20;

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// What the proxy does to a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: bytes pass.
    #[default]
    None,
    /// Refuses new connections (nothing listens); open ones go on.
    Refuse,
    /// Accepts a connection and resets it at once; resets open ones too.
    Reset,
    /// Ends both sides in order after so many bytes in that direction, counted from the
    /// connection's begin. The bytes up to there arrive.
    CutAfter(Direction, u64),
    /// As [`Fault::CutAfter`], with a TCP reset.
    ResetAfter(Direction, u64),
    /// Passes nothing more, in either direction, and keeps the connection open.
    Stall,
    /// Passes so many bytes of each connection in that direction, then nothing more.
    StallAfter(Direction, u64),
    /// Passes so many bytes of each connection in that direction at full speed, then so many per second.
    SlowAfter(Direction, u64, u64),
    /// Holds every piece (up to 16 KiB) for this long before it goes on.
    Delay(Duration),
}

/// A running proxy; it ends with all its connections when dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    port: Port,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    /// For every connection without a fault of its own.
    fault: Mutex<Fault>,
    /// One for each of the next connections, kept for its life.
    script: Mutex<VecDeque<Fault>>,
    live: Mutex<Vec<TcpStream>>,
    connections: AtomicU64,
    bytes: AtomicU64,
    over: AtomicBool,
}

impl Proxy {
    /// Starts a proxy in front of a server on 127.0.0.1.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(target_port: u16) -> Self {
        let port = Port::take();
        let shared = Arc::new(Shared {
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, target_port)),
            fault: Mutex::default(),
            script: Mutex::default(),
            live: Mutex::default(),
            connections: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let (number, for_thread) = (port.number(), Arc::clone(&shared));
        let listener = listen(number);
        let acceptor = thread::spawn(move || for_thread.accept(number, Some(listener)));
        Self { shared, acceptor: Some(acceptor), port }
    }

    /// The port on 127.0.0.1 that clients use.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Changes what happens to all connections, open and new, except scripted ones.
    /// With [`Fault::Refuse`] it returns when nothing listens any more, and with any other
    /// fault when the port listens.
    pub fn set(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
        let refuse = fault == Fault::Refuse;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).is_ok() == refuse {
            sleep(POLL);
        }
    }

    /// Gives each of the next connections a fault of its own, for its whole life; those after
    /// them follow [`Proxy::set`] again. `[CutAfter(..), None]` fails once and then works.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.shared.script).extend(faults);
    }

    /// Ends all open connections now.
    pub fn cut_all(&self) {
        for stream in lock(&self.shared.live).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections have carried at least one byte from a client.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many bytes have passed, in both directions.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.cut_all();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, port: u16, mut listener: Option<TcpListener>) {
        while !self.over.load(Ordering::SeqCst) {
            let refuse = *lock(&self.fault) == Fault::Refuse;
            match &listener {
                Some(_) if refuse => listener = None,
                None if !refuse => listener = Some(listen(port)),
                Some(open) => match open.accept() {
                    Ok((client, _)) => {
                        let shared = Arc::clone(&self);
                        thread::spawn(move || shared.serve(&client));
                    }
                    Err(_) => sleep(POLL),
                },
                None => sleep(POLL),
            }
        }
    }

    fn serve(self: Arc<Self>, client: &TcpStream) {
        let _ = client.set_nonblocking(false);
        // A connection counts, and takes its fault from the script, with its first byte: a mere
        // look whether the port is open must not use it up.
        let _ = client.set_read_timeout(Some(POLL));
        if !self.first_byte(client) {
            return;
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        let own = lock(&self.script).pop_front();
        if own.unwrap_or_else(|| *lock(&self.fault)) == Fault::Reset {
            return reset(client);
        }
        let Ok(server) = TcpStream::connect(self.target) else {
            return reset(client);
        };
        // Small messages would wait 40 ms for the other side's acknowledgement.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(client_copy), Ok(server_copy)) = (client.try_clone(), server.try_clone()) else {
            return reset(client);
        };
        lock(&self.live).extend([client, &server].into_iter().filter_map(|s| s.try_clone().ok()));
        let shared = Arc::clone(&self);
        let back = thread::spawn(move || {
            shared.pump(&server_copy, &client_copy, Direction::ToClient, own);
        });
        self.pump(client, &server, Direction::ToServer, own);
        let _ = back.join();
    }

    /// Waits for the client's first byte, or, for a protocol where the server speaks first, a
    /// moment. Says whether the client is still there.
    fn first_byte(&self, client: &TcpStream) -> bool {
        for _ in 0..5 {
            match client.peek(&mut [0]) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(err) if is_timeout(&err) => {}
                Err(_) => return false,
            }
        }
        !self.over.load(Ordering::SeqCst)
    }

    /// Waits, but not beyond the proxy's end.
    fn rest(&self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time && !self.over.load(Ordering::SeqCst) {
            sleep(POLL.min(time.saturating_sub(begun.elapsed())));
        }
    }

    /// Passes bytes one way until an end, a fault or the proxy's end.
    fn pump(&self, from: &TcpStream, to: &TcpStream, way: Direction, own: Option<Fault>) {
        let (mut reader, mut writer) = (from, to);
        let _ = reader.set_read_timeout(Some(POLL));
        let mut passed = 0_u64;
        let mut buffer = vec![0; CHUNK_BYTES];
        while !self.over.load(Ordering::SeqCst) {
            let fault = own.unwrap_or_else(|| *lock(&self.fault));
            let room = match fault {
                Fault::Reset => return both(from, to, reset),
                Fault::Stall => 0,
                Fault::CutAfter(at, limit) | Fault::ResetAfter(at, limit) if at == way => {
                    let room = limit.saturating_sub(passed);
                    if room == 0 {
                        let hard = matches!(fault, Fault::ResetAfter(..));
                        return both(from, to, if hard { reset } else { cut });
                    }
                    room
                }
                Fault::StallAfter(at, limit) if at == way => limit.saturating_sub(passed),
                Fault::SlowAfter(at, limit, per_second) if at == way => match limit.saturating_sub(passed) {
                    0 => (per_second / SLOW_PIECES_PER_SECOND).max(1),
                    room => room,
                },
                _ => u64::MAX,
            };
            if room == 0 {
                sleep(POLL);
                continue;
            }
            let size = usize::try_from(room).unwrap_or(usize::MAX).min(buffer.len());
            match reader.read(&mut buffer[..size]) {
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) => {
                    match fault {
                        Fault::Delay(time) => sleep(time),
                        Fault::SlowAfter(at, limit, per_second) if at == way && passed >= limit => {
                            self.rest(Duration::from_millis(count as u64 * 1000 / per_second.max(1)));
                        }
                        _ => {}
                    }
                    if writer.write_all(&buffer[..count]).is_err() {
                        return both(from, to, cut);
                    }
                    passed += count as u64;
                    self.bytes.fetch_add(count as u64, Ordering::SeqCst);
                }
                Err(err) if is_timeout(&err) => {}
                Err(_) => return both(from, to, cut),
            }
        }
        both(from, to, cut);
    }
}

fn listen(port: u16) -> TcpListener {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap_or_else(|err| panic!("listen on port {port}: {err}"));
    listener.set_nonblocking(true).expect("set a listener non-blocking");
    listener
}

fn both(a: &TcpStream, b: &TcpStream, end: fn(&TcpStream)) {
    end(a);
    end(b);
}

fn cut(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

/// Makes the other side see `connection reset`. A shutdown alone would look like an orderly
/// end; a connect to an "unspecified" address makes Linux send a reset even while other copies of the
/// socket are open.
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    let _ = rustix::net::connect_unspec(stream);
}

fn is_timeout(err: &std::io::Error) -> bool {
    matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
