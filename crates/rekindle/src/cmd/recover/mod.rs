//! `recover`

mod ask;
mod configuration;
mod crew;
mod needs;
mod replays;
mod state;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rekindle_config::Config;
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::Recovery;
use rekindle_core::{Class, ComponentId, Fault, Result, codes};
use rekindle_engine::recover::{
    Choice, Crew, Do, PLAN_VERSION, Progress, RecoveryPlan, Services, Wish, choose, occupied, recover, skew_ms, steps,
};
use rekindle_repo::{Repo, marks, points, proofs};
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{group, wire};
use configuration::Source;
use crew::How;
use needs::Need;
use replays::World;

/// Workers of pg_restore when nothing is said: one per core of a small host.
const JOBS: usize = 2;

/// Bring the whole stack back: plan, restore in order, check, start
///
/// For a stack that is lost. Every component goes to its configured place, which must be empty or absent unless
/// --replace is given. Each step is written down: an interrupted recovery goes on with --resume. On a bare machine,
/// --from URL and a password are enough: the configuration comes out of the repository.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Recover {
    /// The state of this moment, as 2026-01-31T14:30:00Z, or of this host's clock as '2026-01-31 14:30:00': base backups
    /// of PostgreSQL exactly, others the nearest one before it [default: the newest]
    #[arg(long, value_name = "TIME", conflicts_with = "point")]
    at: Option<String>,
    /// Everything from this point: the beginning of its id, or `latest`
    #[arg(long, value_name = "POINT")]
    point: Option<String>,
    /// Bring base backups of PostgreSQL to the moment of the Redis capture; of which one, where there are several
    #[arg(long, value_name = "COMPONENT", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with = "point")]
    align: Option<String>,
    /// Components or groups to recover; none: all
    #[arg(long, value_name = "COMPONENT|GROUP")]
    only: Vec<String>,
    /// Repository to recover from, with the configuration that it holds
    #[arg(long, value_name = "URL", conflicts_with = "repo")]
    from: Option<String>,
    /// Stack to recover, when the repository of --from holds several
    #[arg(long, value_name = "NAME", requires = "from")]
    stack: Option<String>,
    /// Host whose points are taken [default: the configured one, with --from the one of the newest point]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Another value for a key of the configuration, as component.database.password=file:/root/pg
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Replace what stands at the places; it is kept beside them
    #[arg(long)]
    replace: bool,
    /// Take suspicious points that nobody accepted
    #[arg(long)]
    allow_suspicious: bool,
    /// Go on with the recovery that was interrupted
    #[arg(long, conflicts_with_all = ["at", "point", "align", "only", "restart", "dry_run", "replace", "allow_suspicious"])]
    resume: bool,
    /// Set an interrupted recovery aside and begin anew
    #[arg(long)]
    restart: bool,
    /// Show the plan and what is missing, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Directory for the journal [default: `state-dir` of the configuration, else /var/lib/rekindle or the user's]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Parallel workers of pg_restore
    #[arg(long, value_name = "N", default_value_t = JOBS, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    jobs: usize,
    /// Components that are restored at the same time; 1: one after the other [default: the number of cores, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4))]
    at_once: Option<usize>,
    /// Leave the `checks` of the components out: one about the age of rows says no to an old state
    #[arg(long)]
    no_checks: bool,
}

/// What planning gives.
struct Prepared {
    plan: RecoveryPlan,
    source: Source,
    config: Config,
    records: Vec<ComponentRecord>,
    /// The ways of base backups.
    recoveries: BTreeMap<ComponentId, Recovery>,
    repo: Arc<Repo>,
    /// How the configuration differs from the one of this host.
    differences: Option<String>,
}

impl Recover {
    /// Whether it does more than to plan.
    pub(crate) fn takes_data(&self) -> bool {
        !self.dry_run
    }

    /// The URL of `--from`.
    pub(crate) fn from(&self) -> Option<String> {
        self.from.clone()
    }

    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        if self.resume {
            return self.go_on(session);
        }
        let state = self.state_directory(session)?;
        let journals = state::all(&state)?;
        let prepared = self.prepare(session, &journals)?;
        let unfinished = journals.iter().rev().find(|read| belongs(&read.plan, &prepared.plan) && !read.is_finished());
        if let Some(read) = unfinished.filter(|_| !self.restart && !self.dry_run) {
            let what = format!("recover `{}`: the recovery of {} is not finished", read.plan.stack, read.plan.made);
            return Err(Fault::new(codes::RECOVER_UNFINISHED, what)
                .hint("rekindle recover --resume, or --restart to set it aside and begin anew")
                .into());
        }
        let mut needs = needs::secrets(&prepared.source.text, &prepared.source.file, &chosen(&prepared.plan));
        for record in &prepared.records {
            needs.extend(needs::programs(&prepared.config, record));
        }
        let plan_text = view::plan(&prepared, &needs);
        let answer = |needs: &[Need]| json!({"dry_run": self.dry_run, "plan": shown(&prepared.plan), "needs": needs});
        if let Some(fault) = needs::fault(&needs) {
            return Ok(Answer::data(answer(&needs), plan_text).worse(fault));
        }
        let ways = prepared.recoveries.clone();
        let crew = crew::crew(&prepared.config, &prepared.plan, &prepared.repo, ways, self.how())?;
        let (context, _scratch) = session.context()?;
        let standing = self.look(session, &prepared, &crew, &mut needs, &context)?;
        let plan_text = view::plan(&prepared, &needs);
        if let Some(fault) = needs::fault(&needs).or(standing) {
            return Ok(Answer::data(answer(&needs), plan_text).worse(fault));
        }
        if self.dry_run {
            return Ok(Answer::data(answer(&needs), plan_text + "\nNothing was changed.\n"));
        }
        // A backup meanwhile would save what is half there.
        let _alone = wire::alone::alone(&prepared.config)?;
        if let Some(read) = unfinished {
            state::set_aside(read)?;
        }
        view::tell(session, &plan_text);
        let mut journal = state::create(&state, &prepared.plan)?;
        let work = recover(&prepared.plan, Progress::default(), &crew, &mut journal, &context);
        let report = session.runtime.block_on(work)?;
        Ok(finish(&report, &prepared.source))
    }

    /// Goes on with the newest journal that is not finished.
    fn go_on(&self, session: &Session) -> Result<Answer, Faults> {
        let state = self.state_directory(session)?;
        let name = match wire::config(session) {
            Ok(config) if self.from.is_none() => Some(config.stack.name),
            _ => self.stack.clone(),
        };
        let fits = |plan: &RecoveryPlan| name.as_ref().is_none_or(|name| *name == plan.stack);
        let journals = state::all(&state)?;
        let found = journals.into_iter().rev().find(|read| fits(&read.plan) && !read.is_finished());
        let Some(read) = found else {
            let what = format!("go on with a recovery: there is no unfinished one in {}", state.display());
            return Err(Fault::new(codes::RECOVER_NOTHING, what)
                .hint("name the directory of its journal with --state-dir DIR")
                .into());
        };
        let source = serde_json::from_value::<Source>(read.plan.surroundings.clone());
        let mut source = source.map_err(|error| {
            Fault::new(codes::RECOVER_JOURNAL, format!("read the configuration in {}", read.file.display()))
                .because(error)
        })?;
        for assignment in &self.set {
            source.set(assignment)?;
        }
        let config = source.config()?;
        let given = wire::password_given(session)?;
        let place = match self.from.as_ref().or(source.from.as_ref()) {
            Some(url) => wire::bare_place(url, given.as_ref())?,
            None => wire::of_config(session, &config, given.as_ref())?,
        };
        let repo = Arc::new(wire::open(session, &place)?);
        if repo.config().id != read.plan.repository {
            return Err(Fault::new(codes::RECOVER_JOURNAL, "go on with a recovery: it is of another repository")
                .hint("give the same --from URL as before")
                .into());
        }
        let needs = needs::secrets(&source.text, &source.file, &chosen(&read.plan));
        if let Some(fault) = needs::fault(&needs) {
            return Err(fault.into());
        }
        let _alone = wire::alone::alone(&config)?;
        let (context, _scratch) = session.context()?;
        let ways = replays::again(&read.plan, &repo, &context)?;
        let crew = crew::crew(&config, &read.plan, &repo, ways, self.how())?;
        let progress = Progress::of(&read.plan, &read.entries);
        view::tell(session, &view::resumed(&read.plan, &read.entries));
        let mut journal = state::open(&read)?;
        let report = session.runtime.block_on(recover(&read.plan, progress, &crew, &mut journal, &context))?;
        Ok(finish(&report, &source))
    }

    fn how(&self) -> How {
        How { jobs: self.jobs, at_once: self.at_once, checks: !self.no_checks }
    }

    /// Never the one of a configuration in the repository: it must be found without it.
    fn state_directory(&self, session: &Session) -> Result<PathBuf> {
        let bare = self.from.is_some() && session.global.config.is_none();
        let config = if bare { None } else { wire::config(session).ok() };
        let found = self.state_dir.clone().or_else(|| wire::state::directory(config.as_ref()));
        found.ok_or_else(|| {
            Fault::new(codes::RECOVER_JOURNAL, "find a directory for the journal: this user has no home")
                .hint("name one with --state-dir DIR")
        })
    }

    fn prepare(&self, session: &Session, journals: &[state::Read]) -> Result<Prepared, Faults> {
        let given = wire::password_given(session)?;
        let local = match &self.from {
            None => Some(Source::local(session)?),
            // A file that is named counts; one that merely lies here is compared with.
            Some(_) if session.global.config.is_some() => Some(Source::local(session)?),
            Some(_) => None,
        };
        let place = match &self.from {
            Some(url) => wire::bare_place(url, given.as_ref())?,
            None => wire::place(session)?,
        };
        let repo = Arc::new(wire::open(session, &place)?);
        let view = points::view(&repo)?;
        if let Some(bad) = view.unreadable.first() {
            // An unreadable point may be the one that was asked for.
            let text = format!("ATTENTION: point {} cannot be read: {}\n", bad.id.short(), bad.fault.chain());
            view::tell(session, &text);
        }
        let (stack, host) = self.whose(&view.points, local.as_ref())?;
        let mine: Vec<&RecoveryPoint> =
            view.points.iter().filter(|one| one.manifest().stack == stack && one.manifest().host == host).collect();
        let wish = self.wish(&view, session)?;
        let (mut source, differences) = match (local, &self.from) {
            (Some(local), from) => (Source { from: from.clone(), ..local }, None),
            (None, Some(url)) => {
                let before = |one: &&RecoveryPoint| wish.at.is_none_or(|at| one.time() <= at);
                let in_time: Vec<&RecoveryPoint> = mine.iter().copied().filter(before).collect();
                let mut source = Source::in_points(&repo, if in_time.is_empty() { &mine } else { &in_time }, url)?;
                source.point_to(session, url)?;
                let lying = wire::config_file(session).and_then(|file| rekindle_config::read_text(&file).ok());
                let differences = lying.and_then(|text| source.differences(&text));
                (source, differences)
            }
            (None, None) => return Err(Fault::new(codes::RUN_BUG, "recover without a configuration").into()),
        };
        for assignment in &self.set {
            source.set(assignment)?;
        }
        let mut config = source.config()?;
        let marks = marks::read(&repo)?;
        let (context, _scratch) = session.context()?;
        let world = World { repo: &repo, points: &mine, wish: &wish, marks: &marks, context: &context };
        let (choices, recoveries) = self.choices(&config, &world)?;
        if source.from.is_some() && !self.dry_run && ask::somebody(session) {
            let ids: Vec<ComponentId> = choices.iter().map(|choice| choice.component.clone()).collect();
            let missing = needs::secrets(&source.text, &source.file, &ids);
            ask::ask(&mut source, &missing, &self.state_directory(session)?)?;
            config = source.config()?;
        }
        let plan = self.plan(session, &config, &source, &world, choices, journals)?;
        let record = |choice: &Choice| {
            let point = mine.iter().find(|point| *point.id() == choice.point)?;
            point.manifest().component(&choice.component).cloned()
        };
        let records = plan.choices.iter().filter_map(record).collect();
        Ok(Prepared { plan, source, config, records, recoveries, repo, differences })
    }

    /// Chooses for every wanted component, and brings base backups as far as is wished.
    fn choices(&self, config: &Config, mine: &World<'_>) -> Result<(Vec<Choice>, BTreeMap<ComponentId, Recovery>)> {
        let known: Vec<_> = config.components.iter().map(|one| (one.id.clone(), one.kind())).collect();
        let wanted = group::wanted(&self.only, &known, Some(config))?;
        let wanted = if wanted.is_empty() { known.into_iter().map(|(id, _)| id).collect() } else { wanted };
        let mut choices = choose(mine.wish, mine.points, &wanted, mine.marks)?;
        let align = self.align.as_deref().map(|word| replays::aligned(&choices, word)).transpose()?;
        let recoveries = mine.plan(&mut choices, align)?;
        Ok((choices, recoveries))
    }

    fn plan(
        &self,
        session: &Session,
        config: &Config,
        source: &Source,
        mine: &World<'_>,
        choices: Vec<Choice>,
        journals: &[state::Read],
    ) -> Result<RecoveryPlan> {
        let services = |recover: &rekindle_config::Recover| Services {
            stop: !recover.stop.is_empty(),
            start: !recover.start.is_empty(),
        };
        let of = |id: &ComponentId| {
            let found = config.components.iter().find(|one| one.id == *id);
            found.map(|one| services(&one.recover)).unwrap_or_default()
        };
        let ids: Vec<ComponentId> = choices.iter().map(|choice| choice.component.clone()).collect();
        let contained = wire::containers::services(config, &ids, true)?.is_some();
        let stack = services(&config.recover);
        let stack = Services { stop: stack.stop || contained, start: stack.start || contained };
        // Without readable proofs nothing is promised, and a recovery goes on without them.
        let proofs = proofs::read_all(mine.repo).unwrap_or_default();
        let name = &config.stack.name;
        let forecast = |choice: &Choice, act: Do| {
            view::forecast(journals, choice, act).or_else(|| view::forecast_of_drills(&proofs, name, choice, act))
        };
        let host = mine.points.first().map(|point| point.manifest().host.clone());
        Ok(RecoveryPlan {
            version: PLAN_VERSION,
            stack: name.clone(),
            host: host.unwrap_or_default(),
            repository: mine.repo.config().id.clone(),
            made: session.now(),
            at: mine.wish.at,
            replace: self.replace,
            skew_ms: skew_ms(&choices),
            steps: steps(&choices, stack, &of, &forecast),
            choices,
            surroundings: serde_json::to_value(source)
                .map_err(|error| Fault::new(codes::RUN_BUG, "write the configuration down").because(error))?,
        })
    }

    /// The stack and the host whose points are taken.
    fn whose(&self, all: &[RecoveryPoint], local: Option<&Source>) -> Result<(String, String), Faults> {
        if let Some(source) = local {
            let config = source.config()?;
            let host = self.host.clone().unwrap_or_else(|| wire::host(&config));
            let mut hosts: Vec<&str> = all
                .iter()
                .filter(|point| point.manifest().stack == config.stack.name)
                .map(|point| point.manifest().host.as_str())
                .collect();
            hosts.sort_unstable();
            hosts.dedup();
            if !hosts.is_empty() && !hosts.contains(&host.as_str()) {
                let what = format!("recover `{}`: there is no point of the host `{host}`", config.stack.name);
                return Err(Fault::new(codes::RECOVER_NOTHING, what)
                    .hint(format!("choose the host that was saved with --host: {}", hosts.join(", ")))
                    .into());
            }
            return Ok((config.stack.name, host));
        }
        let mut stacks: Vec<&str> = all.iter().map(|point| point.manifest().stack.as_str()).collect();
        stacks.sort_unstable();
        stacks.dedup();
        let stack = match (&self.stack, stacks.as_slice()) {
            (Some(stack), _) => stack.clone(),
            (None, [only]) => (*only).to_owned(),
            (None, []) => {
                return Err(Fault::new(codes::RECOVER_NOTHING, "recover: the repository holds no point")
                    .hint("check the URL; `rekindle list --repo URL` shows the points")
                    .into());
            }
            (None, several) => {
                return Err(Fault::new(codes::CLI_USAGE, "recover: the repository holds several stacks")
                    .hint(format!("choose one with --stack: {}", several.join(", ")))
                    .into());
            }
        };
        let newest = all.iter().rfind(|point| point.manifest().stack == stack);
        let host = self.host.clone().or_else(|| newest.map(|point| point.manifest().host.clone()));
        match host {
            Some(host) => Ok((stack, host)),
            None => {
                Err(Fault::new(codes::RECOVER_NOTHING, format!("recover: there is no point of the stack `{stack}`"))
                    .hint(format!("there are: {}", stacks.join(", ")))
                    .into())
            }
        }
    }

    fn wish(&self, view: &points::PointsView, session: &Session) -> Result<Wish> {
        let at = self.at.as_deref().map(moment).transpose()?;
        if let Some(at) = at.filter(|at| *at > session.now()) {
            return Err(Fault::new(codes::CLI_USAGE, format!("recover the state of {at}: that is in the future"))
                .hint("leave --at out for the newest state"));
        }
        let point = match &self.point {
            None => None,
            Some(word) => Some(points::resolve(view, word)?.id().clone()),
        };
        Ok(Wish { at, point, allow_suspicious: self.allow_suspicious })
    }

    /// What stands in the way; servers that have to answer and do not are needs.
    fn look(
        &self,
        session: &Session,
        prepared: &Prepared,
        crew: &Crew,
        needs: &mut Vec<Need>,
        context: &rekindle_core::port::RunContext,
    ) -> Result<Option<Fault>> {
        let mut standing = Vec::new();
        for choice in &prepared.plan.choices {
            let alone = RecoveryPlan { choices: vec![choice.clone()], ..prepared.plan.clone() };
            match session.runtime.block_on(occupied(&alone, crew, context)) {
                Ok(found) => standing.extend(found.into_iter().map(|(id, what)| format!("`{id}`: {what}"))),
                Err(fault) if fault.class() == Class::Unreachable => {
                    let record = prepared.records.iter().find(|record| record.id == choice.component);
                    needs.push(needs::unreachable(&choice.component, record, &fault));
                }
                Err(fault) => return Err(fault),
            }
        }
        if standing.is_empty() || self.replace {
            return Ok(None);
        }
        let fault =
            Fault::new(codes::RECOVER_OCCUPIED, "recover to places that are not empty").because(standing.join("; "));
        Ok(Some(fault.hint("--replace sets it aside and keeps it; to bring back single components beside the live ones use `rekindle restore`")))
    }
}

/// Journals of the same stack and repository belong together.
fn belongs(old: &RecoveryPlan, new: &RecoveryPlan) -> bool {
    (&old.stack, &old.repository) == (&new.stack, &new.repository)
}

fn chosen(plan: &RecoveryPlan) -> Vec<ComponentId> {
    plan.choices.iter().map(|choice| choice.component.clone()).collect()
}

/// The plan without the text of the configuration.
fn shown(plan: &RecoveryPlan) -> serde_json::Value {
    let plan = RecoveryPlan { surroundings: serde_json::Value::Null, ..plan.clone() };
    serde_json::to_value(plan).unwrap_or_default()
}

/// `2026-01-31T14:30:00Z`, or without a zone, by the clock of this host.
fn moment(text: &str) -> Result<jiff::Timestamp> {
    let local = |text: &str| {
        let civil: jiff::civil::DateTime = text.parse()?;
        Ok::<_, jiff::Error>(civil.to_zoned(jiff::tz::TimeZone::system())?.timestamp())
    };
    text.parse::<jiff::Timestamp>().or_else(|_| local(text)).map_err(|error| {
        Fault::new(codes::CLI_USAGE, format!("read the time `{}`", text.escape_debug()))
            .because(error)
            .hint("write 2026-01-31T14:30:00Z, or '2026-01-31 14:30:00' by the clock of this host")
    })
}

/// The report; after a recovery by URL the configuration goes back to where it was.
fn finish(report: &rekindle_engine::recover::RecoveryReport, source: &Source) -> Answer {
    let mut note = String::new();
    if source.from.is_some() && report.is_whole() {
        note = match source.put_back() {
            Ok(true) => format!("\nThe configuration is written to {}.\n", source.file.display()),
            Ok(false) => format!("\n{} was there already and is left as it is.\n", source.file.display()),
            Err(fault) => format!("\nThe configuration could not be written: {}\n", fault.chain()),
        };
    }
    view::answer(report, &note)
}
