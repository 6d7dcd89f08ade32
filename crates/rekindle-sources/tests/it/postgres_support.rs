//! A capture pulled to its end into memory, and read back from there, for PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::entry::{Closing, Content, ContentRead, Entries, EntryKind, EntryPath, Meta, ReadFault};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::point::Draft;
use rekindle_core::port::{
    Clock, Component, Finding, Level, Materialize, Materialized, PartReader, Quiet, RestoreReport, RestoreRequest,
    RunContext, StoredEntry, Target,
};
use rekindle_core::proof::{Part, StoredPart};
use rekindle_core::witness::Witness;
use rekindle_core::{Cancel, Fault, PointId, Result, RunId, codes};
use rekindle_sources::postgres::details::Details;
use rekindle_sources::postgres::{Databases, PostgresComponent, PostgresOptions};
use rekindle_testkit::{Postgres, PostgresOptions as ServerOptions};

pub(crate) const SHORT: &str = "01234567";

struct Now;

impl Clock for Now {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

pub(crate) fn server(major: u32) -> Postgres {
    Postgres::start(ServerOptions { major, ..ServerOptions::default() })
}

pub(crate) fn options(server: &Postgres, database: &str) -> PostgresOptions {
    PostgresOptions {
        bin_dir: Some(server.bin_dir().to_owned()),
        ..PostgresOptions::from_url(&server.url_of(database)).unwrap()
    }
}

pub(crate) fn component(options: PostgresOptions) -> PostgresComponent {
    PostgresComponent::new("database".parse().unwrap(), options)
}

/// Every database of the server, with exact counts.
pub(crate) fn whole(server: &Postgres) -> PostgresComponent {
    component(PostgresOptions { databases: Databases::All, exact_counts: true, ..options(server, "postgres") })
}

/// A context whose scratch directory must be empty in the end.
pub(crate) struct Run {
    pub(crate) context: RunContext,
    pub(crate) scratch: tempfile::TempDir,
}

pub(crate) fn run() -> Run {
    let scratch = tempfile::tempdir().unwrap();
    let context = RunContext {
        run: RunId::new(jiff::Timestamp::now(), 7),
        cancel: Cancel::new(),
        monitor: Arc::new(Quiet),
        clock: Arc::new(Now),
        scratch: scratch.path().to_owned(),
    };
    Run { context, scratch }
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// What a repository would hold of a component.
#[derive(Clone)]
pub(crate) struct MemoryPart {
    pub(crate) record: ComponentRecord,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl MemoryPart {
    pub(crate) fn details(&self) -> Details {
        Details::decode(&self.record.details).unwrap()
    }
}

/// Captures a component, pulling its entries to the end or to the first error. Whatever happens,
/// no password file is left behind.
pub(crate) fn capture(component: &PostgresComponent) -> Result<MemoryPart> {
    let run = run();
    let result = block_on(capture_in(component, &run.context));
    assert_eq!(std::fs::read_dir(run.scratch.path()).unwrap().count(), 0, "the scratch directory is not empty");
    result
}

async fn capture_in(component: &PostgresComponent, context: &RunContext) -> Result<MemoryPart> {
    let mut capture = component.begin(context).await?;
    let entries = capture.entries();
    let pulled = tokio::task::spawn_blocking(move || pull(entries, |_| ())).await.unwrap();
    let (files, witness) = match pulled {
        Ok(pulled) => pulled,
        Err(fault) => {
            capture.abort().await;
            return Err(fault);
        }
    };
    let proof = capture.finish().await?;
    let account = witness.account();
    let holds = StoredPart {
        component: component.id().clone(),
        tree: String::new(),
        tally: account.tally,
        streams: account.streams,
        added_bytes: 0,
        stored_bytes: 0,
    };
    let now = jiff::Timestamp::now();
    let mut draft = Draft::new("s".to_owned(), "h".to_owned(), RunId::new(now, 1), now);
    draft.add(Part::join(proof, holds).unwrap());
    let record = draft.manifest(now, None, None).components.remove(0);
    Ok(MemoryPart { record, files })
}

/// Reads everything, as a repository does: in order, each content to its end and closed.
/// `at_dump` is called after the first bytes of each dump.
pub(crate) fn pull(entries: Entries, mut at_dump: impl FnMut(&str)) -> Result<(BTreeMap<String, Vec<u8>>, Witness)> {
    let witness = Witness::new();
    let mut files = BTreeMap::new();
    let mut last: Option<EntryPath> = None;
    for entry in witness.watch(entries) {
        let entry = entry?;
        assert!(last.as_ref() < Some(&entry.path), "{:?} is out of order", entry.path);
        last = Some(entry.path.clone());
        let name = entry.path.to_string();
        let Content::Stream(mut content) = entry.content else {
            assert_eq!(entry.meta.kind, EntryKind::Directory);
            continue;
        };
        let mut bytes = Vec::new();
        let mut piece = vec![0; 50_000];
        loop {
            let given = match content.read(&mut piece) {
                Ok(0) => break,
                Ok(given) => given,
                Err(ReadFault::Abort(fault)) => return Err(fault),
                Err(ReadFault::Skip) => panic!("an entry cannot be skipped"),
            };
            if bytes.is_empty() && Path::new(&name).extension().is_some_and(|extension| extension == "dump") {
                at_dump(&name);
            }
            bytes.extend_from_slice(&piece[..given]);
        }
        content.close()?;
        files.insert(name, bytes);
    }
    Ok((files, witness))
}

struct Memory(Cursor<Vec<u8>>);

impl ContentRead for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        Ok(self.0.read(buffer).unwrap())
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        Ok(Closing::Keep(Box::new(Meta::synthetic(EntryKind::File, jiff::Timestamp::now()))))
    }
}

impl PartReader for MemoryPart {
    fn record(&self) -> &ComponentRecord {
        &self.record
    }

    fn list(&self, _: Option<&EntryPath>) -> Result<Box<dyn Iterator<Item = Result<StoredEntry>> + Send>> {
        Err(Fault::new(codes::RUN_BUG, "list: PostgreSQL does not ask for it"))
    }

    fn open(&self, path: &EntryPath) -> Result<Box<dyn ContentRead>> {
        Ok(Box::new(Memory(Cursor::new(self.files[&path.to_string()].clone()))))
    }

    fn materialize(&self, _: &Materialize, _: &RunContext) -> Result<Materialized> {
        Err(Fault::new(codes::RUN_BUG, "materialize: PostgreSQL does not ask for it"))
    }
}

pub(crate) fn request(target: Target) -> RestoreRequest {
    RestoreRequest {
        point: "0123456789abcdef".repeat(4).parse::<PointId>().unwrap(),
        target,
        select: Vec::new(),
        overwrite: false,
        jobs: 1,
        server: None,
    }
}

/// Restores and checks; every finding has to be good.
pub(crate) fn restore(
    component: &PostgresComponent,
    part: &MemoryPart,
    request: &RestoreRequest,
) -> Result<RestoreReport> {
    let (report, findings) = restore_and_check(component, part, request)?;
    for finding in findings {
        assert_eq!(finding.level, Level::Good, "{finding:?}");
    }
    Ok(report)
}

pub(crate) fn restore_and_check(
    component: &PostgresComponent,
    part: &MemoryPart,
    request: &RestoreRequest,
) -> Result<(RestoreReport, Vec<Finding>)> {
    let run = run();
    let part: Arc<dyn PartReader> = Arc::new(part.clone());
    let result = block_on(async {
        let report = component.restore(Arc::clone(&part), request, &run.context).await?;
        let findings = component.check(part, &report, &run.context).await?;
        Ok((report, findings))
    });
    assert_eq!(std::fs::read_dir(run.scratch.path()).unwrap().count(), 0, "the scratch directory is not empty");
    result
}

/// A folder of programs in which `pg_dump` is a script around the real one (`$REAL`).
pub(crate) fn shim(server: &Postgres, script: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let real = server.bin_dir();
    for name in ["pg_dumpall", "pg_restore"] {
        std::os::unix::fs::symlink(real.join(name), folder.path().join(name)).unwrap();
    }
    let version = real.join("pg_dump");
    let text = format!(
        "#!/bin/sh\nREAL={}\nif [ \"$1\" = --version ]; then exec \"$REAL\" --version; fi\n{script}\n",
        version.display()
    );
    write_program(&folder.path().join("pg_dump"), &text);
    let path = folder.path().to_owned();
    (folder, path)
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The databases of a server.
pub(crate) fn databases(server: &Postgres) -> Vec<String> {
    let sql = "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1";
    server.psql("postgres", sql).lines().map(str::to_owned).collect()
}
