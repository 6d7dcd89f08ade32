//! A small HTTP client for the APIs of monitoring servers: deadlines, bounded answers, no redirects.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rekindle_core::fault::ErrorCode;
use rekindle_core::{Fault, Result, Secret};
use reqwest::{Client, Method, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;

/// Longest time until a connection stands, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest time for a short question.
pub(crate) const ANSWER_MAX: Duration = Duration::from_mins(1);
/// Bytes of an answer that are read; a bigger one is refused.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bytes of an unexpected answer that an error shows.
const SHOWN_BYTES: usize = 200;

/// As whom to ask.
#[derive(Debug, Clone, Default)]
pub enum Login {
    #[default]
    None,
    Basic {
        username: String,
        password: Secret<String>,
    },
    /// A bearer token.
    Token(Secret<String>),
}

/// Where a server's API is and how it is reached.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// `http://host:port/prefix` or `https://…`, without credentials.
    pub url: String,
    pub login: Login,
    /// PEM file with the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// What errors say about the server, and the codes they have.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) server: &'static str,
    pub(crate) connect: &'static ErrorCode,
    pub(crate) login: &'static ErrorCode,
    pub(crate) tls: &'static ErrorCode,
    pub(crate) answer: &'static ErrorCode,
}

/// A client of one server.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient {
    client: Client,
    base: Url,
    login: Login,
    names: &'static Names,
}

/// What the server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl HttpClient {
    /// Reads the certificates; connects to nothing.
    pub(crate) fn new(options: &HttpOptions, names: &'static Names) -> Result<Self> {
        let what = || format!("prepare the connection to {}", names.server);
        let base = Url::parse(&options.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                Fault::new(names.connect, what())
                    .because("the URL is not usable")
                    .hint("write it as `http://host:port` or `https://host:port`")
            })?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls(options.ca_file.as_deref(), names)?)
            .connect_timeout(CONNECT_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| Fault::new(names.tls, what()).because(error))?;
        Ok(Self { client, base, login: options.login.clone(), names })
    }

    /// The server's address for messages.
    pub(crate) fn address(&self) -> String {
        self.base.to_string().trim_end_matches('/').to_owned()
    }

    /// Asks; a refused login and a missing answer are errors, every other status is the caller's.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        longest: Duration,
    ) -> Result<Answer> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method, url).timeout(longest);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request = match &self.login {
            Login::None => request,
            Login::Basic { username, password } => request.basic_auth(username, Some(password.expose())),
            Login::Token(token) => request.bearer_auth(token.expose()),
        };
        let mut response = request.send().await.map_err(|error| self.lost(path, error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.lost(path, error))? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(self.unexpected(path, &format!("the answer is longer than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        let answer = Answer { status, body };
        match status {
            401 | 403 => Err(self.refused(path, status)),
            400 if answer.text().contains("HTTPS server") => Err(Fault::new(self.names.tls, self.what(path))
                .because("the server speaks TLS on this port")
                .hint("write `https://` in `url`")),
            _ => Ok(answer),
        }
    }

    /// Asks with GET and reads the answer as JSON; any status but 200 is an error.
    pub(crate) async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Result<T> {
        let answer = self.ask(Method::GET, path, query, headers, ANSWER_MAX).await?;
        if answer.status != 200 {
            return Err(self.unexpected(path, &format!("status {}: {}", answer.status, answer.shown())));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| self.unexpected(path, &format!("it is not the expected JSON: {error}")))
    }

    /// An answer that does not fit.
    pub(crate) fn unexpected(&self, path: &str, why: &str) -> Fault {
        Fault::new(self.names.answer, self.what(path))
            .because(why.to_owned())
            .hint(format!("check that `url` is that of {}, with its path prefix if it has one", self.names.server))
    }

    fn what(&self, path: &str) -> String {
        format!("ask {} at {} for `{path}`", self.names.server, self.address())
    }

    fn refused(&self, path: &str, status: u16) -> Fault {
        let hint = match &self.login {
            Login::None => "set `username` and `password`, or `token`",
            Login::Basic { .. } => "check `username` and `password`",
            Login::Token(_) => "check `token` and what it may do",
        };
        Fault::new(self.names.login, self.what(path)).because(format!("status {status}")).hint(hint)
    }

    fn lost(&self, path: &str, error: reqwest::Error) -> Fault {
        let of_tls = holds_tls(&error);
        let error = error.without_url();
        if of_tls {
            return Fault::new(self.names.tls, self.what(path))
                .because(error)
                .hint("set `ca-file` to the certificate that signed the server's, and use the name it was made for");
        }
        let hint = format!("check `url` and that {} is running", self.names.server);
        Fault::new(self.names.connect, self.what(path)).because(error).hint(hint)
    }
}

/// Whether a failed handshake is somewhere below an error. An I/O error hides the one inside of it
/// instead of naming it as its source.
fn holds_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || inside.is_some_and(|inner| holds_tls(inner)) || error.source().is_some_and(holds_tls)
}

impl Answer {
    /// The answer as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The beginning of the answer, for errors.
    pub(crate) fn shown(&self) -> String {
        let start = &self.body[..self.body.len().min(SHOWN_BYTES)];
        String::from_utf8_lossy(start).trim().escape_debug().to_string()
    }
}

fn tls(ca_file: Option<&Path>, names: &Names) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let what = || format!("read the certificate authorities in `{}`", path.display());
            let found: Vec<CertificateDer<'static>> =
                CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| {
                    Fault::new(names.tls, what()).because(error).hint("give a readable file in PEM form")
                })?;
            if roots.add_parsable_certificates(found).0 == 0 {
                return Err(Fault::new(names.tls, what())
                    .because("it holds no certificate")
                    .hint("give a file in PEM form"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::new(names.tls, format!("prepare TLS for {}", names.server)).because(error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
