//! Processes that should always run: `rekindle wal stream COMPONENT`, started again when they end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rekindle_core::{ComponentId, RunId};
use tokio::sync::watch;

use crate::child::{Launcher, stopped};

/// Wait before the first new start; doubled each time.
const RESTART_FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const RESTART_MAX: Duration = Duration::from_mins(1);
/// A process that ran so long is well again.
const STEADY: Duration = Duration::from_mins(5);
/// How long it may take to end when asked to.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How one process stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    pub component: ComponentId,
    pub up: bool,
    /// Starts after the first that nobody has counted yet.
    restarts: u32,
    /// Since when it is as it is.
    pub since: jiff::Timestamp,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Streams(Arc<Mutex<Vec<StreamState>>>);

impl Streams {
    /// How they stand.
    pub fn states(&self) -> Vec<StreamState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The component of each restart since the last call.
    pub fn restarted(&self) -> Vec<ComponentId> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = |one: &mut StreamState| {
            std::iter::repeat_n(one.component.clone(), usize::try_from(std::mem::take(&mut one.restarts)).unwrap_or(0))
        };
        list.iter_mut().flat_map(times).collect()
    }

    fn set(&self, component: &ComponentId, up: bool, now: jiff::Timestamp) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match list.iter_mut().find(|one| one.component == *component) {
            Some(one) => {
                one.restarts += u32::from(up);
                (one.up, one.since) = (up, now);
            }
            None => list.push(StreamState { component: component.clone(), up, restarts: 0, since: now }),
        }
    }

    /// Keeps one process running until asked to stop.
    pub async fn supervise(
        self,
        launcher: Launcher,
        component: ComponentId,
        run: RunId,
        clock: Arc<dyn rekindle_core::port::Clock>,
        mut stop: watch::Receiver<bool>,
    ) {
        let step = ["wal".to_owned(), "stream".to_owned(), component.to_string()];
        let mut pause = RESTART_FIRST;
        while !*stop.borrow() {
            let begun = Instant::now();
            match launcher.start(&run, &step) {
                Ok(mut child) => {
                    self.set(&component, true, clock.now());
                    let input = child.stdin.take();
                    // Its answer comes at the end only; nobody reads it before.
                    let answer = child.stdout.take();
                    tokio::select! {
                        status = child.wait() => {
                            tracing::warn!(%component, ?status, "the WAL stream ended and is started again");
                        }
                        () = stopped(&mut stop) => {
                            drop(input);
                            if tokio::time::timeout(STOP_MAX, child.wait()).await.is_err() {
                                // Killed when dropped.
                                tracing::warn!(%component, "the WAL stream did not end by itself");
                            }
                        }
                    }
                    drop(answer);
                }
                Err(fault) => tracing::warn!(%component, error = %fault.chain(), "the WAL stream cannot be started"),
            }
            self.set(&component, false, clock.now());
            if begun.elapsed() > STEADY {
                pause = RESTART_FIRST;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopped(&mut stop) => {}
            }
            pause = (pause * 2).min(RESTART_MAX);
        }
    }
}
