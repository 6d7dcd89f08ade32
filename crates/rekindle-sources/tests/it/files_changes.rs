//! Files that do not hold still: they vanish, grow, shrink, change, or become something else
//! between the listing, the opening and the last byte.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rekindle_core::codes;
use rekindle_core::entry::{Closing, Content, ContentSource, ReadFault};
use rekindle_core::note::{NoteClass, Notes};
use rekindle_core::port::Capture;
use rekindle_sources::files::{FilesOptions, Policy};
use rustix::fs::{CWD, FileType, Mode};

use crate::files_support::{begin, component, drain, options, wait};

/// A capture that has listed one file and not opened it yet.
struct Listed {
    capture: Box<dyn Capture>,
    source: Box<dyn ContentSource>,
    rest: rekindle_core::entry::Entries,
}

impl Listed {
    fn of(asked: FilesOptions, name: &str) -> Self {
        let mut capture = begin(&component(asked)).unwrap();
        let mut rest = capture.entries();
        let source = loop {
            let entry = rest.next().expect("the file is listed").unwrap();
            if entry.path.name() != name.as_bytes() {
                continue;
            }
            match entry.content {
                Content::File(source) => break source,
                other => panic!("{other:?}"),
            }
        };
        Self { capture, source, rest }
    }

    fn end(mut self) -> Notes {
        assert!(self.rest.all(|entry| entry.is_ok()));
        wait(self.capture.finish()).unwrap().notes().clone()
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn what_is_gone_or_replaced_at_the_opening_is_left_out_and_noted() {
    type Change = fn(&Path);
    let changes: &[(&str, Change)] = &[
        ("gone", |path| fs::remove_file(path).unwrap()),
        ("link", |path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        }),
        ("fifo", |path| {
            fs::remove_file(path).unwrap();
            rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        }),
        ("socket", |path| {
            fs::remove_file(path).unwrap();
            drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        }),
        ("directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    for (name, change) in changes {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x");
        fs::write(&path, "content").unwrap();
        let mut listed = Listed::of(options(&[place.path()]), "x");
        change(&path);
        let opened = listed.source.open();
        assert!(matches!(opened, Err(ReadFault::Skip)), "{name}");
        let notes = listed.end();
        assert_eq!(notes.count(NoteClass::Vanished), 1, "{name}");
        assert!(!notes.make_partial(), "{name}");
    }
}

#[test]
fn a_file_replaced_by_another_file_is_taken_with_its_own_attributes() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x");
    fs::write(&path, "old").unwrap();
    let mut listed = Listed::of(options(&[place.path()]), "x");
    fs::write(place.path().join("y"), "newer").unwrap();
    crate::files_support::set_mode(&place.path().join("y"), 0o640);
    fs::rename(place.path().join("y"), &path).unwrap();
    let (bytes, .., closing) = drain(listed.source.open().ok().unwrap()).unwrap();
    let Closing::Keep(meta) = closing else { panic!("{closing:?}") };
    assert_eq!((bytes.as_slice(), meta.mode, meta.size), (b"newer".as_slice(), 0o640, 5));
}

#[test]
fn a_change_while_reading_is_read_again_and_then_noted() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x");
    fs::write(&path, "start").unwrap();
    let mut listed = Listed::of(options(&[place.path()]), "x");
    let mut try_once = |change: bool| {
        let reader = listed.source.open().ok().unwrap();
        if change {
            append(&path, "+");
        }
        drain(reader).unwrap()
    };
    assert!(matches!(try_once(true), (.., Closing::Retry)));
    assert!(matches!(try_once(true), (.., Closing::Retry)));
    // Growing a third time: what was there at the opening is kept, and no more.
    let (bytes, .., closing) = try_once(true);
    let Closing::Keep(meta) = closing else { panic!("{closing:?}") };
    assert_eq!(bytes, b"start++");
    let now = path.metadata().unwrap();
    let changed = (meta.changed.seconds, i64::from(meta.changed.nanoseconds));
    assert_ne!(changed, (now.ctime(), now.ctime_nsec()), "the next run reads it again");
    let notes = listed.end();
    assert_eq!(notes.count(NoteClass::ChangedWhileRead), 1);
    assert!(notes.listed[0].text.contains("from 7 to 8 bytes"), "{notes:?}");
}

#[test]
fn a_file_that_calms_down_is_kept_without_a_note() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x");
    fs::write(&path, "start").unwrap();
    let mut listed = Listed::of(options(&[place.path()]), "x");
    let reader = listed.source.open().ok().unwrap();
    fs::write(&path, "other").unwrap();
    crate::files_support::set_time(&path, 5, 5);
    assert!(matches!(drain(reader).unwrap(), (.., Closing::Retry)));
    let (bytes, .., closing) = drain(listed.source.open().ok().unwrap()).unwrap();
    let Closing::Keep(meta) = closing else { panic!("{closing:?}") };
    assert_eq!((bytes.as_slice(), meta.modified.seconds), (b"other".as_slice(), 5));
    assert_eq!(listed.end().counts.len(), 0);
}

#[test]
fn a_file_cut_short_while_reading_never_passes_as_whole() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x");
    fs::write(&path, vec![7; 100_000]).unwrap();
    let mut listed = Listed::of(options(&[place.path()]), "x");
    for last in [false, false, true] {
        fs::write(&path, vec![7; 100_000]).unwrap();
        let reader = listed.source.open().ok().unwrap();
        fs::write(&path, "cut").unwrap();
        let (bytes, .., closing) = drain(reader).unwrap();
        assert_eq!(bytes, [b"cut".as_slice()].concat());
        assert_eq!(matches!(closing, Closing::Keep(_)), last);
    }
    let notes = listed.end();
    assert!(notes.listed[0].text.contains("shrank"), "{notes:?}");
}

#[test]
fn a_policy_makes_a_change_partial_or_fail() {
    for (policy, fails) in [(Policy::Partial, false), (Policy::Fail, true)] {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x");
        fs::write(&path, "start").unwrap();
        let asked = FilesOptions {
            policy: [(NoteClass::ChangedWhileRead, policy)].into_iter().collect(),
            ..options(&[place.path()])
        };
        let mut listed = Listed::of(asked, "x");
        let mut last = None;
        for _ in 0..3 {
            let reader = listed.source.open().ok().unwrap();
            append(&path, "+");
            last = Some(drain(reader));
        }
        match last.unwrap() {
            Ok(_) if !fails => assert!(listed.end().make_partial()),
            Err(fault) if fails => assert!(fault.is(codes::FILES_READ)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_unchanged_file_has_the_same_attributes_in_two_captures() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x");
    fs::write(&path, "text").unwrap();
    let read = || {
        let mut listed = Listed::of(options(&[place.path()]), "x");
        let (.., closing) = drain(listed.source.open().ok().unwrap()).unwrap();
        let Closing::Keep(meta) = closing else { panic!("{closing:?}") };
        listed.end();
        meta
    };
    // A file changed within the last tick of the kernel's clock is marked to be read again; when
    // the tick has passed it is not any more.
    let tries = 100_000;
    let settled = (0..tries).map(|_| read()).find(|meta| meta.changed == now_of(&path));
    let settled = settled.expect("the tick passes");
    assert_eq!(read(), settled);
    assert_eq!(settled.changed, now_of(&path));
    let all = FilesOptions { read_all: true, ..options(&[place.path()]) };
    let mut capture = begin(&component(all)).unwrap();
    let listed = capture.entries().map(|entry| entry.unwrap()).last().unwrap();
    assert_ne!(listed.meta.changed, settled.changed, "nothing may be taken over");
}

fn now_of(path: &Path) -> rekindle_core::entry::FileTime {
    let is = path.metadata().unwrap();
    rekindle_core::entry::FileTime { seconds: is.ctime(), nanoseconds: u32::try_from(is.ctime_nsec()).unwrap() }
}
