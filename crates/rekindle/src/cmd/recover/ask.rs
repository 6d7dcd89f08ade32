//! Secrets that nothing on this host holds, asked of the person who sits at it.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use console::Term;
use rekindle_core::{Fault, Result, Secret, codes};

use super::configuration::Source;
use super::needs::Need;
use crate::session::Session;

/// Whether somebody can be asked: a terminal on both sides, and no program that reads the answer.
pub(super) fn somebody(session: &Session) -> bool {
    let given = &session.global;
    !given.json && !given.quiet && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for each missing secret and keeps it in a file of its own (mode 0600) below `directory`, to which the
/// configuration then refers. Where nothing is typed, it stays missing.
pub(super) fn ask(source: &mut Source, missing: &[Need], directory: &Path) -> Result<()> {
    let terminal = Term::stderr();
    for key in missing.iter().filter_map(|need| need.secret.as_deref()) {
        let failed = |error: std::io::Error| {
            Fault::new(codes::RECOVER_NEEDS, format!("ask for the secret `{key}`"))
                .because(error)
                .hint(format!("--set {key}=file:/path, with the secret in a file of mode 0600"))
        };
        // Nobody may be reading; the answer decides.
        let _ = write!(&terminal, "secret `{key}`, which is not on this host (nothing: leave it out): ");
        let typed = Secret::new(terminal.read_secure_line().map_err(failed)?);
        if typed.expose().is_empty() {
            continue;
        }
        let file = keep(directory, key, &typed).map_err(failed)?;
        source.set(&format!("{key}=file:{}", file.display()))?;
        let _ = writeln!(&terminal, "  kept in {}", file.display());
    }
    Ok(())
}

fn keep(directory: &Path, key: &str, secret: &Secret<String>) -> std::io::Result<PathBuf> {
    let folder = directory.join("secrets");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let file = folder.join(key);
    // One of an earlier try may stand there, for the same key.
    let _ = fs::remove_file(&file);
    let mut open = fs::OpenOptions::new();
    let mut written = open.write(true).create_new(true).mode(0o600).open(&file)?;
    written.write_all(secret.expose().as_bytes())?;
    written.sync_all()?;
    Ok(file)
}
