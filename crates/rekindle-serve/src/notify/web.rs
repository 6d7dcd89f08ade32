//! Messages over HTTP: one request, no redirects, a checked address, a short answer.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};

use super::{Channel, Failure, Web, body, guard, look_up};
use crate::notice::{Event, EventKind};

/// Longest time until a connection stands.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer shown when it is no success.
const SHOWN_BYTES: usize = 200;

/// A request as it will be sent.
struct Letter {
    url: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

pub(super) async fn post(channel: &Channel, web: &Web, event: &Event) -> Result<(), Failure> {
    let letter = letter(channel, event).await?;
    let url = Url::parse(&letter.url).map_err(|_| Failure::never("its URL is not usable"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Failure::never("its URL is neither http nor https"));
    }
    let host = url.host_str().ok_or_else(|| Failure::never("its URL names no host"))?.to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let work = async {
        let addresses = guard::resolve(&host, port, web.allow_private).await?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls(web.ca_file.as_deref())?)
            .connect_timeout(CONNECT_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .resolve_to_addrs(&host, &addresses)
            .no_proxy()
            .build()
            .map_err(|error| Failure::never(format!("prepare the request: {}", error.without_url())))?;
        let sent = client.post(url).headers(letter.headers).body(letter.body).send().await;
        let mut response = sent.map_err(|error| Failure::later(chain(&error.without_url())))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let shown = match response.chunk().await {
            Ok(Some(bytes)) => String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).trim().to_owned(),
            _ => String::new(),
        };
        Err(refused(status.as_u16(), &shown))
    };
    match tokio::time::timeout(web.timeout, work).await {
        Ok(done) => done,
        Err(_) => Err(Failure::later(format!("no answer within {} s", web.timeout.as_secs()))),
    }
}

fn refused(status: u16, shown: &str) -> Failure {
    let shown = shown.escape_debug();
    match status {
        300..400 => Failure::never(format!("status {status}: it wants to send us elsewhere, which is not followed")),
        408 | 425 | 429 | 500.. => Failure::later(format!("status {status}: {shown}")),
        _ => Failure::never(format!("status {status}: {shown}")),
    }
}

/// An error with its causes: the outermost alone says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn letter(channel: &Channel, event: &Event) -> Result<Letter, Failure> {
    let json = |value: &serde_json::Value| value.to_string().into_bytes();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let (url, body) = match channel {
        Channel::Slack { url } => (look_up(url).await?, json(&body::slack(event))),
        Channel::Discord { url } => (look_up(url).await?, json(&body::discord(event))),
        Channel::Teams { url } => (look_up(url).await?, json(&body::teams(event))),
        Channel::PagerDuty { url, routing_key } => {
            let key = look_up(routing_key).await?;
            (rekindle_core::Secret::new(url.clone()), json(&body::pagerduty(event, key.expose())))
        }
        Channel::Webhook { url, template, secret } => {
            let body = match template {
                Some(template) => body::template(template, event).into_bytes(),
                None => serde_json::to_vec(event).unwrap_or_default(),
            };
            if let Some(secret) = secret {
                sign(&mut headers, look_up(secret).await?.expose(), event, &body)?;
            }
            (look_up(url).await?, body)
        }
        Channel::Ntfy { url, token } => {
            ntfy(&mut headers, event)?;
            if let Some(token) = token {
                set(&mut headers, "authorization", &format!("Bearer {}", look_up(token).await?.expose()))?;
            }
            (look_up(url).await?, event.text.clone().into_bytes())
        }
        Channel::Ping { url } => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            let url = ping(look_up(url).await?.expose(), event);
            // One line that says what happened; never a log.
            (rekindle_core::Secret::new(url), event.title.clone().into_bytes())
        }
        Channel::Email(_) => return Err(Failure::never("mail does not go over HTTP")),
    };
    Ok(Letter { url: url.expose().trim().to_owned(), headers, body })
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), Failure> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Failure::never(format!("the header `{name}` cannot hold its value")))?;
    value.set_sensitive(true);
    headers.insert(HeaderName::from_static(name), value);
    Ok(())
}

/// `HMAC-SHA256(secret, time "." body)`: the time is signed with it, so an old message cannot be
/// sent again.
fn sign(headers: &mut HeaderMap, secret: &str, event: &Event, body: &[u8]) -> Result<(), Failure> {
    let time = event.at.as_second().to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .map_err(|_| Failure::never("the secret cannot be used as a key"))?;
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    let hex = hex(&mac.finalize().into_bytes());
    set(headers, "x-rekindle-timestamp", &time)?;
    set(headers, "x-rekindle-signature", &format!("sha256={hex}"))
}

fn ntfy(headers: &mut HeaderMap, event: &Event) -> Result<(), Failure> {
    let (priority, tag) =
        if event.kind.is_bad() { ("high", "rotating_light") } else { ("default", "white_check_mark") };
    // Headers are ASCII.
    let title: String = event.title.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    set(headers, "title", &title)?;
    set(headers, "priority", priority)?;
    set(headers, "tags", tag)
}

/// The address for what happened, with the run's id: start and end belong together.
fn ping(url: &str, event: &Event) -> String {
    let (base, query) = url.trim().split_once('?').map_or((url.trim(), None), |(base, query)| (base, Some(query)));
    let base = base.trim_end_matches('/');
    let tail = match event.kind {
        EventKind::Start => "/start",
        kind if kind.is_bad() => "/fail",
        _ => "",
    };
    let mut parts: Vec<String> = query.map(str::to_owned).into_iter().collect();
    parts.extend(event.run.as_deref().map(|run| format!("rid={}", uuid_of(run))));
    let query = if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) };
    format!("{base}{tail}{query}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A UUID (version 8) made of the run's id: the services want one.
fn uuid_of(run: &str) -> String {
    let digest = Sha256::digest(run.as_bytes());
    let mut bytes: [u8; 16] = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let found = read.map_err(|error| Failure::never(format!("read {}: {error}", path.display())))?;
        roots.add_parsable_certificates(found);
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Failure::never(format!("prepare TLS: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
