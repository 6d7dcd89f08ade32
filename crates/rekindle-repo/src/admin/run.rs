//! Running `rustic_core`: on a thread of its own, with panics and its log kept inside.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rekindle_core::{Fault, Result, codes};
use rustic_core::RusticError;

/// Stack of the thread; its tree walks are recursive in places.
const STACK_BYTES: usize = 8 * 1024 * 1024;

static WARNINGS: AtomicU64 = AtomicU64::new(0);
static COUNTER: CountingLog = CountingLog;
static INSTALL: Once = Once::new();

/// Counts warnings of `rustic_core`, where many causes are told and nowhere else, and passes its
/// lines on to `tracing` at debug level, so that nobody sees them who did not ask.
struct CountingLog;

impl log::Log for CountingLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("rustic_core")
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if record.level() <= log::Level::Warn {
            WARNINGS.fetch_add(1, Ordering::Relaxed);
        }
        tracing::debug!(target: "rustic_core", level = %record.level(), text = %record.args(), "engine says");
    }

    fn flush(&self) {}
}

/// What a run gave, and how many warnings were logged in the process meanwhile.
pub(super) struct Outcome<T> {
    pub(super) value: T,
    pub(super) warnings: u64,
}

/// Runs `work` on its own thread. A panic is an error of the engine, never the end of ours.
pub(super) fn run<T, W>(what: &str, work: W) -> Result<Outcome<T>>
where
    T: Send,
    W: FnOnce() -> Result<T> + Send,
{
    INSTALL.call_once(|| {
        // Somebody else's logger stays; then warnings are his to show and ours to miss.
        if log::set_logger(&COUNTER).is_ok() {
            log::set_max_level(log::LevelFilter::Debug);
        }
    });
    let before = WARNINGS.load(Ordering::Relaxed);
    let ended = thread::scope(|scope| {
        thread::Builder::new()
            .name("engine".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || catch_unwind(AssertUnwindSafe(work)))
            .map(thread::ScopedJoinHandle::join)
    });
    let value = match ended {
        Err(error) => {
            return Err(engine_fault(what).because(error));
        }
        Ok(Err(panic) | Ok(Err(panic))) => {
            return Err(engine_fault(what).because(panic_text(&*panic)));
        }
        Ok(Ok(Ok(value))) => value?,
    };
    let warnings = WARNINGS.load(Ordering::Relaxed) - before;
    Ok(Outcome { value, warnings })
}

fn engine_fault(what: &str) -> Fault {
    Fault::new(codes::REPO_ENGINE, what.to_owned())
        .hint("run `rekindle verify`; nothing is deleted by an operation that failed")
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    format!("the engine panicked: {text}")
}

/// Turns an error of `rustic_core`, which comes boxed, into ours. When it carries one of ours, that one comes out.
#[expect(clippy::boxed_local, clippy::needless_pass_by_value, reason = "it is used as `map_err(|e| fault(.., e))`")]
pub(super) fn fault(what: &str, error: Box<RusticError>) -> Fault {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    while let Some(cause) = next {
        if let Some(ours) = cause.downcast_ref::<Fault>() {
            return Fault::new(ours.code(), what.to_owned()).because(ours.chain());
        }
        next = cause.source();
    }
    engine_fault(what).because(error.display_log())
}
