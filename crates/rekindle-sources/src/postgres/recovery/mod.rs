//! A physical base backup comes back: its files, the log replayed onto them up to the target, and
//! the proof, in the server's own words, that it stopped there.

mod check;
mod give;
mod in_place;
mod owner;
mod place;
mod seen;
mod server;
mod settings;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rekindle_core::port::{PartReader, Recovery, RestoreReport, RestoreRequest, RunContext, Target};
use rekindle_core::timeline::{
    BasePoint, Chain, Ends, Found, LogEyes, RecoveryPlan, RecoveryTarget, Stop, Unplanned, plan,
};
use rekindle_core::wal::BaseBackup;
use rekindle_core::{ComponentId, Fault, Result, codes};
use serde::{Deserialize, Serialize};

pub(super) use check::check;
use give::{Giver, SPOOL};
pub(super) use in_place::roll_back;
use owner::Owner;
use place::Place;
pub use seen::Proof;
use seen::Seen;
use server::{Launch, Running};

use super::options::PostgresOptions;
use super::programs::{self, Programs};
use crate::steps::Steps;

/// How often the server's log is read.
const POLL: Duration = Duration::from_millis(25);
/// The longest silence: no line of the server, no segment taken. A checkpoint of a large cluster
/// takes its time.
const SILENCE_MAX: Duration = Duration::from_hours(2);

/// Whose cluster it is, and how its server is found.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) id: ComponentId,
    pub(super) options: PostgresOptions,
}

/// Where a recovery put the cluster: the `details` of its report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    pub version: u32,
    /// `physical`.
    pub method: String,
    pub directory: PathBuf,
    /// The programs that fit it.
    pub bin_dir: PathBuf,
    /// Its owner, when that is not whoever restored it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    pub target: String,
    /// The moment, when the target is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<jiff::Timestamp>,
    /// What was proved; none when the cluster was only laid out and not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Segments that were replayed.
    pub segments: u64,
    /// Whether it took the place of the original, and is no copy beside it.
    #[serde(default)]
    pub in_place: bool,
}

/// Turns an I/O error at a path into a fault.
fn io_fault(doing: &str, path: &Path, error: std::io::Error) -> Fault {
    Fault::new(codes::PITR_IO, format!("{doing} `{}`", path.display())).because(error)
}

/// Whether a stored part is a base backup.
pub(super) fn is_base(part: &dyn PartReader) -> bool {
    BaseBackup::of(&part.record().details).is_some()
}

fn base_of(part: &dyn PartReader) -> Result<BaseBackup> {
    let details = &part.record().details;
    let absent = || Fault::new(codes::PITR_NO_BASE, "read the record of the base backup");
    BaseBackup::of(details).ok_or_else(absent)?.map_err(|error| {
        Fault::new(codes::PG_DETAILS, "read the record of the base backup")
            .because(error)
            .hint("use the version of rekindle that wrote it, or a newer one")
    })
}

/// What stands in the configured data directory.
pub(super) fn occupied(setup: &Setup) -> Result<Option<String>> {
    let place = Place::of(&setup.id, setup.options.data_dir.as_deref(), &crate::home::request()?)?;
    let live = place.replaces.unwrap_or(place.data);
    let look = crate::files::holds_something(&live);
    let look = look.map_err(|error| io_fault("look whether there is something in", &live, error))?;
    Ok(look.then(|| format!("`{}` is not empty", live.display())))
}

/// A base backup alone needs nobody to look into a log.
struct NoEyes;

impl LogEyes for NoEyes {
    fn ends(&mut self, _: &BaseBackup, _: &Chain) -> Result<Ends> {
        Ok(Ends::default())
    }

    fn find(&mut self, _: &BaseBackup, _: &Chain, _: Option<rekindle_core::wal::Lsn>, _: &Stop) -> Result<Found> {
        Ok(Found::Unknown)
    }
}

/// What is asked for; without a word about it, the base backup to its own end.
fn recovery(part: &dyn PartReader, request: &RestoreRequest) -> Result<Recovery> {
    if let Some(recovery) = &request.recovery {
        return Ok(recovery.clone());
    }
    let alone = BasePoint { point: request.point.clone(), base: base_of(part)? };
    match plan(&RecoveryTarget::new(Stop::Immediate), &[alone], &[], &mut NoEyes) {
        Ok(plan) => Ok(Recovery { plan, log: None, no_start: false, owner: None }),
        Err(Unplanned::Refused(refusal)) => Err(refusal.fault(|name| format!("{:?}", name.number))),
        Err(Unplanned::Failed(fault)) => Err(fault),
    }
}

/// What the steps share.
struct Job {
    setup: Setup,
    recovery: Recovery,
    base: BaseBackup,
    place: Place,
    owner: Option<Owner>,
    programs: Programs,
    context: RunContext,
    steps: Steps,
    report: RestoreReport,
}

/// Restores a base backup, replays the log, proves the target, promotes; or lays everything out for
/// somebody else to start.
pub(super) async fn restore(
    setup: &Setup,
    part: Arc<dyn PartReader>,
    request: &RestoreRequest,
    context: &RunContext,
) -> Result<RestoreReport> {
    if let Some(name) = request.select.first() {
        return Err(Fault::new(codes::PG_TARGET, format!("restore only `{}`", name.escape_debug()))
            .because("a base backup is a whole cluster")
            .hint("restore it with --to DIR, then `pg_dump` the database from there"));
    }
    let (setup, request, context) = (setup.clone(), request.clone(), context.clone());
    super::blocking(move || {
        let mut job = Job::prepare(setup, &*part, &request, context)?;
        job.lay_out(&*part)?;
        if job.recovery.no_start {
            job.leave()?;
        } else {
            job.recover()?;
        }
        job.finish(&request)
    })
    .await
}

impl Job {
    /// Everything that can be refused is refused here, before anything is written.
    fn prepare(setup: Setup, part: &dyn PartReader, request: &RestoreRequest, context: RunContext) -> Result<Self> {
        let base = base_of(part)?;
        let recovery = recovery(part, request)?;
        if recovery.plan.base != base {
            return Err(Fault::new(codes::RUN_BUG, "recover: the plan is for another base backup"));
        }
        if recovery.log.is_none() && recovery.plan.target.stop != Stop::Immediate {
            return Err(Fault::new(codes::RUN_BUG, "recover to a moment: there is no log"));
        }
        let live = setup.options.data_dir.as_deref();
        let place = Place::of(&setup.id, live, request)?;
        if let Target::InPlace { discard_old: true } = request.target {
            return Err(Fault::new(codes::PITR_PLACE, format!("discard the old state of `{}`", setup.id))
                .because("its server is stopped, so no safety point can be taken of it")
                .hint("restore without --discard-old, and remove the old directory once the new one serves"));
        }
        place.refuse(&base, request.overwrite, &context.cancel)?;
        let owner = Owner::choose(recovery.owner.as_deref(), place.replaces.as_deref())?;
        place.refuse_unfit(owner, part.record().tally.bytes)?;
        let major = base.server_version / 10_000;
        let programs = programs::find(setup.options.bin_dir.as_deref(), None, major, major, "postgres")?;
        if programs.major != major {
            return Err(Fault::new(codes::PG_NO_PROGRAM, format!("find the server of PostgreSQL {major}"))
                .because(format!("found only {} in {}", programs.version, programs.directory.display()))
                .hint(format!("install it: `apt-get install postgresql-{major}`; or name its folder in `bin-dir`")));
        }
        let (steps, report) = (Steps::new(), RestoreReport::default());
        Ok(Self { setup, recovery, base, place, owner, programs, context, steps, report })
    }

    fn phase(&self, phase: &str) -> Result<()> {
        self.context.cancel.check()?;
        self.context.monitor.phase(self.setup.id.as_str(), phase);
        Ok(())
    }

    fn plan(&self) -> &RecoveryPlan {
        &self.recovery.plan
    }

    fn is_copy(&self) -> bool {
        self.place.replaces.is_none()
    }

    fn lay_out(&mut self, part: &dyn PartReader) -> Result<()> {
        self.phase("fetch the base backup")?;
        let alone = self.recovery.log.is_none();
        let own = if alone { self.base.own_segments() } else { self.plan().chain.own.clone() };
        let restored = tree::restore(part, &self.base, &own, &self.place, self.owner, &self.context)?;
        for problem in &restored.done.attribute_problems {
            self.report.warnings.push(format!("{}: {}", problem.path, problem.why));
        }
        self.report.entries = restored.done.entries;
        self.report.bytes = restored.done.bytes;
        for (oid, path) in &restored.tablespaces {
            self.report.warnings.push(format!("the tablespace {oid} stands at {}", path.display()));
        }
        settings::clean(&self.place.data, self.is_copy(), &[])?;
        let signal = self.place.data.join("recovery.signal");
        fs::write(&signal, b"").map_err(|error| io_fault("write", &signal, error))?;
        self.give()?;
        self.steps.done("fetch");
        Ok(())
    }

    fn give(&self) -> Result<()> {
        for path in [&self.place.data, &self.place.tablespaces] {
            if path.exists() {
                Owner::give_tree(self.owner, path).map_err(|error| io_fault("set the owner of", path, error))?;
            }
        }
        Ok(())
    }

    /// A directory that recovers when it is started: with all of its log, and without any key.
    fn leave(&mut self) -> Result<()> {
        self.phase("fetch the log")?;
        let log = self.recovery.log.as_deref();
        self.report_segments(give::put_all(&self.place.data, self.plan(), log)?);
        // Recovery needs a command; everything that it could give is in `pg_wal`.
        let mut more = vec![("restore_command", "/bin/false".to_owned())];
        more.extend(settings::target(&self.as_asked()).into_iter().filter(|(_, value)| !value.is_empty()));
        settings::clean(&self.place.data, self.is_copy(), &more)?;
        self.complete()?;
        self.give()?;
        self.steps.done("fetch the log");
        let (bin, data) = (self.programs.path("pg_ctl"), self.place.replaces.as_ref().unwrap_or(&self.place.data));
        self.report.warnings.push(format!(
            "nothing was started or proved: `{} -D {} start` recovers to {} and promotes",
            bin.display(),
            data.display(),
            self.plan().target.stop
        ));
        self.report.details = self.details(None)?;
        Ok(())
    }

    /// The plan as the server is asked for it. To stop where it becomes consistent, PostgreSQL needs one more
    /// record behind that. Where there is none (a base backup of a standby that was idle), the end of what there
    /// is *is* the place; a server that is not consistent there refuses to start.
    fn as_asked(&self) -> RecoveryPlan {
        let mut plan = self.plan().clone();
        let nothing_behind = self.recovery.log.is_none() || plan.chain.reach <= plan.base.stop;
        if plan.target.stop == Stop::Immediate && nothing_behind {
            plan.target.stop = Stop::Latest;
        }
        plan
    }

    fn report_segments(&mut self, segments: u64) {
        self.context.monitor.advance(self.setup.id.as_str(), segments, 0);
        self.report.details = serde_json::json!({ "segments": segments });
    }

    fn details(&self, proof: Option<Proof>) -> Result<serde_json::Value> {
        let segments = self.report.details.get("segments").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let recovered = Recovered {
            version: 1,
            method: "physical".to_owned(),
            directory: self.place.replaces.clone().unwrap_or_else(|| self.place.data.clone()),
            bin_dir: self.programs.directory.clone(),
            owner: self.owner.map(|owner| (owner.uid, owner.gid)),
            target: self.plan().target.stop.to_string(),
            until: match self.plan().target.stop {
                Stop::Time(at) => Some(at),
                _ => None,
            },
            proof,
            segments,
            in_place: !self.is_copy(),
        };
        serde_json::to_value(recovered).map_err(|error| Fault::new(codes::RUN_BUG, "write the report").because(error))
    }

    fn recover(&mut self) -> Result<()> {
        self.phase("replay the log")?;
        let scope = self.setup.id.to_string();
        let segments = self.plan().chain.segments.len() as u64;
        self.context.monitor.expect(&scope, Some(segments), None);
        let data = self.place.data.clone();
        let mut warnings = Vec::new();
        let giver = Giver::start(&data, self.owner, self.plan(), self.recovery.log.clone(), &mut warnings)?;
        self.report.warnings.append(&mut warnings);
        let mut more = vec![("restore_command", giver.restore_command())];
        more.extend([("recovery_end_command", String::new()), ("archive_cleanup_command", String::new())]);
        let asked = self.as_asked();
        more.extend(settings::target(&asked));
        let launch = Launch {
            programs: &self.programs,
            data: &data,
            owner: self.owner,
            private: self.setup.options.private_dir.as_deref(),
            copy: self.is_copy(),
            more,
        };
        let mut running = launch.start()?;
        let seen = match self.follow(&mut running, &giver) {
            Ok(seen) => seen,
            Err(fault) => return Err(self.kept(&running, fault)),
        };
        self.report_segments(giver.taken());
        drop(giver);
        self.steps.done("replay");
        let proof = match seen.prove(&asked) {
            Ok(proof) => proof,
            Err(fault) => return Err(self.kept(&running, fault)),
        };
        running.stop()?;
        let spool = data.join(SPOOL);
        fs::remove_dir_all(&spool).map_err(|error| io_fault("remove", &spool, error))?;
        self.complete()?;
        self.steps.done("prove and stop");
        self.report.details = self.details(Some(proof))?;
        Ok(())
    }

    /// Makes the settings that a copy lacks because the original's were elsewhere, and says so.
    fn complete(&mut self) -> Result<()> {
        if !self.is_copy() {
            return Ok(());
        }
        let data = &self.place.data;
        let made = settings::complete(data)?;
        for name in &made {
            Owner::give(self.owner, &data.join(name)).map_err(|error| io_fault("give", data, error))?;
        }
        if !made.is_empty() {
            self.report.warnings.push(format!(
                "the original's settings were not in its data directory: {} hold defaults (port 5433); take the \
                 original's over by hand",
                made.join(", ")
            ));
        }
        Ok(())
    }

    /// Adds where the server's own words are kept.
    fn kept(&self, running: &Running, fault: Fault) -> Fault {
        if fault.is(codes::RUN_INTERRUPTED) || fault.is(codes::RUN_TERMINATED) {
            return fault;
        }
        match running.keep_log(&self.place.data) {
            Some(log) => {
                let what = format!("recover `{}` (the server's log is kept: {})", self.setup.id, log.display());
                fault.during(what)
            }
            None => fault,
        }
    }

    /// Reads the server's log until it is ready, or fails.
    fn follow(&self, running: &mut Running, giver: &Giver) -> Result<Seen> {
        let mut seen = Seen::default();
        let (mut heard, mut taken) = (Instant::now(), 0);
        loop {
            self.context.cancel.check()?;
            let ended = running.ended();
            for line in running.lines()? {
                heard = Instant::now();
                seen.line(&line);
            }
            if seen.ready {
                return Ok(seen);
            }
            if let Some(fault) = giver.failure() {
                return Err(fault);
            }
            if let Some(status) = ended {
                let said = seen.words.join("; ");
                return Err(Fault::new(codes::PITR_SERVER, format!("recover to {}", self.plan().target.stop))
                    .because(format!("the server ended with {status}: {said}"))
                    .hint("mend what it complains of, then restore again to a new place"));
            }
            let now = giver.taken();
            if now > taken {
                self.context.monitor.advance(self.setup.id.as_str(), now - taken, 0);
                (taken, heard) = (now, Instant::now());
            }
            if heard.elapsed() > SILENCE_MAX {
                let hours = SILENCE_MAX.as_secs() / 3600;
                return Err(Fault::new(codes::PITR_SERVER, "wait for the recovering server")
                    .because(format!("it said nothing for {hours} h")));
            }
            std::thread::sleep(POLL);
        }
    }

    /// The files that came after the base backup's: WAL, settings, whatever the server left. Of a directory
    /// that is reported as restored, nothing may be missing after a power cut.
    fn sync(&self) -> Result<()> {
        for path in [&self.place.data, &self.place.tablespaces] {
            if path.exists() {
                fs::File::open(path)
                    .and_then(|directory| rustix::fs::syncfs(&directory).map_err(std::io::Error::from))
                    .map_err(|error| io_fault("bring to the disk what is in", path, error))?;
            }
        }
        Ok(())
    }

    fn finish(mut self, request: &RestoreRequest) -> Result<RestoreReport> {
        self.sync()?;
        if let Some(live) = self.place.replaces.clone() {
            self.phase("swap")?;
            // Somebody may have started it in the meantime.
            place::refuse_running(&live)?;
            let kept = in_place::swap(&self.place.data, &live, request.point.short())?;
            self.report.kept_old = kept.map(|path| path.display().to_string());
            self.steps.done("swap");
        }
        let directory = self.place.replaces.as_ref().unwrap_or(&self.place.data);
        self.report.place = directory.display().to_string();
        self.report.steps = self.steps.into_vec();
        Ok(self.report)
    }
}
