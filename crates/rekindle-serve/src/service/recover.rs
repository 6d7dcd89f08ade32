//! After a restart: runs that the journal left open.

use std::time::Duration;

use jiff::Timestamp;
use rekindle_core::schedule::{Ended, Task};
use rekindle_core::{Class, Fault, Result, codes};
use serde_json::{Value, json};

use super::{Message, Service, Stop};
use crate::child::{Order, Report};
use crate::journal::OpenRun;
use crate::notice::EventKind;
use crate::view::point_of_run;

/// How long a run of a dead service may take to notice that it is alone.
const LEFT_OVER_MAX: Duration = Duration::from_mins(3);
/// How often the repository is asked about them.
const LEFT_ASK_EVERY: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);

impl Service {
    /// Waits until no run of an earlier life is left, and writes down how each ended: if the
    /// repository holds its point, it was done.
    pub async fn recover(&mut self, stop: &mut Stop) -> Result<()> {
        let open = self.journal.open_runs()?;
        for run in &open {
            self.wait_for_end(run, stop).await?;
        }
        if (open.is_empty() && !self.journal.fresh) || stop.is_asked() {
            return Ok(());
        }
        self.left = open;
        if !self.left.is_empty() {
            let points = self.setup.launcher.run(&self.ask_for_points(), stop.0.clone()).await.answer;
            if stop.is_asked() {
                return Ok(());
            }
            self.settle(points.as_ref(), self.setup.clock.now())?;
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

    pub(super) fn ask_for_points(&self) -> Order {
        Order { run: self.new_run(), steps: vec![vec!["list".to_owned()]] }
    }

    /// Asks again what became of runs of an earlier life, as the repository did not answer before.
    pub(super) fn ask_what_is_left(&mut self, now: Timestamp) {
        if self.left.is_empty() || now < self.next_ask {
            return;
        }
        // Until this answer is there, which may take its time.
        self.next_ask = Timestamp::MAX;
        let order = self.ask_for_points();
        let (launcher, stop, to_loop) =
            (self.setup.launcher.clone(), self.end_children.subscribe(), self.to_loop.clone());
        tokio::spawn(async move {
            let answer = launcher.run(&order, stop).await.answer;
            let _ = to_loop.send(Message::Listed { answer: Box::new(answer) }).await;
        });
    }

    /// Writes down and tells how each run of an earlier life ended: if the repository holds its point, it was
    /// done. As long as the repository cannot be asked about a backup, its run stays open: nobody knows.
    pub(super) fn settle(&mut self, points: Option<&Value>, now: Timestamp) -> Result<()> {
        let listed = points.filter(|answer| answer.pointer("/result/points").is_some_and(Value::is_array));
        let (settled, open): (Vec<OpenRun>, Vec<OpenRun>) = std::mem::take(&mut self.left)
            .into_iter()
            .partition(|one| one.run.task != Task::Backup || listed.is_some());
        for one in settled {
            let report = what_became(listed, &one.id);
            tracing::warn!(run = %one.id, how = ?report.how, "a run of an earlier life");
            self.journal.end(&one.id, &report, now)?;
            self.tell_of(&one.id, &one.run, &report, now)?;
        }
        let unknown = open.first().map(|one| {
            let title = format!("what became of a run of `{}` is not known", self.setup.stack);
            let text = format!(
                "The service ended before run {} did, and the repository cannot be asked now. It is asked again all the time; until then its components are not saved.\nSee `rekindle status`.",
                one.id
            );
            (title, text)
        });
        self.left = open;
        self.next_ask = now + LEFT_ASK_EVERY;
        self.state(EventKind::Failed, "left over", "repository", unknown, now)
    }

    async fn wait_for_end(&self, run: &OpenRun, stop: &mut Stop) -> Result<()> {
        let until = tokio::time::Instant::now() + LEFT_OVER_MAX;
        while let Some(pid) = process_of(&run.id) {
            self.setup.manager.tell("WATCHDOG=1");
            if stop.is_asked() {
                return Ok(());
            }
            if tokio::time::Instant::now() > until {
                let what = format!("wait for the {} with process id {pid}", run.run.task);
                return Err(Fault::new(codes::SERVE_LEFT_OVER, what)
                    .because("it was started by an earlier life of this service and does not end")
                    .hint(format!("look at it with `ps {pid}`, end it with `kill {pid}`, start the service again")));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

fn what_became(points: Option<&Value>, run: &str) -> Report {
    let Some((point, how)) = point_of_run(points, run) else {
        let why = "the service ended before the run did".to_owned();
        let problem = Some((codes::SERVE_CHILD.id.to_owned(), why));
        return Report { how: Ended::Interrupted, exit_code: None, answer: None, problem };
    };
    let answer = Some(json!({"result": {"point": point}}));
    let partial = (how != Ended::Good).then(|| {
        let why = "the service ended before the run did; its point is there, and it is partial".to_owned();
        (codes::SERVE_CHILD.id.to_owned(), why)
    });
    let exit_code = partial.is_some().then_some(i32::from(Class::Partial.exit_code()));
    Report { how, exit_code, answer, problem: partial }
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
