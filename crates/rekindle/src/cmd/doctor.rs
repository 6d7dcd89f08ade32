//! `doctor`

use std::fmt::Write as _;

use std::sync::Arc;

use clap::Args;
use rekindle_config::{Config, CopyTo};
use rekindle_core::port::{Component, Finding, Level, RunContext};
use rekindle_core::{Fault, codes};
use rekindle_store::{Capabilities, StoreOptions, Support};
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire;
use crate::wire::components::{self, Wishes};

/// Look at the repository and every component, and say what to mend
///
/// Writes and removes a few small objects below `rekindle/probe/` of the repository to learn what its storage keeps.
#[derive(Debug, Args)]
pub(crate) struct Doctor;

/// What was found about one thing.
struct Section {
    scope: String,
    findings: Vec<Finding>,
}

impl Section {
    fn failed(scope: &str, fault: &Fault) -> Self {
        let text = format!("[{}] {}", fault.code().id, fault.chain());
        let remedy = fault.hint_text().unwrap_or("see docs/errors").to_owned();
        Self { scope: scope.to_owned(), findings: vec![Finding::bad(text, remedy)] }
    }
}

impl Doctor {
    #[expect(clippy::unused_self, reason = "every command is run by a method")]
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let (context, _scratch) = session.context()?;
        let mut sections = vec![repository(session, &config)];
        sections.extend(config.copies.iter().map(|one| copy(session, &config, one)));
        for one in &config.components {
            session.cancel.check()?;
            sections.push(match components::of_config(one, &config.stack.name, &[], &Wishes::default()) {
                Ok(component) => probe(session, &component, &context),
                Err(fault) => Section::failed(one.id.as_str(), &fault),
            });
            sections.extend(log(session, &config, one));
        }
        Ok(answer(&sections))
    }
}

fn probe(session: &Session, component: &Arc<dyn Component>, context: &RunContext) -> Section {
    let scope = component.id().as_str();
    match session.runtime.block_on(component.probe(context)) {
        Ok(findings) => Section { scope: scope.to_owned(), findings },
        Err(fault) => Section::failed(scope, &fault),
    }
}

/// The server of base backups: role, settings, slots.
fn log(session: &Session, config: &Config, one: &rekindle_config::Component) -> Option<Section> {
    let (options, wal, slot) = match components::log_of(config, one) {
        Ok(Some(found)) => found,
        Ok(None) => return None,
        Err(fault) => return Some(Section::failed(one.id.as_str(), &fault)),
    };
    let scope = one.id.as_str();
    let looked = session.runtime.block_on(rekindle_sources::postgres::look_at_log(&options, wal, &slot));
    Some(match looked {
        Ok(findings) => Section { scope: scope.to_owned(), findings },
        Err(fault) => Section::failed(scope, &fault),
    })
}

fn repository(session: &Session, config: &Config) -> Section {
    let scope = "repository";
    let look = || {
        let given = wire::password_given(session)?;
        let place = wire::of_config(session, config, given.as_ref())?;
        let repository = wire::open(session, &place)?;
        let points = rekindle_core::port::Repository::points(&repository)?;
        let mut findings = vec![Finding::good(format!("opens with the configured password; {} points", points.len()))];
        findings.extend(storage(session, &place.options)?);
        findings.extend(super::locked::findings(session, &place.options)?);
        Ok(findings)
    };
    match look() {
        Ok(findings) => Section { scope: scope.to_owned(), findings },
        Err(fault) => Section::failed(scope, &fault),
    }
}

fn copy(session: &Session, config: &Config, copy: &CopyTo) -> Section {
    let scope = format!("copy {}", copy.name);
    let look = || {
        let place = wire::of_repository(session, config, &copy.repository, None)?;
        let repository = wire::open(session, &place)?;
        let points = rekindle_core::port::Repository::points(&repository)?;
        let mut findings = vec![Finding::good(format!("opens with its password; {} points", points.len()))];
        findings.extend(storage(session, &place.options)?);
        findings.extend(super::locked::findings(session, &place.options)?);
        Ok(findings)
    };
    look().map_or_else(|fault| Section::failed(&scope, &fault), |findings| Section { scope: scope.clone(), findings })
}

fn storage(session: &Session, options: &StoreOptions) -> Result<Vec<Finding>, Fault> {
    let store = rekindle_store::open(options)?;
    let Capabilities { put_if_absent, read_after_write, range, list_after_write, delete } =
        session.runtime.block_on(rekindle_store::probe(&*store))?;
    let needed = [
        (read_after_write, "what is written can be read at once"),
        (range, "parts of objects can be read"),
        (list_after_write, "what is written is listed at once"),
        (delete, "objects can be deleted"),
    ];
    let mut findings: Vec<Finding> = needed
        .into_iter()
        .map(|(support, what)| match support {
            Support::Kept => Finding::good(format!("storage: {what}")),
            Support::Broken | Support::Unknown => {
                Finding::bad(format!("storage: not true that {what}"), "use another storage")
            }
        })
        .collect();
    findings.push(match put_if_absent {
        Support::Kept => Finding::good("storage: a second writer cannot write over an object"),
        Support::Broken | Support::Unknown => Finding::warning(
            "storage: a second writer could write over an object (no put-if-absent)",
            "let only one host write to this repository",
        ),
    });
    Ok(findings)
}

fn answer(sections: &[Section]) -> Answer {
    let mut text = String::new();
    for section in sections {
        for finding in &section.findings {
            let mark = match finding.level {
                Level::Good => "good   ",
                Level::Warning => "warning",
                Level::Unproved => "unknown",
                Level::Bad => "BAD    ",
            };
            let _ = writeln!(text, "{mark}  {}: {}", section.scope, finding.text);
            if let Some(remedy) = &finding.remedy {
                let _ = writeln!(text, "         {remedy}");
            }
        }
    }
    let list: Vec<_> = sections.iter().map(|one| json!({"scope": one.scope, "findings": one.findings})).collect();
    let bad = sections.iter().flat_map(|one| &one.findings).filter(|one| one.level == Level::Bad).count();
    let answer = Answer::data(json!({"sections": list}), text);
    if bad == 0 {
        return answer;
    }
    let fault = Fault::new(codes::CLI_DOCTOR, format!("find everything in order: {bad} problems"))
        .hint("mend what is marked BAD, then run `rekindle doctor` again");
    answer.exit(fault.exit_code()).with_fault(fault)
}
