//! Head and table of contents.

use super::bytes::{Bytes, Layout, Short};
use super::{BadArchive, VERSIONS};

const FORMAT_CUSTOM: u8 = 1;
/// Markers of `pg_backup_archiver.h`: offset not known, known, and no data at all.
const OFFSET_NOT_SET: u8 = 1;
const OFFSET_SET: u8 = 2;
const OFFSET_NO_DATA: u8 = 3;

/// What the archive says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub version: (u8, u8),
    /// The database it was made from.
    pub database: String,
    /// Versions of the server and of `pg_dump`, as they call themselves.
    pub server_version: String,
    pub dump_version: String,
}

/// One thing in the archive; only what we need of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    pub dump_id: i64,
    /// `TABLE`, `TABLE DATA`, `INDEX`, …
    pub kind: String,
    pub schema: String,
    pub name: String,
    pub owner: String,
    /// The tablespace it asks for; empty: the database's own.
    pub tablespace: String,
    /// Whether a data block follows for it.
    pub has_data: bool,
}

impl TocEntry {
    /// For people.
    pub fn describe(&self) -> String {
        format!("{} `{}.{}`", self.kind, self.schema, self.name)
    }
}

/// The head, the sizes that hold from there on, and the number of entries.
pub(super) fn head(view: &mut Bytes<'_>) -> Result<(Head, Layout, u64), Short> {
    let magic = b"PGDMP";
    for expected in magic {
        if view.byte()? != *expected {
            return Err(Short::Archive(BadArchive::Magic));
        }
    }
    let (major, minor, _) = (view.byte()?, view.byte()?, view.byte()?);
    if !VERSIONS.contains(&(major, minor)) {
        return Err(Short::Archive(BadArchive::Version(major, minor)));
    }
    let layout =
        Layout { version: (major, minor), int_size: usize::from(view.byte()?), offset_size: usize::from(view.byte()?) };
    if !(2..=8).contains(&layout.int_size) || !(4..=8).contains(&layout.offset_size) {
        return Err(Short::Bad("impossible sizes in the head"));
    }
    if view.byte()? != FORMAT_CUSTOM {
        return Err(Short::Bad("the archive is not in custom format"));
    }
    view.layout = layout;
    // Since 1.15 the compression is one byte (an algorithm), before it is a number (a level).
    if layout.version >= (1, 15) {
        view.byte()?;
    } else {
        view.int()?;
    }
    // Seconds, minutes, hours, day, month, year, daylight saving: local time, of no use.
    for _ in 0..7 {
        view.int()?;
    }
    let head = Head {
        version: layout.version,
        database: view.string()?,
        server_version: view.string()?,
        dump_version: view.string()?,
    };
    let entries = view.length()?;
    Ok((head, layout, entries))
}

/// One entry.
pub(super) fn entry(view: &mut Bytes<'_>) -> Result<TocEntry, Short> {
    let dump_id = view.int()?;
    let _had_dumper = view.int()?;
    let _table_oid = view.text()?;
    let _oid = view.text()?;
    let name = view.string()?;
    let kind = view.string()?;
    let _section = view.int()?;
    let _definition = view.text()?;
    let _drop = view.text()?;
    let _copy = view.text()?;
    let schema = view.string()?;
    let tablespace = view.string()?;
    if view.layout.version >= (1, 14) {
        let _access_method = view.text()?;
    }
    if view.layout.version >= (1, 16) {
        let _relation_kind = view.int()?;
    }
    let owner = view.string()?;
    let _with_oids = view.text()?;
    // Dependencies, ended by a text that is not there.
    while view.text()?.is_some() {}
    let has_data = match view.byte()? {
        OFFSET_NOT_SET | OFFSET_SET => true,
        OFFSET_NO_DATA => false,
        _ => return Err(Short::Bad("unknown marker of an offset")),
    };
    view.take(view.layout.offset_size)?;
    Ok(TocEntry { dump_id, kind, schema, name, owner, tablespace, has_data })
}
