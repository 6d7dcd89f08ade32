//! `backup_manifest`: PostgreSQL's list of every file of a base backup (manual, 71.1).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rekindle_core::proof::hex;
use rekindle_core::wal::{Lsn, SystemId, Timeline, WalRange};
use rekindle_core::{Fault, Result, codes};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::checksum::{Checksum, unhex};

/// Its name in the data directory.
pub(super) const MANIFEST_NAME: &str = "backup_manifest";
/// Versions of its format that are known: 1 up to PostgreSQL 16, 2 from 17 on.
const VERSIONS: std::ops::RangeInclusive<u64> = 1..=2;
/// Differences that are named; more are counted.
const DIFFERENCES_NAMED: usize = 5;

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileFacts {
    pub(super) size: u64,
    pub(super) checksum: Checksum,
}

/// A file as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) facts: FileFacts,
    /// As the server wrote it.
    pub(super) modified: String,
}

/// A manifest that was read and whose own checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackupManifest {
    version: u64,
    pub(super) system: Option<SystemId>,
    /// Paths below the data directory; tablespaces are `pg_tblspc/OID/…`.
    pub(super) files: BTreeMap<Vec<u8>, Listed>,
    pub(super) wal_ranges: Vec<WalRange>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u64,
    #[serde(rename = "System-Identifier")]
    system: Option<u64>,
    #[serde(rename = "Files")]
    files: Vec<RawFile>,
    #[serde(rename = "WAL-Ranges")]
    wal_ranges: Vec<RawRange>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Last-Modified")]
    modified: String,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

fn wrong(why: impl Into<String>) -> Fault {
    Fault::new(codes::PG_BASE, format!("read `{MANIFEST_NAME}`"))
        .because(why.into())
        .hint("run the backup again; if it happens twice, report it as a bug")
}

impl BackupManifest {
    /// Reads it, and checks its own checksum.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let raw: Raw = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        if !VERSIONS.contains(&raw.version) {
            return Err(wrong(format!("its format {} is not known", raw.version)));
        }
        if hex(Sha256::digest(signed_part(text)?).as_slice()) != raw.checksum {
            return Err(wrong("its own checksum is wrong"));
        }
        let mut files = BTreeMap::new();
        for file in raw.files {
            let path = match (file.path, file.encoded) {
                (Some(path), None) => path.into_bytes(),
                (None, Some(encoded)) => unhex(&encoded).ok_or_else(|| wrong("an encoded path is not hex"))?,
                _ => return Err(wrong("a file without a path")),
            };
            let shown = || String::from_utf8_lossy(&path).escape_debug().to_string();
            let given = file.algorithm.as_deref().zip(file.checksum.as_deref());
            let checksum = given.and_then(|(algorithm, text)| Checksum::parse(algorithm, text));
            let checksum = checksum.ok_or_else(|| wrong(format!("`{}` has no checksum that is known", shown())))?;
            let facts = FileFacts { size: file.size, checksum };
            let twice = shown();
            if files.insert(path, Listed { facts, modified: file.modified }).is_some() {
                return Err(wrong(format!("`{twice}` stands twice")));
            }
        }
        let range =
            |range: RawRange| WalRange { timeline: Timeline(range.timeline), start: range.start, end: range.end };
        let wal_ranges: Vec<WalRange> = raw.wal_ranges.into_iter().map(range).collect();
        if wal_ranges.is_empty() || wal_ranges.iter().any(|range| range.start > range.end) {
            return Err(wrong("it names no WAL"));
        }
        Ok(Self { version: raw.version, system: raw.system.map(SystemId), files, wal_ranges })
    }

    /// Its text, as the server writes it.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut text = String::new();
        // Writing into a `String` cannot fail.
        let _ = writeln!(text, "{{ \"PostgreSQL-Backup-Manifest-Version\": {},", self.version);
        if let Some(system) = self.system {
            let _ = writeln!(text, "\"System-Identifier\": {system},");
        }
        text.push_str("\"Files\": [");
        for (index, (path, listed)) in self.files.iter().enumerate() {
            text.push_str(if index == 0 { "\n" } else { ",\n" });
            let json = |text: &str| {
                serde_json::to_string(text)
                    .map_err(|error| Fault::new(codes::RUN_BUG, "write a manifest").because(error))
            };
            match std::str::from_utf8(path) {
                Ok(path) => _ = write!(text, "{{ \"Path\": {}, ", json(path)?),
                Err(_) => _ = write!(text, "{{ \"Encoded-Path\": \"{}\", ", hex(path)),
            }
            let _ = write!(
                text,
                "\"Size\": {}, \"Last-Modified\": {}, \"Checksum-Algorithm\": \"{}\", \"Checksum\": \"{}\" }}",
                listed.facts.size,
                json(&listed.modified)?,
                listed.facts.checksum.algorithm(),
                listed.facts.checksum.digits()
            );
        }
        text.push_str("\n],\n\"WAL-Ranges\": [");
        for (index, range) in self.wal_ranges.iter().enumerate() {
            text.push_str(if index == 0 { "\n" } else { ",\n" });
            let WalRange { timeline, start, end } = range;
            let _ = write!(text, "{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}");
        }
        text.push_str("\n],\n");
        let checksum = hex(Sha256::digest(text.as_bytes()).as_slice());
        let _ = writeln!(text, "\"Manifest-Checksum\": \"{checksum}\"}}");
        Ok(text.into_bytes())
    }

    /// Compares with the files that were received. WAL is not listed, and neither is the manifest.
    pub(super) fn compare(&self, received: &BTreeMap<Vec<u8>, FileFacts>) -> Result<()> {
        let mut differences = Vec::new();
        let shown = |path: &[u8]| format!("`{}`", String::from_utf8_lossy(path).escape_debug());
        for (path, listed) in &self.files {
            match received.get(path) {
                None => differences.push(format!("{} is missing", shown(path))),
                Some(facts) if facts.size != listed.facts.size => {
                    let (has, wants) = (facts.size, listed.facts.size);
                    differences.push(format!("{} has {has} bytes instead of {wants}", shown(path)));
                }
                Some(facts) if facts != &listed.facts => differences.push(format!("{} has other content", shown(path))),
                Some(_) => {}
            }
        }
        let extra = received.keys().filter(|path| !path.starts_with(b"pg_wal/") && !self.files.contains_key(*path));
        differences.extend(extra.map(|path| format!("{} is not in the manifest", shown(path))));
        if differences.is_empty() {
            return Ok(());
        }
        let more = differences.len().saturating_sub(DIFFERENCES_NAMED);
        differences.truncate(DIFFERENCES_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Fault::new(codes::PG_BASE, "compare the base backup with its manifest")
            .because(format!("{}{more}", differences.join(", ")))
            .hint("run the backup again; if it happens twice, report it as a bug"))
    }
}

/// Everything before the line that holds the checksum.
fn signed_part(text: &[u8]) -> Result<&[u8]> {
    let lines = text.strip_suffix(b"\n").unwrap_or(text);
    let end = lines.iter().rposition(|b| *b == b'\n').ok_or_else(|| wrong("it has one line only"))?;
    Ok(&text[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> BackupManifest {
        let listed = |size, checksum| Listed {
            facts: FileFacts { size, checksum },
            modified: "2026-11-24 18:00:00 GMT".to_owned(),
        };
        BackupManifest {
            version: 2,
            system: Some(SystemId(u64::MAX)),
            files: [
                (b"backup_label".to_vec(), listed(3, Checksum::Crc32c(7))),
                (b"base/\xff\"".to_vec(), listed(8192, Checksum::Sha256([7; 32]))),
            ]
            .into(),
            wal_ranges: vec![WalRange { timeline: Timeline(1), start: Lsn(0x28), end: Lsn(0x1_0000_0100) }],
        }
    }

    #[test]
    fn what_is_written_is_read_and_its_checksum_counts() {
        let text = manifest().encode().unwrap();
        assert_eq!(BackupManifest::parse(&text).unwrap(), manifest());
        for at in (0..text.len() - 1).step_by(3) {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            assert!(BackupManifest::parse(&damaged).is_err(), "{at}");
        }
    }

    #[test]
    fn every_difference_is_one() {
        let manifest = manifest();
        let same: BTreeMap<_, _> =
            manifest.files.iter().map(|(path, file)| (path.clone(), file.facts.clone())).collect();
        assert!(manifest.compare(&same).is_ok());
        let mut wal = same.clone();
        wal.insert(b"pg_wal/000000010000000000000001".to_vec(), FileFacts { size: 1, checksum: Checksum::Crc32c(0) });
        assert!(manifest.compare(&wal).is_ok());
        let mut more = same.clone();
        more.insert(b"base/6".to_vec(), FileFacts { size: 1, checksum: Checksum::Crc32c(0) });
        let mut less = same.clone();
        less.remove(b"backup_label".as_slice());
        let mut other = same.clone();
        other.insert(b"backup_label".to_vec(), FileFacts { size: 3, checksum: Checksum::Crc32c(8) });
        let mut shorter = same;
        shorter.insert(b"backup_label".to_vec(), FileFacts { size: 2, checksum: Checksum::Crc32c(7) });
        for received in [more, less, other, shorter] {
            assert!(manifest.compare(&received).unwrap_err().is(codes::PG_BASE));
        }
    }
}
