//! What a drill has to catch. Points are real; where the program itself would not take a bad backup,
//! the drill is shown a point that is not what its manifest says.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rekindle_core::entry::{Closing, ContentRead, EntryPath, ReadFault};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::objective::{Objective, Verdict};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{
    Clock, Finding, Materialize, Materialized, PartReader, Quiet, Repository, RestoreReport, RunContext, StoredEntry,
    WriteSession,
};
use rekindle_core::proof_record::{ComponentProof, Outcome};
use rekindle_core::sandbox::{Opened, Proved, Sandbox};
use rekindle_core::{Cancel, ComponentId, PointId, Result, RunId, Secret};
use rekindle_engine::drill::{DrillItem, DrillPlan, Way, drill, exit_code};
use rekindle_repo::{Repo, RepoOptions};
use rekindle_sources::hook::ProcessHooks;
use rekindle_sources::postgres::PostgresSandbox;
use rekindle_sources::redis::RedisSandbox;
use rekindle_sources::sandbox::{Checks, DirectorySandbox, Site, SiteOptions};
use rekindle_store::StoreOptions;
use rekindle_testkit::fixtures::redis_data;
use rekindle_testkit::grafana::GrafanaFiles;
use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions};
use serde_json::json;

use super::super::stack::{REPOSITORY_PASSWORD, Stack};
use super::{nothing_is_left, outcomes, pairs, sandboxes, small_database, stack};

/// Changes what a part gives for one path, and what its manifest says.
#[derive(Clone, Default)]
struct Lie {
    record: Option<fn(&mut ComponentRecord)>,
    /// The content of this path is cut by so many bytes.
    cut: Option<(&'static str, usize)>,
    /// This path gives the content of the same path in another point.
    other: Option<(&'static str, PointId)>,
}

/// A repository that lies about one thing.
struct Liar {
    repo: Repo,
    lie: Lie,
}

impl Repository for Liar {
    fn begin(&self, context: &RunContext) -> Result<Arc<dyn WriteSession>> {
        self.repo.begin(context)
    }

    fn points(&self) -> Result<Vec<RecoveryPoint>> {
        self.repo.points()
    }

    fn open(&self, point: &PointId, component: &ComponentId) -> Result<Arc<dyn PartReader>> {
        let part = self.repo.open(point, component)?;
        let mut record = part.record().clone();
        if let Some(change) = self.lie.record {
            change(&mut record);
        }
        let other = match &self.lie.other {
            Some((path, point)) => Some((*path, self.repo.open(point, component)?)),
            None => None,
        };
        Ok(Arc::new(LyingPart { part, record, cut: self.lie.cut, other }))
    }
}

struct LyingPart {
    part: Arc<dyn PartReader>,
    record: ComponentRecord,
    cut: Option<(&'static str, usize)>,
    other: Option<(&'static str, Arc<dyn PartReader>)>,
}

impl PartReader for LyingPart {
    fn record(&self) -> &ComponentRecord {
        &self.record
    }

    fn list(&self, within: Option<&EntryPath>) -> Result<Box<dyn Iterator<Item = Result<StoredEntry>> + Send>> {
        self.part.list(within)
    }

    fn open(&self, path: &EntryPath) -> Result<Box<dyn ContentRead>> {
        if let Some((_, other)) = self.other.as_ref().filter(|(name, _)| path.to_string() == *name) {
            return other.open(path);
        }
        let content = self.part.open(path)?;
        match self.cut.filter(|(name, _)| path.to_string() == *name) {
            None => Ok(content),
            Some((_, bytes)) => Ok(Box::new(Cut::new(content, bytes))),
        }
    }

    fn materialize(&self, request: &Materialize, context: &RunContext) -> Result<Materialized> {
        self.part.materialize(request, context)
    }
}

/// A stream without its last bytes, that says nothing about it.
struct Cut {
    bytes: Vec<u8>,
    at: usize,
    from: Box<dyn ContentRead>,
}

impl Cut {
    fn new(mut from: Box<dyn ContentRead>, cut: usize) -> Self {
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(given @ 1..) = from.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..given]);
        }
        bytes.truncate(bytes.len() - cut);
        Self { bytes, at: 0, from }
    }
}

impl ContentRead for Cut {
    fn read(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, ReadFault> {
        let given = buffer.len().min(self.bytes.len() - self.at);
        buffer[..given].copy_from_slice(&self.bytes[self.at..self.at + given]);
        self.at += given;
        Ok(given)
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        self.from.close()
    }
}

/// A sandbox in which something happens between the restore and the start of the engine.
struct Meddled {
    inner: Arc<dyn Sandbox>,
    meddle: fn(&RestoreReport),
}

#[async_trait]
impl Sandbox for Meddled {
    fn component(&self) -> &ComponentId {
        self.inner.component()
    }

    async fn open(&self, record: &ComponentRecord, context: &RunContext) -> Result<Opened> {
        self.inner.open(record, context).await
    }

    async fn start(&self, record: &ComponentRecord, report: &RestoreReport, context: &RunContext) -> Result<Proved> {
        (self.meddle)(report);
        self.inner.start(record, report, context).await
    }

    async fn look(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        self.inner.look(part, report, context).await
    }

    async fn way_in(&self, report: &RestoreReport, context: &RunContext) -> Result<Option<String>> {
        self.inner.way_in(report, context).await
    }

    fn within_limits(&self) -> Result<()> {
        self.inner.within_limits()
    }

    fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

struct Now;

impl Clock for Now {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// What a drill needs beside the program.
struct Bench {
    runtime: tokio::runtime::Runtime,
    repo: Repo,
    scratch: tempfile::TempDir,
    base: PathBuf,
}

impl Bench {
    fn of(stack: &Stack) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let url = format!("file://{}", stack.path("repo").display());
        let store = rekindle_store::open(&StoreOptions::new(&url).unwrap()).unwrap();
        let password = Secret::new(REPOSITORY_PASSWORD.to_owned());
        let repo = Repo::open(store, runtime.handle().clone(), &password, RepoOptions::default()).unwrap();
        Self { runtime, repo, scratch: tempfile::tempdir().unwrap(), base: sandboxes(stack) }
    }

    fn site(&self) -> Arc<Site> {
        let options =
            SiteOptions { base: self.base.clone(), memory_bytes: None, disk_bytes: None, programs: Vec::new() };
        Arc::new(Site::make(options).unwrap())
    }

    fn newest(&self) -> RecoveryPoint {
        self.repo.points().unwrap().pop().unwrap()
    }

    /// Drills one component of the newest point, as it is with the lie.
    fn drill(&self, sandbox: impl FnOnce(Arc<Site>) -> Arc<dyn Sandbox>, lie: &Lie) -> ComponentProof {
        self.drill_with(sandbox, lie, Objective::default()).0
    }

    fn drill_with(
        &self,
        sandbox: impl FnOnce(Arc<Site>) -> Arc<dyn Sandbox>,
        lie: &Lie,
        objective: Objective,
    ) -> (ComponentProof, u8) {
        let point = self.newest();
        let mut manifest = point.manifest().clone();
        for record in &mut manifest.components {
            if let Some(change) = lie.record {
                change(record);
            }
        }
        let point = RecoveryPoint::stored(point.id().clone(), point.time(), manifest);
        let plan = DrillPlan {
            point,
            items: vec![DrillItem { sandbox: sandbox(self.site()), objective, way: Way::Captured }],
            timeout: Duration::from_mins(5),
            jobs: 1,
            guarantees: Vec::new(),
        };
        let context = RunContext {
            run: RunId::new(jiff::Timestamp::now(), 1),
            cancel: Cancel::new(),
            monitor: Arc::new(Quiet),
            clock: Arc::new(Now),
            scratch: self.scratch.path().to_owned(),
        };
        let liar: Arc<dyn Repository> = Arc::new(Liar { repo: self.repo.clone(), lie: lie.clone() });
        let work = drill(plan, liar, Arc::new(ProcessHooks), &context);
        let mut result = self.runtime.block_on(Box::pin(work)).unwrap();
        let exit = exit_code(&result);
        (result.components.remove(0), exit)
    }
}

fn id(name: &str) -> ComponentId {
    name.parse().unwrap()
}

/// Failed, and says this somewhere.
fn failed(what: &str, proof: &ComponentProof, says: &str) {
    assert_eq!(proof.outcome, Outcome::Failed, "{what}: {proof:#?}");
    let said = format!("{:?} {:?}", proof.problem, proof.findings);
    assert!(said.contains(says), "{what}: `{says}` is not in {said}");
}

#[test]
fn bad_backups_of_postgresql() {
    let postgres = Postgres::start(PostgresOptions::default());
    small_database(&postgres);
    postgres.psql("shop", "CREATE EXTENSION pgcrypto");
    let mut stack = stack();
    stack.postgres(&postgres, postgres.port(), &["shop".to_owned()], "");
    stack.complete();
    let bench = Bench::of(&stack);
    let first = bench.newest().id().clone();
    let sandbox = |site| -> Arc<dyn Sandbox> { Arc::new(PostgresSandbox::new(site, id("database"), None)) };
    let good = bench.drill(sandbox, &Lie::default());
    assert_eq!(good.outcome, Outcome::Passed, "{good:#?}");

    // The dump is of an earlier, other state of the world than the manifest says.
    postgres.psql("shop", "DROP TABLE orders; CREATE TABLE invoices (id int); INSERT INTO invoices VALUES (1)");
    stack.complete();
    let lie = Lie { other: Some(("databases/shop.dump", first)), ..Lie::default() };
    failed("the dump of the wrong database", &bench.drill(sandbox, &lie), "invoices");

    let lie = Lie {
        record: Some(|record| record.details["databases"][0]["tables"][0]["exact_rows"] = json!(7)),
        ..Lie::default()
    };
    failed("a table with fewer rows than counted", &bench.drill(sandbox, &lie), "instead of 7");

    let lie = Lie { record: Some(|record| record.details["globals"] = json!("none")), ..Lie::default() };
    failed("a missing role", &bench.drill(sandbox, &lie), "shop_owner");

    let plpgsql = |record: &mut ComponentRecord| {
        let extensions = record.details["databases"][0]["extensions"].as_array_mut().unwrap();
        extensions.push(json!({"name": "pg_trgm", "version": "1.6"}));
    };
    let lie = Lie { record: Some(plpgsql), ..Lie::default() };
    failed("a missing extension", &bench.drill(sandbox, &lie), "pg_trgm");

    let lie = Lie { cut: Some(("databases/shop.dump", 20)), ..Lie::default() };
    failed("a truncated dump", &bench.drill(sandbox, &lie), "pg_restore");

    // What is lacking here is no proof of anything.
    for (lie, says) in [
        (
            Lie { record: Some(|r| r.details["server"]["version_number"] = json!(990_001)), ..Lie::default() },
            "PostgreSQL 99",
        ),
        (
            Lie {
                record: Some(|record| {
                    let extensions = record.details["databases"][0]["extensions"].as_array_mut().unwrap();
                    extensions.push(json!({"name": "of_another_world", "version": "1"}));
                }),
                ..Lie::default()
            },
            "of_another_world",
        ),
        (
            Lie {
                record: Some(|r| r.details["databases"][0]["properties"]["collate"] = json!("xx_XX.UTF-8")),
                ..Lie::default()
            },
            "xx_XX",
        ),
    ] {
        let (proof, exit) = bench.drill_with(sandbox, &lie, Objective::default());
        assert_eq!((proof.outcome, exit), (Outcome::Unproved, 4), "{says}: {proof:#?}");
        assert!(proof.problem.unwrap().message.contains(says));
    }
    nothing_is_left(&stack);
}

#[test]
fn a_restore_that_is_too_slow_misses_its_objective() {
    let mut stack = stack();
    let data = stack.files("data");
    fs::write(data.join("a"), "one").unwrap();
    stack.complete();
    let bench = Bench::of(&stack);
    let sandbox = |site| -> Arc<dyn Sandbox> {
        let options = rekindle_sources::files::FilesOptions { paths: vec!["/".into()], ..Default::default() };
        let component = rekindle_sources::files::FilesComponent::new(id("files"), options).unwrap();
        Arc::new(DirectorySandbox::new(site, Arc::new(component), Checks::default()))
    };
    let objective = Objective { rto_seconds: Some(0), ..Objective::default() };
    let (proof, exit) = bench.drill_with(sandbox, &Lie::default(), objective);
    assert_eq!((proof.outcome, exit), (Outcome::Passed, 4), "{proof:#?}");
    assert!(matches!(proof.rto, Verdict::Missed(_)));
    let objective = Objective { rto_seconds: Some(3600), ..Objective::default() };
    assert_eq!(bench.drill_with(sandbox, &Lie::default(), objective).1, 0);
}

#[test]
fn bad_backups_of_redis() {
    let redis = Redis::start(RedisOptions::default());
    redis_data(&redis, 20);
    let mut stack = stack();
    stack.redis(&redis, redis.port(), "appendonly = true\n");
    stack.complete();
    let bench = Bench::of(&stack);
    let plain =
        |site| -> Arc<dyn Sandbox> { Arc::new(RedisSandbox::new(site, id("cache"), Some(true), Checks::default())) };
    let good = bench.drill(plain, &Lie::default());
    assert_eq!(good.outcome, Outcome::Passed, "{good:#?}");
    assert!(good.engine.as_deref().is_some_and(|engine| engine.starts_with("Redis 7.0")), "{good:#?}");

    let lie = Lie { cut: Some(("dump.rdb", 100)), ..Lie::default() };
    failed("a truncated RDB", &bench.drill(plain, &lie), "RDB");

    let count = |record: &mut ComponentRecord| record.details["rdb"]["databases"]["0"]["keys"] = json!(1);
    let lie = Lie { record: Some(count), ..Lie::default() };
    failed("other keys than counted", &bench.drill(plain, &lie), "differ from the manifest");

    // An old append-only file in the directory wins over the restored RDB when the server starts.
    let stale = |site| -> Arc<dyn Sandbox> { Arc::new(Meddled { inner: plain(site), meddle: plant_stale_aof }) };
    failed("a stale AOF", &bench.drill(stale, &Lie::default()), "keys");

    let lie = Lie { record: Some(|record| record.details["rdb"]["version"] = json!(78)), ..Lie::default() };
    let proof = bench.drill(plain, &lie);
    assert!(proof.outcome != Outcome::Passed, "{proof:#?}");
    nothing_is_left(&stack);
}

fn plant_stale_aof(report: &RestoreReport) {
    let directory = PathBuf::from(&report.place).join("appendonlydir");
    for entry in fs::read_dir(&directory).unwrap().flatten() {
        fs::remove_file(entry.path()).unwrap();
    }
    let set = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$5\r\nstale\r\n$1\r\n1\r\n";
    fs::write(directory.join("appendonly.aof.1.incr.aof"), set).unwrap();
    fs::write(directory.join("appendonly.aof.manifest"), "file appendonly.aof.1.incr.aof seq 1 type i\n").unwrap();
}

/// A data source's password, sealed by OpenSSL with `canary-secret-key`, the key of the fixture.
const SEALED: &str = "obLD1OX2BxgAAQIDBAUGBwgJCgsMDQ4Pv5WXoF1Tkm9Z8KQAGzRHrIQL0MXZ9OkYYqMH3mYp8xyRI259+9g=";

#[test]
fn a_grafana_without_its_key() {
    let grafana = GrafanaFiles::make(false);
    grafana.sql(&format!(
        "INSERT INTO data_source (org_id, version, type, name, access, url, secure_json_data, uid) \
         VALUES (1, 1, 'postgres', 'shop', 'proxy', 'db', '{{\"password\": \"{SEALED}\"}}', 'x')"
    ));
    let mut stack = stack();
    let set = |stack: &mut Stack, key: &str| {
        stack.set(&format!(
            "[component.dashboards]\nkind = \"grafana\"\nconfig = \"{}\"\nhome = \"{}\"\n{key}",
            grafana.config().display(),
            grafana.home().display()
        ));
        stack.complete();
    };
    set(&mut stack, "");
    let answer = stack.place.json(0, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("dashboards", "passed")]));
    assert!(answer.to_string().contains("opens all 1 encrypted values"), "{answer:#}");

    // Another key than the one Grafana runs with.
    stack.place.write("grafana-key", "not-the-key");
    set(&mut stack, "secret-key = \"file:grafana-key\"");
    let answer = stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("dashboards", "failed")]));
    assert!(answer["error"]["message"].as_str().unwrap().contains("does not open"), "{answer:#}");

    // A key that is nowhere in the point.
    let ini = fs::read_to_string(grafana.config()).unwrap();
    fs::write(grafana.config(), ini.replace("canary-secret-key", "${KEPT_ELSEWHERE}")).unwrap();
    set(&mut stack, "");
    let answer = stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("dashboards", "failed")]));
    assert!(answer["error"]["message"].as_str().unwrap().contains("does not hold the `secret_key`"), "{answer:#}");
}

#[test]
fn what_the_users_checks_say_counts() {
    let postgres = Postgres::start(PostgresOptions::default());
    small_database(&postgres);
    postgres.psql("shop", "TRUNCATE orders");
    let mut stack = stack();
    let check = "checks = [\"SELECT count(*) > 0 FROM orders\"]";
    stack.postgres(&postgres, postgres.port(), &["shop".to_owned()], check);
    stack.complete();
    let answer = stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("database", "failed")]), "an empty table that has to have rows");
    assert!(answer["error"]["message"].as_str().unwrap().contains("says no"), "{answer:#}");

    // A backup of another database than the one the application uses.
    postgres.psql("postgres", "CREATE DATABASE other");
    stack.postgres(&postgres, postgres.port(), &["other".to_owned()], check);
    stack.complete();
    let answer = stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("database", "failed")]), "the wrong database");
    nothing_is_left(&stack);
}
