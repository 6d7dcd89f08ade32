//! A small blocking client: commands out, RESP2 answers in, errors with codes and remedies.

use std::io::{BufRead, BufReader, Read, Write};

use rekindle_core::{Cancel, Fault, Result, codes};

use super::options::{Endpoint, RedisOptions};
use super::transport::Stream;

/// Read buffer of a connection.
const BUFFER_BYTES: usize = 64 << 10;
/// Longest line of an answer: errors and numbers are short.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Longest bulk answer (a DUMP payload); `proto-max-bulk-len` is 512 MiB by default.
const BULK_BYTES_MAX: u64 = 1 << 30;
/// Most elements of one array answer (`CONFIG GET *` has some hundreds).
const ARRAY_LENGTH_MAX: u64 = 1 << 20;
/// Deepest nesting of arrays (`MODULE LIST`, `FUNCTION LIST`).
const DEPTH_MAX: usize = 8;
/// What a user for backups has to be allowed; the reason stands in `docs/errors/RK-RD-002.md`.
pub(crate) const BACKUP_RULES: &str = "resetkeys -@all +ping +psync +sync +replconf +info";
/// With which configuration, ACLs and modules are captured too.
pub(crate) const EXTENDED_RULES: &str = "+config|get +acl|list +module|list";

/// An answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Status(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Array(Vec<Reply>),
    Null,
}

impl Reply {
    /// The text of a status or bulk answer.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Status(text) => Some(text.clone()),
            Self::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

/// One connection, logged in.
pub(crate) struct Client {
    stream: BufReader<Stream>,
    endpoint: Endpoint,
    cancel: Cancel,
}

impl Client {
    /// Connects and logs in; the server must be ready to serve.
    pub(crate) fn connect(endpoint: &Endpoint, options: &RedisOptions, cancel: &Cancel) -> Result<Self> {
        let mut client = Self {
            stream: BufReader::with_capacity(BUFFER_BYTES, Stream::open(endpoint, options, cancel)?),
            endpoint: endpoint.clone(),
            cancel: cancel.clone(),
        };
        client.login()?;
        let reply = client.command(&[b"PING"])?;
        match client.good("PING", reply) {
            Ok(_) => Ok(client),
            // A server that lets others wait for a password answers so to any command.
            Err(fault) => Err(fault.during(format!("log in to Redis at {endpoint}"))),
        }
    }

    fn login(&mut self) -> Result<()> {
        let Some(password) = self.endpoint.password.clone() else {
            return Ok(());
        };
        let user = self.endpoint.username.clone();
        let secret = password.expose().as_bytes();
        let reply = match &user {
            Some(user) => self.command(&[b"AUTH", user.as_bytes(), secret])?,
            None => self.command(&[b"AUTH", secret])?,
        };
        let what = format!("log in to Redis at {}", self.endpoint);
        match reply {
            Reply::Status(_) => Ok(()),
            // The answer may quote the command line, so it is not repeated here.
            Reply::Error(text) if text.starts_with("WRONGPASS") => Err(Fault::new(codes::REDIS_AUTH, what)
                .because("WRONGPASS: invalid user name or password, or the user is disabled")
                .hint(self.acl_hint())),
            Reply::Error(text) if text.contains("without any password configured") => {
                Err(Fault::new(codes::REDIS_AUTH, what)
                    .because("the server has no password set for the default user")
                    .hint("remove `password` from the configuration, or set `requirepass`"))
            }
            _ => Err(Fault::new(codes::REDIS_AUTH, what).because("AUTH was refused").hint(self.acl_hint())),
        }
    }

    /// The line that makes a user who may do what a backup needs.
    pub(crate) fn acl_hint(&self) -> String {
        let user = self.endpoint.username.as_deref().unwrap_or("rekindle");
        format!(
            "run `ACL SETUSER {user} on >PASSWORD {BACKUP_RULES} {EXTENDED_RULES}` on the server \
             and set `username` and `password`"
        )
    }

    /// Where this connection goes, without credentials.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends one command and reads its answer, an error of the server included.
    pub(crate) fn command(&mut self, arguments: &[&[u8]]) -> Result<Reply> {
        self.send(arguments)?;
        self.flush()?;
        self.reply()
    }

    /// Sends one command; an error of the server is an `Err`.
    pub(crate) fn call(&mut self, arguments: &[&[u8]]) -> Result<Reply> {
        let reply = self.command(arguments)?;
        let name = String::from_utf8_lossy(arguments.first().copied().unwrap_or_default());
        self.good(&name, reply)
    }

    /// Turns an error of the server into a fault with its code and remedy.
    pub(crate) fn good(&self, command: &str, reply: Reply) -> Result<Reply> {
        let Reply::Error(text) = reply else {
            return Ok(reply);
        };
        let what = format!("run {command} on Redis at {}", self.endpoint);
        let word = text.split_whitespace().next().unwrap_or_default();
        let fault = match word {
            "NOAUTH" | "WRONGPASS" | "NOPERM" => Fault::new(codes::REDIS_AUTH, what).hint(self.acl_hint()),
            "LOADING" => {
                Fault::new(codes::REDIS_LOADING, what).hint("wait until the server has loaded its data, then try again")
            }
            "MASTERDOWN" => Fault::new(codes::REDIS_LOADING, what)
                .hint("the replica has lost its primary: take the backup from the primary"),
            _ => Fault::new(codes::REDIS_PROTOCOL, what),
        };
        Err(fault.because(clip(&text)))
    }

    /// Queues a command without waiting for its answer.
    pub(crate) fn send(&mut self, arguments: &[&[u8]]) -> Result<()> {
        let mut head = Vec::with_capacity(64);
        head.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
        for argument in arguments {
            head.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            head.extend_from_slice(argument);
            head.extend_from_slice(b"\r\n");
        }
        self.write(&head)
    }

    /// Writes bytes that are a whole command already.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.stream.get_mut().write_all(bytes);
        written.map_err(|error| self.lost("send to", error))
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        let flushed = self.stream.get_mut().flush();
        flushed.map_err(|error| self.lost("send to", error))
    }

    /// Reads one answer.
    pub(crate) fn reply(&mut self) -> Result<Reply> {
        self.reply_at(0)
    }

    fn reply_at(&mut self, depth: usize) -> Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| self.odd("an empty line"))?;
        let text = String::from_utf8_lossy(rest);
        Ok(match kind {
            b"+" => Reply::Status(text.into_owned()),
            b"-" => Reply::Error(text.into_owned()),
            b":" => Reply::Integer(self.number(&text)?),
            b"$" => match u64::try_from(self.number(&text)?) {
                Err(_) => Reply::Null,
                Ok(length) if length > BULK_BYTES_MAX => {
                    return Err(self.odd("an answer of more than 1 GiB"));
                }
                Ok(length) => self.bulk(length)?,
            },
            b"*" => match u64::try_from(self.number(&text)?) {
                Err(_) => Reply::Null,
                Ok(length) if length > ARRAY_LENGTH_MAX || depth == DEPTH_MAX => {
                    return Err(self.odd("an array too long or too deep"));
                }
                Ok(length) => Reply::Array((0..length).map(|_| self.reply_at(depth + 1)).collect::<Result<_>>()?),
            },
            _ => return Err(self.odd(&format!("a line that starts with {:?}", kind[0]))),
        })
    }

    fn bulk(&mut self, length: u64) -> Result<Reply> {
        let mut bytes = Vec::new();
        let read = (&mut self.stream).take(length + 2).read_to_end(&mut bytes);
        read.map_err(|error| self.lost("read from", error))?;
        if !bytes.ends_with(b"\r\n") || bytes.len() as u64 != length + 2 {
            return Err(self.closed());
        }
        bytes.truncate(bytes.len() - 2);
        Ok(Reply::Bulk(bytes))
    }

    fn number(&self, text: &str) -> Result<i64> {
        text.parse().map_err(|_| self.odd("something else where a number has to be"))
    }

    /// One line without its end.
    pub(crate) fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| self.lost("read from", error))?;
        if line.pop() != Some(b'\n') {
            return Err(self.closed());
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(line)
    }

    /// Reads raw bytes: the stream of a synchronisation.
    pub(crate) fn read_raw(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => return read.map_err(|error| self.lost("read from", error)),
            }
        }
    }

    fn lost(&self, doing: &str, error: std::io::Error) -> Fault {
        if let Err(stopped) = self.cancel.check() {
            return stopped;
        }
        Fault::new(codes::REDIS_CONNECT, format!("{doing} Redis at {}", self.endpoint))
            .because(error)
            .hint("see that the server runs (its log says why it stopped), then run the command again")
    }

    fn closed(&self) -> Fault {
        Fault::new(codes::REDIS_CONNECT, format!("read from Redis at {}: it closed the connection", self.endpoint))
            .hint("look into the server's log")
    }

    fn odd(&self, seen: &str) -> Fault {
        Fault::new(codes::REDIS_PROTOCOL, format!("read from Redis at {}: {seen}", self.endpoint))
            .hint("check that `url` names a Redis or Valkey server, and whether it wants TLS")
    }
}

/// An error text of the server, short enough for a line.
pub(crate) fn clip(text: &str) -> String {
    const CHARACTERS_MAX: usize = 300;
    text.chars().take(CHARACTERS_MAX).collect()
}
