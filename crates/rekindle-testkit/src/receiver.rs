//! An HTTP server that takes messages: it remembers each request and answers as it is told.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the next requests are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Status(u16),
    /// After this time, with 200.
    Late(Duration),
    /// 302 to this address.
    Redirect(String),
    /// The connection is closed without a word.
    Nothing,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The running server, on 127.0.0.1; gone when dropped.
#[derive(Debug)]
pub struct WebReceiver {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    reply: Arc<Mutex<Reply>>,
    over: Arc<AtomicBool>,
}

impl WebReceiver {
    /// Starts one that answers 200.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let port = listener.local_addr().expect("the port").port();
        let receiver = Self {
            port,
            requests: Arc::default(),
            reply: Arc::new(Mutex::new(Reply::Status(200))),
            over: Arc::default(),
        };
        let (requests, reply, over) =
            (Arc::clone(&receiver.requests), Arc::clone(&receiver.reply), Arc::clone(&receiver.over));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (requests, reply) = (Arc::clone(&requests), Arc::clone(&reply));
                std::thread::spawn(move || {
                    let _ = serve(stream, &requests, &reply);
                });
            }
        });
        receiver
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// An address below it.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Changes its answers.
    ///
    /// # Panics
    /// When a thread of it has panicked.
    pub fn set(&self, reply: Reply) {
        *self.reply.lock().expect("the reply") = reply;
    }

    /// What it was sent so far.
    ///
    /// # Panics
    /// When a thread of it has panicked.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("the requests").clone()
    }
}

impl Drop for WebReceiver {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(mut stream: TcpStream, requests: &Mutex<Vec<Request>>, reply: &Mutex<Reply>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            length => bytes.extend_from_slice(&piece[..length]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    while bytes.len() < head_end + length.unwrap_or(0) {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            length => bytes.extend_from_slice(&piece[..length]),
        }
    }
    let body = String::from_utf8_lossy(&bytes[head_end..]).into_owned();
    let reply = reply.lock().expect("the reply").clone();
    requests.lock().expect("the requests").push(Request { method, target, headers, body });
    let answer = match reply {
        Reply::Nothing => return Ok(()),
        Reply::Late(time) => {
            std::thread::sleep(time);
            "200 OK\r\n".to_owned()
        }
        Reply::Status(status) => format!("{status} As Told\r\n"),
        Reply::Redirect(to) => format!("302 Found\r\nLocation: {to}\r\n"),
    };
    write!(stream, "HTTP/1.1 {answer}Content-Length: 0\r\nConnection: close\r\n\r\n")
}
