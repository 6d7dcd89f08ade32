//! Comparing a restored place with the part, entry by entry, and some contents byte by byte.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rekindle_core::entry::{EntryKind, EntryPath, Meta, ReadFault};
use rekindle_core::port::{Finding, LostEntry, PartReader, RestoreReport, RunContext, StoredEntry};
use rekindle_core::{Fault, Result, codes};
use rustix::fs::{CWD, FileType, readlinkat};
use rustix::io::Errno;

use super::attributes::{Reach, said, xattrs};
use super::bug;
use super::layout::show;
use super::restore::{Place, Placed};
use super::sys::{Links, Status, open_directory, open_file, open_passage, status_at};

/// Files whose content is compared byte by byte.
const SPOT_FILES: usize = 16;
/// Of each of them, at most this much from the start.
const SPOT_BYTES_MAX: u64 = 256 << 20;
/// Differences named one by one; the others are counted.
const NAMED_MAX: usize = 20;

/// Set-user-id and set-group-id go with the owner: without it they are not restored.
const SET_ID_BITS: u32 = 0o6000;

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) entries: u64,
    /// Not there, of another kind or size, or pointing elsewhere.
    pub(crate) wrong: Vec<LostEntry>,
    /// There, but with other attributes.
    pub(crate) attributes: Vec<LostEntry>,
    /// Files for the spot check, by a number that is random for each run.
    sample: BTreeMap<u64, (EntryPath, PathBuf)>,
}

/// Checks every place a restore reported.
pub(super) fn check(part: &dyn PartReader, report: &RestoreReport, context: &RunContext) -> Result<Vec<Finding>> {
    let placed: Placed = serde_json::from_value(report.details.clone())
        .map_err(|error| bug("the report of a restore of files cannot be read").because(error))?;
    let select = placed.select.into_iter().map(|path| entry(path.into_bytes())).collect::<Result<Vec<_>>>()?;
    let mut findings = Vec::new();
    for Place { entry: at, path, .. } in placed.places {
        let at = at.map(|at| entry(at.into_bytes())).transpose()?;
        let path = PathBuf::from(OsStr::from_bytes(&path.into_bytes()));
        let owners = placed.owners_set;
        let mut found = compare(part, at.as_ref(), &path, &select, owners, context)?;
        found.wrong.retain(|wrong| !report.lost.iter().any(|lost| lost.path == wrong.path));
        findings.extend(tell(&path, &found));
        findings.push(spot_check(part, &path, &found, context)?);
    }
    Ok(findings)
}

fn entry(bytes: Vec<u8>) -> Result<EntryPath> {
    EntryPath::new(bytes).map_err(|why| bug("a restored path is not usable").because(why))
}

fn tell(path: &Path, found: &Compared) -> Vec<Finding> {
    let (shown, entries) = (show(path), found.entries);
    let mut findings = Vec::new();
    if found.wrong.is_empty() {
        let text = format!("`{shown}`: {entries} entries are as in the point");
        findings.push(Finding::good(text));
    }
    let code = codes::FILES_CHECK.id;
    findings.extend(list(&found.wrong).map(|text| {
        Finding::bad(
            format!("`{shown}`: {code}: {text}"),
            "restore these paths again, into a new place, and see what changes them",
        )
    }));
    findings.extend(list(&found.attributes).map(|text| {
        Finding::warning(
            format!("`{shown}`: other attributes: {text}"),
            "restore as root on a file system with the same abilities",
        )
    }));
    findings
}

fn list(entries: &[LostEntry]) -> impl Iterator<Item = String> {
    let named = entries.iter().take(NAMED_MAX);
    let more = entries.len().saturating_sub(NAMED_MAX);
    let rest = (more > 0).then(|| format!("and {more} more"));
    named.map(|entry| format!("`{}` {}", entry.path, entry.why)).chain(rest)
}

/// Compares the part (or what is below `within`) with what stands at `place`.
pub(crate) fn compare(
    part: &dyn PartReader,
    within: Option<&EntryPath>,
    place: &Path,
    select: &[EntryPath],
    owners: bool,
    context: &RunContext,
) -> Result<Compared> {
    let mut found = Compared::default();
    let mut parents = Parents::default();
    for stored in part.list(within)? {
        context.cancel.check()?;
        let stored = stored?;
        let wanted = select.is_empty() || select.iter().any(|path| stored.path.is_within(path));
        if !wanted {
            continue;
        }
        found.entries += 1;
        let live = match within {
            None => place.join(OsStr::from_bytes(stored.path.as_bytes())),
            Some(top) => below(place, &stored.path, top),
        };
        compare_one(&stored, &live, &mut parents, owners, &mut found);
        if stored.meta.kind == EntryKind::File && stored.meta.size > 0 {
            found.draw(stored.path, live, context);
        }
    }
    Ok(found)
}

/// Where an entry below `top` stands when `top` stands at `place`.
fn below(place: &Path, path: &EntryPath, top: &EntryPath) -> PathBuf {
    match path.as_bytes().get(top.as_bytes().len() + 1..) {
        None => place.to_owned(),
        Some(rest) => place.join(OsStr::from_bytes(rest)),
    }
}

impl Compared {
    fn draw(&mut self, path: EntryPath, live: PathBuf, context: &RunContext) {
        let mut hasher = DefaultHasher::new();
        (context.run.as_str(), path.as_bytes()).hash(&mut hasher);
        self.sample.insert(hasher.finish(), (path, live));
        if self.sample.len() > SPOT_FILES {
            self.sample.pop_last();
        }
    }
}

/// The directory looked into last: entries come directory by directory.
#[derive(Default)]
struct Parents {
    last: Option<(PathBuf, OwnedFd)>,
}

impl Parents {
    fn open(&mut self, directory: &Path) -> Result<&OwnedFd, Errno> {
        let again = self.last.take().filter(|(path, _)| path == directory);
        let last = if let Some(last) = again {
            last
        } else {
            let name = directory.as_os_str().as_encoded_bytes();
            let open = open_passage(CWD, name, Links::Follow)?;
            (directory.to_owned(), open)
        };
        Ok(&self.last.insert(last).1)
    }
}

fn compare_one(stored: &StoredEntry, live: &Path, parents: &mut Parents, owners: bool, found: &mut Compared) {
    let lost = |why: String| LostEntry { path: stored.path.to_string(), why };
    let directory = live.parent().unwrap_or(Path::new("/"));
    let name = live.file_name().unwrap_or(OsStr::new(".")).as_bytes();
    let parent = match parents.open(directory) {
        Ok(parent) => parent,
        Err(errno) => return found.wrong.push(lost(said(errno))),
    };
    let status = match status_at(parent.as_fd(), name) {
        Ok(status) => status,
        Err(Errno::NOENT) => return found.wrong.push(lost("is not there".to_owned())),
        Err(errno) => return found.wrong.push(lost(said(errno))),
    };
    if let Some(why) = wrong_content(&stored.meta, &status, parent, name) {
        return found.wrong.push(lost(why));
    }
    let mut differs = other_attributes(&stored.meta, &status, owners);
    // Only those that were saved are looked for.
    if !stored.meta.xattrs.is_empty() {
        let (there, problem) = xattrs(Reach::Name(parent.as_fd(), name));
        differs.extend(problem);
        let missing = stored.meta.xattrs.iter().filter(|pair| !there.contains(pair));
        differs.extend(missing.map(|(name, _)| {
            let name = String::from_utf8_lossy(name);
            format!("`{}` is not as saved", name.escape_debug())
        }));
    }
    if !differs.is_empty() {
        found.attributes.push(lost(differs.join(", ")));
    }
}

fn wrong_content(meta: &Meta, status: &Status, parent: &OwnedFd, name: &[u8]) -> Option<String> {
    let same_kind = match &meta.kind {
        EntryKind::File => status.kind == FileType::RegularFile,
        EntryKind::Directory => status.kind == FileType::Directory,
        EntryKind::Symlink { .. } => status.kind == FileType::Symlink,
        EntryKind::Fifo => status.kind == FileType::Fifo,
        EntryKind::Socket => status.kind == FileType::Socket,
        EntryKind::BlockDevice { device } => status.kind == FileType::BlockDevice && status.node_device == *device,
        EntryKind::CharDevice { device } => status.kind == FileType::CharacterDevice && status.node_device == *device,
    };
    if !same_kind {
        return Some("is of another kind".to_owned());
    }
    match &meta.kind {
        EntryKind::File if status.size != meta.size => {
            let (is, was) = (status.size, meta.size);
            Some(format!("has {is} bytes instead of {was}"))
        }
        EntryKind::Symlink { target } => {
            let there = readlinkat(parent.as_fd(), name, Vec::new());
            let same = there.is_ok_and(|there| there.as_bytes() == target.as_slice());
            (!same).then(|| "points elsewhere".to_owned())
        }
        _ => None,
    }
}

fn other_attributes(meta: &Meta, status: &Status, owners: bool) -> Vec<String> {
    let mut differs = Vec::new();
    let is_link = matches!(meta.kind, EntryKind::Symlink { .. });
    let is_directory = meta.kind == EntryKind::Directory;
    let ignored = if owners || is_directory { 0 } else { SET_ID_BITS };
    let (is, was) = (status.mode & !ignored, meta.mode & !ignored);
    if is != was && !is_link {
        differs.push(format!("mode is {is:o} instead of {was:o}"));
    }
    if owners && (status.uid, status.gid) != (meta.uid, meta.gid) {
        differs.push(format!("owner is {}:{} instead of {}:{}", status.uid, status.gid, meta.uid, meta.gid));
    }
    if status.modified != meta.modified {
        differs.push("time is another".to_owned());
    }
    differs
}

fn spot_check(part: &dyn PartReader, place: &Path, found: &Compared, context: &RunContext) -> Result<Finding> {
    let mut bytes = 0;
    for (path, live) in found.sample.values() {
        context.cancel.check()?;
        if found.wrong.iter().any(|wrong| wrong.path == path.to_string()) {
            continue;
        }
        match same_bytes(part, path, live, SPOT_BYTES_MAX) {
            Ok(Ok(compared)) => bytes += compared,
            Ok(Err(why)) => {
                return Ok(Finding::bad(
                    format!("`{}`: {}: {why}", show(live), codes::FILES_CHECK.id),
                    "restore it again into a new place and compare the two",
                ));
            }
            Err(fault) => return Err(fault.during(format!("compare `{}`", show(live)))),
        }
    }
    let (files, shown) = (found.sample.len(), show(place));
    Ok(Finding::good(format!("`{shown}`: {files} sampled files ({bytes} bytes) are byte for byte as in the point")))
}

/// Compares every byte of every file below `place` with the part. Blocking.
pub(crate) fn every_byte(part: &dyn PartReader, place: &Path, context: &RunContext) -> Result<Finding> {
    let (mut files, mut bytes) = (0_u64, 0);
    for stored in part.list(None)? {
        context.cancel.check()?;
        let stored = stored?;
        if stored.meta.kind != EntryKind::File {
            continue;
        }
        let live = place.join(OsStr::from_bytes(stored.path.as_bytes()));
        match same_bytes(part, &stored.path, &live, u64::MAX)? {
            Ok(compared) if compared == stored.meta.size => bytes += compared,
            Ok(compared) => {
                let text = format!("`{}`: {compared} of {} bytes are there", show(&live), stored.meta.size);
                return Ok(Finding::bad(text, "run `rekindle verify --read-data`"));
            }
            Err(why) => {
                let text = format!("`{}`: {}: {why}", show(&live), codes::FILES_CHECK.id);
                return Ok(Finding::bad(text, "run `rekindle verify --read-data`"));
            }
        }
        files += 1;
    }
    Ok(Finding::good(format!("all {files} files ({bytes} bytes) are byte for byte as in the point")))
}

/// Compares a file with the stream of the part, at most so far: how many bytes are the same, or what
/// differs.
pub(super) fn same_bytes(
    part: &dyn PartReader,
    path: &EntryPath,
    live: &Path,
    longest: u64,
) -> Result<std::result::Result<u64, String>> {
    let parent = live.parent().unwrap_or(Path::new("/"));
    let name = live.file_name().unwrap_or_default().as_bytes();
    let opened = open_directory(CWD, parent.as_os_str().as_bytes(), Links::Follow)
        .and_then(|directory| open_file(directory.as_fd(), name, false));
    let mut there = match opened {
        Ok(file) => std::fs::File::from(file),
        Err(errno) => return Ok(Err(said(errno))),
    };
    let mut stored = part.open(path)?;
    let (mut want, mut have) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut compared = 0;
    while compared < longest {
        let given = match stored.read(&mut want) {
            Ok(0) => break,
            Ok(given) => given,
            Err(ReadFault::Abort(fault)) => return Err(fault),
            Err(ReadFault::Skip) => return Err(skipped(path)),
        };
        if let Err(error) = there.read_exact(&mut have[..given]) {
            return Ok(Err(format!("read at byte {compared}: {error}")));
        }
        if let Some(at) = (0..given).find(|at| want[*at] != have[*at]) {
            return Ok(Err(format!("it differs at byte {}", compared + at as u64)));
        }
        compared += given as u64;
    }
    Ok(Ok(compared))
}

fn skipped(path: &EntryPath) -> Fault {
    bug("a stored file was skipped").because(path.to_string())
}
