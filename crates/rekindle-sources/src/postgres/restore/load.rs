//! `pg_restore`: from the stream, or with several workers from a private file.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rekindle_core::entry::{EntryPath, ReadFault};
use rekindle_core::port::PartReader;
use rekindle_core::{Cancel, Fault, Result, codes};

use super::Job;
use super::target::Plan;
use crate::child::{ChildSpec, Ended, Judge, Stop, feed};
use crate::postgres::access::Access;
use crate::postgres::quote::conninfo;
use crate::postgres::{blocking, catalog};

/// Building an index may keep `pg_restore` from reading for long; only a dead one is that silent.
const RESTORE_IDLE_MAX: Duration = Duration::from_hours(24);
/// Share of free space that is left alone, in percent.
const SPACE_RESERVE: u64 = 5;

/// Loads a dump into the new, empty database.
pub(super) async fn load(job: &mut Job<'_>, part: &Arc<dyn PartReader>, plan: &Plan<'_>) -> Result<()> {
    let path = EntryPath::new(plan.record.file.as_str())
        .map_err(|error| Fault::new(codes::PG_DETAILS, "name the dump").because(error))?;
    let mut streams = part.record().streams.iter();
    let size = streams.find(|stream| stream.path == path.to_string());
    let size = size.map_or(0, |stream| stream.bytes);
    let spool = spool(job, size);
    let mut args: Vec<OsString> =
        vec!["--exit-on-error".into(), "--no-password".into(), format!("--dbname={}", conninfo(&plan.build_as)).into()];
    let sql = "SELECT spcname::text FROM pg_tablespace";
    let tablespaces = catalog::names(&job.admin, "list the tablespaces", sql).await?;
    if plan.record.tablespaces.iter().any(|t| !tablespaces.contains(t)) {
        args.push("--no-tablespaces".into());
    }
    let access = Access::new(&job.server, &job.context.scratch)?;
    let spec = access.child(
        &job.programs,
        "pg_restore",
        args,
        RESTORE_IDLE_MAX,
        format!("load the database `{}`", plan.build_as),
        codes::PG_RESTORE,
    );
    let work = Work {
        part: Arc::clone(part),
        path,
        spec: writable(spec),
        cancel: job.context.cancel.clone(),
        judge: judge(&plan.build_as),
        // The password file lives as long as the work.
        _access: access,
    };
    let jobs = job.request.jobs;
    let bytes = blocking(move || match spool {
        Some(folder) => work.parallel(&folder, jobs),
        None => work.stream(),
    })
    .await?;
    job.report.bytes += bytes;
    job.report.entries += 1;
    Ok(())
}

fn writable(mut spec: ChildSpec) -> ChildSpec {
    let options = "-c default_transaction_read_only=off -c statement_timeout=0";
    spec.env.push(("PGOPTIONS".to_owned(), options.into()));
    spec
}

fn judge(database: &str) -> Judge {
    let database = database.to_owned();
    Box::new(move |ended: &Ended| {
        Fault::new(codes::PG_RESTORE, format!("load the database `{database}`")).because(ended.describe()).hint(
            "the half restored database is dropped and nothing else was touched; remove the \
                 cause (often a missing role, or a role that is no superuser) and restore again",
        )
    })
}

/// The folder for the dump when several workers are wanted: they need a file to seek in.
fn spool(job: &mut Job<'_>, size: u64) -> Option<PathBuf> {
    // A file of this host is not in the container: there one worker takes the stream.
    if job.request.jobs <= 1 || job.programs.home.is_some() {
        return None;
    }
    let options = &job.component.options;
    let folder = options.spool_dir.clone();
    let folder = folder.unwrap_or_else(|| job.context.scratch.clone());
    let free = rustix::fs::statvfs(&folder).map_or(0, |s| s.f_bavail * s.f_frsize);
    if size <= free / 100 * (100 - SPACE_RESERVE) {
        return Some(folder);
    }
    job.warn(format!(
        "one worker instead of {}: {} has {free} bytes free, the dump takes {size}",
        job.request.jobs,
        folder.display()
    ));
    None
}

struct Work {
    part: Arc<dyn PartReader>,
    path: EntryPath,
    spec: ChildSpec,
    cancel: Cancel,
    judge: Judge,
    _access: Access,
}

impl Work {
    fn stream(self) -> Result<u64> {
        let content = self.part.open(&self.path)?;
        let stop = Stop::new(self.cancel);
        feed(self.spec, stop, Some(content), RESTORE_IDLE_MAX, &self.judge)
    }

    fn parallel(self, folder: &Path, jobs: usize) -> Result<u64> {
        let spooled = Spooled::write(self.part.as_ref(), &self.path, folder, &self.cancel)?;
        // Section by section: in one go, parallel workers may create the trigger of a partitioned
        // table before the rows of its partitions are loaded, and it fires for every row.
        for section in ["pre-data", "data", "post-data"] {
            let mut spec = self.spec.clone();
            spec.args.push(format!("--section={section}").into());
            spec.args.push(format!("--jobs={jobs}").into());
            spec.args.push(spooled.path.clone().into());
            feed(spec, Stop::new(self.cancel.clone()), None, RESTORE_IDLE_MAX, &self.judge)?;
        }
        Ok(spooled.bytes)
    }
}

/// A dump in a private file, removed when it is done with.
struct Spooled {
    path: PathBuf,
    bytes: u64,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        // It is in a private directory of the run, which is removed too.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Spooled {
    fn write(part: &dyn PartReader, path: &EntryPath, folder: &Path, cancel: &Cancel) -> Result<Self> {
        let file_path = folder.join(format!("restore-{}.dump", std::process::id()));
        let fault = |error: std::io::Error| {
            Fault::new(codes::PG_SPACE, format!("write {}", file_path.display()))
                .because(error)
                .hint("restore with one worker (`--jobs 1`): it needs no file")
        };
        let mut file: File =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file_path).map_err(fault)?;
        let mut spooled = Self { path: file_path.clone(), bytes: 0 };
        let mut content = part.open(path)?;
        let mut buffer = vec![0; 1024 * 1024];
        loop {
            cancel.check()?;
            let given = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(given) => given,
                Err(ReadFault::Abort(fault)) => return Err(fault),
                Err(ReadFault::Skip) => {
                    return Err(Fault::new(codes::PG_RESTORE, "read the dump: it is not there"));
                }
            };
            file.write_all(&buffer[..given]).map_err(fault)?;
            spooled.bytes += given as u64;
        }
        content.close()?;
        Ok(spooled)
    }
}
