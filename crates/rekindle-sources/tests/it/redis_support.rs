//! A capture pulled to its end into memory, and read back from there: the two ports between
//! which a repository stands.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::port::{Clock, Component, Finding, Level, PartReader, Quiet, RestoreRequest, RunContext, Target};
use rekindle_core::{Cancel, Result, RunId};
use rekindle_sources::redis::{RedisComponent, RedisDetails, RedisOptions};
use rekindle_testkit::{Redis, RedisOptions as ServerOptions, RedisProgram};

use crate::memory_part::capture_in;
pub(crate) use crate::memory_part::{MemoryPart, drain, request};

/// A clock that may go ahead.
pub(crate) struct Ahead(pub(crate) jiff::SignedDuration);

impl Clock for Ahead {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now() + self.0
    }
}

pub(crate) fn context_ahead(hours: i64) -> RunContext {
    RunContext {
        run: RunId::new(jiff::Timestamp::now(), 7),
        cancel: Cancel::new(),
        monitor: Arc::new(Quiet),
        clock: Arc::new(Ahead(jiff::SignedDuration::from_hours(hours))),
        scratch: std::env::temp_dir(),
    }
}

pub(crate) fn context() -> RunContext {
    context_ahead(0)
}

pub(crate) fn component(options: RedisOptions) -> RedisComponent {
    RedisComponent::new("cache".parse().unwrap(), options)
}

/// The component of a server of the test kit, over TCP.
pub(crate) fn component_of(server: &Redis) -> RedisComponent {
    component(options_of(server))
}

pub(crate) fn options_of(server: &Redis) -> RedisOptions {
    RedisOptions { ca_file: server.ca().map(Path::to_owned), ..RedisOptions::new(server.url()) }
}

/// A server that starts a synchronisation at once.
pub(crate) fn server(program: RedisProgram) -> Redis {
    Redis::start(server_options(program))
}

pub(crate) fn server_options(program: RedisProgram) -> ServerOptions {
    ServerOptions { program, lines: vec!["repl-diskless-sync-delay 0".to_owned()], ..ServerOptions::default() }
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

impl MemoryPart {
    pub(crate) fn redis_details(&self) -> RedisDetails {
        serde_json::from_value(self.record.details.clone()).unwrap()
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.files[name].clone()).unwrap()
    }

    pub(crate) fn dump(&self) -> &[u8] {
        &self.files["dump.rdb"]
    }

    /// The same part with other bytes in it, as a repository without checks would give.
    pub(crate) fn with_dump(&self, bytes: Vec<u8>) -> Self {
        let mut changed = self.clone();
        changed.files.insert("dump.rdb".to_owned(), bytes);
        changed
    }
}

/// Captures a component, pulling its entries to the end or to the first error.
pub(crate) fn capture(component: &RedisComponent) -> Result<MemoryPart> {
    block_on(capture_in(component, &context()))
}

pub(crate) fn new_directory(path: &Path) -> RestoreRequest {
    request(Target::New(Some(path.to_str().unwrap().to_owned())))
}

/// Restores and checks; every finding has to be good.
pub(crate) fn restore(
    component: &RedisComponent,
    part: &MemoryPart,
    request: &RestoreRequest,
) -> Result<rekindle_core::port::RestoreReport> {
    let (report, findings) = restore_and_check(component, part, request, &context())?;
    for finding in findings {
        assert_eq!(finding.level, Level::Good, "{finding:?}");
    }
    assert_eq!(report.lost, []);
    Ok(report)
}

pub(crate) fn restore_and_check(
    component: &RedisComponent,
    part: &MemoryPart,
    request: &RestoreRequest,
    context: &RunContext,
) -> Result<(rekindle_core::port::RestoreReport, Vec<Finding>)> {
    let part: Arc<dyn PartReader> = Arc::new(part.clone());
    block_on(async {
        let report = component.restore(Arc::clone(&part), request, context).await?;
        let findings = component.check(part, &report, context).await?;
        Ok((report, findings))
    })
}

/// An empty private directory that goes away.
pub(crate) fn temporary() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("restored");
    (directory, path)
}
