//! The hash of an upload, compared with the one the server answers with.
//!
//! S3 gets a SHA-256 with each upload and refuses other bytes. Azure and GCS say in their answers which
//! MD5 the bytes they stored have (`Content-MD5` of Put Blob, `md5Hash` of an object): a byte that was
//! turned on the way is noticed at once and not at the next verification. MD5 is enough against
//! accidents; against anything else stand the names of the objects, which are their SHA-256.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::HeaderName;
use md5::{Digest, Md5};

/// RFC 1864: the base64 of the body's MD5.
pub(super) const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Hashes what is sent, as it is sent. Clones share the hash.
#[derive(Clone, Default)]
pub(super) struct Sent(Arc<Mutex<Md5>>);

impl Sent {
    /// The next bytes.
    pub(super) fn add(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).update(bytes);
    }

    /// Compares with what the server says it stored; a server that says nothing is not asked.
    pub(super) fn compare(&self, answer: &HeaderMap) -> Result<(), WrongDigest> {
        let Some(stored) = answer.get(CONTENT_MD5).and_then(|value| value.to_str().ok()) else {
            return Ok(());
        };
        let sent = STANDARD.encode(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize());
        if stored.trim() == sent { Ok(()) } else { Err(WrongDigest) }
    }
}

/// The server stored other bytes than were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrongDigest;

impl fmt::Display for WrongDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the MD5 of what the server stored is not that of what was sent")
    }
}

impl std::error::Error for WrongDigest {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_are_noticed() {
        let sent = Sent::default();
        sent.add(b"a");
        sent.clone().add(b"bc");
        let answer = |md5: &str| HeaderMap::from_iter([(CONTENT_MD5, md5.parse().unwrap())]);
        // RFC 1321, appendix A.5: MD5("abc").
        assert_eq!(sent.compare(&answer("kAFQmDzST7DWlj99KOF/cg==")), Ok(()));
        assert_eq!(sent.compare(&answer("kAFQmDzST7DWlj99KOF/cQ==")), Err(WrongDigest));
        assert_eq!(sent.compare(&HeaderMap::new()), Ok(()));
    }
}
