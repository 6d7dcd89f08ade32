//! Log lines on standard error, between the lines of the progress.

use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts logging: errors with `quiet`, warnings usually, more with `verbose`.
pub(crate) fn start(quiet: bool, verbose: u8, bars: &MultiProgress) {
    let usual = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "warn,rekindle=info",
        (false, _) => "info,rekindle=debug",
    };
    // `rekindle=` covers all our crates: targets are compared by prefix.
    let filter = EnvFilter::try_from_env("REKINDLE_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_writer(BetweenBars(bars.clone()))
        .finish();
    // A second start in one process would be a defect that harms nobody.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

#[derive(Clone)]
struct BetweenBars(MultiProgress);

impl<'a> MakeWriter<'a> for BetweenBars {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for BetweenBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().lock().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
