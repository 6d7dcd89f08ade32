//! How the stack stands, as `rekindle status --json` says it; remembered over restarts.

use std::time::Duration;

use jiff::Timestamp;
use rekindle_core::schedule::{Ended, JobName, Task};
use rekindle_core::{ComponentId, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::journal::Journal;

/// The name under which the journal keeps it.
const FACT: &str = "status";

/// The newest judgement that could be made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// When the repository was last asked, and answered.
    pub read_at: Option<Timestamp>,
    pub points: u64,
    pub newest_complete: Option<bool>,
    pub components: Vec<ComponentView>,
    #[serde(default)]
    pub copies: Vec<CopyView>,
    /// Whether the last question was answered.
    pub reachable: bool,
    /// Room left for the repository, where that is known.
    pub free_bytes: Option<u64>,
    #[serde(default)]
    pub total_bytes: Option<u64>,
    /// The newest point, when the tripwire found it odd and nobody accepted it.
    #[serde(default)]
    pub suspicious: Option<String>,
    /// What is known of the kit: `never`, `outdated` or `confirmed`.
    #[serde(default)]
    pub kit: Option<String>,
}

/// A copy in it. Of one that cannot be reached, the newest answer stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyView {
    pub name: String,
    /// When it last answered.
    pub read_at: Option<Timestamp>,
    pub reachable: bool,
    pub points: u64,
    pub newest: Option<Timestamp>,
    /// Since when the oldest of what it lacks is in the repository.
    pub behind_since: Option<Timestamp>,
    pub overdue: bool,
}

/// One component in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentView {
    pub id: String,
    pub captured_at: Option<Timestamp>,
    /// When the run began that captured it.
    #[serde(default)]
    pub run_started: Option<Timestamp>,
    /// The newest moment that can be restored: that of the capture, or later with a log.
    #[serde(default)]
    pub data_at: Option<Timestamp>,
    /// The newest commit that the kept log brings back.
    #[serde(default)]
    pub log_to: Option<Timestamp>,
    pub bytes: u64,
    /// `met`, `at-risk` or `missed`.
    pub verdict: String,
    pub why: Option<String>,
    /// When a restore of it was last proved, and how long it took.
    #[serde(default)]
    pub proved_at: Option<Timestamp>,
    #[serde(default)]
    pub restore_seconds: Option<u64>,
}

impl View {
    /// The remembered one.
    pub fn recall(journal: &Journal) -> Result<Self> {
        let text = journal.fact(FACT)?;
        let known: Option<Self> = text.and_then(|text| serde_json::from_str(&text).ok());
        Ok(known.unwrap_or_default())
    }

    /// Takes over what the command said, and remembers it. No answer leaves the old one, marked.
    pub fn take(&mut self, journal: &Journal, answer: Option<&Value>, now: Timestamp) -> Result<()> {
        let result = answer.map(|answer| &answer["result"]).filter(|result| result["components"].is_array());
        self.reachable = result.is_some();
        if let Some(result) = result {
            self.read_at = Some(now);
            self.points = result["points"].as_u64().unwrap_or(0);
            self.newest_complete = result["newest_state"].as_str().map(|state| state == "complete");
            let list = result["components"].as_array().map_or(&[][..], Vec::as_slice);
            let odd = result["suspicious"].as_array().map_or(&[][..], Vec::as_slice);
            // One that was followed by usual ones is no alarm any more, as `status` has it.
            let newest = odd.iter().find(|point| **point == result["newest"]);
            self.suspicious = newest.and_then(Value::as_str).map(str::to_owned);
            self.kit = result["kit"]["state"].as_str().map(str::to_owned);
            self.components = list.iter().map(|one| component(one, now)).collect();
            let list = result["copies"].as_array().map_or(&[][..], Vec::as_slice);
            self.copies = list.iter().map(|one| self.copy(one, now)).collect();
        }
        let text = serde_json::to_string(self).unwrap_or_default();
        journal.set_fact(FACT, &text)
    }

    fn copy(&self, value: &Value, now: Timestamp) -> CopyView {
        let name = value["copy"].as_str().unwrap_or_default();
        if value["reachable"] != true {
            let known = self.copies.iter().find(|one| one.name == name).cloned().unwrap_or_default();
            return CopyView { name: name.to_owned(), reachable: false, ..known };
        }
        let moment = |key: &str| value[key].as_str().and_then(|text| text.parse().ok());
        CopyView {
            name: name.to_owned(),
            read_at: Some(now),
            reachable: true,
            points: value["points"].as_u64().unwrap_or(0),
            newest: moment("newest"),
            behind_since: moment("behind_since"),
            overdue: !value["overdue_since"].is_null(),
        }
    }

    /// Tells the journal about results that somebody else made: a backup by hand, or all of them
    /// when the journal is new.
    pub fn feed(&self, journal: &Journal) -> Result<()> {
        for one in &self.components {
            let Ok(component) = one.id.parse::<ComponentId>() else { continue };
            // As in the journal: blocks of a time series stand for a moment before their run, and the run is done.
            let saved = one.captured_at.max(one.run_started);
            if let Some(moment) = saved {
                journal.good_result(&JobName { task: Task::Backup, component: Some(component) }, moment)?;
            }
        }
        // The scheduled drill is one of all components: it is as old as the oldest of their proofs.
        let proved: Option<Vec<Timestamp>> = self.components.iter().map(|one| one.proved_at).collect();
        if let Some(oldest) = proved.and_then(|all| all.into_iter().min()) {
            journal.good_result(&JobName { task: Task::Drill, component: None }, oldest)?;
        }
        for one in self.copies.iter().filter(|one| one.reachable && one.newest.is_some() && one.behind_since.is_none())
        {
            let (Ok(name), Some(at)) = (one.name.parse::<ComponentId>(), one.read_at) else { continue };
            let job = JobName { task: Task::Copy, component: Some(name) };
            // It has every point that was there when it was looked at; a run that ended badly knows of more.
            if journal.record(&job)?.0.is_none_or(|newest| newest.good) {
                journal.good_result(&job, at)?;
            }
        }
        Ok(())
    }
}

fn component(value: &Value, now: Timestamp) -> ComponentView {
    let moment = |key: &str| value[key].as_str().and_then(|text| text.parse().ok());
    ComponentView {
        id: value["component"].as_str().unwrap_or_default().to_owned(),
        captured_at: moment("captured_at"),
        run_started: moment("run_started"),
        data_at: value["age_seconds"].as_u64().map(|age| now - Duration::from_secs(age)),
        log_to: moment("recoverable_to"),
        bytes: value["bytes"].as_u64().unwrap_or(0),
        verdict: value["verdict"].as_str().unwrap_or_default().to_owned(),
        why: value["why"].as_str().map(str::to_owned),
        proved_at: moment("proved_at"),
        restore_seconds: value["restore_ms"].as_u64().map(|ms| ms.div_ceil(1000)),
    }
}

/// The point that a run made, if the repository holds one of it: a run that was cut off after its
/// last write was a good one.
pub fn point_of_run<'a>(list: Option<&'a Value>, run: &str) -> Option<(&'a str, Ended)> {
    let points = list?.pointer("/result/points")?.as_array()?;
    let point = points.iter().find(|point| point["run"] == run)?;
    let how = if point["state"] == "complete" { Ended::Good } else { Ended::Bad };
    Some((point["id"].as_str()?, how))
}
