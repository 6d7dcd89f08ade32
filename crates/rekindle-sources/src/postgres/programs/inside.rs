//! The programs inside a container.

use std::path::PathBuf;

use rekindle_core::{Cancel, Fault, Result, codes};

use super::{Home, Programs, VERSION_BYTES_MAX, VERSION_MAX, parse};
use crate::child::{ChildSpec, Ended, Stop, output};

/// `$1` is the program. One line for each folder that has it: the folder, a tab, what the program says.
/// The folders are those of Debian's packages and of the `postgres` images, then `PATH`, whose programs may be
/// scripts that choose among several.
const LIST: &str = r#"p=$(command -v "$1") && set -- "$1" "${p%/*}"
for d in /usr/lib/postgresql/*/bin /usr/libexec/postgresql* /usr/pgsql-*/bin /usr/local/bin "$2"; do
  [ -n "$d" ] && [ -x "$d/$1" ] && printf '%s\t%s\n' "$d" "$("$d/$1" --version 2>/dev/null)"
done; exit 0"#;

/// Every folder with that program. Blocking.
pub(super) fn candidates(home: &Home, name: &str) -> Result<Vec<Programs>> {
    let args = ["-c", LIST, "sh", name].map(Into::into).to_vec();
    let what = format!("look for `{name}` in the container `{}`", home.inside.name);
    let spec = ChildSpec {
        program: "/bin/sh".into(),
        args,
        env: vec![("LC_ALL".to_owned(), "C".into())],
        idle_max: VERSION_MAX,
        what: what.clone(),
        code: codes::PG_NO_PROGRAM,
        secrets: Vec::new(),
        inside: Some(home.inside.clone()),
    };
    let judge = Box::new(move |ended: &Ended| {
        Fault::new(codes::PG_NO_PROGRAM, what.clone()).because(ended.describe()).hint(
            "the container needs a shell (/bin/sh) and PostgreSQL's client programs, or this host needs the programs",
        )
    });
    let said = output(spec, Stop::new(Cancel::new()), VERSION_BYTES_MAX, judge)?;
    Ok(read(&String::from_utf8_lossy(&said), home))
}

fn read(said: &str, home: &Home) -> Vec<Programs> {
    let lines = said.lines().filter_map(|line| line.split_once('\t'));
    let programs = lines.filter_map(|(folder, version)| {
        let (major, version) = parse(version)?;
        Some(Programs { directory: PathBuf::from(folder), major, version, home: Some(home.clone()) })
    });
    programs.collect()
}
