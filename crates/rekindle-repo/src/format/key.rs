//! Key files: the master key, sealed with a key that scrypt derives from a password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::BadFormat;
use super::crypto::{KEY_BYTES, Key, random};

/// Most memory a key file may make scrypt use; restic and rustic stay at or below 128 MiB.
const SCRYPT_MEMORY_BYTES_MAX: u64 = 512 << 20;
/// Most work (`N·r·p`) a key file may ask for: about ten times what restic and rustic use.
const SCRYPT_WORK_MAX: u64 = 1 << 25;
const SALT_BYTES: usize = 64;

/// A key file, as it stands in `keys/`; plain JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    #[serde(default)]
    pub created: String,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub hostname: String,
    pub kdf: String,
    #[serde(rename = "N")]
    pub n: u64,
    pub r: u32,
    pub p: u32,
    /// Base64.
    pub salt: String,
    /// Base64 of the sealed master key.
    pub data: String,
}

/// Why a key file did not give the master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFault {
    /// The password does not belong to this key file (or its sealed part is damaged).
    WrongPassword,
    /// It is not a usable key file.
    Bad(BadFormat),
}

impl<T: Into<BadFormat>> From<T> for KeyFault {
    fn from(bad: T) -> Self {
        Self::Bad(bad.into())
    }
}

#[derive(Serialize, Deserialize)]
struct MasterJson {
    mac: MacJson,
    encrypt: String,
}

#[derive(Serialize, Deserialize)]
struct MacJson {
    k: String,
    r: String,
}

impl KeyFile {
    /// Reads a key file.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadFormat> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The bytes to store.
    pub fn encode(&self) -> Result<Vec<u8>, BadFormat> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Derives the key from the password and opens the master key. Takes about a second and up to
    /// 128 MiB of memory with usual parameters; parameters far beyond are refused.
    pub fn open(&self, password: &str) -> Result<Key, KeyFault> {
        let derived = self.derive(password)?;
        let sealed = decode64(&self.data)?;
        let mut plain = derived.open(&sealed).map_err(|_| KeyFault::WrongPassword)?;
        let master = serde_json::from_slice::<MasterJson>(&plain);
        plain.zeroize();
        let mut master = master.map_err(|_| BadFormat::new("the sealed part is not a key"))?;
        let key = Key::new(exact(&master.encrypt)?, exact(&master.mac.k)?, exact(&master.mac.r)?);
        master.encrypt.zeroize();
        master.mac.k.zeroize();
        master.mac.r.zeroize();
        Ok(key)
    }

    /// A key file that gives `master` for `password`. `log_n` is the binary logarithm of scrypt's
    /// cost (17 is what rustic takes; 128 MiB), `r` is 8 and `p` is 1.
    pub fn create(master: &Key, password: &str, log_n: u8, created: String) -> Result<Self, KeyFault> {
        let encode = |bytes: &[u8]| STANDARD.encode(bytes);
        let salt = random::<SALT_BYTES>().map_err(|e| BadFormat::new(e.to_string()))?;
        let n = 1_u64.checked_shl(u32::from(log_n)).ok_or_else(|| BadFormat::new("the cost is too high"))?;
        let mut file = Self {
            created,
            username: String::new(),
            hostname: String::new(),
            kdf: "scrypt".to_owned(),
            n,
            r: 8,
            p: 1,
            salt: encode(&salt),
            data: String::new(),
        };
        let json = MasterJson {
            mac: MacJson { k: encode(master.expose_mac_k()), r: encode(master.expose_mac_r()) },
            encrypt: encode(master.expose_encrypt()),
        };
        let mut plain = serde_json::to_vec(&json).map_err(BadFormat::from)?;
        let sealed = file.derive(password)?.seal(&plain).map_err(|e| BadFormat::new(e.to_string()))?;
        plain.zeroize();
        file.data = encode(&sealed);
        Ok(file)
    }

    fn derive(&self, password: &str) -> Result<Key, BadFormat> {
        let bad = |why: &str| BadFormat::new(format!("key file: {why}"));
        if self.kdf != "scrypt" {
            return Err(bad("its key derivation is not scrypt"));
        }
        if self.n < 2 || !self.n.is_power_of_two() || self.r == 0 || self.p == 0 {
            return Err(bad("its scrypt parameters are not valid"));
        }
        let block = u64::from(self.r) * self.n;
        if u64::from(self.r) > 1 << 16
            || self.n > 1 << 32
            || block.saturating_mul(128) > SCRYPT_MEMORY_BYTES_MAX
            || block.saturating_mul(u64::from(self.p)) > SCRYPT_WORK_MAX
        {
            return Err(bad("its scrypt parameters ask for too much work"));
        }
        let log_n = u8::try_from(self.n.trailing_zeros()).map_err(|_| bad("N is too high"))?;
        let parameters =
            scrypt::Params::new(log_n, self.r, self.p).map_err(|_| bad("its scrypt parameters are not valid"))?;
        let salt = decode64(&self.salt)?;
        let mut bytes = [0; KEY_BYTES];
        scrypt::scrypt(password.as_bytes(), &salt, &parameters, &mut bytes).map_err(|_| bad("scrypt failed"))?;
        let key = Key::from_bytes(&bytes);
        bytes.zeroize();
        Ok(key)
    }
}

fn decode64(text: &str) -> Result<Vec<u8>, BadFormat> {
    STANDARD.decode(text).map_err(|_| BadFormat::new("key file: a field is not base64"))
}

fn exact<const N: usize>(text: &str) -> Result<[u8; N], BadFormat> {
    decode64(text)?.try_into().map_err(|_| BadFormat::new("key file: a key has the wrong length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_opens_and_another_does_not() {
        let master = Key::generate().unwrap();
        let file = KeyFile::create(&master, "right", 4, String::new()).unwrap();
        let file = KeyFile::decode(&file.encode().unwrap()).unwrap();
        let opened = file.open("right").unwrap();
        assert_eq!(opened.expose_encrypt(), master.expose_encrypt());
        assert_eq!(opened.expose_mac_k(), master.expose_mac_k());
        assert_eq!(opened.expose_mac_r(), master.expose_mac_r());
        assert!(matches!(file.open("wrong"), Err(KeyFault::WrongPassword)));
    }

    #[test]
    fn hostile_parameters_are_refused_at_once() {
        let master = Key::generate().unwrap();
        let good = KeyFile::create(&master, "x", 4, String::new()).unwrap();
        for (n, r, p) in [
            (1 << 40, 8, 1),
            (1 << 20, 8, 1_000),
            (16, u32::MAX, 1),
            (16, 8, u32::MAX),
            (0, 8, 1),
            (15, 8, 1),
            (16, 0, 1),
            (u64::MAX, u32::MAX, u32::MAX),
        ] {
            let bad = KeyFile { n, r, p, ..good.clone() };
            assert!(matches!(bad.open("x"), Err(KeyFault::Bad(_))), "{n} {r} {p}");
        }
    }
}
