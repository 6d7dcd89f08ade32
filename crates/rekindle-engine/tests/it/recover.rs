use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rekindle_core::mark::Marks;
use rekindle_core::port::{
    Capture, Component, Finding, PartReader, Repository, RestoreReport, RestoreRequest, RunContext,
};
use rekindle_core::{ComponentId, ComponentKind, Fault, PointId, Result, codes};
use rekindle_engine::recover::{
    Actor, Checks, Commands, Crew, Entry, Journal, PLAN_VERSION, Progress, RecoveryPlan, RecoveryReport, Services,
    Wish, choose, recover, skew_ms, steps,
};
use rekindle_engine::{BackupOptions, BackupPlan, HookSet, Planned, backup};

use crate::fakes::{Fail, FakeComponent, FakeHooks, FakeRepository, Log, context, hook};

/// A component whose restore keeps an old state, so that it can be rolled back.
struct Replacing(FakeComponent);

#[async_trait]
impl Component for Replacing {
    fn id(&self) -> &ComponentId {
        self.0.id()
    }
    fn kind(&self) -> ComponentKind {
        self.0.kind()
    }
    async fn probe(&self, context: &RunContext) -> Result<Vec<Finding>> {
        self.0.log.add(format!("probe {}", self.0.id));
        self.0.probe(context).await
    }
    async fn begin(&self, context: &RunContext) -> Result<Box<dyn Capture>> {
        self.0.begin(context).await
    }
    async fn restore(
        &self,
        part: Arc<dyn PartReader>,
        request: &RestoreRequest,
        context: &RunContext,
    ) -> Result<RestoreReport> {
        let report = self.0.restore(part, request, context).await?;
        Ok(RestoreReport { kept_old: Some("old".to_owned()), ..report })
    }
    async fn check(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        self.0.check(part, report, context).await
    }
    async fn roll_back(&self, _: &RestoreReport, _: &RunContext) -> Result<()> {
        self.0.log.add(format!("roll back {}", self.0.id));
        Ok(())
    }
}

/// Containers around the components.
struct FakeServices(Log);

#[async_trait]
impl rekindle_core::port::Services for FakeServices {
    async fn stop(&self, _: &RunContext) -> Result<Vec<String>> {
        self.0.add("stop services".to_owned());
        Ok(Vec::new())
    }
    async fn start(&self, _: &RunContext) -> Result<Vec<String>> {
        self.0.add("start services".to_owned());
        Ok(Vec::new())
    }
}

/// How a write of the journal ends when the process is killed around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    Never,
    /// The line is not on disk.
    Before(usize),
    /// The line is on disk and nothing after it happened.
    After(usize),
}

struct Lines {
    entries: Vec<Entry>,
    kill: Kill,
}

impl Journal for Lines {
    fn write(&mut self, entry: &Entry) -> Result<()> {
        let killed = || Err(Fault::new(codes::RECOVER_JOURNAL, "killed"));
        let number = self.entries.len();
        if self.kill == Kill::Before(number) {
            return killed();
        }
        // As a file holds it.
        let line = serde_json::to_string(entry).unwrap();
        self.entries.push(serde_json::from_str(&line).unwrap());
        if self.kill == Kill::After(number) { killed() } else { Ok(()) }
    }
}

struct Stage {
    repository: FakeRepository,
    point: PointId,
    log: Log,
    plan: RecoveryPlan,
}

const NAMES: [(&str, ComponentKind); 3] =
    [("files", ComponentKind::Files), ("cache", ComponentKind::Redis), ("database", ComponentKind::Postgres)];

fn fake(name: &str, kind: ComponentKind, fail: Fail, log: &Log) -> FakeComponent {
    FakeComponent { id: name.parse().unwrap(), kind, fail, log: log.clone() }
}

impl Stage {
    async fn new() -> Self {
        let repository = FakeRepository::default();
        let planned = |(name, kind)| Planned {
            component: Arc::new(fake(name, kind, Fail::Never, &Log::default())),
            hooks: HookSet::default(),
        };
        let all = NAMES.into_iter().map(planned).collect();
        let plan = BackupPlan::new("shop".into(), "host".into(), HookSet::default(), all, &[]).unwrap();
        let runner = Arc::new(FakeHooks(Log::default()));
        let options = BackupOptions::default();
        let report = backup(plan, Arc::new(repository.clone()), runner, &options, &context()).await.unwrap();
        let points = repository.points().unwrap();
        let wanted: Vec<ComponentId> = NAMES.iter().map(|(name, _)| name.parse().unwrap()).collect();
        let choices = choose(&Wish::default(), &[&points[0]], &wanted, &Marks::default()).unwrap();
        let services = Services { stop: true, start: true };
        let plan = RecoveryPlan {
            version: PLAN_VERSION,
            stack: "shop".into(),
            host: "host".into(),
            repository: "r".into(),
            made: jiff::Timestamp::UNIX_EPOCH,
            at: None,
            replace: false,
            skew_ms: skew_ms(&choices),
            steps: steps(
                &choices,
                services,
                &|id| if id.as_str() == "cache" { services } else { Services::default() },
                &|_, _| None,
            ),
            choices,
            surroundings: serde_json::Value::Null,
        };
        Self { repository, point: report.point, log: Log::default(), plan }
    }

    fn crew(&self, failing: Option<(&str, Fail)>) -> Crew {
        let commands = |name: &str, end: &str| Commands {
            stop: vec![hook(&[&format!("stop-{name}")])],
            start: vec![hook(&[&format!("start-{name}"), end])],
            ready: Duration::ZERO,
        };
        let mut actors = BTreeMap::new();
        for (name, kind) in NAMES {
            let fail = failing.filter(|(failing, _)| *failing == name).map_or(Fail::Never, |(_, fail)| fail);
            let component: Arc<dyn Component> = match name {
                "files" => Arc::new(fake(name, kind, fail, &self.log)),
                _ => Arc::new(Replacing(fake(name, kind, fail, &self.log))),
            };
            let commands = commands(name, "");
            let checks = Checks {
                hooks: if name == "files" { vec![hook(&["check-files"])] } else { Vec::new() },
                place: "/".to_owned(),
                left_out: 0,
            };
            let actor = Actor { component, commands, checks, recovery: None, rto_seconds: Some(60) };
            actors.insert(name.parse().unwrap(), actor);
        }
        Crew {
            repository: Arc::new(self.repository.clone()),
            runner: Arc::new(FakeHooks(self.log.clone())),
            actors,
            stack: commands("apps", ""),
            services: Some(Arc::new(FakeServices(self.log.clone()))),
            jobs: 1,
            at_once: 1,
        }
    }

    async fn run(
        &self,
        entries: Vec<Entry>,
        kill: Kill,
        failing: Option<(&str, Fail)>,
    ) -> (Result<RecoveryReport>, Vec<Entry>) {
        let progress = Progress::of(&self.plan, &entries);
        let mut journal = Lines { entries, kill };
        let report = recover(&self.plan, progress, &self.crew(failing), &mut journal, &context()).await;
        (report, journal.entries)
    }
}

fn states(report: &RecoveryReport) -> Vec<String> {
    report.components.iter().map(|one| format!("{} {}", one.component, one.state)).collect()
}

#[tokio::test]
async fn the_order_is_databases_first_and_applications_last() {
    let stage = Stage::new().await;
    let (report, entries) = stage.run(Vec::new(), Kill::Never, None).await;
    let report = report.unwrap();
    assert_eq!(states(&report), ["database recovered", "cache recovered", "files recovered"]);
    assert_eq!((report.exit_code(), report.started), (0, Some(true)));
    let home = "InPlace { discard_old: false }";
    assert_eq!(
        stage.log.lines(),
        [
            "hook stop-apps recovering".to_owned(),
            "stop services".to_owned(),
            format!("restore database {home}"),
            "check database".to_owned(),
            "hook stop-cache recovering".to_owned(),
            format!("restore cache {home}"),
            "check cache".to_owned(),
            "hook start-cache recovering".to_owned(),
            "probe cache".to_owned(),
            format!("restore files {home}"),
            "check files".to_owned(),
            "hook check-files recovering".to_owned(),
            "start services".to_owned(),
            "hook start-apps recovering".to_owned(),
        ]
    );
    assert!(Progress::of(&stage.plan, &entries).finished);
    assert_eq!(stage.point, stage.plan.choices[0].point);
}

/// Killed before and after every line of the journal: it goes on, nothing that was done is done
/// again, and the end is the same.
#[tokio::test]
async fn killed_at_every_line_it_goes_on_and_ends_the_same() {
    let whole = Stage::new().await;
    let (report, all) = whole.run(Vec::new(), Kill::Never, None).await;
    let expected = states(&report.unwrap());
    for line in 0..all.len() {
        for kill in [Kill::Before(line), Kill::After(line)] {
            let stage = Stage::new().await;
            let (killed, entries) = stage.run(Vec::new(), kill, None).await;
            let last_line = kill == Kill::After(all.len() - 1);
            assert!(killed.is_err_and(|fault| fault.is(codes::RECOVER_JOURNAL)), "{kill:?}");
            assert_eq!(Progress::of(&stage.plan, &entries).finished, last_line, "{kill:?}");
            let (report, entries) = stage.run(entries, Kill::Never, None).await;
            let report = report.unwrap();
            assert_eq!(states(&report), expected, "{kill:?}");
            assert_eq!((report.started, report.exit_code()), (Some(true), 0), "{kill:?}");
            assert!(Progress::of(&stage.plan, &entries).finished, "{kill:?}");
            // Only the step that was cut is done twice, and the applications start after everything.
            let lines = stage.log.lines();
            let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
            for line in &lines {
                *counted.entry(line).or_default() += 1;
            }
            // A step of the applications does two things, and so does a check.
            assert!(counted.values().filter(|count| **count > 1).count() <= 2, "{kill:?}: {lines:?}");
            assert!(counted.values().all(|count| *count <= 2), "{kill:?}: {lines:?}");
            let start = stage.log.position("hook start-apps recovering");
            assert!(lines[..start].iter().any(|line| line == "check files"), "{kill:?}: {lines:?}");
        }
    }
}

/// Components wait for each other: this ends only when all of them are worked on at the same time.
struct Meeting(FakeComponent, Arc<tokio::sync::Barrier>);

#[async_trait]
impl Component for Meeting {
    fn id(&self) -> &ComponentId {
        self.0.id()
    }
    fn kind(&self) -> ComponentKind {
        self.0.kind()
    }
    async fn probe(&self, context: &RunContext) -> Result<Vec<Finding>> {
        self.0.probe(context).await
    }
    async fn begin(&self, context: &RunContext) -> Result<Box<dyn Capture>> {
        self.0.begin(context).await
    }
    async fn restore(
        &self,
        part: Arc<dyn PartReader>,
        request: &RestoreRequest,
        context: &RunContext,
    ) -> Result<RestoreReport> {
        self.1.wait().await;
        self.0.restore(part, request, context).await
    }
    async fn check(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        self.0.check(part, report, context).await
    }
}

#[tokio::test]
async fn components_come_back_at_the_same_time_between_stop_and_start() {
    let stage = Stage::new().await;
    let mut crew = stage.crew(None);
    crew.at_once = 3;
    let barrier = Arc::new(tokio::sync::Barrier::new(NAMES.len()));
    for (name, kind) in NAMES {
        let fail = if name == "cache" { Fail::Wrong } else { Fail::Never };
        let component = Arc::new(Meeting(fake(name, kind, fail, &stage.log), Arc::clone(&barrier)));
        crew.actors.get_mut(&name.parse().unwrap()).unwrap().component = component;
    }
    let mut journal = Lines { entries: Vec::new(), kill: Kill::Never };
    let context = context();
    let work = recover(&stage.plan, Progress::default(), &crew, &mut journal, &context);
    let report = tokio::time::timeout(Duration::from_mins(1), work).await.expect("they met").unwrap();
    assert_eq!(states(&report), ["database recovered", "cache wrong", "files recovered"]);
    assert_eq!(report.started, Some(false), "one of them is not back");
    let lines = stage.log.lines();
    assert_eq!(lines[..2], ["hook stop-apps recovering", "stop services"]);
    // It goes on with what is missing, alone.
    let (report, entries) = stage.run(journal.entries, Kill::Never, None).await;
    assert_eq!((report.unwrap().exit_code(), Progress::of(&stage.plan, &entries).finished), (0, true));
    let more = &stage.log.lines()[lines.len()..];
    assert!(!more.iter().any(|line| line.contains("restore database") || line.contains("restore files")), "{more:?}");
    assert_eq!(more.last().unwrap(), "hook start-apps recovering");
}

#[tokio::test]
async fn a_failed_check_brings_the_old_state_back_and_is_tried_again_later() {
    let stage = Stage::new().await;
    let (report, entries) = stage.run(Vec::new(), Kill::Never, Some(("cache", Fail::Wrong))).await;
    let report = report.unwrap();
    // The others come back; the server and the applications are not started.
    assert_eq!(states(&report), ["database recovered", "cache rolled-back", "files recovered"]);
    assert_eq!((report.exit_code(), report.started), (4, Some(false)));
    assert!(report.faults[0].is(codes::RECOVER_CHECK), "{:?}", report.faults);
    let lines = stage.log.lines();
    assert!(lines.contains(&"roll back cache".to_owned()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("start-")), "{lines:?}");
    assert!(!Progress::of(&stage.plan, &entries).finished);
    // Mended: only what is missing is done, from its restore on.
    let before = lines.len();
    let (report, _) = stage.run(entries, Kill::Never, None).await;
    let report = report.unwrap();
    assert_eq!((report.exit_code(), report.started), (0, Some(true)));
    let more = &stage.log.lines()[before..];
    let home = "InPlace { discard_old: false }";
    assert_eq!(
        more,
        [
            "hook stop-cache recovering",
            &format!("restore cache {home}"),
            "check cache",
            "hook start-cache recovering",
            "probe cache",
            "start services",
            "hook start-apps recovering",
        ]
    );
}

#[tokio::test]
async fn a_users_check_that_says_no_brings_the_old_state_back() {
    let stage = Stage::new().await;
    for end in ["fail", "skip"] {
        let mut crew = stage.crew(None);
        let cache = crew.actors.get_mut(&"cache".parse().unwrap()).unwrap();
        cache.checks.hooks = vec![hook(&["check-cache", end])];
        let mut journal = Lines { entries: Vec::new(), kill: Kill::Never };
        let report = recover(&stage.plan, Progress::default(), &crew, &mut journal, &context()).await.unwrap();
        assert_eq!(states(&report), ["database recovered", "cache rolled-back", "files recovered"], "{end}");
        assert_eq!((report.exit_code(), report.started), (4, Some(false)), "{end}");
        assert!(report.faults[0].chain().contains("check `check-cache"), "{:?}", report.faults);
    }
    assert!(!stage.log.lines().contains(&"start services".to_owned()));
}

#[tokio::test]
async fn without_an_old_state_what_was_restored_stays_and_is_called_wrong() {
    let stage = Stage::new().await;
    let (report, _) = stage.run(Vec::new(), Kill::Never, Some(("files", Fail::Wrong))).await;
    let report = report.unwrap();
    assert_eq!(states(&report), ["database recovered", "cache recovered", "files wrong"]);
    assert_eq!((report.exit_code(), report.started), (4, Some(false)));
    // Lost entries are as bad as a check that says no.
    let (report, _) = stage.run(Vec::new(), Kill::Never, Some(("database", Fail::Stream))).await;
    let report = report.unwrap();
    assert_eq!(states(&report)[0], "database rolled-back");
    assert!(report.faults[0].chain().contains("a.dump: damaged"), "{:?}", report.faults);
    let (report, _) = stage.run(Vec::new(), Kill::Never, Some(("database", Fail::Begin))).await;
    let report = report.unwrap();
    assert_eq!(states(&report), ["database failed", "cache recovered", "files recovered"]);
}

#[tokio::test]
async fn a_stop_is_no_failure_and_goes_on_later() {
    let stage = Stage::new().await;
    let context = context();
    context.cancel.cancel(rekindle_core::cancel::Reason::Terminated);
    let mut journal = Lines { entries: Vec::new(), kill: Kill::Never };
    let stopped = recover(&stage.plan, Progress::default(), &stage.crew(None), &mut journal, &context).await;
    let fault = stopped.unwrap_err();
    assert!(fault.is(codes::RUN_TERMINATED) && fault.hint_text().unwrap().contains("--resume"), "{fault:?}");
    assert!(stage.log.lines().is_empty());
}
