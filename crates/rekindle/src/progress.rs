//! How the work goes: one line per component on a terminal, a line every ten seconds elsewhere.

use std::fmt::Write as _;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rekindle_core::Fault;
use rekindle_core::port::Monitor;

use crate::human;

/// Time between two plain lines of one scope.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// A bar is redrawn at most so often per second.
const DRAWS_PER_SECOND: u8 = 8;
const WITH_TOTAL: &str =
    "{prefix:<14} {bytes:>10} / {total_bytes:<10} {percent:>3} %  {bytes_per_sec:>12}  ETA {eta:<6} {wide_msg}";
const WITHOUT_TOTAL: &str = "{prefix:<14} {bytes:>10}  {bytes_per_sec:>12}  {elapsed:>6} {wide_msg}";

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Bars,
    Lines,
    Nothing,
}

/// The monitor of the command line.
pub(crate) struct Progress {
    style: Style,
    bars: MultiProgress,
    started: Instant,
    scopes: RwLock<BTreeMap<String, Arc<Scope>>>,
}

struct Scope {
    bar: Option<ProgressBar>,
    entries: AtomicU64,
    bytes: AtomicU64,
    /// 0: not known.
    expected_bytes: AtomicU64,
    /// Milliseconds after the start of the last plain line.
    said_at_ms: AtomicU64,
}

impl Progress {
    pub(crate) fn new(style: Style, bars: &MultiProgress) -> Self {
        if style != Style::Bars {
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self { style, bars: bars.clone(), started: Instant::now(), scopes: RwLock::default() }
    }

    /// Takes the bars away: nothing of them may stand under what is printed next.
    pub(crate) fn end(&self) {
        let _ = self.bars.clear();
    }

    fn scope(&self, name: &str) -> Arc<Scope> {
        let known = self.scopes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(scope) = known.get(name) {
            return Arc::clone(scope);
        }
        drop(known);
        let mut scopes = self.scopes.write().unwrap_or_else(PoisonError::into_inner);
        let scope = scopes.entry(name.to_owned()).or_insert_with(|| {
            let bar = (self.style == Style::Bars).then(|| {
                let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
                let bar = ProgressBar::with_draw_target(None, target).with_prefix(name.to_owned());
                bar.set_style(style(WITHOUT_TOTAL));
                self.bars.add(bar)
            });
            Arc::new(Scope {
                bar,
                entries: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                expected_bytes: AtomicU64::new(0),
                said_at_ms: AtomicU64::new(0),
            })
        });
        Arc::clone(scope)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it is time for a plain line; only one thread is told so.
    fn line_is_due(&self, scope: &Scope) -> bool {
        let (now, last) = (self.elapsed_ms(), scope.said_at_ms.load(Ordering::Relaxed));
        let due = u128::from(now.saturating_sub(last)) >= LINE_EVERY.as_millis();
        due && scope.said_at_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn say(&self, text: &str) {
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        });
    }

    fn line(&self, name: &str, scope: &Scope) -> String {
        let (done, expected) = (scope.bytes.load(Ordering::Relaxed), scope.expected_bytes.load(Ordering::Relaxed));
        let seconds = (self.elapsed_ms() / 1000).max(1);
        let rate = done / seconds;
        let mut text = format!("{name}: {}", human::bytes(done));
        if expected > 0 {
            let _ = write!(text, " of {}", human::bytes(expected));
        }
        let _ = write!(text, ", {} entries, {}/s", scope.entries.load(Ordering::Relaxed), human::bytes(rate));
        if expected > done && rate > 0 {
            let _ = write!(text, ", ETA {}", human::seconds((expected - done) / rate));
        }
        text
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Monitor for Progress {
    fn phase(&self, name: &str, phase: &str) {
        match self.style {
            Style::Nothing => {}
            Style::Lines => self.say(&format!("{name}: {phase}")),
            Style::Bars => {
                if let Some(bar) = &self.scope(name).bar {
                    bar.set_message(phase.to_owned());
                }
            }
        }
    }

    fn expect(&self, name: &str, _: Option<u64>, bytes: Option<u64>) {
        let scope = self.scope(name);
        scope.expected_bytes.store(bytes.unwrap_or(0), Ordering::Relaxed);
        if let (Some(bar), Some(bytes)) = (&scope.bar, bytes) {
            bar.set_length(bytes);
            bar.set_style(style(WITH_TOTAL));
        }
    }

    fn advance(&self, name: &str, entries: u64, bytes: u64) {
        if self.style == Style::Nothing {
            return;
        }
        let scope = self.scope(name);
        scope.entries.fetch_add(entries, Ordering::Relaxed);
        scope.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(bar) = &scope.bar {
            bar.inc(bytes);
        } else if self.line_is_due(&scope) {
            self.say(&self.line(name, &scope));
        }
    }

    fn problem(&self, name: &str, fault: &Fault) {
        // Also with `--quiet`: something failed.
        let code = fault.code().id;
        self.say(&format!("{name}: error[{code}]: {}", fault.chain()));
    }
}
