//! Entries of a tree: the JSON of restic's nodes and what it means.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rekindle_core::entry::{EntryKind, FileTime, Meta};
use serde::{Deserialize, Deserializer};

use super::json::{push_number, push_string};
use super::{BadFormat, Id, quote, time};

/// What a node stands for, beyond its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeContent {
    /// The blobs of a file, in order.
    Blobs(Vec<Id>),
    /// The tree of a directory.
    Subtree(Id),
    /// Links and special files have none.
    Nothing,
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Any bytes; a reader must check it before it goes anywhere near a file system.
    pub name: Vec<u8>,
    pub meta: Meta,
    pub content: NodeContent,
}

/// Bits of Go's `os.FileMode` beside the nine permission bits.
mod go_mode {
    pub(super) const DIR: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const NAMED_PIPE: u32 = 1 << 25;
    pub(super) const SOCKET: u32 = 1 << 24;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHAR_DEVICE: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
    pub(super) const PERMISSIONS: u32 = 0o777;
}

/// The same bits in Unix and in Go.
const MODE_BITS: [(u32, u32); 3] = [(0o4000, go_mode::SETUID), (0o2000, go_mode::SETGID), (0o1000, go_mode::STICKY)];

fn mode_to_go(meta: &Meta) -> u32 {
    let kind = match meta.kind {
        EntryKind::File => 0,
        EntryKind::Directory => go_mode::DIR,
        EntryKind::Symlink { .. } => go_mode::SYMLINK,
        EntryKind::BlockDevice { .. } => go_mode::DEVICE,
        EntryKind::CharDevice { .. } => go_mode::DEVICE | go_mode::CHAR_DEVICE,
        EntryKind::Fifo => go_mode::NAMED_PIPE,
        EntryKind::Socket => go_mode::SOCKET,
    };
    MODE_BITS
        .iter()
        .filter(|(unix, _)| meta.mode & unix != 0)
        .fold(kind | meta.mode & go_mode::PERMISSIONS, |mode, (_, go)| mode | go)
}

fn mode_from_go(mode: u32) -> u32 {
    MODE_BITS.iter().filter(|(_, go)| mode & go != 0).fold(mode & go_mode::PERMISSIONS, |mode, (unix, _)| mode | unix)
}

fn type_name(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "dir",
        EntryKind::Symlink { .. } => "symlink",
        EntryKind::BlockDevice { .. } => "dev",
        EntryKind::CharDevice { .. } => "chardev",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
    }
}

impl Node {
    /// Appends the JSON of this node, byte for byte as restic writes it.
    pub fn push_json(&self, out: &mut String) {
        let meta = &self.meta;
        let mut name = String::with_capacity(self.name.len() + 2);
        quote::quote(&self.name, &mut name);
        out.push_str("{\"name\":");
        push_string(out, &name);
        out.push_str(",\"type\":\"");
        out.push_str(type_name(&meta.kind));
        out.push('"');
        push_unless_zero(out, "mode", u64::from(mode_to_go(meta)));
        for (field, value) in [("mtime", meta.modified), ("atime", meta.accessed), ("ctime", meta.changed)] {
            push_field(out, field);
            out.push('"');
            time::push(value, out);
            out.push('"');
        }
        push_field(out, "uid");
        push_number(out, u64::from(meta.uid));
        push_field(out, "gid");
        push_number(out, u64::from(meta.gid));
        push_unless_empty(out, "user", meta.user.as_deref().unwrap_or(""));
        push_unless_empty(out, "group", meta.group.as_deref().unwrap_or(""));
        push_unless_zero(out, "inode", meta.inode);
        push_unless_zero(out, "device_id", meta.device);
        if meta.kind == EntryKind::File {
            push_unless_zero(out, "size", meta.size);
        }
        if meta.kind != EntryKind::Directory {
            push_unless_zero(out, "links", meta.links);
        }
        push_kind(out, &meta.kind);
        push_xattrs(out, &meta.xattrs);
        if let EntryKind::BlockDevice { device } | EntryKind::CharDevice { device } = meta.kind {
            push_unless_zero(out, "device", device);
        }
        self.push_content(out);
        out.push('}');
    }

    fn push_content(&self, out: &mut String) {
        push_field(out, "content");
        match &self.content {
            NodeContent::Blobs(blobs) => {
                out.push('[');
                for (at, id) in blobs.iter().enumerate() {
                    out.push_str(if at == 0 { "\"" } else { ",\"" });
                    id.push_hex(out);
                    out.push('"');
                }
                out.push(']');
            }
            NodeContent::Subtree(id) => {
                out.push_str("null,\"subtree\":\"");
                id.push_hex(out);
                out.push('"');
            }
            NodeContent::Nothing => out.push_str("null"),
        }
    }
}

fn push_field(out: &mut String, name: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
}

fn push_unless_zero(out: &mut String, name: &str, value: u64) {
    if value != 0 {
        push_field(out, name);
        push_number(out, value);
    }
}

fn push_unless_empty(out: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        push_field(out, name);
        push_string(out, value);
    }
}

fn push_kind(out: &mut String, kind: &EntryKind) {
    let EntryKind::Symlink { target } = kind else {
        return;
    };
    push_unless_empty(out, "linktarget", &String::from_utf8_lossy(target));
    if std::str::from_utf8(target).is_err() {
        push_field(out, "linktarget_raw");
        out.push('"');
        STANDARD.encode_string(target, out);
        out.push('"');
    }
}

fn push_xattrs(out: &mut String, xattrs: &[(Vec<u8>, Vec<u8>)]) {
    if xattrs.is_empty() {
        return;
    }
    push_field(out, "extended_attributes");
    for (at, (name, value)) in xattrs.iter().enumerate() {
        out.push_str(if at == 0 { "[{\"name\":" } else { ",{\"name\":" });
        push_string(out, &String::from_utf8_lossy(name));
        out.push_str(",\"value\":\"");
        STANDARD.encode_string(value, out);
        out.push_str("\"}");
    }
    out.push(']');
}

/// The JSON as restic and rustic write it; what they leave out has its default.
#[derive(Deserialize)]
pub(super) struct NodeJson {
    name: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    mode: Option<u32>,
    #[serde(default)]
    mtime: Option<String>,
    #[serde(default)]
    atime: Option<String>,
    #[serde(default)]
    ctime: Option<String>,
    #[serde(default)]
    uid: Option<u32>,
    #[serde(default)]
    gid: Option<u32>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    inode: Option<u64>,
    #[serde(default)]
    device_id: Option<u64>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    links: Option<u64>,
    #[serde(default)]
    linktarget: Option<String>,
    #[serde(default, deserialize_with = "base64_bytes")]
    linktarget_raw: Option<Vec<u8>>,
    #[serde(default)]
    extended_attributes: Option<Vec<XattrJson>>,
    #[serde(default)]
    device: Option<u64>,
    #[serde(default)]
    content: Option<Vec<Id>>,
    #[serde(default)]
    subtree: Option<Id>,
}

#[derive(Deserialize)]
struct XattrJson {
    name: String,
    #[serde(default, deserialize_with = "base64_bytes")]
    value: Option<Vec<u8>>,
}

fn base64_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map(|text| STANDARD.decode(text).map_err(serde::de::Error::custom))
        .transpose()
}

impl NodeJson {
    pub(super) fn into_node(self) -> Result<Node, BadFormat> {
        let time = |text: Option<String>| match text {
            None => Ok(FileTime::default()),
            Some(text) => time::parse(&text),
        };
        let device = self.device.unwrap_or(0);
        let (kind, content) = match self.kind.as_str() {
            "file" => (EntryKind::File, NodeContent::Blobs(self.content.unwrap_or_default())),
            "dir" => {
                let subtree = self.subtree.ok_or_else(|| BadFormat::new("a directory has no tree"))?;
                (EntryKind::Directory, NodeContent::Subtree(subtree))
            }
            "symlink" => {
                let target = match self.linktarget_raw {
                    Some(raw) => raw,
                    None => self.linktarget.unwrap_or_default().into_bytes(),
                };
                (EntryKind::Symlink { target }, NodeContent::Nothing)
            }
            "dev" => (EntryKind::BlockDevice { device }, NodeContent::Nothing),
            "chardev" => (EntryKind::CharDevice { device }, NodeContent::Nothing),
            "fifo" => (EntryKind::Fifo, NodeContent::Nothing),
            "socket" => (EntryKind::Socket, NodeContent::Nothing),
            other => return Err(BadFormat::new(format!("unknown kind of node `{other}`"))),
        };
        let xattrs = self.extended_attributes.unwrap_or_default();
        Ok(Node {
            name: quote::unquote(&self.name)?,
            meta: Meta {
                kind,
                mode: mode_from_go(self.mode.unwrap_or(0)),
                uid: self.uid.unwrap_or(0),
                gid: self.gid.unwrap_or(0),
                user: self.user.filter(|name| !name.is_empty()),
                group: self.group.filter(|name| !name.is_empty()),
                modified: time(self.mtime)?,
                changed: time(self.ctime)?,
                accessed: time(self.atime)?,
                inode: self.inode.unwrap_or(0),
                device: self.device_id.unwrap_or(0),
                links: self.links.unwrap_or(1),
                size: self.size.unwrap_or(0),
                xattrs: xattrs.into_iter().map(|x| (x.name.into_bytes(), x.value.unwrap_or_default())).collect(),
            },
            content,
        })
    }
}
