//! The opened master key, kept on this host between runs: spares the scrypt of every opening.
//!
//! A file per repository: `magic ‖ id of the key file ‖ salt ‖ sealed master key`. It is sealed under
//! a key that HKDF-SHA-256 (RFC 5869) derives from the password, so that it gives nothing without the
//! password; what else it is bound to stands in `seal_key`. It is a cache: whatever is odd about it is
//! the same as its absence, and nothing here ever fails an opening. Why this is safe, and for which
//! passwords it is not used: `docs/adr/0007-opened-keys-are-cached.md`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use rekindle_core::Secret;
use rustix::fs::OFlags;
use sha2::Sha256;
use zeroize::Zeroize;

use crate::format::crypto::{KEY_BYTES, Key, OVERHEAD, random};
use crate::format::id::{ID_BYTES, Id};

const MAGIC: &[u8; 8] = b"RKKEY\x00\x01\n";
const SALT_BYTES: usize = 32;
const FILE_BYTES: usize = MAGIC.len() + ID_BYTES + SALT_BYTES + KEY_BYTES + OVERHEAD;
/// What the derived key is for; HKDF's `info` begins with it.
const PURPOSE: &[u8] = b"rekindle key cache v1";
/// Bits that let somebody else in.
const MODE_OTHERS: u32 = 0o077;

/// A private directory with opened master keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCache {
    directory: PathBuf,
}

/// A master key from the cache.
pub(crate) struct Cached {
    pub(crate) key: Key,
    /// The key file it came from.
    pub(crate) id: Id,
}

impl KeyCache {
    /// A cache in this directory; it is made, for its owner only, when something is to be kept.
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// One file per repository. `config` is the SHA-256 of its `config` object as it is stored.
    fn file(&self, config: &Id) -> PathBuf {
        self.directory.join(format!("{}.key", &config.hex()[..32]))
    }

    /// What is kept for a repository, when this password opens it.
    pub(crate) fn load(&self, config: &Id, password: &Secret<String>) -> Option<Cached> {
        let path = self.file(config);
        match read(&self.directory, &path).map(|bytes| open(&bytes, config, password)) {
            Ok(Some(cached)) => Some(cached),
            Ok(None) => {
                tracing::debug!(file = %path.display(), "the cached key does not fit");
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::debug!(file = %path.display(), %error, "the cached key is not used");
                None
            }
        }
    }

    /// Keeps an opened key.
    pub(crate) fn keep(&self, config: &Id, password: &Secret<String>, cached: &Cached) {
        let kept = seal(config, password, cached).and_then(|bytes| self.write(config, &bytes));
        if let Err(error) = kept {
            tracing::debug!(directory = %self.directory.display(), %error, "the opened key is not cached");
        }
    }

    /// Removes what is kept for a repository: its key file is gone.
    pub(crate) fn forget(&self, config: &Id) {
        // It is useless already; what stays does no harm.
        let _ = std::fs::remove_file(self.file(config));
    }

    fn write(&self, config: &Id, bytes: &[u8]) -> io::Result<()> {
        if !self.directory.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        }
        check_private(&std::fs::symlink_metadata(&self.directory)?, std::fs::Metadata::is_dir)?;
        let path = self.file(config);
        let new = path.with_extension(format!("{:016x}.new", rand::random::<u64>()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        // Not synced: a torn file is a cache that does not fit.
        let written = file.write_all(bytes).and_then(|()| std::fs::rename(&new, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        written
    }
}

/// Neither the directory nor the file may be another user's, or open to others.
fn check_private(meta: &std::fs::Metadata, kind: impl Fn(&std::fs::Metadata) -> bool) -> io::Result<()> {
    let own = meta.uid() == rustix::process::geteuid().as_raw();
    if own && meta.mode() & MODE_OTHERS == 0 && kind(meta) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not private to this user"))
}

fn read(directory: &Path, path: &Path) -> io::Result<[u8; FILE_BYTES]> {
    check_private(&std::fs::symlink_metadata(directory)?, std::fs::Metadata::is_dir)?;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file: File = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let meta = file.metadata()?;
    check_private(&meta, std::fs::Metadata::is_file)?;
    if meta.len() != FILE_BYTES as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its length is wrong"));
    }
    let mut bytes = [0; FILE_BYTES];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn open(bytes: &[u8; FILE_BYTES], config: &Id, password: &Secret<String>) -> Option<Cached> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
    let (salt, sealed) = rest.split_first_chunk::<SALT_BYTES>()?;
    let id = Id(*id);
    let mut plain = seal_key(config, &id, password, salt).open(sealed).ok()?;
    let key = plain.as_slice().try_into().ok().map(Key::from_bytes);
    plain.zeroize();
    Some(Cached { key: key?, id })
}

fn seal(config: &Id, password: &Secret<String>, cached: &Cached) -> io::Result<Vec<u8>> {
    let salt = random::<SALT_BYTES>().map_err(io::Error::other)?;
    let mut plain = Vec::with_capacity(KEY_BYTES);
    plain.extend_from_slice(cached.key.expose_encrypt());
    plain.extend_from_slice(cached.key.expose_mac_k());
    plain.extend_from_slice(cached.key.expose_mac_r());
    let sealed = seal_key(config, &cached.id, password, &salt).seal(&plain);
    plain.zeroize();
    let mut bytes = Vec::with_capacity(FILE_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&cached.id.0);
    bytes.extend_from_slice(&salt);
    bytes.extend_from_slice(&sealed.map_err(io::Error::other)?);
    Ok(bytes)
}

/// What the file is sealed under. It differs for every file, repository and key file: a file put in
/// the place of another opens nothing.
fn seal_key(config: &Id, id: &Id, password: &Secret<String>, salt: &[u8]) -> Key {
    let info = [PURPOSE, &config.0, &id.0].concat();
    let mut bytes = hkdf(salt, password.expose().as_bytes(), &info);
    let key = Key::from_bytes(&bytes);
    bytes.zeroize();
    key
}

/// HKDF-SHA-256 (RFC 5869), 64 bytes of it.
fn hkdf(salt: &[u8], secret: &[u8], info: &[u8]) -> [u8; KEY_BYTES] {
    let mut extracted = authenticate(salt, &[secret]);
    let mut first = authenticate(&extracted, &[info, &[1]]);
    let mut second = authenticate(&extracted, &[&first, info, &[2]]);
    let mut bytes = [0; KEY_BYTES];
    bytes[..first.len()].copy_from_slice(&first);
    bytes[first.len()..].copy_from_slice(&second);
    for part in [&mut extracted, &mut first, &mut second] {
        part.zeroize();
    }
    bytes
}

fn authenticate(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn cached() -> Cached {
        Cached { key: Key::generate().unwrap(), id: Id::of(b"a key file") }
    }

    /// RFC 5869, appendix A.1.
    #[test]
    fn hkdf_known_answer() {
        let (salt, info): (Vec<u8>, Vec<u8>) = ((0..13).collect(), (0xf0..=0xf9).collect());
        let hex = rekindle_core::proof::hex(&hkdf(&salt, &[0x0b; 22], &info)[..42]);
        assert_eq!(hex, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
    }

    #[test]
    fn what_is_kept_fits_one_repository_and_one_password() {
        let directory = tempfile::tempdir().unwrap();
        let cache = KeyCache::at(directory.path().join("a/keys"));
        let (config, kept) = (Id::of(b"config"), cached());
        assert!(cache.load(&config, &secret("right")).is_none());
        cache.keep(&config, &secret("right"), &kept);
        let found = cache.load(&config, &secret("right")).unwrap();
        assert_eq!((found.id, found.key.expose_encrypt()), (kept.id, kept.key.expose_encrypt()));
        assert_eq!(found.key.expose_mac_k(), kept.key.expose_mac_k());
        assert_eq!(found.key.expose_mac_r(), kept.key.expose_mac_r());
        assert!(cache.load(&config, &secret("wrong")).is_none());
        // The file of one repository in the place of another's.
        let other = Id::of(b"another config");
        std::fs::copy(cache.file(&config), cache.file(&other)).unwrap();
        assert!(cache.load(&other, &secret("right")).is_none());
        cache.forget(&config);
        assert!(cache.load(&config, &secret("right")).is_none());
    }

    #[test]
    fn it_is_private_or_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("state/keys");
        let cache = KeyCache::at(place.clone());
        let (config, password) = (Id::of(b"config"), secret("right"));
        cache.keep(&config, &password, &cached());
        let file = cache.file(&config);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert_eq!((mode(&place), mode(&file)), (0o700, 0o600));
        for (path, right) in [(&file, 0o600), (&place, 0o700)] {
            for open in [0o040, 0o004, 0o020] {
                set(path, right | open);
                assert!(cache.load(&config, &password).is_none(), "{} {open:o}", path.display());
            }
            set(path, right);
            assert!(cache.load(&config, &password).is_some());
        }
        // Nothing is written into a directory that others may open.
        cache.forget(&config);
        set(&place, 0o755);
        cache.keep(&config, &password, &cached());
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
        // Nor is a link followed.
        set(&place, 0o700);
        cache.keep(&config, &password, &cached());
        let away = directory.path().join("away");
        std::fs::rename(&file, &away).unwrap();
        std::os::unix::fs::symlink(&away, &file).unwrap();
        assert!(cache.load(&config, &password).is_none());
    }

    #[test]
    fn damage_is_the_same_as_absence() {
        let directory = tempfile::tempdir().unwrap();
        let cache = KeyCache::at(directory.path().join("keys"));
        let (config, password) = (Id::of(b"config"), secret("right"));
        cache.keep(&config, &password, &cached());
        let file = cache.file(&config);
        let good = std::fs::read(&file).unwrap();
        assert_eq!(good.len(), FILE_BYTES);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&file, &bad).unwrap();
            assert!(cache.load(&config, &password).is_none(), "byte {at}");
        }
        for length in [0, 1, good.len() - 1] {
            std::fs::write(&file, &good[..length]).unwrap();
            assert!(cache.load(&config, &password).is_none(), "{length} bytes");
        }
        std::fs::write(&file, [&good[..], &[0]].concat()).unwrap();
        assert!(cache.load(&config, &password).is_none());
        std::fs::write(&file, &good).unwrap();
        assert!(cache.load(&config, &password).is_some());
    }
}
