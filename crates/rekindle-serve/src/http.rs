//! A listener that answers two questions: `/metrics` and `/healthz`.
//!
//! Not a web server: one request per connection, GET only, a bounded head, no body, few
//! connections at once. A page or an API needs a real one.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rekindle_core::{Fault, Result, codes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections answered at once.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8192;
/// Longest time for a request and its answer.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);

/// What is answered, replaced as a whole.
#[derive(Debug, Clone, Default)]
pub struct Page(Arc<RwLock<String>>);

impl Page {
    /// Replaces the text.
    pub fn set(&self, text: String) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn text(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Opens the port.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Fault::new(codes::SERVE_LISTEN, format!("listen on {address}"))
            .because(error)
            .hint("change `listen` in [serve], or end the program that uses the port")
    })
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, metrics: Page) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, for one: later there may be some.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            // A visitor that is slow or goes away is not our concern.
            let _ = tokio::time::timeout(EXCHANGE_MAX, answer(stream, &metrics)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, metrics: &Page) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).await?;
        if length == 0 || head.len() + length > HEAD_BYTES_MAX {
            return stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
        head.extend_from_slice(&piece[..length]);
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, kind, body) = match (method, path.split('?').next().unwrap_or_default()) {
        ("GET" | "HEAD", "/metrics") => {
            ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.text())
        }
        ("GET" | "HEAD", "/healthz") => ("200 OK", "text/plain; charset=utf-8", "ok\n".to_owned()),
        ("GET" | "HEAD", _) => {
            ("404 Not Found", "text/plain; charset=utf-8", "there is /metrics and /healthz\n".to_owned())
        }
        _ => ("405 Method Not Allowed", "text/plain; charset=utf-8", "GET only\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}
