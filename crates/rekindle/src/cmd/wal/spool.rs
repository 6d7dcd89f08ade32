//! Segments that were fetched ahead: a private directory of bounded size. It only ever says "here
//! it is", never "it is not there", and what it holds is checked again when it is used.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rekindle_core::Result;
use rekindle_core::proof::hex;
use rekindle_core::wal::{Cluster, SegmentName};
use sha2::{Digest, Sha256};

use super::fetch::{write_checked, write_whole};

/// Most that the directory may hold.
const SPOOL_BYTES_MAX: u64 = 256 << 20;
/// A segment that the helper is just fetching is waited for so long, instead of fetching it twice.
const WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK: &str = "lock";
/// Suffix of the mark that a segment is being fetched.
const COMING: &str = ".coming";

/// The directory.
pub(super) struct Spool {
    directory: PathBuf,
    cluster: Cluster,
}

impl Spool {
    /// Opens it, or makes it for us alone. `purpose` tells the spools of one user apart.
    pub(super) fn open(named: Option<&Path>, purpose: &str, cluster: Cluster) -> io::Result<Self> {
        let user = rustix::process::getuid().as_raw();
        let root = match named {
            Some(named) => named.to_owned(),
            None => std::env::temp_dir().join(format!("rekindle-wal-{user}")),
        };
        private(&root, user)?;
        let directory = root.join(&hex(&Sha256::digest(purpose.as_bytes()))[..16]);
        private(&directory, user)?;
        Ok(Self { directory, cluster })
    }

    /// So many segments may be fetched ahead.
    pub(super) fn capacity(&self, count: u32) -> u32 {
        let fit = SPOOL_BYTES_MAX / u64::from(self.cluster.segment_size.bytes());
        count.min(u32::try_from(fit).unwrap_or(u32::MAX))
    }

    fn name(&self, segment: SegmentName) -> String {
        segment.file(self.cluster.segment_size)
    }

    /// The file of a segment: its name holds the SHA-256 of its content.
    fn find(&self, segment: SegmentName) -> Option<PathBuf> {
        let start = format!("{}.", self.name(segment));
        self.files().into_iter().find(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix(&start).is_some_and(|rest| rest.len() == 64)
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| !path.ends_with(LOCK)).collect()
    }

    pub(super) fn has(&self, segment: SegmentName) -> bool {
        self.find(segment).is_some()
    }

    /// Whether a helper should be started: fewer than half of the next segments are here.
    pub(super) fn wants(&self, segment: SegmentName, count: u32) -> bool {
        let (capacity, mut here, mut next) = (self.capacity(count), 0, segment.next());
        while here < capacity && self.has(next) {
            here += 1;
            next = next.next();
        }
        here * 2 < capacity && self.alone().is_some()
    }

    /// Puts a segment from the spool to its target; `false` when it is not here, or not whole.
    pub(super) fn take(&self, segment: SegmentName, target: &Path) -> io::Result<bool> {
        let begun = Instant::now();
        while !self.has(segment) && self.is_coming(segment) && begun.elapsed() < WAIT_MAX {
            std::thread::sleep(Duration::from_millis(3));
        }
        let Some(path) = self.find(segment) else {
            return Ok(false);
        };
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
        let sum = path.extension().and_then(|sum| sum.to_str()).unwrap_or_default();
        // Used up or worthless.
        let _ = fs::remove_file(&path);
        if read.is_err() {
            return Ok(false);
        }
        std::thread::scope(|scope| {
            // The server waits for both.
            let whole = scope.spawn(|| hex(&Sha256::digest(&bytes)) == sum);
            write_checked(target, &bytes, || whole.join().unwrap_or(false))
        })
    }

    fn is_coming(&self, segment: SegmentName) -> bool {
        self.directory.join(format!("{}{COMING}", self.name(segment))).exists() && self.alone().is_none()
    }

    /// The right to fetch ahead, until it is dropped; `None` while another process has it.
    pub(super) fn alone(&self) -> Option<File> {
        let path = self.directory.join(LOCK);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).ok()?;
        file.try_lock().ok()?;
        Some(file)
    }

    /// Fetches a segment into the spool; `false` when it is not in the log or does not fit.
    pub(super) fn put(&self, segment: SegmentName, fetch: impl FnOnce() -> Result<Option<Vec<u8>>>) -> Result<bool> {
        let mark = self.directory.join(format!("{}{COMING}", self.name(segment)));
        if File::create(&mark).is_err() {
            return Ok(false);
        }
        let fetched = fetch();
        let kept = match &fetched {
            Ok(Some(bytes)) => {
                let name = format!("{}.{}", self.name(segment), hex(&Sha256::digest(bytes)));
                write_whole(&self.directory.join(name), bytes).is_ok()
            }
            _ => false,
        };
        let _ = fs::remove_file(&mark);
        fetched.map(|_| kept)
    }

    /// Removes what lies before a segment: the server has gone past it, or to another timeline.
    pub(super) fn forget_before(&self, segment: SegmentName) {
        let size = self.cluster.segment_size;
        for path in self.files() {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let kept = SegmentName::parse(name.get(..24).unwrap_or_default(), size)
                .is_ok_and(|one| one.timeline == segment.timeline && one.number > segment.number);
            if !kept {
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Removes everything: the end of the archive was reached.
    pub(super) fn clear(&self) {
        for path in self.files() {
            let _ = fs::remove_file(&path);
        }
    }
}

/// A directory that is ours and closed to everybody else.
fn private(directory: &Path, user: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let meta = fs::symlink_metadata(directory)?;
    if meta.is_dir() && meta.uid() == user && meta.mode() & 0o7777 == 0o700 {
        return Ok(());
    }
    let why = format!("`{}` is not a directory of this user with mode 0700", directory.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}
