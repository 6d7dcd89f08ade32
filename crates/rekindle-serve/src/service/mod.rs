//! The service: one loop that looks, starts what is due, and hears how it ended.

mod conditions;
mod deliver;
mod recover;
mod runs;
mod setup;

pub use setup::{FreeSpace, Setup, Steps, Stop};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use rekindle_core::schedule::{Agenda, Job, Known, LastRun, RunState, look};
use rekindle_core::{Result, RunId};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::child::Report;
use crate::http::Page;
use crate::journal::{Journal, OpenRun, Parcel};
use crate::metrics::{Format, JobState, Snapshot, render, write_textfile};
use crate::notify::Failure;
use crate::streams::Streams;
use crate::view::View;

/// Longest sleep: clocks are set and hosts are suspended without asking.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How often the repository is asked how the stack stands.
const VIEW_EVERY: Duration = Duration::from_mins(5);
/// Messages between the loop and its tasks that may wait.
const MESSAGES_MAX: usize = 64;

/// What the loop hears.
enum Message {
    Ended { run: RunId, report: Box<Report> },
    Viewed { answer: Box<Option<Value>> },
    Listed { answer: Box<Option<Value>> },
    Delivered { parcel: Parcel, result: Result<(), Failure> },
}

/// The running service.
pub struct Service {
    pub(crate) setup: Setup,
    pub(crate) journal: Journal,
    pub(crate) view: View,
    /// Runs of this process.
    going: BTreeMap<String, rekindle_core::schedule::Run>,
    /// Runs of an earlier life whose end is not known yet.
    left: Vec<OpenRun>,
    next_ask: Timestamp,
    streams: Streams,
    page: Page,
    on_the_way: BTreeSet<i64>,
    viewing: bool,
    next_view: Timestamp,
    to_loop: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    /// Asks every child to end.
    end_children: watch::Sender<bool>,
}

impl Service {
    /// A service over a journal nobody else writes.
    pub fn new(setup: Setup, journal: Journal) -> Result<Self> {
        let (to_loop, messages) = mpsc::channel(MESSAGES_MAX);
        let view = View::recall(&journal)?;
        let next_view = setup.clock.now();
        Ok(Self {
            setup,
            journal,
            view,
            going: BTreeMap::new(),
            left: Vec::new(),
            next_ask: next_view,
            streams: Streams::default(),
            page: Page::default(),
            on_the_way: BTreeSet::new(),
            viewing: false,
            next_view,
            to_loop,
            messages,
            end_children: watch::channel(false).0,
        })
    }

    /// Runs until asked to stop, and until what runs has ended.
    pub async fn run(mut self, mut stop: Stop) -> Result<()> {
        let listener = match self.setup.listen {
            Some(address) => Some(crate::http::bind(address).await?),
            None => None,
        };
        // Before what was left behind is looked at, which takes its time when the repository does not answer.
        let server = listener.map(|listener| tokio::spawn(crate::http::serve(listener, self.page.clone())));
        self.recover(&mut stop).await?;
        self.journal.tidy(self.setup.clock.now())?;
        let (end_streams, streams) = self.start_streams();
        self.setup.manager.tell("READY=1");
        let mut stopping: Option<tokio::time::Instant> = None;
        loop {
            let agenda = self.turn(stopping.is_none())?;
            if stopping.is_some() && self.going.is_empty() {
                break;
            }
            let sleep = self.sleep(&agenda, stopping);
            tokio::select! {
                Some(message) = self.messages.recv() => self.hear(message)?,
                () = tokio::time::sleep(sleep) => {}
                () = stop.asked(), if stopping.is_none() => {
                    self.setup.manager.tell("STOPPING=1");
                    tracing::info!(running = self.going.len(), "stopping: nothing new is started");
                    let _ = end_streams.send(true);
                    stopping = Some(tokio::time::Instant::now() + self.setup.grace);
                }
            }
            if stopping.is_some_and(|until| until <= tokio::time::Instant::now()) {
                let _ = self.end_children.send(true);
            }
        }
        for stream in streams {
            let _ = stream.await;
        }
        if let Some(server) = server {
            server.abort();
        }
        Ok(())
    }

    fn start_streams(&self) -> (watch::Sender<bool>, Vec<tokio::task::JoinHandle<()>>) {
        let (end, ended) = watch::channel(false);
        let start = |component: &rekindle_core::ComponentId| {
            let run = self.new_run();
            let (launcher, clock) = (self.setup.launcher.clone(), self.setup.clock.clone());
            tokio::spawn(self.streams.clone().supervise(launcher, component.clone(), run, clock, ended.clone()))
        };
        (end.clone(), self.setup.streams.iter().map(start).collect())
    }

    /// One look: starts what is due, tells what is to be told.
    fn turn(&mut self, may_start: bool) -> Result<Agenda> {
        let now = self.setup.clock.now();
        let mut agenda = self.look(now)?;
        while may_start && let Some(run) = agenda.next_run() {
            self.start(run, now)?;
            agenda = self.look(now)?;
        }
        if may_start && !self.viewing && now >= self.next_view {
            self.ask_for_view();
        }
        if may_start {
            self.ask_what_is_left(now);
        }
        self.conditions(&agenda, now)?;
        for component in self.streams.restarted() {
            self.journal.count("wal restarts", component.as_str())?;
        }
        self.digests(now)?;
        self.deliver(now)?;
        self.publish(agenda.clone(), now)?;
        self.setup.manager.tell("WATCHDOG=1");
        Ok(agenda)
    }

    /// What is due. Jobs whose records are of the future begin anew.
    fn look(&self, now: Timestamp) -> Result<Agenda> {
        let agenda = look(&self.setup.rules, &self.known(now)?, now);
        if agenda.from_future.is_empty() {
            return Ok(agenda);
        }
        for job in &agenda.from_future {
            tracing::warn!(%job, "its records are of the future: the clock was put back, they begin anew");
            self.journal.begin_anew(job, now)?;
        }
        Ok(look(&self.setup.rules, &self.known(now)?, now))
    }

    fn known(&self, now: Timestamp) -> Result<Vec<(Job, Known)>> {
        self.setup.jobs.iter().map(|job| Ok((job.clone(), self.journal.known(&job.name, now)?))).collect()
    }

    fn hear(&mut self, message: Message) -> Result<()> {
        let now = self.setup.clock.now();
        match message {
            Message::Ended { run, report } => self.ended(&run, &report, now)?,
            Message::Viewed { answer } => self.viewed(answer.as_ref().as_ref(), now)?,
            Message::Listed { answer } => self.settle(answer.as_ref().as_ref(), now)?,
            Message::Delivered { parcel, result } => self.delivered(&parcel, result, now)?,
        }
        Ok(())
    }

    fn viewed(&mut self, answer: Option<&Value>, now: Timestamp) -> Result<()> {
        self.viewing = false;
        self.next_view = now + VIEW_EVERY;
        if let Some(free) = (self.setup.free_space)() {
            (self.view.free_bytes, self.view.total_bytes) = (Some(free.free_bytes), Some(free.total_bytes));
        }
        self.view.take(&self.journal, answer, now)?;
        self.view.feed(&self.journal)
    }

    /// Puts the metrics together.
    pub(crate) fn publish(&self, agenda: Agenda, now: Timestamp) -> Result<()> {
        let mut jobs = Vec::new();
        for (job, known) in self.known(now)? {
            let (newest, newest_run_good) = self.journal.record(&job.name)?;
            let running = matches!(known.newest, Some(LastRun { state: RunState::Running, .. }));
            jobs.push(JobState { job, running, newest, newest_run_good, newest_good: known.newest_good });
        }
        let snapshot = Snapshot {
            stack: self.setup.stack.clone(),
            version: self.setup.version.clone(),
            jobs,
            agenda,
            objectives: self.setup.objectives.clone(),
            view: self.view.clone(),
            totals: self.journal.totals()?,
            streams: self.streams.states(),
            receivers: self.setup.receivers.iter().map(|one| one.name.clone()).collect(),
            parcels_waiting: self.journal.parcels_waiting()?,
            now,
        };
        self.page.set(render(&snapshot, Format::OpenMetrics));
        if let Some(path) = &self.setup.textfile
            && let Err(fault) = write_textfile(path, &render(&snapshot, Format::Prometheus))
        {
            // A full disk must not stop the backups; the age of the file tells.
            tracing::warn!(error = %fault.chain(), "the metrics were not written");
        }
        Ok(())
    }

    /// How long nothing can happen by itself.
    fn sleep(&self, agenda: &Agenda, stopping: Option<tokio::time::Instant>) -> Duration {
        let now = self.setup.clock.now();
        let mut sleep = LOOK_EVERY;
        if let Some(next) = agenda.next_look {
            sleep = sleep.min(next.duration_since(now).try_into().unwrap_or(Duration::ZERO));
        }
        if let Some(until) = stopping {
            sleep =
                sleep.min(until.saturating_duration_since(tokio::time::Instant::now())).max(Duration::from_millis(50));
        }
        if let Some(watchdog) = self.setup.manager.watchdog {
            sleep = sleep.min(watchdog / 3);
        }
        // Never a loop that only burns time.
        sleep.max(Duration::from_millis(20))
    }

    pub(crate) fn new_run(&self) -> RunId {
        RunId::new(self.setup.clock.now(), (self.setup.random)())
    }
}
