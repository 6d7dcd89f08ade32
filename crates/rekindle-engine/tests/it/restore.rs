use std::sync::{Arc, Mutex};

use rekindle_core::port::{Repository, RestoreRequest, Target};
use rekindle_core::{ComponentKind, PointId, codes};
use rekindle_engine::restore::{RestoreItem, RestorePlan, RestoreSummary, restore};
use rekindle_engine::{BackupOptions, BackupPlan, HookSet, Planned, backup};

use crate::fakes::{Fail, FakeComponent, FakeHooks, FakeRepository, FakeServices, context};

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

/// A restore in place with services of which these starts fail, first start first.
async fn with_services(
    fail: Fail,
    stops_fail: bool,
    starts: &[bool],
) -> (rekindle_core::Result<RestoreSummary>, Vec<String>) {
    let (repository, point) = with_a_point().await;
    let mut one = item(&repository, &point, fail);
    one.request.target = Target::InPlace { discard_old: false };
    let starts = Mutex::new(starts.iter().rev().copied().collect());
    let services = Arc::new(FakeServices { log: repository.log.clone(), stops_fail, starts });
    let plan = RestorePlan::new(point, vec![one], None).unwrap().with_services(services).unwrap();
    let runner = Arc::new(FakeHooks(repository.log.clone()));
    let before = repository.log.lines().len();
    let summary = restore(plan, Arc::new(repository.clone()), runner, &context()).await;
    let lines = repository.log.lines()[before..].to_vec();
    let kept = |line: &String| ["stop services", "start services", "roll back database"].contains(&line.as_str());
    (summary, lines.into_iter().filter(kept).collect())
}

#[tokio::test]
async fn services_are_stopped_before_and_started_after() {
    for fail in [Fail::Never, Fail::Begin, Fail::Wrong] {
        let (summary, log) = with_services(fail, false, &[false]).await;
        assert_eq!(log, ["stop services", "start services"], "{fail:?}");
        let services = summary.unwrap().services.unwrap();
        assert_eq!((services.stopped, services.started), (vec!["app".to_owned()], vec!["app".to_owned()]));
    }
}

#[tokio::test]
async fn services_that_cannot_be_stopped_keep_everything_as_it_is() {
    let (summary, log) = with_services(Fail::Never, true, &[]).await;
    assert!(summary.unwrap_err().is(codes::CT_SERVICE));
    assert_eq!(log, ["stop services"]);
}

#[tokio::test]
async fn what_is_not_healthy_goes_back_to_the_state_before() {
    let (summary, log) = with_services(Fail::Never, false, &[true, false]).await;
    let summary = summary.unwrap();
    assert_eq!(log, ["stop services", "start services", "stop services", "roll back database", "start services"]);
    assert_eq!((summary.items[0].state, summary.exit_code()), ("rolled-back", 4));
    let services = summary.services.unwrap();
    assert_eq!(services.rolled_back.unwrap().code, "RK-EN-020");
    assert!(services.problem.is_none());
    // Nothing was restored, so nothing goes back.
    let (summary, log) = with_services(Fail::Begin, false, &[true]).await;
    let summary = summary.unwrap();
    assert_eq!(log, ["stop services", "start services"]);
    assert_eq!((summary.items[0].state, summary.exit_code()), ("failed", 4));
    assert!(summary.services.unwrap().rolled_back.is_none());
}

#[tokio::test]
async fn a_way_back_that_fails_is_a_failure_and_told() {
    let (summary, log) = with_services(Fail::Unreadable, false, &[true, false]).await;
    let summary = summary.unwrap();
    assert_eq!(log.last().map(String::as_str), Some("start services"));
    assert_eq!(summary.exit_code(), 1);
    let services = summary.services.unwrap();
    assert_eq!(services.problem.unwrap().code, "RK-EN-021");
    // Also when it is the old state that does not come up.
    let (summary, _) = with_services(Fail::Never, false, &[true, true]).await;
    let summary = summary.unwrap();
    assert_eq!((summary.items[0].state, summary.exit_code()), ("rolled-back", 1));
}

#[tokio::test]
async fn the_old_state_cannot_be_discarded_with_services_around() {
    let (repository, point) = with_a_point().await;
    let mut one = item(&repository, &point, Fail::Never);
    one.request.target = Target::InPlace { discard_old: true };
    let services = Arc::new(FakeServices { log: repository.log.clone(), stops_fail: false, starts: Mutex::default() });
    let plan = RestorePlan::new(point, vec![one], None).unwrap().with_services(services);
    assert!(plan.is_err_and(|fault| fault.is(codes::CLI_USAGE)));
}
