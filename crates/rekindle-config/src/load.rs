//! Finding and reading the file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rekindle_core::codes;

use crate::model::{Config, Fleet};
use crate::problem::Problems;
use crate::read;

/// No configuration is larger.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a configuration is looked for when none is named.
pub fn default_places() -> [PathBuf; 2] {
    [PathBuf::from("rekindle.toml"), PathBuf::from("/etc/rekindle/rekindle.toml")]
}

/// Reads and checks a file.
pub fn load(file: &Path) -> Result<Config, Problems> {
    let text = read_text(file)?;
    parse(file, &text)
}

/// Reads and checks a file that names a fleet.
pub fn load_fleet(file: &Path) -> Result<Fleet, Problems> {
    let text = read_text(file)?;
    read::fleet::fleet(file, &text)
}

/// Checks a text; `file` is named in problems, and relative paths start from its directory.
pub fn parse(file: &Path, text: &str) -> Result<Config, Problems> {
    read::config(file, text)
}

/// The text of a file that may be trusted as a configuration: not writable for everybody, and of
/// the user who runs this.
pub fn read_text(file: &Path) -> Result<String, Problems> {
    let unusable = |text: String, hint: String| Problems::of_file(file, codes::CONFIG_VALUE, text, hint);
    let absent = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Problems::of_file(
            file,
            codes::CONFIG_ABSENT,
            "there is no such file".to_owned(),
            format!("rekindle init --config {}", file.display()),
        ),
        _ => unusable(format!("the file cannot be read: {error}"), "check its permissions".into()),
    };
    let meta = std::fs::metadata(file).map_err(absent)?;
    if !meta.is_file() {
        return Err(unusable("this is not a file".into(), "name the file itself".into()));
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(unusable("the file is larger than 1 MiB".into(), "name another file".into()));
    }
    // Hooks and `command:` run what this file says: who may write it, may become this user.
    if meta.mode() & 0o002 != 0 {
        return Err(unusable(
            "every user of this host may write the file, and it names programs to run".into(),
            format!("chmod 600 {}", file.display()),
        ));
    }
    let (owner, user) = (meta.uid(), rustix::process::geteuid().as_raw());
    if user == 0 && owner != 0 {
        return Err(unusable(
            format!("the file belongs to the user {owner}, but its programs would run as root"),
            format!("chown root {}", file.display()),
        ));
    }
    let bytes = std::fs::read(file).map_err(absent)?;
    String::from_utf8(bytes).map_err(|error| {
        let text = format!("byte {} is not UTF-8", error.utf8_error().valid_up_to());
        unusable(text, "save the file as UTF-8".into())
    })
}
