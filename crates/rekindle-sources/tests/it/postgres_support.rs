//! A capture pulled to its end into memory, and read back from there, for PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::port::{
    Clock, Component, Finding, Level, PartReader, Quiet, RestoreReport, RestoreRequest, RunContext,
};
use rekindle_core::{Cancel, Result, RunId};
use rekindle_sources::postgres::details::Details;
use rekindle_sources::postgres::{Databases, PostgresComponent, PostgresOptions};
use rekindle_testkit::{Postgres, PostgresOptions as ServerOptions};

use crate::memory_part::capture_in;
pub(crate) use crate::memory_part::{MemoryPart, pull, request};

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
