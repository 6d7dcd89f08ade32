//! Walking streams that are built here by the format's rules. Vectors of real servers stand in
//! the integration tests.

use proptest::prelude::*;
use rekindle_core::{Result, codes};

use super::crc64::Crc64;
use super::record::{Keep, Record, Visitor};
use super::summary::{Counter, RdbSummary, summarize};
use super::walk::Walker;
use rekindle_core::Cancel;

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.push(0xff);
    let mut crc = Crc64::default();
    crc.update(&bytes);
    bytes.extend_from_slice(&crc.value().to_le_bytes());
    bytes
}

/// Two databases, a string that expires, an old sorted set, a stream with a group, a module value,
/// a function, every kind of opcode.
fn sample() -> Vec<u8> {
    let mut bytes = b"REDIS0012".to_vec();
    bytes.extend(b"\xfa\x09redis-ver\x057.4.0\xfa\x05ctime\xc2\x15\xcd\x5b\x07");
    bytes.extend(b"\xf5\x10#!lua name=mylib");
    bytes.extend(b"\xf7\x81\0\0\0\0\0\0\x04\x01\x02\x02\x05\x03abc\x00");
    bytes.extend(b"\xfe\x00\xfb\x03\x01\xf4\x01\x02\x03");
    bytes.extend(b"\xfc\x10\x27\0\0\0\0\0\0\xf8\x05\x00\x03key\xc0\x07");
    bytes.extend(b"\xf9\x05\x03\x04zset\x02\x01a\x031.5\x01b\xfe");
    bytes.extend(b"\x07\x03mod\x81\0\0\0\0\0\0\x04\x01\x01\x05\x04\0\0\0\0\0\0\0\0\x03\0\0\0\0\x00");
    bytes.extend(b"\xfe\x02\x15\x06stream\x01\x10");
    bytes.extend([7; 16]);
    bytes.extend(b"\x02lp\x01\x01\x00\x01\x00\x00\x00\x01\x01\x05group\x01\x00\x01\x01");
    bytes.extend([8; 24]);
    bytes.extend(b"\x01\x01\x08consumer");
    bytes.extend([9; 16]);
    bytes.push(1);
    bytes.extend([8; 16]);
    bytes.extend(b"\x18\x01h\0\0\0\0\0\0\0\0\x01\x05\x01f\x01v");
    sealed(bytes)
}

fn count(bytes: &[u8]) -> Result<RdbSummary> {
    summarize(&mut &bytes[..], 20_000, &Cancel::new())
}

#[test]
fn every_record_is_counted_where_it_belongs() {
    let summary = count(&sample()).unwrap();
    assert_eq!((summary.magic.as_str(), summary.version), ("REDIS", 12));
    assert_eq!(summary.bytes, sample().len() as u64);
    assert_eq!(summary.aux["redis-ver"], "7.4.0");
    assert_eq!(summary.aux["ctime"], "123456789");
    assert_eq!(summary.functions, 1);
    assert_eq!(summary.modules.len(), 1);
    let databases: Vec<_> = summary.databases.iter().collect();
    assert_eq!(databases.len(), 2);
    assert_eq!((databases[0].1.keys, databases[0].1.expires, databases[0].1.expired), (3, 1, 1));
    assert_eq!((*databases[1].0, databases[1].1.keys, databases[1].1.expires), (2, 2, 0));
    for (name, keys) in [("string", 1), ("zset", 1), ("module", 1), ("stream", 1), ("hash", 1)] {
        assert_eq!(summary.types[name], keys, "{name}");
    }
}

#[test]
fn every_cut_is_an_error_and_no_cut_is_taken_for_the_end() {
    let whole = sample();
    for length in 0..whole.len() {
        let fault = count(&whole[..length]).unwrap_err();
        assert!(fault.is(codes::REDIS_TRUNCATED), "{length}: {fault:#}");
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let whole = sample();
    for position in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[position / 8] ^= 1 << (position % 8);
        assert!(count(&bytes).is_err(), "bit {position}");
    }
}

#[test]
fn bytes_behind_the_end_are_an_error() {
    let mut bytes = sample();
    bytes.push(0);
    assert!(count(&bytes).unwrap_err().is(codes::REDIS_RDB));
}

#[test]
fn an_unknown_type_is_named_with_its_place() {
    for (bytes, named) in [
        (&b"REDIS0015\x1d\x01k\x01v"[..], "byte 10: type 29 of REDIS RDB version 15"),
        (b"REDIS0012\x16\x01k\x01v", "type 22 of REDIS"),
        (b"VALKEY081\x17\x01k\x01v", "type 23 of VALKEY RDB version 81"),
        (b"REDIS0010\x06\x01k\x01v", "type 6 of REDIS"),
    ] {
        let fault = count(&sealed(bytes.to_vec())).unwrap_err();
        assert!(fault.is(codes::REDIS_RDB));
        assert!(fault.chain().contains(named), "{fault:#}");
    }
}

#[test]
fn a_checksum_of_zero_means_that_there_is_none() {
    let mut bytes = sample();
    let end = bytes.len() - 8;
    bytes[end..].fill(0);
    assert_eq!(count(&bytes).unwrap().checksum, None);
    assert!(count(&sample()).unwrap().checksum.is_some());
}

#[test]
fn an_empty_server_is_a_whole_stream() {
    for magic in [&b"REDIS0009"[..], b"VALKEY080"] {
        let summary = count(&sealed(magic.to_vec())).unwrap();
        assert_eq!(summary.keys(), 0);
    }
    // Before version 5 there was no checksum.
    assert_eq!(count(b"REDIS0004\xff").unwrap().keys(), 0);
}

/// Database, type, name, metadata, value and expiry of a key.
type Seen = (u64, u8, Vec<u8>, Vec<u8>, Vec<u8>, Option<i64>);

/// Remembers keys.
#[derive(Default)]
struct Collect(Vec<Seen>);

impl Visitor for Collect {
    fn record(&mut self, record: Record<'_>) -> Result<()> {
        if let Record::Key(key) = record {
            let (name, meta, value) = (key.name.to_vec(), key.meta.to_vec(), key.value.to_vec());
            self.0.push((key.database, key.kind, name, meta, value, key.expires));
        }
        Ok(())
    }
}

fn collect(bytes: &[u8]) -> Vec<Seen> {
    let mut found = Collect::default();
    let mut walker = Walker::new(Keep::Everything);
    assert_eq!(walker.feed(bytes, &mut found).unwrap(), bytes.len());
    found.0
}

#[test]
fn keys_come_out_with_their_encoded_bytes() {
    let found = collect(&sample());
    assert_eq!(found[0], (0, 0, b"\x03key".to_vec(), Vec::new(), b"\xc0\x07".to_vec(), Some(10_000)));
    assert_eq!(found[1].4, b"\x02\x01a\x031.5\x01b\xfe");
    assert_eq!(found[4].4, b"\0\0\0\0\0\0\0\0\x01\x05\x01f\x01v");
}

#[test]
fn metadata_of_modules_stands_before_the_type() {
    let bytes = sealed(b"REDIS0013\xf3\x01ABCD\x02\x05\x00\x00\x01k\x01v\x00\x01l\x01w".to_vec());
    let metas: Vec<_> = collect(&bytes).into_iter().map(|key| key.3).collect();
    assert_eq!(metas, [b"\x01ABCD\x02\x05\x00".to_vec(), Vec::new()]);
}

proptest! {
    #[test]
    fn the_pieces_do_not_matter(cuts in proptest::collection::vec(1usize..40, 1..60)) {
        let bytes = sample();
        let mut counter = Counter::new(20_000);
        let mut walker = Walker::new(Keep::Counts);
        let mut at = 0;
        let mut cuts = cuts.iter().cycle();
        while at < bytes.len() {
            let next = (at + cuts.next().unwrap()).min(bytes.len());
            prop_assert_eq!(walker.feed(&bytes[at..next], &mut counter).unwrap(), next - at);
            at = next;
        }
        prop_assert_eq!(counter.finish(&walker).unwrap(), count(&bytes).unwrap());
    }

    #[test]
    fn arbitrary_bytes_end_in_an_error(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = b"REDIS0012".to_vec();
        bytes.extend(tail);
        // Only a whole stream by chance could pass: it would need its checksum.
        if let Ok(summary) = count(&bytes) {
            prop_assert_eq!(summary.bytes, bytes.len() as u64);
            prop_assert!(summary.checksum.is_some() || bytes.ends_with(&[0; 8]));
        }
    }
}
