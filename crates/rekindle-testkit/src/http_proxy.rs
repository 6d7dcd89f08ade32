//! A proxy on loopback that knows where an HTTP request ends: it answers in the server's place,
//! or lets the server do the work and loses the answer.
//!
//! Each request has connections of its own, so nothing of one reaches another.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use crate::port::Port;

/// How often a waiting thread looks whether something has changed.
const POLL: Duration = Duration::from_millis(10);
const HEAD_MAX_BYTES: usize = 64 << 10;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The server never sees it; the client gets this status and these headers.
    Instead(u16, Vec<(String, String)>),
    /// The server carries it out, and the connection is cut before the answer.
    Lost,
    /// The server carries it out, and the client gets this status for an answer.
    Changed(u16),
    /// So many bytes of the body pass, then both connections are cut.
    CutBody(u64),
    /// Nothing passes and nothing is answered, until the rule is gone.
    Held,
}

/// A request that came in, whatever was answered.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    head: String,
}

impl Seen {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

#[derive(Debug)]
struct Rule {
    method: &'static str,
    part: String,
    /// How often it still applies; `None` for always.
    left: Option<u32>,
    answer: Answer,
    hits: u32,
}

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct HttpProxy {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    port: Port,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    over: AtomicBool,
}

impl HttpProxy {
    /// Starts a proxy in front of a server without TLS on 127.0.0.1.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(target_port: u16) -> Self {
        let port = Port::take();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).expect("listen");
        listener.set_nonblocking(true).expect("set a listener non-blocking");
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target_port));
        let shared =
            Arc::new(Shared { target, rules: Mutex::default(), seen: Mutex::default(), over: AtomicBool::new(false) });
        let for_thread = Arc::clone(&shared);
        let acceptor = thread::spawn(move || for_thread.accept(&listener));
        Self { shared, acceptor: Some(acceptor), port }
    }

    /// The port on 127.0.0.1 that clients use.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// From now on requests of this method whose target (path and query) holds `part` are
    /// answered so, `times` times or always. Earlier rules come first.
    pub fn rule(&self, method: &'static str, part: &str, times: Option<u32>, answer: Answer) {
        self.shared.rules().push(Rule { method, part: part.to_owned(), left: times, answer, hits: 0 });
    }

    /// Removes all rules, and says how many requests they have met.
    pub fn clear(&self) -> u32 {
        self.shared.rules().drain(..).map(|rule| rule.hits).sum()
    }

    /// Every request so far, in the order in which they came in.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests the present rules have met.
    pub fn hits(&self) -> u32 {
        self.shared.rules().iter().map(|rule| rule.hits).sum()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while !self.over.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((client, _)) => {
                    let shared = Arc::clone(&self);
                    thread::spawn(move || {
                        // A client that goes away is no concern of ours.
                        let _ = shared.serve(&client);
                        let _ = client.shutdown(Shutdown::Both);
                    });
                }
                Err(_) => sleep(POLL),
            }
        }
    }

    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        client.set_nonblocking(false)?;
        client.set_nodelay(true)?;
        let Some(request) = Request::read(client)? else { return Ok(()) };
        let (method, target, head) = (request.method.clone(), request.target.clone(), request.head.clone());
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { method, target, head });
        match self.decide(&request) {
            None => {
                let answer = self.forward(client, &request, request.body_bytes)?;
                (&*client).write_all(&answer)
            }
            Some(Answer::Instead(status, headers)) => {
                request.take_body(client, &mut io::sink(), request.body_bytes)?;
                refuse(client, status, &headers)
            }
            Some(Answer::Lost) => self.forward(client, &request, request.body_bytes).map(drop),
            Some(Answer::Changed(status)) => {
                self.forward(client, &request, request.body_bytes)?;
                refuse(client, status, &[])
            }
            Some(Answer::CutBody(bytes)) => self.cut(client, &request, bytes),
            Some(Answer::Held) => {
                while !self.over.load(Ordering::SeqCst) && self.holds(&request) {
                    sleep(POLL);
                }
                Ok(())
            }
        }
    }

    fn decide(&self, request: &Request) -> Option<Answer> {
        let mut rules = self.rules();
        let rule = rules.iter_mut().find(|rule| rule.meets(request) && rule.left != Some(0))?;
        rule.left = rule.left.map(|left| left - 1);
        rule.hits += 1;
        Some(rule.answer.clone())
    }

    fn holds(&self, request: &Request) -> bool {
        self.rules().iter().any(|rule| rule.meets(request) && rule.answer == Answer::Held)
    }

    /// Lets the server carry the request out; its whole answer.
    fn forward(&self, client: &TcpStream, request: &Request, bytes: u64) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(self.target)?;
        server.write_all(&request.head_with_close())?;
        request.take_body(client, &mut server, bytes)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        Ok(answer)
    }

    fn cut(&self, client: &TcpStream, request: &Request, bytes: u64) -> io::Result<()> {
        let mut server = TcpStream::connect(self.target)?;
        server.write_all(&request.head_with_close())?;
        request.take_body(client, &mut server, bytes.min(request.body_bytes))?;
        server.shutdown(Shutdown::Both)
    }
}

impl Rule {
    fn meets(&self, request: &Request) -> bool {
        self.method == request.method && request.target.contains(&self.part)
    }
}

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Request line and headers with their line ends, without the empty line.
    pub(crate) head: String,
    body_bytes: u64,
    /// What was read of the body together with the head.
    begun: Vec<u8>,
}

impl Request {
    /// `None` when the client went away without one.
    pub(crate) fn read(mut client: &TcpStream) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            let count = client.read(&mut buffer)?;
            if count == 0 || bytes.len() > HEAD_MAX_BYTES {
                return Ok(None);
            }
            bytes.extend_from_slice(&buffer[..count]);
        };
        let begun = bytes.split_off(end + 4);
        bytes.truncate(end + 2);
        let head = String::from_utf8(bytes).map_err(|err| io::Error::new(ErrorKind::InvalidData, err))?;
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let (method, target) = (method.to_owned(), target.to_owned());
        Ok(Some(Self { method, target, head, body_bytes: length.unwrap_or(0), begun }))
    }

    /// The end of the server's answer is then the end of its connection.
    fn head_with_close(&self) -> Vec<u8> {
        format!("{}Connection: close\r\n\r\n", self.head).into_bytes()
    }

    /// Passes the first `bytes` of the body.
    fn take_body(&self, client: &TcpStream, to: &mut impl Write, bytes: u64) -> io::Result<()> {
        let begun = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.begun.len());
        to.write_all(&self.begun[..begun])?;
        io::copy(&mut client.take(bytes - begun as u64), to)?;
        Ok(())
    }
}

fn refuse(mut client: &TcpStream, status: u16, headers: &[(String, String)]) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    client.write_all(format!("{head}\r\n").as_bytes())
}
