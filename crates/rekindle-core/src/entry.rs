//! What flows from a source into the repository: named entries with attributes and content.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

use crate::fault::Fault;

/// A path below a component's top directory: bytes, `/`-separated, never absolute, never with
/// empty, `.` or `..` parts. The top directory itself is not an entry.
///
/// Ordering is the order in which sources give entries and in which restic trees are written:
/// directory by directory, names compared as bytes, a directory before what is in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryPath(Box<[u8]>);

/// Why bytes are not usable as an entry path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPath(pub &'static str);

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unusable entry path: {}", self.0)
    }
}

impl std::error::Error for BadPath {}

impl EntryPath {
    /// Checks and takes a path.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, BadPath> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(BadPath("it is empty"));
        }
        bytes.split(|b| *b == b'/').try_for_each(check_name)?;
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// The path of `name` inside this directory.
    pub fn child(&self, name: &[u8]) -> Result<Self, BadPath> {
        check_name(name)?;
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The parts between the slashes; at least one.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// The last part.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or(&self.0)
    }

    /// The directory that holds it; `None` for an entry of the top directory.
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..slash].into()))
    }

    /// Whether this is `other` or stands below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

/// A single name: not empty, not `.` or `..`, without `/` and NUL.
pub fn check_name(name: &[u8]) -> Result<(), BadPath> {
    match name {
        b"" => Err(BadPath("a part is empty")),
        b"." | b".." => Err(BadPath("a part is `.` or `..`")),
        _ if name.contains(&0) => Err(BadPath("it holds a NUL byte")),
        _ if name.contains(&b'/') => Err(BadPath("a name holds a slash")),
        _ => Ok(()),
    }
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.names().cmp(other.names())
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
    /// The target exactly as `readlink` gives it; never followed.
    Symlink {
        target: Vec<u8>,
    },
    BlockDevice {
        device: u64,
    },
    CharDevice {
        device: u64,
    },
    Fifo,
    Socket,
}

impl EntryKind {
    /// One byte that tells the kinds apart in fingerprints.
    pub(crate) fn tag(&self) -> u8 {
        match self {
            Self::File => b'f',
            Self::Directory => b'd',
            Self::Symlink { .. } => b'l',
            Self::BlockDevice { .. } => b'b',
            Self::CharDevice { .. } => b'c',
            Self::Fifo => b'p',
            Self::Socket => b's',
        }
    }
}

/// A moment of a file system: nanoseconds since 1970 (UTC), any sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct FileTime {
    pub seconds: i64,
    /// 0 ..= 999_999_999, added to `seconds`.
    pub nanoseconds: u32,
}

/// Attributes of an entry, as a file system has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub kind: EntryKind,
    /// Permission bits with set-uid, set-gid and sticky (`0o7777`).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Names of owner and group where the host knows them.
    pub user: Option<String>,
    pub group: Option<String>,
    pub modified: FileTime,
    pub changed: FileTime,
    pub accessed: FileTime,
    /// Inode and device number: they tell unchanged files and hard links. 0 where there is none.
    pub inode: u64,
    pub device: u64,
    /// Number of hard links; 1 where there is no file system behind the entry.
    pub links: u64,
    /// Bytes of content for files (a hint for streams: the repository counts the true size).
    pub size: u64,
    /// Extended attributes, POSIX ACLs among them (`system.posix_acl_*`), sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Meta {
    /// Attributes for content that does not come from a file system.
    pub fn synthetic(kind: EntryKind, modified: jiff::Timestamp) -> Self {
        let time = FileTime::from(modified);
        let mode = if matches!(kind, EntryKind::Directory) { 0o700 } else { 0o600 };
        Self {
            kind,
            mode,
            uid: 0,
            gid: 0,
            user: None,
            group: None,
            modified: time,
            changed: time,
            accessed: time,
            inode: 0,
            device: 0,
            links: 1,
            size: 0,
            xattrs: Vec::new(),
        }
    }
}

impl From<jiff::Timestamp> for FileTime {
    fn from(time: jiff::Timestamp) -> Self {
        let nanos = time.as_nanosecond();
        let seconds = nanos.div_euclid(1_000_000_000);
        let rest = nanos.rem_euclid(1_000_000_000);
        Self { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanoseconds: u32::try_from(rest).unwrap_or(0) }
    }
}

/// Why content could not be given.
#[derive(Debug)]
pub enum ReadFault {
    /// This entry only: the source has noted why (see [`crate::note::Note`]) and the repository
    /// leaves the entry out.
    Skip,
    /// The whole component is lost.
    Abort(Fault),
}

impl From<Fault> for ReadFault {
    fn from(fault: Fault) -> Self {
        Self::Abort(fault)
    }
}

/// What the source says after the last byte of an entry.
#[derive(Debug)]
pub enum Closing {
    /// The bytes given are right; these are the attributes to store (size is counted, not taken).
    Keep(Box<Meta>),
    /// The content changed while it was read: throw these bytes away and open again.
    Retry,
    /// The bytes are not usable and the source has noted why.
    Skip,
}

/// Bytes being read. `read` gives 0 only at the true end; then `close` is called exactly once.
pub trait ContentRead: Send {
    /// Fills some of `buffer`; 0 means the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault>;
    /// After the end: whether the bytes hold. A producer that failed says so here.
    fn close(self: Box<Self>) -> Result<Closing, Fault>;
}

/// Content that is opened when a worker has time for it, possibly on another thread.
pub trait ContentSource: Send {
    /// Opens the content from its start. Called again only after [`Closing::Retry`].
    fn open(&mut self) -> Result<Box<dyn ContentRead>, ReadFault>;
    /// The repository holds this content already, judged by size, times and inode: nothing is read.
    fn unchanged(self: Box<Self>, size: u64);
}

/// Content of which only some pieces changed. Either it is taken `whole`, or: `begin`, then `read` for every
/// chunk that is not taken over, in ascending order, then `close`.
pub trait PatchSource: Send {
    /// Its length in bytes, as in the attributes of the entry.
    fn size(&self) -> u64;
    /// Chunks have this length, but the last one. `false`: that does not go, and it is to be taken whole.
    fn begin(&mut self, chunk_bytes: u64) -> bool;
    /// Whether a byte of this chunk may differ from the earlier content. What lies behind the end of that always does.
    fn changes(&self, chunk: Range<u64>) -> bool;
    /// Fills `chunk` with the content from `at` on.
    fn read(&mut self, at: u64, chunk: &mut [u8]) -> Result<(), ReadFault>;
    /// After the last chunk. A change that was not asked for is an error.
    fn close(self: Box<Self>) -> Result<Closing, Fault>;
    /// The whole content, read now.
    fn whole(self: Box<Self>) -> Result<Box<dyn ContentRead>, Fault>;
}

/// How the bytes of an entry are to be had.
pub enum Content {
    /// There are none: directories, links, special files.
    None,
    /// A stream of unknown length that is running now; read once, in entry order.
    Stream(Box<dyn ContentRead>),
    /// As a stream, but one of very many (a member of an archive): the source has its own list of
    /// SHA-256 for them, so the manifest of the point does not list each.
    Member(Box<dyn ContentRead>),
    /// A file, opened later.
    File(Box<dyn ContentSource>),
    /// The source knows that this is what the earlier tree has under the same path. The repository
    /// takes it over unread when it still holds all of it and its length is the one in the
    /// attributes; otherwise it is opened like a file.
    Unchanged(Box<dyn ContentSource>),
    /// The source knows that this is what the earlier tree has under the same path, but for some pieces.
    /// The repository takes chunks without a change over unread when it still holds all of them, cut in
    /// the same way; otherwise it reads the whole content, as of a member.
    Patched(Box<dyn PatchSource>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Stream(_) => "Stream",
            Self::Member(_) => "Member",
            Self::File(_) => "File",
            Self::Unchanged(_) => "Unchanged",
            Self::Patched(_) => "Patched",
        })
    }
}

/// One named thing to be stored.
#[derive(Debug)]
pub struct Entry {
    pub path: EntryPath,
    pub meta: Meta,
    pub content: Content,
}

/// Entries in [`EntryPath`] order, each directory before its content, every parent present; or, when
/// the capture says so ([`crate::port::StoreShape::any_order`]), in any order, each once, every
/// parent present by the end. An `Err` ends the component.
pub type Entries = Box<dyn Iterator<Item = Result<Entry, Fault>> + Send>;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text).unwrap()
    }

    #[test]
    fn dangerous_paths_are_refused() {
        for bad in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0b"] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(path("a").child(b"b/c").is_err());
    }

    #[test]
    fn order_is_by_directory_and_not_by_the_slash_byte() {
        // `a!b` < `a/b` as bytes ('!' < '/'), but `a` and its content come before `a!b`.
        let mut paths = [path("a!b"), path("a/b"), path("a"), path("b"), path("a/b/c"), path("a-")];
        paths.sort();
        let texts: Vec<String> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["a", "a/b", "a/b/c", "a!b", "a-", "b"]);
    }

    #[test]
    fn within_means_a_whole_part() {
        assert!(path("a/b").is_within(&path("a")));
        assert!(path("a").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")));
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), None);
        assert_eq!(path("a/b").name(), b"b");
    }

    #[test]
    fn times_before_1970_keep_positive_nanoseconds() {
        let time = jiff::Timestamp::from_nanosecond(-1).unwrap();
        assert_eq!(FileTime::from(time), FileTime { seconds: -1, nanoseconds: 999_999_999 });
    }
}
