//! What the service has to know, from the configuration.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use rekindle_config::{Config, Kind, PostgresMethod};
use rekindle_core::schedule::{Delays, Job, JobName, Rules, Task};
use rekindle_core::wal::WalMode;
use rekindle_core::{Cancel, ComponentId, Fault, Result, codes};
use rekindle_serve::service::{FreeSpace, Setup, Steps};
use rekindle_serve::systemd::Manager;
use rekindle_serve::{Journal, Launcher, Stop};

use super::{host, receivers, state};
use crate::session::{Session, SystemClock};

/// How often the wish to stop is looked at.
const STOP_POLL: Duration = Duration::from_millis(50);

/// Where the journal of this stack is kept.
pub(crate) fn state_directory(config: &Config) -> Result<PathBuf> {
    let unusable = |what: String| {
        Fault::new(codes::ENGINE_STATE, what)
            .hint("set `state-dir` in [stack] to a directory that this user may write to")
    };
    let directory = state::directory(Some(config)).ok_or_else(|| unusable("find the state directory".to_owned()))?;
    let directory = directory.join("stacks").join(&config.stack.name);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(|error| unusable(format!("make the state directory {}", directory.display())).because(error))?;
    Ok(directory)
}

/// The journal of this stack, to look at only; `None`: nothing ran by itself here.
pub(crate) fn journal(config: &Config) -> Result<Option<Journal>> {
    let Some(directory) = state::directory(Some(config)) else { return Ok(None) };
    Journal::look(&directory.join("stacks").join(&config.stack.name))
}

/// Tells the journal of this host, if there is one, that somebody did by hand what is scheduled: it is overdue no
/// more. Whoever cannot write there has done it all the same.
pub(crate) fn done_by_hand(config: &Config, jobs: &[JobName], started: jiff::Timestamp) {
    let note = || -> Result<()> {
        // Nothing is made here: who runs this by hand may be another user than the service.
        let Some(directory) = state::directory(Some(config)) else { return Ok(()) };
        match Journal::amend(&directory.join("stacks").join(&config.stack.name))? {
            Some(journal) => jobs.iter().try_for_each(|job| journal.good_result(job, started)),
            None => Ok(()),
        }
    };
    if let Err(fault) = note() {
        tracing::warn!(error = %fault.chain(), "the journal of scheduled runs was not told");
    }
}

/// Every job of the configuration.
pub(crate) fn jobs(config: &Config) -> Vec<Job> {
    let components = config.components.iter().filter_map(|one| {
        let schedule = one.schedule.clone()?;
        Some(Job { name: JobName { task: Task::Backup, component: Some(one.id.clone()) }, schedule })
    });
    let serve = &config.serve;
    let others = [(Task::Verify, &serve.verify), (Task::Drill, &serve.drill), (Task::Prune, &serve.prune)];
    let others = others.into_iter().filter_map(|(task, schedule)| {
        Some(Job { name: JobName { task, component: None }, schedule: schedule.clone()? })
    });
    let copies = config.copies.iter().filter_map(|one| {
        let component = Some(one.name.parse().ok()?);
        Some(Job { name: JobName { task: Task::Copy, component }, schedule: one.schedule.clone()? })
    });
    let periods = [("daily", &serve.daily), ("weekly", &serve.weekly), ("monthly", &serve.monthly)];
    let maintenance = periods.into_iter().filter_map(|(period, schedule)| {
        let component = Some(period.parse().ok()?);
        Some(Job { name: JobName { task: Task::Maintenance, component }, schedule: schedule.clone()? })
    });
    components.chain(others).chain(copies).chain(maintenance).collect()
}

/// The zone in which schedules are read and days are told apart.
pub(crate) fn zone(config: &Config) -> TimeZone {
    config.serve.zone.clone().unwrap_or_else(TimeZone::system)
}

/// What holds for all jobs: whoever judges a schedule judges by these.
pub(crate) fn rules(config: &Config) -> Rules {
    let delays = Delays::new(config.serve.jitter, seed(config), &jobs(config));
    Rules { zone: zone(config), delays, pauses: config.pauses.clone() }
}

/// Whether the scheduled prune removes points as well, here or in a copy.
pub(crate) fn forgets(config: &Config) -> bool {
    config.removes_points() || config.copies.iter().any(|one| one.retention.is_some())
}

/// The verbs of each task.
fn steps(config: &Config) -> Steps {
    let verify_data = config.serve.verify_data.clone();
    let retention = config.removes_points();
    // The retention of a copy is applied with that of the repository.
    let kept: Vec<String> =
        config.copies.iter().filter(|one| one.retention.is_some()).map(|one| one.name.clone()).collect();
    Box::new(move |task: Task, components: &[ComponentId]| {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match task {
            Task::Backup | Task::Drill | Task::Copy => {
                let mut step = words(&[task.as_str()]);
                step.extend(components.iter().map(ToString::to_string));
                vec![step]
            }
            Task::Verify => {
                let mut step = words(&["verify"]);
                step.extend(verify_data.as_ref().map(|subset| format!("--read-data={subset}")));
                vec![step]
            }
            Task::Maintenance => {
                let mut step = words(&["maintenance"]);
                step.extend(components.iter().map(ToString::to_string));
                vec![step]
            }
            Task::Prune => {
                let forget = retention.then(|| words(&["forget"]));
                let of_copies =
                    kept.iter().flat_map(|name| ["forget", "prune"].map(|verb| words(&[verb, "--copy", name])));
                forget.into_iter().chain([words(&["prune"])]).chain(of_copies).collect()
            }
        }
    })
}

pub(crate) fn launcher(session: &Session, config: &Config) -> Result<Launcher> {
    let program = std::env::current_exe()
        .map_err(|error| Fault::new(codes::SERVE_CHILD, "find our own program").because(error))?;
    let file = std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone());
    let mut global: Vec<OsString> = vec!["--config".into(), file.into()];
    let given = &session.global;
    if let Some(url) = &given.repo {
        global.extend(["--repo".into(), url.into()]);
    }
    if let Some(path) = &given.password_file {
        global.extend(["--password-file".into(), path.into()]);
    }
    if let Some(command) = &given.password_command {
        global.extend(["--password-command".into(), command.into()]);
    }
    Ok(Launcher { program, global })
}

/// Room on the file system of a local repository.
fn free_space(config: &Config) -> Box<dyn Fn() -> Option<FreeSpace> + Send + Sync> {
    let url = config.repository.url.clone();
    Box::new(move || space_of(&url))
}

/// Whether a repository is on a file system of this host.
pub(crate) fn is_local(url: &str) -> bool {
    url.starts_with("file://") || url.starts_with('/')
}

/// Room where a repository is; `None` for one that is not on this host.
pub(crate) fn space_of(url: &str) -> Option<FreeSpace> {
    let path = url.strip_prefix("file://").or_else(|| url.starts_with('/').then_some(url))?;
    let space = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    Some(FreeSpace { free_bytes: bytes(space.f_bavail), total_bytes: bytes(space.f_blocks) })
}

/// Different for each stack and host, the same every time.
fn seed(config: &Config) -> u64 {
    let text = format!("{}/{}", config.stack.name, host(config));
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// PostgreSQL components whose log is received all the time.
pub(crate) fn streams(config: &Config) -> Vec<ComponentId> {
    let wants = |kind: &Kind| match kind {
        Kind::Postgres(postgres) => match &postgres.method {
            PostgresMethod::Physical(physical) => matches!(physical.wal, WalMode::Stream | WalMode::Both),
            PostgresMethod::Logical => false,
        },
        _ => false,
    };
    config.components.iter().filter(|one| wants(&one.kind)).map(|one| one.id.clone()).collect()
}

/// Everything the service has to know.
pub(crate) fn setup(session: &Session, config: &Config) -> Result<Setup> {
    let serve = &config.serve;
    let variable = |name: &str| std::env::var_os(name);
    let watchdog = variable("WATCHDOG_USEC").and_then(|text| text.into_string().ok());
    let digests = config.receivers.iter().filter_map(|one| Some((one.name.clone(), one.digest.clone()?)));
    Ok(Setup {
        stack: config.stack.name.clone(),
        host: host(config),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rules: rules(config),
        jobs: jobs(config),
        objectives: config.components.iter().map(|one| (one.id.clone(), one.objective)).collect(),
        launcher: launcher(session, config)?,
        steps: steps(config),
        streams: streams(config),
        listen: serve.listen,
        textfile: serve.textfile.clone(),
        grace: serve.grace,
        min_free_percent: serve.min_free_percent,
        free_space: free_space(config),
        receivers: config.receivers.iter().map(receivers::of_config).collect(),
        digests: digests.collect(),
        manager: Manager::new(variable("NOTIFY_SOCKET").as_deref(), watchdog.as_deref()),
        clock: Arc::new(SystemClock),
        random: rand::random,
    })
}

/// The wish to stop, as the service hears it.
pub(crate) fn stop(session: &Session) -> Stop {
    let (ask, asked) = tokio::sync::watch::channel(false);
    let cancel: Cancel = session.cancel.clone();
    session.runtime.spawn(async move {
        while !cancel.is_cancelled() {
            tokio::time::sleep(STOP_POLL).await;
        }
        let _ = ask.send(true);
        // Kept: a channel without a sender would never say so.
        std::future::pending::<()>().await;
    });
    Stop(asked)
}
