use std::time::Duration;

use rekindle_core::cancel::Reason;
use rekindle_core::codes::{PG_DUMP, RUN_INTERRUPTED};
use rekindle_core::entry::{ContentRead, EntryKind, Meta};
use rekindle_core::{Cancel, Fault, Secret};

use super::{ChildRead, ChildSpec, Ended, Judge, Stop, feed, output};

fn shell(script: &str) -> ChildSpec {
    ChildSpec {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        idle_max: Duration::from_mins(1),
        what: "run a test".into(),
        code: PG_DUMP,
        secrets: vec![Secret::new("canary-7".to_owned())],
        inside: None,
    }
}

fn judge() -> Judge {
    Box::new(|ended: &Ended| Fault::new(PG_DUMP, "run a test").because(ended.describe()))
}

fn run(script: &str) -> rekindle_core::Result<Vec<u8>> {
    output(shell(script), Stop::default(), 1 << 20, judge())
}

#[test]
fn a_good_end_gives_every_byte() {
    assert_eq!(run("printf abc; printf noise >&2").unwrap(), b"abc");
}

#[test]
fn a_bad_exit_after_the_last_byte_is_an_error() {
    let fault = run("printf abc; echo 'disk on fire' >&2; exit 3").unwrap_err();
    assert_eq!(fault.chain(), "run a test: it ended with exit status: 3: disk on fire");
}

#[test]
fn a_killed_child_is_an_error() {
    let fault = run("printf abc; kill -9 $$").unwrap_err();
    assert!(fault.chain().contains("signal: 9"), "{fault:?}");
}

#[test]
fn diagnostics_are_bounded_and_without_secrets() {
    let fault = run("i=0; while [ $i -lt 9000 ]; do echo line $i canary-7 >&2; i=$((i+1)); done; exit 1").unwrap_err();
    let text = fault.chain();
    assert!(text.contains("line 8999 [secret]"), "{text}");
    assert!(!text.contains("canary-7"));
    assert!(text.len() < super::STDERR_TAIL_MAX);
}

#[test]
fn the_environment_is_only_what_was_given() {
    let seen = String::from_utf8(run("env").unwrap()).unwrap();
    assert!(!seen.contains("CARGO"), "{seen}");
}

#[test]
fn a_silent_child_meets_the_idle_limit_and_its_group_dies() {
    let mut spec = shell("echo $$; sleep 300 & wait");
    spec.idle_max = Duration::from_millis(300);
    let mut read =
        ChildRead::start(spec, Stop::default(), Meta::synthetic(EntryKind::File, jiff::Timestamp::UNIX_EPOCH), judge())
            .unwrap();
    let mut buffer = [0; 64];
    let given = read.read_some(&mut buffer).unwrap();
    let group: i32 = String::from_utf8_lossy(&buffer[..given]).trim().parse().unwrap();
    let fault = read.read_some(&mut buffer).unwrap_err();
    assert!(fault.chain().contains("idle limit"), "{fault:?}");
    let group = rustix::process::Pid::from_raw(group).unwrap();
    assert!(rustix::process::test_kill_process(group).is_err());
}

#[test]
fn cancel_ends_a_waiting_reader() {
    let cancel = Cancel::new();
    let mut read = ChildRead::start(
        shell("sleep 300"),
        Stop::new(cancel.clone()),
        Meta::synthetic(EntryKind::File, jiff::Timestamp::UNIX_EPOCH),
        judge(),
    )
    .unwrap();
    let waiter = std::thread::spawn(move || read.read_some(&mut [0; 8]).unwrap_err());
    cancel.cancel(Reason::Interrupted);
    assert!(waiter.join().unwrap().is(RUN_INTERRUPTED));
}

#[test]
fn output_that_was_not_read_to_its_end_is_no_success() {
    let read = Box::new(
        ChildRead::start(
            shell("printf abc"),
            Stop::default(),
            Meta::synthetic(EntryKind::File, jiff::Timestamp::UNIX_EPOCH),
            judge(),
        )
        .unwrap(),
    );
    assert!(read.close().is_err());
}

struct Bytes(std::io::Cursor<Vec<u8>>, bool);

impl ContentRead for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, rekindle_core::entry::ReadFault> {
        let given = std::io::Read::read(&mut self.0, buffer).unwrap();
        if given == 0 && self.1 {
            return Err(Fault::new(PG_DUMP, "damaged").into());
        }
        Ok(given)
    }

    fn close(self: Box<Self>) -> rekindle_core::Result<rekindle_core::entry::Closing> {
        Ok(rekindle_core::entry::Closing::Keep(Box::new(Meta::synthetic(EntryKind::File, jiff::Timestamp::UNIX_EPOCH))))
    }
}

fn fed(script: &str, damaged: bool) -> rekindle_core::Result<u64> {
    let bytes = Bytes(std::io::Cursor::new(vec![b'x'; 3_000_000]), damaged);
    let patience = Duration::from_mins(1);
    feed(shell(script), Stop::default(), Some(Box::new(bytes)), patience, &judge())
}

#[test]
fn a_child_is_fed_to_the_end_and_its_exit_counts() {
    assert_eq!(fed("test $(wc -c) -eq 3000000", false).unwrap(), 3_000_000);
    assert!(fed("cat >/dev/null; exit 4", false).is_err());
    let early = fed("echo no thanks >&2; exit 5", false).unwrap_err();
    assert!(early.chain().contains("no thanks"), "{early:?}");
}

#[test]
fn damaged_content_kills_the_child_that_takes_it() {
    let fault = fed("cat >/dev/null; exit 0", true).unwrap_err();
    assert_eq!(fault.chain(), "damaged");
}
