//! The form in which `DUMP` gives a value and `RESTORE` takes it: type, value, RDB version,
//! checksum (`createDumpPayload` in `cluster.c` of Redis).

use super::crc64::Crc64;
use super::format;
use super::record::Key;

/// Bytes after the value: version (two, little-endian) and CRC64 (eight, little-endian).
pub(crate) const FOOTER_BYTES: usize = 10;

/// The payload of one key.
pub(crate) fn of_key(key: &Key<'_>, version: u16) -> Vec<u8> {
    let mut payload = Vec::with_capacity(key.value.len() + key.meta.len() + FOOTER_BYTES + 2);
    if !key.meta.is_empty() {
        payload.push(format::META_OR_SLOT_IMPORT);
        payload.extend_from_slice(key.meta);
    }
    payload.push(key.kind);
    payload.extend_from_slice(key.value);
    seal(payload, version)
}

/// The payload of `FUNCTION RESTORE`: each library with its opcode, one footer.
pub(crate) fn of_functions(libraries: &[Vec<u8>], version: u16) -> Vec<u8> {
    let mut payload = Vec::new();
    for library in libraries {
        payload.push(format::FUNCTION);
        payload.extend_from_slice(library);
    }
    seal(payload, version)
}

fn seal(mut payload: Vec<u8>, version: u16) -> Vec<u8> {
    payload.extend_from_slice(&version.to_le_bytes());
    let mut crc = Crc64::default();
    crc.update(&payload);
    payload.extend_from_slice(&crc.value().to_le_bytes());
    payload
}

/// Type and value of a payload a server gave, and its RDB version; `None` when it is not whole.
pub(crate) fn open(payload: &[u8]) -> Option<(&[u8], u16)> {
    let (body, footer) = payload.split_at_checked(payload.len().checked_sub(FOOTER_BYTES)?)?;
    let mut crc = Crc64::default();
    crc.update(&payload[..payload.len() - 8]);
    let stored = u64::from_le_bytes(footer[2..].try_into().ok()?);
    if stored != 0 && stored != crc.value() {
        return None;
    }
    Some((body, u16::from_le_bytes([footer[0], footer[1]])))
}

/// Whether a server that writes `own` reads payloads and files of `version`.
/// Valkey 9 and newer (80 on) refuses 12 to 79, which are Redis' after the lines parted.
pub(crate) fn accepts(own: u16, version: u16) -> bool {
    version <= own && !(own >= 80 && (12..80).contains(&version))
}
