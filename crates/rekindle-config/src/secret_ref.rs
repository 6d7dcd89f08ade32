//! Where a secret is kept, and getting it at the moment it is needed.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rekindle_core::{Fault, Result, Secret, codes};

use crate::value;

/// Longest time a `command:` may take.
const COMMAND_SECONDS_MAX: u64 = 30;
/// How often a running command is looked at.
const COMMAND_POLL: Duration = Duration::from_millis(10);
/// No secret is longer.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Container engines mount secrets here, readable for all, in a namespace of the container's own.
const CONTAINER_SECRETS: &str = "/run/secrets";

/// A reference to a secret. The configuration never holds one itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRef {
    source: Source,
    /// `file:line: key` for error messages.
    place: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Env(String),
    Command(Vec<String>),
    Credential(String),
}

/// What a process has around it. Tests give their own.
pub struct Surroundings<'a> {
    /// Looks an environment variable up.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// How long a command may take.
    pub command_max: Duration,
}

impl Surroundings<'static> {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self { variable: &|name| std::env::var_os(name), command_max: Duration::from_secs(COMMAND_SECONDS_MAX) }
    }
}

/// Why a text is not a reference: what is wrong and what to write.
pub(crate) type BadReference = (String, String);

impl SecretRef {
    /// Reads `file:PATH`, `env:NAME`, `command:PROGRAM ARGUMENT…` or `credential:NAME`. Relative
    /// paths start from `directory`.
    pub(crate) fn parse(text: &str, place: String, directory: &Path) -> Result<Self, BadReference> {
        let bad = |text: &str, hint: &str| Err((text.to_owned(), hint.to_owned()));
        let (word, rest) = text.split_once(':').unwrap_or(("", text));
        let source = match word {
            "file" if rest.is_empty() => return bad("it names no file", "write `file:/path`"),
            "file" => Source::File(directory.join(rest)),
            "env" if !is_variable(rest) => {
                return bad("it names no environment variable", "write `env:NAME`");
            }
            "env" => Source::Env(rest.to_owned()),
            "credential" if !is_credential(rest) => {
                return bad(
                    "it names no systemd credential",
                    "write `credential:NAME` and `LoadCredential=NAME:/path` in the unit",
                );
            }
            "credential" => Source::Credential(rest.to_owned()),
            "command" => match value::words(rest) {
                Ok(argv) if argv.is_empty() => {
                    return bad("it names no program", "write `command:PROGRAM ARGUMENT…`");
                }
                Ok(argv) => Source::Command(argv),
                Err(why) => return bad(&why, "quote arguments with '…'; nothing is expanded"),
            },
            _ => return Err(not_a_reference(word)),
        };
        Ok(Self { source, place })
    }

    /// A reference made by a program, not by a configuration.
    pub fn file(path: &Path) -> Self {
        Self { source: Source::File(path.to_owned()), place: "command line".to_owned() }
    }

    /// As [`SecretRef::file`], for an environment variable.
    pub fn variable(name: &str) -> Self {
        Self { source: Source::Env(name.to_owned()), place: "environment".to_owned() }
    }

    /// As [`SecretRef::file`], for a command line to be split at blanks.
    pub fn command(line: &str) -> Result<Self> {
        let text = format!("command:{line}");
        Self::parse(&text, "command line".to_owned(), Path::new("/"))
            .map_err(|(why, hint)| Fault::new(codes::CLI_USAGE, why).hint(hint))
    }

    /// The reference as a configuration writes it.
    pub fn to_config(&self) -> String {
        let quoted = |word: &String| format!("'{}'", word.replace('\'', "'\\''"));
        match &self.source {
            Source::Command(argv) => {
                format!("command:{}", argv.iter().map(quoted).collect::<Vec<_>>().join(" "))
            }
            _ => self.to_string(),
        }
    }

    /// The file it is kept in, when it is a file.
    pub fn as_file(&self) -> Option<&Path> {
        match &self.source {
            Source::File(path) => Some(path),
            _ => None,
        }
    }

    /// Whether the secret lies in a file of this host: whoever may read files as this user has it.
    pub fn lies_on_this_host(&self) -> bool {
        matches!(self.source, Source::File(_) | Source::Credential(_))
    }

    /// The file it is read from, when it is one.
    pub fn in_file(&self) -> Option<&Path> {
        match &self.source {
            Source::File(path) => Some(path),
            Source::Env(_) | Source::Command(_) | Source::Credential(_) => None,
        }
    }

    /// Gets the secret now. One newline at its end is taken off; an empty one is an error.
    pub fn resolve(&self) -> Result<Secret<String>> {
        self.resolve_in(&Surroundings::of_process())
    }

    /// As [`SecretRef::resolve`], in given surroundings.
    pub fn resolve_in(&self, surroundings: &Surroundings<'_>) -> Result<Secret<String>> {
        let bytes = match &self.source {
            Source::File(path) => read_file(path),
            Source::Env(name) => read_variable(name, surroundings),
            Source::Command(argv) => run(argv, surroundings.command_max),
            Source::Credential(name) => read_credential(name, surroundings),
        };
        bytes.and_then(clean).map_err(|fault| fault.during(format!("read the secret `{self}` ({})", self.place)))
    }
}

impl fmt::Display for SecretRef {
    /// The reference itself; of a command only the program, its arguments may tell something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File(path) => write!(f, "file:{}", path.display()),
            Source::Env(name) => write!(f, "env:{name}"),
            Source::Credential(name) => write!(f, "credential:{name}"),
            Source::Command(argv) => {
                write!(f, "command:{}", argv.first().map_or("", String::as_str))?;
                if argv.len() > 1 { f.write_str(" …") } else { Ok(()) }
            }
        }
    }
}

fn not_a_reference(word: &str) -> BadReference {
    let known = ["file", "env", "command", "credential"];
    match value::nearest(word, known).filter(|_| !word.is_empty()) {
        Some(near) => (format!("`{word}:` is not a kind of reference"), format!("did you mean `{near}:`?")),
        // The text may be the password itself: it is not repeated.
        None => (
            "a secret must not stand in this file".to_owned(),
            "put it into a file of mode 0600 and write `file:/path`; or `env:NAME`, \
             `command:PROGRAM ARGUMENT…`, `credential:NAME`"
                .to_owned(),
        ),
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_credential(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(good)
}

fn fault(what: impl Into<String>, hint: impl Into<String>) -> Fault {
    Fault::new(codes::CONFIG_SECRET, what).hint(hint)
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| {
        fault(
            format!("open {}", path.display()),
            "create the file with mode 0600, owned by the user that runs rekindle",
        )
        .because(error)
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 && !path.starts_with(CONTAINER_SECRETS) {
        return Err(fault(
            format!("{} is open to every user of this host (mode {mode:04o})", path.display()),
            format!("chmod 600 {}", path.display()),
        ));
    }
    read_limited(file).map_err(failed)
}

fn read_limited(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(std::io::Error::other("longer than 64 KiB: this is not a secret"));
    }
    Ok(bytes)
}

fn read_variable(name: &str, surroundings: &Surroundings<'_>) -> Result<Vec<u8>> {
    match (surroundings.variable)(name) {
        Some(value) => Ok(value.into_encoded_bytes()),
        None => Err(fault(
            format!("the environment variable {name} is not set"),
            format!("set {name} for the process, or use `file:/path`"),
        )),
    }
}

fn read_credential(name: &str, surroundings: &Surroundings<'_>) -> Result<Vec<u8>> {
    let Some(directory) = (surroundings.variable)("CREDENTIALS_DIRECTORY") else {
        return Err(fault(
            "systemd gave this process no credentials (CREDENTIALS_DIRECTORY is not set)",
            format!("put `LoadCredential={name}:/path` into the unit and run it by systemctl"),
        ));
    };
    let path = Path::new(&directory).join(name);
    let open = || read_limited(std::fs::File::open(&path)?);
    open().map_err(|error| {
        fault(format!("open {}", path.display()), format!("put `LoadCredential={name}:/path` into the unit"))
            .because(error)
    })
}

/// Runs a program without a shell and takes what it prints. What it says on stderr goes to ours.
fn run(argv: &[String], time_max: Duration) -> Result<Vec<u8>> {
    let (program, arguments) = argv.split_first().expect("checked when the reference was read");
    let failed = |what: String| fault(what, "run the command by hand to see what it says");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("start {program}")).because(error))?;
    let stdout = child.stdout.take();
    let (give, printed) = std::sync::mpsc::channel();
    std::thread::spawn(move || give.send(stdout.map_or(Ok(Vec::new()), read_limited)));
    let until = Instant::now() + time_max;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(COMMAND_POLL),
            Ok(None) => {
                // The reader ends by itself when the last holder of the pipe is gone.
                let _ = child.kill();
                let _ = child.wait();
                let seconds = time_max.as_secs();
                return Err(failed(format!("{program} did not end within {seconds} s")));
            }
            Err(error) => return Err(failed(format!("wait for {program}")).because(error)),
        }
    };
    // A process left behind may hold the pipe open: waiting for its end has a limit too.
    let rest = until.saturating_duration_since(Instant::now()) + COMMAND_POLL;
    match printed.recv_timeout(rest) {
        Ok(Ok(bytes)) if status.success() => Ok(bytes),
        Ok(Ok(_)) => Err(failed(format!("{program} failed ({status})"))),
        Ok(Err(error)) => Err(failed(format!("read what {program} prints")).because(error)),
        Err(_) => Err(failed(format!("{program} ended, but its output stays open"))),
    }
}

fn clean(bytes: Vec<u8>) -> Result<Secret<String>> {
    let hint = "store the secret as one line of text";
    let mut text = String::from_utf8(bytes).map_err(|_| fault("it is not valid UTF-8", hint))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(fault("it is empty", "an empty secret protects nothing; set one"));
    }
    if text.contains('\0') {
        return Err(fault("it holds a NUL character", hint));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    fn reference(text: &str) -> SecretRef {
        SecretRef::parse(text, "x.toml:1: password".to_owned(), Path::new("/etc/x")).unwrap()
    }

    fn resolve(text: &str, variables: &[(&str, &str)]) -> Result<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let surroundings = Surroundings { variable: &variable, command_max: Duration::from_millis(500) };
        reference(text).resolve_in(&surroundings).map(Secret::into_inner)
    }

    fn file(mode: u32, content: &[u8]) -> (tempfile::TempDir, String) {
        use std::io::Write as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).unwrap();
        file.write_all(content).unwrap();
        let text = format!("file:{}", path.display());
        (directory, text)
    }

    #[test]
    fn every_form_gives_the_secret_without_its_last_newline() {
        assert_eq!(resolve("env:A", &[("A", "canary\n")]).unwrap(), "canary");
        assert_eq!(resolve("command:printf 'can ary\\n\\n'", &[]).unwrap(), "can ary\n");
        let (directory, text) = file(0o600, b"canary\r\n");
        assert_eq!(resolve(&text, &[]).unwrap(), "canary");
        let credentials = [("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap())];
        assert_eq!(resolve("credential:secret", &credentials).unwrap(), "canary");
    }

    #[test]
    fn what_is_no_secret_is_refused_and_named() {
        let (_keep, open) = file(0o644, b"x");
        let (_keep2, binary) = file(0o600, b"a\0b");
        for (text, said) in [
            ("env:NOT_SET", "NOT_SET is not set"),
            ("env:EMPTY", "it is empty"),
            ("command:false", "failed (exit status: 1)"),
            ("command:sleep 60", "did not end within"),
            ("command:/no/such/program", "start /no/such/program"),
            ("command:yes", "longer than 64 KiB"),
            ("file:/no/such/file", "open /no/such/file"),
            ("credential:x", "CREDENTIALS_DIRECTORY is not set"),
            (&open, "open to every user of this host (mode 0644)"),
            (&binary, "NUL"),
        ] {
            let fault = resolve(text, &[("EMPTY", "\n")]).unwrap_err();
            assert!(fault.is(codes::CONFIG_SECRET));
            assert!(fault.chain().contains(said), "{}", fault.chain());
            assert!(fault.chain().contains("x.toml:1: password"), "{}", fault.chain());
            assert!(fault.hint_text().is_some());
        }
    }

    #[test]
    fn a_file_and_a_credential_lie_on_this_host() {
        for (text, lies) in [("file:/x", true), ("credential:x", true), ("env:X", false), ("command:cat /x", false)] {
            assert_eq!(reference(text).lies_on_this_host(), lies, "{text}");
        }
    }

    #[test]
    fn a_relative_file_starts_from_the_directory_of_the_configuration() {
        assert_eq!(reference("file:key").to_string(), "file:/etc/x/key");
        assert_eq!(reference("file:/key").to_string(), "file:/key");
    }

    #[test]
    fn a_command_is_written_as_it_is_read() {
        let written = reference("command:x 'a b' \"it's\"").to_config();
        assert_eq!(reference(&written), reference("command:x 'a b' \"it's\""));
    }

    #[test]
    fn a_literal_is_refused_and_not_repeated() {
        for literal in ["hunter2-canary", "canary:x", ":canary"] {
            let (text, hint) = SecretRef::parse(literal, String::new(), Path::new("/")).unwrap_err();
            assert!(!text.contains("canary") && hint.contains("file:/path"), "{text} {hint}");
        }
        assert!(!reference("command:show canary").to_string().contains("canary"));
    }
}
