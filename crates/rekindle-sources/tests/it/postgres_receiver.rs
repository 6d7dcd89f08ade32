//! The receiver against a real server and a log in memory: what is stored, and how often.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rekindle_core::cancel::Reason;
use rekindle_core::port::Clock;
use rekindle_core::wal::{Gap, Lsn, Owner, SegmentNumber, SegmentSize, Timeline, WalLog};
use rekindle_core::{Cancel, Fault};
use rekindle_sources::postgres::ServerUrl;
use rekindle_sources::postgres::receiver::{Listener, Receiver, ReceiverOptions};
use rekindle_sources::postgres::replication::ReplicationOptions;
use rekindle_testkit::{MemoryArchive, Postgres, PostgresOptions as ServerOptions};

const LONGEST: Duration = Duration::from_mins(1);
const SLOT: &str = "of_a_test";

struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// What the receiver said.
#[derive(Default)]
struct Told {
    durable: Mutex<Lsn>,
    problems: Mutex<Vec<String>>,
}

impl Listener for Told {
    fn streaming(&self, _: Timeline, _: Lsn) {}

    fn durable(&self, upto: Lsn) {
        *self.durable.lock().unwrap() = upto;
    }

    fn gap(&self, gap: &Gap) {
        self.problems.lock().unwrap().push(format!("a gap: {gap:?}"));
    }

    fn problem(&self, fault: &Fault) {
        self.problems.lock().unwrap().push(format!("{fault:#}"));
    }

    fn warning(&self, _: &str) {}
}

impl Told {
    fn wait_for(&self, position: Lsn) {
        let begun = Instant::now();
        while *self.durable.lock().unwrap() < position {
            assert!(begun.elapsed() < LONGEST, "{:?}", self.problems.lock().unwrap());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

struct World {
    server: Postgres,
    archive: Arc<MemoryArchive>,
    told: Arc<Told>,
}

impl World {
    fn start() -> Self {
        let server = Postgres::start(ServerOptions::default());
        server.psql("postgres", "CREATE TABLE t (x text)");
        server.psql("postgres", &format!("SELECT pg_create_physical_replication_slot('{SLOT}', true)"));
        Self { server, archive: Arc::default(), told: Arc::default() }
    }

    fn write(&self, mebibytes: u32) {
        let rows = mebibytes * 1900;
        self.server.psql("postgres", &format!("INSERT INTO t SELECT repeat('x', 500) FROM generate_series(1, {rows})"));
    }

    fn position(&self) -> Lsn {
        self.server.psql("postgres", "SELECT pg_current_wal_flush_lsn()").trim().parse().unwrap()
    }

    /// Receives while something is done.
    fn receiving(&self, during: impl FnOnce()) {
        let (url, password) = ServerUrl::parse(&self.server.url()).unwrap();
        let receiver = Receiver {
            options: ReceiverOptions::new(ReplicationOptions::new(url, password), SLOT.parse().unwrap()),
            archive: Arc::<MemoryArchive>::clone(&self.archive) as _,
            owner: Owner { stack: "shop".to_owned(), component: "database".parse().unwrap() },
            listener: Arc::<Told>::clone(&self.told) as _,
            clock: Arc::new(RealClock),
        };
        let cancel = Cancel::new();
        thread::scope(|scope| {
            let ran = scope.spawn(|| receiver.run(&cancel));
            during();
            cancel.cancel(Reason::Terminated);
            ran.join().unwrap().unwrap();
        });
    }
}

/// Everything that was written is uploaded once, not first as parts and then again as a segment.
#[test]
fn a_receiver_that_catches_up_uploads_each_segment_once() {
    let world = World::start();
    let first = SegmentNumber::of(world.position(), SegmentSize::DEFAULT);
    world.write(8 * 16);
    let end = world.position();
    let last = SegmentNumber::of(end, SegmentSize::DEFAULT);
    let count = last.0 - first.0;
    assert!(count >= 8, "{count} segments are to be caught up");
    world.receiving(|| world.told.wait_for(end));
    let log = world.archive.only().unwrap();
    let sealed = log.inventory().unwrap().segments.len() as u64;
    let (parts, bytes) = log.tails_put();
    println!("caught up {count} segments: {sealed} sealed, {parts} parts of {bytes} bytes");
    assert!(sealed >= count, "{sealed} of {count} sealed");
    // The end of the last segment, and whatever a stalled machine held up for a second.
    assert!(parts <= 3, "{parts} parts of {bytes} bytes for {count} segments");
    assert!(world.told.problems.lock().unwrap().is_empty());
}
