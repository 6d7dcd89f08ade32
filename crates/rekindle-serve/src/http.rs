//! A listener that answers two questions: `/metrics` and `/healthz`.
//!
//! Not a web server: one request per connection, GET only, a bounded head, no body, few
//! connections at once. A page or an API needs a real one.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

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

/// The service looks every 15 s; one that did not for this long hangs.
const HANGS_AFTER: Duration = Duration::from_mins(3);

/// What is answered, replaced as a whole at each look of the service.
#[derive(Debug, Clone, Default)]
pub struct Page(Arc<RwLock<Option<(String, Instant)>>>);

impl Page {
    /// Replaces the text.
    pub fn set(&self, text: String) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((text, Instant::now()));
    }

    fn metrics(&self) -> (&'static str, String) {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some((text, _)) => ("200 OK", text.clone()),
            None => ("503 Service Unavailable", String::new()),
        }
    }

    /// A service that starts looks after what an earlier life left, which may take long; it is no dead one.
    fn health(&self) -> (&'static str, String) {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            None => ("200 OK", "starting\n".to_owned()),
            Some((_, at)) if at.elapsed() < HANGS_AFTER => ("200 OK", "ok\n".to_owned()),
            Some((_, at)) => {
                let text = format!("hangs: the last look was {} s ago\n", at.elapsed().as_secs());
                ("503 Service Unavailable", text)
            }
        }
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
pub async fn serve(listener: TcpListener, page: Page) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, for one: later there may be some.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let page = page.clone();
        tokio::spawn(async move {
            // A visitor that is slow or goes away is not our concern.
            let _ = tokio::time::timeout(EXCHANGE_MAX, answer(stream, &page)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, page: &Page) -> std::io::Result<()> {
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
    let plain = "text/plain; charset=utf-8";
    let (kind, (status, body)) = match (method, path.split('?').next().unwrap_or_default()) {
        ("GET" | "HEAD", "/metrics") => ("application/openmetrics-text; version=1.0.0; charset=utf-8", page.metrics()),
        ("GET" | "HEAD", "/healthz") => (plain, page.health()),
        ("GET" | "HEAD", _) => (plain, ("404 Not Found", "there is /metrics and /healthz\n".to_owned())),
        _ => (plain, ("405 Method Not Allowed", "GET only\n".to_owned())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_stopped_looking_is_not_well() {
        let page = Page::default();
        assert_eq!((page.health().0, page.metrics().0), ("200 OK", "503 Service Unavailable"), "it starts");
        page.set("text".to_owned());
        assert_eq!((page.health(), page.metrics()), (("200 OK", "ok\n".to_owned()), ("200 OK", "text".to_owned())));
        let long_ago = Instant::now().checked_sub(HANGS_AFTER + Duration::from_secs(1)).unwrap();
        *page.0.write().unwrap() = Some(("text".to_owned(), long_ago));
        let (status, text) = page.health();
        assert!(status.starts_with("503") && text.contains("hangs"), "{status} {text}");
    }
}
