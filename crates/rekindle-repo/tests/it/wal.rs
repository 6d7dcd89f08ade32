//! The WAL log: one contract over every storage, faults of the storage, damage.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rekindle_core::port::Clock;
use rekindle_core::wal::{
    Cluster, Extra, Gap, Lsn, Owner, Put, SegmentName, SegmentNumber, SegmentSize, SystemId, TailPart, Timeline,
    WalArchive, WalLog, sample_segment,
};
use rekindle_core::{Cancel, codes};
use rekindle_repo::lease::Lease;
use rekindle_repo::verify::{Subset, VerifyOptions, VerifyReport, verify};
use rekindle_repo::wal::Archive;
use rekindle_repo::{Repo, RepoOptions};
use rekindle_store::faulty::{Action, Faulty, Op};
use rekindle_store::{Key as ObjectKey, Memory, PutMode, Store, StoreOptions};
use rekindle_testkit::{S3, S3Options};

use crate::write_support::{Bench, Now, local};

const MIB: u32 = 1 << 20;

fn cluster() -> Cluster {
    Cluster { system: SystemId(7_434_000_000_000_000_001), segment_size: SegmentSize::try_from(MIB).unwrap() }
}

fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName { timeline: Timeline(timeline), number: SegmentNumber(number) }
}

fn bytes_of(timeline: u32, number: u64) -> Vec<u8> {
    sample_segment(name(timeline, number), cluster(), 15, u8::try_from(number % 251).unwrap())
}

fn archive(repo: &Repo) -> Archive {
    Archive::new(repo, Arc::new(Now))
}

fn log_of(repo: &Repo) -> Arc<dyn WalLog> {
    archive(repo).log(cluster()).unwrap()
}

fn piece(number: u64, from: usize, to: usize) -> TailPart {
    TailPart {
        segment: name(1, number),
        from: u32::try_from(from).unwrap(),
        bytes: bytes_of(1, number)[from..to].to_vec(),
    }
}

/// Everything that a log promises.
fn contract(repo: &Repo) {
    assert_eq!(archive(repo).clusters().unwrap(), []);
    let log = log_of(repo);
    segments(&*log);
    assert_eq!(archive(repo).clusters().unwrap(), [cluster()]);
    tails(&*log);
    others(&*log);
    let inventory = log.inventory().unwrap();
    assert_eq!(inventory.segments.keys().copied().collect::<Vec<_>>(), [name(1, 5), name(1, 6), name(1, 7)]);
    assert_eq!(inventory.tails.iter().map(|(s, b)| (*s, *b)).collect::<Vec<_>>(), [(name(1, 8), 30_000)]);
    assert!(inventory.left_tails.is_empty());
    assert_eq!(inventory.histories.iter().copied().collect::<Vec<_>>(), [Timeline(2)]);
    assert_eq!(inventory.gaps.len(), 1);
    log.remove(&[name(1, 5), name(1, 6)]).unwrap();
    log.remove(&[name(1, 5)]).unwrap();
    assert_eq!(log.inventory().unwrap().segments.len(), 1);
    assert_eq!(log.segment(name(1, 5)).unwrap(), None);
    removed_tails(repo);
    owners(repo);
    let report = verified(repo);
    assert!(report.damage.is_empty(), "{report:#?}");
    assert_eq!((report.wal_segments, report.wal_segments_read), (1, 1));
}

/// Only pieces go: a segment that was sealed meanwhile stays, and so does every other tail.
fn removed_tails(repo: &Repo) {
    let log = log_of(repo);
    log.put_tail(&piece(7, 0, 10_000)).unwrap();
    log.put_tail(&piece(20, 0, 10_000)).unwrap();
    log.put_tail(&piece(20, 10_000, 20_000)).unwrap();
    let before = log.inventory().unwrap();
    assert!(before.left_tails.contains(&name(1, 7)) && before.tails.contains_key(&name(1, 20)));
    let written: Vec<_> = before.tails_at.keys().copied().collect();
    assert_eq!(written, before.tails.keys().copied().collect::<Vec<_>>(), "every tail has its time");
    log.remove_tails(&[name(1, 7), name(1, 20), name(1, 21)]).unwrap();
    let after = log.inventory().unwrap();
    assert!(after.left_tails.is_empty() && !after.tails.contains_key(&name(1, 20)));
    assert_eq!((after.segments.len(), after.tails.len()), (before.segments.len(), before.tails.len() - 1));
    assert_eq!(log.segment(name(1, 7)).unwrap().unwrap(), bytes_of(1, 7));
}

fn segments(log: &dyn WalLog) {
    assert_eq!(log.segment(name(1, 5)).unwrap(), None);
    assert_eq!(log.put_segment(name(1, 5), &bytes_of(1, 5)).unwrap(), Put::New);
    assert_eq!(log.put_segment(name(1, 5), &bytes_of(1, 5)).unwrap(), Put::Same);
    assert_eq!(log.segment(name(1, 5)).unwrap().unwrap(), bytes_of(1, 5));
    let mut other = bytes_of(1, 5);
    other[5000] ^= 1;
    let conflict = log.put_segment(name(1, 5), &other).unwrap_err();
    assert!(conflict.is(codes::WAL_CONFLICT), "{conflict:?}");
    assert_eq!(log.segment(name(1, 5)).unwrap().unwrap(), bytes_of(1, 5), "never overwritten");
    for (segment, bytes) in [
        (name(1, 6), bytes_of(1, 5)),
        (name(1, 5), bytes_of(2, 5)),
        (name(1, 5), bytes_of(1, 5)[..8192].to_vec()),
        (name(1, 5), Vec::new()),
        (name(1, 5), vec![0; MIB as usize]),
    ] {
        let refused = log.put_segment(segment, &bytes).unwrap_err();
        assert!(refused.is(codes::WAL_NOT_WAL), "{refused:?}");
    }
    let stranger = Cluster { system: SystemId(5), ..cluster() };
    let refused = log.put_segment(name(1, 6), &sample_segment(name(1, 6), stranger, 15, 0)).unwrap_err();
    assert!(refused.is(codes::WAL_NOT_WAL) && refused.chain().contains("identifier 5"), "{refused:?}");
}

fn tails(log: &dyn WalLog) {
    for (from, to) in [(0, 10_000), (10_000, 20_000), (20_000, 30_000), (40_000, 50_000)] {
        log.put_tail(&piece(6, from, to)).unwrap();
    }
    log.put_tail(&piece(6, 10_000, 20_000)).unwrap();
    assert_eq!(log.tail(name(1, 6)).unwrap().unwrap().bytes, bytes_of(1, 6)[..30_000]);
    assert_eq!(log.inventory().unwrap().tails[&name(1, 6)], 30_000);
    let mut other = piece(6, 10_000, 20_000);
    other.bytes[1] ^= 1;
    assert!(log.put_tail(&other).unwrap_err().is(codes::WAL_CONFLICT));
    assert!(log.drop_tail(name(1, 6)).unwrap_err().is(codes::RUN_BUG), "it is not sealed");
    // One piece for all before it, and then the seal.
    log.put_tail(&piece(6, 0, 60_000)).unwrap();
    assert_eq!(log.tail(name(1, 6)).unwrap().unwrap().bytes, bytes_of(1, 6)[..60_000]);
    log.put_segment(name(1, 6), &bytes_of(1, 6)).unwrap();
    let inventory = log.inventory().unwrap();
    assert_eq!((inventory.tails.len(), inventory.left_tails.len()), (0, 1), "between seal and drop");
    log.drop_tail(name(1, 6)).unwrap();
    assert_eq!(log.tail(name(1, 6)).unwrap(), None);
    log.put_segment(name(1, 7), &bytes_of(1, 7)).unwrap();
    log.put_tail(&piece(8, 0, 30_000)).unwrap();
    for (from, bytes) in [(0, Vec::new()), (MIB - 1, vec![1, 2]), (0, vec![1; 100])] {
        let part = TailPart { segment: name(1, 9), from, bytes };
        assert!(log.put_tail(&part).unwrap_err().is(codes::WAL_NOT_WAL));
    }
}

fn others(log: &dyn WalLog) {
    let history = b"1\t0/900000\tno recovery target specified\n";
    assert_eq!(log.history(Timeline(2)).unwrap(), None);
    assert_eq!(log.put_history(Timeline(2), history).unwrap(), Put::New);
    assert_eq!(log.put_history(Timeline(2), history).unwrap(), Put::Same);
    assert!(log.put_history(Timeline(2), b"1\t0/800000\tx\n").unwrap_err().is(codes::WAL_CONFLICT));
    assert!(log.put_history(Timeline(3), b"nonsense").unwrap_err().is(codes::WAL_NOT_WAL));
    assert_eq!(log.history(Timeline(2)).unwrap().unwrap(), history);
    let label = Extra::Label { segment: name(1, 5), offset: 40 };
    let partial = Extra::Partial(name(1, 9));
    assert_eq!(log.put_extra(label, b"START WAL LOCATION").unwrap(), Put::New);
    assert_eq!(log.put_extra(partial, &bytes_of(1, 9)).unwrap(), Put::New);
    assert!(log.put_extra(label, b"other").unwrap_err().is(codes::WAL_CONFLICT));
    assert_eq!(log.extra(label).unwrap().unwrap(), b"START WAL LOCATION");
    let gap = Gap {
        timeline: Timeline(1),
        from: Lsn(10 << 20),
        to: Lsn(12 << 20),
        noticed: Now.now(),
        why: "the slot was lost".to_owned(),
    };
    log.put_gap(&gap).unwrap();
    log.put_gap(&Gap { why: "again".to_owned(), ..gap.clone() }).unwrap();
    assert_eq!(log.inventory().unwrap().gaps, [gap]);
    holds(log);
}

fn holds(log: &dyn WalLog) {
    let minute = Duration::from_mins(1);
    let hold = log.hold(Timeline(1), Lsn(5 << 20), "a test", minute).unwrap();
    let longer = log.extend(&hold, minute * 60).unwrap();
    assert!(longer.until > hold.until);
    assert_eq!(log.inventory().unwrap().holds, std::slice::from_ref(&longer));
    log.release(&longer).unwrap();
    assert!(log.extend(&longer, minute).unwrap_err().is(codes::WAL_HOLD));
    let short = log.hold(Timeline(1), Lsn(0), "short", Duration::ZERO).unwrap();
    assert!(log.extend(&short, minute).unwrap_err().is(codes::WAL_HOLD), "it has expired");
    log.release(&short).unwrap();
    assert_eq!(log.inventory().unwrap().holds, []);
}

fn owners(repo: &Repo) {
    let archive = archive(repo);
    let owner = Owner { stack: "shop".to_owned(), component: "database".parse().unwrap() };
    assert_eq!(archive.bound(&owner).unwrap(), None);
    archive.bind(&owner, cluster()).unwrap();
    archive.bind(&owner, cluster()).unwrap();
    let anew = Cluster { system: SystemId(99), ..cluster() };
    let refused = archive.bind(&owner, anew).err().unwrap();
    assert!(refused.is(codes::WAL_OTHER_CLUSTER), "{refused:?}");
    assert!(refused.hint_text().unwrap().contains("wal bind database --system 99"));
    assert_eq!(archive.bound(&owner).unwrap(), Some(cluster()));
    let other_owner = Owner { stack: "other".to_owned(), ..owner.clone() };
    archive.bind(&other_owner, anew).unwrap();
    archive.rebind(&owner, anew).unwrap();
    assert_eq!(archive.bound(&owner).unwrap(), Some(anew));
    let wide = Cluster { segment_size: SegmentSize::DEFAULT, ..cluster() };
    let refused = archive.bind(&Owner { stack: "wide".to_owned(), ..owner }, wide).err().unwrap();
    assert!(refused.is(codes::WAL_OTHER_CLUSTER), "another segment size");
}

fn verified(repo: &Repo) -> VerifyReport {
    verify(repo, &VerifyOptions { read_data: Some(Subset::All) }, &Cancel::new()).unwrap()
}

#[test]
fn the_contract_holds_in_memory_and_on_disk() {
    contract(&Bench::memory().open());
    let bench = Bench::local();
    contract(&bench.open());
}

#[test]
fn the_contract_holds_on_s3() {
    let server = S3::start(S3Options::default());
    let bench = Bench::on(|_| {
        let url = format!("s3://{}/wal?endpoint={}", server.bucket(), server.endpoint());
        let mut options = StoreOptions::new(&url).unwrap();
        options.credentials.access_key_id = Some(rekindle_core::Secret::new(server.access_key()));
        options.credentials.secret_access_key = Some(rekindle_core::Secret::new(server.secret_key()));
        rekindle_store::open(&options).unwrap()
    });
    contract(&bench.open());
}

/// A storage that answers "done" to a conditional put and overwrites.
#[derive(Debug)]
struct Careless(Memory);

#[async_trait::async_trait]
impl Store for Careless {
    async fn put(&self, key: &ObjectKey, data: Bytes, _: PutMode) -> rekindle_core::Result<rekindle_store::PutOutcome> {
        self.0.put(key, data, PutMode::Overwrite).await
    }
    async fn get(&self, key: &ObjectKey) -> rekindle_core::Result<Bytes> {
        self.0.get(key).await
    }
    async fn get_range(&self, key: &ObjectKey, range: std::ops::Range<u64>) -> rekindle_core::Result<Bytes> {
        self.0.get_range(key, range).await
    }
    async fn head(&self, key: &ObjectKey) -> rekindle_core::Result<Option<rekindle_store::ObjectMeta>> {
        self.0.head(key).await
    }
    async fn list(&self, prefix: &str) -> rekindle_core::Result<Vec<rekindle_store::ObjectMeta>> {
        self.0.list(prefix).await
    }
    async fn delete(&self, key: &ObjectKey) -> rekindle_core::Result<()> {
        self.0.delete(key).await
    }
    fn describe(&self) -> String {
        "careless".to_owned()
    }
}

#[test]
fn the_contract_holds_on_a_storage_without_conditional_puts() {
    contract(&Bench::on(|_| Arc::new(Careless(Memory::new()))).open());
}

fn faulty() -> (Bench, Arc<Faulty<Memory>>) {
    let store = Arc::new(Faulty::new(Memory::new()));
    let shared = Arc::clone(&store);
    (Bench::on(move |_| shared as Arc<dyn Store>), store)
}

#[test]
fn a_storage_that_fails_is_never_an_empty_log() {
    let (bench, store) = faulty();
    let log = log_of(&bench.open());
    log.put_segment(name(1, 5), &bytes_of(1, 5)).unwrap();
    log.put_tail(&piece(6, 0, 10_000)).unwrap();
    let wal = "rekindle/wal/7434";
    for code in [codes::STORE_UNREACHABLE, codes::STORE_DENIED, codes::STORE_TIMEOUT, codes::STORE_SHORT] {
        store.script(Op::Get, wal, Action::Reject(code));
        assert!(log.segment(name(1, 5)).unwrap_err().is(code));
        store.script(Op::Get, wal, Action::Reject(code));
        assert!(log.history(Timeline(9)).unwrap_err().is(code));
        store.script(Op::List, wal, Action::Reject(code));
        assert!(log.inventory().unwrap_err().is(code));
        store.script(Op::List, wal, Action::Reject(code));
        assert!(log.tail(name(1, 6)).unwrap_err().is(code));
        store.script(Op::Put, wal, Action::Reject(code));
        assert!(log.put_segment(name(1, 9), &bytes_of(1, 9)).unwrap_err().is(code));
    }
    assert_eq!(store.unused(), 0);
    // The answer was lost, the work was done: the next try finds its own bytes.
    store.script(Op::Put, wal, Action::FailAfterWrite(codes::STORE_TIMEOUT));
    assert!(log.put_segment(name(1, 9), &bytes_of(1, 9)).is_err());
    assert_eq!(log.put_segment(name(1, 9), &bytes_of(1, 9)).unwrap(), Put::Same);
    // No room left.
    store.script(Op::Put, wal, Action::NoSpace);
    assert!(log.put_tail(&piece(8, 0, 10_000)).unwrap_err().is(codes::STORE_FULL));
    assert_eq!(log.tail(name(1, 8)).unwrap(), None);
}

#[test]
fn damage_is_named_and_never_given_back() {
    let (bench, store) = faulty();
    let repo = bench.open();
    let log = log_of(&repo);
    let path = "rekindle/wal/7434000000000000001/00000001/000000010000000000000005";
    for (number, action) in [(5, Action::FlipBit(12_345)), (6, Action::Truncate(100)), (7, Action::Truncate(0))] {
        store.script(Op::Put, "rekindle/wal/7434", action);
        log.put_segment(name(1, number), &bytes_of(1, number)).unwrap();
        let fault = log.segment(name(1, number)).unwrap_err();
        assert!(fault.is(codes::WAL_DAMAGED), "{fault:?}");
        // Even the right bytes do not replace it: somebody has to look.
        assert!(log.put_segment(name(1, number), &bytes_of(1, number)).unwrap_err().is(codes::WAL_DAMAGED));
    }
    log.put_segment(name(1, 8), &bytes_of(1, 8)).unwrap();
    log.put_segment(name(1, 9), &bytes_of(1, 9)).unwrap();
    // One good object in the place of another.
    let store = bench.blocking();
    let at = |number: u64| {
        ObjectKey::new(&format!(
            "rekindle/wal/7434000000000000001/00000001/{}",
            name(1, number).file(cluster().segment_size)
        ))
        .unwrap()
    };
    let good = store.get(&at(8)).unwrap();
    store.put(&at(9), good, PutMode::Overwrite).unwrap();
    let moved = log.segment(name(1, 9)).unwrap_err();
    assert!(moved.is(codes::WAL_DAMAGED) && moved.chain().contains("was stored as"), "{moved:?}");
    store.put(&ObjectKey::new("rekindle/wal/foreign").unwrap(), Bytes::from_static(b"x"), PutMode::Overwrite).unwrap();
    let report = verified(&repo);
    let named: Vec<&str> = report.damage.iter().map(|damage| damage.object.as_str()).collect();
    assert_eq!(named.len(), 5, "{report:#?}");
    assert!(named.contains(&path) && named.contains(&"rekindle/wal/foreign"), "{named:?}");
    let metadata_only = verify(&repo, &VerifyOptions::default(), &Cancel::new()).unwrap();
    assert_eq!(metadata_only.damage.len(), 1, "{metadata_only:#?}");
}

#[test]
fn other_keys_cannot_read_it_and_restic_does_not_see_it() {
    let bench = Bench::on(|directory| local(&directory.join("repo")));
    log_of(&bench.open()).put_segment(name(1, 5), &bytes_of(1, 5)).unwrap();
    let object = bench.keys("rekindle/wal/7434000000000000001/");
    let sealed = bench.blocking().get(&ObjectKey::new(&object[0]).unwrap()).unwrap();
    assert!(bench.open().key().open(&sealed).is_ok());
    assert!(sealed.len() < MIB as usize / 4, "compressed: {}", sealed.len());
    let checked = std::process::Command::new(rekindle_testkit::tools::find("restic"))
        .env("RESTIC_PASSWORD", crate::write_support::PASSWORD)
        .args(["--no-cache", "--repo"])
        .arg(bench.repo_path())
        .arg("check")
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

/// A clock that stands where it was put.
struct At(std::sync::Mutex<jiff::Timestamp>);

impl Clock for At {
    fn now(&self) -> jiff::Timestamp {
        *self.0.lock().unwrap()
    }
}

#[test]
fn a_lease_has_one_holder_and_its_number_grows() {
    let bench = Bench::memory();
    let repo = bench.open_as(RepoOptions::default()).unwrap();
    let at = Arc::new(At(std::sync::Mutex::new(Now.now())));
    let clock: Arc<dyn Clock> = Arc::<At>::clone(&at);
    let first = Lease::acquire(&repo, &clock, "sweep").unwrap();
    assert!(Lease::acquire(&repo, &clock, "sweep").unwrap_err().is(codes::REPO_LOCKED));
    Lease::acquire(&repo, &clock, "other").unwrap().release().unwrap();
    first.renew().unwrap();
    *at.0.lock().unwrap() += Duration::from_mins(6);
    let second = Lease::acquire(&repo, &clock, "sweep").unwrap();
    assert!(second.fence() > first.fence());
    assert!(first.renew().unwrap_err().is(codes::REPO_LOST_LOCK), "the first one slept");
    second.renew().unwrap();
    let fence = second.fence();
    second.release().unwrap();
    assert!(Lease::acquire(&repo, &clock, "sweep").unwrap().fence() > fence);
}

/// What this program cannot read may be held by a newer one: never free.
#[test]
fn a_lease_that_cannot_be_read_is_not_free() {
    let bench = Bench::memory();
    let repo = bench.open_as(RepoOptions::default()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(Now);
    Lease::acquire(&repo, &clock, "sweep").unwrap().release().unwrap();
    let store = bench.blocking();
    let held = ObjectKey::new("rekindle/leases/sweep/000000000002").unwrap();
    let sealed = |text: &str| Bytes::from(repo.key().seal(text.as_bytes()).unwrap());
    let moved = r#"{"name":"rekindle/leases/other/000000000002","host":"h","pid":1,"until":"2000-01-01T00:00:00Z"}"#;
    for content in [sealed(r#"{"holder":"a newer program"}"#), sealed(moved), Bytes::from_static(b"no object of ours")]
    {
        store.put(&held, content, PutMode::Overwrite).unwrap();
        let fault = Lease::acquire(&repo, &clock, "sweep").unwrap_err();
        assert!(
            fault.is(codes::REPO_DAMAGED) && fault.hint_text().unwrap().contains("remove this object"),
            "{fault:?}"
        );
    }
    store.delete(&held).unwrap();
    Lease::acquire(&repo, &clock, "sweep").unwrap();
}
