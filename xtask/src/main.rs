//! `cargo run -p xtask`: every tidy check; exit code 1 when something is not tidy.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut untidy = 0;
    for (name, found) in xtask::tidy(&xtask::root()) {
        for line in &found {
            eprintln!("{name}: {line}");
        }
        untidy += found.len();
    }
    if untidy == 0 {
        return ExitCode::SUCCESS;
    }
    eprintln!("{untidy} places are not tidy");
    ExitCode::FAILURE
}
