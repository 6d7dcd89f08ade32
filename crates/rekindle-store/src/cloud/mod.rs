//! S3, GCS and Azure through `object_store`, one attempt per call.
//!
//! Its own retries are off: [`Retrying`](crate::Retrying) is the only place that repeats.

mod build;
mod digest;
mod gcs_json;
mod listing;
mod lock;
mod profile;
mod refusal;
mod wire;

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{Attribute, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutOptions, PutPayload};
use rekindle_core::{Fault, Result, codes};

use self::refusal::classify;
use crate::key::{Key, check_prefix};
use crate::lock::{Locker, is_lockable};
use crate::store::{ObjectMeta, PutMode, PutOutcome, Store, compare_existing, not_found, range_length, wrong_length};

pub(crate) use build::open;
pub(crate) use refusal::asked_pause;

/// Folder of packs, the only objects whose storage class can be chosen: all others are read by every command.
const PACKS: &str = "data/";

/// A bucket or container, or a prefix of one.
#[derive(Debug)]
pub(crate) struct Cloud {
    remote: Box<dyn ObjectStore>,
    /// Without slashes at the ends; may be empty.
    prefix: String,
    /// The URL without secrets.
    place: String,
    idle: Duration,
    /// Appended when the credentials were found nowhere and the instance has to provide them.
    credentials_hint: Option<&'static str>,
    /// Of S3.
    lock: Option<lock::S3Lock>,
    /// Of packs.
    storage_class: Option<String>,
}

impl Cloud {
    fn path(&self, key: &str) -> Path {
        // Keys hold no character that needs escaping, so this is the key itself.
        if self.prefix.is_empty() { Path::from(key) } else { Path::from(format!("{}/{key}", self.prefix)) }
    }

    fn fault(&self, verb: &str, object: &str, error: object_store::Error) -> Fault {
        let fault = classify(format!("{verb} `{object}` of {}", self.place), error);
        match self.credentials_hint {
            Some(hint)
                if fault.is(codes::STORE_UNREACHABLE)
                    || fault.is(codes::STORE_TIMEOUT)
                    || fault.is(codes::STORE_SERVER) =>
            {
                fault.hint(hint)
            }
            _ => fault,
        }
    }

    /// Waits for the next part of an answer; the connection watches only up to the first.
    async fn waiting<T>(&self, verb: &str, object: &str, part: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(self.idle, part).await.map_err(|_elapsed| {
            Fault::new(codes::STORE_TIMEOUT, format!("{verb} `{object}` of {}", self.place))
                .because(format!("no byte moved for {:?}", self.idle))
                .hint("check the network to the storage and that it is not overloaded")
        })
    }

    async fn read(&self, key: &Key, wanted: Option<GetRange>) -> Result<(Bytes, u64)> {
        let options = GetOptions { range: wanted, ..GetOptions::default() };
        let answer = match self.remote.get_opts(&self.path(key.as_str()), options).await {
            Ok(answer) => answer,
            Err(error @ object_store::Error::NotFound { .. }) => {
                let fault = self.fault("read", key.as_str(), error);
                return Err(if fault.is(codes::STORE_ROOT) { fault } else { not_found("read", key, &self.place) });
            }
            Err(error) => return Err(self.fault("read", key.as_str(), error)),
        };
        let promised = answer.range.end.saturating_sub(answer.range.start);
        Ok((self.collect(key, answer).await?, promised))
    }

    async fn collect(&self, key: &Key, answer: GetResult) -> Result<Bytes> {
        let mut parts = answer.into_stream();
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        while let Some(part) = self.waiting("read", key.as_str(), parts.next()).await? {
            let part = part.map_err(|e| self.fault("read", key.as_str(), e))?;
            match first.take() {
                None if rest.is_empty() => first = Some(part),
                None => rest.extend_from_slice(&part),
                Some(whole) => {
                    rest.extend_from_slice(&whole);
                    rest.extend_from_slice(&part);
                }
            }
        }
        Ok(first.unwrap_or_else(|| rest.freeze()))
    }

    fn key_of(&self, location: &Path) -> Option<Key> {
        let inside = if self.prefix.is_empty() {
            location.as_ref()
        } else {
            location.as_ref().strip_prefix(&self.prefix)?.strip_prefix('/')?
        };
        // A foreign object; its name cannot be one of ours.
        Key::new(inside).ok()
    }

    /// A range past the end is refused in many ways (416, an error of the library); the size of
    /// the object says whether that was the reason.
    async fn beyond_the_end(&self, key: &Key, range: &Range<u64>, fault: Fault) -> Fault {
        let mut found = self.head(key).await;
        if found.as_ref().is_err_and(|later| later.is(codes::STORE_UNREACHABLE)) {
            // Some servers close the connection behind such a refusal, just when it is used again.
            found = self.head(key).await;
        }
        match found {
            Ok(Some(meta)) if meta.size < range.end => {
                let got = meta.size.saturating_sub(range.start);
                wrong_length(key, &self.place, range.end - range.start, got).because(fault)
            }
            // Why it was refused is not known yet; this one may be worth another try.
            Err(later) => later.because(fault),
            Ok(_) => fault,
        }
    }
}

#[async_trait]
impl Store for Cloud {
    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<PutOutcome> {
        let mode = match mode {
            PutMode::Overwrite => object_store::PutMode::Overwrite,
            PutMode::IfAbsent => object_store::PutMode::Create,
        };
        let condition = mode == object_store::PutMode::Create;
        let mut options = PutOptions { mode, ..PutOptions::default() };
        if let Some(class) = self.storage_class.as_ref().filter(|_| key.as_str().starts_with(PACKS)) {
            options.attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        let payload = PutPayload::from_bytes(data.clone());
        let locked = match &self.lock {
            Some(lock) if is_lockable(key) => lock.writer()?,
            _ => None,
        };
        let remote: &dyn ObjectStore = locked.as_ref().map_or(&*self.remote, |client| client);
        match remote.put_opts(&self.path(key.as_str()), payload, options).await {
            Ok(_) => Ok(PutOutcome::Written),
            Err(object_store::Error::AlreadyExists { .. }) if condition => match self.get(key).await {
                Ok(stored) => compare_existing(key, &self.place, &data, &stored),
                // S3 answers 409 while another conditional write of the name is under way, and that
                // one may have failed since: worth another try.
                Err(fault) if fault.is(codes::STORE_NOT_FOUND) => Err(Fault::new(
                    codes::STORE_SERVER,
                    format!("put `{key}` into {}: another write of it was under way", self.place),
                )),
                Err(fault) => Err(fault),
            },
            // Nothing but the bucket can be missing when something is written.
            Err(object_store::Error::NotFound { .. }) => {
                Err(Fault::new(codes::STORE_ROOT, format!("put `{key}` into {}", self.place))
                    .because("the server says that there is no such bucket")
                    .hint("make the bucket or container, or correct its name in the URL"))
            }
            Err(error) => Err(self.fault("put", key.as_str(), error)),
        }
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let (data, promised) = self.read(key, None).await?;
        if data.len() as u64 == promised {
            Ok(data)
        } else {
            Err(wrong_length(key, &self.place, promised, data.len() as u64))
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let length = range_length(key, &range)?;
        if length == 0 {
            // HTTP has no empty range; the object still has to reach that far.
            let meta = self.head(key).await?.ok_or_else(|| not_found("read", key, &self.place))?;
            return if range.end <= meta.size { Ok(Bytes::new()) } else { Err(wrong_length(key, &self.place, 0, 0)) };
        }
        let (data, _) = match self.read(key, Some(GetRange::Bounded(range.clone()))).await {
            Ok(read) => read,
            Err(fault) => return Err(self.beyond_the_end(key, &range, fault).await),
        };
        if data.len() as u64 == length {
            Ok(data)
        } else {
            Err(wrong_length(key, &self.place, length, data.len() as u64))
        }
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        match self.remote.head(&self.path(key.as_str())).await {
            Ok(meta) => Ok(Some(object_meta(key.clone(), &meta))),
            Err(error @ object_store::Error::NotFound { .. }) => {
                let fault = self.fault("look up", key.as_str(), error);
                if fault.is(codes::STORE_ROOT) { Err(fault) } else { Ok(None) }
            }
            Err(error) => Err(self.fault("look up", key.as_str(), error)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        check_prefix(prefix)?;
        let inside = self.path(prefix.trim_end_matches('/'));
        let mut pages = self.remote.list((!inside.as_ref().is_empty()).then_some(&inside));
        let mut found = Vec::new();
        while let Some(object) = self.waiting("list", prefix, pages.next()).await? {
            let meta = object.map_err(|e| match e {
                // No bucket is the only 404 of a listing.
                object_store::Error::NotFound { .. } => {
                    Fault::new(codes::STORE_ROOT, format!("list `{prefix}` of {}", self.place))
                        .because("the server says that there is no such bucket")
                        .hint("make the bucket or container, or correct its name in the URL")
                }
                other => self.fault("list", prefix, other),
            })?;
            // The marker object `data/` that some web consoles make comes as `data`.
            if let Some(key) = self.key_of(&meta.location).filter(|key| key.as_str().starts_with(prefix)) {
                found.push(object_meta(key, &meta));
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        match self.remote.delete(&self.path(key.as_str())).await {
            Ok(()) => Ok(()),
            Err(error) => match self.fault("delete", key.as_str(), error) {
                absent if absent.is(codes::STORE_NOT_FOUND) => Ok(()),
                fault => Err(fault),
            },
        }
    }

    fn locker(&self) -> Option<&dyn Locker> {
        self.lock.as_ref().map(|lock| lock as &dyn Locker)
    }

    fn describe(&self) -> String {
        self.place.clone()
    }
}

fn object_meta(key: Key, meta: &object_store::ObjectMeta) -> ObjectMeta {
    let modified = jiff::Timestamp::from_millisecond(meta.last_modified.timestamp_millis()).ok();
    ObjectMeta { key, size: meta.size, modified }
}
