//! The user's own checks: SQL for PostgreSQL, commands for everything else.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use rekindle_core::port::Finding;
use rekindle_core::{Cancel, Result};
use rustix::process::Signal;

use super::engine::{Engine, Spec, environment};
use super::site::Site;

/// Longest run of one command.
const COMMAND_MAX: Duration = Duration::from_mins(30);
const LOOK_AT_DATA: &str = "look at the data with `rekindle peek`, or correct the check";

/// Commands, each a program with its arguments; exit code 0 is good.
#[derive(Debug, Clone, Default)]
pub struct Checks(pub Vec<Vec<String>>);

impl Checks {
    /// Runs them in a place, one after the other. Blocking.
    pub(crate) fn run(
        &self,
        site: &Site,
        place: &Path,
        variables: &[(&str, OsString)],
        cancel: &Cancel,
    ) -> Result<Vec<Finding>> {
        let mut findings = Vec::with_capacity(self.0.len());
        for (number, command) in self.0.iter().enumerate() {
            cancel.check()?;
            let Some((program, args)) = command.split_first() else { continue };
            let mut env = environment();
            env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
            let spec = Spec {
                program: program.into(),
                args: args.iter().map(OsString::from).collect(),
                env,
                place: place.to_owned(),
                user: None,
                log: place.join(format!("check-{number}.log")),
                end: Signal::TERM,
            };
            let log = spec.log.clone();
            let shown = command.join(" ");
            let ended = Engine::start(site, spec).and_then(|engine| engine.wait(COMMAND_MAX, cancel));
            findings.push(match ended {
                Ok(status) if status.success() => Finding::good(format!("check `{shown}` says yes")),
                Ok(status) => {
                    let said = super::engine::tail(&log);
                    Finding::bad(format!("check `{shown}` says no: {status}: {said}"), LOOK_AT_DATA)
                }
                Err(fault) => {
                    cancel.check()?;
                    Finding::unproved(
                        format!("check `{shown}` could not be run: {}", fault.chain()),
                        "correct the check",
                    )
                }
            });
        }
        Ok(findings)
    }
}
