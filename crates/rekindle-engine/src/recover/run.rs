//! Working off the steps, each written down before and after.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rekindle_core::port::{
    Component, Finding, Hook, HookOutcome, HookRunner, Level, Recovery, Repository, RestoreReport, RestoreRequest,
    RunContext, Services, Target,
};
use rekindle_core::{ComponentId, Fault, Result, codes};

use super::journal::{Entry, Journal, Progress};
use super::plan::{Do, RecoveryPlan, Step};
use super::report::{self, RecoveryReport};
use crate::component_run::named;
use crate::report::StoredProblem;

/// Time between two looks whether a server answers.
const READY_POLL: Duration = Duration::from_millis(500);

/// Programs that stop and start something.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    pub stop: Vec<Hook>,
    pub start: Vec<Hook>,
    /// Longest wait until what was started answers.
    pub ready: Duration,
}

/// The user's own checks of what was restored.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    /// Each finds the place in `REKINDLE_PLACE`; exit code 0 is good.
    pub hooks: Vec<Hook>,
    pub place: String,
    /// Such that only a drill can run.
    pub left_out: usize,
}

/// One component and how its server is run.
#[derive(Clone)]
pub struct Actor {
    pub component: Arc<dyn Component>,
    pub commands: Commands,
    pub checks: Checks,
    /// How far a base backup is brought.
    pub recovery: Option<Recovery>,
    /// Greatest wanted duration of its recovery.
    pub rto_seconds: Option<u64>,
}

/// Everything a recovery works with.
pub struct Crew {
    pub repository: Arc<dyn Repository>,
    pub runner: Arc<dyn HookRunner>,
    pub actors: BTreeMap<ComponentId, Actor>,
    /// Of the applications around the components.
    pub stack: Commands,
    /// Containers that are stopped before everything and started after it.
    pub services: Option<Arc<dyn Services>>,
    /// Workers of restore programs.
    pub jobs: usize,
    /// Components that are worked on at the same time, up to [`AT_ONCE_MAX`].
    pub at_once: usize,
}

/// Works off what `progress` does not call done. A component that fails does not keep the others
/// from coming back; applications start only when all of them did.
///
/// `Err` only when the journal cannot be written or the run is stopped: then it goes on later.
pub async fn recover(
    plan: &RecoveryPlan,
    progress: Progress,
    crew: &Crew,
    journal: &mut dyn Journal,
    context: &RunContext,
) -> Result<RecoveryReport> {
    let state = State { progress, journal, failed: BTreeMap::new(), rolled_back: BTreeSet::new() };
    let run = Run { plan, crew, context, state: Mutex::new(state) };
    let (before, components, after) = parts(plan);
    run.chain(&before).await?;
    run.at_once(components).await?;
    run.chain(&after).await?;
    let now = context.clock.now();
    if run.state().failed.is_empty() {
        run.note(&Entry::Finished { at: now })?;
    }
    let State { progress, failed, rolled_back, .. } = run.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(report::of(plan, &progress, crew, failed, &rolled_back, now))
}

/// Most components that are worked on at the same time.
pub const AT_ONCE_MAX: usize = 4;

/// Numbers of steps: what comes before all components, those of each component, what comes after all of them.
fn parts(plan: &RecoveryPlan) -> (Vec<usize>, VecDeque<Vec<usize>>, Vec<usize>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut components: VecDeque<(&ComponentId, Vec<usize>)> = VecDeque::new();
    for (number, step) in plan.steps.iter().enumerate() {
        match &step.component {
            None if step.act == Do::Start => after.push(number),
            None => before.push(number),
            Some(id) => match components.iter_mut().find(|(of, _)| *of == id) {
                Some((_, steps)) => steps.push(number),
                None => components.push_back((id, vec![number])),
            },
        }
    }
    (before, components.into_iter().map(|(_, steps)| steps).collect(), after)
}

fn not_started(fault: Fault) -> Fault {
    Fault::new(codes::RECOVER_START, "start the services")
        .because(fault)
        .hint("the data is in place; look into the service's log, then run rekindle recover --resume")
}

fn resumable(fault: Fault) -> Fault {
    fault.hint("rekindle recover --resume goes on where it was")
}

struct Run<'a> {
    plan: &'a RecoveryPlan,
    crew: &'a Crew,
    context: &'a RunContext,
    /// Never held while something is waited for.
    state: Mutex<State<'a>>,
}

struct State<'a> {
    progress: Progress,
    journal: &'a mut dyn Journal,
    /// By component; `None` is the stack.
    failed: BTreeMap<Option<ComponentId>, Fault>,
    rolled_back: BTreeSet<ComponentId>,
}

/// What a step gave.
#[derive(Default)]
struct Gave {
    report: Option<Box<RestoreReport>>,
    findings: Vec<String>,
}

impl<'a> Run<'a> {
    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, entry: &Entry) -> Result<()> {
        let mut state = self.state();
        state.journal.write(entry)?;
        state.progress.note(self.plan, entry);
        Ok(())
    }

    /// What is done already is left out; after a failure also what depends on it: the start of the stack depends on
    /// everything.
    fn skips(&self, number: usize, step: &Step) -> bool {
        let state = self.state();
        let failed = match (&step.component, step.act) {
            (None, Do::Start) => !state.failed.is_empty(),
            (id, _) => state.failed.contains_key(id),
        };
        failed || state.progress.done.contains(&number)
    }

    /// Steps one after the other.
    async fn chain(&self, numbers: &[usize]) -> Result<()> {
        for number in numbers {
            let Some(step) = self.plan.steps.get(*number) else { continue };
            if self.skips(*number, step) {
                continue;
            }
            self.context.cancel.check().map_err(resumable)?;
            self.step(*number, step).await?;
        }
        Ok(())
    }

    /// The components, some at the same time: they begin in the order of the plan.
    async fn at_once(&self, components: VecDeque<Vec<usize>>) -> Result<()> {
        let queue = Mutex::new(components);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let worker = async |number: usize| {
            while let Some(chain) = (number < self.crew.at_once.max(1)).then(&next).flatten() {
                let ended = self.chain(&chain).await;
                if ended.is_err() {
                    // Nothing more is begun.
                    queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    return ended;
                }
            }
            Ok(())
        };
        let (a, b, c, d) = tokio::join!(worker(0), worker(1), worker(2), worker(3));
        a.and(b).and(c).and(d)
    }

    async fn step(&self, number: usize, step: &Step) -> Result<()> {
        let scope = step.component.as_ref().map_or("stack", ComponentId::as_str).to_owned();
        self.context.monitor.phase(&scope, step.act.as_str());
        let before = self.state().progress.begun.contains(&number);
        let since = self.context.clock.now();
        self.note(&Entry::Begun { step: number, at: since })?;
        let outcome = self.act(step, before).await;
        let elapsed = self.context.clock.now().duration_since(since).as_millis();
        let elapsed_ms = u64::try_from(elapsed).unwrap_or(0);
        match outcome {
            Ok(Gave { report, findings }) => self.note(&Entry::Done { step: number, elapsed_ms, report, findings }),
            // Stopped, not failed: the step is begun and not done.
            Err(fault) if self.context.cancel.check().is_err() => Err(resumable(fault)),
            // Services may work with what would be replaced: nothing is touched.
            Err(fault) if step.component.is_none() && step.act == Do::Stop => Err(resumable(fault)),
            Err(fault) => {
                self.context.monitor.problem(&scope, &fault);
                self.note(&Entry::Failed { step: number, elapsed_ms, problem: StoredProblem::from(&fault) })?;
                if step.act == Do::Check {
                    self.roll_back(number, step).await?;
                }
                self.state().failed.insert(step.component.clone(), fault);
                Ok(())
            }
        }
    }

    async fn act(&self, step: &Step, before: bool) -> Result<Gave> {
        let Some(id) = &step.component else {
            return match step.act {
                Do::Stop => {
                    let gave = self.stop(&self.crew.stack, "the stack").await?;
                    if let Some(services) = &self.crew.services {
                        services.stop(self.context).await?;
                    }
                    Ok(gave)
                }
                Do::Start => {
                    if let Some(services) = &self.crew.services {
                        services.start(self.context).await.map_err(not_started)?;
                    }
                    self.start(&self.crew.stack, "the stack").await
                }
                Do::Restore | Do::Check | Do::Ready => {
                    Err(Fault::new(codes::RUN_BUG, "recover: a step of no component"))
                }
            };
        };
        let actor = self.crew.actors.get(id).ok_or_else(|| {
            Fault::new(codes::RECOVER_CONFIG, format!("recover `{id}`: the configuration does not have it"))
        })?;
        let name = format!("`{id}`");
        let done = match step.act {
            Do::Stop => self.stop(&actor.commands, &name).await,
            Do::Start => self.start(&actor.commands, &name).await,
            Do::Ready => self.ready(actor).await,
            Do::Restore => self.restore(id, actor, before).await,
            Do::Check => self.check(id, actor).await,
        };
        done.map_err(|fault| named(fault, "recover", actor.component.kind(), id))
    }

    /// A server that is not there cannot be stopped: that is told and is no failure.
    async fn stop(&self, commands: &Commands, name: &str) -> Result<Gave> {
        for hook in &commands.stop {
            if let Err(fault) = self.command(hook, "stop", None).await {
                self.context.monitor.problem(name, &fault);
            }
        }
        Ok(Gave::default())
    }

    async fn start(&self, commands: &Commands, name: &str) -> Result<Gave> {
        for hook in &commands.start {
            self.command(hook, "start", None).await.map_err(|fault| {
                let what = format!("start {name}");
                Fault::new(codes::RECOVER_START, what)
                    .because(fault)
                    .hint("the data is in place; mend the command, then run rekindle recover --resume")
            })?;
        }
        Ok(Gave::default())
    }

    async fn command(&self, hook: &Hook, moment: &str, place: Option<&str>) -> Result<HookOutcome> {
        let mut variables = vec![
            ("REKINDLE_RUN_ID", self.context.run.to_string()),
            ("REKINDLE_STACK", self.plan.stack.clone()),
            ("REKINDLE_HOOK", moment.to_owned()),
            ("REKINDLE_STATUS", "recovering".to_owned()),
        ];
        variables.extend(place.map(|place| ("REKINDLE_PLACE", place.to_owned())));
        self.crew.runner.run(hook, &variables).await
    }

    /// Asks until the component answers well, or its time is over.
    async fn ready(&self, actor: &Actor) -> Result<Gave> {
        let until = self.context.clock.now() + jiff::SignedDuration::try_from(actor.commands.ready).unwrap_or_default();
        loop {
            self.context.cancel.check()?;
            let seen = match actor.component.probe(self.context).await {
                Err(fault) => fault.chain(),
                Ok(findings) => match findings.into_iter().find(|finding| finding.level == Level::Bad) {
                    None => return Ok(Gave::default()),
                    Some(bad) => bad.text,
                },
            };
            if self.context.clock.now() >= until {
                let what = format!("wait until `{}` answers", actor.component.id());
                return Err(Fault::new(codes::RECOVER_START, what)
                    .because(seen)
                    .hint("look into the server's log; then run rekindle recover --resume"));
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    async fn part(&self, id: &ComponentId) -> Result<Arc<dyn rekindle_core::port::PartReader>> {
        let choice = self.plan.choices.iter().find(|choice| choice.component == *id);
        let choice = choice.ok_or_else(|| Fault::new(codes::RUN_BUG, format!("recover `{id}`: nothing was chosen")))?;
        let (point, id, repository) = (choice.point.clone(), id.clone(), Arc::clone(&self.crew.repository));
        let opened = tokio::task::spawn_blocking(move || repository.open(&point, &id)).await;
        opened.map_err(|error| Fault::new(codes::RUN_BUG, "open the point").because(error))?
    }

    async fn restore(&self, id: &ComponentId, actor: &Actor, before: bool) -> Result<Gave> {
        let choice = self.plan.choices.iter().find(|choice| choice.component == *id);
        let point = choice.map(|choice| choice.point.clone());
        let target = actor.component.home();
        let request = RestoreRequest {
            point: point.ok_or_else(|| Fault::new(codes::RUN_BUG, format!("recover `{id}`: nothing was chosen")))?,
            // Into a running server, keys of an interrupted try are there already.
            // Likewise half a cluster that is staged beside its place.
            overwrite: (matches!(target, Target::Live) || actor.recovery.is_some()) && (self.plan.replace || before),
            target,
            select: Vec::new(),
            jobs: self.crew.jobs,
            server: None,
            recovery: actor.recovery.clone(),
        };
        let report = actor.component.restore(self.part(id).await?, &request, self.context).await?;
        Ok(Gave { report: Some(Box::new(report)), findings: Vec::new() })
    }

    async fn check(&self, id: &ComponentId, actor: &Actor) -> Result<Gave> {
        let report = self.state().progress.reports.get(id).cloned();
        let report = report.ok_or_else(|| Fault::new(codes::RUN_BUG, format!("check `{id}`: it was not restored")))?;
        let findings = actor.component.check(self.part(id).await?, &report, self.context).await?;
        let lost = report.lost.iter().map(|lost| format!("{}: {}", lost.path, lost.why));
        let bad = findings.iter().filter(|finding| finding.level == Level::Bad).map(|finding| finding.text.clone());
        let mut wrong: Vec<String> = lost.chain(bad).take(3).collect();
        let mut lines: Vec<String> = findings.into_iter().map(line).collect();
        if wrong.is_empty() {
            wrong.extend(self.users_checks(actor, &mut lines).await?);
        }
        if wrong.is_empty() {
            return Ok(Gave { report: None, findings: lines });
        }
        Err(Fault::new(codes::RECOVER_CHECK, format!("check what was recovered of `{id}`"))
            .because(wrong.join("; "))
            .hint("mend the cause, then run rekindle recover --resume; --no-checks leaves your own checks out; --restart chooses another point"))
    }

    /// What the user's own commands say; the first that does not say yes.
    async fn users_checks(&self, actor: &Actor, lines: &mut Vec<String>) -> Result<Option<String>> {
        for hook in &actor.checks.hooks {
            let shown = hook.command.join(" ");
            match self.command(hook, "check", Some(&actor.checks.place)).await {
                Ok(HookOutcome::Done) => lines.push(format!("ok: check `{shown}` says yes")),
                Ok(HookOutcome::SoftSkip) => return Ok(Some(format!("check `{shown}` says no: exit status 75"))),
                Err(fault) => {
                    self.context.cancel.check()?;
                    return Ok(Some(format!("check `{shown}` says no: {}", fault.chain())));
                }
            }
        }
        if actor.checks.left_out > 0 {
            let count = actor.checks.left_out;
            lines.push(format!(
                "unproved: {count} checks are about a sandbox and were not run: rekindle drill runs them"
            ));
        }
        Ok(None)
    }

    /// The kept old state takes its place again. Without one, what was restored stays: it is more
    /// than nothing.
    async fn roll_back(&self, number: usize, step: &Step) -> Result<()> {
        let Some(id) = &step.component else { return Ok(()) };
        let report = self.state().progress.reports.get(id).cloned();
        let (Some(actor), Some(report)) = (self.crew.actors.get(id), report) else {
            return Ok(());
        };
        if report.kept_old.is_none() {
            return Ok(());
        }
        self.context.monitor.phase(id.as_str(), "put the old state back");
        match actor.component.roll_back(&report, self.context).await {
            Ok(()) => {
                self.state().rolled_back.insert(id.clone());
                self.note(&Entry::RolledBack { step: number })
            }
            Err(fault) => {
                self.context.monitor.problem(id.as_str(), &fault);
                Ok(())
            }
        }
    }
}

fn line(finding: Finding) -> String {
    let mark = match finding.level {
        Level::Good => "ok",
        Level::Unproved => "unproved",
        Level::Warning => "warning",
        Level::Bad => "BAD",
    };
    match finding.remedy {
        None => format!("{mark}: {}", finding.text),
        Some(remedy) => format!("{mark}: {} ({remedy})", finding.text),
    }
}

/// What stands where the components are to be recovered, one line each. Nothing is changed.
pub async fn occupied(plan: &RecoveryPlan, crew: &Crew, context: &RunContext) -> Result<Vec<(ComponentId, String)>> {
    let mut found = Vec::new();
    let chosen: BTreeSet<_> = plan.choices.iter().map(|choice| (&choice.component, &choice.point)).collect();
    for (id, point) in chosen {
        let Some(actor) = crew.actors.get(id) else { continue };
        let (repository, at, of) = (Arc::clone(&crew.repository), point.clone(), id.clone());
        let opened = tokio::task::spawn_blocking(move || repository.open(&at, &of)).await;
        let part = opened.map_err(|error| Fault::new(codes::RUN_BUG, "open the point").because(error))??;
        if let Some(what) = actor.component.occupied(part, context).await? {
            found.push((id.clone(), what));
        }
    }
    Ok(found)
}
