//! Runs the built program in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory with nothing of this host's surroundings in it.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
    /// The program and the user who runs it, where they are not the tests' own.
    other: Option<(PathBuf, u32, u32)>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), variables: Vec::new(), other: None }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A variable for every later run.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Every later run is that of another user, of a copy of the program that this user reaches.
    pub(crate) fn run_as(&mut self, program: PathBuf, uid: u32, gid: u32) {
        self.other = Some((program, uid, gid));
    }

    pub(crate) fn is_run_as_another(&self) -> bool {
        self.other.is_some()
    }

    /// Writes a file below the directory, readable for its owner only.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// What stands in a file below the directory.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.other {
            None => Command::new(env!("CARGO_BIN_EXE_rekindle")),
            Some((program, uid, gid)) => {
                let mut command = Command::new(program);
                std::os::unix::process::CommandExt::uid(&mut command, *uid);
                std::os::unix::process::CommandExt::gid(&mut command, *gid);
                command
            }
        };
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env("TZ", "UTC")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    /// A run that must end with this code.
    pub(crate) fn ends(&self, code: i32, arguments: &[&str]) -> Ended {
        let ended = self.run(arguments);
        assert_eq!(ended.code, code, "rekindle {}: {ended:#?}", arguments.join(" "));
        ended
    }

    /// A run with `--json` that must end with this code.
    pub(crate) fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let ended = self.ends(code, &arguments);
        let value: Value = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:#?}"));
        assert_eq!(value["version"], 1);
        assert_eq!(value["exit_code"], code);
        assert_eq!(value["error"].is_object(), code != 0, "{value}");
        value
    }
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Code, cause and remedy as they are promised.
    pub(crate) fn says(&self, code: &str, parts: &[&str]) {
        assert!(self.err.contains(&format!("error[{code}]: ")), "{self:#?}");
        for part in parts {
            assert!(self.err.contains(part), "`{part}` is not in {self:#?}");
        }
        assert!(self.err.contains("\nhint: "), "{self:#?}");
    }
}
