use std::sync::Arc;

use rekindle_core::cancel::Reason;
use rekindle_core::manifest::Completeness;
use rekindle_core::port::{Reuse, RunContext};
use rekindle_core::{ComponentKind, Result, codes};
use rekindle_engine::report::BackupReport;
use rekindle_engine::{BackupOptions, BackupPlan, HookSet, Planned, backup};

use crate::fakes::{Fail, FakeComponent, FakeHooks, FakeRepository, context, hook};

const KINDS: [(&str, ComponentKind); 3] =
    [("uploads", ComponentKind::Files), ("cache", ComponentKind::Redis), ("database", ComponentKind::Postgres)];

fn planned(repository: &FakeRepository, fails: [Fail; 3], hooks: &HookSet) -> Vec<Planned> {
    let components = KINDS.iter().zip(fails).map(|((id, kind), fail)| {
        let component = FakeComponent { id: id.parse().unwrap(), kind: *kind, fail, log: repository.log.clone() };
        Planned { component: Arc::new(component), hooks: hooks.clone() }
    });
    components.collect()
}

async fn run_with(
    repository: &FakeRepository,
    fails: [Fail; 3],
    run_hooks: HookSet,
    hooks: &HookSet,
    context: &RunContext,
) -> Result<BackupReport> {
    let components = planned(repository, fails, hooks);
    let plan = BackupPlan::new("shop".into(), "host".into(), run_hooks, components, &[]).unwrap();
    let runner = Arc::new(FakeHooks(repository.log.clone()));
    backup(plan, Arc::new(repository.clone()), runner, &BackupOptions::default(), context).await
}

async fn run(repository: &FakeRepository, fails: [Fail; 3]) -> Result<BackupReport> {
    run_with(repository, fails, HookSet::default(), &HookSet::default(), &context()).await
}

#[tokio::test]
async fn databases_begin_first_and_files_last() {
    let repository = FakeRepository::default();
    let report = run(&repository, [Fail::Never; 3]).await.unwrap();
    assert_eq!((report.state, report.exit_code()), (Completeness::Complete, 0));
    let log = &repository.log;
    assert!(log.position("begin database") < log.position("begin cache"));
    assert!(log.position("begin cache") < log.position("begin uploads"));
    assert_eq!(log.lines().last().map(String::as_str), Some("commit"));
}

#[tokio::test]
async fn whatever_fails_is_missing_and_named() {
    for fail in [Fail::Begin, Fail::Stream, Fail::Close, Fail::Finish, Fail::Panic] {
        let repository = FakeRepository::default();
        let report = run(&repository, [Fail::Never, Fail::Never, fail]).await.unwrap();
        assert_eq!((report.state, report.exit_code()), (Completeness::Partial, 3), "{fail:?}");
        // What letting go of it told stands in the report as well.
        let told: Vec<&str> = report.problems.iter().map(|problem| problem.message.as_str()).collect();
        let aborted = repository.log.lines().iter().any(|line| line == "abort database");
        assert_eq!(told, if aborted { &["leave nothing behind"][..] } else { &[] }, "{fail:?}");
        assert_eq!(aborted, matches!(fail, Fail::Stream | Fail::Close), "{fail:?}");
        let points = repository.points.lock().unwrap();
        let manifest = points[0].manifest();
        assert_eq!(manifest.missing.len(), 1, "{fail:?}");
        assert_eq!(manifest.missing[0].id.as_str(), "database");
        assert!(manifest.component(&"database".parse().unwrap()).is_none());
        assert_eq!(manifest.components.len(), 2);
        assert!(report.components.iter().any(|c| c.state == "missing" && c.problem.is_some()), "{fail:?}");
    }
}

#[tokio::test]
async fn a_repository_that_holds_less_is_caught() {
    let repository = FakeRepository { lies_about: Some("cache".into()), ..FakeRepository::default() };
    let report = run(&repository, [Fail::Never; 3]).await.unwrap();
    assert_eq!(report.exit_code(), 3);
    let cache = report.components.iter().find(|c| c.component.as_str() == "cache").unwrap();
    let problem = cache.problem.as_ref().unwrap();
    assert_eq!(problem.code, codes::ENGINE_MISMATCH.id);
    assert!(problem.message.contains("2 entries given, 1 held"), "{}", problem.message);
}

#[tokio::test]
async fn an_unreadable_file_makes_the_point_partial() {
    let repository = FakeRepository::default();
    let report = run(&repository, [Fail::Unreadable, Fail::Never, Fail::Never]).await.unwrap();
    assert_eq!((report.state, report.exit_code()), (Completeness::Partial, 3));
    assert!(report.components.iter().all(|component| component.state == "captured"));
}

#[tokio::test]
async fn nothing_captured_is_no_point() {
    let repository = FakeRepository::default();
    let fault = run(&repository, [Fail::Begin; 3]).await.unwrap_err();
    assert!(fault.is(codes::PG_DUMP), "the cause's own code: {fault:?}");
    assert!(fault.chain().contains("back up postgres `database`"), "{fault:?}");
    assert!(repository.points.lock().unwrap().is_empty());
    assert_eq!(repository.log.lines().last().map(String::as_str), Some("abandon"));
}

#[tokio::test]
async fn an_interrupted_run_commits_nothing() {
    let repository = FakeRepository::default();
    let context = context();
    context.cancel.cancel(Reason::Interrupted);
    let none = HookSet::default();
    let fault = run_with(&repository, [Fail::Never; 3], none.clone(), &none, &context).await.unwrap_err();
    assert_eq!(fault.exit_code(), 130);
    assert!(repository.points.lock().unwrap().is_empty());
}

#[tokio::test]
async fn after_hooks_always_run() {
    let hooks =
        HookSet { before: vec![hook(&["quiesce"])], after: vec![hook(&["resume"])], on_error: vec![hook(&["alarm"])] };
    for (fail, status) in [(Fail::Never, "done"), (Fail::Begin, "failed"), (Fail::Panic, "failed")] {
        let repository = FakeRepository::default();
        let _ = run_with(&repository, [fail; 3], hooks.clone(), &HookSet::default(), &context()).await;
        repository.log.position("hook quiesce starting");
        repository.log.position(&format!("hook resume {status}"));
        assert_eq!(repository.log.lines().contains(&"hook alarm failed".to_owned()), status == "failed");
    }
}

#[tokio::test]
async fn a_failing_before_hook_keeps_its_component_out() {
    let hooks = HookSet { before: vec![hook(&["freeze", "fail"])], after: vec![hook(&["thaw"])], ..HookSet::default() };
    let repository = FakeRepository::default();
    let run_hooks = HookSet::default();
    let fault = run_with(&repository, [Fail::Never; 3], run_hooks, &hooks, &context()).await.unwrap_err();
    assert!(fault.is(codes::ENGINE_HOOK));
    let lines = repository.log.lines();
    assert!(!lines.iter().any(|line| line.starts_with("begin")), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| *line == "hook thaw failed").count(), 3);
}

#[tokio::test]
async fn code_75_skips_the_run_softly() {
    let hooks =
        HookSet { before: vec![hook(&["window", "skip"])], on_error: vec![hook(&["alarm"])], ..HookSet::default() };
    let repository = FakeRepository::default();
    let none = HookSet::default();
    let fault = run_with(&repository, [Fail::Never; 3], hooks, &none, &context()).await.unwrap_err();
    assert_eq!(fault.exit_code(), 75);
    assert!(!repository.log.lines().iter().any(|line| line.contains("alarm")));
}

#[tokio::test]
async fn a_failing_after_hook_is_not_a_success() {
    let hooks = HookSet { after: vec![hook(&["thaw", "fail"])], ..HookSet::default() };
    let repository = FakeRepository::default();
    let none = HookSet::default();
    let report = run_with(&repository, [Fail::Never; 3], none, &hooks, &context()).await.unwrap();
    assert_eq!((report.state, report.exit_code(), report.problems.len()), (Completeness::Complete, 1, 3));
}

#[tokio::test]
async fn files_are_compared_with_the_newest_capture_without_loss() {
    let repository = FakeRepository::default();
    run(&repository, [Fail::Never; 3]).await.unwrap();
    run(&repository, [Fail::Never; 3]).await.unwrap();
    let tree = Reuse::Tree("0".repeat(64));
    assert!(repository.reused.lock().unwrap().values().all(|reuse| *reuse == tree));
    let first = FakeRepository::default();
    run(&first, [Fail::Unreadable; 3]).await.unwrap();
    run(&first, [Fail::Never; 3]).await.unwrap();
    assert!(first.reused.lock().unwrap().values().all(|reuse| *reuse == Reuse::Nothing));
}

#[tokio::test]
async fn two_hosts_do_not_share_what_one_could_write_over() {
    let repository = FakeRepository { unfit_to_share: true, ..FakeRepository::default() };
    run(&repository, [Fail::Never; 3]).await.unwrap();
    run(&repository, [Fail::Never; 3]).await.unwrap();
    let of = |host: &str, repository: &FakeRepository, read_all: bool| {
        let components = planned(repository, [Fail::Never; 3], &HookSet::default());
        let plan = BackupPlan::new("shop".into(), host.into(), HookSet::default(), components, &[]).unwrap();
        let runner = Arc::new(FakeHooks(repository.log.clone()));
        let repository: Arc<FakeRepository> = Arc::new(repository.clone());
        let options = BackupOptions { read_all, ..BackupOptions::default() };
        async move { backup(plan, repository, runner, &options, &context()).await }
    };
    // Whether earlier points are of use or not.
    for read_all in [false, true] {
        let fault = of("other", &repository, read_all).await.unwrap_err();
        assert!(fault.is(codes::REPO_UNFIT_STORE) && fault.hint_text().is_some_and(|hint| hint.contains("`host`")));
    }
    assert_eq!(repository.points.lock().unwrap().len(), 2);
    let fit = FakeRepository { unfit_to_share: false, ..repository };
    of("other", &fit, false).await.unwrap();
}
