//! One link of a chain: how it is signed, sealed and checked.

use ed25519_dalek::{Signature, VerifyingKey};
use rekindle_core::ErrorCode;
use rekindle_core::manifest::LedgerHead;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::signer::Signer;
use crate::format::crypto::Key;
use crate::format::{BadFormat, Id};

/// A record that can stand in a chain.
pub trait Link: Serialize + DeserializeOwned + Send {
    /// Folder of the records, with its slash.
    const FOLDER: &'static str;
    /// The chain and one of its records, for errors.
    const CHAIN: &'static str;
    const RECORD: &'static str;
    /// Of everything that is wrong with the chain.
    const CODE: &'static ErrorCode;
    /// The newest version that is read.
    const VERSION: u32;

    /// The version it was written with.
    fn version(&self) -> u32;
    /// 1, 2, 3, … without a gap.
    fn sequence(&self) -> u64;
    /// Hash of the record before it.
    fn previous(&self) -> Option<&str>;
}

/// Makes a record with the fields `version`, `sequence` and `previous` a [`Link`]: where its chain stands, what the
/// chain and a record are called, the code of what is wrong with it, the newest version.
macro_rules! chained {
    ($record:ident in $folder:literal: $chain:literal, $name:literal, $code:expr, $version:expr) => {
        impl $crate::chain::Link for $record {
            const FOLDER: &'static str = $folder;
            const CHAIN: &'static str = $chain;
            const RECORD: &'static str = $name;
            const CODE: &'static rekindle_core::ErrorCode = $code;
            const VERSION: u32 = $version;

            fn version(&self) -> u32 {
                self.version
            }

            fn sequence(&self) -> u64 {
                self.sequence
            }

            fn previous(&self) -> Option<&str> {
                self.previous.as_deref()
            }
        }
    };
}
pub(crate) use chained;

/// A record with the exact text that was signed: its hash is over that text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<R> {
    pub record: R,
    /// SHA-256 of the signed text, hex.
    pub hash: String,
    /// What was signed, and the signature (Ed25519, hex): enough to check it without this program.
    pub signed: String,
    pub signature: String,
}

impl<R: Link> Entry<R> {
    /// The head of a chain that ends here.
    pub fn head(&self) -> LedgerHead {
        LedgerHead { sequence: self.record.sequence(), hash: self.hash.clone() }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    /// The record as text, so that the signed bytes survive any JSON library.
    record: String,
    /// Ed25519 over the record's text, hex.
    signature: String,
}

/// Only the version, so that a record of a newer program is refused by name.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Signs and seals a record.
pub(super) fn encode<R: Link>(record: &R, signer: &Signer, key: &Key) -> Result<(Entry<R>, Vec<u8>), BadFormat> {
    let signed = serde_json::to_string(record)?;
    let signature = rekindle_core::proof::hex(&signer.sign(signed.as_bytes()).to_bytes());
    let envelope = Envelope { record: signed.clone(), signature: signature.clone() };
    let sealed = key.seal(&serde_json::to_vec(&envelope)?).map_err(|e| BadFormat::new(e.to_string()))?;
    // What is given back is what will be read, not what was meant.
    let record = serde_json::from_str(&signed)?;
    Ok((Entry { record, hash: Id::of(signed.as_bytes()).hex(), signed, signature }, sealed))
}

/// Opens a record that stands under `sequence`, checks its signature and its number.
pub(super) fn decode<R: Link>(
    sealed: &[u8],
    sequence: u64,
    public: &VerifyingKey,
    key: &Key,
) -> Result<Entry<R>, BadFormat> {
    let Envelope { record: signed, signature } = serde_json::from_slice(&key.open(sealed)?)?;
    let bytes = bytes_of_hex::<64>(&signature).ok_or_else(|| BadFormat::new("its signature is not 128 hex digits"))?;
    public
        .verify_strict(signed.as_bytes(), &Signature::from_bytes(&bytes))
        .map_err(|_| BadFormat::new("its signature is not by the key of this repository"))?;
    let Version { version } = serde_json::from_str(&signed)?;
    if version > R::VERSION {
        let known = R::VERSION;
        return Err(BadFormat::new(format!("its version {version} is newer than this program knows ({known})")));
    }
    let record: R = serde_json::from_str(&signed)?;
    if record.sequence() != sequence {
        let number = record.sequence();
        return Err(BadFormat::new(format!("it is number {number} and stands in the place of number {sequence}")));
    }
    Ok(Entry { record, hash: Id::of(signed.as_bytes()).hex(), signed, signature })
}

/// Whether a text was signed by the key of another repository (both hex).
pub(crate) fn signed_by(text: &str, signature: &str, public_key: &str) -> Result<(), BadFormat> {
    let key = bytes_of_hex::<32>(public_key).and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
    let key = key.ok_or_else(|| BadFormat::new("its public key is not usable"))?;
    let bytes = bytes_of_hex::<64>(signature).ok_or_else(|| BadFormat::new("its signature is not 128 hex digits"))?;
    key.verify_strict(text.as_bytes(), &Signature::from_bytes(&bytes))
        .map_err(|_| BadFormat::new("its signature is not by the key that it names"))
}

/// Exactly `N` bytes of hex digits.
pub(super) fn bytes_of_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
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
    use crate::ledger::{Action, RECORD_VERSION, Record};

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
            original: None,
        }
    }

    #[test]
    fn a_record_comes_back_only_whole_in_its_place_and_from_its_signer() {
        let (signer, key) = (Signer::of_seed([7; 32]), Key::generate().unwrap());
        let public = signer.verifying();
        let (entry, sealed) = encode(&record(3), &signer, &key).unwrap();
        assert_eq!(decode(&sealed, 3, &public, &key), Ok(entry));
        assert!(decode::<Record>(&sealed, 4, &public, &key).is_err(), "another place");
        let stranger = Signer::of_seed([8; 32]).verifying();
        assert!(decode::<Record>(&sealed, 3, &stranger, &key).is_err());
        assert!(decode::<Record>(&sealed, 3, &public, &Key::generate().unwrap()).is_err());
        for byte in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[byte] ^= 1;
            assert!(decode::<Record>(&bad, 3, &public, &key).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let (signer, key) = (Signer::of_seed([7; 32]), Key::generate().unwrap());
        let newer = Record { version: RECORD_VERSION + 1, ..record(1) };
        let (_, sealed) = encode(&newer, &signer, &key).unwrap();
        let error = decode::<Record>(&sealed, 1, &signer.verifying(), &key).unwrap_err();
        assert!(error.to_string().contains("newer"), "{error}");
    }
}
