//! `install`

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rekindle_core::{Fault, Result, codes};
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::units::{self, Site};
use crate::wire::{self, service};

/// Write what starts rekindle by itself: a unit of systemd, or lines for cron
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// What starts it
    how: How,
    /// Print the text, write nothing
    #[arg(long)]
    print: bool,
    /// User it runs as
    #[arg(long, value_name = "USER", default_value = "rekindle")]
    user: String,
    /// Name of the unit or of the file in cron.d
    #[arg(long, value_name = "NAME", default_value = "rekindle")]
    name: String,
    /// Path of the program in the text [default: this one]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Secret that systemd gives to the service, for `credential:NAME` in the configuration
    #[arg(long, value_name = "NAME:PATH")]
    credential: Vec<String>,
    /// Write below this directory instead of /
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    root: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// A service that runs `rekindle serve`, with few rights
    Systemd,
    /// One line for each schedule, each runs `rekindle run`
    Cron,
}

impl Install {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let good =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b));
        if !good(&self.name) || !good(&self.user) {
            return Err(Fault::new(codes::CLI_USAGE, "read the names of unit and user")
                .hint("use letters, digits, `-`, `_` and `.`")
                .into());
        }
        let program = match &self.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(|error| failed("find our own program").because(error))?,
        };
        let config_file = std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone());
        let site = Site { config: &config, config_file, program, user: &self.user, credentials: &self.credential };
        let jobs = service::jobs(&config);
        if jobs.is_empty() && service::streams(&config).is_empty() {
            return Err(Fault::new(codes::SERVE_NO_JOB, format!("install the stack `{}`", config.stack.name))
                .hint("add `schedule = \"*/30 * * * *\"` to a component, then `rekindle check-config`")
                .into());
        }
        let files = match self.how {
            How::Systemd => vec![
                (format!("etc/systemd/system/{}.service", self.name), units::service(&site)),
                (format!("etc/sysusers.d/{}.conf", self.name), units::sysusers(&self.user)),
            ],
            How::Cron => {
                units::cron_zone(&config, session.now()).map_err(|wanted| {
                    failed("write crontab lines")
                        .because(format!("`time-zone` in [serve] is {wanted}; cron goes by the clock of this host"))
                        .hint("use `rekindle serve`, set the zone of the host, or remove `time-zone`")
                })?;
                let text = units::crontab(&site, &jobs).map_err(|schedule| {
                    failed("write crontab lines")
                        .because(format!("cron does not understand `{schedule}`"))
                        .hint("write the schedule with numbers, `*`, `/`, `-` and `,` only, or use `rekindle serve`")
                })?;
                // Names with a dot are not read by cron.
                vec![(format!("etc/cron.d/{}", self.name.replace('.', "-")), text)]
            }
        };
        if self.print {
            return Ok(printed(&files));
        }
        for (name, text) in &files {
            write(&self.root.join(name), text)?;
        }
        Ok(self.written(&files))
    }

    fn written(&self, files: &[(String, String)]) -> Answer {
        let paths: Vec<String> = files.iter().map(|(name, _)| self.root.join(name).display().to_string()).collect();
        let wrote = format!("wrote {}\n", paths.join("\nwrote "));
        let next = match self.how {
            How::Systemd => format!(
                "Next: systemd-sysusers && systemctl daemon-reload && systemctl enable --now {}\n\
                 The user `{}` has to be able to read the configuration and write to the repository.\n",
                self.name, self.user
            ),
            How::Cron => "cron reads it by itself.\n".to_owned(),
        };
        let text = wrote + &next;
        Answer::words(json!({"files": paths}), text)
    }
}

fn printed(files: &[(String, String)]) -> Answer {
    let text = match files {
        [(_, text)] => text.clone(),
        _ => files.iter().fold(String::new(), |all, (name, text)| {
            all + "# /"
                + name
                + "
" + text + "
"
        }),
    };
    let list: Vec<_> = files.iter().map(|(name, text)| json!({"path": format!("/{name}"), "text": text})).collect();
    Answer::data(json!({"files": list}), text)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let what = || format!("write {}", path.display());
    let parent = path.parent().unwrap_or(Path::new("/"));
    let made = fs::create_dir_all(parent).and_then(|()| fs::write(path, text));
    made.map_err(|error| failed(&what()).because(error).hint("run it as root, or use --print and put the text there"))
}

fn failed(what: &str) -> Fault {
    Fault::new(codes::SERVE_INSTALL, what).hint("use --print and put the text where it belongs")
}
