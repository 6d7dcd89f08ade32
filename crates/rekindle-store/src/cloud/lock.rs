//! Object Lock of S3: a retention with every write, a longer one later, and the attempt to get
//! around it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{ClientOptions, GetOptions, ObjectStore, ObjectStoreExt, PutPayload};
use rekindle_core::{Fault, Result, codes};
use sha2::{Digest, Sha256};

use super::refusal::classify;
use crate::key::Key;
use crate::lock::{Destruction, LockMode, Locker, ObjectLock};

const MODE: HeaderName = HeaderName::from_static("x-amz-object-lock-mode");
const UNTIL: HeaderName = HeaderName::from_static("x-amz-object-lock-retain-until-date");
const CHECKSUM: HeaderName = HeaderName::from_static("x-amz-checksum-sha256");
const BYPASS: HeaderName = HeaderName::from_static("x-amz-bypass-governance-retention");
/// The moment in the header is worked out anew after this.
const RENEW: Duration = Duration::from_hours(1);
/// How long a signed request is good.
const SIGNED: Duration = Duration::from_mins(5);
/// Retention of the object that is to be destroyed.
const PROBE_SECONDS: i64 = 60;

/// What Object Lock needs of one S3 store.
pub(crate) struct S3Lock {
    pub(super) plain: AmazonS3,
    pub(super) builder: AmazonS3Builder,
    pub(super) options: ClientOptions,
    pub(super) http: HttpClient,
    pub(super) lock: Option<ObjectLock>,
    /// Without slashes at the ends; may be empty.
    pub(super) prefix: String,
    pub(super) place: String,
    /// A client that sends the retention with every write, and when it was made.
    pub(super) writer: Mutex<Option<(Instant, AmazonS3)>>,
}

impl std::fmt::Debug for S3Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Lock").field("place", &self.place).field("lock", &self.lock).finish_non_exhaustive()
    }
}

impl S3Lock {
    /// The client for objects that are kept; `None`: no retention is configured.
    pub(super) fn writer(&self) -> Result<Option<AmazonS3>> {
        let Some(lock) = self.lock else { return Ok(None) };
        let mut kept = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, client)) = &*kept
            && made.elapsed() < RENEW
        {
            return Ok(Some(client.clone()));
        }
        let client = self.writing(lock.mode, lock.until(jiff::Timestamp::now()))?;
        *kept = Some((Instant::now(), client.clone()));
        Ok(Some(client))
    }

    /// Headers of the client are signed with each request.
    fn writing(&self, mode: LockMode, until: jiff::Timestamp) -> Result<AmazonS3> {
        let mut headers = HeaderMap::new();
        headers.insert(MODE, HeaderValue::from_static(mode.as_str()));
        headers.insert(UNTIL, value(&seconds(until))?);
        let options = self.options.clone().with_default_headers(headers);
        let built = self.builder.clone().with_client_options(options).build();
        built.map_err(|error| self.fault("write to", "", error))
    }

    fn path(&self, key: &str) -> Path {
        if self.prefix.is_empty() { Path::from(key) } else { Path::from(format!("{}/{key}", self.prefix)) }
    }

    fn fault(&self, verb: &str, object: &str, error: object_store::Error) -> Fault {
        classify(format!("{verb} `{object}` of {}", self.place), error)
    }

    /// One request about an object; its answer.
    async fn ask(
        &self,
        what: (&str, &Path),
        method: Method,
        query: &[(&str, &str)],
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Bytes> {
        let (verb, path) = what;
        let mut signed = SignedUrlOptions::new().with_query(query.iter().copied());
        for (name, value) in &headers {
            signed = signed.with_signed_header(name.clone(), value.clone());
        }
        let url = self.plain.signed_url_opts(method.clone(), path, SIGNED, &signed).await;
        let url = url.map_err(|error| self.fault(verb, path.as_ref(), error))?;
        let mut request = http::Request::new(HttpRequestBody::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = url.as_str().parse().map_err(|error: http::uri::InvalidUri| bug(verb, error))?;
        *request.headers_mut() = headers;
        let refused =
            |error| self.fault(verb, path.as_ref(), object_store::Error::Generic { store: "S3", source: error });
        let answer = self.http.execute(request).await.map_err(|error| refused(Box::new(error)))?;
        answer.into_body().bytes().await.map_err(|error| refused(Box::new(error)))
    }

    async fn until_of(&self, path: &Path, version: Option<&str>) -> Result<Option<jiff::Timestamp>> {
        let mut query = vec![("retention", "")];
        query.extend(version.map(|version| ("versionId", version)));
        let what = ("read the retention of", path);
        match self.ask(what, Method::GET, &query, HeaderMap::new(), Bytes::new()).await {
            Ok(page) => Ok(date(&String::from_utf8_lossy(&page))),
            Err(fault) if fault.is(codes::STORE_DENIED) || fault.is(codes::STORE_NOT_FOUND) => {
                // `NoSuchObjectLockConfiguration`: there is none. A key that may not ask does not know.
                if fault.chain().contains("NoSuchObjectLockConfiguration") { Ok(None) } else { Err(fault) }
            }
            Err(fault) => Err(fault),
        }
    }

    /// Whether these bytes can still be had.
    async fn is_there(&self, path: &Path, version: Option<&str>, bytes: &Bytes) -> Result<bool> {
        let options = GetOptions { version: version.map(str::to_owned), ..GetOptions::default() };
        match self.plain.get_opts(path, options).await {
            Ok(answer) => {
                let read = answer.bytes().await.map_err(|error| self.fault("read", path.as_ref(), error))?;
                Ok(read == *bytes)
            }
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.fault("read", path.as_ref(), error)),
        }
    }

    async fn delete_version(&self, path: &Path, version: &str, bypass: bool) -> Result<()> {
        let mut headers = HeaderMap::new();
        if bypass {
            headers.insert(BYPASS, HeaderValue::from_static("true"));
        }
        let what = ("delete a version of", path);
        self.ask(what, Method::DELETE, &[("versionId", version)], headers, Bytes::new()).await.map(drop)
    }
}

#[async_trait]
impl Locker for S3Lock {
    fn lock(&self) -> Option<ObjectLock> {
        self.lock
    }

    async fn extend(&self, key: &Key, until: jiff::Timestamp) -> Result<()> {
        let Some(lock) = self.lock else {
            return Err(bug("extend", "no retention is configured"));
        };
        let path = self.path(key.as_str());
        let body = Bytes::from(format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode>\
             <RetainUntilDate>{}</RetainUntilDate></Retention>",
            lock.mode,
            seconds(until)
        ));
        let mut headers = HeaderMap::new();
        headers.insert(CHECKSUM, value(&STANDARD.encode(Sha256::digest(&body)))?);
        let what = ("extend the retention of", &path);
        match self.ask(what, Method::PUT, &[("retention", "")], headers, body).await {
            Ok(_) => Ok(()),
            // A storage refuses to shorten one.
            Err(fault) => match self.until_of(&path, None).await {
                Ok(Some(kept)) if kept >= until => Ok(()),
                _ => Err(fault),
            },
        }
    }

    async fn kept_until(&self, key: &Key) -> Result<Option<jiff::Timestamp>> {
        self.until_of(&self.path(key.as_str()), None).await
    }

    async fn try_to_destroy(&self) -> Result<Destruction> {
        let path = self.path(&format!("rekindle/probe/{:032x}/lock", rand::random::<u128>()));
        let first = Bytes::from_static(b"rekindle probe: to be kept");
        let writer = match self.lock {
            None => self.plain.clone(),
            Some(lock) => {
                let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(PROBE_SECONDS);
                self.writing(lock.mode, until)?
            }
        };
        let put = writer.put(&path, PutPayload::from_bytes(first.clone())).await;
        let version = put.map_err(|error| self.fault("put", path.as_ref(), error))?.version;
        let version = version.as_deref();
        let retention = match self.lock {
            None => None,
            Some(_) => self.until_of(&path, version).await?,
        };
        let mut refusal = None;
        let other = PutPayload::from_static(b"rekindle probe: something else");
        let over = match self.plain.put(&path, other).await {
            Ok(put) => put.version,
            Err(error) => {
                refusal = Some(self.fault("overwrite", path.as_ref(), error).chain());
                None
            }
        };
        let overwritten = !self.is_there(&path, version, &first).await?;
        if let Err(error) = self.plain.delete(&path).await {
            refusal = Some(self.fault("delete", path.as_ref(), error).chain());
        }
        let gone = !overwritten && !self.is_there(&path, None, &first).await?;
        if let (Some(version), false) = (version, overwritten) {
            for bypass in [false, true] {
                if let Err(fault) = self.delete_version(&path, version, bypass).await {
                    refusal = Some(fault.chain());
                }
            }
        }
        let there = self.is_there(&path, version, &first).await?;
        if let Some(over) = over {
            // What was put over it; it stays when that is refused too.
            let _ = self.delete_version(&path, &over, false).await;
        }
        Ok(Destruction {
            retention,
            overwritten,
            deleted: !overwritten && !there,
            hidden: gone && there,
            refusal: refusal.filter(|_| there),
        })
    }
}

fn bug(verb: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(codes::RUN_BUG, format!("{verb} an object")).because(why)
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|error| bug("lock", error))
}

/// RFC 3339 in whole seconds.
fn seconds(moment: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(moment.as_second()).unwrap_or(moment).to_string()
}

/// The date in an answer about a retention.
fn date(page: &str) -> Option<jiff::Timestamp> {
    let (_, rest) = page.split_once("<RetainUntilDate>")?;
    rest.split_once('<')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_whole_seconds_and_read_back() {
        let moment: jiff::Timestamp = "2026-11-24T22:00:00.5Z".parse().unwrap();
        assert_eq!(seconds(moment), "2026-11-24T22:00:00Z");
        let page =
            "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2026-12-24T22:00:00.000Z</RetainUntilDate></Retention>";
        assert_eq!(date(page), "2026-12-24T22:00:00Z".parse().ok());
        assert_eq!(date("<Error/>"), None);
    }
}
