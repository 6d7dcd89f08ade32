//! The state directory: caches and journals of this host. Losing it loses no point.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rekindle_config::{Config, SecretRef};
use rekindle_repo::KeyCache;

/// Of the whole system, when root runs without systemd.
const OF_SYSTEM: &str = "/var/lib/rekindle";

/// The configured one, else the one that systemd gave (`StateDirectory=`), else the user's by the XDG
/// base directory specification; root's own is `/var/lib/rekindle`. `None`: this user has no home.
pub(crate) fn directory(config: Option<&Config>) -> Option<PathBuf> {
    let root = rustix::process::geteuid().is_root();
    config.and_then(|config| config.stack.state_dir.clone()).or_else(|| usual(&|name| std::env::var_os(name), root))
}

fn usual(variable: &dyn Fn(&str) -> Option<OsString>, root: bool) -> Option<PathBuf> {
    // Relative values are to be ignored, says the specification.
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    // systemd lists several with `:` between them.
    let of_systemd = variable("STATE_DIRECTORY").and_then(|list| {
        let first = list.to_str()?.split(':').next()?;
        absolute(first.into())
    });
    of_systemd
        .or_else(|| variable("XDG_STATE_HOME").and_then(absolute).map(|home| home.join("rekindle")))
        .or_else(|| root.then(|| PathBuf::from(OF_SYSTEM)))
        .or_else(|| variable("HOME").and_then(absolute).map(|home| home.join(".local/state/rekindle")))
}

/// Where the opened key of a password is kept between runs: nowhere unless the password lies on
/// this host anyway.
pub(crate) fn key_cache(config: Option<&Config>, password: &SecretRef) -> Option<KeyCache> {
    let wanted = config.is_none_or(|config| config.repository.key_cache);
    let directory = directory(config).filter(|_| wanted && password.lies_on_this_host())?;
    Some(KeyCache::at(keys(&directory)))
}

fn keys(directory: &Path) -> PathBuf {
    directory.join("keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_state_directory() {
        let of = |variables: &[(&str, &str)], root| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            usual(&variable, root).map(|path| path.display().to_string())
        };
        let home = ("HOME", "/h");
        let xdg = ("XDG_STATE_HOME", "/x");
        for (variables, root, expected) in [
            (&[home][..], false, "/h/.local/state/rekindle"),
            (&[home], true, "/var/lib/rekindle"),
            (&[home, xdg], false, "/x/rekindle"),
            (&[home, xdg], true, "/x/rekindle"),
            (&[home, ("XDG_STATE_HOME", "relative")], false, "/h/.local/state/rekindle"),
            (&[home, xdg, ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")], true, "/var/lib/a"),
        ] {
            assert_eq!(of(variables, root).as_deref(), Some(expected), "{variables:?} {root}");
        }
        assert_eq!(of(&[], false), None);
    }
}
