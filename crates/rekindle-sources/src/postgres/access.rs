//! How a client program gets in: environment and a private password file, never arguments.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rekindle_core::{ErrorCode, Fault, Result, Secret, codes};

use super::connect::{APPLICATION, Server};
use super::programs::{Home, Programs, base_environment};
use super::tls;
use super::url::Host;
use crate::child::ChildSpec;
use crate::container::Inside;

/// A password file (0600) that is removed when the last user of it is gone.
#[derive(Debug)]
struct PassFile(PathBuf);

impl Drop for PassFile {
    fn drop(&mut self) {
        // The directory is private and goes with the run; failing here loses nothing.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What client programs need to reach one server.
#[derive(Debug, Clone)]
pub(super) struct Access {
    server: Server,
    home: PathBuf,
    pass_file: Option<Arc<PassFile>>,
}

impl Access {
    /// Prepares the password file inside `scratch`.
    pub(super) fn new(server: &Server, scratch: &Path) -> Result<Self> {
        let pass_file = match &server.password {
            Some(password) => Some(Arc::new(write(scratch, password)?)),
            None => None,
        };
        Ok(Self { server: server.clone(), home: scratch.to_owned(), pass_file })
    }

    /// A child that connects by itself to the server.
    pub(super) fn child(
        &self,
        programs: &Programs,
        program: &str,
        args: Vec<OsString>,
        idle_max: Duration,
        what: String,
        code: &'static ErrorCode,
    ) -> ChildSpec {
        let (env, inside) = match &programs.home {
            None => (self.environment(), None),
            Some(home) => (self.environment_inside(home), Some(self.with_password(home))),
        };
        ChildSpec {
            program: programs.path(program),
            args,
            env,
            inside,
            idle_max,
            what,
            code,
            secrets: self.server.password.iter().cloned().collect(),
        }
    }

    /// The password goes in as the first line of input: what an exec is created with can be read by
    /// everybody who may inspect containers.
    fn with_password(&self, home: &Home) -> Inside {
        match &self.server.password {
            Some(password) => home.inside.with_secret("PGPASSWORD", password.clone()),
            None => home.inside.clone(),
        }
    }

    /// From inside the server's own container it is on the loopback, at its own port. Certificates that
    /// fit its name from outside do not fit that, and nobody listens between the two.
    fn environment_inside(&self, home: &Home) -> Vec<(String, OsString)> {
        let url = &self.server.url;
        let seconds = self.server.connect_timeout.as_secs().max(2);
        [
            ("LC_ALL", "C".to_owned()),
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", home.port(url.port).to_string()),
            ("PGUSER", url.user.clone()),
            ("PGSSLMODE", "prefer".to_owned()),
            ("PGAPPNAME", APPLICATION.to_owned()),
            ("PGCONNECT_TIMEOUT", seconds.to_string()),
            ("PGPASSFILE", "/dev/null".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .to_vec()
    }

    fn environment(&self) -> Vec<(String, OsString)> {
        let url = &self.server.url;
        let host = match &url.host {
            Host::Tcp(name) => name.into(),
            Host::Socket(path) => path.into(),
        };
        let mut env = base_environment();
        let mut set = |name: &str, value: OsString| env.push((name.to_owned(), value));
        // A private home: no `.pgpass`, service file or client certificate of somebody else.
        set("HOME", self.home.clone().into());
        set("PGHOST", host);
        set("PGPORT", url.port.to_string().into());
        set("PGUSER", url.user.clone().into());
        set("PGSSLMODE", url.ssl_mode.as_str().into());
        set("PGAPPNAME", APPLICATION.into());
        let seconds = self.server.connect_timeout.as_secs().max(2);
        set("PGCONNECT_TIMEOUT", seconds.to_string().into());
        if let Some(bundle) = tls::bundle(url) {
            set("PGSSLROOTCERT", bundle.into());
        }
        let none = PathBuf::from("/dev/null");
        let pass_file = self.pass_file.as_ref().map_or(&none, |file| &file.0);
        set("PGPASSFILE", pass_file.into());
        env
    }
}

fn write(scratch: &Path, password: &Secret<String>) -> Result<PassFile> {
    const ATTEMPTS_MAX: u32 = 1000;
    let fault = || Fault::new(codes::PG_AUTH, format!("write a password file in {}", scratch.display()));
    if password.expose().contains(['\n', '\r']) {
        return Err(fault()
            .because("the password holds a line break")
            .hint("choose a password of one line: PostgreSQL's password files cannot hold others"));
    }
    let escaped = password.expose().replace('\\', "\\\\").replace(':', "\\:");
    for attempt in 0..ATTEMPTS_MAX {
        let path = scratch.join(format!("pgpass-{attempt}"));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match opened {
            Ok(mut file) => {
                let pass_file = PassFile(path);
                return writeln!(file, "*:*:*:*:{escaped}").map(|()| pass_file).map_err(|error| fault().because(error));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fault().because(error)),
        }
    }
    Err(fault().because("every name is taken"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::postgres::url::ServerUrl;

    fn here() -> Programs {
        Programs { directory: "/bin".into(), major: 15, version: "15".to_owned(), home: None }
    }

    #[test]
    fn the_password_is_in_a_private_file_and_nowhere_else() {
        let scratch = tempfile::tempdir().unwrap();
        let (url, password) = ServerUrl::parse("postgres://u:ca%3An%5Cary@h/app").unwrap();
        let server = Server { url, password, connect_timeout: Duration::from_secs(5) };
        let access = Access::new(&server, scratch.path()).unwrap();
        let second = Access::new(&server, scratch.path()).unwrap();
        let child = access.child(&here(), "true", vec![], Duration::from_secs(1), "test".into(), codes::PG_DUMP);
        assert!(!format!("{child:?}").contains("ary"), "{child:?}");
        let file = scratch.path().join("pgpass-0");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "*:*:*:*:ca\\:n\\\\ary\n");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(access);
        assert!(!file.exists());
        drop(second);
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_password_that_the_file_cannot_hold_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let fault = write(scratch.path(), &Secret::new("a\nb".into())).unwrap_err();
        assert!(fault.is(codes::PG_AUTH));
    }
}
