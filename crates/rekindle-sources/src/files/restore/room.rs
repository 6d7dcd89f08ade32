//! Whether there is room at the target, before anything is written.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use rekindle_core::entry::{EntryKind, EntryPath};
use rekindle_core::port::PartReader;
use rekindle_core::{Fault, Result, codes};
use rustix::fs::{CWD, statvfs};

use super::super::layout::show;
use super::super::sys::status_at;

/// What restoring something takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Need {
    fn plus(self, other: Self) -> Self {
        Self { entries: self.entries + other.entries, bytes: self.bytes + other.bytes }
    }
}

/// What the entries at these paths (all, when there are none) take. Names of the same file count
/// once; holes are not counted as far as the record of the capture tells.
pub(super) fn need(part: &dyn PartReader, paths: &[EntryPath]) -> Result<Need> {
    let mut need = Need::default();
    let mut linked = HashSet::new();
    let within: Vec<Option<&EntryPath>> = if paths.is_empty() { vec![None] } else { paths.iter().map(Some).collect() };
    for path in within {
        for entry in part.list(path)? {
            let meta = entry?.meta;
            need.entries += 1;
            let again = meta.links > 1 && !linked.insert((meta.device, meta.inode));
            if meta.kind == EntryKind::File && !again {
                need.bytes += meta.size;
            }
        }
    }
    let allocated = part.record().details.get("allocated_bytes");
    if let Some(allocated) = allocated.and_then(serde_json::Value::as_u64) {
        need.bytes = need.bytes.min(allocated);
    }
    Ok(need)
}

/// Refuses when the file systems of these places cannot take what is to be written there.
pub(super) fn ensure(needs: &[(&Path, Need)]) -> Result<()> {
    let mut by_device: BTreeMap<u64, (&Path, Need)> = BTreeMap::new();
    for (place, need) in needs {
        let existing = existing(place);
        let Ok(status) = status_at(CWD, existing.as_os_str().as_encoded_bytes()) else {
            continue;
        };
        let sum = by_device.entry(status.device).or_insert((existing, Need::default()));
        sum.1 = sum.1.plus(*need);
    }
    by_device.values().try_for_each(|(place, need)| ensure_one(place, *need))
}

fn ensure_one(place: &Path, need: Need) -> Result<()> {
    // A file system that does not say is tried.
    let Ok(room) = statvfs(place) else {
        return Ok(());
    };
    let block = room.f_frsize.max(1);
    let free = room.f_bavail.saturating_mul(block);
    let wanted = need.bytes.saturating_add(need.entries.saturating_mul(block.min(4096)));
    let what = || format!("restore into `{}`", show(place));
    let hint = "free some room there, or restore to another file system with `--to DIR`";
    if room.f_blocks > 0 && wanted > free {
        let why = format!("{wanted} bytes are needed and {free} are free");
        return Err(Fault::new(codes::FILES_SPACE, what()).because(why).hint(hint));
    }
    if room.f_files > 0 && need.entries > room.f_favail {
        let (wanted, free) = (need.entries, room.f_favail);
        let why = format!("{wanted} inodes are needed and {free} are free");
        return Err(Fault::new(codes::FILES_SPACE, what()).because(why).hint(hint));
    }
    Ok(())
}

/// The nearest directory above that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"))
}
