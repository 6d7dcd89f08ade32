//! The Redis protocol (RESP2), as much as tests need.
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const ANSWER_MAX: Duration = Duration::from_mins(1);

/// An answer of a Redis server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// No value.
    Nil,
    /// A status line, such as `OK`.
    Status(String),
    /// An error line.
    Error(String),
    /// A number.
    Integer(i64),
    /// A string of bytes.
    Bytes(Vec<u8>),
    /// A list of answers.
    Array(Vec<Value>),
}

impl Value {
    /// The bytes of a string or status; empty for nil.
    ///
    /// # Panics
    /// For any other answer.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Status(text) => text.as_bytes(),
            Self::Nil => &[],
            other => panic!("not a string: {other:?}"),
        }
    }

    /// The bytes as text, bad UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// The number.
    ///
    /// # Panics
    /// For any other answer.
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("not a number: {other:?}"),
        }
    }

    /// The members of an array; none for nil.
    ///
    /// # Panics
    /// For any other answer.
    pub fn array(&self) -> &[Self] {
        match self {
            Self::Array(values) => values,
            Self::Nil => &[],
            other => panic!("not an array: {other:?}"),
        }
    }
}

trait Stream: Read + Write + Send {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// One connection.
pub struct Connection {
    stream: BufReader<Box<dyn Stream>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Connects over a unix socket.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream: BufReader::new(Box::new(stream)) })
    }

    /// Connects to a port of 127.0.0.1.
    pub fn tcp(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream: BufReader::new(Box::new(stream)) })
    }

    /// Sends one command and reads its answer.
    pub fn call(&mut self, args: &[&[u8]]) -> io::Result<Value> {
        self.send(args)?;
        self.flush()?;
        self.receive()
    }

    /// Sends a command whose answer is read later with [`Connection::receive`].
    pub fn send(&mut self, args: &[&[u8]]) -> io::Result<()> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request)
    }

    /// Hands everything sent to the operating system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.get_mut().flush()
    }

    /// Reads one answer.
    pub fn receive(&mut self) -> io::Result<Value> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| bad("an empty line"))?;
        match kind {
            "+" => Ok(Value::Status(rest.to_owned())),
            "-" => Ok(Value::Error(rest.to_owned())),
            ":" => Ok(Value::Integer(number(rest)?)),
            "$" => match usize::try_from(number(rest)?) {
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Ok(Value::Bytes(bytes))
                }
                Err(_) => Ok(Value::Nil),
            },
            "*" => match usize::try_from(number(rest)?) {
                Ok(length) => (0..length).map(|_| self.receive()).collect::<io::Result<_>>().map(Value::Array),
                Err(_) => Ok(Value::Nil),
            },
            _ => Err(bad(&line)),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| bad(&line))
    }
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(|_| bad(text))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a RESP2 answer: {what:?}"))
}
