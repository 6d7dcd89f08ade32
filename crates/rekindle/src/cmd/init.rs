//! `init`

use std::fmt::Write as _;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rand::TryRngCore;
use rand::rngs::OsRng;
use rekindle_config::{Draft, DraftComponent, SecretRef};
use rekindle_core::{Fault, Result, Secret, codes};
use rekindle_repo::admin::{self, KeyLabel};
use rekindle_repo::{Repo, RepoOptions};
use rekindle_store::{StoreOptions, Support};
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{discover, wire};

/// Random bytes in a generated password: as strong as the repository's own key.
const PASSWORD_BYTES: usize = 32;

/// Write a configuration by looking at what runs here, and create the repository
///
/// With a configuration that is written already, only the repository that it names is created. Else it
/// needs --repo URL. Without a password option, a strong password is made and kept in a file of
/// mode 0600 beside the configuration. Nothing that exists is written over.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Name of the stack [default: name of the current directory]
    #[arg(long, value_name = "NAME")]
    stack: Option<String>,
    /// Directory or file to save, may be given several times
    #[arg(long, value_name = "PATH")]
    files: Vec<PathBuf>,
}

/// Where the password is, and how the configuration refers to it.
struct Password {
    reference: SecretRef,
    written: Option<PathBuf>,
}

impl Init {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let file = session.global.config.clone().unwrap_or_else(|| PathBuf::from("rekindle.toml"));
        let file = std::path::absolute(&file).map_err(|error| unwritable(&file, error))?;
        if file.exists() {
            return self.of_configuration(session, &file);
        }
        let Some(url) = &session.global.repo else {
            return Err(Fault::new(codes::CLI_USAGE, "create a repository: `--repo` is missing")
                .hint("rekindle init --repo file:///backups/repo, or s3://bucket/prefix; best on another host")
                .into());
        };
        let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
        let mut draft = self.draft(url, &directory)?;
        // Checked before anything is made: a half set-up is worse than none.
        "file:/x".clone_into(&mut draft.password);
        rekindle_config::parse(&file, &draft.to_toml())?;
        let options = StoreOptions { create_root: true, ..StoreOptions::new(url)? };
        let password = password(session, &directory)?;
        draft.password = password.reference.to_config();
        let made = create(session, &options, &password.reference.resolve()?, &RepoOptions::default())?;
        write_new(&file, &draft.to_toml())?;
        Ok(answer(&file, url, &password, &draft, &made))
    }

    /// The configuration is written already: only its repository is missing.
    fn of_configuration(&self, session: &Session, file: &Path) -> Result<Answer, Faults> {
        if session.global.repo.is_some() || self.stack.is_some() || !self.files.is_empty() {
            return Err(Fault::new(codes::CONFIG_EXISTS, format!("write {}", file.display()))
                .hint("without other options, `rekindle init` creates the repository that it names; or name another file with --config FILE")
                .into());
        }
        let mut place = wire::place(session)?;
        place.options.create_root = true;
        let made = create(session, &place.options, &place.password, &place.repo)?;
        let url = place.options.url.to_string();
        let state = made.state();
        let text = format!(
            "configuration  {} (was there already)\nrepository     {url} ({state})\n\nWithout its password nothing can be restored. Keep a copy of it off this host.\n{}",
            file.display(),
            made.warning()
        );
        let result = json!({
            "config": file,
            "repository": url,
            "repository_existed": made.existed,
            "put_if_absent": made.put_if_absent,
            "password_file": null,
        });
        Ok(Answer::words(result, text))
    }

    fn draft(&self, url: &str, directory: &Path) -> Result<Draft> {
        let mut components = discover::look(Path::new("."));
        if !self.files.is_empty() {
            let mut paths = Vec::new();
            for path in &self.files {
                let path = path.canonicalize().map_err(|error| {
                    Fault::new(codes::CLI_USAGE, format!("find {}", path.display()))
                        .because(error)
                        .hint("name a file or directory that exists")
                })?;
                let Some(text) = path.to_str() else {
                    let what = format!("write {} into the configuration: not UTF-8", path.display());
                    return Err(Fault::new(codes::CLI_USAGE, what).hint("name the directory above it"));
                };
                paths.push(text.to_owned());
            }
            let found = "Named at `rekindle init`.".to_owned();
            components.push(DraftComponent::Files { id: "files".to_owned(), paths, found });
        }
        if components.is_empty() {
            return Err(Fault::new(codes::CLI_USAGE, "find something to save: no PostgreSQL or Redis answers here")
                .hint(
                    "rekindle init --repo URL --files /path; other servers can be added to the configuration later",
                ));
        }
        Ok(Draft {
            stack: self.stack.clone().unwrap_or_else(|| stack_name(directory)),
            repository_url: url.to_owned(),
            password: String::new(),
            components,
        })
    }
}

/// The directory's name, as far as it is usable as a name.
fn stack_name(directory: &Path) -> String {
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned());
    let usable: String = name
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' })
        .take(63)
        .collect();
    let usable = usable.trim_start_matches(['.', '-', '_']);
    if usable.is_empty() { "stack".to_owned() } else { usable.to_owned() }
}

fn password(session: &Session, directory: &Path) -> Result<Password> {
    if let Some(reference) = wire::password_given(session)? {
        return Ok(Password { reference, written: None });
    }
    let file = directory.join("repository-key");
    // One that is left from an interrupted `init` may be the key of the repository: kept.
    if !file.exists() {
        let mut bytes = [0_u8; PASSWORD_BYTES];
        OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| Fault::new(codes::RUN_BUG, "get random bytes from the system").because(error))?;
        write_new(&file, &(rekindle_core::proof::hex(&bytes) + "\n"))?;
    }
    Ok(Password { reference: SecretRef::file(&file), written: Some(file) })
}

/// What became of the repository.
struct Made {
    /// It was there, and the password opens it.
    existed: bool,
    /// Whether the storage keeps put-if-absent; `None`: nothing was tried, because nothing was made.
    put_if_absent: Option<bool>,
}

impl Made {
    fn state(&self) -> &'static str {
        if self.existed { "was there already, and this password opens it" } else { "created" }
    }

    fn warning(&self) -> &'static str {
        if self.put_if_absent == Some(false) { NO_CONDITION } else { "" }
    }
}

const NO_CONDITION: &str = "\nThis storage accepts conditional writes and does not keep them (no put-if-absent): a second writer could write\nover an object. Let only one host write to this repository; a backup of a second one is refused.\n";

/// Creates the repository; one that is there and opens with this password is taken as it is.
fn create(session: &Session, options: &StoreOptions, password: &Secret<String>, repo: &RepoOptions) -> Result<Made> {
    let store = rekindle_store::open(options)?;
    let handle = session.runtime.handle().clone();
    let label = KeyLabel { host: wire::host_name(), user: wire::user_name(), created: session.now() };
    let made = admin::init(store.clone(), handle.clone(), password, &label, repo.clone());
    match made {
        Ok(_) => {
            let found = store.capabilities().put_if_absent;
            let put_if_absent = (found != Support::Unknown).then_some(found == Support::Kept);
            Ok(Made { existed: false, put_if_absent })
        }
        Err(fault) if fault.is(codes::REPO_EXISTS) => {
            // Whatever keeps it from opening, the first error says what matters.
            let opened = Repo::open(store, handle, password, repo.clone()).map_err(|_| fault);
            opened.map(|_| Made { existed: true, put_if_absent: None })
        }
        Err(fault) => Err(fault),
    }
}

fn unwritable(file: &Path, error: std::io::Error) -> Fault {
    Fault::new(codes::CLI_OUTPUT, format!("write {}", file.display()))
        .because(error)
        .hint("choose a directory that exists and may be written")
}

/// Writes a file of mode 0600 that must not exist, durably.
fn write_new(file: &Path, text: &str) -> Result<()> {
    let write = || {
        let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        match file.parent() {
            Some(parent) => std::fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Fault::new(codes::CONFIG_EXISTS, format!("write {}", file.display()))
            .hint("move it away yourself if it is not needed"),
        _ => unwritable(file, error),
    })
}

fn answer(file: &Path, url: &str, password: &Password, draft: &Draft, made: &Made) -> Answer {
    let mut text = format!("configuration  {}\n", file.display());
    let _ = writeln!(text, "repository     {url} ({})", made.state());
    if let Some(written) = &password.written {
        let _ = writeln!(
            text,
            "password       {}\n\nWithout this password nothing can be restored. Keep a copy of it off this host.",
            written.display()
        );
    }
    text.push_str("\nNext:\n  1. look at the configuration; set users and passwords\n  2. rekindle doctor\n  3. rekindle backup\n");
    if url.starts_with("file:") || url.starts_with('/') {
        text.push_str("\nA repository on the same disk is lost together with the data: a copy elsewhere is needed.\n");
    }
    text.push_str(made.warning());
    let result = json!({
        "config": file,
        "repository": url,
        "repository_existed": made.existed,
        "put_if_absent": made.put_if_absent,
        "password_file": password.written,
        "components": draft.components.len(),
    });
    Answer::words(result, text)
}
