//! Signed requests of an attacker, and of whoever sets up a bucket, to any S3 server: AWS Signature Version 4.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::http;
use crate::s3::S3Key;

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing into a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Where an S3 server answers, and the key of whoever owns its buckets.
#[derive(Debug, Clone)]
pub struct S3Door {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The region to sign for.
    pub region: &'static str,
    /// Makes buckets, and may do everything with them.
    pub owner: S3Key,
}

impl S3Door {
    /// The endpoint URL. Use path-style addressing.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sends a request with this key; its status and body. `path` begins with `/`; `query` is sorted and
    /// needs no escaping but `=`.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn request(
        &self,
        key: &S3Key,
        what: (&str, &str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, String) {
        self.try_request(key, what, headers, body).expect("the server answers")
    }

    /// As [`S3Door::request`], for a server that may be down.
    pub fn try_request(
        &self,
        key: &S3Key,
        (method, path, query): (&str, &str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(u16, String), String> {
        let host = format!("127.0.0.1:{}", self.port);
        let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let hash = hex(&Sha256::digest(body));
        let mut all: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for (name, value) in [("host", &host), ("x-amz-content-sha256", &hash), ("x-amz-date", &date)] {
            all.push((name.to_owned(), value.clone()));
        }
        all.sort();
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let lines = all.iter().fold(String::new(), |lines, (name, value)| lines + name + ":" + value + "\n");
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{hash}");
        let scope = format!("{}/{}/s3/aws4_request", &date[..8], self.region);
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let mut secret = format!("AWS4{}", key.secret).into_bytes();
        for part in [&date[..8], self.region, "s3", "aws4_request"] {
            secret = mac(&secret, part);
        }
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
            key.access,
            hex(&mac(&secret, &to_sign))
        );
        all.retain(|(name, _)| name != "host");
        all.push(("authorization".to_owned(), authorization));
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        http::request(self.port, method, &target, &all, body)
    }

    /// Makes a bucket with Object Lock, which keeps every version.
    ///
    /// # Panics
    /// When the server does not make it.
    pub fn make_locked_bucket(&self, name: &str) {
        let headers = [("x-amz-bucket-object-lock-enabled", "true")];
        let made = self.request(&self.owner, ("PUT", &format!("/{name}"), ""), &headers, b"");
        assert_eq!(made.0, 200, "make the bucket: {made:?}");
    }
    /// Makes a bucket.
    ///
    /// # Panics
    /// When the server does not make it.
    pub fn make_bucket(&self, name: &str) {
        let made = self.request(&self.owner, ("PUT", &format!("/{name}"), ""), &[], b"");
        assert_eq!(made.0, 200, "make the bucket: {made:?}");
    }

    /// Every version and delete marker of a bucket, in however many pages: its name and its id.
    ///
    /// # Panics
    /// When the server does not list them.
    pub fn versions(&self, bucket: &str) -> Vec<(String, String)> {
        let text = |part: &str, name: &str| {
            let start = part.find(&format!("<{name}>"))? + name.len() + 2;
            Some(part[start..start + part[start..].find('<')?].to_owned())
        };
        let escaped = |text: &str| text.replace('/', "%2F");
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let query = format!("{after}versions=");
            let (status, page) = self.request(&self.owner, ("GET", &format!("/{bucket}"), &query), &[], b"");
            assert_eq!(status, 200, "{page}");
            let marked = page.replace("<DeleteMarker>", "<Version>");
            let parts = marked.split("<Version>").skip(1);
            all.extend(parts.filter_map(|part| Some((text(part, "Key")?, text(part, "VersionId")?))));
            if page.contains("<IsTruncated>false") {
                return all;
            }
            let next = |name| text(&page, name).unwrap_or_else(|| panic!("a page without an end: {page}"));
            let (key, version) = (next("NextKeyMarker"), next("NextVersionIdMarker"));
            after = format!("key-marker={}&version-id-marker={}&", escaped(&key), escaped(&version));
        }
    }
}
