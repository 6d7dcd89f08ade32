//! The HTTP client below `object_store`: TLS, connections, stall detection, and errors with types.
//!
//! Three things its own client does not do. It follows redirects to other hosts, with the request
//! still signed; this one follows none. Its time-out is for a whole request, so it either cuts off a slow
//! line or waits long for a dead one; this one watches whether bytes move. And its errors hold the
//! server's status only as text; this one gives a [`Refusal`].

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};

use super::digest::Sent;
use super::gcs_json::{self, Envelope};
use super::listing;
use super::refusal::Refusal;
use crate::limits::Limits;

/// Largest piece handed to the connection at once; progress is seen once per piece.
const PIECE_MAX_BYTES: usize = 64 * 1024;
/// How much of an error page is read.
const REFUSAL_MAX_BYTES: usize = 16 * 1024;
/// Longest page of a listing: 5,000 entries of Azure, generously.
const LISTING_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Longest answer that describes an object.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// How writes are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// As the library asks for them.
    Plain,
    /// As the library asks for them; the answer tells the MD5 of what was stored.
    Answered,
    /// Turned into requests of GCS's JSON interface, which answer in the same way.
    Json,
}

/// Makes the HTTP clients of one store.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) limits: Limits,
    /// Trust only these instead of the system's authorities.
    pub(super) authorities: Option<Vec<reqwest::Certificate>>,
    pub(super) writes: Writes,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Set for an endpoint that the user wrote with `http:`, and by the library for the
        // instance's own metadata service.
        let plain_http = options.get_config_value(&object_store::ClientConfigKey::AllowHttp).as_deref() == Some("true");
        // Fails when a provider is set already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("rekindle/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.limits.connect)
            .https_only(!plain_http)
            .http1_only();
        if let Some(authorities) = &self.authorities {
            builder = builder.tls_certs_only(authorities.clone());
        } else if plain_http {
            // A machine without any certificates can still use a plain endpoint.
            builder = builder.tls_certs_only([]);
        }
        let client =
            builder.build().map_err(|e| object_store::Error::Generic { store: "HTTP client", source: Box::new(e) })?;
        Ok(HttpClient::new(Wire { client, idle: self.limits.idle, writes: self.writes }))
    }
}

#[derive(Debug)]
struct Wire {
    client: reqwest::Client,
    idle: Duration,
    writes: Writes,
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let progress = Progress::new();
        let (mut parts, body) = request.into_parts();
        let envelope = if self.writes == Writes::Json { gcs_json::turn(&mut parts) } else { None };
        let answers_in_json = envelope.is_some();
        let is_upload = answers_in_json || (self.writes == Writes::Answered && parts.method == http::Method::PUT);
        let sent = is_upload.then(Sent::default);
        let is_listing = listing::is_asked_by(&parts.method, parts.uri.query());
        let url =
            parts.uri.to_string().parse().map_err(|e: url::ParseError| HttpError::new(HttpErrorKind::Decode, e))?;
        let mut outgoing = reqwest::Request::new(parts.method, url);
        *outgoing.headers_mut() = parts.headers;
        *outgoing.body_mut() = Some(reqwest::Body::wrap(Watched {
            body,
            piece: Bytes::new(),
            progress: progress.clone(),
            sent: sent.clone(),
            envelope: envelope.unwrap_or_default(),
        }));

        let mut execute = std::pin::pin!(self.client.execute(outgoing));
        let response = loop {
            let left = self.idle.saturating_sub(progress.since());
            match tokio::time::timeout(left, &mut execute).await {
                Ok(answer) => break answer.map_err(typed)?,
                Err(_elapsed) if progress.since() < self.idle => {}
                Err(_elapsed) => return Err(HttpError::new(HttpErrorKind::Timeout, Stalled(self.idle))),
            }
        };
        if is_refusal(response.status()) {
            return Err(HttpError::new(HttpErrorKind::Unknown, self.read_refusal(response).await));
        }
        if is_listing && response.status().is_success() {
            return self.read_listing(response).await;
        }
        if let Some(sent) = sent.filter(|_| response.status().is_success()) {
            return self.read_stored(response, &sent, answers_in_json).await;
        }
        let (parts, body) = http::Response::from(response).into_parts();
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(Incoming(body))))
    }
}

impl Wire {
    /// The answer to an upload: what the server says it stored must be what was sent.
    async fn read_stored(
        &self,
        mut response: reqwest::Response,
        sent: &Sent,
        in_json: bool,
    ) -> Result<HttpResponse, HttpError> {
        let mut headers = std::mem::take(response.headers_mut());
        let status = response.status();
        let page = self.read_all(response, ANSWER_MAX_BYTES).await?;
        if in_json {
            let decode = || HttpError::new(HttpErrorKind::Decode, NotAnObject);
            headers.extend(gcs_json::headers_of(&page).ok_or_else(decode)?);
        }
        sent.compare(&headers).map_err(|wrong| HttpError::new(HttpErrorKind::Decode, wrong))?;
        let mut answer = http::Response::new(HttpResponseBody::from(page));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    /// The body, as far as this many bytes and what comes with them.
    async fn read_all(&self, mut response: reqwest::Response, most: usize) -> Result<Bytes, HttpError> {
        let mut page = Vec::new();
        loop {
            match tokio::time::timeout(self.idle, response.chunk()).await {
                Ok(Ok(Some(chunk))) => page.extend_from_slice(&chunk),
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(typed(error)),
                Err(_elapsed) => return Err(HttpError::new(HttpErrorKind::Timeout, Stalled(self.idle))),
            }
            if page.len() > most {
                break;
            }
        }
        Ok(Bytes::from(page))
    }

    /// A whole page (a few MB at most), looked at before the library interprets it.
    async fn read_listing(&self, mut response: reqwest::Response) -> Result<HttpResponse, HttpError> {
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let page = self.read_all(response, LISTING_MAX_BYTES).await?;
        listing::check(&page).map_err(|e| HttpError::new(HttpErrorKind::Decode, e))?;
        let mut answer = http::Response::new(HttpResponseBody::from(page));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    /// Status and error page; a page that does not arrive changes nothing about the status.
    async fn read_refusal(&self, mut response: reqwest::Response) -> Refusal {
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let mut page = Vec::new();
        while page.len() < REFUSAL_MAX_BYTES {
            match tokio::time::timeout(self.idle, response.chunk()).await {
                Ok(Ok(Some(chunk))) => page.extend_from_slice(&chunk),
                _ => break,
            }
        }
        Refusal::read(status, &headers, &String::from_utf8_lossy(&page))
    }
}

/// What becomes a [`Refusal`]. `object_store` gives the others a meaning of its own.
fn is_refusal(status: StatusCode) -> bool {
    let understood =
        [StatusCode::NOT_FOUND, StatusCode::CONFLICT, StatusCode::PRECONDITION_FAILED, StatusCode::NOT_MODIFIED];
    !status.is_success() && !understood.contains(&status)
}

/// The kind that `object_store` wants; the URL goes, since it may hold a signature.
fn typed(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}

/// No byte moved for so long.
#[derive(Debug)]
struct Stalled(Duration);

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no byte moved for {:?}", self.0)
    }
}

impl std::error::Error for Stalled {}

/// An upload was answered with something that describes no object.
#[derive(Debug)]
struct NotAnObject;

impl fmt::Display for NotAnObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer to the upload does not say what was stored")
    }
}

impl std::error::Error for NotAnObject {}

/// When the connection last took bytes.
#[derive(Clone)]
struct Progress {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Progress {
    fn new() -> Self {
        Self { start: Instant::now(), last_ms: Arc::default() }
    }

    fn mark(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    fn since(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// A request body in small pieces that notes when each is taken.
struct Watched {
    body: HttpRequestBody,
    piece: Bytes,
    progress: Progress,
    /// Hashes what is taken.
    sent: Option<Sent>,
    /// What goes before and after the body.
    envelope: Envelope,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.progress.mark();
        if !self.envelope.before.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.envelope.before)))));
        }
        while self.piece.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.piece = frame.into_data().unwrap_or_default(),
                Poll::Ready(None) if !self.envelope.after.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.envelope.after)))));
                }
                other => return other,
            }
        }
        let length = self.piece.len().min(PIECE_MAX_BYTES);
        let taken = self.piece.split_to(length);
        if let Some(sent) = &self.sent {
            sent.add(&taken);
        }
        Poll::Ready(Some(Ok(Frame::data(taken))))
    }

    fn is_end_stream(&self) -> bool {
        self.envelope.size() == 0 && self.piece.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint().exact().unwrap_or(0);
        SizeHint::with_exact(rest + self.piece.len() as u64 + self.envelope.size())
    }
}

/// A response body with typed errors.
struct Incoming(reqwest::Body);

impl Body for Incoming {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(typed)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
