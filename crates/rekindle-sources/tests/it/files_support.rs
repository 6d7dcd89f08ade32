//! What the tests of the files component share: trees, a collector that pulls entries as the
//! repository does, and a part in memory made from them.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::cancel::Cancel;
use rekindle_core::entry::{Closing, Content, ContentRead, Entries, EntryKind, EntryPath, Meta, ReadFault};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::port::{
    Capture, Clock, Component, LostEntry, Materialize, Materialized, PartReader, Quiet, RunContext, StoredEntry,
};
use rekindle_core::proof::CaptureProof;
use rekindle_core::{ComponentKind, Fault, Result, RunId, codes};
use rekindle_sources::files::{FilesComponent, FilesOptions};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

/// Bytes up to which the collector keeps content; of bigger files only sum and length.
const KEEP_BYTES_MAX: u64 = 8 << 20;

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

pub(crate) fn context(scratch: &Path) -> RunContext {
    RunContext {
        run: RunId::new(jiff::Timestamp::now(), 7),
        cancel: Cancel::new(),
        monitor: Arc::new(Quiet),
        clock: Arc::new(SystemClock),
        scratch: scratch.to_owned(),
    }
}

pub(crate) fn options(paths: &[&Path]) -> FilesOptions {
    FilesOptions { paths: paths.iter().map(|path| (*path).to_owned()).collect(), ..FilesOptions::default() }
}

pub(crate) fn component(options: FilesOptions) -> FilesComponent {
    FilesComponent::new("uploads".parse().unwrap(), options).unwrap()
}

/// An entry as the collector got it.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) path: EntryPath,
    pub(crate) meta: Meta,
    pub(crate) content: Option<Vec<u8>>,
    pub(crate) bytes: u64,
    /// Sum of all bytes, for content that is not kept.
    pub(crate) sum: u64,
}

pub(crate) struct Collected {
    pub(crate) taken: Vec<Taken>,
    pub(crate) skipped: Vec<EntryPath>,
}

impl Collected {
    pub(crate) fn get(&self, path: &Path) -> Option<&Taken> {
        let path = path.as_os_str().as_bytes().strip_prefix(b"/").unwrap();
        self.taken.iter().find(|t| t.path.as_bytes() == path)
    }

    /// Paths below a directory, relative to it.
    pub(crate) fn below(&self, top: &Path) -> Vec<String> {
        let mut top = top.as_os_str().as_bytes()[1..].to_vec();
        top.push(b'/');
        let paths = self.taken.iter().map(|t| t.path.as_bytes());
        paths
            .filter_map(|path| path.strip_prefix(top.as_slice()))
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect()
    }
}

/// Reads one content as the repository does: again while the source asks for it.
#[expect(clippy::type_complexity, reason = "one use, taken apart at once")]
pub(crate) fn read_content(content: Content) -> Result<Option<(Vec<u8>, u64, u64, Option<Meta>)>> {
    let mut source = match content {
        Content::None => return Ok(Some((Vec::new(), 0, 0, None))),
        Content::Stream(_) | Content::Member(_) | Content::Patched(_) => panic!("files give no streams"),
        Content::File(source) | Content::Unchanged(source) => source,
    };
    for _ in 0..10 {
        let reader = match source.open() {
            Ok(reader) => reader,
            Err(ReadFault::Skip) => return Ok(None),
            Err(ReadFault::Abort(fault)) => return Err(fault),
        };
        match drain(reader)? {
            (.., Closing::Retry) => {}
            (.., Closing::Skip) => return Ok(None),
            (bytes, length, sum, Closing::Keep(meta)) => {
                return Ok(Some((bytes, length, sum, Some(*meta))));
            }
        }
    }
    panic!("a source asked again and again");
}

pub(crate) fn drain(mut reader: Box<dyn ContentRead>) -> Result<(Vec<u8>, u64, u64, Closing)> {
    let (mut kept, mut length, mut sum) = (Vec::new(), 0, 0_u64);
    let mut buffer = vec![0; 1 << 20];
    let zeros = vec![0; buffer.len()];
    loop {
        let given = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(given) => given,
            Err(ReadFault::Skip) => return Ok((kept, length, sum, Closing::Skip)),
            Err(ReadFault::Abort(fault)) => return Err(fault),
        };
        length += given as u64;
        if length <= KEEP_BYTES_MAX {
            kept.extend_from_slice(&buffer[..given]);
        }
        // One comparison of memory: a loop over gigabytes of zeros is slow without optimisation.
        if buffer[..given] != zeros[..given] {
            sum += buffer[..given].iter().map(|b| u64::from(*b)).sum::<u64>();
        }
    }
    Ok((kept, length, sum, reader.close()?))
}

pub(crate) fn collect(entries: Entries) -> Result<Collected> {
    let mut collected = Collected { taken: Vec::new(), skipped: Vec::new() };
    for entry in entries {
        let entry = entry?;
        match read_content(entry.content)? {
            None => collected.skipped.push(entry.path),
            Some((content, bytes, sum, meta)) => collected.taken.push(Taken {
                path: entry.path,
                meta: meta.unwrap_or(entry.meta),
                content: (bytes <= KEEP_BYTES_MAX).then_some(content),
                bytes,
                sum,
            }),
        }
    }
    Ok(collected)
}

pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

pub(crate) fn begin(component: &FilesComponent) -> Result<Box<dyn Capture>> {
    let scratch = tempfile::tempdir().unwrap();
    wait(component.begin(&context(scratch.path())))
}

/// A whole capture.
pub(crate) fn capture(options: FilesOptions) -> Result<(Collected, CaptureProof)> {
    let mut capture = begin(&component(options))?;
    let collected = collect(capture.entries())?;
    Ok((collected, wait(capture.finish())?))
}

/// Where a child test finds the place it works on.
pub(crate) const CHILD_PLACE: &str = "FILES_TEST_PLACE";

/// Runs one ignored test of this binary under another program (`setpriv …`, `unshare …`).
pub(crate) fn run_child(test: &str, under: &[&str], place: &Path) {
    let copy = tempfile::tempdir().unwrap();
    set_mode(copy.path(), 0o755);
    let program = copy.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = std::process::Command::new(under[0])
        .args(&under[1..])
        .arg(&program)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(CHILD_PLACE, place)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

/// A tree with everything that is odd; needs no privilege.
pub(crate) fn odd_tree(top: &Path) {
    use std::ffi::OsStr;
    for directory in ["sub/deeper", "empty", ".hidden"] {
        fs::create_dir_all(top.join(directory)).unwrap();
    }
    let names: &[&[u8]] = &[
        b"plain",
        b"quote'\"name",
        b"new\nline",
        b"\xff\xfe",
        b"a b",
        b"sub!",
        b"sub/deeper/x",
        b".hidden/.dot",
        b"zero",
    ];
    for name in names {
        fs::write(top.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(top.join("zero"), "").unwrap();
    fs::write(top.join("x".repeat(255)), "long").unwrap();
    fs::hard_link(top.join("plain"), top.join("sub/linked")).unwrap();
    std::os::unix::fs::symlink("loop", top.join("loop")).unwrap();
    std::os::unix::fs::symlink("../nowhere", top.join("sub/dangling")).unwrap();
    std::os::unix::fs::symlink("..", top.join("sub/up")).unwrap();
    let fifo = top.join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap());
    let sparse = File::create(top.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", 1 << 20).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(top.join("plain"), "user.note", b"\x00value", flags).unwrap();
    rustix::fs::setxattr(top.join("sub"), "user.dir", b"d", flags).unwrap();
    set_mode(&top.join("plain"), 0o4751);
    set_mode(&top.join("empty"), 0o1777);
    set_time(&top.join("plain"), -5, 123_456_789);
    set_time(&top.join("loop"), 1_000_000_000, 1);
    set_time(&top.join("empty"), 2_000_000_000, 999_999_999);
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A part that stands in memory.
pub(crate) struct MemoryPart {
    record: ComponentRecord,
    pub(crate) entries: Vec<Taken>,
    /// Paths that cannot be given back.
    pub(crate) damaged: Vec<EntryPath>,
}

impl MemoryPart {
    #[expect(clippy::needless_pass_by_value, reason = "callers build it for this call")]
    pub(crate) fn of(options: FilesOptions) -> Self {
        let (collected, proof) = capture(options.clone()).unwrap();
        let roots: Vec<String> = options.paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        Self {
            record: ComponentRecord {
                id: "uploads".parse().unwrap(),
                kind: ComponentKind::Files,
                tree: String::new(),
                captured_at: jiff::Timestamp::now(),
                tally: proof.tally(),
                streams: Vec::new(),
                added_bytes: 0,
                stored_bytes: 0,
                notes: proof.notes().clone(),
                details: serde_json::json!({ "roots": roots }),
            },
            entries: collected.taken,
            damaged: Vec::new(),
        }
    }

    #[expect(clippy::unused_self, reason = "it is a move of the part")]
    fn write(&self, taken: &Taken, at: &Path, links: &mut Vec<(u64, PathBuf)>) {
        if let Some(above) = at.parent() {
            fs::create_dir_all(above).unwrap();
        }
        let mode = Mode::from_raw_mode(0o600);
        match &taken.meta.kind {
            EntryKind::Directory => fs::create_dir_all(at).unwrap(),
            EntryKind::File => {
                let first = links.iter().find(|(inode, _)| *inode == taken.meta.inode);
                match first.filter(|_| taken.meta.links > 1) {
                    Some((_, first)) => fs::hard_link(first, at).unwrap(),
                    None => fs::write(at, taken.content.as_ref().unwrap()).unwrap(),
                }
                links.push((taken.meta.inode, at.to_owned()));
            }
            EntryKind::Symlink { target } => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), at).unwrap();
            }
            EntryKind::Fifo => rustix::fs::mknodat(CWD, at, FileType::Fifo, mode, 0).unwrap(),
            EntryKind::Socket => rustix::fs::mknodat(CWD, at, FileType::Socket, mode, 0).unwrap(),
            EntryKind::BlockDevice { .. } | EntryKind::CharDevice { .. } => {
                panic!("no devices in these tests")
            }
        }
    }

    fn attributes(taken: &Taken, at: &Path, owners: bool) {
        let meta = &taken.meta;
        if owners {
            std::os::unix::fs::lchown(at, Some(meta.uid), Some(meta.gid)).unwrap();
        }
        if !matches!(meta.kind, EntryKind::Symlink { .. }) {
            for (name, value) in &meta.xattrs {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(at, name.as_slice(), value, flags).unwrap();
            }
            set_mode(at, meta.mode);
        }
        let nanoseconds = i64::from(meta.modified.nanoseconds);
        set_time(at, meta.modified.seconds, nanoseconds);
    }
}

struct MemoryRead(std::io::Cursor<Vec<u8>>, Meta);

impl ContentRead for MemoryRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        Ok(std::io::Read::read(&mut self.0, buffer).unwrap())
    }
    fn close(self: Box<Self>) -> Result<Closing> {
        Ok(Closing::Keep(Box::new(self.1)))
    }
}

impl PartReader for MemoryPart {
    fn record(&self) -> &ComponentRecord {
        &self.record
    }

    fn list(&self, within: Option<&EntryPath>) -> Result<Box<dyn Iterator<Item = Result<StoredEntry>> + Send>> {
        let chosen: Vec<_> = self
            .entries
            .iter()
            .filter(|taken| within.is_none_or(|within| taken.path.is_within(within)))
            .map(|taken| Ok(StoredEntry { path: taken.path.clone(), meta: taken.meta.clone() }))
            .collect();
        if chosen.is_empty() {
            return Err(Fault::new(codes::REPO_NO_ENTRY, "list"));
        }
        Ok(Box::new(chosen.into_iter()))
    }

    fn open(&self, path: &EntryPath) -> Result<Box<dyn ContentRead>> {
        let taken = self.entries.iter().find(|t| &t.path == path).unwrap();
        let content = taken.content.clone().unwrap();
        Ok(Box::new(MemoryRead(std::io::Cursor::new(content), taken.meta.clone())))
    }

    fn materialize(&self, request: &Materialize, _: &RunContext) -> Result<Materialized> {
        let mut done = Materialized::default();
        let mut links = Vec::new();
        let mut written = Vec::new();
        if request.delete_extra {
            for extra in fs::read_dir(&request.into).unwrap() {
                let extra = extra.unwrap().path();
                let _ = fs::remove_dir_all(&extra).or_else(|_| fs::remove_file(&extra));
            }
        }
        for taken in &self.entries {
            let top = request.within.as_ref().map_or(0, |w| w.as_bytes().len() + 1);
            let inside =
                (request.within.as_ref()).is_none_or(|within| &taken.path != within && taken.path.is_within(within));
            let wanted = request.select.is_empty() || request.select.iter().any(|path| taken.path.is_within(path));
            if !inside || !wanted {
                continue;
            }
            if self.damaged.contains(&taken.path) {
                done.lost.push(LostEntry { path: taken.path.to_string(), why: "a blob is damaged".to_owned() });
                continue;
            }
            let at = std::ffi::OsStr::from_bytes(&taken.path.as_bytes()[top..]);
            let at = request.into.join(at);
            self.write(taken, &at, &mut links);
            done.entries += 1;
            done.bytes += taken.bytes;
            written.push((taken, at));
        }
        for (taken, at) in written.iter().rev() {
            Self::attributes(taken, at, request.owners);
        }
        Ok(done)
    }
}
