//! The client against a server made of recorded messages, whole and mangled: it answers or says
//! an error, and never hangs, panics or takes a damaged end for a good one.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use rekindle_core::{Cancel, Result, codes};

use super::{BaseCommand, BaseItem, Checkpoint, Replication, ReplicationOptions, WalMessage};
use crate::postgres::url::ServerUrl;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn description(columns: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for column in columns {
        body.extend_from_slice(column.as_bytes());
        body.extend_from_slice(&[0; 19]);
    }
    message(b'T', &body)
}

fn row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        match value {
            None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
            Some(text) => {
                body.extend_from_slice(&i32::try_from(text.len()).unwrap().to_be_bytes());
                body.extend_from_slice(text.as_bytes());
            }
        }
    }
    message(b'D', &body)
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn complete() -> Vec<u8> {
    message(b'C', b"SELECT\0")
}

/// The answer to the startup message, and to `SHOW server_version_num`.
fn login(version: &str) -> Vec<u8> {
    [
        message(b'R', &[0; 4]),
        message(b'S', b"server_version\x0015.18\0"),
        message(b'K', &[0; 8]),
        ready(),
        description(&["server_version_num"]),
        row(&[Some(version)]),
        complete(),
        ready(),
    ]
    .concat()
}

/// A base backup as 15 and newer send it, with damage at its end or without.
fn backup(damaged: bool) -> Vec<u8> {
    let piece = |kind: u8, body: &[u8]| message(b'd', &[&[kind][..], body].concat());
    let error = if damaged { message(b'E', b"SERROR\0VERROR\0CXX001\0Mchecksum\0\0") } else { complete() };
    [
        description(&["recptr", "tli"]),
        row(&[Some("0/2000028"), Some("1")]),
        complete(),
        description(&["spcoid", "spclocation", "size"]),
        row(&[None, None, Some("4")]),
        complete(),
        message(b'H', &[0, 0, 0]),
        piece(b'n', b"base.tar\0\0"),
        piece(b'd', b"tar bytes"),
        piece(b'p', &[0; 8]),
        message(b'N', b"SWARNING\0VWARNING\0C01000\0Mpage 7\0\0"),
        piece(b'm', b""),
        piece(b'd', b"manifest"),
        message(b'c', b""),
        description(&["recptr", "tli"]),
        row(&[Some("0/2000100"), Some("1")]),
        complete(),
        error,
        ready(),
    ]
    .concat()
}

fn stream() -> Vec<u8> {
    let data = |at: u64, bytes: &[u8]| {
        message(b'd', &[b"w".as_slice(), &at.to_be_bytes(), &at.to_be_bytes(), &[0; 8], bytes].concat())
    };
    [
        message(b'W', &[0, 0, 0]),
        data(0x100_0000, b"abc"),
        message(b'd', &[b"k".as_slice(), &[0; 16], &[1]].concat()),
        data(0x100_0003, b"def"),
        message(b'c', b""),
        description(&["next_tli", "next_tli_startpos"]),
        row(&[Some("2"), Some("0/1000006")]),
        complete(),
        ready(),
    ]
    .concat()
}

/// A client of a server that says this, whatever it hears, and then hangs up.
fn served<T>(bytes: Vec<u8>, talk: impl FnOnce(Replication) -> Result<T>) -> Result<T> {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join(".s.PGSQL.5432")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let _ = client.write_all(&bytes);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let _ = client.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = client.read_to_end(&mut Vec::new());
    });
    let result = client(directory.path()).and_then(talk);
    // The talk has ended, so the client is gone and the server sees the end.
    server.join().unwrap();
    result
}

fn client(directory: &Path) -> Result<Replication> {
    let url = format!("postgres://u@/d?host={}", directory.display());
    let (url, _) = ServerUrl::parse(&url).unwrap();
    let options = ReplicationOptions { idle_timeout: Duration::from_secs(2), ..ReplicationOptions::new(url, None) };
    Replication::connect(&options, &Cancel::new())
}

/// Archive, manifest, and how many warnings came with a damaged backup.
fn take(session: Replication) -> Result<(Vec<u8>, Vec<u8>, Option<usize>)> {
    let command = BaseCommand {
        label: "l".to_owned(),
        checkpoint: Checkpoint::Fast,
        wal: true,
        incremental: false,
        max_rate: None,
    };
    let mut stream = session.base_backup(&command)?;
    let (mut archive, mut manifest, mut second) = (Vec::new(), Vec::new(), false);
    while let Some(item) = stream.item()? {
        match item {
            BaseItem::Archive(_) => second = false,
            BaseItem::Manifest => second = true,
            BaseItem::Data(bytes) if second => manifest.extend_from_slice(bytes),
            BaseItem::Data(bytes) => archive.extend_from_slice(bytes),
        }
    }
    let (end, _) = stream.finish()?;
    Ok((archive, manifest, end.damage.map(|_| end.warnings.len())))
}

fn receive(session: Replication) -> Result<(Vec<u8>, u32)> {
    let started = session.start_physical(None, rekindle_core::wal::Lsn(0x100_0000), rekindle_core::wal::Timeline(1))?;
    let super::Started::Stream(mut stream) = started else { return Ok((Vec::new(), 0)) };
    let mut all = Vec::new();
    loop {
        match stream.next(Duration::from_secs(2))? {
            Some(WalMessage::Data { bytes, .. }) => all.extend_from_slice(bytes),
            Some(WalMessage::KeepAlive { .. }) => {}
            Some(WalMessage::TimelineEnd(end)) => return Ok((all, end.next.0)),
            None => return Err(rekindle_core::Fault::new(codes::PG_PROTOCOL, "silence")),
        }
    }
}

#[test]
fn a_late_error_about_damaged_pages_is_not_lost() {
    for damaged in [false, true] {
        let whole = [login("150018"), backup(damaged)].concat();
        let (archive, manifest, warnings) = served(whole, take).unwrap();
        assert_eq!((archive, manifest), (b"tar bytes".to_vec(), b"manifest".to_vec()));
        assert_eq!(warnings.is_some_and(|count| count > 0), damaged, "{warnings:?}");
    }
}

#[test]
fn a_timeline_ends_with_the_next_one() {
    assert_eq!(served([login("150018"), stream()].concat(), receive).unwrap(), (b"abcdef".to_vec(), 2));
}

#[test]
fn what_is_cut_short_is_an_error() {
    let whole = [login("150018"), backup(false)].concat();
    for cut in (0..whole.len()).step_by(7) {
        assert!(served(whole[..cut].to_vec(), take).is_err(), "{cut}");
    }
    let whole = [login("150018"), stream()].concat();
    for cut in (0..whole.len()).step_by(7) {
        assert!(served(whole[..cut].to_vec(), receive).is_err(), "{cut}");
    }
}

#[test]
fn an_old_server_is_refused() {
    assert!(served(login("120022"), |_| Ok(())).unwrap_err().is(codes::PG_VERSION));
}

#[test]
fn a_scram_login_without_the_servers_proof_is_refused() {
    // `AuthenticationSASL`, then `AuthenticationOk` without a word in between.
    let mut script = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    script.extend(login("150018"));
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join(".s.PGSQL.5432")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut client, _): (UnixStream, _) = listener.accept().unwrap();
        let _ = client.write_all(&script);
        let _ = client.read_to_end(&mut Vec::new());
    });
    let url = format!("postgres://u:p@/d?host={}", directory.path().display());
    let (url, password) = ServerUrl::parse(&url).unwrap();
    let fault = Replication::connect(&ReplicationOptions::new(url, password), &Cancel::new()).unwrap_err();
    assert!(fault.is(codes::PG_AUTH), "{fault:?}");
    server.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn mangled_streams_end(
        at in 0_usize..2000, flip in 1_u8.., insert in proptest::collection::vec(any::<u8>(), 0..6), wal: bool
    ) {
        let mut whole = [login("150018"), if wal { stream() } else { backup(true) }].concat();
        let at = at % whole.len();
        whole[at] ^= flip;
        whole.splice(at..at, insert);
        if wal {
            let _ = served(whole, receive);
        } else {
            let _ = served(whole, take);
        }
    }
}
