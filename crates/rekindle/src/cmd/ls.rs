//! `ls`

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use rekindle_core::entry::{EntryKind, EntryPath};
use rekindle_core::port::{Repository, StoredEntry};
use rekindle_core::{ComponentId, Fault, Result, codes};
use serde_json::{Value, json};

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, wire};

/// List what a recovery point holds
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Beginning of the point's id, or `latest`
    point: String,
    /// COMPONENT, or COMPONENT/PATH
    path: Option<OsString>,
    /// Also what is in directories below
    #[arg(long, short)]
    recursive: bool,
}

impl Ls {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repository = wire::open(session, &wire::place(session)?)?;
        let point = wire::point(&repository, &self.point)?;
        let Some(path) = &self.path else {
            let names: Vec<&str> = point.manifest().components.iter().map(|one| one.id.as_str()).collect();
            let text = names.iter().fold(String::new(), |text, name| text + name + "/\n");
            return Ok(Answer::data(json!({"point": point.id(), "components": names}), text));
        };
        let (component, within) = split(path.as_bytes())?;
        let part = repository.open(point.id(), &component)?;
        let (mut rows, mut list) = (Vec::new(), Vec::new());
        for entry in part.list(within.as_ref())? {
            let entry = entry?;
            session.cancel.check()?;
            if self.recursive || is_direct(&entry.path, within.as_ref()) {
                rows.push(row(&entry));
                list.push(data(&entry));
            }
        }
        let text = human::table(&["MODE", "OWNER", "SIZE", "MODIFIED", "PATH"], &rows);
        let result = json!({"point": point.id(), "component": component, "entries": list});
        Ok(Answer::data(result, text))
    }
}

/// The component and the path below it.
pub(super) fn split(path: &[u8]) -> Result<(ComponentId, Option<EntryPath>)> {
    let shown = String::from_utf8_lossy(path).escape_debug().to_string();
    let bad = |why: String| {
        Fault::new(codes::CLI_USAGE, format!("read the path `{shown}`"))
            .because(why)
            .hint("write COMPONENT/PATH; `rekindle ls POINT` lists the components")
    };
    let trimmed = path.strip_suffix(b"/").unwrap_or(path);
    let mut parts = trimmed.splitn(2, |byte| *byte == b'/');
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let component: ComponentId = name.parse().map_err(|error: rekindle_core::id::BadId| bad(error.to_string()))?;
    let within = match parts.next() {
        None | Some(b"") => None,
        Some(rest) => Some(EntryPath::new(rest).map_err(|error| bad(error.to_string()))?),
    };
    Ok((component, within))
}

/// Whether an entry is the listed one itself or stands directly in it.
fn is_direct(path: &EntryPath, within: Option<&EntryPath>) -> bool {
    Some(path) == within || path.parent().as_ref() == within
}

fn row(entry: &StoredEntry) -> Vec<String> {
    let meta = &entry.meta;
    let owner = |name: &Option<String>, id: u32| name.clone().unwrap_or_else(|| id.to_string());
    let (mark, tail) = match &meta.kind {
        EntryKind::File => ('-', String::new()),
        EntryKind::Directory => ('d', "/".to_owned()),
        EntryKind::Symlink { target } => ('l', format!(" -> {}", String::from_utf8_lossy(target).escape_debug())),
        EntryKind::BlockDevice { .. } => ('b', String::new()),
        EntryKind::CharDevice { .. } => ('c', String::new()),
        EntryKind::Fifo => ('p', String::new()),
        EntryKind::Socket => ('s', String::new()),
    };
    let modified = jiff::Timestamp::from_second(meta.modified.seconds);
    vec![
        format!("{mark}{:04o}", meta.mode),
        format!("{}:{}", owner(&meta.user, meta.uid), owner(&meta.group, meta.gid)),
        meta.size.to_string(),
        modified.map_or_else(|_| "-".to_owned(), human::time),
        format!("{}{tail}", entry.path),
    ]
}

fn data(entry: &StoredEntry) -> Value {
    let meta = &entry.meta;
    let kind = match &meta.kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink { .. } => "symlink",
        EntryKind::BlockDevice { .. } => "block-device",
        EntryKind::CharDevice { .. } => "char-device",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
    };
    json!({
        "path": entry.path.to_string(),
        "kind": kind,
        "mode": format!("{:04o}", meta.mode),
        "uid": meta.uid,
        "gid": meta.gid,
        "size": meta.size,
        "modified_seconds": meta.modified.seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_with_a_component() {
        let parts = |text: &str| {
            let (component, within) = split(text.as_bytes()).unwrap();
            (component.to_string(), within.map(|path| path.to_string()))
        };
        assert_eq!(parts("files"), ("files".to_owned(), None));
        assert_eq!(parts("files/"), ("files".to_owned(), None));
        assert_eq!(parts("files/a/b/"), ("files".to_owned(), Some("a/b".to_owned())));
        for bad in ["", "/a", "Files", "files//a", "files/../x"] {
            assert!(split(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
