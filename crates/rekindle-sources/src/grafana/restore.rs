//! Bringing the database back: into a new directory, or in place. Whatever stood beside the old
//! database for it (`-wal`, `-shm`, `-journal`) goes with it: next to the restored one it would
//! silently replace what was restored.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rekindle_core::entry::{ContentRead, EntryPath, Meta, ReadFault};
use rekindle_core::port::{PartReader, RestoreReport, RestoreRequest, RunContext, Target};
use rekindle_core::{ComponentId, Fault, Result, codes};
use serde::{Deserialize, Serialize};

use super::capture::{DATABASE, KEY};
use super::details::GrafanaDetails;
use super::options::GrafanaOptions;
use super::settings::Settings;
use crate::files::companions;
use crate::files::{OWNERS_NOT_SET, may_set_owners, show, warn_of_attributes};
use crate::occupied::occupant;
use crate::steps::Steps;

/// What belongs to a database file, by the end of its name.
pub(super) const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Kept old states of one point.
const KEPT_MAX: u32 = 100;

/// Where a restore put the data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Placed {
    pub(super) database: PathBuf,
    /// The directory with the old database, when there was one.
    #[serde(default)]
    pub(super) kept: Option<PathBuf>,
}

/// What stands where a restore in place would put the database.
pub(super) fn occupied(
    id: &ComponentId,
    options: &GrafanaOptions,
    details: &serde_json::Value,
    request: &RestoreRequest,
) -> Result<Option<String>> {
    let database = Site::find(id, options, &GrafanaDetails::decode(details)?, request)?.database;
    match fs::symlink_metadata(&database) {
        Ok(_) => Ok(Some(format!("`{}` is there", show(&database)))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(target_fault("look at", &database, error)),
    }
}

/// Where everything goes.
struct Site {
    database: PathBuf,
    in_place: bool,
    /// Of the files: their directory, or where those go that differ from what is in place.
    files: PathBuf,
}

pub(super) fn restore(
    id: &ComponentId,
    options: &GrafanaOptions,
    part: &dyn PartReader,
    request: &RestoreRequest,
    context: &RunContext,
) -> Result<RestoreReport> {
    if !request.select.is_empty() {
        return Err(Fault::new(codes::ENGINE_TARGET, format!("restore parts of `{id}`"))
            .because("a Grafana is restored as a whole")
            .hint("leave the selection out, or read single files with `rekindle cat`"));
    }
    let details = GrafanaDetails::decode(&part.record().details)?;
    let site = Site::find(id, options, &details, request)?;
    let mut steps = Steps::new();
    if site.in_place {
        refuse_other_version(options, &details, request.overwrite)?;
    }
    refuse_running(&site.database)?;
    let parent = site.database.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .map_err(|error| target_fault("create", parent, error))?;
    let staged = beside(&site.database, &format!(".rekindle-{}", request.point.short()));
    context.monitor.phase(id.as_str(), "write the database");
    let written = write(part, &staged, &site.database, context);
    let moved = written.and_then(|bytes| {
        refuse_running(&site.database)?;
        Ok((bytes, install(&staged, &site.database, request.point.short())?))
    });
    let (bytes, kept) = match moved {
        Ok(done) => done,
        Err(fault) => {
            let _ = fs::remove_file(&staged);
            return Err(fault);
        }
    };
    steps.done("database");
    let mut report = RestoreReport {
        place: site.database.display().to_string(),
        entries: 1,
        bytes,
        kept_old: kept.as_deref().map(show),
        ..RestoreReport::default()
    };
    site.restore_files(part, &mut report, context)?;
    steps.done("files");
    if let (Target::InPlace { discard_old: true }, Some(old)) = (&request.target, &kept) {
        fs::remove_dir_all(old).map_err(|error| target_fault("remove", old, error))?;
        report.kept_old = None;
    }
    report.warnings.extend(warnings(&details));
    report.steps = steps.into_vec();
    report.details = serde_json::to_value(Placed { database: site.database, kept })
        .map_err(|error| Fault::new(codes::RUN_BUG, "write the record of a restore").because(error))?;
    Ok(report)
}

impl Site {
    fn find(
        id: &ComponentId,
        options: &GrafanaOptions,
        details: &GrafanaDetails,
        request: &RestoreRequest,
    ) -> Result<Self> {
        match &request.target {
            Target::New(directory) => {
                let name = || format!("./restore-{id}-{}", request.point.short());
                let top = PathBuf::from(directory.clone().unwrap_or_else(name));
                let top = std::path::absolute(&top).map_err(|error| target_fault("find", &top, error))?;
                let occupied = fs::read_dir(&top).is_ok_and(|mut names| names.next().is_some());
                if occupied && !request.overwrite {
                    return Err(Fault::new(codes::GRAFANA_TARGET_NOT_EMPTY, format!("restore into `{}`", show(&top)))
                        .because("it is not empty")
                        .hint("choose another directory with `--to DIR`, or pass `--overwrite` (an old database is moved aside)"));
                }
                Ok(Self { database: top.join(DATABASE), in_place: false, files: top.join(companions::TOP) })
            }
            Target::InPlace { .. } => {
                let known = options.database.is_some() || options.data_dir.is_some() || options.config.is_some();
                let settings = Settings::find(options).ok().filter(|_| known);
                let database = settings.map_or_else(|| details.database.clone(), |found| found.database);
                let files = beside(&database, &format!(".files-{}", request.point.short()));
                Ok(Self { database, in_place: true, files })
            }
            Target::Live => Err(Fault::new(codes::ENGINE_TARGET, format!("restore `{id}` into a running server"))
                .because("Grafana has to be stopped while its database is replaced")
                .hint("stop it and restore with `--in-place`, or into a new directory with `--to DIR`")),
        }
    }

    fn restore_files(&self, part: &dyn PartReader, report: &mut RestoreReport, context: &RunContext) -> Result<()> {
        if !may_set_owners() {
            report.warnings.push(OWNERS_NOT_SET.to_owned());
        }
        if !companions::any(part)? {
            return Ok(());
        }
        let written = if self.in_place {
            let back = companions::put_back(part, &self.files, context)?;
            report.warnings.extend(back.warnings());
            back.written
        } else {
            companions::write(part, &self.files, context)?
        };
        report.entries += written.entries;
        report.bytes += written.bytes;
        report.lost.extend(written.lost);
        warn_of_attributes(&mut report.warnings, &written.attribute_problems);
        Ok(())
    }
}

/// The path with something after its last name.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(end);
    path.with_file_name(name)
}

pub(super) fn target_fault(doing: &str, path: &Path, error: impl Into<std::io::Error>) -> Fault {
    Fault::new(codes::GRAFANA_TARGET, format!("{doing} `{}`", show(path)))
        .because(error.into())
        .hint("check the directory, its rights and its free space, or restore to another one with `--to DIR`")
}

/// Migrations run forward only, and a newer Grafana has shown old dashboards or lost folders when it was
/// started on a restored older database.
fn refuse_other_version(options: &GrafanaOptions, details: &GrafanaDetails, told: bool) -> Result<()> {
    let installed = Settings::find(options).ok().and_then(|found| found.version);
    match (&details.server_version, installed) {
        (Some(captured), Some(installed)) if *captured != installed && !told => {
            Err(Fault::new(codes::GRAFANA_VERSION, "restore the database of Grafana")
                .because(format!("it was captured from {captured}, and {installed} is installed here"))
                .hint(format!("install Grafana {captured}, restore, then upgrade; or pass `--overwrite` to go on")))
        }
        _ => Ok(()),
    }
}

pub(super) fn refuse_running(database: &Path) -> Result<()> {
    match occupant(database, |_| true) {
        None => Ok(()),
        Some(found) => {
            Err(Fault::new(codes::GRAFANA_TARGET_RUNNING, format!("replace the database `{}`", show(database)))
                .because(format!("process {} (`{}`) has it open", found.pid, found.name))
                .hint("stop it first, for example `systemctl stop grafana-server`"))
        }
    }
}

/// Writes the database beside its place, with the owner and mode of the one that is there, or else as
/// captured; durable.
fn write(part: &dyn PartReader, staged: &Path, database: &Path, context: &RunContext) -> Result<u64> {
    let path = EntryPath::new(DATABASE).map_err(|why| Fault::new(codes::RUN_BUG, "name the database").because(why))?;
    let captured = part.list(Some(&path))?.next().transpose()?.map(|entry| entry.meta);
    let mut from = part.open(&path)?;
    let fail = |error| target_fault("write", staged, error);
    let _ = fs::remove_file(staged);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(staged).map_err(fail)?;
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        context.cancel.check()?;
        match ContentRead::read(&mut *from, &mut buffer) {
            Ok(0) => break,
            Ok(given) => {
                file.write_all(&buffer[..given]).map_err(fail)?;
                bytes += given as u64;
            }
            Err(ReadFault::Abort(fault)) => return Err(fault),
            Err(ReadFault::Skip) => {
                return Err(Fault::new(codes::RUN_BUG, "read the database").because("it was skipped"));
            }
        }
    }
    from.close()?;
    own(&file, database, captured.as_ref()).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    Ok(bytes)
}

fn own(file: &File, database: &Path, captured: Option<&Meta>) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let there = fs::metadata(database).ok().map(|meta| (meta.uid(), meta.gid(), meta.mode() & 0o7777));
    let Some((uid, gid, mode)) = there.or(captured.map(|meta| (meta.uid, meta.gid, meta.mode))) else {
        return Ok(());
    };
    if may_set_owners() {
        fchown(file, Some(uid), Some(gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Moves the old database and what belongs to it aside, then the new one in; all or nothing.
fn install(staged: &Path, database: &Path, point: &str) -> Result<Option<PathBuf>> {
    let old: Vec<PathBuf> = std::iter::once(database.to_owned())
        .chain(BESIDE.iter().map(|end| beside(database, end)))
        .filter(|path| path.symlink_metadata().is_ok())
        .collect();
    let mut aside = None;
    let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut exchange = || -> Result<()> {
        let mut shift = |from: &Path, to: PathBuf| -> Result<()> {
            fs::rename(from, &to).map_err(|error| target_fault("move", from, error))?;
            moved.push((from.to_owned(), to));
            Ok(())
        };
        if !old.is_empty() {
            let place = aside.insert(make_aside(database, point)?).clone();
            for path in &old {
                shift(path, place.join(path.file_name().unwrap_or_default()))?;
            }
        }
        shift(staged, database.to_owned())?;
        let parent = database.parent().unwrap_or(Path::new("/"));
        File::open(parent).and_then(|open| open.sync_all()).map_err(|error| target_fault("sync", parent, error))
    };
    let outcome = exchange();
    if outcome.is_err() {
        for (from, to) in moved.iter().rev() {
            // The first error is the one to tell; what cannot be moved back stays where it is.
            let _ = fs::rename(to, from);
        }
    }
    outcome.map(|()| aside)
}

fn make_aside(database: &Path, point: &str) -> Result<PathBuf> {
    for number in 1..=KEPT_MAX {
        let end = if number == 1 { String::new() } else { format!("-{number}") };
        let place = beside(database, &format!(".pre-restore-{point}{end}"));
        match fs::DirBuilder::new().mode(0o700).create(&place) {
            Ok(()) => return Ok(place),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(target_fault("create", &place, error)),
        }
    }
    Err(target_fault("find a free name beside", database, std::io::ErrorKind::AlreadyExists)
        .hint("remove old `*.pre-restore-*` directories there"))
}

fn warnings(details: &GrafanaDetails) -> Vec<String> {
    let version = details.server_version.as_deref().map_or_else(
        || "start the same version of Grafana that was captured (it is not known here)".to_owned(),
        |version| format!("start exactly Grafana {version}; upgrade only after it runs"),
    );
    let mut warnings = vec![version];
    if let Some((what, _)) = details.secret_key.warning() {
        warnings.push(what.to_owned());
    }
    warnings.push(format!(
        "`secret_key` has to be the captured one (in the restored configuration, or `rekindle cat POINT COMPONENT/{KEY}`)"
    ));
    warnings
}
