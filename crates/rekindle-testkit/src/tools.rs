//! Where the programs of the tests are.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The directory that `scripts/setup` fills: `$REKINDLE_TOOLS`, else the first `.tools` at or
/// above this crate. `None` when the set-up has not been run.
pub fn tools_dir() -> Option<PathBuf> {
    if let Some(dir) = env::var_os("REKINDLE_TOOLS").filter(|dir| !dir.is_empty()) {
        return Some(PathBuf::from(dir));
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join(".tools")).find(|dir| dir.is_dir())
}

/// The program of that name: from the tools directory, else from `PATH`, else from the system
/// directories that an ordinary user's `PATH` leaves out.
///
/// # Panics
/// When it is nowhere. A missing server must fail a test, never skip it.
pub fn find(program: &str) -> PathBuf {
    try_find(program).unwrap_or_else(|| panic!("`{program}` is not installed: run scripts/setup --tests"))
}

/// As [`find`], for the rare program that a test can do without.
pub fn try_find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    tools_dir()
        .map(|dir| dir.join("bin"))
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| is_program(file))
}

/// The directory with the programs of one PostgreSQL major version.
///
/// # Panics
/// When that version is not installed.
pub fn postgres_bin(major: u32) -> PathBuf {
    let in_tools = tools_dir().map(|dir| dir.join(format!("pg/{major}/bin")));
    let in_system = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    [Some(in_system), in_tools]
        .into_iter()
        .flatten()
        .find(|dir| is_program(&dir.join("postgres")))
        .unwrap_or_else(|| panic!("PostgreSQL {major} is not installed: run scripts/setup --tests"))
}

/// Whether any user of the machine can run programs in this directory. A checkout below
/// `/root`, for one, is closed to the user that PostgreSQL runs as.
pub(crate) fn open_to_all(dir: &Path) -> bool {
    dir.ancestors().all(|ancestor| ancestor.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A command that is not led astray by what the developer's shell exports.
pub(crate) fn command(program: impl AsRef<OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("PG") || name_text.starts_with("REDIS") {
            command.env_remove(&name);
        }
    }
    command
}
