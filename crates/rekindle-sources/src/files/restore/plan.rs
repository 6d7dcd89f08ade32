//! Pure parts of a restore: what is selected, which places are swapped, and the record of it.

use rekindle_core::entry::EntryPath;
use rekindle_core::port::{PartReader, RestoreRequest, StoredEntry};
use rekindle_core::{Fault, Result, codes};
use serde::{Deserialize, Serialize};

use super::super::FilesComponent;
use super::super::layout::entry_path;

/// A path that may not be text, for JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(in super::super) enum PathBytes {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&[u8]> for PathBytes {
    fn from(bytes: &[u8]) -> Self {
        String::from_utf8(bytes.to_vec()).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }
}

impl PathBytes {
    /// The bytes again.
    pub(in super::super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Where a piece of the part stands now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Place {
    /// The entry that stands there; `None` for the top of the part.
    pub(in super::super) entry: Option<PathBytes>,
    pub(in super::super) path: PathBytes,
    /// Where the old state is, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in super::super) kept: Option<PathBytes>,
}

/// The record of a restore, for the check after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Placed {
    pub(in super::super) places: Vec<Place>,
    /// Only these entries were asked for; empty means all.
    pub(in super::super) select: Vec<PathBytes>,
    pub(in super::super) owners_set: bool,
}

/// The selected entries, without those inside another one; each is in the part.
pub(super) fn selection(part: &dyn PartReader, request: &RestoreRequest) -> Result<Vec<EntryPath>> {
    let mut select = Vec::with_capacity(request.select.len());
    for text in &request.select {
        let path = EntryPath::new(text.trim_matches('/')).map_err(|why| no_entry(text).because(why))?;
        if first(part, &path)?.is_none() {
            return Err(no_entry(text).because("there is no such entry"));
        }
        select.push(path);
    }
    Ok(outermost(select))
}

fn no_entry(text: &str) -> Fault {
    Fault::new(codes::FILES_SELECT, format!("select `{}`", text.escape_debug()))
        .hint("see what is in the point with `rekindle ls POINT COMPONENT`")
}

/// Sorted, without entries inside other ones.
fn outermost(mut paths: Vec<EntryPath>) -> Vec<EntryPath> {
    paths.sort();
    let mut kept: Vec<EntryPath> = Vec::with_capacity(paths.len());
    for path in paths {
        if !kept.last().is_some_and(|last| path.is_within(last)) {
            kept.push(path);
        }
    }
    kept
}

/// An entry of the part, or that it has none of this path.
pub(in super::super) fn first(part: &dyn PartReader, path: &EntryPath) -> Result<Option<StoredEntry>> {
    let mut list = match part.list(Some(path)) {
        Ok(list) => list,
        Err(fault) if fault.is(codes::REPO_NO_ENTRY) => return Ok(None),
        Err(fault) => return Err(fault),
    };
    match list.next() {
        None => Ok(None),
        Some(Err(fault)) if fault.is(codes::REPO_NO_ENTRY) => Ok(None),
        Some(entry) => entry.map(Some),
    }
}

/// The pieces to put in place, each with its own entry, and what else should be known.
pub(super) fn pieces(
    component: &FilesComponent,
    part: &dyn PartReader,
    select: &[EntryPath],
) -> Result<(Vec<StoredEntry>, Vec<String>)> {
    let roots = component.layout.topmost();
    let whole_machine = component.layout.paths.iter().any(|p| entry_path(p).is_none());
    let mut pieces = Vec::new();
    let mut warnings = Vec::new();
    for path in if select.is_empty() { &roots } else { select } {
        if !whole_machine && !roots.iter().any(|root| path.is_within(root)) {
            return Err(layout(component, &format!("`/{path}` is not inside a configured path")));
        }
        match first(part, path)? {
            Some(entry) => pieces.push(entry),
            None => warnings.push(format!("`/{path}` is configured but was not in this point: it was left as it is")),
        }
    }
    if pieces.is_empty() {
        let why = if whole_machine {
            "`/` cannot be swapped as a whole"
        } else {
            "the point holds none of the configured paths"
        };
        return Err(layout(component, why));
    }
    if select.is_empty() {
        warnings.extend(no_longer_configured(component, part));
    }
    Ok((pieces, warnings))
}

fn layout(component: &FilesComponent, why: &str) -> Fault {
    Fault::new(codes::FILES_LAYOUT, format!("restore `{}` in place", component.id))
        .because(why.to_owned())
        .hint("restore into a new directory with `--to DIR`, or name single paths inside the configured ones")
}

fn no_longer_configured(component: &FilesComponent, part: &dyn PartReader) -> Vec<String> {
    let saved = part.record().details.get("roots");
    let saved = saved.and_then(|roots| roots.as_array()).into_iter().flatten();
    let configured: Vec<String> = (component.layout.paths.iter()).map(|path| super::show(path)).collect();
    saved
        .filter_map(|root| root.as_str())
        .filter(|root| !configured.iter().any(|path| path == root))
        .map(|root| format!("`{root}` is in the point but no longer configured: it was not restored"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selected_entries_inside_others_are_dropped() {
        let paths = ["a/b", "a", "ab", "a/b/c", "c/d"].map(|text| EntryPath::new(text).unwrap());
        let kept = outermost(paths.to_vec());
        let texts: Vec<String> = kept.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["a", "ab", "c/d"]);
    }

    #[test]
    fn paths_survive_json_whatever_their_bytes() {
        for bytes in [b"a/b".as_slice(), b"\xff\x00x", b""] {
            let text = serde_json::to_string(&PathBytes::from(bytes)).unwrap();
            let back: PathBytes = serde_json::from_str(&text).unwrap();
            assert_eq!(back.into_bytes(), bytes);
        }
    }
}
