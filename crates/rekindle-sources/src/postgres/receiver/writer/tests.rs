use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rekindle_core::wal::{Cluster, Gap, SegmentNumber, SegmentSize, SystemId, Timeline};
use rekindle_testkit::MemoryLog;

use super::super::ReceiverOptions;
use super::*;
use crate::postgres::ServerUrl;
use crate::postgres::replication::ReplicationOptions;

const SEGMENT: usize = 1 << 20;
const PIECE: usize = 32 << 10;
const FIRST: u64 = 5;

struct Nobody;

impl Listener for Nobody {
    fn streaming(&self, _: Timeline, _: Lsn) {}
    fn durable(&self, _: Lsn) {}
    fn gap(&self, _: &Gap) {}
    fn problem(&self, _: &Fault) {}
    fn warning(&self, _: &str) {}
}

fn log() -> Arc<MemoryLog> {
    let segment_size = SegmentSize::try_from(1 << 20).unwrap();
    MemoryLog::new(Cluster { system: SystemId(7), segment_size })
}

fn options(tail_every: Duration) -> ReceiverOptions {
    let (url, _) = ServerUrl::parse("postgres://nobody@127.0.0.1:1").unwrap();
    let server = ReplicationOptions::new(url, None);
    let slot = "unused".parse().unwrap();
    ReceiverOptions { tail_every, tail_bytes: 64 << 10, ..ReceiverOptions::new(server, slot) }
}

/// A writer on its own thread, and what a test does with its queue; how far everything is durable afterwards.
fn written(log: &MemoryLog, tail_every: Duration, send: impl FnOnce(SyncSender<Piece>, &AtomicU64)) -> u64 {
    let (options, durable) = (options(tail_every), AtomicU64::new(0));
    let first = SegmentName { timeline: Timeline(1), number: SegmentNumber(FIRST) };
    let writer = Writer::new(log, &options, &Nobody, &durable, first).unwrap();
    let (sender, pieces) = sync_channel(16);
    thread::scope(|scope| {
        let ran = scope.spawn(move || writer.run(&pieces));
        send(sender, &durable);
        ran.join().unwrap().unwrap();
    });
    durable.load(Ordering::Acquire) - FIRST * SEGMENT as u64
}

/// The piece at an offset from the first segment, from a server whose WAL reaches to another.
fn piece(at: usize, length: usize, server: usize) -> Piece {
    let bytes = (at..at + length).map(|byte| u8::try_from(byte / 7 % 251).unwrap()).collect();
    Piece { bytes, server_end: Lsn(FIRST * SEGMENT as u64 + server as u64) }
}

fn send_all(sender: &SyncSender<Piece>, from: usize, to: usize, server: usize) {
    for at in (from..to).step_by(PIECE) {
        sender.send(piece(at, PIECE.min(to - at), server)).unwrap();
    }
}

#[test]
fn who_catches_up_seals_segments_and_ships_no_part_of_them() {
    let (log, every) = (log(), Duration::from_millis(500));
    // A storage that takes longer for a segment than a part may wait.
    log.slow(Duration::from_millis(600));
    let end = 4 * SEGMENT + 300_000;
    let durable = written(&log, every, |sender, _| send_all(&sender, 0, end, end));
    assert_eq!(durable, end as u64);
    assert_eq!(log.inventory().unwrap().segments.len(), 4);
    assert_eq!(log.tails_put(), (1, 300_000), "only what is left at the end");
}

#[test]
fn much_that_is_new_is_shipped_at_once_when_the_server_has_no_more() {
    let (log, never) = (log(), Duration::from_hours(1));
    written(&log, never, |sender, durable| {
        // The server has more than this: its time has not come.
        send_all(&sender, 0, 96 << 10, 200 << 10);
        thread::sleep(Duration::from_millis(300));
        assert_eq!(log.tails_put(), (0, 0));
        send_all(&sender, 96 << 10, 200 << 10, 200 << 10);
        let begun = Instant::now();
        while durable.load(Ordering::Acquire) < FIRST * SEGMENT as u64 + (200 << 10) {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is not shipped");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(log.tails_put(), (1, 200 << 10));
    });
}

#[test]
fn what_waits_for_the_rest_of_its_segment_is_shipped_when_its_time_has_come() {
    let (log, every) = (log(), Duration::from_millis(300));
    written(&log, every, |sender, durable| {
        // The server has several segments, and the link stands still in the middle of the first.
        let begun = Instant::now();
        send_all(&sender, 0, 256 << 10, 9 * SEGMENT);
        while durable.load(Ordering::Acquire) < FIRST * SEGMENT as u64 + (256 << 10) {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is not shipped");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(begun.elapsed() >= every, "earlier than its time");
        assert_eq!(log.tails_put(), (1, 256 << 10));
    });
}

#[test]
fn a_queue_that_never_is_empty_does_not_put_the_time_off() {
    let log = log();
    let count = 20;
    // Everything is due at once: each piece is shipped, however many wait behind it.
    let durable = written(&log, Duration::ZERO, |sender, _| send_all(&sender, 0, count * PIECE, 9 * SEGMENT));
    assert_eq!(durable, (count * PIECE) as u64);
    // Two at most are taken together.
    assert!(log.tails_put().0 >= count as u64 / 2, "{:?}", log.tails_put());
}
