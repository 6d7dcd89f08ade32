//! The options of `restore` that bring a PostgreSQL base backup to a moment.

use std::fmt::Write as _;
use std::sync::Arc;

use clap::Args;
use rekindle_config::Config;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::Recovery;
use rekindle_core::timeline::{BadTarget, RecoveryTarget, Stop, TimelineChoice, parse_moment};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};
use rekindle_engine::pitr::{Recoverable, RecoveryView};
use rekindle_repo::wal::Archive;
use rekindle_repo::{Repo, points};

use crate::output::Answer;
use crate::session::{Session, SystemClock};
use crate::{group, human};

/// Recovery of a PostgreSQL base backup to a moment.
#[derive(Debug, Args)]
#[command(next_help_heading = "Recovery to a moment (PostgreSQL base backups)")]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct RecoveryArgs {
    /// To this time, with its zone: "2026-11-22 14:30:00Z", "… +02:00" or "… Europe/Berlin"
    #[arg(long, value_name = "TIME", group = "moment")]
    at: Option<String>,
    /// To the end of this transaction
    #[arg(long, value_name = "XID", group = "moment")]
    xid: Option<String>,
    /// To this position of the log, as 0/16B3748
    #[arg(long, value_name = "LSN", group = "moment")]
    lsn: Option<String>,
    /// To the restore point of this name
    #[arg(long, value_name = "NAME", group = "moment")]
    name: Option<String>,
    /// To the end of the base backup
    #[arg(long, group = "moment")]
    immediate: bool,
    /// To the end of the log
    #[arg(long, group = "moment")]
    latest: bool,
    /// Leave out what stands exactly at the target
    #[arg(long, requires = "moment")]
    exclusive: bool,
    /// Follow this timeline: `latest`, `current` (the base backup's own) or a number
    #[arg(long, value_name = "TIMELINE", requires = "moment")]
    timeline: Option<String>,
    /// Lay the cluster out with all of its log and start nothing: it recovers when it is started
    #[arg(long)]
    no_start: bool,
    /// User who is to own the cluster and run its server, when this runs as root [default: postgres]
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
}

fn unusable(option: &str, bad: BadTarget) -> Fault {
    Fault::new(codes::PITR_TARGET, format!("use the recovery target of `--{option}`")).because(bad).hint(
        "rekindle restore-points list shows what can be reached; a time is written with its zone, as \
         --at \"2026-11-22 14:30:00Z\"",
    )
}

impl RecoveryArgs {
    /// The target, when one is given.
    pub(crate) fn target(&self) -> Result<Option<RecoveryTarget>> {
        let zone = |name: &str| jiff::tz::TimeZone::get(name).ok();
        let stop = if let Some(text) = &self.at {
            Stop::Time(parse_moment(text, zone).map_err(|bad| unusable("at", bad))?)
        } else if let Some(text) = &self.xid {
            Stop::xid(text).map_err(|bad| unusable("xid", bad))?
        } else if let Some(text) = &self.lsn {
            Stop::lsn(text).map_err(|bad| unusable("lsn", bad))?
        } else if let Some(text) = &self.name {
            Stop::name(text).map_err(|bad| unusable("name", bad))?
        } else if self.immediate {
            Stop::Immediate
        } else if self.latest {
            Stop::Latest
        } else {
            return Ok(None);
        };
        let timeline = match &self.timeline {
            None => TimelineChoice::Latest,
            Some(text) => TimelineChoice::parse(text).map_err(|bad| unusable("timeline", bad))?,
        };
        Ok(Some(RecoveryTarget { stop, inclusive: !self.exclusive, timeline }))
    }

    /// The way to a target from the base backups of a component, or from that of one point.
    pub(crate) fn resolve(
        &self,
        session: &Session,
        repository: &Repo,
        found: &Found,
        target: &RecoveryTarget,
    ) -> Result<Recovery> {
        let archive = Archive::new(repository, Arc::new(SystemClock));
        let mut world = Recoverable::gather(&found.points, &found.component, &archive)?;
        if let Some(point) = &found.only {
            world = world.only(point.id());
        }
        let (context, _scratch) = session.context()?;
        let recovery = world.resolve(target, &context)?;
        Ok(Recovery { no_start: self.no_start, owner: self.owner.clone(), ..recovery })
    }
}

/// Which component of which points is meant.
pub(crate) struct Found {
    pub(crate) component: ComponentId,
    pub(crate) points: Vec<RecoveryPoint>,
    /// The one point that was named.
    pub(crate) only: Option<RecoveryPoint>,
}

impl Found {
    /// From the words `[POINT] COMPONENT`.
    pub(crate) fn words(words: &[&str], repository: &Repo, config: Option<&Config>) -> Result<Self> {
        let (point, component) = match words {
            [component] => (None, *component),
            [point, component] => (Some(*point), *component),
            _ => {
                return Err(Fault::new(codes::CLI_USAGE, "recover to a moment: name one PostgreSQL component")
                    .hint("rekindle restore [POINT] DATABASE --at \"2026-11-22 14:30:00Z\""));
            }
        };
        let view = points::view(repository)?;
        let only = point.map(|word| points::resolve(&view, word).cloned()).transpose()?;
        let mut points = view.points;
        if let (Some(config), None) = (config, &only) {
            points.retain(|point| point.manifest().stack == config.stack.name);
        }
        Ok(Self { component: postgres(component, &points, config)?, points, only })
    }
}

/// The one PostgreSQL component that a word means.
pub(crate) fn postgres(word: &str, points: &[RecoveryPoint], config: Option<&Config>) -> Result<ComponentId> {
    let mut known: Vec<(ComponentId, ComponentKind)> = Vec::new();
    let stored = points.iter().flat_map(|point| &point.manifest().components).map(|one| (one.id.clone(), one.kind));
    let configured = config.into_iter().flat_map(|config| &config.components).map(|one| (one.id.clone(), one.kind()));
    for one in configured.chain(stored) {
        if !known.contains(&one) {
            known.push(one);
        }
    }
    let ids = group::wanted(&[word.to_owned()], &known, config)?;
    let databases: Vec<&ComponentId> =
        ids.iter().filter(|id| known.contains(&((*id).clone(), ComponentKind::Postgres))).collect();
    match databases[..] {
        [one] => Ok(one.clone()),
        [] => Err(Fault::new(codes::ENGINE_NO_COMPONENT, format!("find the database `{}`", word.escape_debug()))
            .because("no point and no configuration has a PostgreSQL component of that name")
            .hint("rekindle list shows the points, rekindle check-config the components")),
        _ => {
            Err(Fault::new(codes::CLI_USAGE, format!("recover `{}`: it means several databases", word.escape_debug()))
                .hint("name one component"))
        }
    }
}

/// The plan of a recovery: the answer of `--dry-run`.
pub(crate) fn answer(recovery: &Recovery) -> Answer {
    let view = RecoveryView::of(&recovery.plan);
    let mut text = format!(
        "would recover to {} from point {} (base backup of {}, ended {} at {})\n\n",
        recovery.plan.target.stop,
        view.point.short(),
        human::time(recovery.plan.base.started),
        human::time(view.base_stopped),
        view.base_stop
    );
    let _ = writeln!(text, "  timelines  {}", view.timelines.join(", then "));
    if let (Some(first), Some(last)) = (&view.first_segment, &view.last_segment) {
        let tail = view.tail_bytes.map_or_else(String::new, |bytes| format!(", {bytes} bytes of the open one"));
        let _ = writeln!(text, "  log        {} segments{tail}: {first} to {last}, without a hole", view.segments);
    }
    let _ = writeln!(text, "  reaches    {}", view.reach);
    if let Some(newest) = view.newest_commit {
        let _ = writeln!(text, "  newest commit  {newest}");
    }
    text.push_str("\nNothing was restored.\n");
    Answer::data(view, text)
}
