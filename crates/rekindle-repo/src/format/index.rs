//! Index files: which blob stands where in which pack.

use serde::{Deserialize, Deserializer, Serialize};

use super::pack::{BlobKind, PackedBlob};
use super::{BadFormat, Id};

/// Most blobs this program writes into one index file.
pub const BLOBS_PER_INDEX_MAX: usize = 50_000;

/// An index file. Fields of other programs are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFile {
    /// Index files this one replaces (restic before 0.17 writes it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Vec<Id>>,
    /// Packs that count.
    #[serde(default)]
    pub packs: Vec<IndexPack>,
    /// Packs that rustic's prune has marked: never a reason not to store a blob again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packs_to_delete: Vec<IndexPack>,
}

/// One pack of an index file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexPack {
    pub id: Id,
    pub blobs: Vec<IndexBlob>,
    /// When it was written; rustic keeps young packs by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Bytes of the whole pack, where the writer noted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// One blob of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexBlob {
    pub id: Id,
    #[serde(rename = "type")]
    pub kind: IndexKind,
    pub offset: u32,
    pub length: u32,
    /// Zero: stored as it is. rustic writes `null` for that.
    #[serde(default, deserialize_with = "null_is_zero", skip_serializing_if = "is_zero")]
    pub uncompressed_length: u32,
}

/// [`BlobKind`] in its JSON form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexKind {
    Data,
    Tree,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants this signature")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn null_is_zero<'de, D: Deserializer<'de>>(value: D) -> Result<u32, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(0))
}

impl From<&PackedBlob> for IndexBlob {
    fn from(blob: &PackedBlob) -> Self {
        Self {
            id: blob.id,
            kind: match blob.kind {
                BlobKind::Data => IndexKind::Data,
                BlobKind::Tree => IndexKind::Tree,
            },
            offset: blob.offset,
            length: blob.length,
            uncompressed_length: blob.uncompressed.unwrap_or(0),
        }
    }
}

impl From<&IndexBlob> for PackedBlob {
    fn from(blob: &IndexBlob) -> Self {
        Self {
            kind: match blob.kind {
                IndexKind::Data => BlobKind::Data,
                IndexKind::Tree => BlobKind::Tree,
            },
            id: blob.id,
            offset: blob.offset,
            length: blob.length,
            uncompressed: (blob.uncompressed_length != 0).then_some(blob.uncompressed_length),
        }
    }
}

impl IndexFile {
    /// Reads the JSON; the oldest form (a bare list of packs) is understood too.
    pub fn decode(json: &[u8]) -> Result<Self, BadFormat> {
        if json.first() == Some(&b'[') {
            return Ok(Self { packs: serde_json::from_slice(json)?, ..Self::default() });
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// The JSON.
    pub fn encode(&self) -> Result<Vec<u8>, BadFormat> {
        Ok(serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_restic_and_rustic_write_is_read() {
        let id = Id::of(b"x");
        let restic = format!(
            r#"{{"supersedes":["{id}"],"packs":[{{"id":"{id}","blobs":[
                {{"id":"{id}","type":"data","offset":0,"length":38,"uncompressed_length":100}},
                {{"id":"{id}","type":"tree","offset":38,"length":40}}]}}]}}"#
        );
        let file = IndexFile::decode(restic.as_bytes()).unwrap();
        let blob = PackedBlob::from(&file.packs[0].blobs[0]);
        assert_eq!((blob.kind, blob.uncompressed), (BlobKind::Data, Some(100)));
        let blob = PackedBlob::from(&file.packs[0].blobs[1]);
        assert_eq!((blob.kind, blob.uncompressed), (BlobKind::Tree, None));
        assert_eq!(IndexFile::decode(&file.encode().unwrap()), Ok(file));

        let rustic = format!(
            r#"{{"packs":[],"packs_to_delete":[{{"id":"{id}","blobs":[],"time":"2024-01-01T00:00:00Z","size":5,"new":null}}]}}"#
        );
        let file = IndexFile::decode(rustic.as_bytes()).unwrap();
        assert_eq!((file.packs.len(), file.packs_to_delete.len()), (0, 1));
        let raw = format!(
            r#"{{"packs":[{{"id":"{id}","blobs":[
                {{"id":"{id}","type":"data","offset":0,"length":38,"uncompressed_length":null}}]}}]}}"#
        );
        let file = IndexFile::decode(raw.as_bytes()).unwrap();
        assert_eq!(PackedBlob::from(&file.packs[0].blobs[0]).uncompressed, None);
    }
}
