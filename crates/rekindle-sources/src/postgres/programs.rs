//! Finds PostgreSQL's client programs, in the version that fits the server.
//!
//! `pg_dump` refuses a server that is newer than itself, and a newer `pg_restore` may send settings
//! an older server does not know; so the server's own major version is best.

mod inside;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rekindle_core::{Cancel, Fault, Result, codes};

use crate::child::{ChildSpec, Ended, Stop, output};
use crate::container::{Container, Inside};

/// The folders below which distributions keep one folder per major version, and what follows.
const VERSIONED: [(&str, &str, &str); 5] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
];
/// Longest run of `pg_dump --version`.
const VERSION_MAX: Duration = Duration::from_secs(10);
const VERSION_BYTES_MAX: usize = 4096;

/// A folder with client programs of one version.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) directory: PathBuf,
    /// As in `15` of `15.18`.
    pub(super) major: u32,
    /// As the program says it: `15.18 (Debian 15.18-0+deb12u1)`.
    pub(super) version: String,
    /// The container they are in; none: this host.
    pub(super) home: Option<Home>,
}

/// The container of a server, as a place for its client programs.
#[derive(Debug, Clone)]
pub struct Home {
    pub(super) inside: Inside,
    ports: BTreeMap<u16, u16>,
}

impl Home {
    /// A container that runs the server.
    pub fn new(container: &Container) -> Self {
        Self { inside: container.inside(), ports: container.ports.clone() }
    }

    /// The port inside for one on the host; the same when it is not published.
    pub(super) fn port(&self, on_host: u16) -> u16 {
        self.ports.get(&on_host).copied().unwrap_or(on_host)
    }
}

impl Programs {
    /// Where they are, for reading.
    pub(super) fn place(&self) -> String {
        let directory = self.directory.display();
        match &self.home {
            None => directory.to_string(),
            Some(home) => format!("{directory} of the container `{}`", home.inside.name),
        }
    }

    /// The path of one of them.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The programs that fit best: of the server's major version, else the next newer one. `least` is
/// the oldest major version that will do. Blocking.
///
/// With a container, its own programs are taken unless this host has exactly the version wanted: they are
/// as old as the server.
pub(super) fn find(
    bin_dir: Option<&Path>,
    home: Option<&Home>,
    server: u32,
    least: u32,
    name: &str,
) -> Result<Programs> {
    let wanted = server.max(least);
    let mut found = candidates(bin_dir, name, wanted);
    let exact = found.last().is_some_and(|programs| programs.major == wanted);
    if let Some(home) = home.filter(|_| !exact) {
        found.extend(inside::candidates(home, name)?);
    }
    match choose(&found, server, least) {
        Some(programs) => Ok(programs.clone()),
        None => Err(none(&found, bin_dir, wanted, name)),
    }
}

/// The programs of exactly this major version, in one of these folders or where they usually are.
/// Another version would prove something else. Blocking.
pub(super) fn exact(dirs: &[PathBuf], major: u32, name: &str) -> Result<Programs> {
    let mut found: Vec<Programs> = dirs.iter().filter_map(|folder| ask(folder, name)).collect();
    found.extend(candidates(None, name, major));
    if let Some(programs) = found.iter().find(|programs| programs.major == major) {
        return Ok(programs.clone());
    }
    let seen: Vec<&str> = found.iter().map(|programs| programs.version.as_str()).collect();
    let why = if seen.is_empty() {
        "there is none on this host".to_owned()
    } else {
        format!("found only {}", seen.join(", "))
    };
    Err(Fault::new(codes::DRILL_NO_ENGINE, format!("find the server of PostgreSQL {major}")).because(why).hint(
        format!("install it (`apt-get install postgresql-{major}`), or name its folder in `programs` of [drill]"),
    ))
}

fn choose(found: &[Programs], server: u32, least: u32) -> Option<&Programs> {
    let wanted = server.max(least);
    found.iter().filter(|programs| programs.major >= wanted).min_by_key(|programs| programs.major)
}

fn none(found: &[Programs], bin_dir: Option<&Path>, least: u32, name: &str) -> Fault {
    let seen: Vec<String> =
        found.iter().map(|programs| format!("{} in {}", programs.version, programs.place())).collect();
    let because = match (seen.is_empty(), bin_dir) {
        (true, Some(dir)) => format!("there is no working `{name}` in {}", dir.display()),
        (true, None) => format!("no `{name}` was found"),
        (false, _) => format!("found only {}", seen.join(", ")),
    };
    Fault::new(codes::PG_NO_PROGRAM, format!("find `{name}` of PostgreSQL {least} or newer")).because(because).hint(
        format!(
            "install it: `apt-get install postgresql-client-{least}` (packages of apt.postgresql.org) \
         or `dnf install postgresql{least}`; or name its folder in `bin-dir`"
        ),
    )
}

/// The folders with that program, each once, in the order of preference. A configured folder is
/// the only one looked at. The search ends with the first of the wanted version, which is the last given:
/// nothing fits better, and a distribution's wrapper script takes longer to say its version than `pg_dump`
/// takes to connect.
fn candidates(bin_dir: Option<&Path>, name: &str, wanted: u32) -> Vec<Programs> {
    let folders = match bin_dir {
        Some(folder) => vec![folder.to_owned()],
        None => folders(std::env::var_os("PATH").as_deref()),
    };
    search(folders, name, wanted)
}

fn search(mut folders: Vec<PathBuf>, name: &str, wanted: u32) -> Vec<Programs> {
    // Where the version stands in the path it is most likely the right one.
    folders.sort_by_key(|folder| !names_version(folder, wanted));
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for folder in folders.into_iter().filter(|folder| seen.insert(folder.clone())) {
        found.extend(ask(&folder, name));
        if found.last().is_some_and(|programs| programs.major == wanted) {
            break;
        }
    }
    found
}

/// Whether a folder of [`VERSIONED`] is that of this major version.
fn names_version(folder: &Path, major: u32) -> bool {
    folder.iter().filter_map(OsStr::to_str).any(|part| {
        let digits = part.trim_start_matches(|c: char| !c.is_ascii_digit());
        digits.parse() == Ok(major)
    })
}

fn folders(path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for (parent, prefix, suffix) in VERSIONED {
        let Ok(entries) = std::fs::read_dir(parent) else {
            continue;
        };
        let mut versions: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().and_then(OsStr::to_str);
                name.and_then(|name| name.strip_prefix(prefix))
                    .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
            })
            .collect();
        versions.sort();
        folders.extend(versions.into_iter().map(|path| path.join(suffix)));
    }
    folders.extend(path.iter().flat_map(std::env::split_paths));
    folders
}

fn ask(folder: &Path, name: &str) -> Option<Programs> {
    let program = folder.join(name);
    if !program.is_file() {
        return None;
    }
    let spec = ChildSpec {
        program,
        args: vec!["--version".into()],
        env: base_environment(),
        idle_max: VERSION_MAX,
        what: "ask for the version".to_owned(),
        code: codes::PG_NO_PROGRAM,
        secrets: Vec::new(),
        inside: None,
    };
    let judge =
        Box::new(|ended: &Ended| Fault::new(codes::PG_NO_PROGRAM, "ask for the version").because(ended.describe()));
    let said = output(spec, Stop::new(Cancel::new()), VERSION_BYTES_MAX, judge).ok()?;
    let (major, version) = parse(&String::from_utf8_lossy(&said))?;
    Some(Programs { directory: folder.to_owned(), major, version, home: None })
}

/// `pg_dump (PostgreSQL) 15.18 (Debian …)` → 15 and the rest of the line from the number on.
fn parse(said: &str) -> Option<(u32, String)> {
    let (_, version) = said.lines().next()?.split_once("(PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version.trim().to_owned()))
}

/// What every child gets: English messages, a fixed PATH, nothing of ours.
pub(super) fn base_environment() -> Vec<(String, std::ffi::OsString)> {
    vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".into()), ("LC_ALL".to_owned(), "C".into())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(major: u32) -> Programs {
        Programs { directory: format!("/bin/{major}").into(), major, version: format!("{major}.1"), home: None }
    }

    #[test]
    fn the_version_is_read_from_what_programs_say() {
        assert_eq!(
            parse("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some((15, "15.18 (Debian 15.18-0+deb12u1)".to_owned()))
        );
        assert_eq!(parse("pg_dump (PostgreSQL) 18beta2"), Some((18, "18beta2".into())));
        assert_eq!(parse("bash: no"), None);
    }

    #[test]
    fn the_servers_own_version_is_best_then_the_next_newer() {
        let found = [programs(18), programs(15), programs(17)];
        let major = |server, least| choose(&found, server, least).map(|p| p.major);
        assert_eq!(major(15, 15), Some(15));
        assert_eq!(major(16, 16), Some(17));
        assert_eq!(major(15, 17), Some(17), "the dump was made by a newer program");
        assert_eq!(major(19, 19), None);
    }

    #[test]
    fn the_search_ends_with_the_wanted_version_and_begins_where_the_path_names_it() {
        let top = tempfile::tempdir().unwrap();
        let asked = top.path().join("asked");
        for (folder, major) in [("plain", 15), ("pgsql-15", 15), ("16", 16)] {
            let script =
                format!("#!/bin/sh\necho {folder} >>{}\necho 'pg_dump (PostgreSQL) {major}.1'\n", asked.display());
            let place = top.path().join(folder);
            std::fs::create_dir(&place).unwrap();
            std::fs::write(place.join("pg_dump"), script).unwrap();
            let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(place.join("pg_dump"), executable).unwrap();
        }
        let folders = ["plain", "16", "pgsql-15"].map(|folder| top.path().join(folder)).to_vec();
        let majors = |wanted| {
            std::fs::write(&asked, "").unwrap();
            let found = search(folders.clone(), "pg_dump", wanted);
            let asked = std::fs::read_to_string(&asked).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
            (found.iter().map(|programs| programs.major).collect::<Vec<_>>(), asked)
        };
        assert_eq!(majors(15), (vec![15], vec!["pgsql-15".to_owned()]));
        assert_eq!(majors(16), (vec![16], vec!["16".to_owned()]));
        let all = ["plain", "16", "pgsql-15"].map(str::to_owned).to_vec();
        assert_eq!(majors(17), (vec![15, 16, 15], all));
    }

    #[test]
    fn a_folder_without_programs_is_told_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let fault = find(Some(folder.path()), None, 17, 17, "pg_dump").unwrap_err();
        assert!(fault.is(codes::PG_NO_PROGRAM));
        assert!(fault.hint_text().unwrap().contains("postgresql-client-17"), "{fault:?}");
    }
}
