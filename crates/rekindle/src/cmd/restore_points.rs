//! `restore-points`

use std::sync::Arc;

use clap::{Args, Subcommand};
use rekindle_core::timeline::Stop;
use rekindle_core::{ComponentId, ComponentKind, Fault, codes};
use rekindle_engine::pitr::{Recoverable, WindowView};
use rekindle_repo::points;
use rekindle_repo::wal::Archive;
use serde_json::json;

use super::recovery;
use crate::output::Answer;
use crate::session::{Faults, Session, SystemClock};
use crate::wire::components;
use crate::{human, wire};

/// Show the moments a database can be recovered to, or name one
#[derive(Debug, Args)]
pub(crate) struct RestorePoints {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show every window of moments that can be reached, and why it ends
    ///
    /// Reads the end of the log, so that the newest commit named here is one that comes back.
    List {
        /// Database; without it, every one that has base backups
        component: Option<String>,
    },
    /// Write a named restore point into the running server's log
    Create {
        /// Its name, for `restore DATABASE --name NAME`
        name: String,
        /// Database, when several are configured
        #[arg(long, value_name = "COMPONENT")]
        component: Option<String>,
    },
}

impl RestorePoints {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        match &self.what {
            What::List { component } => list(session, component.as_deref()),
            What::Create { name, component } => create(session, name, component.as_deref()),
        }
    }
}

fn list(session: &Session, word: Option<&str>) -> Result<Answer, Faults> {
    let config = match wire::config(session) {
        Ok(config) => Some(config),
        Err(_) if session.global.repo.is_some() => None,
        Err(faults) => return Err(faults),
    };
    let repository = wire::open(session, &wire::place(session)?)?;
    let mut view = points::view(&repository)?;
    if let Some(config) = &config {
        view.points.retain(|point| point.manifest().stack == config.stack.name);
    }
    let ids: Vec<ComponentId> = if let Some(word) = word {
        vec![recovery::postgres(word, &view.points, config.as_ref())?]
    } else {
        let all = view.points.iter().flat_map(|point| &point.manifest().components);
        let mut ids: Vec<ComponentId> =
            all.filter(|one| one.kind == ComponentKind::Postgres).map(|one| one.id.clone()).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    let archive = Archive::new(&repository, Arc::new(SystemClock));
    let (context, _scratch) = session.context()?;
    let (mut text, mut result) = (String::new(), Vec::new());
    for id in ids {
        let world = Recoverable::gather(&view.points, &id, &archive)?;
        if world.is_empty() && word.is_none() {
            continue;
        }
        let windows = world.reachable(&context)?;
        text.push_str(&table(&id, &windows));
        result.push(json!({ "component": id, "windows": windows }));
    }
    if result.is_empty() {
        text.push_str("There are no base backups, so no moment can be recovered.\n");
    }
    Ok(Answer::data(json!({ "components": result }), text))
}

fn table(id: &ComponentId, windows: &[WindowView]) -> String {
    let rows: Vec<Vec<String>> = windows
        .iter()
        .map(|one| {
            vec![
                one.point.short().to_owned(),
                one.timeline.to_string(),
                human::time(one.from),
                one.to.map_or_else(|| "itself only".to_owned(), human::time),
                one.to_lsn.to_string(),
                one.end_text.clone(),
            ]
        })
        .collect();
    let head = ["POINT", "TIMELINE", "FROM", "TO (NEWEST COMMIT)", "LOG UNTIL", "ENDS WITH"];
    format!("{id}: moments that can be recovered\n\n{}\n", human::table(&head, &rows))
}

fn create(session: &Session, name: &str, word: Option<&str>) -> Result<Answer, Faults> {
    let bad = |bad| Fault::new(codes::PITR_TARGET, "create a restore point").because(bad).hint("choose another name");
    Stop::name(name).map_err(bad)?;
    let config = wire::config(session)?;
    let options = components::postgres_of(&config, word)?;
    let made = session.runtime.block_on(rekindle_sources::postgres::create_restore_point(&options, name))?;
    let text = format!(
        "restore point `{name}` at {}; once the log is received that far: rekindle restore DATABASE --name '{name}'\n",
        made.lsn
    );
    Ok(Answer::words(json!({ "name": name, "lsn": made.lsn, "at": made.at }), text))
}
