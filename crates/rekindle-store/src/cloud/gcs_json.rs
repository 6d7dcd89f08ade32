//! Writing to GCS by its JSON interface.
//!
//! `object_store` writes by the XML interface. The JSON one says more: its answer holds the hash of what
//! was stored, and every server that stands in for GCS has it. Only the two requests that change
//! something are turned: everything around them (credentials, conditions) is the same.
//!
//! An upload goes in the form of two parts, of which the first (what is to be known about the object) is
//! empty: the plain form is the one whose condition stand-in servers do not look at.
//!
//! <https://cloud.google.com/storage/docs/json_api/v1/objects/insert> and `/delete`.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::digest::CONTENT_MD5;

/// How the XML interface asks for "only if there is none" (with 0).
const IF_GENERATION_MATCH: &str = "x-goog-if-generation-match";
const GENERATION: HeaderName = HeaderName::from_static("x-goog-generation");

/// What goes before and after the bytes of an upload; empty for every other request.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    pub(super) before: Bytes,
    pub(super) after: Bytes,
}

impl Envelope {
    /// Its bytes that were not sent yet.
    pub(super) fn size(&self) -> u64 {
        (self.before.len() + self.after.len()) as u64
    }

    fn new(boundary: &str) -> Self {
        let before = format!(
            "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n\
             --{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        Self { before: before.into(), after: format!("\r\n--{boundary}--\r\n").into() }
    }
}

/// Turns a request of the XML interface, `{base}/{bucket}/{object}` with the object's name wholly
/// escaped, into one of the JSON interface. What goes around the bytes, when it is an upload now.
pub(super) fn turn(parts: &mut Parts) -> Option<Envelope> {
    let upload = parts.method == Method::PUT;
    if !(upload || parts.method == Method::DELETE) || parts.uri.query().is_some() {
        return None;
    }
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = Some(target(parts, upload)?.parse().ok()?);
    // Random, so that the stored bytes cannot hold it by intent.
    let boundary = format!("rekindle-{:032x}", rand::random::<u128>());
    let kind = HeaderValue::from_str(&format!("multipart/related; boundary={boundary}")).ok()?;
    parts.uri = Uri::from_parts(uri).ok()?;
    if !upload {
        return None;
    }
    parts.method = Method::POST;
    parts.headers.remove(IF_GENERATION_MATCH);
    // The length is that of the body, which knows it.
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, kind);
    Some(Envelope::new(&boundary))
}

fn target(parts: &Parts, upload: bool) -> Option<String> {
    let (above, object) = parts.uri.path().rsplit_once('/')?;
    let (base, bucket) = above.rsplit_once('/')?;
    if object.is_empty() || bucket.is_empty() {
        return None;
    }
    if !upload {
        return Some(format!("{base}/storage/v1/b/{bucket}/o/{object}"));
    }
    let condition = match parts.headers.get(IF_GENERATION_MATCH) {
        Some(generation) => format!("&ifGenerationMatch={}", generation.to_str().ok()?),
        None => String::new(),
    };
    Some(format!("{base}/upload/storage/v1/b/{bucket}/o?uploadType=multipart&name={object}{condition}"))
}

/// The headers that the XML interface would have answered an upload with, from the JSON answer; `None`
/// when it is no description of an object.
pub(super) fn headers_of(answer: &Bytes) -> Option<HeaderMap> {
    let object: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let text = |name: &str| object.get(name).and_then(serde_json::Value::as_str);
    let mut headers = HeaderMap::new();
    headers.insert(ETAG, HeaderValue::from_str(text("etag")?).ok()?);
    if let Some(generation) = text("generation").and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert(GENERATION, generation);
    }
    if let Some(md5) = text("md5Hash").and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert(CONTENT_MD5, md5);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(method: Method, uri: &str, condition: Option<&str>) -> (Method, String, Option<Envelope>) {
        let mut request = http::Request::builder().method(method).uri(uri).header(CONTENT_LENGTH, 3);
        if let Some(generation) = condition {
            request = request.header(IF_GENERATION_MATCH, generation);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        let envelope = turn(&mut parts);
        let left = [IF_GENERATION_MATCH, CONTENT_LENGTH.as_str()].map(|name| parts.headers.contains_key(name));
        assert!(envelope.is_none() || left == [false, false]);
        (parts.method, parts.uri.to_string(), envelope)
    }

    #[test]
    fn writes_are_turned_and_nothing_else() {
        let xml = "https://storage.googleapis.com/box/data%2Fab%2Fc";
        let upload = "https://storage.googleapis.com/upload/storage/v1/b/box/o?uploadType=multipart&name=data%2Fab%2Fc";
        let once = format!("{upload}&ifGenerationMatch=0");
        for (condition, expected) in [(None, upload), (Some("0"), once.as_str())] {
            let (method, uri, envelope) = turned(Method::PUT, xml, condition);
            assert_eq!((method, uri.as_str()), (Method::POST, expected));
            let envelope = envelope.unwrap();
            let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            let boundary = text(&envelope.after).trim().trim_end_matches("--").to_owned();
            assert!(boundary.len() > 40 && text(&envelope.before).matches(&boundary).count() == 2);
        }
        let (method, uri, envelope) = turned(Method::DELETE, xml, None);
        assert_eq!(
            (method, uri.as_str()),
            (Method::DELETE, "https://storage.googleapis.com/storage/v1/b/box/o/data%2Fab%2Fc")
        );
        assert!(envelope.is_none());
        let part = "https://storage.googleapis.com/box/a?partNumber=1&uploadId=x";
        for (method, uri) in [(Method::GET, xml), (Method::HEAD, xml), (Method::PUT, part)] {
            let (after, same, envelope) = turned(method.clone(), uri, None);
            assert_eq!((after, same.as_str(), envelope.is_none()), (method, uri, true));
        }
    }

    #[test]
    fn an_answer_without_an_object_is_none() {
        let answer = Bytes::from_static(br#"{"etag":"e","generation":"7","md5Hash":"aGFzaA=="}"#);
        let headers = headers_of(&answer).unwrap();
        assert_eq!([&headers[ETAG], &headers[GENERATION], &headers[CONTENT_MD5]], ["e", "7", "aGFzaA=="]);
        for bad in ["", "<html>", "{}", r#"{"etag":7}"#] {
            assert!(headers_of(&Bytes::from(bad)).is_none(), "{bad}");
        }
    }
}
