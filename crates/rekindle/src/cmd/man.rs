//! `man`

use std::path::{Path, PathBuf};

use clap::Args;
use rekindle_core::{Fault, Result, codes};
use serde_json::json;

use crate::args;
use crate::output::Answer;

/// Print the manual page, or write the pages of all commands
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write one page per command into this directory
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(&self) -> Result<Answer> {
        let Some(directory) = &self.out else {
            let page = page(args::command())?;
            return Ok(Answer::data(json!({"page": page}), page.clone()));
        };
        let mut command = args::command();
        command.build();
        let mut files = vec![write(directory, "rekindle", command.clone())?];
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let name = format!("rekindle-{}", sub.get_name());
            files.push(write(directory, &name, sub.clone())?);
        }
        let text = format!("{} pages written to {}\n", files.len(), directory.display());
        Ok(Answer::words(json!({"files": files}), text))
    }
}

fn page(command: clap::Command) -> Result<String> {
    let mut page = Vec::new();
    let failed = |error: String| Fault::new(codes::RUN_BUG, "make the manual page").because(error);
    clap_mangen::Man::new(command).render(&mut page).map_err(|error| failed(error.to_string()))?;
    String::from_utf8(page).map_err(|error| failed(error.to_string()))
}

fn write(directory: &Path, name: &str, command: clap::Command) -> Result<PathBuf> {
    let file = directory.join(format!("{name}.1"));
    let text = page(command)?;
    std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&file, text)).map_err(|error| {
        Fault::new(codes::CLI_OUTPUT, format!("write {}", file.display()))
            .because(error)
            .hint("choose a directory that may be written")
    })?;
    Ok(file)
}
