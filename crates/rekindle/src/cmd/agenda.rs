//! What `status` says about the schedule: what is overdue, what waits and for what, and when each job comes next.

use jiff::Timestamp;
use rekindle_config::Config;
use rekindle_core::Result;
use rekindle_core::schedule::{Agenda, Hold, Job, JobName, Known, LastRun, Queued, Rules, RunState, Task, look};
use rekindle_engine::status::ComponentStatus;
use serde_json::{Value, json};

use crate::output::Answer;
use crate::{human, wire};

/// Adds every job that the journal of this host knows. The verdict is not theirs: it is about the points.
/// `judged` are the components as they stand in the repository, which knows of work that was done by hand.
pub(super) fn add(
    answer: Answer,
    config: &Config,
    rules: &Rules,
    judged: &[ComponentStatus],
    now: Timestamp,
) -> Answer {
    match known(config, judged) {
        Ok(jobs) if jobs.is_empty() => answer.adding("jobs", json!([]), ""),
        Ok(jobs) => {
            let agenda = look(rules, &jobs, now);
            let text = human::table(
                &["SCHEDULED", "LAST GOOD", "NEXT", "STATE"],
                &jobs.iter().map(|(job, known)| row(job, known, rules, &agenda, now)).collect::<Vec<_>>(),
            );
            let list: Vec<Value> = jobs.iter().map(|(job, known)| one(job, known, rules, &agenda, now)).collect();
            answer.adding("jobs", Value::Array(list), &format!("\n{text}"))
        }
        Err(fault) => {
            let text = format!("\nschedule: not known: {}\n", fault.chain());
            answer.adding("jobs", Value::Null, &text)
        }
    }
}

fn known(config: &Config, judged: &[ComponentStatus]) -> Result<Vec<(Job, Known)>> {
    let Some(journal) = wire::service::journal(config)? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for job in wire::service::jobs(config) {
        if let Some(mut known) = journal.peek(&job.name)? {
            known.newest_good = known.newest_good.max(seen(&job.name, judged));
            all.push((job, known));
        }
    }
    Ok(all)
}

/// The newest good result of a job that the repository shows, as the service learns it.
fn seen(job: &JobName, judged: &[ComponentStatus]) -> Option<Timestamp> {
    match (job.task, &job.component) {
        (Task::Backup, Some(id)) => {
            let one = judged.iter().find(|one| one.component == *id)?;
            one.captured_at.max(one.run_started)
        }
        (Task::Drill, None) => judged.iter().map(|one| one.proved_at).collect::<Option<Vec<_>>>()?.into_iter().min(),
        _ => None,
    }
}

fn next(job: &Job, rules: &Rules, now: Timestamp) -> Option<Timestamp> {
    let delay = rules.delays.of(job.name.task);
    Some(rules.open_from(job.schedule.next_after(now - delay, &rules.zone)? + delay))
}

fn queued<'a>(job: &Job, agenda: &'a Agenda) -> Option<&'a Queued> {
    agenda.queue.iter().find(|one| one.job == job.name)
}

fn overdue(job: &Job, agenda: &Agenda) -> Option<Timestamp> {
    Some(agenda.overdue.iter().find(|one| one.job == job.name)?.since)
}

fn runs(known: &Known) -> bool {
    matches!(known.newest, Some(LastRun { state: RunState::Running, .. }))
}

fn one(job: &Job, known: &Known, rules: &Rules, agenda: &Agenda, now: Timestamp) -> Value {
    json!({
        "task": job.name.task,
        "component": job.name.component,
        "schedule": job.schedule.as_str(),
        "newest_good": known.newest_good,
        "next": next(job, rules, now),
        "running": runs(known),
        "overdue_since": overdue(job, agenda),
        "queued": queued(job, agenda),
    })
}

fn row(job: &Job, known: &Known, rules: &Rules, agenda: &Agenda, now: Timestamp) -> Vec<String> {
    let mut states = Vec::new();
    if let Some(since) = overdue(job, agenda) {
        states.push(format!("OVERDUE since {}", human::time(since)));
    }
    if runs(known) {
        states.push("runs".to_owned());
    }
    if let Some(queued) = queued(job, agenda) {
        states.push(match &queued.hold {
            None => "due".to_owned(),
            Some(Hold::Pause { until }) => format!("waits for the end of a pause, {}", human::time(*until)),
            Some(Hold::Running { job }) => format!("waits for the running {job}"),
            Some(Hold::Behind { job }) => format!("waits behind {job}"),
            Some(Hold::Retry { at }) => format!("is tried again at {}", human::time(*at)),
        });
    }
    vec![
        job.name.to_string(),
        known.newest_good.map_or_else(|| "never".to_owned(), human::time),
        next(job, rules, now).map_or_else(|| "-".to_owned(), human::time),
        if states.is_empty() { "-".to_owned() } else { states.join(", ") },
    ]
}
