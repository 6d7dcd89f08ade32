//! Whether the key of the point opens the secrets of the database: passwords of data sources above all.
//! Without it a restored Grafana looks whole and reaches nothing.
//!
//! A secret is `#` + base64(id of a data key) + `#` + sealed, or just sealed with `secret_key` (before
//! Grafana 9). A data key is sealed with `secret_key` in the table `data_keys`. *Sealed* is an optional
//! `*` + base64(algorithm) + `*`, then salt (8 bytes), initial vector (16 bytes) and AES-256-CFB, with the
//! key PBKDF2-HMAC-SHA256(secret, salt, 10 000 rounds)
//! (<https://grafana.com/docs/grafana/latest/setup-grafana/configure-security/configure-database-encryption/>).
//! CFB has no checksum: that a key is right is seen by its result being text.

use std::collections::BTreeMap;
use std::path::Path;

use aes::Aes256;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockEncrypt, KeyInit};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use rekindle_core::entry::{EntryPath, ReadFault};
use rekindle_core::port::{Finding, PartReader};
use rekindle_core::{Fault, Result, Secret, codes};
use rusqlite::Connection;
use sha2::Sha256;

use super::capture::KEY;
use super::database;
use super::details::{GrafanaDetails, KeyState};
use super::ini::{Ini, variables};
use super::settings::DEFAULT_KEY;
use crate::files::companions;

const SALT: usize = 8;
const BLOCK: usize = 16;
const ROUNDS: u32 = 10_000;
/// Fewer decrypted bytes than this may be text by chance.
const TELLING_BYTES: usize = 12;
/// Configuration files are small; a larger file is none.
const CONFIG_BYTES_MAX: usize = 1 << 20;
/// The provider whose key is `secret_key`; others are key services.
const OWN_PROVIDERS: [&str; 2] = ["secretKey.v1", "secretKey"];

/// What the sealed values of a database are.
enum Opened {
    /// So many values, with so many bytes.
    Text { values: usize, bytes: usize },
    /// The first that is no text.
    Wrong(String),
    /// It cannot be told here.
    Unknown(String),
}

/// Looks at the restored database with the key of the point. Blocking.
pub(super) fn check(part: &dyn PartReader, details: &GrafanaDetails, file: &Path) -> Result<Finding> {
    let sealed = match values(file) {
        Ok(sealed) => sealed,
        Err(error) => {
            let text = format!("the encrypted values of the database could not be read: {error}");
            return Ok(Finding::unproved(text, "use a version of rekindle that knows this Grafana"));
        }
    };
    if sealed.values.is_empty() {
        return Ok(Finding::good("the database holds no encrypted values, so no key is needed"));
    }
    let count = sealed.values.len();
    let Some(key) = key(part, details)? else {
        return Ok(Finding::bad(
            format!("{count} encrypted values, and the point does not hold the `secret_key` that opens them"),
            "set `secret-key` to where it is kept (as `env:GF_SECURITY_SECRET_KEY`), or `config` and `environment-file`",
        ));
    };
    Ok(match open_all(&sealed, &key) {
        Opened::Text { values, bytes } if bytes >= TELLING_BYTES => {
            Finding::good(format!("the key of the point opens all {values} encrypted values"))
        }
        Opened::Text { .. } => Finding::unproved(
            format!("the {count} encrypted values are too short to tell whether the key is right"),
            "look at a data source in a started Grafana",
        ),
        Opened::Wrong(first) => Finding::bad(
            format!("the key of the point does not open the encrypted values, first {first}"),
            "find the `secret_key` that Grafana runs with, and set `secret-key` to where it is kept",
        ),
        Opened::Unknown(why) => Finding::unproved(
            format!("whether the key opens the encrypted values cannot be told: {why}"),
            "look at a data source in a started Grafana",
        ),
    })
}

/// Encrypted values with a name for errors, and data keys by their id.
#[derive(Default)]
struct Sealed {
    values: Vec<(String, Vec<u8>)>,
    /// Provider and sealed key.
    keys: BTreeMap<String, (String, Vec<u8>)>,
}

fn values(file: &Path) -> std::result::Result<Sealed, Box<dyn std::error::Error>> {
    let connection = database::open(file)?;
    let mut sealed = Sealed::default();
    if has(&connection, "data_keys")? {
        let mut rows = connection.prepare("SELECT name, provider, encrypted_data FROM data_keys")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            sealed.keys.insert(row.get(0)?, (row.get(1)?, row.get(2)?));
        }
    }
    if has(&connection, "data_source")? {
        let mut rows = connection.prepare(
            "SELECT name, secure_json_data FROM data_source WHERE coalesce(secure_json_data, '') NOT IN ('', '{}', 'null')",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let (name, json): (String, String) = (row.get(0)?, row.get(1)?);
            let fields: BTreeMap<String, String> = serde_json::from_str(&json)?;
            for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
                sealed.values.push((format!("`{field}` of data source `{name}`"), STANDARD.decode(value)?));
            }
        }
    }
    if has(&connection, "secrets")? {
        let mut rows =
            connection.prepare("SELECT namespace, type, value FROM secrets WHERE coalesce(value, '') <> ''")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let (namespace, kind, value): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let value = STANDARD_NO_PAD.decode(value.trim_end_matches('='))?;
            sealed.values.push((format!("secret `{namespace}` ({kind})"), value));
        }
    }
    Ok(sealed)
}

fn has(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1)",
        [table],
        |row| row.get(0),
    )
}

/// Opens every value. Errors name the value and never its content.
fn open_all(sealed: &Sealed, key: &Secret<String>) -> Opened {
    let (mut values, mut bytes) = (0, 0);
    let mut keys: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, value) in &sealed.values {
        let (inner, secret) = match envelope(value) {
            None => (value.as_slice(), key.expose().as_bytes().to_vec()),
            Some((id, inner)) => {
                if !keys.contains_key(&id) {
                    let Some((provider, data_key)) = sealed.keys.get(&id) else {
                        return Opened::Wrong(format!("{name}: its data key is not in the database"));
                    };
                    if !OWN_PROVIDERS.contains(&provider.as_str()) {
                        return Opened::Unknown(format!("they are encrypted by the key service `{provider}`"));
                    }
                    match unseal(data_key, key.expose().as_bytes()) {
                        Ok(opened) => keys.insert(id.clone(), opened),
                        Err(why) => return Opened::Unknown(why),
                    };
                }
                (inner, keys[&id].clone())
            }
        };
        match unseal(inner, &secret) {
            Err(why) => return Opened::Unknown(why),
            Ok(plain) if is_text(&plain) => {
                values += 1;
                bytes += plain.len();
            }
            Ok(_) => return Opened::Wrong(name.clone()),
        }
    }
    Opened::Text { values, bytes }
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes)
        .is_ok_and(|text| text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')))
}

/// Takes the id of the data key off.
fn envelope(value: &[u8]) -> Option<(String, &[u8])> {
    let rest = value.strip_prefix(b"#")?;
    let end = rest.iter().position(|byte| *byte == b'#')?;
    let id = STANDARD_NO_PAD.decode(&rest[..end]).ok()?;
    Some((String::from_utf8(id).ok()?, &rest[end + 1..]))
}

fn unseal(sealed: &[u8], secret: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let mut sealed = sealed;
    if let Some(rest) = sealed.strip_prefix(b"*")
        && let Some(end) = rest.iter().position(|byte| *byte == b'*')
        && let Ok(algorithm) = STANDARD_NO_PAD.decode(&rest[..end])
    {
        if algorithm != b"aes-cfb" {
            return Err(format!("they are encrypted with `{}`", String::from_utf8_lossy(&algorithm).escape_debug()));
        }
        sealed = &rest[end + 1..];
    }
    if sealed.len() < SALT + BLOCK {
        return Err("one of them is too short".to_owned());
    }
    let (salt, rest) = sealed.split_at(SALT);
    let (vector, rest) = rest.split_at(BLOCK);
    let mut key = [0_u8; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(secret, salt, ROUNDS, &mut key);
    Ok(decrypt(&key, vector, rest))
}

/// AES-256 in CFB mode (NIST SP 800-38A, 6.3, full blocks).
fn decrypt(key: &[u8; 32], vector: &[u8], sealed: &[u8]) -> Vec<u8> {
    let cipher = Aes256::new(GenericArray::from_slice(key));
    let mut register = GenericArray::clone_from_slice(vector);
    let mut plain = Vec::with_capacity(sealed.len());
    for chunk in sealed.chunks(BLOCK) {
        cipher.encrypt_block(&mut register);
        plain.extend(chunk.iter().zip(&register).map(|(byte, pad)| byte ^ pad));
        if chunk.len() == BLOCK {
            register.copy_from_slice(chunk);
        }
    }
    plain
}

/// The key that the point holds: named by rekindle's configuration, in Grafana's own files, or its
/// default.
fn key(part: &dyn PartReader, details: &GrafanaDetails) -> Result<Option<Secret<String>>> {
    if let Some(bytes) = small(part, KEY)? {
        return Ok(String::from_utf8(bytes).ok().map(Secret::new));
    }
    match details.secret_key {
        KeyState::Default => return Ok(Some(Secret::new(DEFAULT_KEY.to_owned()))),
        KeyState::Unknown => return Ok(None),
        KeyState::Own => {}
    }
    let mut environment = BTreeMap::new();
    let mut setting = None;
    for path in &details.files {
        let name = format!("{}{}", companions::TOP, path.display());
        let Some(bytes) = small(part, &name)? else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        environment.extend(variables(&text));
        setting = setting.or_else(|| Ini::parse(&text).get("security", "secret_key").map(str::to_owned));
    }
    let setting = environment.get("GF_SECURITY_SECRET_KEY").cloned().or(setting);
    let Some(setting) = setting else { return Ok(None) };
    let inner = |prefix: &str| setting.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('}'));
    let found = if let Some(name) = inner("$__env{").or_else(|| inner("${")) {
        environment.get(name).cloned()
    } else if let Some(path) = inner("$__file{") {
        small(part, &format!("{}{path}", companions::TOP))?
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(|text| text.trim().to_owned())
    } else {
        Some(setting)
    };
    Ok(found.map(Secret::new))
}

/// A small file of the part; `None` when there is none of that name, or it is too large to be one.
fn small(part: &dyn PartReader, name: &str) -> Result<Option<Vec<u8>>> {
    let Ok(path) = EntryPath::new(name) else { return Ok(None) };
    let there = match part.list(Some(&path)) {
        Ok(mut entries) => entries.next().transpose()?,
        Err(fault) if fault.is(codes::REPO_NO_ENTRY) => None,
        Err(fault) => return Err(fault),
    };
    let is_small = there.is_some_and(|entry| {
        entry.meta.kind == rekindle_core::entry::EntryKind::File && entry.meta.size <= CONFIG_BYTES_MAX as u64
    });
    if !is_small {
        return Ok(None);
    }
    let mut content = part.open(&path)?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(given) => bytes.extend_from_slice(&buffer[..given]),
            Err(ReadFault::Abort(fault)) => return Err(fault),
            Err(ReadFault::Skip) => {
                return Err(Fault::new(codes::RUN_BUG, "read a stored file").because("it was skipped"));
            }
        }
    }
    content.close()?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with OpenSSL: `openssl kdf … PBKDF2` and `openssl enc -aes-256-cfb`.
    fn sealed(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn secrets_sealed_by_another_program_are_opened() {
        let value = sealed(include_str!("secrets_vector.hex").trim());
        assert_eq!(unseal(&value, b"canary-secret-key").unwrap(), b"a password that is longer than a block");
        assert!(!is_text(&unseal(&value, b"another-secret-key").unwrap()));
        let named = [b"*YWVzLWNmYg*".as_slice(), &value].concat();
        assert_eq!(unseal(&named, b"canary-secret-key").unwrap(), b"a password that is longer than a block");
        assert!(unseal(b"*YWVzLWdjbQ*xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", b"k").unwrap_err().contains("aes-gcm"));
    }

    #[test]
    fn the_envelope_names_its_data_key() {
        assert_eq!(envelope(b"#a2V5LTE#rest"), Some(("key-1".to_owned(), b"rest".as_slice())));
        assert_eq!(envelope(b"rest"), None);
        assert_eq!(envelope(b"#a2V5LTE"), None);
    }
}
