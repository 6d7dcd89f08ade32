//! `kit`

mod create;
mod page;

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rekindle_core::mark::{Mark, MarkKind};
use rekindle_core::shamir::{Share, combine};
use rekindle_core::{Fault, Result, Secret, codes};
use rekindle_repo::{admin, marks};
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire;

/// Longest file of a share.
const SHARE_BYTES_MAX: u64 = 64 << 10;

/// Make the recovery kit: everything a person needs to bring the stack back without this host
#[derive(Debug, Args)]
pub(crate) struct Kit {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write the kit, to print: repository, key or shares of it, step by step, checksum of the program
    Create(create::Create),
    /// Record that a person holds the kit, away from this host; `status` asks until then
    Confirm(Confirm),
    /// Join shares of the key into a file of mode 0600
    Combine(Combine),
}

#[derive(Debug, Args)]
struct Confirm {
    /// Try what the person holds: the file with the key, or files with enough shares
    #[arg(value_name = "FILE")]
    held: Vec<PathBuf>,
    /// Who holds it, and where
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Debug, Args)]
struct Combine {
    /// Files with shares, as they were written or typed; `-` reads them from standard input
    #[arg(value_name = "FILE", required = true)]
    shares: Vec<PathBuf>,
    /// New file for the key
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Kit {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        match &self.what {
            What::Create(create) => create.run(session),
            What::Confirm(confirm) => confirm.run(session),
            What::Combine(combine) => combine.run().map_err(Faults::from),
        }
    }
}

impl Combine {
    fn run(&self) -> Result<Answer> {
        let secret = join(&texts(&self.shares)?)?;
        create::write_private(&self.out, format!("{}\n", secret.expose()).as_bytes())?;
        let text = format!("The key is in {} (mode 0600).\n", self.out.display());
        Ok(Answer::words(json!({"file": self.out}), text))
    }
}

impl Confirm {
    fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repo = wire::open(session, &wire::place(session)?)?;
        if !self.held.is_empty() {
            let texts = texts(&self.held)?;
            let secret = match texts.as_slice() {
                [one] if Share::parse(one, 1).is_err() => Secret::new(one.trim_end_matches(['\r', '\n']).to_owned()),
                _ => join(&texts)?,
            };
            if !admin::key_list(&repo, Some(&secret))?.iter().any(|key| key.current) {
                return Err(Fault::new(
                    codes::REPO_WRONG_KEY,
                    "confirm the kit: what is held does not open the repository",
                )
                .hint("rekindle kit create, and hand out the new kit")
                .into());
            }
        }
        let mark = Mark {
            kind: MarkKind::KitConfirm,
            time: session.now(),
            point: None,
            reason: self.note.clone(),
            user: wire::user_name(),
            host: wire::host_name(),
            keys: admin::key_ids(&repo)?,
            origin: None,
        };
        marks::add(&repo, &mark)?;
        let tried = if self.held.is_empty() { "" } else { " What is held opens the repository." };
        let text = format!("The kit is confirmed until a key changes.{tried}\n");
        Ok(Answer::words(json!({"confirmed": mark, "tried": !self.held.is_empty()}), text))
    }
}

/// The texts of shares: each file holds one or several between marks, or one without.
fn texts(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        let text = read(file)?;
        let mut marked: Vec<String> = text
            .split(page::BEGIN)
            .skip(1)
            .filter_map(|rest| rest.split(page::END).next())
            .map(str::to_owned)
            .collect();
        if marked.is_empty() {
            marked.push(text);
        }
        all.extend(marked);
    }
    Ok(all)
}

fn join(texts: &[String]) -> Result<Secret<String>> {
    let refused = |bad| {
        Fault::new(codes::KIT_SHARES, "join the shares")
            .because(bad)
            .hint("read the named share again from the paper; all must be of one kit")
    };
    let shares = texts.iter().enumerate().map(|(n, text)| Share::parse(text, n + 1)).collect::<Result<Vec<_>, _>>();
    combine(&shares.map_err(refused)?).map_err(refused)
}

fn read(file: &Path) -> Result<String> {
    let failed = |error: std::io::Error| {
        Fault::new(codes::KIT_FILE, format!("read {}", file.display())).because(error).hint("name the file of a share")
    };
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(SHARE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(SHARE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}
