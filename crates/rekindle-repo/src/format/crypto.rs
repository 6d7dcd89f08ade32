//! Authenticated encryption as restic does it: AES-256 in counter mode, Poly1305-AES over the
//! ciphertext. Layout: `IV (16) ‖ ciphertext ‖ tag (16)`. The one-time Poly1305 key is
//! `r ‖ AES-128(k, IV)`.

use std::fmt;

use aes::cipher::{BlockEncrypt, KeyInit, KeyIvInit, StreamCipher};
use aes::{Aes128, Aes256};
use poly1305::Poly1305;
use rand::TryRngCore;
use rand::rngs::OsRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::BadFormat;

type Ctr = ctr::Ctr128BE<Aes256>;

const IV_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// What sealing adds to the length.
pub const OVERHEAD: usize = IV_BYTES + TAG_BYTES;
/// Bytes of the key material: 32 for AES-256, 16 for `k`, 16 for `r`.
pub const KEY_BYTES: usize = 64;

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRandom;

impl fmt::Display for NoRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operating system gave no random bytes")
    }
}

impl std::error::Error for NoRandom {}

/// Random bytes of the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// A key that seals and opens: the master key of a repository, or one derived from a password.
#[derive(Clone)]
pub struct Key {
    encrypt: [u8; 32],
    mac_k: [u8; 16],
    mac_r: [u8; 16],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.encrypt.zeroize();
        self.mac_k.zeroize();
        self.mac_r.zeroize();
    }
}

impl Key {
    /// From its parts, as key files hold them.
    pub fn new(encrypt: [u8; 32], mac_k: [u8; 16], mac_r: [u8; 16]) -> Self {
        Self { encrypt, mac_k, mac_r }
    }

    /// From `encrypt ‖ k ‖ r`, as the key derivation gives them.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut key = Self::new([0; 32], [0; 16], [0; 16]);
        key.encrypt.copy_from_slice(&bytes[..32]);
        key.mac_k.copy_from_slice(&bytes[32..48]);
        key.mac_r.copy_from_slice(&bytes[48..]);
        key
    }

    /// A new random key.
    pub fn generate() -> Result<Self, NoRandom> {
        let mut bytes = random::<KEY_BYTES>()?;
        let key = Self::from_bytes(&bytes);
        bytes.zeroize();
        Ok(key)
    }

    /// The AES-256 part. Every call is a place to review.
    pub fn expose_encrypt(&self) -> &[u8; 32] {
        &self.encrypt
    }

    /// The `k` part of the message authentication. Every call is a place to review.
    pub fn expose_mac_k(&self) -> &[u8; 16] {
        &self.mac_k
    }

    /// The `r` part of the message authentication. Every call is a place to review.
    pub fn expose_mac_r(&self) -> &[u8; 16] {
        &self.mac_r
    }

    /// Appends the sealed form of `plain` to `out`.
    pub fn seal_into(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), NoRandom> {
        let iv = random::<IV_BYTES>()?;
        self.seal_with(&iv, plain, out);
        Ok(())
    }

    /// The sealed form of `plain`.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, NoRandom> {
        let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
        self.seal_into(plain, &mut out)?;
        Ok(out)
    }

    fn seal_with(&self, iv: &[u8; IV_BYTES], plain: &[u8], out: &mut Vec<u8>) {
        out.reserve(plain.len() + OVERHEAD);
        out.extend_from_slice(iv);
        let start = out.len();
        out.extend_from_slice(plain);
        Ctr::new(&self.encrypt.into(), iv.into()).apply_keystream(&mut out[start..]);
        let tag = self.tag(iv, &out[start..]);
        out.extend_from_slice(&tag);
    }

    /// Opens sealed bytes. Wrong key and damage look the same.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, BadFormat> {
        let mut plain = Vec::new();
        self.open_into(sealed, &mut plain)?;
        Ok(plain)
    }

    /// As [`Key::open`], into a buffer that is used again and again; what was in it is gone.
    pub fn open_into(&self, sealed: &[u8], plain: &mut Vec<u8>) -> Result<(), BadFormat> {
        let wrong = || BadFormat::new("the bytes are not what was sealed with this key");
        let (iv, rest) = sealed.split_first_chunk::<IV_BYTES>().ok_or_else(wrong)?;
        let (cipher, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(wrong)?;
        if !bool::from(self.tag(iv, cipher).ct_eq(tag)) {
            return Err(wrong());
        }
        plain.resize(cipher.len(), 0);
        Ctr::new(&self.encrypt.into(), iv.into()).apply_keystream_b2b(cipher, plain).map_err(|_| wrong())
    }

    fn tag(&self, iv: &[u8; IV_BYTES], cipher: &[u8]) -> [u8; TAG_BYTES] {
        let mut nonce = (*iv).into();
        Aes128::new(&self.mac_k.into()).encrypt_block(&mut nonce);
        let mut one_time = [0; 32];
        one_time[..16].copy_from_slice(&self.mac_r);
        one_time[16..].copy_from_slice(&nonce);
        let tag = Poly1305::new(&one_time.into()).compute_unpadded(cipher);
        one_time.zeroize();
        tag.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        std::array::from_fn(|i| {
            u8::from_str_radix(std::str::from_utf8(&digits[2 * i..2 * i + 2]).unwrap(), 16).unwrap()
        })
    }

    /// Poly1305-AES test vectors of D. J. Bernstein's paper, appendix B.
    #[test]
    fn poly1305_aes_known_answers() {
        let key =
            Key::new([0; 32], bytes("ec074c835580741701425b623235add6"), bytes("851fc40c3467ac0be05cc20404f3f700"));
        let nonce = bytes("fb447350c4e868c52ac3275cf9d4327e");
        assert_eq!(key.tag(&nonce, &bytes::<2>("f3f6")), bytes("f4c633c3044fc145f84f335cb81953de"));
        let key =
            Key::new([0; 32], bytes("75deaa25c09f208e1dc4ce6b5cad3fbf"), bytes("a0f3080000f46400d0c7e9076c834403"));
        assert_eq!(key.tag(&bytes("61ee09218d29b0aaed7e154a2c5509cc"), &[]), bytes("dd3fab2251f11ac759f0887129cc2ee7"));
    }

    /// AES-256-CTR test vector of NIST SP 800-38A, F.5.5.
    #[test]
    fn aes_ctr_known_answer() {
        let key = Key::new(bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"), [1; 16], [2; 16]);
        let iv = bytes("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
        let plain: [u8; 32] = bytes("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let mut sealed = Vec::new();
        key.seal_with(&iv, &plain, &mut sealed);
        assert_eq!(sealed[16..48], bytes::<32>("601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"));
        assert_eq!(key.open(&sealed), Ok(plain.to_vec()));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let key = Key::generate().unwrap();
        let sealed = key.seal(b"some bytes").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert!(key.open(&sealed[..cut]).is_err());
        }
        assert!(Key::generate().unwrap().open(&sealed).is_err());
        assert_eq!(key.open(&key.seal(b"").unwrap()), Ok(Vec::new()));
    }

    #[test]
    fn nonces_do_not_repeat() {
        let key = Key::generate().unwrap();
        let nonces: HashSet<Vec<u8>> = (0..10_000).map(|_| key.seal(b"").unwrap()[..16].to_vec()).collect();
        assert_eq!(nonces.len(), 10_000);
        assert_eq!(format!("{key:?}"), "[secret]");
    }
}
