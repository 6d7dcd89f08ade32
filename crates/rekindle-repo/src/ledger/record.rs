//! One link of the chain: what it says, how it is signed, sealed and checked.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rekindle_core::PointId;
use rekindle_core::manifest::LedgerHead;
use serde::{Deserialize, Serialize};

use crate::format::crypto::Key;
use crate::format::{BadFormat, Id};

/// The version this program writes, and the newest one it reads.
pub const RECORD_VERSION: u32 = 1;

/// What happened to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A run committed it.
    Committed,
    /// It was found in the repository without a record (a crash right after the commit) and
    /// taken over.
    Adopted,
    /// It was removed on purpose.
    Forgotten,
}

/// One record, as it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    /// 1, 2, 3, … without a gap; also the object's name.
    pub sequence: u64,
    /// Hash of the record before it; `None` only in the first.
    pub previous: Option<String>,
    pub time: jiff::Timestamp,
    pub action: Action,
    pub point: PointId,
    /// Id of the snapshot's tree, 64 hex digits.
    pub tree: String,
    /// Name of the host that acted.
    pub host: String,
    /// The run that acted, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// A record with the exact text that was signed: its hash is over that text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub record: Record,
    /// SHA-256 of the signed text, hex.
    pub hash: String,
}

impl Entry {
    /// The head of a chain that ends here.
    pub fn head(&self) -> LedgerHead {
        LedgerHead { sequence: self.record.sequence, hash: self.hash.clone() }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    /// The record as text, so that the signed bytes survive any JSON library.
    record: String,
    /// Ed25519 over the record's text, hex.
    signature: String,
}

/// Signs and seals a record.
pub(super) fn encode(record: &Record, signer: &SigningKey, key: &Key) -> Result<(Entry, Vec<u8>), BadFormat> {
    let text = serde_json::to_string(record)?;
    let signature = signer.sign(text.as_bytes());
    let entry = Entry { record: record.clone(), hash: Id::of(text.as_bytes()).hex() };
    let envelope = Envelope { record: text, signature: rekindle_core::proof::hex(&signature.to_bytes()) };
    let sealed = key.seal(&serde_json::to_vec(&envelope)?).map_err(|e| BadFormat::new(e.to_string()))?;
    Ok((entry, sealed))
}

/// Opens a record that stands under `sequence`, checks its signature and its number.
pub(super) fn decode(sealed: &[u8], sequence: u64, public: &VerifyingKey, key: &Key) -> Result<Entry, BadFormat> {
    let envelope: Envelope = serde_json::from_slice(&key.open(sealed)?)?;
    let signature =
        bytes_of_hex::<64>(&envelope.signature).ok_or_else(|| BadFormat::new("its signature is not 128 hex digits"))?;
    public
        .verify_strict(envelope.record.as_bytes(), &Signature::from_bytes(&signature))
        .map_err(|_| BadFormat::new("its signature is not by the key of this repository"))?;
    let record: Record = serde_json::from_str(&envelope.record)?;
    if record.version > RECORD_VERSION {
        return Err(BadFormat::new(format!(
            "its version {} is newer than this program knows ({RECORD_VERSION})",
            record.version
        )));
    }
    if record.sequence != sequence {
        return Err(BadFormat::new(format!(
            "it is number {} and stands in the place of number {sequence}",
            record.sequence
        )));
    }
    Ok(Entry { hash: Id::of(envelope.record.as_bytes()).hex(), record })
}

/// Exactly `N` bytes of hex digits.
pub(crate) fn bytes_of_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64) -> Record {
        Record {
            version: RECORD_VERSION,
            sequence,
            previous: None,
            time: jiff::Timestamp::UNIX_EPOCH,
            action: Action::Committed,
            point: "ab".repeat(32).parse().unwrap(),
            tree: "cd".repeat(32),
            host: "a".to_owned(),
            run: None,
        }
    }

    #[test]
    fn a_record_comes_back_only_whole_in_its_place_and_from_its_signer() {
        let (signer, key) = (SigningKey::from_bytes(&[7; 32]), Key::generate().unwrap());
        let public = signer.verifying_key();
        let (entry, sealed) = encode(&record(3), &signer, &key).unwrap();
        assert_eq!(decode(&sealed, 3, &public, &key), Ok(entry));
        assert!(decode(&sealed, 4, &public, &key).is_err(), "another place");
        let stranger = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert!(decode(&sealed, 3, &stranger, &key).is_err());
        assert!(decode(&sealed, 3, &public, &Key::generate().unwrap()).is_err());
        for byte in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[byte] ^= 1;
            assert!(decode(&bad, 3, &public, &key).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let (signer, key) = (SigningKey::from_bytes(&[7; 32]), Key::generate().unwrap());
        let newer = Record { version: RECORD_VERSION + 1, ..record(1) };
        let (_, sealed) = encode(&newer, &signer, &key).unwrap();
        let error = decode(&sealed, 1, &signer.verifying_key(), &key).unwrap_err();
        assert!(error.to_string().contains("newer"), "{error}");
    }
}
