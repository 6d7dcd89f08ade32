//! After a restart: runs that the journal left open.

use std::time::Duration;

use rekindle_core::schedule::Ended;
use rekindle_core::{Fault, Result, codes};
use serde_json::json;

use super::{Service, Stop};
use crate::child::{Order, Report};
use crate::journal::OpenRun;
use crate::view::point_of_run;

/// How long a run of a dead service may take to notice that it is alone.
const LEFT_OVER_MAX: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(100);

impl Service {
    /// Waits until no run of an earlier life is left, and writes down how each ended: if the
    /// repository holds its point, it was done.
    pub async fn recover(&mut self, stop: &mut Stop) -> Result<()> {
        let open = self.journal.open_runs()?;
        for run in &open {
            self.wait_for_end(run, stop).await?;
        }
        let ask = !open.is_empty() || self.journal.fresh;
        if !ask || stop.is_asked() {
            return Ok(());
        }
        let order = Order { run: self.new_run(), steps: vec![vec!["list".to_owned()]] };
        let points = self.setup.launcher.run(&order, stop.0.clone()).await.answer;
        for run in &open {
            let found = point_of_run(points.as_ref(), &run.id);
            let report = if let Some((point, how)) = found {
                let answer = Some(json!({"result": {"point": point}}));
                Report { how, exit_code: None, answer, problem: None }
            } else {
                let why = "the service ended before the run did".to_owned();
                let problem = Some((codes::SERVE_CHILD.id.to_owned(), why));
                Report { how: Ended::Interrupted, exit_code: None, answer: None, problem }
            };
            tracing::warn!(run = %run.id, how = ?report.how, "a run of an earlier life");
            self.journal.end(&run.id, &report, self.setup.clock.now())?;
        }
        // A new journal learns from the repository what is there, before anything is due.
        let now = self.setup.clock.now();
        for job in self.setup.jobs.clone() {
            self.journal.known(&job.name, now)?;
        }
        let order = Order { run: self.new_run(), steps: vec![vec!["status".to_owned()]] };
        let answer = self.setup.launcher.run(&order, stop.0.clone()).await.answer;
        self.viewed(answer.as_ref(), self.setup.clock.now())
    }

    async fn wait_for_end(&self, run: &OpenRun, stop: &mut Stop) -> Result<()> {
        let until = tokio::time::Instant::now() + LEFT_OVER_MAX;
        while let Some(pid) = process_of(&run.id) {
            self.setup.manager.tell("WATCHDOG=1");
            if stop.is_asked() {
                return Ok(());
            }
            if tokio::time::Instant::now() > until {
                let what = format!("wait for the {} with process id {pid}", run.task);
                return Err(Fault::new(codes::SERVE_LEFT_OVER, what)
                    .because("it was started by an earlier life of this service and does not end")
                    .hint(format!("look at it with `ps {pid}`, end it with `kill {pid}`, start the service again")));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// The process of a run: its id stands on the command line. That is known from the first moment,
/// which a process id written down after the start would not be.
fn process_of(run: &str) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").ok()?;
    entries.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0);
        words.find(|word| *word == b"--supervised")?;
        (words.next()? == run.as_bytes()).then_some(pid)
    })
}
