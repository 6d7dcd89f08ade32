//! How a Redis or Valkey server is reached, and what is known about its files.

use std::path::PathBuf;

use rekindle_core::{Fault, Result, Secret, codes};

/// Port of Redis when the URL names none.
const DEFAULT_PORT: u16 = 6379;

/// Everything the component has to be told.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://host:port`, `rediss://host:port` (TLS), `unix:///path/redis.sock`. User and
    /// password may stand in it (percent-encoded); `username` and `password` win.
    pub url: Secret<String>,
    /// ACL user; `None` is the user `default`.
    pub username: Option<String>,
    pub password: Option<Secret<String>>,
    /// PEM file with the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files with the client's certificate chain and key.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// The server's data directory (`dir`), for a restore in place.
    pub data_dir: Option<PathBuf>,
    /// Whether the restored server will run with `appendonly yes`; `None`: as captured.
    pub appendonly: Option<bool>,
}

impl RedisOptions {
    /// The options for a server at this URL, everything else as usual.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: Secret::new(url.into()),
            username: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            data_dir: None,
            appendonly: None,
        }
    }

    /// Where and as whom to connect. `other` replaces the configured URL, and its credentials,
    /// if it has any, the configured ones.
    pub(crate) fn endpoint(&self, other: Option<&str>) -> Result<Endpoint> {
        let mut endpoint = Endpoint::parse(other.unwrap_or(self.url.expose()))?;
        if other.is_some() && endpoint.password.is_some() {
            return Ok(endpoint);
        }
        if let Some(username) = &self.username {
            endpoint.username = Some(username.clone());
        }
        if let Some(password) = &self.password {
            endpoint.password = Some(password.clone());
        }
        Ok(endpoint)
    }
}

/// How bytes get to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp { host: String, port: u16, tls: bool },
    Unix(PathBuf),
}

/// A parsed URL with its credentials.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) transport: Transport,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret<String>>,
}

impl std::fmt::Display for Endpoint {
    /// Without credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.transport {
            Transport::Tcp { host, port, .. } if host.contains(':') => {
                write!(f, "[{host}]:{port}")
            }
            Transport::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Transport::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Endpoint {
    /// The URL without credentials.
    pub(crate) fn url(&self) -> String {
        match &self.transport {
            Transport::Tcp { tls: true, .. } => format!("rediss://{self}"),
            Transport::Tcp { .. } => format!("redis://{self}"),
            Transport::Unix(_) => format!("unix://{self}"),
        }
    }

    /// Parses a URL. Errors never repeat it: it may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once(':').ok_or_else(|| bad("it has no scheme"))?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            "unix" | "redis+unix" => return Self::unix(rest),
            _ => return Err(bad("its scheme is not redis, rediss or unix")),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, rest),
        };
        let (host, port) = host_and_port(place)?;
        let mut endpoint = Self { transport: Transport::Tcp { host, port, tls }, username: None, password: None };
        if let Some(credentials) = credentials {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            endpoint.username = Some(percent_decode(user)?).filter(|text| !text.is_empty());
            endpoint.password = Some(percent_decode(password)?).filter(|text| !text.is_empty()).map(Secret::new);
        }
        Ok(endpoint)
    }

    fn unix(path: &str) -> Result<Self> {
        if !path.starts_with('/') {
            return Err(bad("the path of the socket must be absolute"));
        }
        Ok(Self { transport: Transport::Unix(PathBuf::from(percent_decode(path)?)), username: None, password: None })
    }
}

fn host_and_port(place: &str) -> Result<(String, u16)> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(|| bad("`[` has no `]`"))?;
        (host, port.strip_prefix(':'))
    } else {
        match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    if host.is_empty() {
        return Err(bad("it names no host"));
    }
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(port) => port.parse().map_err(|_| bad("its port is not a number"))?,
    };
    Ok((host.to_owned(), port))
}

fn percent_decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(|| bad("a `%` has no two digits after it"))?;
        let byte = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| bad("a `%` has no two digits after it"))?;
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8"))
}

fn bad(why: &str) -> Fault {
    Fault::new(codes::CONFIG_VALUE, format!("read the URL of Redis: {why}"))
        .hint("write it as `redis://host:6379`, `rediss://host:6379` or `unix:///path/to/socket`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: bool) -> Transport {
        Transport::Tcp { host: host.to_owned(), port, tls }
    }

    #[test]
    fn urls_name_place_and_credentials() {
        let endpoint = Endpoint::parse("rediss://bob:p%40ss%3A@db.example:7000/0").unwrap();
        assert_eq!(endpoint.transport, tcp("db.example", 7000, true));
        assert_eq!(endpoint.username.as_deref(), Some("bob"));
        assert_eq!(endpoint.password.unwrap().expose(), "p@ss:");
        let endpoint = Endpoint::parse("redis://:secret@[::1]").unwrap();
        assert_eq!(endpoint.transport, tcp("::1", 6379, false));
        assert_eq!(endpoint.username, None);
        assert_eq!(endpoint.to_string(), "[::1]:6379");
        let endpoint = Endpoint::parse("unix:///run/redis.sock").unwrap();
        assert_eq!(endpoint.transport, Transport::Unix("/run/redis.sock".into()));
    }

    #[test]
    fn bad_urls_are_refused_without_being_repeated() {
        for bad in [
            "localhost",
            "http://:canary@x",
            "redis://:canary@",
            "redis://:canary@h:port",
            "redis://:canary%4@h",
            "unix:canary",
        ] {
            let fault = Endpoint::parse(bad).unwrap_err();
            assert!(fault.is(codes::CONFIG_VALUE));
            assert!(!format!("{fault:#}").contains("canary"), "{bad}");
        }
    }

    #[test]
    fn options_win_over_the_url_and_debug_shows_no_secret() {
        let mut options = RedisOptions::new("redis://a:canary@h");
        options.username = Some("b".to_owned());
        options.password = Some(Secret::new("other-canary".to_owned()));
        let endpoint = options.endpoint(None).unwrap();
        assert_eq!(endpoint.username.as_deref(), Some("b"));
        assert!(!format!("{options:?} {endpoint:?} {endpoint}").contains("canary"));
    }
}
