//! Holds sources to their promise: ascending paths, every parent before what is in it.

use rekindle_core::entry::{Content, Entry, EntryKind, EntryPath};
use rekindle_core::{Fault, Result, codes};

/// Checks entries as they are pulled.
#[derive(Debug, Default)]
pub(super) struct Order {
    last: Option<EntryPath>,
    /// Directories around the last entry, from the top down.
    open: Vec<EntryPath>,
}

impl Order {
    /// Checks the next entry; gives how many directories are around it.
    pub(super) fn check(&mut self, entry: &Entry) -> Result<usize> {
        content_fits(entry)?;
        self.step(&entry.path, &entry.meta.kind)
    }

    /// Checks the place of the next entry.
    pub(super) fn step(&mut self, path: &EntryPath, kind: &EntryKind) -> Result<usize> {
        if let Some(last) = &self.last
            && last >= path
        {
            return wrong(path, format!("it came after `{last}`"));
        }
        while let Some(open) = self.open.last() {
            if path.is_within(open) {
                break;
            }
            self.open.pop();
        }
        if path.parent().as_ref() != self.open.last() {
            return wrong(path, "its directory did not come before it".to_owned());
        }
        let depth = self.open.len();
        if *kind == EntryKind::Directory {
            self.open.push(path.clone());
        }
        self.last = Some(path.clone());
        Ok(depth)
    }
}

/// Only files have content.
pub(super) fn content_fits(entry: &Entry) -> Result<()> {
    if entry.meta.kind != EntryKind::File && !matches!(entry.content, Content::None) {
        return wrong(&entry.path, "it has content and is no file".to_owned());
    }
    Ok(())
}

fn wrong<T>(path: &EntryPath, why: String) -> Result<T> {
    Err(Fault::new(codes::REPO_ORDER, format!("store `{path}`")).because(why))
}

#[cfg(test)]
mod tests {
    use rekindle_core::entry::Meta;

    use super::*;

    fn check(paths: &[&str]) -> bool {
        let mut order = Order::default();
        paths.iter().all(|text| {
            let directory = text.ends_with('/');
            let kind = if directory { EntryKind::Directory } else { EntryKind::Fifo };
            let entry = Entry {
                path: EntryPath::new(text.trim_end_matches('/')).unwrap(),
                meta: Meta::synthetic(kind, jiff::Timestamp::UNIX_EPOCH),
                content: Content::None,
            };
            order.check(&entry).is_ok()
        })
    }

    #[test]
    fn only_the_promised_order_passes() {
        assert!(check(&["a/", "a/b", "a/c/", "a/c/d", "a!", "b/", "b/x"]));
        for bad in [
            &["a", "a"][..],
            &["b", "a"],
            &["a/b"],
            &["a/", "b", "a/c"],
            &["a", "a/b"],
            &["a/", "a/b/c"],
            &["a/", "ab/c"],
        ] {
            assert!(!check(bad), "{bad:?}");
        }
    }
}
