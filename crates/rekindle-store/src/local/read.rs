//! Reading files.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use rekindle_core::{Fault, Result, codes};

use super::failure::{fault, is_absent, root_is_there};
use crate::key::Key;
use crate::store::{ObjectMeta, not_found, range_length, wrong_length};

pub(super) fn whole(root: &Path, key: &Key) -> Result<Bytes> {
    let (mut file, meta) = open(root, key)?;
    let size = meta.len();
    let mut data = Vec::with_capacity(fits_memory(key, size)?);
    file.read_to_end(&mut data).map_err(|e| fault(verb(root, key), e))?;
    if data.len() as u64 != size {
        return Err(wrong_length(key, &place(root), size, data.len() as u64));
    }
    Ok(data.into())
}

pub(super) fn range(root: &Path, key: &Key, range: &Range<u64>) -> Result<Bytes> {
    let length = range_length(key, range)?;
    let (mut file, meta) = open(root, key)?;
    if range.end > meta.len() {
        return Err(wrong_length(key, &place(root), length, meta.len().saturating_sub(range.start)));
    }
    let mut data = Vec::with_capacity(fits_memory(key, length)?);
    let read = file.seek(SeekFrom::Start(range.start)).and_then(|_| file.take(length).read_to_end(&mut data));
    match read {
        Ok(given) if given as u64 == length => Ok(data.into()),
        Ok(given) => Err(wrong_length(key, &place(root), length, given as u64)),
        Err(e) => Err(fault(verb(root, key), e)),
    }
}

pub(super) fn head(root: &Path, key: &Key) -> Result<Option<ObjectMeta>> {
    match std::fs::metadata(root.join(key.as_str())) {
        Ok(meta) if meta.is_file() => Ok(Some(object_meta(key.clone(), &meta))),
        // A directory is not an object; neither is a socket somebody left there.
        Ok(_) => Ok(None),
        Err(e) if is_absent(&e) => root_is_there(root).map(|()| None),
        Err(e) => Err(fault(format!("look up `{key}` of {}", place(root)), e)),
    }
}

pub(super) fn object_meta(key: Key, meta: &Metadata) -> ObjectMeta {
    let modified = meta.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
    ObjectMeta { key, size: meta.len(), modified }
}

fn open(root: &Path, key: &Key) -> Result<(File, Metadata)> {
    let opened = File::open(root.join(key.as_str())).and_then(|file| file.metadata().map(|meta| (file, meta)));
    match opened {
        Ok((file, meta)) if meta.is_file() => Ok((file, meta)),
        Ok(_) => Err(not_found("read", key, &place(root)).because(io::Error::other("it is not a regular file"))),
        Err(e) if is_absent(&e) => {
            root_is_there(root)?;
            Err(not_found("read", key, &place(root)))
        }
        Err(e) => Err(fault(verb(root, key), e)),
    }
}

fn fits_memory(key: &Key, size: u64) -> Result<usize> {
    usize::try_from(size).map_err(|e| {
        Fault::new(codes::STORE_IO, format!("read `{key}`: {size} bytes do not fit into memory")).because(e)
    })
}

fn verb(root: &Path, key: &Key) -> String {
    format!("read `{key}` of {}", place(root))
}

pub(super) fn place(root: &Path) -> String {
    format!("`{}`", root.display())
}
