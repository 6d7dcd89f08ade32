//! `copy`

use std::fmt::Write as _;
use std::sync::Arc;

use clap::Args;
use rekindle_config::{Config, CopyTo};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{Clock, RunContext};
use rekindle_core::{Fault, codes};
use rekindle_repo::admin::{self, KeyLabel};
use rekindle_repo::copy::{self, CopyReport, FailedPoint, Mirrored};
use rekindle_repo::{Repo, immutable, points};
use rekindle_store::{Limited, ReadBack, Store};
use serde_json::{Value, json};

use crate::output::{Answer, fault_object};
use crate::session::{Faults, Session, SystemClock};
use crate::wire::Place;
use crate::{human, wire};

/// Bring every point, and the write-ahead log, to the copies of the configuration
///
/// Only what a copy does not hold is sent; a copy that was stopped goes on where it was. Everything that is written is
/// read back, and a point is in the copy only when all of it is. Points removed from a copy on purpose stay away.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// Copies, by their names in the configuration; none: all
    names: Vec<String>,
    /// Make the repositories of copies that are not there yet, each with a key of its own
    #[arg(long)]
    init: bool,
}

/// What became of one copy.
struct Done {
    name: String,
    url: String,
    made: bool,
    lag_seconds: u64,
    report: CopyReport,
}

impl Copy {
    /// The copies it is about.
    pub(crate) fn names(&self, config: &Config) -> Vec<String> {
        if self.names.is_empty() {
            config.copies.iter().map(|one| one.name.clone()).collect()
        } else {
            self.names.clone()
        }
    }

    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let chosen: Vec<&CopyTo> = if self.names.is_empty() {
            config.copies.iter().collect()
        } else {
            self.names.iter().map(|name| wire::copy(&config, name)).collect::<Result<_, _>>()?
        };
        if chosen.is_empty() {
            return Err(Fault::new(codes::COPY_UNKNOWN, "copy the repository: the configuration names no copy")
                .hint("add `[copy.offsite]` with `url` and `password`, then `rekindle copy --init`")
                .into());
        }
        let given = wire::password_given(session)?;
        let source = wire::open(session, &wire::of_config(session, &config, given.as_ref())?)?;
        let (context, _scratch) = session.context()?;
        let (mut list, mut text, mut faults) = (Vec::new(), String::new(), Vec::new());
        for copy in chosen {
            session.cancel.check()?;
            match self.one(session, &config, copy, &source, &context) {
                Ok(done) => {
                    text.push_str(&done.text());
                    list.push(done.json());
                    faults.extend(done.report.not_mirrored);
                    faults.extend(done.report.failed.into_iter().map(|failed| failed.fault));
                }
                Err(fault) => {
                    let fault = fault.during(format!("copy to `{}`", copy.name));
                    list.push(json!({"copy": copy.name, "state": "failed", "error": fault_object(&fault)}));
                    faults.push(fault);
                }
            }
        }
        let answer = Answer::words(json!({"copies": list}), text);
        Ok(faults.into_iter().fold(answer, Answer::worse))
    }

    fn one(
        &self,
        session: &Session,
        config: &Config,
        copy: &CopyTo,
        source: &Repo,
        context: &RunContext,
    ) -> Result<Done, Fault> {
        let mut place = wire::of_repository(session, config, &copy.repository, None)?;
        let url = place.options.url.to_string();
        let (far, made) = match open_far(session, copy, &place) {
            Ok(far) => (far, false),
            Err(fault) if self.init && (fault.is(codes::REPO_ABSENT) || fault.is(codes::STORE_ROOT)) => {
                place.options.create_root = true;
                (make_far(session, copy, &place, source)?, true)
            }
            Err(fault) if fault.is(codes::REPO_ABSENT) || fault.is(codes::STORE_ROOT) => {
                return Err(fault.hint(format!(
                    "check that the disk is mounted and the URL is right; only for a new copy run `rekindle copy {} --init`",
                    copy.name
                )));
            }
            Err(fault) => return Err(fault),
        };
        let scope = format!("copy {}", copy.name);
        let report = copy::copy(source, &far, &scope, &wire::host(config), context)?;
        immutable::extend(&far, session.now(), false, &session.cancel)?;
        let view = points::view(source)?;
        let lag_seconds = lag(source, &view.points, &far)?.seconds(session.now());
        Ok(Done { name: copy.name.clone(), url, made, lag_seconds, report })
    }
}

/// What a copy does not have yet.
pub(super) fn lag(source: &Repo, points: &[RecoveryPoint], far: &Repo) -> Result<copy::Lag, Fault> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    copy::lag(source, points, far, &clock)
}

/// The storage of a copy as it is written to: no faster than allowed, and read back.
fn far_store(copy: &CopyTo, place: &Place) -> Result<Arc<dyn Store>, Fault> {
    let store = rekindle_store::open(&place.options)?;
    Ok(match copy.bandwidth_kib {
        None => Arc::new(ReadBack::new(store)),
        Some(kib) => Arc::new(ReadBack::new(Limited::new(store, kib.saturating_mul(1024)))),
    })
}

fn open_far(session: &Session, copy: &CopyTo, place: &Place) -> Result<Repo, Fault> {
    let handle = session.runtime.handle().clone();
    Repo::open(far_store(copy, place)?, handle, &place.password, place.repo.clone())
}

fn make_far(session: &Session, copy: &CopyTo, place: &Place, source: &Repo) -> Result<Repo, Fault> {
    let label = KeyLabel { host: wire::host_name(), user: wire::user_name(), created: session.now() };
    let handle = session.runtime.handle().clone();
    admin::init_copy(source, far_store(copy, place)?, handle, &place.password, &label, place.repo.clone())
}

impl Done {
    fn state(&self) -> &'static str {
        if self.report.failed.is_empty() && self.report.not_mirrored.is_none() { "complete" } else { "incomplete" }
    }

    fn json(&self) -> Value {
        let mut value = serde_json::to_value(&self.report).unwrap_or_default();
        value["copy"] = json!(self.name);
        value["url"] = json!(self.url);
        value["state"] = json!(self.state());
        value["made"] = json!(self.made);
        value["lag_seconds"] = json!(self.lag_seconds);
        value
    }

    fn text(&self) -> String {
        let report = &self.report;
        let mut text = String::new();
        if self.made {
            let _ = writeln!(
                text,
                "{}: made {}. Without its password nothing comes back from it: keep a copy off this host.",
                self.name, self.url
            );
        }
        // Writing into a `String` cannot fail.
        let _ = writeln!(
            text,
            "{}: {} points copied ({}), {} were there, {} could not be copied",
            self.name,
            report.copied.len(),
            human::bytes(report.bytes),
            report.there,
            report.failed.len()
        );
        if report.wal.objects > 0 {
            let (objects, bytes) = (report.wal.objects, human::bytes(report.wal.bytes));
            let _ = writeln!(text, "  write-ahead log: {objects} objects copied ({bytes})");
        }
        if report.mirrored != Mirrored::default() {
            let Mirrored { marks, proofs } = report.mirrored;
            let _ = writeln!(text, "  told of {marks} marks and {proofs} drills of the repository");
        }
        if let Some(fault) = &report.not_mirrored {
            let _ = writeln!(text, "  NOT TOLD which points are held and proved: {}", fault.chain());
        }
        if report.packs_taken_in > 0 {
            let _ = writeln!(text, "  {} packs of an earlier copy were taken in", report.packs_taken_in);
        }
        if report.packs_lost > 0 {
            let _ = writeln!(
                text,
                "  ATTENTION: the copy had lost {} packs; {} points were mended",
                report.packs_lost,
                report.mended.len()
            );
        }
        for FailedPoint { point, paths, .. } in &report.failed {
            let _ = writeln!(text, "  NOT COPIED: point {}, {} paths are not whole", point.short(), paths.len());
            for path in paths.iter().take(PATHS_SHOWN_MAX) {
                let _ = writeln!(text, "    {path}");
            }
        }
        text
    }
}

/// Lines of the text for each point; `--json` has all.
const PATHS_SHOWN_MAX: usize = 20;
