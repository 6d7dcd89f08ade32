//! Bringing the blocks back: into a new directory, or in place of the old ones.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::entry::EntryPath;
use rekindle_core::port::{PartReader, RestoreReport, RestoreRequest, RunContext, Target};
use rekindle_core::{ComponentId, Fault, Result, codes};
use serde::{Deserialize, Serialize};

use super::blocking;
use super::blocks::TOP;
use super::details::PrometheusDetails;
use super::options::PrometheusOptions;
use super::retention::Retention;
use super::server::Server;
use crate::files::companions;
use crate::files::show;
use crate::files::tree::{TreeOrder, place};
use crate::files::{OWNERS_NOT_SET, holds_something, may_set_owners, take_back, warn_of_attributes};
use crate::occupied::occupant;
use crate::steps::Steps;

/// Where a restore put the data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Placed {
    /// Good as a `--storage.tsdb.path`.
    pub(super) data: PathBuf,
    /// Where the old state is, when there was one.
    #[serde(default)]
    pub(super) kept: Option<PathBuf>,
}

/// Takes a restore in place back.
pub(super) async fn roll_back(options: &PrometheusOptions, report: &RestoreReport) -> Result<()> {
    let Placed { data, kept } = serde_json::from_value(report.details.clone())
        .map_err(|error| Fault::new(codes::RUN_BUG, "read the record of a restore").because(error))?;
    let theirs = server_directory(options).await;
    blocking(move || {
        refuse_running(&data, theirs.as_deref())?;
        take_back(&data, kept.as_deref())
    })
    .await
}

/// Names of a directory restored to a new place.
const DATA: &str = "data";

pub(super) async fn restore(
    id: &ComponentId,
    options: &PrometheusOptions,
    part: Arc<dyn PartReader>,
    request: &RestoreRequest,
    context: &RunContext,
) -> Result<RestoreReport> {
    if !request.select.is_empty() {
        return Err(Fault::new(codes::ENGINE_TARGET, format!("restore parts of `{id}`"))
            .because("a Prometheus is restored as a whole")
            .hint("leave the selection out, or read single files with `rekindle cat`"));
    }
    let details = PrometheusDetails::decode(&part.record().details)?;
    let site = Site::find(id, options, &details, request)?;
    let theirs = server_directory(options).await;
    let (request, context) = (request.clone(), context.clone());
    blocking(move || site.restore(&details, &*part, &request, theirs.as_deref(), &context)).await
}

/// The data directory of the server that answers at the configured place, if one does.
async fn server_directory(options: &PrometheusOptions) -> Option<PathBuf> {
    let facts = Server::new(options).ok()?.facts().await.ok()?;
    Some(super::capture::data_dir(options, &facts))
}

/// What stands in the data directory that a restore in place would take.
pub(super) fn occupied(
    id: &ComponentId,
    options: &PrometheusOptions,
    details: &serde_json::Value,
    request: &RestoreRequest,
) -> Result<Option<String>> {
    let data = Site::find(id, options, &PrometheusDetails::decode(details)?, request)?.data;
    let look = holds_something(&data).map_err(|error| {
        Fault::new(codes::FILES_TARGET, format!("look whether `{}` is empty", show(&data))).because(error)
    })?;
    Ok(look.then(|| format!("`{}` is not empty", show(&data))))
}

struct Site {
    data: PathBuf,
    /// Where the files go: a directory of their own, or to their places.
    files: Files,
}

enum Files {
    Into(PathBuf),
    Back { aside: PathBuf },
}

impl Site {
    fn find(
        id: &ComponentId,
        options: &PrometheusOptions,
        details: &PrometheusDetails,
        request: &RestoreRequest,
    ) -> Result<Self> {
        match &request.target {
            Target::New(directory) => {
                let name = || format!("./restore-{id}-{}", request.point.short());
                let top = PathBuf::from(directory.clone().unwrap_or_else(name));
                let top = std::path::absolute(&top).map_err(|error| {
                    Fault::new(codes::FILES_TARGET, format!("find `{}`", show(&top))).because(error)
                })?;
                let data = top.join(DATA);
                refuse_data(&data, request.overwrite)?;
                Ok(Self { data, files: Files::Into(top.join(companions::TOP)) })
            }
            Target::InPlace { .. } => {
                let data = options.data_dir.clone().unwrap_or_else(|| details.data_dir.clone());
                let mut aside = data.file_name().unwrap_or_default().to_owned();
                aside.push(format!(".files-{}", request.point.short()));
                let aside = data.with_file_name(aside);
                Ok(Self { data, files: Files::Back { aside } })
            }
            Target::Live => Err(Fault::new(codes::ENGINE_TARGET, format!("restore `{id}` into a running server"))
                .because("Prometheus takes blocks only at its start")
                .hint("stop it and restore with `--in-place`, or into a new directory with `--to DIR`")),
        }
    }

    fn restore(
        &self,
        details: &PrometheusDetails,
        part: &dyn PartReader,
        request: &RestoreRequest,
        theirs: Option<&Path>,
        context: &RunContext,
    ) -> Result<RestoreReport> {
        let mut steps = Steps::new();
        refuse_running(&self.data, theirs)?;
        let order = TreeOrder {
            part,
            within: EntryPath::new(TOP).map_err(|why| Fault::new(codes::RUN_BUG, "name the blocks").because(why))?,
            live: &self.data,
            point: request.point.short(),
            with_losses: request.overwrite,
        };
        let placed = place(&order, &|| refuse_running(&self.data, theirs), context)?;
        steps.done("blocks");
        let mut report = RestoreReport {
            place: self.data.display().to_string(),
            entries: placed.written.entries,
            bytes: placed.written.bytes,
            lost: placed.written.lost,
            kept_old: placed.kept.as_deref().map(show),
            ..RestoreReport::default()
        };
        if !may_set_owners() {
            report.warnings.push(OWNERS_NOT_SET.to_owned());
        }
        warn_of_attributes(&mut report.warnings, &placed.written.attribute_problems);
        self.restore_files(part, &mut report, context)?;
        steps.done("files");
        if let (Target::InPlace { discard_old: true }, Some(old)) = (&request.target, &placed.kept) {
            match fs::remove_dir_all(old) {
                Ok(()) => report.kept_old = None,
                Err(error) => {
                    report.warnings.push(format!("the old state `{}` could not be removed: {error}", show(old)));
                }
            }
            steps.done("discard the old state");
        }
        report.warnings.extend(warnings(details, &self.data, context));
        report.steps = steps.into_vec();
        report.details = serde_json::to_value(Placed { data: self.data.clone(), kept: placed.kept.clone() })
            .map_err(|error| Fault::new(codes::RUN_BUG, "write the record of a restore").because(error))?;
        Ok(report)
    }

    fn restore_files(&self, part: &dyn PartReader, report: &mut RestoreReport, context: &RunContext) -> Result<()> {
        if !companions::any(part)? {
            return Ok(());
        }
        let written = match &self.files {
            Files::Into(directory) => companions::write(part, directory, context)?,
            Files::Back { aside } => {
                let back = companions::put_back(part, aside, context)?;
                report.warnings.extend(back.warnings());
                back.written
            }
        };
        report.entries += written.entries;
        report.bytes += written.bytes;
        report.lost.extend(written.lost);
        warn_of_attributes(&mut report.warnings, &written.attribute_problems);
        Ok(())
    }
}

fn refuse_data(data: &Path, overwrite: bool) -> Result<()> {
    let occupied = fs::read_dir(data).is_ok_and(|mut names| names.next().is_some());
    if occupied && !overwrite {
        return Err(Fault::new(codes::PROM_TARGET_NOT_EMPTY, format!("restore into `{}`", show(data)))
            .because("it is not empty")
            .hint("choose another directory with `--to DIR`, or pass `--overwrite` (what is there is moved aside)"));
    }
    Ok(())
}

/// A server that works on the directory would go on writing into the old one, and end in neither.
fn refuse_running(data: &Path, theirs: Option<&Path>) -> Result<()> {
    let running = |why: String| {
        Err(Fault::new(codes::PROM_TARGET_RUNNING, format!("restore into `{}`", show(data)))
            .because(why)
            .hint("stop it first, for example `systemctl stop prometheus`"))
    };
    // It locks this file (flock(2)) unless told otherwise.
    if let Ok(lock) = File::open(data.join("lock"))
        && matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock))
    {
        return running("its `lock` file is held".to_owned());
    }
    if let Some(found) = occupant(data, |_| true) {
        return running(format!("process {} (`{}`) has files open there", found.pid, found.name));
    }
    let same = |theirs: &Path| match (theirs.canonicalize(), data.canonicalize()) {
        (Ok(theirs), Ok(data)) => theirs == data,
        _ => false,
    };
    if theirs.is_some_and(same) {
        return running("the configured server answers and uses it".to_owned());
    }
    Ok(())
}

fn warnings(details: &PrometheusDetails, data: &Path, context: &RunContext) -> Vec<String> {
    let mut warnings = vec![format!(
        "start Prometheus {} or newer with `--storage.tsdb.path={}`",
        details.server_version,
        data.display()
    )];
    if details.head_series_left_out > 0 {
        warnings
            .push("the point holds finished blocks only: what was in the head at the capture is not in it".to_owned());
    }
    let retention = Retention::parse(&details.retention);
    let now = context.clock.now().as_millisecond();
    if let Some(keep) = retention.time {
        let oldest = now.saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        let old = details.blocks.iter().filter(|block| block.max_time < oldest).count();
        if old > 0 {
            warnings.push(format!(
                "{old} of {} blocks are older than the retention of {}: the server deletes them once it has newer blocks; start it with a longer `--storage.tsdb.retention.time` to keep them",
                details.blocks.len(),
                details.retention
            ));
        }
    }
    let bytes: u64 = details.blocks.iter().map(|block| block.bytes).sum();
    if retention.bytes.is_some_and(|most| bytes > most) {
        warnings.push(format!(
            "the blocks take {bytes} bytes, more than the retention of {}: the server deletes the oldest at its start; raise `--storage.tsdb.retention.size` to keep them",
            details.retention
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rekindle_core::port::{Clock, Quiet};
    use rekindle_core::{Cancel, RunId};

    use super::super::details::BlockFacts;
    use super::*;

    struct At(i64);

    impl Clock for At {
        fn now(&self) -> jiff::Timestamp {
            jiff::Timestamp::from_second(self.0).unwrap()
        }
    }

    fn told(retention: &str, days_old: i64) -> String {
        let day = 86_400;
        let block = BlockFacts {
            ulid: String::new(),
            min_time: 0,
            max_time: day * 1000,
            samples: 1,
            series: 1,
            chunks: 1,
            tombstones: 0,
            level: 1,
            bytes: 5 << 20,
        };
        let details = PrometheusDetails {
            version: 1,
            server_version: "2.42.0".to_owned(),
            method: "snapshot".to_owned(),
            data_dir: PathBuf::new(),
            retention: retention.to_owned(),
            min_time: Some(0),
            max_time: Some(day * 1000),
            samples: 1,
            series: 1,
            blocks: vec![block],
            head_series_left_out: 0,
            files: Vec::new(),
        };
        let context = RunContext {
            run: RunId::new(jiff::Timestamp::UNIX_EPOCH, 1),
            cancel: Cancel::new(),
            monitor: Arc::new(Quiet),
            clock: Arc::new(At(day * (1 + days_old))),
            scratch: PathBuf::new(),
        };
        warnings(&details, Path::new("/d"), &context).join("\n")
    }

    #[test]
    fn blocks_that_the_server_would_delete_are_told() {
        assert!(told("15d", 16).contains("1 of 1 blocks are older than the retention of 15d"));
        assert!(!told("15d", 14).contains("retention"));
        assert!(told("4MiB", 0).contains("raise `--storage.tsdb.retention.size`"));
        assert!(!told("", 1000).contains("retention"));
    }
}
