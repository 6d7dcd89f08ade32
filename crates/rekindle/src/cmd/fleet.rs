//! `fleet`

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use rekindle_config::{Member, MemberCopy, Repository, load_fleet};
use rekindle_core::fleet::{StackState, Standing, stacks};
use rekindle_core::objective::age_seconds;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::{Class, Fault, Result, codes};
use rekindle_repo::copy::Lag;
use rekindle_repo::{Repo, points};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::evidence::Evidence;
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, wire};

/// Repositories that are looked at at the same time.
const AT_ONCE: usize = 8;

/// Look at the repositories of many stacks and hosts
#[derive(Debug, Args)]
pub(crate) struct Fleet {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The newest points of every stack on every host; exit code 4 when one is late
    Status(Status),
}

#[derive(Debug, Args)]
struct Status {
    /// File that names the repositories
    #[arg(long, value_name = "FILE", default_value = "fleet.toml")]
    file: PathBuf,
}

/// What was seen of one repository.
struct Seen {
    stacks: Vec<StackState>,
    copies: Vec<CopySeen>,
    /// What is wrong with the repository itself.
    faults: Vec<Fault>,
}

/// What was seen of a copy of it: what it lacks, or why nobody knows.
struct CopySeen {
    name: String,
    max_lag: Duration,
    lag: Result<Lag>,
    /// Where nobody knows: how many points it holds itself, and the time of the newest. `None`: not read.
    own: Option<(usize, Option<Timestamp>)>,
}

impl CopySeen {
    fn is_late(&self, now: Timestamp) -> bool {
        self.lag.as_ref().is_ok_and(|lag| Duration::from_secs(lag.seconds(now)) > self.max_lag)
    }

    fn standing(&self, now: Timestamp) -> String {
        match &self.lag {
            Err(_) if self.own.is_some() => "what it lacks is not known".to_owned(),
            Err(_) => "failed".to_owned(),
            Ok(lag) if lag.behind_since.is_none() => "holds everything".to_owned(),
            Ok(lag) => {
                let word = if self.is_late(now) { "late: " } else { "" };
                let (points, objects) = (lag.points_missing, lag.wal_missing);
                let since = human::seconds(lag.seconds(now));
                format!("{word}{since} behind, lacks {points} points and {objects} objects of the log")
            }
        }
    }

    fn json(&self, now: Timestamp) -> Value {
        match &self.lag {
            Err(fault) => {
                let (points, newest) = self.own.unzip();
                json!({
                    "copy": self.name, "reachable": self.own.is_some(), "error": fault.chain(),
                    "points": points, "newest": newest.flatten(),
                })
            }
            Ok(lag) => json!({
                "copy": self.name,
                "reachable": true,
                "points": lag.points,
                "points_missing": lag.points_missing,
                "wal_missing": lag.wal_missing,
                "newest": lag.newest,
                "behind_since": lag.behind_since,
                "lag_seconds": lag.seconds(now),
                "max_lag_seconds": self.max_lag.as_secs(),
                "late": self.is_late(now),
            }),
        }
    }
}

impl Fleet {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let What::Status(status) = &self.what;
        let fleet = load_fleet(&status.file)?;
        if fleet.members.is_empty() {
            return Err(Fault::new(codes::CLI_USAGE, format!("look at the fleet of {}", status.file.display()))
                .because("it names no repository, so nothing could be late")
                .hint("add `[member.NAME]` and `[member.NAME.repository]` for each")
                .into());
        }
        let now = session.now();
        let seen = look_at_all(session.runtime.handle(), &fleet.members, now);
        Ok(answer(&fleet.members, &seen, now))
    }
}

/// Every repository, several at the same time: one that does not answer holds up no other.
fn look_at_all(handle: &Handle, members: &[Member], now: Timestamp) -> Vec<Seen> {
    let next = AtomicUsize::new(0);
    let all: Mutex<Vec<Option<Seen>>> = Mutex::new(members.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(members.len()) {
            scope.spawn(|| {
                while let Some((n, member)) = {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    members.get(n).map(|member| (n, member))
                } {
                    let seen = look_at(handle, member, now).unwrap_or_else(|fault| unseen(handle, member, fault));
                    all.lock().unwrap_or_else(PoisonError::into_inner)[n] = Some(seen);
                }
            });
        }
    });
    let all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let forgotten = || Fault::new(codes::RUN_BUG, "look at a repository of the fleet");
    members.iter().zip(all).map(|(member, seen)| seen.unwrap_or_else(|| unseen(handle, member, forgotten()))).collect()
}

/// Nothing is known of a repository that cannot be looked at, nor what its copies lack; but what they hold is all
/// there may be left.
fn unseen(handle: &Handle, member: &Member, fault: Fault) -> Seen {
    let unknown = |copy: &MemberCopy| {
        let why = Fault::new(fault.code(), "compare it with its repository, which cannot be looked at");
        let own = open(handle, &copy.repository).and_then(|far| {
            let view = points::view(&far)?;
            // Fewer than there are would be a wrong number at the worst moment.
            if let Some(bad) = view.unreadable.first() {
                let what = format!("read every point of the copy: {} cannot be read", view.unreadable.len());
                return Err(Fault::new(codes::REPO_DAMAGED, what).because(bad.fault.chain()));
            }
            let points = view.points;
            Ok((points.len(), points.iter().map(RecoveryPoint::time).max()))
        });
        let (own, why) = match own {
            Ok(own) => (Some(own), why),
            Err(fault) => (None, fault),
        };
        CopySeen { name: copy.name.clone(), max_lag: copy.max_lag, lag: Err(why), own }
    };
    Seen { stacks: Vec::new(), copies: member.copies.iter().map(unknown).collect(), faults: vec![fault] }
}

fn open(handle: &Handle, repository: &Repository) -> Result<Repo> {
    let place = wire::place_of(repository)?;
    let store = rekindle_store::open(&place.options)?;
    Repo::open(store, handle.clone(), &place.password, place.repo)
}

fn look_at(handle: &Handle, member: &Member, now: Timestamp) -> Result<Seen> {
    let repo = open(handle, &member.repository)?;
    let view = points::view(&repo)?;
    let evidence = Evidence::read(&repo)?;
    let mut faults: Vec<Fault> = evidence.fault.into_iter().collect();
    if let Some(one) = view.unreadable.first() {
        let text = format!("read every point: {} cannot be read, first {}", view.unreadable.len(), one.id.short());
        faults.push(
            Fault::new(codes::REPO_DAMAGED, text)
                .because(one.fault.chain())
                .hint("rekindle --repo URL verify --read-data"),
        );
    }
    if view.points.is_empty() && faults.is_empty() {
        faults.push(
            Fault::new(codes::ENGINE_OBJECTIVE, "find a recovery point: the repository has none")
                .hint("look at the service of the host that should write there"),
        );
    }
    let copy = |copy: &MemberCopy| CopySeen {
        name: copy.name.clone(),
        max_lag: copy.max_lag,
        lag: open(handle, &copy.repository).and_then(|far| super::copy::lag(&repo, &view.points, &far)),
        own: None,
    };
    let copies = member.copies.iter().map(copy).collect();
    let stacks = stacks(&view.points, &evidence.records, member.max_age, &member.ignore, now);
    Ok(Seen { stacks, copies, faults })
}

fn answer(members: &[Member], seen: &[Seen], now: Timestamp) -> Answer {
    let mut rows = Vec::new();
    let mut late = Vec::new();
    let mut faults = Vec::new();
    let mut list = Vec::new();
    for (member, seen) in members.iter().zip(seen) {
        for one in &seen.stacks {
            rows.push(row(member, one));
            if one.standing == Standing::Late {
                late.push(format!("`{}` of {}", one.stack, one.host));
            }
        }
        for copy in &seen.copies {
            let what = format!("the copy `{}` of `{}`", copy.name, member.name);
            rows.push(copy_row(member, copy, now));
            match &copy.lag {
                Err(fault) => faults.push(about(&what, fault)),
                Ok(lag) if copy.is_late(now) => faults.push(
                    Fault::new(codes::ENGINE_OBJECTIVE, format!("find everything in {what}"))
                        .because(format!("it is {} behind", human::seconds(lag.seconds(now))))
                        .hint("`rekindle copy` on the host that makes it; `rekindle status` there says why"),
                ),
                Ok(_) => {}
            }
        }
        for fault in &seen.faults {
            let unknown = ["-", "-", "-", "-", "-", "failed"].map(str::to_owned);
            rows.push([member.name.clone()].into_iter().chain(unknown).collect());
            faults.push(about(&format!("the repository `{}`", member.name), fault));
        }
        let errors: Vec<String> = seen.faults.iter().map(Fault::chain).collect();
        list.push(json!({
            "repository": member.name, "max_age_seconds": member.max_age.as_secs(), "stacks": seen.stacks, "errors": errors,
            "copies": seen.copies.iter().map(|one| one.json(now)).collect::<Vec<_>>(),
        }));
    }
    let head = ["REPOSITORY", "STACK", "HOST", "POINTS", "NEWEST", "PROVED", "STANDING"];
    let answer = Answer::data(json!({"repositories": list}), human::table(&head, &rows));
    if !late.is_empty() {
        faults.push(
            Fault::new(codes::ENGINE_OBJECTIVE, format!("find a young complete capture of {}", late.join(", ")))
                .hint("`rekindle status` on that host says why"),
        );
    }
    // What cannot be looked at is worse than what is late: nothing is known about it.
    let worst = faults.iter().max_by_key(|fault| (fault.class() != Class::Negative, fault.exit_code()));
    let exit = worst.map_or(0, Fault::exit_code);
    faults.into_iter().fold(answer.exit(exit), Answer::with_fault)
}

/// The same fault, with the name of what was looked at in front.
fn about(what: &str, fault: &Fault) -> Fault {
    let named = Fault::new(fault.code(), format!("look at {what}")).because(fault.chain());
    match fault.hint_text() {
        Some(hint) => named.hint(hint.to_owned()),
        None => named,
    }
}

fn copy_row(member: &Member, copy: &CopySeen, now: Timestamp) -> Vec<String> {
    let newest = copy.lag.as_ref().map_or_else(|_| copy.own.and_then(|own| own.1), |lag| lag.newest);
    let newest = newest.map(|at| format!("{} ago", human::seconds(age_seconds(now, at))));
    let points = copy.lag.as_ref().ok().map(|lag| lag.points.to_string());
    let points = points.or_else(|| Some(copy.own?.0.to_string())).unwrap_or_else(|| "-".to_owned());
    vec![
        member.name.clone(),
        format!("copy {}", copy.name),
        "-".to_owned(),
        points,
        newest.unwrap_or_else(|| "-".to_owned()),
        "-".to_owned(),
        copy.standing(now),
    ]
}

fn row(member: &Member, one: &StackState) -> Vec<String> {
    let standing = match one.standing {
        Standing::Good => "good".to_owned(),
        Standing::NewestPartial => "newest is partial".to_owned(),
        Standing::Late => {
            let late = |(component, age): (_, &Option<u64>)| match age {
                Some(seconds) => format!("{component} is {} old", human::seconds(*seconds)),
                None => format!("{component} was never captured whole"),
            };
            let late: Vec<String> = one.late.iter().map(late).collect();
            format!("late: {}", late.join(", "))
        }
    };
    vec![
        member.name.clone(),
        one.stack.clone(),
        one.host.clone(),
        one.points.to_string(),
        format!("{} ago, {}", human::seconds(one.newest_age_seconds), one.newest_state.as_str()),
        one.proof_age_seconds.map_or_else(|| "never".to_owned(), |age| format!("{} ago", human::seconds(age))),
        standing,
    ]
}
