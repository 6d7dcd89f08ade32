use std::sync::Arc;

use rekindle_core::port::{Repository, RestoreRequest, Target};
use rekindle_core::{ComponentKind, PointId, codes};
use rekindle_engine::restore::{RestoreItem, RestorePlan, RestoreSummary, restore};
use rekindle_engine::{BackupOptions, BackupPlan, HookSet, Planned, backup};

use crate::fakes::{Fail, FakeComponent, FakeHooks, FakeRepository, context};

fn item(repository: &FakeRepository, point: &PointId, fail: Fail) -> RestoreItem {
    let log = repository.log.clone();
    let id = "database".parse().unwrap();
    let component = FakeComponent { id, kind: ComponentKind::Postgres, fail, log };
    let request = RestoreRequest {
        point: point.clone(),
        target: Target::New(None),
        select: Vec::new(),
        overwrite: false,
        jobs: 1,
        server: None,
        recovery: None,
    };
    RestoreItem { component: Arc::new(component), request }
}

#[tokio::test]
async fn a_part_that_cannot_be_opened_stops_everything_before_a_target_is_touched() {
    let repository = FakeRepository::default();
    let point: PointId = "1".repeat(64).parse().unwrap();
    let plan = RestorePlan::new(point.clone(), vec![item(&repository, &point, Fail::Never)], None).unwrap();
    assert!(plan.view(&repository as &dyn Repository).is_err());
    let runner = Arc::new(FakeHooks(repository.log.clone()));
    let fault = restore(plan, Arc::new(repository.clone()), runner, &context()).await.unwrap_err();
    assert!(fault.is(codes::REPO_NO_ENTRY));
    assert!(!repository.log.lines().iter().any(|line| line.starts_with("restore")));
}

#[tokio::test]
async fn an_empty_plan_is_refused() {
    let point: PointId = "1".repeat(64).parse().unwrap();
    assert!(RestorePlan::new(point, Vec::new(), None).is_err_and(|fault| fault.is(codes::ENGINE_NO_COMPONENT)));
}

/// A repository with one complete point that holds `database`.
async fn with_a_point() -> (FakeRepository, PointId) {
    let repository = FakeRepository::default();
    let plan = backup_plan(&repository, Fail::Never);
    let runner = Arc::new(FakeHooks(repository.log.clone()));
    let report = backup(plan, Arc::new(repository.clone()), runner, &BackupOptions::default(), &context()).await;
    let point = report.unwrap().point;
    (repository, point)
}

fn backup_plan(repository: &FakeRepository, fail: Fail) -> BackupPlan {
    let point: PointId = "1".repeat(64).parse().unwrap();
    let component = item(repository, &point, fail).component;
    let planned = Planned { component, hooks: HookSet::default() };
    BackupPlan::new("shop".into(), "host".into(), HookSet::default(), vec![planned], &[]).unwrap()
}

async fn run(fail: Fail, safety: Option<Fail>) -> (rekindle_core::Result<RestoreSummary>, FakeRepository) {
    let (repository, point) = with_a_point().await;
    let safety = safety.map(|fail| backup_plan(&repository, fail));
    let plan = RestorePlan::new(point.clone(), vec![item(&repository, &point, fail)], safety).unwrap();
    let runner = Arc::new(FakeHooks(repository.log.clone()));
    (restore(plan, Arc::new(repository.clone()), runner, &context()).await, repository)
}

#[tokio::test]
async fn the_state_and_the_exit_code_tell_what_came_back() {
    let cases = [
        (Fail::Never, "restored", 0),
        (Fail::Stream, "incomplete", 13),
        (Fail::Wrong, "wrong", 4),
        (Fail::Begin, "failed", 1),
    ];
    for (fail, state, code) in cases {
        let summary = run(fail, None).await.0.unwrap();
        assert_eq!((summary.items[0].state, summary.exit_code()), (state, code), "{fail:?}");
    }
}

#[tokio::test]
async fn a_safety_point_comes_first_or_nothing_does() {
    let (summary, repository) = run(Fail::Never, Some(Fail::Never)).await;
    assert!(summary.unwrap().safety_point.is_some());
    assert_eq!(repository.points.lock().unwrap().len(), 2);
    let (summary, repository) = run(Fail::Never, Some(Fail::Finish)).await;
    let fault = summary.unwrap_err();
    assert!(fault.is(codes::ENGINE_SAFETY) && fault.exit_code() == 21, "{fault:?}");
    assert!(!repository.log.lines().iter().any(|line| line.starts_with("restore")));
}
