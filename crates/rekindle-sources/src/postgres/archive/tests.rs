use proptest::prelude::*;

use super::{Archive, BadArchive, Contents};

/// Writes small archives, for the tests of the reader.
struct Writer {
    bytes: Vec<u8>,
    version: u8,
}

impl Writer {
    fn new(version: u8, entries: i64) -> Self {
        let mut writer = Self { bytes: b"PGDMP".to_vec(), version };
        writer.bytes.extend_from_slice(&[1, version, 0, 4, 8, 1]);
        if version >= 15 {
            writer.bytes.push(0);
        } else {
            writer.int(0);
        }
        for _ in 0..7 {
            writer.int(1);
        }
        for text in ["app", "17.2", "17.2"] {
            writer.text(Some(text));
        }
        writer.int(entries);
        writer
    }

    fn int(&mut self, value: i64) {
        self.bytes.push(u8::from(value < 0));
        let magnitude = u32::try_from(value.unsigned_abs()).unwrap();
        self.bytes.extend_from_slice(&magnitude.to_le_bytes());
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            None => self.int(-1),
            Some(text) => {
                self.int(text.len().try_into().unwrap());
                self.bytes.extend_from_slice(text.as_bytes());
            }
        }
    }

    fn entry(&mut self, id: i64, kind: &str, name: &str, has_data: bool) {
        self.int(id);
        self.int(i64::from(has_data));
        for text in [Some("0"), Some("0"), Some(name), Some(kind)] {
            self.text(text);
        }
        self.int(2);
        for text in [Some("CREATE …"), None, None, Some("public"), None] {
            self.text(text);
        }
        if self.version >= 14 {
            self.text(Some("heap"));
        }
        if self.version >= 16 {
            self.int(114);
        }
        for text in [Some("owner"), Some("false"), Some("3"), None] {
            self.text(text);
        }
        self.bytes.push(if has_data { 1 } else { 3 });
        self.bytes.extend_from_slice(&[0; 8]);
    }

    fn data(&mut self, id: i64, chunks: &[&str]) {
        self.bytes.push(1);
        self.int(id);
        for chunk in chunks {
            self.text(Some(chunk));
        }
        self.int(0);
    }

    fn blobs(&mut self, id: i64) {
        self.bytes.push(3);
        self.int(id);
        for oid in [16400, 16401] {
            self.int(oid);
            self.text(Some("blob"));
            self.int(0);
        }
        self.int(0);
    }
}

fn sample(version: u8) -> (Vec<u8>, usize) {
    let mut writer = Writer::new(version, 4);
    writer.entry(3, "TABLE", "cards", false);
    writer.entry(9, "TABLE DATA", "cards", true);
    writer.entry(10, "TABLE DATA", "empty", true);
    writer.entry(11, "BLOBS", "BLOBS", true);
    let data = writer.bytes.len();
    writer.data(9, &["1\tone\n", "2\ttwo\n", "\\.\n\n\n"]);
    writer.data(10, &[]);
    writer.blobs(11);
    (writer.bytes, data)
}

fn parse(bytes: &[u8], step: usize) -> Result<Contents, BadArchive> {
    let mut archive = Archive::new();
    for chunk in bytes.chunks(step) {
        archive.feed(chunk)?;
    }
    archive.finish()
}

#[test]
fn every_version_is_read_in_pieces_of_any_size() {
    for version in 12..=16 {
        let (bytes, _) = sample(version);
        let whole = parse(&bytes, bytes.len()).unwrap();
        assert_eq!(whole.head.database, "app");
        assert_eq!(whole.head.version, (1, version));
        assert_eq!(whole.entries.len(), 4);
        assert_eq!(whole.entries[1].describe(), "TABLE DATA `public.cards`");
        assert_eq!(whole.entries[1].owner, "owner");
        for step in [1, 2, 3, 7, 64] {
            assert_eq!(parse(&bytes, step).as_ref(), Ok(&whole), "step {step}");
        }
    }
}

#[test]
fn contents_are_known_before_the_data() {
    let (bytes, data) = sample(16);
    let mut archive = Archive::new();
    archive.feed(&bytes[..data - 1]).unwrap();
    assert!(archive.contents().is_none());
    archive.feed(&bytes[data - 1..data]).unwrap();
    assert_eq!(archive.contents().unwrap().entries.len(), 4);
}

#[test]
fn a_cut_at_any_byte_is_noticed() {
    let (bytes, _) = sample(16);
    for length in 0..bytes.len() {
        let result = parse(&bytes[..length], 16);
        assert!(
            matches!(result, Err(BadArchive::Empty | BadArchive::Cut { .. } | BadArchive::Missing { .. })),
            "cut at {length}: {result:?}"
        );
    }
}

#[test]
fn a_cut_between_blocks_names_what_is_missing() {
    let mut writer = Writer::new(14, 2);
    writer.entry(1, "TABLE DATA", "a", true);
    writer.entry(2, "TABLE DATA", "b", true);
    writer.data(1, &["x"]);
    assert_eq!(
        parse(&writer.bytes, 99).unwrap_err().to_string(),
        "the data of 1 entries is missing, first of TABLE DATA `public.b`"
    );
}

#[test]
fn foreign_bytes_and_versions_are_told() {
    assert_eq!(parse(b"-- PostgreSQL dump", 9), Err(BadArchive::Magic));
    assert_eq!(parse(b"PGDMP\x01\x11\x00\x04\x08\x01", 99), Err(BadArchive::Version(1, 17)));
    let (mut bytes, _) = sample(16);
    bytes.extend_from_slice(b"\x01garbage");
    assert!(matches!(parse(&bytes, 64), Err(BadArchive::Malformed { .. })));
}

proptest! {
    #[test]
    fn mangled_archives_never_panic(
        version in 12_u8..=16,
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        step in 1_usize..40,
    ) {
        let (mut bytes, _) = sample(version);
        for (place, value) in places {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        let length = cut.index(bytes.len() + 1);
        let _ = parse(&bytes[..length], step);
    }

    #[test]
    fn pieces_make_no_difference(
        mangle in any::<prop::sample::Index>(),
        value in any::<u8>(),
        step in 1_usize..40,
    ) {
        let (mut bytes, _) = sample(15);
        let at = mangle.index(bytes.len());
        bytes[at] = value;
        let whole = parse(&bytes, bytes.len());
        let pieces = parse(&bytes, step);
        prop_assert_eq!(whole.is_ok(), pieces.is_ok());
        if whole.is_ok() {
            prop_assert_eq!(whole, pieces);
        }
    }
}
