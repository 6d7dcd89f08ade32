//! An answer of a server that says no, and what it means.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use object_store::client::{HttpError, HttpErrorKind};
use rekindle_core::{ErrorCode, Fault, codes};

use super::digest::WrongDigest;
use super::listing::NotAListing;

/// A status that is neither success nor an answer to a condition, with the server's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    /// The machine-readable code: `AccessDenied`, `SlowDown`, `AuthenticationFailed` …
    code: Option<String>,
    message: Option<String>,
    /// How long the server wants to be left alone.
    retry_after: Option<Duration>,
}

impl Refusal {
    /// From the status, the headers and the error page (XML of S3, GCS and Azure).
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, page: &str) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let code = header("x-ms-error-code").map(str::to_owned).or_else(|| element(page, "Code"));
        // The other form, a date, is not what storages send; our own pauses do for it.
        // https://www.rfc-editor.org/rfc/rfc9110#name-retry-after
        let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let (json_code, json_message) = in_json(page);
        let (code, message) = (code.or(json_code), element(page, "Message").or(json_message));
        Self { status, code, message, retry_after }
    }

    fn is(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    fn meaning(&self) -> (&'static ErrorCode, Option<&'static str>) {
        let full = ["QuotaExceeded", "StorageFull", "XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity"];
        if self.status == StatusCode::INSUFFICIENT_STORAGE || self.is(&full) {
            return (codes::STORE_FULL, Some("free space on the storage, or raise its quota"));
        }
        if self.is(&["NoSuchBucket", "ContainerNotFound"]) {
            return (codes::STORE_ROOT, Some(NO_BUCKET));
        }
        if self.is(&["RequestTimeTooSkewed"]) {
            return (codes::STORE_DENIED, Some("set the clock of this machine: it differs from the storage's"));
        }
        if self.is(&["SignatureDoesNotMatch"]) {
            return (
                codes::STORE_DENIED,
                Some("the secret access key is wrong: check it, and that no blank or newline was copied with it"),
            );
        }
        if self.is(&["InvalidAccessKeyId"]) {
            return (
                codes::STORE_DENIED,
                Some("the storage does not know this access key id: check it, and that the endpoint is the right one"),
            );
        }
        if self.is(&["ExpiredToken", "InvalidToken"]) {
            return (codes::STORE_DENIED, Some("the temporary credentials have expired: renew them"));
        }
        if self.is(&["AuthenticationFailed"]) {
            return (
                codes::STORE_DENIED,
                Some("the account key or signature is wrong or expired: check account, key and the clock"),
            );
        }
        match self.status.as_u16() {
            401 | 403 => (
                codes::STORE_DENIED,
                Some("check the key, and that it may read, write, list and delete below this prefix"),
            ),
            408 | 429 | 500..=599 => (
                codes::STORE_SERVER,
                Some("if this stays: look at the storage's own log, and whether its disk is full"),
            ),
            300..=399 => (
                codes::STORE_URL,
                Some("the storage points to another address: set the right `endpoint` and `region` in the URL"),
            ),
            _ => (codes::STORE_DENIED, Some("check bucket, region and endpoint in the URL")),
        }
    }
}

const NO_BUCKET: &str = "make the bucket or container, or correct its name in the URL";

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}", self.status.as_u16())?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        match &self.message {
            Some(message) => write!(f, " ({message})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

/// The text of the first `<name>` of an error page, made safe to print.
fn element(page: &str, name: &str) -> Option<String> {
    let start = page.find(&format!("<{name}>"))? + name.len() + 2;
    let length = page[start..].find('<')?;
    printable(&page[start..start + length])
}

/// A text of the server, made safe to print; `None` when it says nothing.
fn printable(text: &str) -> Option<String> {
    const LENGTH_MAX: usize = 200;
    let text = text.trim();
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    (!text.is_empty()).then(|| text.chars().take(LENGTH_MAX).map(clean).collect())
}

/// Code and message of an error page of GCS's JSON interface.
fn in_json(page: &str) -> (Option<String>, Option<String>) {
    let Ok(page) = serde_json::from_str::<serde_json::Value>(page) else {
        return (None, None);
    };
    let text = |place: &str| page.pointer(place).and_then(serde_json::Value::as_str).and_then(printable);
    (text("/error/errors/0/reason"), text("/error/message"))
}

/// How long the server that gave this error wants to be left alone, when it said so.
pub(crate) fn asked_pause(fault: &Fault) -> Option<Duration> {
    find::<Refusal>(fault).and_then(|refusal| refusal.retry_after)
}

/// The error of one call, with its meaning. `what` is verb and object.
pub(super) fn classify(what: String, error: object_store::Error) -> Fault {
    use object_store::Error;
    if let Some(refusal) = find::<Refusal>(&error) {
        let (code, hint) = refusal.meaning();
        let fault = Fault::new(code, what).because(refusal.clone());
        return match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        };
    }
    let text = error.to_string();
    if text.contains("NoSuchBucket") || text.contains("ContainerNotFound") {
        return Fault::new(codes::STORE_ROOT, what)
            .because("the server says that there is no such bucket")
            .hint(NO_BUCKET);
    }
    if let Some(http) = find::<HttpError>(&error) {
        return transport(what, http);
    }
    match error {
        Error::NotFound { .. } => Fault::new(codes::STORE_NOT_FOUND, what),
        Error::AlreadyExists { .. } | Error::Precondition { .. } => Fault::new(codes::STORE_EXISTS, what),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            Fault::new(codes::STORE_DENIED, what).because(error)
        }
        other => Fault::new(codes::STORE_SERVER, what).because(other),
    }
}

fn transport(what: String, error: &HttpError) -> Fault {
    // The error is not ours to keep (it cannot be cloned); its words are.
    let words = words(error);
    if let Some(tls) = find::<rustls::Error>(error) {
        return Fault::new(codes::STORE_TLS, what).because(format!("TLS: {tls}")).hint(
            "name the file of the certificate authority with `ca-file`, or correct the host name in the endpoint",
        );
    }
    if find::<NotAListing>(error).is_some() {
        return Fault::new(codes::STORE_LIST, what)
            .because(words)
            .hint("check that the endpoint is an S3, GCS or Azure server and not a proxy's page");
    }
    if find::<WrongDigest>(error).is_some() {
        return Fault::new(codes::STORE_SERVER, what)
            .because(words)
            .hint("bytes are changed on the way or in the storage: check the memory and disks of both, and any proxy between them");
    }
    match error.kind() {
        HttpErrorKind::Timeout => Fault::new(codes::STORE_TIMEOUT, what)
            .because(words)
            .hint("check the network to the storage and that it is not overloaded"),
        HttpErrorKind::Connect => Fault::new(codes::STORE_UNREACHABLE, what)
            .because(words)
            .hint("check that the storage runs and that the endpoint names the right host and port"),
        _ => Fault::new(codes::STORE_UNREACHABLE, what)
            .because(words)
            .hint("check that the storage runs and that the network to it holds, then run the command again"),
    }
}

/// Each link of the chain once.
fn words(error: &HttpError) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let said = cause.to_string();
        if parts.last().is_none_or(|last| !last.contains(&said)) {
            parts.push(said);
        }
        next = cause.source();
    }
    parts.join(": ")
}

/// The first error of that type in the chain. An `io::Error` hides the error it was made from one
/// level deeper than `source` shows.
fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<T>() {
            return Some(found);
        }
        let hidden = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(inner) = hidden
            && let Some(found) = find::<T>(inner)
        {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(status: u16, page: &str) -> &'static ErrorCode {
        Refusal::read(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), page).meaning().0
    }

    #[test]
    fn an_answer_gets_the_code_an_operator_can_act_on() {
        assert_eq!(meaning(403, "<Error><Code>AccessDenied</Code></Error>"), codes::STORE_DENIED);
        assert_eq!(meaning(401, ""), codes::STORE_DENIED);
        assert_eq!(meaning(503, "<Error><Code>SlowDown</Code></Error>"), codes::STORE_SERVER);
        assert_eq!(meaning(429, ""), codes::STORE_SERVER);
        assert_eq!(meaning(507, ""), codes::STORE_FULL);
        assert_eq!(meaning(403, "<Error><Code>QuotaExceeded</Code></Error>"), codes::STORE_FULL);
        assert_eq!(meaning(301, ""), codes::STORE_URL);
        assert_eq!(meaning(400, "<Error><Code>InvalidBucketName</Code></Error>"), codes::STORE_DENIED);
    }

    #[test]
    fn error_pages_are_read_and_made_printable() {
        let refusal = Refusal::read(
            StatusCode::FORBIDDEN,
            &HeaderMap::new(),
            "<Error><Code>X</Code><Message>a\u{1b}[31m b</Message></Error>",
        );
        assert_eq!(refusal.to_string(), "the server answered 403 X (a [31m b)");
        assert_eq!(
            Refusal::read(StatusCode::FORBIDDEN, &HeaderMap::new(), "<Code>").to_string(),
            "the server answered 403"
        );
    }

    #[test]
    fn error_pages_in_json_are_read_too() {
        let page = r#"{"error":{"code":403,"message":"no\nway","errors":[{"reason":"forbidden"}]}}"#;
        let refusal = Refusal::read(StatusCode::FORBIDDEN, &HeaderMap::new(), page);
        assert_eq!(refusal.to_string(), "the server answered 403 forbidden (no way)");
    }

    #[test]
    fn the_pause_a_server_asks_for_is_found_below_its_fault() {
        let asked = |text: &'static str| {
            let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, text.parse().unwrap())]);
            let refusal = Refusal::read(StatusCode::SERVICE_UNAVAILABLE, &headers, "");
            asked_pause(&Fault::new(codes::STORE_SERVER, "put `a`").because(refusal).during("put `a` (2 attempts)"))
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        assert_eq!(asked("-1"), None);
        assert_eq!(asked_pause(&Fault::new(codes::STORE_SERVER, "put `a`")), None);
    }
}
