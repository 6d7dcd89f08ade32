//! Starting runs, and what becomes of them.

use jiff::Timestamp;
use rekindle_core::schedule::{ATTEMPTS_MAX, Ended, Run, Task};
use rekindle_core::{ComponentId, Fault, Result, RunId};

use super::{Message, Service};
use crate::child::{Order, Report};
use crate::notice::{Event, EventKind, Teller};

impl Service {
    /// Writes a run down and starts it.
    pub(super) fn start(&mut self, run: Run, now: Timestamp) -> Result<()> {
        let id = self.new_run();
        self.journal.begin(&id, &run, now)?;
        tracing::info!(run = %id, what = %subject(&run), "started");
        self.pass(EventKind::Start, id.as_str(), &run, format!("{} is started", subject(&run)), None, now)?;
        let order = Order { run: id.clone(), steps: (self.setup.steps)(run.task, &components(&run)) };
        let (launcher, stop, to_loop) =
            (self.setup.launcher.clone(), self.end_children.subscribe(), self.to_loop.clone());
        let done = id.clone();
        tokio::spawn(async move {
            let report = launcher.run(&order, stop).await;
            let _ = to_loop.send(Message::Ended { run: done, report: Box::new(report) }).await;
        });
        self.going.insert(id.as_str().to_owned(), run);
        Ok(())
    }

    /// A run has ended.
    pub(super) fn ended(&mut self, id: &RunId, report: &Report, now: Timestamp) -> Result<()> {
        self.journal.end(id.as_str(), report, now)?;
        let Some(run) = self.going.remove(id.as_str()) else {
            return Ok(());
        };
        tracing::info!(run = %id, what = %subject(&run), how = ?report.how, code = ?report.exit_code, "ended");
        // What the repository holds now is asked at once.
        self.next_view = now;
        self.tell_of(id.as_str(), &run, report, now)
    }

    pub(crate) fn tell_of(&mut self, id: &str, run: &Run, report: &Report, now: Timestamp) -> Result<()> {
        let how = |queued: &rekindle_core::schedule::Queued| match &queued.job.component {
            Some(component) => report.of_component(component).0,
            None => report.how,
        };
        let point = report.answer.as_ref().and_then(|answer| answer.pointer("/result/point")?.as_str());
        let bad: Vec<_> = run
            .jobs
            .iter()
            .filter(|queued| match how(queued) {
                Ended::Good | Ended::Skipped => false,
                Ended::Bad => true,
                // Tried again by itself.
                Ended::Again | Ended::Interrupted => queued.attempt >= ATTEMPTS_MAX,
            })
            .collect();
        let good: Vec<_> = run.jobs.iter().filter(|queued| how(queued) == Ended::Good).collect();
        let keys = |list: &[&rekindle_core::schedule::Queued]| {
            list.iter().map(|queued| format!("run {}", queued.job)).collect::<Vec<_>>()
        };
        let names = |list: &[&rekindle_core::schedule::Queued]| {
            let names: Vec<&str> = list.iter().filter_map(|one| Some(one.job.component.as_ref()?.as_str())).collect();
            if names.is_empty() { run.task.to_string() } else { format!("{} of {}", run.task, names.join(", ")) }
        };
        let mut event = self.event(EventKind::Recovered, &subject(run), now);
        event.run = Some(id.to_owned());
        event.point = point.map(str::to_owned);
        if !bad.is_empty() {
            let kind = if report.exit_code == Some(3) { EventKind::Partial } else { EventKind::Failed };
            let (code, why) = report.problem.clone().unwrap_or_default();
            let mut event = Event { kind, code: (!code.is_empty()).then_some(code), ..event.clone() };
            event.title = match kind {
                EventKind::Partial => format!("{}: the point of `{}` is partial", names(&bad), self.setup.stack),
                _ => format!("{} of `{}` failed", names(&bad), self.setup.stack),
            };
            event.text = format!("{why}\nSee `rekindle status`; each code has a page in docs/errors.");
            self.teller(now).open(&keys(&bad), &event)?;
            self.pass(kind, id, run, event.title.clone(), event.code.clone(), now)?;
        } else if good.len() == run.jobs.len() && !matches!(report.exit_code, Some(0) | None) {
            // Everything was captured, and still something is wrong: an after-hook, the skew.
            let (code, why) = report.problem.clone().unwrap_or_default();
            let mut event =
                Event { kind: EventKind::Failed, code: (!code.is_empty()).then_some(code), ..event.clone() };
            event.title = format!("{} of `{}` is done, but not as it should be", names(&good), self.setup.stack);
            event.text = format!("{why}\nThe data is saved. `rekindle show latest` says what is in the point.");
            self.teller(now).open(&[format!("after {}", run.task)], &event)?;
            self.pass(EventKind::Failed, id, run, event.title.clone(), event.code.clone(), now)?;
            return Ok(());
        } else if good.len() == run.jobs.len() {
            self.pass(EventKind::Success, id, run, format!("{} is done", names(&good)), None, now)?;
        }
        event.title = format!("{} of `{}` works again", names(&good), self.setup.stack);
        "The newest run was good.".clone_into(&mut event.text);
        let mut over = keys(&good);
        if report.exit_code == Some(0) {
            over.push(format!("after {}", run.task));
        }
        self.teller(now).close(&over, &event)
    }

    /// Tells those who hear of every run.
    fn pass(
        &mut self,
        kind: EventKind,
        id: &str,
        run: &Run,
        title: String,
        code: Option<String>,
        now: Timestamp,
    ) -> Result<()> {
        let mut event = self.event(kind, &subject(run), now);
        event.key = format!("run {}", run.task);
        event.run = Some(id.to_owned());
        (event.title, event.code) = (title, code);
        self.teller(now).ping(&event)
    }

    /// An event about this stack, to be filled.
    pub(crate) fn event(&self, kind: EventKind, subject: &str, now: Timestamp) -> Event {
        Event {
            kind,
            stack: self.setup.stack.clone(),
            host: self.setup.host.clone(),
            subject: subject.to_owned(),
            title: String::new(),
            text: String::new(),
            at: now,
            key: subject.to_owned(),
            run: None,
            point: None,
            code: None,
        }
    }

    pub(crate) fn teller(&mut self, now: Timestamp) -> Teller<'_> {
        Teller { journal: &mut self.journal, receivers: &self.setup.receivers, now }
    }

    /// Asks the repository how the stack stands, in a process of its own.
    pub(super) fn ask_for_view(&mut self) {
        self.viewing = true;
        let order = Order { run: self.new_run(), steps: vec![vec!["status".to_owned()]] };
        let (launcher, stop, to_loop) =
            (self.setup.launcher.clone(), self.end_children.subscribe(), self.to_loop.clone());
        tokio::spawn(async move {
            let report = launcher.run(&order, stop).await;
            if report.answer.is_none() {
                tracing::warn!(?report.problem, "the repository could not be asked");
            }
            let _ = to_loop.send(Message::Viewed { answer: Box::new(report.answer) }).await;
        });
    }

    /// One run outside of the schedule, to its end: for timers and cron.
    pub async fn once(&mut self, run: Run, stop: &super::Stop) -> Result<Report> {
        let now = self.setup.clock.now();
        let id = self.new_run();
        self.journal.begin(&id, &run, now)?;
        self.pass(EventKind::Start, id.as_str(), &run, format!("{} is started", subject(&run)), None, now)?;
        // Who judges by the age of the metrics hears of it before it ends.
        let agenda = self.look(now)?;
        self.publish(agenda, now)?;
        let order = Order { run: id.clone(), steps: (self.setup.steps)(run.task, &components(&run)) };
        let report = self.setup.launcher.run(&order, stop.0.clone()).await;
        let now = self.setup.clock.now();
        self.journal.end(id.as_str(), &report, now)?;
        self.tell_of(id.as_str(), &run, &report, now)?;
        let view = Order { run: self.new_run(), steps: vec![vec!["status".to_owned()]] };
        let answer = self.setup.launcher.run(&view, stop.0.clone()).await.answer;
        let now = self.setup.clock.now();
        self.viewed(answer.as_ref(), now)?;
        let agenda = self.look(now)?;
        self.conditions(&agenda, now)?;
        self.digests(now)?;
        self.deliver_now().await?;
        self.journal.tidy(self.setup.clock.now())?;
        self.publish(agenda, self.setup.clock.now())?;
        Ok(report)
    }

    /// Writes down and tells that a single run never had its turn.
    pub async fn gave_up(&mut self, run: Run, fault: &Fault) -> Result<()> {
        let (now, id) = (self.setup.clock.now(), self.new_run());
        let report = Report::never(fault);
        self.journal.begin(&id, &run, now)?;
        self.journal.end(id.as_str(), &report, now)?;
        self.tell_of(id.as_str(), &run, &report, now)?;
        self.deliver_now().await?;
        let agenda = self.look(now)?;
        self.publish(agenda, now)
    }
}

pub(crate) fn components(run: &Run) -> Vec<ComponentId> {
    run.jobs.iter().filter_map(|queued| queued.job.component.clone()).collect()
}

/// `backup database files`: the task first, as receivers filter by it.
pub(crate) fn subject(run: &Run) -> String {
    let task: Task = run.task;
    components(run).iter().fold(task.to_string(), |text, component| format!("{text} {component}"))
}
