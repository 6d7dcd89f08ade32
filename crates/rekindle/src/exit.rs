//! Exit codes, in one place for people.

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
 10  no repository                        75  skipped by a hook
130 / 143  interrupted / terminated

Each error has a code such as RK-CF-003, described in docs/errors/.";

/// The process's exit code.
pub(crate) fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}
