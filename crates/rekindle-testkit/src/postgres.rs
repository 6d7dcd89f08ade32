//! A private PostgreSQL cluster.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::port::Port;
use crate::process::{Server, Signal, Traces, run, temp_dir};
use crate::tls::Certificate;
use crate::tools;

/// How to start a cluster.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The major version: 15 is Debian's, 16 and 17 come from `scripts/setup`.
    pub major: u32,
    /// Whether commits wait for the disk. Tests that cut the power need it, others are faster
    /// without.
    pub durable: bool,
    /// Whether TCP connections can use TLS, with a certificate of an own authority.
    pub tls: bool,
    /// Whether pages carry checksums.
    pub checksums: bool,
    /// Further arguments of `initdb`.
    pub initdb: Vec<String>,
    /// The superuser's password.
    pub password: String,
    /// Further settings, as on the server's command line.
    pub settings: Vec<(String, String)>,
    /// Lines put before the ordinary ones of `pg_hba.conf`.
    pub access: Vec<String>,
    /// An existing cluster to run instead of making a new one. It must belong to the user the
    /// server runs as ([`Postgres::os_user`]).
    pub data_dir: Option<PathBuf>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            major: 15,
            durable: false,
            tls: false,
            checksums: true,
            initdb: Vec::new(),
            password: format!("canary-postgres-{}", std::process::id()),
            settings: Vec::new(),
            access: Vec::new(),
            data_dir: None,
        }
    }
}

/// A running (or stopped) PostgreSQL; gone with all its files when dropped.
///
/// Over TCP it asks for the password (SCRAM); over its unix socket it trusts everybody.
#[derive(Debug)]
pub struct Postgres {
    server: Option<Server>,
    options: PostgresOptions,
    bin: PathBuf,
    data: PathBuf,
    certificate: Option<Certificate>,
    port: Port,
    dir: TempDir,
}

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub fn start(options: PostgresOptions) -> Self {
        let dir = temp_dir("pg");
        give_to_postgres(dir.path());
        let installed = tools::postgres_bin(options.major);
        let bin = if Self::os_user().is_none() || tools::open_to_all(&installed) {
            installed
        } else {
            copy_programs(&installed, dir.path())
        };
        let data = options.data_dir.clone().unwrap_or_else(|| dir.path().join("data"));
        if options.data_dir.is_none() {
            make_cluster(&bin, &data, dir.path(), &options);
        }
        let certificate = options.tls.then(|| {
            let certificate = Certificate::make(dir.path());
            give_to_postgres(&certificate.key);
            certificate
        });
        let mut access = options.access.join("\n");
        access.push_str(
            "\nlocal all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n\
             local replication all trust\nhost replication all 127.0.0.1/32 scram-sha-256\n",
        );
        fs::write(dir.path().join("pg_hba.conf"), access).expect("write pg_hba.conf");
        let mut postgres = Self { server: None, options, bin, data, certificate, port: Port::take(), dir };
        postgres.launch();
        postgres
    }

    /// The user id and group id that servers run as: `postgres` when the tests run as root,
    /// because PostgreSQL refuses root; otherwise `None`, which means the tests' own user.
    pub fn os_user() -> Option<(u32, u32)> {
        if !rustix::process::getuid().is_root() {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
        let ids = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next() == Some("postgres");
            let (uid, gid) = (fields.nth(1)?, fields.next()?);
            found.then(|| Some((uid.parse().ok()?, gid.parse().ok()?)))?
        });
        Some(ids.expect("the user `postgres` exists: run scripts/setup --tests"))
    }

    /// Connection URL of a database over TCP, with the password.
    pub fn url_of(&self, database: &str) -> String {
        format!(
            "postgres://{}:{}@127.0.0.1:{}/{}",
            self.superuser(),
            percent(self.password()),
            self.port(),
            percent(database)
        )
    }

    /// Connection URL of the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The directory of the unix socket.
    pub fn host_socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The superuser's name.
    pub fn superuser(&self) -> &'static str {
        "postgres"
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        &self.options.password
    }

    /// The directory with this version's programs.
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// The cluster's data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.options.major
    }

    /// The authority's certificate, of a server started with `tls`.
    pub fn ca(&self) -> Option<&Path> {
        self.certificate.as_ref().map(|certificate| certificate.ca.as_path())
    }

    /// The last part of the server's log.
    pub fn log_tail(&self) -> String {
        crate::process::log_tail(&self.log())
    }

    /// Everything the server has logged.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// Runs SQL as superuser; rows as lines, columns separated by `|`.
    ///
    /// # Panics
    /// With psql's standard error at the first statement that fails.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|err| panic!("psql {database}: {err}\n{sql:.500}"))
    }

    /// As [`Postgres::psql`], with psql's standard error as `Err`.
    pub fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut child = self
            .client("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start psql");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let sql = sql.to_owned();
        // psql may answer before it has read everything: write beside reading.
        let writer = std::thread::spawn(move || stdin.write_all(sql.as_bytes()));
        let output = child.wait_with_output().expect("wait for psql");
        let _ = writer.join();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }

    /// A client program of this version with the connection in its environment (unix socket,
    /// superuser).
    pub fn client(&self, program: &str) -> Command {
        let mut command = tools::command(self.bin.join(program));
        command
            .env("PGHOST", self.host_socket_dir())
            .env("PGPORT", self.port().to_string())
            .env("PGUSER", self.superuser())
            // No certificates or password files of whoever runs the tests.
            .env("HOME", self.dir.path())
            .env("PGPASSFILE", self.dir.path().join("no-password-file"));
        command
    }

    /// The postmaster's process id; `None` while stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// Ends the server in order, closing all sessions (fast shutdown).
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Signal::INT);
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

    fn launch(&mut self) {
        let mut command = tools::command(self.bin.join("postgres"));
        command.arg("-D").arg(&self.data);
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.current_dir(self.dir.path());
        as_postgres(&mut command);
        let traces = Traces { dir: self.dir.path().to_owned(), mount: None };
        let mut server = Server::spawn("PostgreSQL", command, &self.log(), Signal::QUIT, &traces);
        server.wait_ready(|| {
            let output = self.client("pg_isready").args(["-q", "-t", "5"]).output();
            match output {
                Ok(output) if output.status.success() => Ok(()),
                other => Err(format!("pg_isready: {other:?}")),
            }
        });
        self.server = Some(server);
    }

    fn settings(&self) -> Vec<(String, String)> {
        let dir = self.dir.path().display();
        let on = if self.options.durable { "on" } else { "off" };
        let mut settings: Vec<(String, String)> = [
            ("port", self.port().to_string()),
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("unix_socket_directories", dir.to_string()),
            ("hba_file", format!("{dir}/pg_hba.conf")),
            ("fsync", on.to_owned()),
            ("synchronous_commit", on.to_owned()),
            ("full_page_writes", on.to_owned()),
            ("shared_buffers", "32MB".to_owned()),
            ("log_timezone", "UTC".to_owned()),
            ("log_line_prefix", "%m [%p] %q%u@%d ".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        if let Some(certificate) = &self.certificate {
            settings.push(("ssl".to_owned(), "on".to_owned()));
            settings.push(("ssl_cert_file".to_owned(), certificate.cert.display().to_string()));
            settings.push(("ssl_key_file".to_owned(), certificate.key.display().to_string()));
        }
        settings.extend(self.options.settings.iter().cloned());
        settings
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

fn make_cluster(bin: &Path, data: &Path, dir: &Path, options: &PostgresOptions) {
    let password = dir.join("password");
    fs::write(&password, &options.password).expect("write the password for initdb");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("chmod");
    give_to_postgres(&password);
    let mut command = tools::command(bin.join("initdb"));
    command
        .args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale", "C.UTF-8"])
        .args(["--no-sync", "--no-instructions", "-D"])
        .arg(data)
        .arg("--pwfile")
        .arg(&password)
        .current_dir(dir);
    if options.checksums {
        command.arg("--data-checksums");
    } else if options.major >= 18 {
        command.arg("--no-data-checksums");
    }
    command.args(&options.initdb);
    as_postgres(&mut command);
    run(command);
    fs::remove_file(&password).expect("remove the password file");
}

/// The whole installation again, at a place that the user `postgres` can reach.
fn copy_programs(bin: &Path, dir: &Path) -> PathBuf {
    let from = bin.parent().expect("a `bin` directory has a parent");
    let to = dir.join("pg");
    let mut command = Command::new("cp");
    command.arg("-a").arg(from).arg(&to);
    run(command);
    to.join("bin")
}

fn give_to_postgres(path: &Path) {
    if let Some((uid, gid)) = Postgres::os_user() {
        chown(path, Some(uid), Some(gid)).expect("chown to the user `postgres`");
    }
}

/// Lets a command run as the user `postgres` when we are root.
pub(crate) fn as_postgres(command: &mut Command) {
    if let Some((uid, gid)) = Postgres::os_user() {
        command.uid(uid).gid(gid);
    }
}

/// Percent-encoding of everything that is not a plain letter, digit, `-`, `_` or `.`.
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
