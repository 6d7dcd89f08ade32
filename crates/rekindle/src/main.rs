//! `rekindle`: words on the terminal. The only place where adapters meet ports.

mod args;
mod cmd;
mod describe;
mod discover;
mod evidence;
mod exit;
mod group;
mod human;
mod logs;
mod moment;
mod output;
mod progress;
mod proof_report;
mod replay;
mod session;
mod signals;
mod units;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    exit::code(run())
}

fn run() -> u8 {
    let arguments: Vec<_> = std::env::args_os().collect();
    let reader = exit::Reader::of(&arguments);
    match args::parse(arguments) {
        Ok(cli) => session::guarded(cli, reader),
        Err(code) => reader.failed(code),
    }
}
