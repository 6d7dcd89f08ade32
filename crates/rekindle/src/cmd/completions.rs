//! `completions`

use clap::Args;
use clap_complete::Shell;
use rekindle_core::{Fault, Result, codes};
use serde_json::json;

use crate::args;
use crate::output::Answer;

/// Print a script that completes commands and options in a shell
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell to complete in
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> Result<Answer> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut args::command(), "rekindle", &mut script);
        let script =
            String::from_utf8(script).map_err(|error| Fault::new(codes::RUN_BUG, "make the script").because(error))?;
        Ok(Answer::data(json!({"shell": self.shell.to_string(), "script": script}), script.clone()))
    }
}
