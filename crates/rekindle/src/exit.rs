//! Exit codes, in one place for people.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// The table of `--help`.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  done, and the objectives are met     11  locked by another run
  1  failed                               12  wrong key
  2  wrong command line                   13  repository damaged
  3  the point is partial                 20  source or target unreachable
  4  ran, but the answer is no            21  refused for safety
  5  configuration invalid                70  a defect of rekindle
 10  no repository                        75  left out: a hook asked for it, or the same waits
130 / 143  interrupted / terminated

Each error has a code such as RK-CF-003, described in docs/errors/.";

/// The process's exit code.
pub(crate) fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}

/// Who reads the exit code of the process. A server has rules of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    People,
    /// `archive_command`: after a code above 125 the archiver dies, and counts no failure
    /// (`pgarch.c`).
    ArchiveCommand,
    /// `restore_command`: a code up to 125 means that the file is not in the archive, and ends the
    /// recovery; a higher one stops the server (`xlogarchive.c`).
    RestoreCommand,
    /// The same for a standby, which asks again after any failure, and must not be stopped.
    StandbyRestoreCommand,
}

/// What `restore_command` ends with when it is not certain that the file is absent.
const NOT_CERTAIN: u8 = 200;
/// The last code that does not look like a signal or a missing program.
const ORDINARY_MAX: u8 = 125;

impl Reader {
    /// By the words of the command line: a wrong one has to follow the rules too.
    pub(crate) fn of(arguments: &[OsString]) -> Self {
        let says = |word: &str| arguments.iter().any(|argument| argument == word);
        match () {
            () if says("wal") && says("fetch") => Self::restore_command(),
            () if says("wal") && says("push") => Self::ArchiveCommand,
            () => Self::People,
        }
    }

    /// `restore_command` of the data directory that we are in.
    pub(crate) fn restore_command() -> Self {
        if Path::new("standby.signal").exists() { Self::StandbyRestoreCommand } else { Self::RestoreCommand }
    }

    /// The code of a command that answered.
    pub(crate) fn answered(self, code: u8) -> u8 {
        match (self, code) {
            (Self::RestoreCommand | Self::StandbyRestoreCommand, 0 | 1) => code,
            (_, code) => self.failed(code),
        }
    }

    /// The code of a command that failed, whatever the reason.
    pub(crate) fn failed(self, code: u8) -> u8 {
        match self {
            _ if code == 0 => 0,
            Self::People => code,
            Self::ArchiveCommand => {
                if code > ORDINARY_MAX {
                    1
                } else {
                    code
                }
            }
            Self::RestoreCommand => NOT_CERTAIN,
            Self::StandbyRestoreCommand => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_get_codes_that_mean_what_they_take_them_for() {
        for code in 1..=255 {
            assert!((1..=125).contains(&Reader::ArchiveCommand.failed(code)), "{code}");
            assert!(Reader::RestoreCommand.failed(code) > 125, "{code}");
            assert_eq!(Reader::StandbyRestoreCommand.failed(code), 1);
            assert_eq!(Reader::People.failed(code), code);
        }
        assert_eq!([0, 1, 4].map(|code| Reader::RestoreCommand.answered(code)), [0, 1, 200]);
        let of = |words: &[&str]| Reader::of(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of(&["rekindle", "--config", "x", "wal", "push", "%p"]), Reader::ArchiveCommand);
        assert_eq!(of(&["rekindle", "wal", "fetch", "--nonsense"]), Reader::RestoreCommand);
        assert_eq!(of(&["rekindle", "wal", "status"]), Reader::People);
    }
}
