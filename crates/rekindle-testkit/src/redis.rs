//! A private Redis or Valkey.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::port::Port;
use crate::process::{Server, Signal, Traces, temp_dir};
use crate::resp::{Connection, Value};
use crate::tls::Certificate;
use crate::tools;

/// Which server program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RedisProgram {
    /// Debian's `redis-server` (7.0).
    #[default]
    Redis,
    /// `valkey-server` (9), whose RDB magic is `VALKEY`.
    Valkey,
}

/// How to start a server.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices, named where they are made")]
pub struct RedisOptions {
    /// Which server program.
    pub program: RedisProgram,
    /// Whether it keeps an append-only file.
    pub appendonly: bool,
    /// Password of the default user (`requirepass`).
    pub password: Option<String>,
    /// ACL users, each as in a configuration file after the word `user`:
    /// `backup on >secret +@all ~*`.
    pub users: Vec<String>,
    /// Whether TCP is TLS only, with a certificate of an own authority.
    pub tls: bool,
    /// Whether it listens on TCP at all. Its unix socket is always there.
    pub tcp: bool,
    /// Whether the command CONFIG is taken away, as some hosts do.
    pub without_config: bool,
    /// How many databases it has.
    pub databases: u32,
    /// An existing data directory instead of an empty one.
    pub dir: Option<PathBuf>,
    /// Further lines of the configuration file.
    pub lines: Vec<String>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            program: RedisProgram::Redis,
            appendonly: false,
            password: None,
            users: Vec::new(),
            tls: false,
            tcp: true,
            without_config: false,
            databases: 16,
            dir: None,
            lines: Vec::new(),
        }
    }
}

/// A running (or stopped) Redis; gone with all its files when dropped.
#[derive(Debug)]
pub struct Redis {
    server: Option<Server>,
    options: RedisOptions,
    data: PathBuf,
    certificate: Option<Certificate>,
    port: Port,
    dir: TempDir,
}

impl Redis {
    /// Starts a server.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    pub fn start(options: RedisOptions) -> Self {
        let dir = temp_dir("redis");
        let data = options.dir.clone().unwrap_or_else(|| dir.path().join("data"));
        fs::create_dir_all(&data).expect("make the data directory");
        let certificate = options.tls.then(|| Certificate::make(dir.path()));
        let mut redis = Self { server: None, options, data, certificate, port: Port::take(), dir };
        fs::write(redis.config_file(), redis.config()).expect("write redis.conf");
        redis.launch();
        redis
    }

    /// Connection URL over TCP (`rediss://` with TLS), with the default user's password.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls { "rediss" } else { "redis" };
        let login = self.options.password.as_ref().map_or(String::new(), |word| format!(":{word}@"));
        format!("{scheme}://{login}127.0.0.1:{}", self.port())
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// The directory with the RDB and AOF files.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The server's configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("redis.conf")
    }

    /// The authority's certificate, of a server started with `tls`.
    pub fn ca(&self) -> Option<&Path> {
        self.certificate.as_ref().map(|certificate| certificate.ca.as_path())
    }

    /// The options it was started with.
    pub fn options(&self) -> &RedisOptions {
        &self.options
    }

    /// The process id; `None` while stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// The last part of the server's log.
    pub fn log_tail(&self) -> String {
        crate::process::log_tail(&self.log())
    }

    /// A new connection over the unix socket, logged in as the default user.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn connect(&self) -> Connection {
        self.try_connect().unwrap_or_else(|err| panic!("connect to Redis: {err}"))
    }

    /// Runs one command in database 0 over a new connection.
    ///
    /// # Panics
    /// When the server is not there or answers with an error.
    pub fn command(&self, args: &[&[u8]]) -> Value {
        let answer = self.connect().call(args).expect("talk to Redis");
        if let Value::Error(error) = &answer {
            let words: Vec<_> = args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
            panic!("redis {words:?}: {error}");
        }
        answer
    }

    /// Ends the server in order (it saves according to its configuration).
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Signal::TERM);
        }
    }

    /// Ends the server by SIGKILL, as a crash would.
    pub fn kill9(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill9();
        }
    }

    /// Starts the server again on the same port and data, stopping it first if it runs.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    fn try_connect(&self) -> Result<Connection, String> {
        let mut connection = Connection::unix(&self.socket()).map_err(|err| err.to_string())?;
        if let Some(password) = &self.options.password {
            let answer = connection.call(&[b"AUTH", password.as_bytes()]);
            match answer.map_err(|err| err.to_string())? {
                Value::Error(error) => return Err(error),
                _ => return Ok(connection),
            }
        }
        Ok(connection)
    }

    fn launch(&mut self) {
        // A socket file of a killed server would look like a living one that refuses.
        let _ = fs::remove_file(self.socket());
        let program = match self.options.program {
            RedisProgram::Redis => "redis-server",
            RedisProgram::Valkey => "valkey-server",
        };
        let mut command = tools::command(tools::find(program));
        command.arg(self.config_file()).current_dir(self.dir.path());
        let traces = Traces { dir: self.dir.path().to_owned(), mount: None };
        // What it holds is thrown away: no reason to let it save once more.
        let mut server = Server::spawn(program, command, &self.log(), Signal::KILL, &traces);
        server.wait_ready(|| {
            // While it loads its data it answers with an error.
            match self.try_connect()?.call(&[b"PING"]).map_err(|err| err.to_string())? {
                Value::Error(error) => Err(error),
                _ => Ok(()),
            }
        });
        self.server = Some(server);
    }

    fn config(&self) -> String {
        let port = if self.options.tcp { self.port() } else { 0 };
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("unixsocket {}", self.socket().display()),
            format!("dir {}", self.data.display()),
            "save \"\"".to_owned(),
            format!("appendonly {}", if self.options.appendonly { "yes" } else { "no" }),
            format!("databases {}", self.options.databases),
        ];
        if let Some(certificate) = &self.certificate {
            lines.push("port 0".to_owned());
            lines.push(format!("tls-port {port}"));
            lines.push(format!("tls-cert-file {}", certificate.cert.display()));
            lines.push(format!("tls-key-file {}", certificate.key.display()));
            lines.push(format!("tls-ca-cert-file {}", certificate.ca.display()));
            lines.push("tls-auth-clients no".to_owned());
        } else {
            lines.push(format!("port {port}"));
        }
        if let Some(password) = &self.options.password {
            lines.push(format!("requirepass {password}"));
        }
        if self.options.without_config {
            lines.push("rename-command CONFIG \"\"".to_owned());
        }
        lines.extend(self.options.users.iter().map(|user| format!("user {user}")));
        lines.extend(self.options.lines.iter().cloned());
        lines.push(String::new());
        lines.join("\n")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}
