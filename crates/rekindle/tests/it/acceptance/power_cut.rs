//! The storage of the receiver loses its power at a random moment, again and again: whatever it had acknowledged
//! is there afterwards, of everything else any part; nothing that the receiver confirmed to the server is lost.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use async_trait::async_trait;
use bytes::Bytes;
use rekindle_core::cancel::Reason;
use rekindle_core::port::Clock;
use rekindle_core::wal::{Gap, Inventory, Lsn, Owner, SegmentName, Timeline, WalArchive};
use rekindle_core::{Cancel, Fault, Result, Secret, codes};
use rekindle_repo::format::config::Config;
use rekindle_repo::format::crypto::Key;
use rekindle_repo::format::key::KeyFile;
use rekindle_repo::format::{Id, names};
use rekindle_repo::wal::Archive;
use rekindle_repo::{Repo, RepoOptions};
use rekindle_sources::postgres::ServerUrl;
use rekindle_sources::postgres::receiver::{Listener, Receiver, ReceiverOptions};
use rekindle_sources::postgres::replication::ReplicationOptions;
use rekindle_store::{Key as ObjectKey, Memory, ObjectMeta, PutMode, PutOutcome, Store};
use rekindle_testkit::Postgres;
use tokio::runtime::Runtime;

use super::wal_support::{lsn, position, server_directory, small_segments};

const PASSWORD: &str = "a password for tests only";
const SLOT: &str = "of_a_test";

/// How many times the power fails.
fn cuts() -> u64 {
    std::env::var("REKINDLE_TRIALS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// A disk with a power switch.
#[derive(Debug)]
struct Disk {
    /// What is on the platter.
    durable: Memory,
    /// What a reader sees: also what the disk has only in its memory.
    seen: Memory,
    /// Acknowledges what is not on the platter yet, as a broken one does.
    lies: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    chance: Chance,
    /// Steps until the power fails.
    left: u64,
    /// Changes that are seen and not durable; nothing: a removal.
    pending: Vec<(ObjectKey, Option<Bytes>)>,
}

#[derive(Debug)]
struct Chance(u64);

impl Chance {
    /// A number below a bound.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

impl Disk {
    fn new(seed: u64, lies: bool) -> Self {
        let state = State { chance: Chance(seed), left: u64::MAX, pending: Vec::new() };
        Self { durable: Memory::new(), seen: Memory::new(), lies, state: Mutex::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_off(&self) -> bool {
        self.state().left == 0
    }

    fn fail_after(&self, steps: u64) {
        self.state().left = steps;
    }

    /// One more step; the power may fail with it.
    fn step(&self) -> Result<()> {
        let mut state = self.state();
        state.left = state.left.saturating_sub(1);
        if state.left == 0 {
            return Err(Fault::new(codes::STORE_IO, "use the disk: the power has failed"));
        }
        Ok(())
    }

    async fn change(&self, key: &ObjectKey, content: Option<Bytes>) -> Result<()> {
        self.state().pending.push((key.clone(), content));
        if self.lies {
            return Ok(());
        }
        let takes = self.state().chance.below(4);
        tokio::time::sleep(Duration::from_millis(takes)).await;
        self.step()?;
        self.settle(key).await
    }

    /// Everything that waits for a key reaches the platter.
    async fn settle(&self, key: &ObjectKey) -> Result<()> {
        let changes = std::mem::take(&mut self.state().pending);
        let (now, later): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(other, _)| other == key);
        self.state().pending.extend(later);
        for change in now {
            apply(&self.durable, change).await?;
        }
        // The answer may be lost on its way.
        self.step()
    }

    /// The disk that is found when the power is back: of what was under way, any part.
    async fn survivor(&self, seed: u64) -> Self {
        let next = Self::new(seed, self.lies);
        let pending = std::mem::take(&mut self.state().pending);
        for change in pending {
            let kept = self.state().chance.below(2) == 0;
            if kept {
                apply(&self.durable, change).await.unwrap();
            }
        }
        for meta in self.durable.list("").await.unwrap() {
            let bytes = self.durable.get(&meta.key).await.unwrap();
            next.durable.put(&meta.key, bytes.clone(), PutMode::Overwrite).await.unwrap();
            next.seen.put(&meta.key, bytes, PutMode::Overwrite).await.unwrap();
        }
        next
    }
}

async fn apply(to: &Memory, (key, content): (ObjectKey, Option<Bytes>)) -> Result<()> {
    match content {
        Some(bytes) => to.put(&key, bytes, PutMode::Overwrite).await.map(drop),
        None => to.delete(&key).await,
    }
}

#[async_trait]
impl Store for Disk {
    async fn put(&self, key: &ObjectKey, data: Bytes, mode: PutMode) -> Result<PutOutcome> {
        self.step()?;
        let outcome = self.seen.put(key, data.clone(), mode).await?;
        self.change(key, Some(data)).await?;
        Ok(outcome)
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes> {
        self.step()?;
        self.seen.get(key).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes> {
        self.step()?;
        self.seen.get_range(key, range).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>> {
        self.step()?;
        self.seen.head(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        self.step()?;
        self.seen.list(prefix).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.step()?;
        self.seen.delete(key).await?;
        self.change(key, None).await
    }

    fn describe(&self) -> String {
        "memory:disk".to_owned()
    }
}

/// What the receiver confirmed, and what it complained of.
#[derive(Default)]
struct Told {
    durable: Mutex<Lsn>,
    gaps: Mutex<Vec<Gap>>,
    problems: Mutex<Vec<String>>,
}

impl Listener for Told {
    fn streaming(&self, _: Timeline, _: Lsn) {}

    fn durable(&self, upto: Lsn) {
        let mut known = self.durable.lock().unwrap();
        *known = upto.max(*known);
    }

    fn gap(&self, gap: &Gap) {
        self.gaps.lock().unwrap().push(gap.clone());
    }

    fn problem(&self, fault: &Fault) {
        self.problems.lock().unwrap().push(fault.chain());
    }

    fn warning(&self, _: &str) {}
}

struct World {
    runtime: Runtime,
    server: Postgres,
    told: Arc<Told>,
    owner: Owner,
    directory: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let directory = server_directory();
        let kept = directory.path().join("kept");
        fs::create_dir(&kept).unwrap();
        super::wal_support::give(&kept);
        let archive = format!("cp %p {}/%f", kept.display());
        let settings = [("archive_mode", "on"), ("archive_command", archive.as_str())];
        let server = small_segments(15, directory.path(), &settings);
        server.psql("postgres", "CREATE TABLE t (x text)");
        server.psql("postgres", &format!("SELECT pg_create_physical_replication_slot('{SLOT}', true)"));
        let owner = Owner { stack: "shop".to_owned(), component: "database".parse().unwrap() };
        Self { runtime: Runtime::new().unwrap(), server, told: Arc::default(), owner, directory }
    }

    fn repository(&self, disk: &Arc<Disk>) -> Result<Repo> {
        let options = RepoOptions { workers: 2, ..RepoOptions::default() };
        let store = Arc::<Disk>::clone(disk) as Arc<dyn Store>;
        Repo::open(store, self.runtime.handle().clone(), &Secret::new(PASSWORD.to_owned()), options)
    }

    fn init(&self, disk: &Disk) {
        let key = Key::generate().unwrap();
        let file = KeyFile::create(&key, PASSWORD, 10, "2026-01-01T00:00:00Z".to_owned()).unwrap().encode().unwrap();
        let config = Config { version: 2, id: Id::of(b"test").hex(), chunker_polynomial: "3da3358b4dc173".to_owned() };
        let sealed = key.seal(&config.encode().unwrap()).unwrap();
        for (path, bytes) in [(names::file(names::KEYS, &Id::of(&file)), file), (names::CONFIG.to_owned(), sealed)] {
            let path = ObjectKey::new(&path).unwrap();
            for half in [&disk.durable, &disk.seen] {
                self.runtime.block_on(half.put(&path, bytes.clone().into(), PutMode::IfAbsent)).unwrap();
            }
        }
    }

    fn write(&self) {
        self.server.psql("postgres", "INSERT INTO t SELECT repeat('x', 500) FROM generate_series(1, 300)");
    }

    /// Receives until `until` says so.
    fn receive(&self, disk: &Arc<Disk>, until: impl Fn() -> bool) {
        let Ok(repository) = self.repository(disk) else { return };
        let (url, password) = ServerUrl::parse(&self.server.url()).unwrap();
        let mut options = ReceiverOptions::new(ReplicationOptions::new(url, password), SLOT.parse().unwrap());
        options.tail_every = Duration::from_millis(15);
        options.tail_bytes = 64 << 10;
        options.pause_first = Duration::from_millis(40);
        let receiver = Receiver {
            options,
            archive: Arc::new(Archive::new(&repository, Arc::new(RealClock))),
            owner: self.owner.clone(),
            listener: Arc::<Told>::clone(&self.told) as _,
            clock: Arc::new(RealClock),
        };
        let cancel = Cancel::new();
        thread::scope(|scope| {
            let ran = scope.spawn(|| receiver.run(&cancel));
            let begun = Instant::now();
            while !until() {
                let told = self.told.problems.lock().unwrap().clone();
                assert!(begun.elapsed() < Duration::from_mins(1), "{told:?}");
                if ran.is_finished() {
                    break;
                }
                self.write();
            }
            cancel.cancel(Reason::Terminated);
            let ended = ran.join().unwrap();
            assert!(ended.is_ok() || disk.is_off(), "{ended:?}");
        });
    }

    /// What is left of the log; nothing when there is none yet.
    fn log(&self, disk: &Arc<Disk>) -> Option<(Inventory, Arc<dyn rekindle_core::wal::WalLog>)> {
        let archive = Archive::new(&self.repository(disk).unwrap(), Arc::new(RealClock));
        let log = archive.log(archive.bound(&self.owner).unwrap()?).unwrap();
        Some((log.inventory().unwrap(), log))
    }
}

/// How far the log reaches from its start without a hole. Every piece that counts is opened.
fn reach(inventory: &Inventory, log: &dyn rekindle_core::wal::WalLog) -> u64 {
    let size = inventory.cluster.segment_size;
    let runs = rekindle_core::wal::lineage::runs(inventory);
    assert!(runs.len() <= 1, "a hole: {runs:?}");
    let sealed = runs.first().map(|run| run.last.end(size).0);
    let open = inventory.tails.keys().filter_map(|segment| {
        let start = segment.number.start(size).0;
        let bytes = log.tail(*segment).unwrap()?.bytes.len() as u64;
        (sealed.is_none() || sealed == Some(start)).then_some(start + bytes)
    });
    open.max().or(sealed).unwrap_or(0)
}

/// Bytes of the furthest confirmed position that one cut has lost; nothing on a disk that keeps its word.
fn lost(world: &World, disk: &Arc<Disk>) -> u64 {
    let confirmed = world.told.durable.lock().unwrap().0;
    let kept = world.log(disk).map_or(0, |(inventory, log)| reach(&inventory, &*log));
    confirmed.saturating_sub(kept)
}

#[test]
fn nothing_that_was_confirmed_is_lost_when_the_power_fails() {
    let world = World::start();
    let begun = position(&world.server);
    let mut disk = Arc::new(Disk::new(1, false));
    world.init(&disk);
    let mut chance = Chance(20_261_125);
    for cut in 0..cuts() {
        disk.fail_after(2 + chance.below(90));
        world.receive(&disk, || disk.is_off());
        disk = Arc::new(world.runtime.block_on(disk.survivor(cut + 2)));
        let bytes = lost(&world, &disk);
        assert_eq!(bytes, 0, "cut {cut}: confirmed and lost");
        let query = format!("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '{SLOT}'");
        let slot = lsn(world.server.psql("postgres", &query).trim());
        let kept = world.log(&disk).map_or(begun, |(inventory, log)| reach(&inventory, &*log).max(begun));
        assert!(slot <= kept, "cut {cut}: the server may drop what is before {slot:X}, {kept:X} is kept");
    }
    // With the power on it goes on to the end, and every segment is the server's own.
    let end = lsn(world.server.psql("postgres", "SELECT pg_switch_wal()").trim());
    world.receive(&disk, || world.told.durable.lock().unwrap().0 >= end);
    let (inventory, log) = world.log(&disk).unwrap();
    assert!(reach(&inventory, &*log) >= end);
    assert!(world.told.gaps.lock().unwrap().is_empty() && inventory.gaps.is_empty());
    let compared = compare(&world, &inventory, &*log);
    assert!(compared >= 5, "{compared} segments compared");
    println!("{} cuts, {} segments, {compared} compared", cuts(), inventory.segments.len());
}

/// With what the server archived itself.
fn compare(world: &World, inventory: &Inventory, log: &dyn rekindle_core::wal::WalLog) -> usize {
    let size = inventory.cluster.segment_size;
    let kept = |segment: &&SegmentName| {
        let bytes = fs::read(world.directory.path().join("kept").join(segment.file(size))).ok()?;
        (bytes.len() == size.bytes() as usize).then_some((**segment, bytes))
    };
    let there: Vec<_> = inventory.segments.keys().collect();
    let both: Vec<(SegmentName, Vec<u8>)> = there.iter().filter_map(kept).collect();
    for (segment, bytes) in &both {
        assert!(log.segment(*segment).unwrap().as_ref() == Some(bytes), "{}", segment.file(size));
    }
    both.len()
}

/// The test above can fail: a disk that acknowledges before it has written is found out.
#[test]
fn a_disk_that_lies_is_found_out() {
    let world = World::start();
    let mut disk = Arc::new(Disk::new(1, true));
    world.init(&disk);
    let mut chance = Chance(7);
    for cut in 0..60 {
        disk.fail_after(20 + chance.below(60));
        world.receive(&disk, || disk.is_off());
        disk = Arc::new(world.runtime.block_on(disk.survivor(cut + 2)));
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lost(&world, &disk)));
        if found.is_err() || found.is_ok_and(|bytes| bytes > 0) {
            return;
        }
    }
    panic!("nothing was lost, although nothing was written");
}
