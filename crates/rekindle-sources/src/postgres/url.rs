//! Where a PostgreSQL server is: the URL form of libpq (PostgreSQL manual, 34.1.1.2), one host.

use std::fmt;
use std::path::{Path, PathBuf};

use rekindle_core::Secret;

/// How far the connection is protected. The words and their meaning are libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// TLS when the server offers it, without looking at the certificate.
    Prefer,
    /// TLS; the certificate is looked at only when a root certificate is given.
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    /// The word used in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull]
            .into_iter()
            .find(|mode| mode.as_str() == word)
    }
}

/// A host name or address, or the directory of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Tcp(String),
    Socket(PathBuf),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name) if name.contains(':') => write!(f, "[{name}]"),
            Self::Tcp(name) => f.write_str(name),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A server, and who we are there. The password is apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    pub host: Host,
    pub port: u16,
    pub user: String,
    /// The database of the URL; `postgres` when it names none.
    pub database: String,
    pub ssl_mode: SslMode,
    /// Certificates (PEM) that may sign the server's; none: those of the system.
    pub root_certificate: Option<PathBuf>,
}

impl fmt::Display for ServerUrl {
    /// Host and port; nothing secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why a text is no usable URL. Its text never repeats the URL, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadUrl(pub String);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unusable PostgreSQL URL: {}", self.0)
    }
}

impl std::error::Error for BadUrl {}

fn bad<T>(why: impl Into<String>) -> Result<T, BadUrl> {
    Err(BadUrl(why.into()))
}

impl ServerUrl {
    /// Reads `postgres://user[:password]@host[:port]/database[?sslmode=…&sslrootcert=…&host=…]`.
    /// A Unix socket is `?host=/run/postgresql` or a percent-encoded host.
    pub fn parse(text: &str) -> Result<(Self, Option<Secret<String>>), BadUrl> {
        let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) else {
            return bad("it does not start with `postgres://`");
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (who, place) = match authority.rsplit_once('@') {
            Some((who, place)) => (who, place),
            None => ("", authority),
        };
        let (user, password) = match who.split_once(':') {
            Some((user, password)) => (decode(user)?, Some(Secret::new(decode(password)?))),
            None => (decode(who)?, None),
        };
        let (host, port) = split_port(place)?;
        let mut url = Self {
            host: host_of(&decode(host)?),
            port,
            user,
            database: decode(path)?,
            ssl_mode: SslMode::Prefer,
            root_certificate: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            url.parameter(name, decode(value)?)?;
        }
        if url.user.is_empty() {
            return bad("it names no user; write `postgres://USER@HOST/DATABASE`");
        }
        if url.database.is_empty() {
            "postgres".clone_into(&mut url.database);
        }
        Ok((url, password))
    }

    fn parameter(&mut self, name: &str, value: String) -> Result<(), BadUrl> {
        match name {
            "sslmode" => {
                self.ssl_mode = SslMode::parse(&value).ok_or_else(|| {
                    BadUrl("`sslmode` is one of disable, prefer, require, verify-ca, verify-full".to_owned())
                })?;
            }
            "sslrootcert" => self.root_certificate = Some(value.into()),
            "host" => self.host = host_of(&value),
            "port" => self.port = port_of(&value)?,
            "user" => self.user = value,
            "dbname" => self.database = value,
            _ => {
                return bad(format!(
                    "the parameter `{name}` is not known; use host, port, user, dbname, sslmode, \
                     sslrootcert"
                ));
            }
        }
        Ok(())
    }

    /// The URL without the password; [`ServerUrl::parse`] gives the same server again.
    pub fn to_url(&self) -> String {
        let host = match &self.host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
            Host::Tcp(name) => encode(name),
            Host::Socket(path) => encode(&path.to_string_lossy()),
        };
        let root = self
            .root_certificate
            .as_ref()
            .map_or_else(String::new, |path| format!("&sslrootcert={}", encode(&path.to_string_lossy())));
        format!(
            "postgres://{}@{host}:{}/{}?sslmode={}{root}",
            encode(&self.user),
            self.port,
            encode(&self.database),
            self.ssl_mode.as_str()
        )
    }
}

fn host_of(text: &str) -> Host {
    match text {
        "" => Host::Tcp("localhost".to_owned()),
        _ if text.starts_with('/') => Host::Socket(Path::new(text).to_owned()),
        _ => Host::Tcp(text.to_owned()),
    }
}

fn port_of(text: &str) -> Result<u16, BadUrl> {
    match text.parse() {
        Ok(port @ 1..) => Ok(port),
        _ => bad("the port is not a number between 1 and 65535"),
    }
}

fn split_port(place: &str) -> Result<(&str, u16), BadUrl> {
    const PORT: u16 = 5432;
    if place.contains(',') {
        return bad("it names several hosts; name the one to back up");
    }
    if let Some(inner) = place.strip_prefix('[') {
        let Some((address, rest)) = inner.split_once(']') else {
            return bad("an IPv6 address lacks its `]`");
        };
        return match rest.strip_prefix(':') {
            Some(port) => Ok((address, port_of(port)?)),
            None if rest.is_empty() => Ok((address, PORT)),
            None => bad("text stands between `]` and the port"),
        };
    }
    match place.rsplit_once(':') {
        Some((host, port)) => Ok((host, port_of(port)?)),
        None => Ok((place, PORT)),
    }
}

/// Percent-encodes everything that is not plain.
pub(super) fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            all.push(char::from(byte));
        } else {
            let _ = write!(all, "%{byte:02X}");
        }
        all
    })
}

/// Undoes percent encoding.
fn decode(text: &str) -> Result<String, BadUrl> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
            let Some(byte) = digits.and_then(|d| u8::from_str_radix(d, 16).ok()) else {
                return bad("a `%` is not followed by two hex digits; write `%25` for it");
            };
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).map_err(|_| BadUrl("it is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (ServerUrl, Option<Secret<String>>) {
        ServerUrl::parse(text).unwrap()
    }

    #[test]
    fn the_forms_of_the_manual() {
        let (url, password) = parse("postgres://bob:p%40ss%3Aw@db.example:6432/app?sslmode=require");
        assert_eq!(url.to_string(), "db.example:6432");
        assert_eq!((url.user.as_str(), url.database.as_str()), ("bob", "app"));
        assert_eq!(url.ssl_mode, SslMode::Require);
        assert_eq!(password.unwrap().expose(), "p@ss:w");
        let (url, password) = parse("postgresql://bob@[::1]:5433");
        assert_eq!(url.host, Host::Tcp("::1".into()));
        assert_eq!((url.port, url.database.as_str()), (5433, "postgres"));
        assert!(password.is_none());
        for socket in
            ["postgres://bob@/app?host=/run/postgresql&port=5444", "postgres://bob@%2Frun%2Fpostgresql:5444/app"]
        {
            let (url, _) = parse(socket);
            assert_eq!(url.host, Host::Socket("/run/postgresql".into()));
            assert_eq!(url.port, 5444);
            assert_eq!(ServerUrl::parse(&url.to_url()).unwrap().0, url);
        }
    }

    #[test]
    fn errors_never_repeat_the_password() {
        for text in [
            "mysql://bob:hunter2@h/app",
            "postgres://bob:hunter2@h:99999/app",
            "postgres://bob:hunter2%zz@h/app",
            "postgres://bob:hunter2@h1,h2/app",
            "postgres://bob:hunter2@h/app?sslmode=maybe",
            "postgres://bob:hunter2@h/app?color=red",
            "postgres://:hunter2@h/app",
        ] {
            let error = ServerUrl::parse(text).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
