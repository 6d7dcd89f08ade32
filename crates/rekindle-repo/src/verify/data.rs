//! Reading packs back: the whole against its name, the header against the index, every blob
//! against its id.

use rekindle_core::{Cancel, Fault, Result, codes};
use rekindle_store::Key as ObjectKey;

use super::objects::Packs;
use super::report::VerifyReport;
use super::subset::Subset;
use super::{BadBlobs, refuse_unreachable};
use crate::format::pack::{BlobKind, PackedBlob, decode_pack};
use crate::format::{Id, names};
use crate::read::blobs::{Opener, SharedReader};
use crate::read::index::Location;
use crate::read::parallel;
use crate::repo::Repo;

/// Packs in memory at the same time: each is read whole.
const READERS_MAX: usize = 4;

/// What one pack gave.
struct Seen {
    bytes: u64,
    problems: Vec<String>,
    bad: Vec<(BlobKind, Id)>,
}

/// Reads the chosen packs.
pub(super) fn read(
    repo: &Repo,
    reader: &SharedReader,
    subset: Subset,
    packs: &Packs,
    cancel: &Cancel,
    bad: &mut BadBlobs,
    report: &mut VerifyReport,
) -> Result<()> {
    let chosen = subset.choose(packs.present.clone());
    let threads = parallel::cores().clamp(2, READERS_MAX);
    let mut doubtful = BadBlobs::new();
    for portion in chosen.chunks(256) {
        let read = parallel::map(portion, threads, |(id, _)| {
            cancel.check()?;
            one(repo, id, packs.catalogue.get(id).map(Vec::as_slice))
        });
        // What was not read any more is not damage.
        cancel.check()?;
        for ((id, _), result) in portion.iter().zip(read) {
            report.packs_read += 1;
            report.objects += 1;
            match result {
                Ok(seen) => {
                    report.bytes_read += seen.bytes;
                    for problem in seen.problems {
                        let what = format!("read `{}`", names::pack(id));
                        let fault = Fault::new(codes::REPO_DAMAGED, what).because(problem);
                        report.damage(names::pack(id), &fault);
                    }
                    doubtful.extend(seen.bad);
                }
                Err(fault) => {
                    refuse_unreachable(&fault)?;
                    report.damage(names::pack(id), &fault);
                    let blobs = packs.catalogue.get(id).into_iter().flatten();
                    doubtful.extend(blobs.map(|b| (b.kind, b.id)));
                }
            }
        }
    }
    // A blob that stands in another pack as well is not lost.
    let mut opener = Opener::new();
    for (kind, id) in doubtful {
        if reader.blob(kind, &id, &mut opener).is_err() {
            bad.insert((kind, id));
        }
    }
    Ok(())
}

fn one(repo: &Repo, id: &Id, indexed: Option<&[PackedBlob]>) -> Result<Seen> {
    let bytes = repo.store().get(&ObjectKey::new(&names::pack(id))?)?;
    let mut seen = Seen { bytes: bytes.len() as u64, problems: Vec::new(), bad: Vec::new() };
    if Id::of(&bytes) != *id {
        seen.problems.push("its SHA-256 is not its name".to_owned());
    }
    let header = decode_pack(repo.key(), &bytes);
    match (&header, indexed) {
        (Err(bad), _) => seen.problems.push(format!("its header: {bad}")),
        (Ok(header), Some(indexed)) if !same(header, indexed) => {
            seen.problems.push("its header and the index list other blobs".to_owned());
        }
        _ => {}
    }
    let blobs = indexed.map_or_else(|| header.unwrap_or_default(), <[PackedBlob]>::to_vec);
    let mut opener = Opener::new();
    for blob in blobs {
        let start = blob.offset as usize;
        let sealed = start.checked_add(blob.length as usize).and_then(|end| bytes.get(start..end));
        let opened = match sealed {
            None => Err("the pack ends before it".to_owned()),
            Some(sealed) => {
                let location = Location { pack: 0, blob };
                opener.open(repo.key(), &location, sealed).map(drop).map_err(|bad| bad.to_string())
            }
        };
        if let Err(why) = opened {
            seen.problems.push(format!("{} blob {}: {why}", blob.kind.as_str(), blob.id));
            seen.bad.push((blob.kind, blob.id));
        }
    }
    Ok(seen)
}

fn same(header: &[PackedBlob], indexed: &[PackedBlob]) -> bool {
    let sorted = |blobs: &[PackedBlob]| {
        let mut blobs = blobs.to_vec();
        blobs.sort_by_key(|b| (b.offset, b.id));
        blobs
    };
    sorted(header) == sorted(indexed)
}
