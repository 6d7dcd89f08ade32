//! `maintenance`: the tasks of a day, a week or a month, each with what proves it.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use rekindle_config::Config;
use rekindle_core::{Fault, Result, codes};
use serde::Serialize;
use serde_json::{Value, json};

use crate::human;
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire::{self, service};

/// A password older than this should be replaced.
const KEY_DAYS_MAX: i64 = 365;
/// Runs of a day that are looked at.
const RUNS_MAX: u32 = 1000;

/// Do the tasks of a day, a week or a month, and report each with its evidence
///
/// daily: completion, sizes, room, errors. weekly: a restore into a sandbox, removal of what is not kept, copies, kit.
/// monthly: recovery from every copy, retention, audit, age of keys. The exit code is 4 when a task is not as it should be.
#[derive(Debug, Args)]
pub(crate) struct Maintenance {
    /// Which tasks
    period: Period,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Period {
    Daily,
    Weekly,
    Monthly,
}

/// What became of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    /// Could not be looked at: neither right nor wrong.
    Unproved,
    Bad,
}

/// A task with its evidence.
#[derive(Debug, Serialize)]
struct Done {
    task: &'static str,
    state: State,
    /// What was seen.
    evidence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// Commands that were run for it, with their exit codes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commands: Vec<Value>,
}

/// What a command answered.
struct Ran {
    code: i32,
    result: Value,
    error: String,
    command: Value,
}

impl Maintenance {
    /// The word of its period.
    pub(crate) fn period(&self) -> String {
        self.period.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let work = Work { session, config: &config };
        let tasks: &[Task<'_>] = match self.period {
            Period::Daily => &[Work::completion, Work::sizes, Work::room, Work::errors],
            Period::Weekly => &[Work::restore, Work::cleaning, Work::copies, Work::kit],
            Period::Monthly => &[Work::disaster, Work::retention, Work::audit, Work::keys],
        };
        let mut done = Vec::new();
        for task in tasks {
            session.cancel.check()?;
            done.push(task(&work)?);
        }
        Ok(answer(self.period, &done))
    }
}

fn answer(period: Period, done: &[Done]) -> Answer {
    let mut text = String::new();
    for one in done {
        let mark = match one.state {
            State::Good => "good   ",
            State::Unproved => "unknown",
            State::Bad => "BAD    ",
        };
        // Writing into a `String` cannot fail.
        let _ = writeln!(text, "{mark}  {}: {}", one.task, one.evidence);
        if let Some(remedy) = &one.remedy {
            let _ = writeln!(text, "         {remedy}");
        }
    }
    let word = period.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let bad: Vec<&str> = done.iter().filter(|one| one.state == State::Bad).map(|one| one.task).collect();
    let answer = Answer::data(json!({"period": word, "tasks": done}), text);
    if bad.is_empty() {
        return answer;
    }
    let what = format!("find the {word} tasks in order: {}", bad.join(", "));
    answer.worse(Fault::new(codes::ENGINE_MAINTENANCE, what).hint("do what the report says, then run it again"))
}

/// One task.
type Task<'a> = fn(&Work<'a>) -> Result<Done>;

struct Work<'a> {
    session: &'a Session,
    config: &'a Config,
}

impl Work<'_> {
    /// Runs this program with the same configuration, in a process of its own.
    fn child(&self, words: &[&str]) -> Result<Ran> {
        let what = || format!("run `rekindle {}`", words.join(" "));
        let failed = |error: std::io::Error| Fault::new(codes::SERVE_CHILD, what()).because(error);
        let program = std::env::current_exe().map_err(failed)?;
        let launcher = service::launcher(self.session, self.config)?;
        let output = Command::new(program)
            .args(&launcher.global)
            .args(["--json", "--no-progress", "--quiet"])
            .args(words)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .map_err(failed)?;
        let ended = output.status.code().unwrap_or(-1);
        // Without its answer nothing is known, whatever code it ended with.
        let (answer, code) = match serde_json::from_slice::<Value>(&output.stdout) {
            Ok(answer) => (answer, ended),
            Err(_) => (Value::Null, if ended == 0 { -1 } else { ended }),
        };
        let error = answer["error"]["message"].as_str().map_or_else(
            || if code == 0 { String::new() } else { format!("it ended with {code} and said nothing") },
            str::to_owned,
        );
        let command = json!({"command": words.join(" "), "exit_code": code});
        Ok(Ran { code, result: answer["result"].clone(), error, command })
    }

    fn status(&self) -> Result<Ran> {
        self.child(&["status"])
    }

    fn completion(&self) -> Result<Done> {
        let task = "verify backup completion";
        let ran = self.status()?;
        if ran.result.is_null() {
            return Ok(bad(task, ran.error.clone(), "rekindle doctor").with(ran));
        }
        let newest = ran.result["newest"].as_str().unwrap_or_default().chars().take(8).collect::<String>();
        let complete = ran.result["newest_state"] == "complete";
        let components = array(&ran.result["components"]);
        let wrong: Vec<String> = components
            .iter()
            .filter(|one| one["captured_at"].is_null() || !one["overdue_since"].is_null() || one["verdict"] == "missed")
            .map(|one| text(&one["component"]))
            .collect();
        if !complete || !wrong.is_empty() {
            let state = if complete { "is complete" } else { "is not complete" };
            let why = format!("newest point {newest} {state}; missing, overdue or too old: {}", wrong.join(", "));
            return Ok(bad(task, why, "rekindle status").with(ran));
        }
        let evidence = format!("newest point {newest} is complete; {} components, none overdue", components.len());
        Ok(good(task, evidence).with(ran))
    }

    fn sizes(&self) -> Result<Done> {
        let task = "check backup file sizes";
        let ran = self.child(&["list", "--last", "2"])?;
        let points = array(&ran.result["points"]);
        let Some(newest) = points.last() else {
            return Ok(bad(task, format!("there is no point. {}", ran.error), "rekindle backup").with(ran));
        };
        let size = |point: &Value| human::bytes(point["bytes"].as_u64().unwrap_or(0));
        let before = points.iter().rev().nth(1).map_or_else(String::new, |one| format!(", before {}", size(one)));
        let evidence = format!("{}{before}", size(newest));
        Ok(if newest["suspicious"] == true {
            bad(
                task,
                format!("{evidence}; it differs sharply from earlier points"),
                "rekindle diff; rekindle point accept latest",
            )
            .with(ran)
        } else {
            good(task, format!("{evidence}; nothing suspicious")).with(ran)
        })
    }

    #[expect(clippy::unnecessary_wraps, reason = "every task is run the same way")]
    fn room(&self) -> Result<Done> {
        let task = "monitor available disk space";
        let urls = std::iter::once(&self.config.repository.url)
            .chain(self.config.copies.iter().map(|one| &one.repository.url));
        let (mut seen, mut low, mut unknown) = (Vec::new(), false, false);
        for url in urls {
            match service::space_of(url) {
                Some(space) => {
                    let percent = space.free_bytes.saturating_mul(100) / space.total_bytes.max(1);
                    low |= percent < u64::from(self.config.serve.min_free_percent);
                    seen.push(format!("{url}: {} free ({percent} %)", human::bytes(space.free_bytes)));
                }
                None if service::is_local(url) => {
                    low = true;
                    seen.push(format!("{url}: it is not there, so its disk may not be mounted"));
                }
                None => {
                    unknown = true;
                    seen.push(format!("{url}: the storage does not say how much room is left"));
                }
            }
        }
        let evidence = seen.join("; ");
        Ok(match (low, unknown) {
            (true, _) => {
                bad(task, evidence, "mount the disk, make room, or keep fewer points and run `rekindle prune`")
            }
            (false, true) => unproved(task, evidence, "watch the quota of the bucket"),
            (false, false) => good(task, evidence),
        })
    }

    fn errors(&self) -> Result<Done> {
        let task = "review backup logs for errors";
        let now = self.session.now();
        let since = now - SignedDuration::from_hours(24);
        let runs =
            service::journal(self.config)?.map_or_else(|| Ok(Vec::new()), |one| one.runs_since(since, RUNS_MAX))?;
        // What an earlier maintenance found is found by this one, or is over.
        let runs: Vec<_> =
            runs.into_iter().filter(|run| run.task != rekindle_core::schedule::Task::Maintenance).collect();
        if runs.is_empty() {
            let remedy = "`rekindle serve`, or `rekindle run` from cron, keeps a journal of runs";
            return Ok(unproved(task, "no scheduled run ended in the last 24 hours".to_owned(), remedy));
        }
        let failed: Vec<String> = runs
            .iter()
            .filter(|run| !matches!(run.how.as_deref(), Some("good" | "skipped")))
            .map(|run| {
                format!("{} at {}: {}", run.task, human::time(run.started), run.message.clone().unwrap_or_default())
            })
            .collect();
        if failed.is_empty() {
            return Ok(good(task, format!("{} runs in 24 hours, all good", runs.len())));
        }
        let why = format!("{} of {} runs in 24 hours were not good: {}", failed.len(), runs.len(), failed.join("; "));
        Ok(bad(task, why, "look each code up in docs/errors"))
    }

    fn restore(&self) -> Result<Done> {
        let task = "test restore procedure";
        Ok(drilled(task, vec![("the repository".to_owned(), self.child(&["drill"])?)]))
    }

    fn cleaning(&self) -> Result<Done> {
        let task = "clean up old backup files";
        let mut commands = Vec::new();
        let mut told = Vec::new();
        let mut wrong = Vec::new();
        let copies = self.config.copies.iter().filter(|one| one.retention.is_some()).map(|one| Some(one.name.as_str()));
        for copy in std::iter::once(None).chain(copies) {
            let kept = copy.is_some() || self.config.removes_points();
            for verb in ["forget", "prune"].into_iter().filter(|verb| kept || *verb == "prune") {
                let words: Vec<&str> =
                    std::iter::once(verb).chain(copy.into_iter().flat_map(|name| ["--copy", name])).collect();
                let ran = self.child(&words)?;
                if ran.code != 0 {
                    wrong.push(format!("{}: {}", words.join(" "), ran.error));
                } else if verb == "forget" {
                    told.push(format!("{} points removed", array(&ran.result["removed"]).len()));
                } else {
                    let bytes = |key: &str| human::bytes(ran.result["report"][key].as_u64().unwrap_or(0));
                    told.push(format!("{} removed, {} marked", bytes("removed_bytes"), bytes("marked_bytes")));
                }
                commands.push(ran.command);
            }
        }
        let mut done = if wrong.is_empty() {
            good(task, told.join("; "))
        } else {
            bad(task, wrong.join("; "), "nothing was removed where it was refused; look at the error")
        };
        done.commands = commands;
        Ok(done)
    }

    fn copies(&self) -> Result<Done> {
        let task = "verify cloud backup synchronization";
        if self.config.copies.is_empty() {
            let why = "there is no copy: what destroys the repository destroys everything".to_owned();
            return Ok(bad(task, why, "add `[copy.offsite]`, then `rekindle copy --init`"));
        }
        let (mut told, mut wrong, mut commands) = (Vec::new(), Vec::new(), Vec::new());
        for copy in &self.config.copies {
            for words in [vec!["copy", &copy.name], vec!["verify", "--copy", &copy.name]] {
                let ran = self.child(&words)?;
                if ran.code != 0 {
                    wrong.push(format!("{}: {}", words.join(" "), ran.error));
                } else if words[0] == "copy" {
                    let one = &ran.result["copies"][0];
                    told.push(format!(
                        "{}: {} points copied, {} were there",
                        copy.name,
                        array(&one["copied"]).len(),
                        one["there"]
                    ));
                } else {
                    told.push(format!(
                        "{}: verified, {} points, {} packs",
                        copy.name, ran.result["points"], ran.result["packs"]
                    ));
                }
                commands.push(ran.command);
            }
        }
        let mut done = if wrong.is_empty() {
            good(task, told.join("; "))
        } else {
            bad(task, wrong.join("; "), "rekindle copy; rekindle verify --copy NAME")
        };
        done.commands = commands;
        Ok(done)
    }

    fn kit(&self) -> Result<Done> {
        let task = "update backup documentation";
        let ran = self.status()?;
        Ok(match ran.result["kit"]["state"].as_str() {
            Some("confirmed") => {
                let since = text(&ran.result["kit"]["confirmed"]);
                good(task, format!("the recovery kit was confirmed at {since} and fits the keys")).with(ran)
            }
            Some("outdated") => {
                bad(task, "the recovery kit does not fit the keys any more".to_owned(), "rekindle kit create").with(ran)
            }
            Some(_) => {
                bad(task, "nobody holds a recovery kit".to_owned(), "rekindle kit create, then rekindle kit confirm")
                    .with(ran)
            }
            None => unproved(task, ran.error.clone(), "rekindle status").with(ran),
        })
    }

    fn disaster(&self) -> Result<Done> {
        let task = "full disaster recovery test";
        let mut ran = Vec::new();
        for copy in &self.config.copies {
            ran.push((format!("the copy `{}`", copy.name), self.child(&["drill", "--copy", &copy.name])?));
        }
        if ran.is_empty() {
            ran.push(("the repository (there is no copy)".to_owned(), self.child(&["drill"])?));
        }
        Ok(drilled(task, ran))
    }

    fn retention(&self) -> Result<Done> {
        let task = "review backup retention policies";
        if !self.config.removes_points() {
            let remedy = "add [retention], or leave it if nothing is ever to be removed";
            return Ok(unproved(task, "there is no [retention]: nothing is ever removed".to_owned(), remedy));
        }
        let ran = self.child(&["forget", "--dry-run"])?;
        if ran.code != 0 {
            return Ok(bad(task, ran.error.clone(), "rekindle forget --dry-run").with(ran));
        }
        let decisions = array(&ran.result["decisions"]);
        let kept = decisions.iter().filter(|one| one["keep"] == true).count();
        let oldest = decisions.iter().filter(|one| one["keep"] == true).map(|one| text(&one["time"])).min();
        let evidence = format!(
            "{kept} of {} points are kept, the oldest of {}",
            decisions.len(),
            oldest.unwrap_or_else(|| "none".to_owned())
        );
        Ok(if kept == 0 { bad(task, evidence, "rekindle backup").with(ran) } else { good(task, evidence).with(ran) })
    }

    fn audit(&self) -> Result<Done> {
        let task = "audit backup access logs";
        let verified = self.child(&["audit", "verify"])?;
        if verified.code != 0 {
            return Ok(bad(task, verified.error.clone(), "rekindle audit verify").with(verified));
        }
        let listed = self.child(&["audit", "list"])?;
        let since = (self.session.now() - SignedDuration::from_hours(31 * 24)).to_string();
        let acts: Vec<Value> =
            array(&listed.result["acts"]).into_iter().filter(|act| text(&act["time"]) > since).collect();
        let mut by: std::collections::BTreeMap<String, u32> = std::collections::BTreeMap::new();
        for act in &acts {
            *by.entry(format!("{} by {}@{}", text(&act["operation"]), text(&act["user"]), text(&act["host"])))
                .or_default() += 1;
        }
        let told: Vec<String> = by.into_iter().map(|(what, count)| format!("{count} {what}")).collect();
        let evidence = format!("every chain is unchanged; {} operations in 31 days: {}", acts.len(), told.join(", "));
        Ok(good(task, evidence).with(verified).with(listed))
    }

    fn keys(&self) -> Result<Done> {
        let task = "update backup encryption keys";
        let ran = self.child(&["key", "list"])?;
        let keys = array(&ran.result["keys"]);
        let current = keys.iter().find(|key| key["current"] == true).and_then(|key| text(&key["created"]).parse().ok());
        let Some(created): Option<jiff::Timestamp> = current else {
            return Ok(unproved(
                task,
                format!("the age of the key in use is not known. {}", ran.error),
                "rekindle key list",
            )
            .with(ran));
        };
        let days = self.session.now().duration_since(created).as_hours() / 24;
        let evidence = format!("the password in use is {days} days old; {} keys", keys.len());
        Ok(if days > KEY_DAYS_MAX {
            bad(task, evidence, "rekindle key rotate, then rekindle kit create").with(ran)
        } else {
            good(task, evidence).with(ran)
        })
    }
}

/// Drills of one or several repositories as one task.
fn drilled(task: &'static str, ran: Vec<(String, Ran)>) -> Done {
    let (mut told, mut wrong, mut commands) = (Vec::new(), Vec::new(), Vec::new());
    for (whose, ran) in ran {
        let drills = array(&ran.result["drills"]);
        let outcomes: Vec<String> = drills
            .iter()
            .map(|drill| {
                let components = array(&drill["work"]["components"]);
                format!("{} components {}", components.len(), text(&drill["outcome"]))
            })
            .collect();
        let passed = !drills.is_empty() && drills.iter().all(|drill| drill["outcome"] == "passed");
        if ran.code == 0 && passed {
            told.push(format!("{whose}: {}", outcomes.join(", ")));
        } else {
            wrong.push(format!("{whose}: {} {}", outcomes.join(", "), ran.error));
        }
        commands.push(ran.command);
    }
    let mut done = if wrong.is_empty() {
        good(task, told.join("; "))
    } else {
        bad(task, wrong.join("; "), "rekindle proof list; rekindle drill")
    };
    done.commands = commands;
    done
}

impl Done {
    fn with(mut self, ran: Ran) -> Self {
        self.commands.push(ran.command);
        self
    }
}

fn good(task: &'static str, evidence: String) -> Done {
    Done { task, state: State::Good, evidence, remedy: None, commands: Vec::new() }
}

fn unproved(task: &'static str, evidence: String, remedy: &str) -> Done {
    Done { task, state: State::Unproved, evidence, remedy: Some(remedy.to_owned()), commands: Vec::new() }
}

fn bad(task: &'static str, evidence: String, remedy: &str) -> Done {
    Done { task, state: State::Bad, evidence, remedy: Some(remedy.to_owned()), commands: Vec::new() }
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
