//! A real cluster with an archive, base backups as stored parts, and recovery from them.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rekindle_core::entry::{ContentRead, EntryKind, EntryPath, Meta};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::note::Notes;
use rekindle_core::port::{
    Component, Finding, Materialize, Materialized, PartReader, Recovery, RestoreReport, RestoreRequest, StoredEntry,
    Target,
};
use rekindle_core::tally::Tally;
use rekindle_core::timeline::{
    BasePoint, Chain, ClusterLog, Ends, Found, LogEyes, Moment, RecoveryTarget, Unplanned, plan,
};
use rekindle_core::wal::{
    BaseBackup, Cluster, History, Lsn, RecordKind, RecordScan, SegmentName, SegmentSize, SystemId, Tablespace,
    Timeline, WalFile, WalLog, WalRange,
};
use rekindle_core::{ComponentKind, Fault, Result, codes};
use rekindle_sources::postgres::{PostgresOptions, Recovered};
use rekindle_testkit::{MemoryLog, Postgres, PostgresOptions as ServerOptions};

use crate::postgres_support::{component, options, request, run};

/// Longest wait for something the server does by itself.
const SOON: Duration = Duration::from_secs(90);

/// A server whose segments are archived into a directory of its own.
pub(crate) struct World {
    pub(crate) server: Postgres,
    pub(crate) place: tempfile::TempDir,
}

fn archiving(archive: &Path) -> Vec<(String, String)> {
    let archive = archive.display();
    [
        ("archive_mode", "on".to_owned()),
        ("archive_command", format!("mkdir -p {archive} && cp %p {archive}/part && mv {archive}/part {archive}/%f")),
        ("track_commit_timestamp", "on".to_owned()),
        // It commits when it likes; tests count commits.
        ("autovacuum", "off".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

pub(crate) fn open_dir() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    place
}

impl World {
    pub(crate) fn new(major: u32) -> Self {
        let place = open_dir();
        let settings = archiving(&place.path().join("archive"));
        let server = Postgres::start(ServerOptions { major, settings, ..ServerOptions::default() });
        server.psql("postgres", "CREATE TABLE marker (id serial PRIMARY KEY, note text)");
        Self { server, place }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Runs a restored directory as the server from now on, archiving into the same place.
    pub(crate) fn go_on_with(&mut self, data: &Path) {
        self.server.stop();
        let major = self.server.major();
        let settings = archiving(&self.path("archive"));
        let data_dir = Some(data.to_owned());
        self.server = Postgres::start(ServerOptions { major, settings, data_dir, ..ServerOptions::default() });
    }

    /// A marker row; gives its number.
    pub(crate) fn mark(&self) -> u64 {
        self.server.psql("postgres", "INSERT INTO marker DEFAULT VALUES RETURNING id").parse().unwrap()
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        let text = self.server.psql(
            "postgres",
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        );
        text.parse().unwrap()
    }

    /// Closes the segment and waits until it is archived.
    pub(crate) fn archive(&self) {
        self.server.psql("postgres", "INSERT INTO marker (note) VALUES ('switch')");
        let file = self.server.psql("postgres", "SELECT pg_walfile_name(pg_switch_wal())");
        let since = Instant::now();
        while !self.path("archive").join(&file).exists() {
            assert!(since.elapsed() < SOON, "{file} is not archived\n{}", self.server.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn cluster(&self) -> Cluster {
        let id = self.server.psql("postgres", "SELECT system_identifier FROM pg_control_system()");
        Cluster { system: SystemId(id.parse().unwrap()), segment_size: SegmentSize::DEFAULT }
    }

    /// Everything that was archived.
    pub(crate) fn log(&self) -> Arc<MemoryLog> {
        let log = MemoryLog::new(self.cluster());
        for entry in fs::read_dir(self.path("archive")).unwrap() {
            let entry = entry.unwrap();
            let bytes = fs::read(entry.path()).unwrap();
            match WalFile::parse(entry.file_name().to_str().unwrap(), SegmentSize::DEFAULT) {
                Ok(WalFile::Segment(name)) => log.add(name, bytes),
                Ok(WalFile::History(timeline)) => log.add_history(timeline, &bytes),
                Ok(WalFile::Extra(_)) | Err(_) => {}
            }
        }
        log
    }

    /// A base backup, as a point would hold it.
    pub(crate) fn base(&self, name: &str) -> Arc<DirectoryPart> {
        let part = self.path(name);
        fs::create_dir(&part).unwrap();
        let started = self.now();
        let tablespaces = self.tablespaces();
        let mut command = self.server.client("pg_basebackup");
        command.args(["-Fp", "-X", "stream", "-c", "fast", "--manifest-checksums=SHA256", "-D"]).arg(part.join("data"));
        for one in &tablespaces {
            let new = part.join("tablespaces").join(one.oid.to_string());
            command.arg("-T").arg(format!("{}={}", one.path, new.display()));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = fs::read(part.join("data/backup_manifest")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let lsn = |value: &serde_json::Value| value.as_str().unwrap().parse::<Lsn>().unwrap();
        let ranges: Vec<WalRange> = manifest["WAL-Ranges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|range| WalRange {
                timeline: Timeline(u32::try_from(range["Timeline"].as_u64().unwrap()).unwrap()),
                start: lsn(&range["Start-LSN"]),
                end: lsn(&range["End-LSN"]),
            })
            .collect();
        let (first, last) = (ranges[0], ranges[ranges.len() - 1]);
        let base = BaseBackup {
            cluster: self.cluster(),
            server_version: self.server.psql("postgres", "SHOW server_version_num").parse().unwrap(),
            timeline: last.timeline,
            start: first.start,
            stop: last.end,
            started,
            stopped: self.now(),
            wal_ranges: ranges,
            tablespaces,
            checksums: true,
            checksum_failures: 0,
        };
        Arc::new(DirectoryPart::new(part, &base))
    }

    fn tablespaces(&self) -> Vec<Tablespace> {
        let sql = "SELECT oid || ' ' || pg_tablespace_location(oid) FROM pg_tablespace WHERE oid > 16383";
        let text = self.server.psql("postgres", sql);
        let one = |line: &str| {
            let (oid, path) = line.split_once(' ').unwrap();
            Tablespace { oid: oid.parse().unwrap(), path: path.to_owned() }
        };
        text.lines().map(one).collect()
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        options(&self.server, "postgres")
    }

    /// Recovers into a new directory and checks it; gives report, findings and the directory.
    pub(crate) fn recover(&self, recovery: Recovery, part: &Arc<DirectoryPart>, name: &str) -> Result<Recovering> {
        let data = self.path(name);
        let target = Target::New(Some(data.to_str().unwrap().to_owned()));
        self.recover_to(recovery, part, target, self.options()).map(|(report, findings)| Recovering {
            report,
            findings,
            data,
        })
    }

    #[expect(clippy::unused_self, reason = "said of a world, as the others")]
    pub(crate) fn recover_to(
        &self,
        recovery: Recovery,
        part: &Arc<DirectoryPart>,
        target: Target,
        options: PostgresOptions,
    ) -> Result<(RestoreReport, Vec<Finding>)> {
        let request = RestoreRequest { recovery: Some(recovery), ..request(target) };
        let (run, component) = (run(), component(options));
        let part: Arc<dyn PartReader> = Arc::clone(part) as _;
        tokio_test(async {
            let report = component.restore(Arc::clone(&part), &request, &run.context).await?;
            let findings = component.check(part, &report, &run.context).await?;
            Ok((report, findings))
        })
    }

    /// Runs a restored directory beside the original.
    pub(crate) fn serve(&self, data: &Path) -> Postgres {
        let major = self.server.major();
        Postgres::start(ServerOptions { major, data_dir: Some(data.to_owned()), ..ServerOptions::default() })
    }
}

pub(crate) struct Recovering {
    pub(crate) report: RestoreReport,
    pub(crate) findings: Vec<Finding>,
    pub(crate) data: PathBuf,
}

impl Recovering {
    pub(crate) fn recovered(&self) -> Recovered {
        serde_json::from_value(self.report.details.clone()).unwrap()
    }
}

pub(crate) fn tokio_test<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

pub(crate) const MARKERS: &str = "SELECT string_agg(id::text, ',' ORDER BY id) FROM marker";

/// Plans from these base backups and this log.
pub(crate) fn planned(
    target: &RecoveryTarget,
    parts: &[&Arc<DirectoryPart>],
    log: &Arc<MemoryLog>,
) -> Result<Recovery> {
    let bases: Vec<BasePoint> = parts
        .iter()
        .enumerate()
        .map(|(number, part)| BasePoint { point: format!("{number:064x}").parse().unwrap(), base: part.base.clone() })
        .collect();
    let inventory = log.inventory().unwrap();
    let history = |timeline: &Timeline| {
        let bytes = log.history(*timeline).unwrap().unwrap();
        (*timeline, History::parse(*timeline, &bytes).unwrap())
    };
    let histories: BTreeMap<Timeline, History> = inventory.histories.iter().map(history).collect();
    let mut eyes = Eyes(Arc::clone(log));
    match plan(target, &bases, &[ClusterLog { inventory, histories }], &mut eyes) {
        Ok(plan) => Ok(Recovery { plan, log: Some(Arc::clone(log) as _), no_start: false, owner: None }),
        Err(Unplanned::Refused(refusal)) => Err(refusal.fault(|name| name.file(SegmentSize::DEFAULT))),
        Err(Unplanned::Failed(fault)) => Err(fault),
    }
}

/// Reads the whole log for every question.
struct Eyes(Arc<MemoryLog>);

impl Eyes {
    fn read(&self, chain: &Chain, mut each: impl FnMut(rekindle_core::wal::Record)) -> Option<Lsn> {
        let mut scan = RecordScan::new(SegmentSize::DEFAULT);
        for name in &chain.segments {
            if let Ok(Some(bytes)) = self.0.segment(*name) {
                scan.push(*name, &bytes, &mut each);
            }
        }
        scan.last()
    }
}

impl LogEyes for Eyes {
    fn ends(&mut self, _: &BaseBackup, chain: &Chain) -> Result<Ends> {
        let mut ends = Ends::default();
        ends.last_record = self.read(chain, |record| {
            if let RecordKind::Ended { committed, at, .. } = record.kind {
                let moment = Some(Moment { lsn: record.start, at });
                ends.newest = moment;
                if committed {
                    ends.newest_commit = moment;
                }
            }
        });
        Ok(ends)
    }

    fn find(
        &mut self,
        _: &BaseBackup,
        chain: &Chain,
        _: Option<Lsn>,
        stop: &rekindle_core::timeline::Stop,
    ) -> Result<Found> {
        use rekindle_core::timeline::Stop;
        let (mut found, mut names) = (None, Vec::new());
        self.read(chain, |record| match (&record.kind, stop) {
            (RecordKind::RestorePoint { name, .. }, Stop::Name(wanted)) => {
                names.push(name.clone());
                if name == wanted {
                    found = Some(record.start);
                }
            }
            (RecordKind::Ended { .. }, Stop::Xid(xid)) if record.xid == *xid => found = Some(record.start),
            _ => {}
        });
        Ok(found.map_or(Found::Absent { names }, Found::At))
    }
}

pub(crate) fn segment_at(log: &MemoryLog, back: usize) -> SegmentName {
    let inventory = log.inventory().unwrap();
    *inventory.segments.keys().rev().nth(back).unwrap()
}

/// A stored part that is a directory.
pub(crate) struct DirectoryPart {
    root: PathBuf,
    pub(crate) base: BaseBackup,
    record: ComponentRecord,
}

impl DirectoryPart {
    fn new(root: PathBuf, base: &BaseBackup) -> Self {
        let record = ComponentRecord {
            id: "database".parse().unwrap(),
            kind: ComponentKind::Postgres,
            tree: String::new(),
            captured_at: base.stopped,
            tally: Tally::default(),
            streams: Vec::new(),
            added_bytes: 0,
            stored_bytes: 0,
            notes: Notes::default(),
            details: serde_json::json!({ "base": base }),
        };
        Self { root, base: base.clone(), record }
    }

    fn walk(&self, at: &Path, found: &mut Vec<StoredEntry>) {
        let mut names: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for path in names {
            let relative = path.strip_prefix(&self.root).unwrap().as_os_str().as_encoded_bytes().to_vec();
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = if meta.is_dir() {
                EntryKind::Directory
            } else if meta.is_symlink() {
                EntryKind::Symlink { target: Vec::new() }
            } else {
                EntryKind::File
            };
            let entry = EntryPath::new(relative).unwrap();
            found.push(StoredEntry { path: entry, meta: Meta::synthetic(kind, jiff::Timestamp::now()) });
            if meta.is_dir() {
                self.walk(&path, found);
            }
        }
    }
}

impl PartReader for DirectoryPart {
    fn record(&self) -> &ComponentRecord {
        &self.record
    }

    fn list(&self, _: Option<&EntryPath>) -> Result<Box<dyn Iterator<Item = Result<StoredEntry>> + Send>> {
        let mut found = Vec::new();
        self.walk(&self.root, &mut found);
        Ok(Box::new(found.into_iter().map(Ok)))
    }

    fn open(&self, _: &EntryPath) -> Result<Box<dyn ContentRead>> {
        Err(Fault::new(codes::RUN_BUG, "open: recovery does not ask for it"))
    }

    fn materialize(&self, request: &Materialize, _: &rekindle_core::port::RunContext) -> Result<Materialized> {
        let within = request.within.as_ref().map_or_else(String::new, ToString::to_string);
        let from = self.root.join(&within);
        let mut done = Materialized::default();
        let chosen = if request.select.is_empty() {
            vec![PathBuf::from(".")]
        } else {
            let inside = |path: &EntryPath| PathBuf::from(path.to_string()).strip_prefix(&within).unwrap().to_owned();
            request.select.iter().map(inside).collect()
        };
        for path in chosen {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(request.into.join(parent)).unwrap();
            }
            let into = request.into.join(&path);
            let into = if path.as_os_str() == "." { request.into.clone() } else { into };
            let source = if path.as_os_str() == "." { from.join(".") } else { from.join(&path) };
            let status = std::process::Command::new("cp").arg("-aT").arg(source).arg(into).status().unwrap();
            assert!(status.success());
            done.entries += 1;
        }
        Ok(done)
    }
}
