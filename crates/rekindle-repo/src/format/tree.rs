//! Trees: the JSON of one directory.

use serde::Deserialize;

use super::node::{Node, NodeJson};
use super::pack::BLOB_BYTES_MAX;
use super::{BadFormat, Id};

const HEAD: &str = "{\"nodes\":[";
const TAIL: &str = "]}\n";

/// Builds the JSON of a directory, node by node, in strictly ascending order of names.
#[derive(Debug)]
pub struct TreeBuilder {
    json: String,
    last: Option<Vec<u8>>,
}

impl Default for TreeBuilder {
    fn default() -> Self {
        Self { json: HEAD.to_owned(), last: None }
    }
}

impl TreeBuilder {
    /// Appends a node.
    pub fn push(&mut self, node: &Node) -> Result<(), BadFormat> {
        if let Some(last) = &self.last {
            if *last >= node.name {
                return Err(BadFormat::new("the names of a directory are not in ascending order"));
            }
            self.json.push(',');
        }
        node.push_json(&mut self.json);
        if self.json.len() >= BLOB_BYTES_MAX as usize {
            return Err(BadFormat::new("a directory has too many entries"));
        }
        self.last = Some(node.name.clone());
        Ok(())
    }

    /// The whole JSON and its id.
    pub fn finish(mut self) -> (Id, Vec<u8>) {
        self.json.push_str(TAIL);
        let json = self.json.into_bytes();
        (Id::of(&json), json)
    }
}

/// Reads a directory. Order and names are as stored: a reader that needs them safe checks them.
pub fn decode(json: &[u8]) -> Result<Vec<Node>, BadFormat> {
    #[derive(Deserialize)]
    struct TreeJson {
        #[serde(default)]
        nodes: Option<Vec<NodeJson>>,
    }
    let tree: TreeJson = serde_json::from_slice(json)?;
    tree.nodes.unwrap_or_default().into_iter().map(NodeJson::into_node).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rekindle_core::entry::{EntryKind, FileTime, Meta};

    use super::*;
    use crate::format::node::NodeContent;

    fn meta(kind: EntryKind) -> Meta {
        let mut meta = Meta::synthetic(kind, jiff::Timestamp::UNIX_EPOCH);
        meta.mode = 0o644;
        meta
    }

    fn encode(nodes: &[Node]) -> Vec<u8> {
        let mut builder = TreeBuilder::default();
        for node in nodes {
            builder.push(node).unwrap();
        }
        builder.finish().1
    }

    /// Only the fields that an old writer must give.
    const GOLDEN: &str = concat!(
        r#"{"nodes":[{"name":"a \\\"q\\\" \u003c\u0026\u003e \\n \\xff","type":"file","mode":2147484077,"#,
        r#""mtime":"2020-01-02T03:04:05.006Z"}]}"#
    );

    #[test]
    fn json_is_what_go_writes() {
        let mut file = meta(EntryKind::File);
        file.modified = FileTime { seconds: 1_577_934_245, nanoseconds: 6_000_000 };
        file.mode = 0o4755;
        file.size = 3;
        file.inode = 9;
        file.device = 5;
        file.user = Some("root".to_owned());
        file.xattrs = vec![(b"user.x".to_vec(), b"v".to_vec())];
        let id = Id::of(b"abc");
        let nodes = [
            Node { name: b"a <\"\n\xff".to_vec(), meta: file, content: NodeContent::Blobs(vec![id]) },
            Node { name: b"d".to_vec(), meta: meta(EntryKind::Directory), content: NodeContent::Subtree(id) },
            Node {
                name: b"l".to_vec(),
                meta: meta(EntryKind::Symlink { target: b"x\xff".to_vec() }),
                content: NodeContent::Nothing,
            },
        ];
        let expected = format!(
            concat!(
                r#"{{"nodes":[{{"name":"a \u003c\\\"\\n\\xff","type":"file","mode":8389101,"mtime":"2020-01-02T03:04:05.006Z","#,
                r#""atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:00Z","uid":0,"gid":0,"user":"root","inode":9,"#,
                r#""device_id":5,"size":3,"links":1,"extended_attributes":[{{"name":"user.x","value":"dg=="}}],"content":["{id}"]}},"#,
                r#"{{"name":"d","type":"dir","mode":2147484068,"mtime":"1970-01-01T00:00:00Z","atime":"1970-01-01T00:00:00Z","#,
                r#""ctime":"1970-01-01T00:00:00Z","uid":0,"gid":0,"content":null,"subtree":"{id}"}},"#,
                r#"{{"name":"l","type":"symlink","mode":134218148,"mtime":"1970-01-01T00:00:00Z","atime":"1970-01-01T00:00:00Z","#,
                r#""ctime":"1970-01-01T00:00:00Z","uid":0,"gid":0,"links":1,"linktarget":"x{bad}","linktarget_raw":"eP8=","content":null}}]}}"#,
                "\n"
            ),
            id = id,
            bad = '\u{fffd}'
        );
        assert_eq!(String::from_utf8(encode(&nodes)).unwrap(), expected);
        assert_eq!(decode(expected.as_bytes()).unwrap(), nodes);
    }

    #[test]
    fn sparse_json_is_understood() {
        let nodes = decode(GOLDEN.as_bytes()).unwrap();
        assert_eq!(nodes[0].name, b"a \"q\" <&> \n \xff");
        assert_eq!(nodes[0].content, NodeContent::Blobs(Vec::new()));
        assert_eq!(decode(b"{\"nodes\":null}"), Ok(Vec::new()));
        assert_eq!(encode(&[]), b"{\"nodes\":[]}\n");
        assert!(decode(br#"{"nodes":[{"name":"d","type":"dir"}]}"#).is_err());
        assert!(decode(br#"{"nodes":[{"name":"d","type":"irregular"}]}"#).is_err());
    }

    #[test]
    fn order_is_enforced() {
        let node = |name: &str| Node { name: name.into(), meta: meta(EntryKind::Fifo), content: NodeContent::Nothing };
        let mut builder = TreeBuilder::default();
        builder.push(&node("b")).unwrap();
        assert!(builder.push(&node("b")).is_err());
        assert!(builder.push(&node("a")).is_err());
        assert!(builder.push(&node("c")).is_ok());
    }

    fn kinds() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            Just(EntryKind::File),
            proptest::collection::vec(1..=255_u8, 1..20).prop_map(|target| EntryKind::Symlink { target }),
            any::<u64>().prop_map(|device| EntryKind::BlockDevice { device }),
            any::<u64>().prop_map(|device| EntryKind::CharDevice { device }),
            Just(EntryKind::Fifo),
            Just(EntryKind::Socket),
        ]
    }

    proptest! {
        #[test]
        fn every_node_comes_back(
            kind in kinds(),
            name in proptest::collection::vec(any::<u8>(), 1..30),
            mode in 0..=0o7777_u32,
            (seconds, nanoseconds) in (-60_000_000_000_i64..200_000_000_000, 0..1_000_000_000_u32),
            (uid, gid, inode, device, size) in any::<(u32, u32, u64, u64, u64)>(),
            user in proptest::option::of("\\PC{1,9}"),
            value in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let file = kind == EntryKind::File;
            let content = if file { NodeContent::Blobs(vec![Id::of(&name)]) } else { NodeContent::Nothing };
            let time = FileTime { seconds, nanoseconds };
            let meta = Meta {
                kind, mode, uid, gid, user: user.clone(), group: user, modified: time, changed: time,
                accessed: time, inode, device, links: 3, size: if file { size } else { 0 },
                xattrs: vec![(b"user.a".to_vec(), value)],
            };
            let node = Node { name, meta, content };
            prop_assert_eq!(decode(&encode(std::slice::from_ref(&node))), Ok(vec![node]));
        }

        #[test]
        fn hostile_bytes_do_not_panic(text in r#"\{"nodes":\[(\{"name":"[a\\\\x]{0,3}","type":"(file|dir|dev)","mtime":"[0-9T:Z-]{0,20}"\},?)*\]\}"#) {
            let _ = decode(text.as_bytes());
        }
    }
}
