//! Runs and jobs in the journal.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rekindle_core::schedule::{Ended, JobName, Known, LastRun, Queued, Run, RunState, Task};
use rekindle_core::{ComponentId, Result, RunId};
use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::Value;

use super::{Journal, from_ms, to_ms};
use crate::child::Report;

/// Runs older than this are forgotten, in days; the newest of each job stays.
const RUN_DAYS_MAX: i64 = 400;

/// A run that was started and has no end in the journal.
#[derive(Debug, Clone)]
pub struct OpenRun {
    pub id: String,
    pub run: Run,
}

/// A run of the past, newest first in lists.
#[derive(Debug, Clone, Serialize)]
pub struct RunRecord {
    pub id: String,
    pub task: Task,
    pub components: Vec<String>,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    pub how: Option<String>,
    pub exit_code: Option<i64>,
    pub point: Option<String>,
    pub code: Option<String>,
    pub message: Option<String>,
}

/// The newest run of a job, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    pub good: bool,
    pub bytes: Option<i64>,
    pub stored_bytes: Option<i64>,
}

/// Counts that survive a restart: name, label, count.
pub type Totals = BTreeMap<(String, String), i64>;

fn component_text(job: &JobName) -> &str {
    job.component.as_ref().map_or("", ComponentId::as_str)
}

fn how_text(how: Ended) -> &'static str {
    match how {
        Ended::Good => "good",
        Ended::Bad => "bad",
        Ended::Again => "again",
        Ended::Interrupted => "interrupted",
        Ended::Skipped => "skipped",
    }
}

fn how_of(text: Option<&str>) -> Ended {
    match text {
        Some("good") => Ended::Good,
        Some("again") => Ended::Again,
        Some("interrupted") => Ended::Interrupted,
        Some("skipped") => Ended::Skipped,
        _ => Ended::Bad,
    }
}

impl Journal {
    /// What is known about a job; a new one is known from now on.
    pub fn known(&self, job: &JobName, now: Timestamp) -> Result<Known> {
        let (task, component) = (job.task.as_str(), component_text(job));
        self.change(
            "INSERT OR IGNORE INTO job (task, component, since) VALUES (?1, ?2, ?3)",
            params![task, component, to_ms(now)],
        )?;
        Ok(self.peek(job)?.unwrap_or_else(|| Known::new(now)))
    }

    /// What is known about a job; nothing about one that no service has seen yet.
    pub fn peek(&self, job: &JobName) -> Result<Option<Known>> {
        let (task, component) = (job.task.as_str(), component_text(job));
        let read = |error| self.failed("read the journal", error);
        let found: Option<(i64, Option<i64>)> = self
            .db
            .query_row(
                "SELECT since, newest_good FROM job WHERE task = ?1 AND component = ?2",
                [task, component],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .map_err(read)?;
        let Some((since, newest_good)) = found else { return Ok(None) };
        let newest = self
            .db
            .query_row(
                "SELECT slot, attempt, ended, how FROM run_job WHERE task = ?1 AND component = ?2 AND started >= ?3 \
                 ORDER BY started DESC, rowid DESC LIMIT 1",
                params![task, component, since],
                last_run,
            )
            .optional()
            .map_err(read)?;
        Ok(Some(Known { since: from_ms(since), newest, newest_good: newest_good.map(from_ms) }))
    }

    /// The clock was put back: what is known about this job begins anew. A run that goes on stays.
    pub fn begin_anew(&self, job: &JobName, now: Timestamp) -> Result<()> {
        let changes = [
            "UPDATE job SET since = ?3, newest_good = NULL WHERE task = ?1 AND component = ?2",
            "DELETE FROM run_job WHERE task = ?1 AND component = ?2 AND max(started, slot) > ?3 AND ended IS NOT NULL",
            "UPDATE run_job SET started = ?3, slot = ?3 WHERE task = ?1 AND component = ?2 AND ended IS NULL",
        ];
        changes
            .into_iter()
            .try_for_each(|sql| self.change(sql, params![job.task.as_str(), component_text(job), to_ms(now)]))
    }

    /// Writes a run down before it starts: after a crash it is known that it may have run.
    pub fn begin(&mut self, id: &RunId, run: &Run, now: Timestamp) -> Result<()> {
        let mut write = || -> rusqlite::Result<()> {
            let work = self.db.transaction()?;
            work.execute(
                "INSERT INTO run (id, task, started) VALUES (?1, ?2, ?3)",
                params![id.as_str(), run.task.as_str(), to_ms(now)],
            )?;
            for queued in &run.jobs {
                work.execute(
                    "INSERT INTO run_job (run, task, component, slot, attempt, missed, started) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![
                        id.as_str(),
                        queued.job.task.as_str(),
                        component_text(&queued.job),
                        to_ms(queued.slot),
                        queued.attempt,
                        queued.missed,
                        to_ms(now)
                    ],
                )?;
            }
            let missed: i64 = run.jobs.iter().map(|queued| i64::from(queued.missed)).sum();
            add(&work, "missed", run.task.as_str(), missed)?;
            work.commit()
        };
        let written: rusqlite::Result<()> = write();
        written.map_err(|error| self.failed("write the journal", error))
    }

    /// Writes down how a run ended.
    pub fn end(&mut self, id: &str, report: &Report, now: Timestamp) -> Result<()> {
        let result = report.answer.as_ref().map(|answer| &answer["result"]);
        let point = result.and_then(|result| result["point"].as_str());
        let (code, message) = report.problem.clone().unzip();
        let mut write = || -> rusqlite::Result<()> {
            let work = self.db.transaction()?;
            work.execute(
                "UPDATE run SET ended = ?2, how = ?3, exit_code = ?4, point = ?5, code = ?6, message = ?7 WHERE id = ?1",
                params![id, to_ms(now), how_text(report.how), report.exit_code, point, code, message],
            )?;
            let jobs: Vec<(String, String, i64)> = work
                .prepare("SELECT task, component, started FROM run_job WHERE run = ?1 AND ended IS NULL")?
                .query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<_>>()?;
            for (task, component, started) in jobs {
                let (how, record) = match component.parse::<ComponentId>() {
                    Ok(component) => report.of_component(&component),
                    Err(_) => (report.how, None),
                };
                end_job(&work, id, (&task, &component), started, how, record, now)?;
            }
            work.commit()
        };
        let written: rusqlite::Result<()> = write();
        written.map_err(|error| self.failed("write the journal", error))
    }

    /// Runs without an end: those of this process, or of one that was killed.
    pub fn open_runs(&self) -> Result<Vec<OpenRun>> {
        let list = || -> rusqlite::Result<Vec<OpenRun>> {
            self.db
                .prepare("SELECT id, task FROM run WHERE ended IS NULL ORDER BY started")?
                .query_map([], |row| {
                    let (id, task): (String, String) = (row.get(0)?, row.get(1)?);
                    let task = task.parse().unwrap_or(Task::Backup);
                    Ok(OpenRun { run: Run { task, jobs: self.jobs_of(&id, task)? }, id })
                })?
                .collect()
        };
        list().map_err(|error| self.failed("read the journal", error))
    }

    fn jobs_of(&self, run: &str, task: Task) -> rusqlite::Result<Vec<Queued>> {
        self.db
            .prepare("SELECT component, slot, attempt, missed, started FROM run_job WHERE run = ?1 ORDER BY rowid")?
            .query_map([run], |row| {
                let component: String = row.get(0)?;
                Ok(Queued {
                    job: JobName { task, component: component.parse().ok() },
                    slot: from_ms(row.get(1)?),
                    since: from_ms(row.get(4)?),
                    missed: row.get(3)?,
                    attempt: row.get(2)?,
                    hold: None,
                })
            })?
            .collect()
    }

    /// Writes down that a good result exists that stands for this moment, whoever made it.
    pub fn good_result(&self, job: &JobName, moment: Timestamp) -> Result<()> {
        self.change(
            "UPDATE job SET newest_good = max(coalesce(newest_good, ?3), ?3) WHERE task = ?1 AND component = ?2",
            params![job.task.as_str(), component_text(job), to_ms(moment)],
        )
    }

    /// The newest run of a job and its newest good one.
    pub fn record(&self, job: &JobName) -> Result<(Option<JobRecord>, Option<JobRecord>)> {
        let newest = |filter: &str| {
            let sql = format!(
                "SELECT started, ended, how, bytes, stored_bytes FROM run_job WHERE task = ?1 AND component = ?2 \
                 AND ended IS NOT NULL {filter} ORDER BY started DESC, rowid DESC LIMIT 1"
            );
            self.db.query_row(&sql, [job.task.as_str(), component_text(job)], job_record).optional()
        };
        let read = |error| self.failed("read the journal", error);
        Ok((newest("AND how <> 'skipped'").map_err(read)?, newest("AND how = 'good'").map_err(read)?))
    }

    /// The newest runs.
    pub fn runs(&self, most: u32) -> Result<Vec<RunRecord>> {
        self.runs_where("?1 = ?1", 0, most)
    }

    /// Runs that ended at or after this moment.
    pub fn runs_since(&self, moment: Timestamp, most: u32) -> Result<Vec<RunRecord>> {
        self.runs_where("ended >= ?1", to_ms(moment), most)
    }

    fn runs_where(&self, filter: &str, value: i64, most: u32) -> Result<Vec<RunRecord>> {
        let sql = format!(
            "SELECT id, task, started, ended, how, exit_code, point, code, message, \
             (SELECT group_concat(component, ' ') FROM run_job WHERE run = id) \
             FROM run WHERE {filter} ORDER BY started DESC, rowid DESC LIMIT ?2"
        );
        let list = || -> rusqlite::Result<Vec<RunRecord>> {
            self.db.prepare(&sql)?.query_map(params![value, most], run_record)?.collect()
        };
        list().map_err(|error| self.failed("read the journal", error))
    }

    /// Counts one more.
    pub fn count(&self, name: &str, label: &str) -> Result<()> {
        add(&self.db, name, label, 1).map_err(|error| self.failed("write the journal", error))
    }

    /// All counts.
    pub fn totals(&self) -> Result<Totals> {
        let list = || -> rusqlite::Result<Totals> {
            self.db
                .prepare("SELECT name, label, count FROM counter")?
                .query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?
                .collect()
        };
        list().map_err(|error| self.failed("read the journal", error))
    }

    /// Forgets runs of long ago.
    pub fn tidy(&self, now: Timestamp) -> Result<()> {
        let old = to_ms(now) - RUN_DAYS_MAX * 86_400_000;
        self.change(
            "DELETE FROM run WHERE ended < ?1 AND id NOT IN (SELECT run FROM run_job AS one WHERE NOT EXISTS \
             (SELECT 1 FROM run_job AS later WHERE later.task = one.task AND later.component = one.component \
             AND later.how = one.how AND later.started > one.started))",
            [old],
        )
    }
}

fn add(db: &rusqlite::Connection, name: &str, label: &str, count: i64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO counter (name, label, count) VALUES (?1, ?2, ?3) \
               ON CONFLICT (name, label) DO UPDATE SET count = count + ?3";
    db.execute(sql, params![name, label, count]).map(drop)
}

fn end_job(
    work: &rusqlite::Transaction<'_>,
    id: &str,
    (task, component): (&str, &str),
    started: i64,
    how: Ended,
    record: Option<&Value>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let number = |key: &str| record.and_then(|record| record[key].as_i64());
    work.execute(
        "UPDATE run_job SET ended = ?4, how = ?5, bytes = ?6, stored_bytes = ?7, elapsed_ms = ?8 \
         WHERE run = ?1 AND task = ?2 AND component = ?3",
        params![
            id,
            task,
            component,
            to_ms(now),
            how_text(how),
            number("bytes"),
            number("stored_bytes"),
            number("elapsed_ms")
        ],
    )?;
    add(work, "runs", &format!("{task} {}", how_text(how)), 1)?;
    if how == Ended::Good {
        let captured = record.and_then(|record| record["captured_at"].as_str()).and_then(|text| text.parse().ok());
        let moment = captured.map_or(started, |moment: Timestamp| to_ms(moment).max(started));
        work.execute(
            "UPDATE job SET newest_good = max(coalesce(newest_good, ?3), ?3) WHERE task = ?1 AND component = ?2",
            params![task, component, moment],
        )?;
    }
    Ok(())
}

fn last_run(row: &Row<'_>) -> rusqlite::Result<LastRun> {
    let (ended, how): (Option<i64>, Option<String>) = (row.get(2)?, row.get(3)?);
    let state = match ended {
        Some(at) => RunState::Ended { how: how_of(how.as_deref()), at: from_ms(at) },
        None => RunState::Running,
    };
    Ok(LastRun { slot: from_ms(row.get(0)?), attempt: row.get(1)?, state })
}

fn job_record(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    let how: Option<String> = row.get(2)?;
    let ended: Option<i64> = row.get(1)?;
    Ok(JobRecord {
        started: from_ms(row.get(0)?),
        ended: ended.map(from_ms),
        good: how.as_deref() == Some("good"),
        bytes: row.get(3)?,
        stored_bytes: row.get(4)?,
    })
}

fn run_record(row: &Row<'_>) -> rusqlite::Result<RunRecord> {
    let task: String = row.get(1)?;
    let ended: Option<i64> = row.get(3)?;
    let components: Option<String> = row.get(9)?;
    Ok(RunRecord {
        id: row.get(0)?,
        task: task.parse().unwrap_or(Task::Backup),
        components: components.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        started: from_ms(row.get(2)?),
        ended: ended.map(from_ms),
        how: row.get(4)?,
        exit_code: row.get(5)?,
        point: row.get(6)?,
        code: row.get(7)?,
        message: row.get(8)?,
    })
}
