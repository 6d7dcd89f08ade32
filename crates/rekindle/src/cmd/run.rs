//! `run`

use std::path::Path;
use std::time::Duration;

use clap::Args;
use rekindle_config::Config;
use rekindle_core::schedule::{JobName, Queued, Run as Planned, Task};
use rekindle_core::{ComponentId, Fault, codes};
use rekindle_serve::{Journal, Report, Service, Setup, Stop};
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire::turn::{self, Turn};
use crate::wire::{self, service};
use crate::{group, human};

/// Do one scheduled task now, with journal, metrics and messages
///
/// For timers and cron, where no service runs: `rekindle install cron` writes such lines. The exit code is that of the task.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// What to do
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(["backup", "verify", "drill", "prune", "copy", "maintenance"]))]
    task: String,
    /// Components or groups of a backup, or copies; none: all. Of maintenance: daily, weekly or monthly
    #[arg(value_name = "COMPONENT|GROUP|COPY")]
    components: Vec<String>,
    /// How long to wait for another run of this stack, or for the end of a [pause]
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(0..=604_800))]
    wait: u64,
}

impl Run {
    /// What the task is about: components, copies, a period, or nothing in particular.
    fn names(&self, task: Task, config: &Config) -> Result<Vec<Option<ComponentId>>, Faults> {
        Ok(if task == Task::Backup {
            let known: Vec<_> = config.components.iter().map(|one| (one.id.clone(), one.kind())).collect();
            let mut wanted = group::wanted(&self.components, &known, Some(config))?;
            if wanted.is_empty() {
                wanted = config.components.iter().map(|one| one.id.clone()).collect();
            }
            wanted.into_iter().map(Some).collect()
        } else if task == Task::Maintenance {
            let periods: Vec<_> = self.components.iter().map(|period| period.parse().ok()).collect();
            if periods.len() != 1 || periods[0].is_none() {
                return Err(Fault::new(codes::CLI_USAGE, "read the period of the maintenance")
                    .hint("rekindle run maintenance daily")
                    .into());
            }
            periods
        } else if task == Task::Copy {
            let all = || config.copies.iter().map(|one| one.name.clone()).collect();
            let names: Vec<String> = if self.components.is_empty() { all() } else { self.components.clone() };
            let id = |name: &String| wire::copy(config, name).map(|one| one.name.parse().ok());
            names.iter().map(id).collect::<Result<_, _>>()?
        } else if self.components.is_empty() {
            vec![None]
        } else {
            return Err(Fault::new(codes::CLI_USAGE, format!("{task} components: it is for the whole repository"))
                .hint(format!("rekindle run {task}"))
                .into());
        })
    }

    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let task: Task = self.task.parse().map_err(|bad| Fault::new(codes::CLI_USAGE, "read the task").because(bad))?;
        let names = self.names(task, &config)?;
        let now = session.now();
        let queued = |component| Queued {
            job: JobName { task, component },
            slot: now,
            since: now,
            missed: 0,
            // Nobody but the next line of the crontab tries again.
            attempt: rekindle_core::schedule::ATTEMPTS_MAX,
            hold: None,
        };
        let plan = Planned { task, jobs: names.into_iter().map(queued).collect() };
        let directory = service::state_directory(&config)?;
        let setup = service::setup(session, &config)?;
        let line = plan.jobs.iter().map(|queued| queued.job.to_string()).collect::<Vec<_>>().join(", ");
        let (report, _alone) =
            match turn::of_line(session, &directory, &line, &setup.rules, Duration::from_secs(self.wait))? {
                Turn::Ours(alone) => (now_alone(session, &directory, setup, plan)?, Some(alone)),
                Turn::Doubled => {
                    let fault = Fault::new(codes::ENGINE_WAITS, format!("run {task}"))
                        .because(format!("another `{line}` waits for its turn and will do what this one would"));
                    return Ok(Answer::data(json!({"task": task, "waits": true}), String::new()).worse(fault));
                }
                Turn::Never(fault) => {
                    // Somebody else may be writing to the journal; SQLite keeps the two apart.
                    let journal = Journal::open(&directory, session.now())?;
                    let told = async { Service::new(setup, journal)?.gave_up(plan, &fault).await };
                    session.runtime.block_on(Box::pin(told))?;
                    return Err(fault.during(format!("run {task}")).into());
                }
            };
        let code = report.exit_code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        let elapsed = human::seconds(u64::try_from(session.now().duration_since(now).as_secs()).unwrap_or(0));
        let text = format!("{task} ended with {code} after {elapsed}\n");
        let answer = Answer::words(json!({"task": task, "answer": report.answer}), text).exit(code);
        Ok(match report.problem {
            None => answer,
            Some((id, why)) => {
                let code = codes::all().find(|code| code.id == id).unwrap_or(codes::SERVE_CHILD);
                answer.with_fault(Fault::new(code, format!("run {task}")).because(why).hint("rekindle status"))
            }
        })
    }
}

fn now_alone(session: &Session, directory: &Path, setup: Setup, plan: Planned) -> Result<Report, Fault> {
    let journal = Journal::open(directory, session.now())?;
    let stop: Stop = service::stop(session);
    session.runtime.block_on(Box::pin(async {
        let mut service = Service::new(setup, journal)?;
        service.recover(&mut stop.clone()).await?;
        service.once(plan, &stop).await
    }))
}
