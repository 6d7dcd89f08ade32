//! States that are told when they begin and when they end.

use jiff::Timestamp;
use rekindle_core::objective::{History, Objective, Verdict, judge};
use rekindle_core::schedule::{Agenda, JobName, Task};
use rekindle_core::{ComponentId, Result};

use super::Service;
use crate::notice::EventKind;
use crate::view::ComponentView;

impl Service {
    /// Looks at everything that can be wrong between two runs.
    pub(super) fn conditions(&mut self, agenda: &Agenda, now: Timestamp) -> Result<()> {
        let jobs: Vec<JobName> = self.setup.jobs.iter().map(|job| job.name.clone()).collect();
        for job in jobs {
            let since = agenda.overdue.iter().find(|one| one.job == job).map(|one| one.since);
            let text = since.map(|since| {
                let title = format!("{job} of `{}` is overdue since {since}", self.setup.stack);
                (title, format!("There is no good result for that time.\nSee `rekindle status`; run it by hand with `rekindle {job}`."))
            });
            self.state(EventKind::Overdue, &format!("overdue {job}"), &job.to_string(), text, now)?;
        }
        let components = self.view.components.clone();
        for (id, objective) in self.setup.objectives.clone() {
            if let Some(view) = components.iter().find(|one| one.id == id.as_str()) {
                self.objective(&id, &objective, view, now)?;
            }
        }
        self.suspicious(now)?;
        self.kit(now)?;
        self.capacity(now)
    }

    /// A sharp change is told before retention has forgotten what was there before.
    fn suspicious(&mut self, now: Timestamp) -> Result<()> {
        let text = self.view.suspicious.as_ref().map(|id| {
            let short: String = id.chars().take(8).collect();
            let title = format!("the newest capture of `{}` differs sharply from those before", self.setup.stack);
            let text = format!(
                "Suspicious: {short}. Retention keeps everything older until somebody has looked.\nSee `rekindle show {short}` and `rekindle diff {short}`; if it is as it should be: `rekindle point accept {short}`."
            );
            (title, text)
        });
        self.state(EventKind::Suspicious, "suspicious", "repository", text, now)
    }

    /// Without the password nothing comes back.
    fn kit(&mut self, now: Timestamp) -> Result<()> {
        let why = match self.view.kit.as_deref() {
            Some("never") => Some("Nobody has confirmed to hold one."),
            Some("outdated") => Some("The key that it was made for is gone."),
            _ => None,
        };
        let text = why.map(|why| {
            let title = format!("the recovery kit of `{}` is not confirmed", self.setup.stack);
            (title, format!("{why}\nWithout the repository's password nothing comes back: `rekindle kit create`, put it away from the host, then `rekindle kit confirm`."))
        });
        self.state(EventKind::Kit, "kit", "repository", text, now)
    }

    fn objective(
        &mut self,
        id: &ComponentId,
        objective: &Objective,
        view: &ComponentView,
        now: Timestamp,
    ) -> Result<()> {
        let history = History {
            newest_capture: view.data_at,
            restore_seconds: view.restore_seconds,
            newest_proof: view.proved_at,
        };
        // A component that was never captured is overdue when its time has come, and not before.
        let missed = match judge(&Objective { proof_seconds: None, ..*objective }, now, &history) {
            Verdict::Missed(why) if view.captured_at.is_some() => {
                Some((format!("objective of {id} of `{}` is missed", self.setup.stack), format!("{why}.")))
            }
            _ => None,
        };
        self.state(EventKind::ObjectiveMissed, &format!("objective {id}"), &format!("backup {id}"), missed, now)?;
        let known = self.journal.known(&JobName { task: Task::Backup, component: Some(id.clone()) }, now)?;
        let old = objective.proof_seconds.and_then(|target| {
            let at = view.proved_at.unwrap_or(known.since);
            let age = u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0);
            (age > target).then(|| {
                let title = format!("proof of {id} of `{}` is too old", self.setup.stack);
                let last = view.proved_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
                (title, format!("A restore was last proved: {last}.\nProve one with `rekindle drill {id}`."))
            })
        });
        self.state(EventKind::ProofOld, &format!("proof {id}"), &format!("drill {id}"), old, now)
    }

    fn capacity(&mut self, now: Timestamp) -> Result<()> {
        let percent = u64::from(self.setup.min_free_percent);
        let low = match (self.view.free_bytes, self.view.total_bytes) {
            (Some(free), Some(total)) if u128::from(free) * 100 < u128::from(total) * u128::from(percent) => {
                let title = format!("the repository of `{}` is nearly full", self.setup.stack);
                let text = format!(
                    "{} MiB are free, less than {percent} % of its file system.\nMake room, or keep fewer points and run `rekindle prune`.",
                    free >> 20
                );
                Some((title, text))
            }
            _ => None,
        };
        self.state(EventKind::Capacity, "capacity", "repository", low, now)
    }

    /// Tells that a state is there, or that it is over.
    pub(super) fn state(
        &mut self,
        kind: EventKind,
        key: &str,
        subject: &str,
        text: Option<(String, String)>,
        now: Timestamp,
    ) -> Result<()> {
        let keys = [key.to_owned()];
        if let Some((title, text)) = text {
            let mut event = self.event(kind, subject, now);
            event.key.clone_from(&keys[0]);
            (event.title, event.text) = (title, text);
            return self.teller(now).open(&keys, &event);
        }
        let mut event = self.event(EventKind::Recovered, subject, now);
        event.key.clone_from(&keys[0]);
        event.title = format!("{subject} of `{}` is well again", self.setup.stack);
        event.text = format!("Over: {}", kind.as_str());
        self.teller(now).close(&keys, &event)
    }
}
