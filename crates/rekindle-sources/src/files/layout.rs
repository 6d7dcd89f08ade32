//! Which places of the file system a component covers: the configured paths as one tree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::entry::{EntryPath, check_name};
use rekindle_core::{Fault, Result, codes};

/// A place on the way to a configured path, or a configured path itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Everything from here on belongs to the component.
    pub(super) root: bool,
    /// Configured paths further down, by name, in byte order.
    pub(super) below: BTreeMap<Vec<u8>, Arc<Node>>,
}

/// The configured paths: absolute, without `.` parts, doubles and order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) top: Arc<Node>,
    /// Every configured path, sorted, each once.
    pub(super) paths: Vec<PathBuf>,
}

impl Layout {
    /// Checks the configured paths and merges overlapping ones.
    pub(super) fn new(configured: &[PathBuf]) -> Result<Self> {
        let mut top = Node::default();
        let mut paths = Vec::with_capacity(configured.len());
        for path in configured {
            let names = split(path).map_err(|why| bad_path(path, why))?;
            let mut node = &mut top;
            for name in &names {
                node = Arc::make_mut(node.below.entry(name.clone()).or_default());
            }
            node.root = true;
            paths.push(join(&names));
        }
        paths.sort();
        paths.dedup();
        if paths.is_empty() {
            let hint = "name at least one directory or file in `paths`";
            return Err(Fault::new(codes::FILES_PATH, "read the list of paths").because("it is empty").hint(hint));
        }
        Ok(Self { top: Arc::new(top), paths })
    }

    /// The configured paths that are not inside another one. `/` gives an empty list: the top of
    /// the part is not an entry.
    pub(super) fn topmost(&self) -> Vec<EntryPath> {
        self.paths.iter().filter(|path| self.outer(path).is_none()).filter_map(|path| entry_path(path)).collect()
    }

    /// The nearest other configured path that holds this one.
    pub(super) fn outer(&self, path: &Path) -> Option<&Path> {
        path.ancestors()
            .skip(1)
            .find_map(|above| self.paths.iter().find(|other| other.as_path() == above))
            .map(PathBuf::as_path)
    }
}

fn bad_path(path: &Path, why: &'static str) -> Fault {
    Fault::new(codes::FILES_PATH, format!("read the path `{}`", show(path)))
        .because(why)
        .hint("give the whole path from `/` on, without `..`")
}

/// The parts of an absolute path.
pub(super) fn split(path: &Path) -> Result<Vec<Vec<u8>>, &'static str> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err("it is not absolute");
    }
    let parts = bytes.split(|byte| *byte == b'/');
    parts
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(|part| match check_name(part) {
            Ok(()) => Ok(part.to_vec()),
            Err(_) => Err("it holds `..` or a NUL byte"),
        })
        .collect()
}

fn join(names: &[Vec<u8>]) -> PathBuf {
    let mut path = PathBuf::from("/");
    path.extend(names.iter().map(|name| OsStr::from_bytes(name)));
    path
}

/// An absolute path as it is named in the part; `None` for `/` and unusable ones.
pub(super) fn entry_path(path: &Path) -> Option<EntryPath> {
    let names = split(path).ok()?;
    EntryPath::new(names.join(&b'/')).ok()
}

/// Where an entry belongs on this machine.
pub(super) fn live_path(path: &EntryPath) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path.as_bytes()))
}

/// A path for reading.
pub(crate) fn show(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(paths: &[&str]) -> Result<Layout> {
        Layout::new(&paths.iter().map(PathBuf::from).collect::<Vec<_>>())
    }

    #[test]
    fn overlapping_paths_are_merged() {
        let layout = layout(&["/app/uploads/", "/app//uploads/./a", "/etc", "/app/uploads"]);
        let layout = layout.unwrap();
        let texts: Vec<String> = layout.topmost().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["app/uploads", "etc"]);
        assert_eq!(layout.paths.len(), 3);
        let app = &layout.top.below[b"app".as_slice()];
        assert!(!app.root && app.below[b"uploads".as_slice()].root);
        assert_eq!(layout.outer(Path::new("/app/uploads/a")), Some(Path::new("/app/uploads")));
    }

    #[test]
    fn unusable_paths_are_refused() {
        for bad in [&["app"][..], &["/a/../b"], &[""], &[]] {
            let fault = layout(bad).unwrap_err();
            assert!(fault.is(codes::FILES_PATH), "{bad:?}: {fault:?}");
        }
        assert!(layout(&["/"]).unwrap().topmost().is_empty());
    }
}
