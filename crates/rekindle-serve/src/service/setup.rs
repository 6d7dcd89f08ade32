//! What the service is told by the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rekindle_core::ComponentId;
use rekindle_core::objective::Objective;
use rekindle_core::port::Clock;
use rekindle_core::schedule::{Job, Rules, Task};
use tokio::sync::watch;

use crate::child::{Launcher, stopped};
use crate::notify::Receiver;
use crate::systemd::Manager;

/// The verbs of a task with its components.
pub type Steps = Box<dyn Fn(Task, &[ComponentId]) -> Vec<Vec<String>> + Send + Sync>;

/// Room on the file system of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeSpace {
    pub free_bytes: u64,
    pub total_bytes: u64,
}

/// Everything the service has to know.
pub struct Setup {
    pub stack: String,
    pub host: String,
    pub version: String,
    pub rules: Rules,
    pub jobs: Vec<Job>,
    pub objectives: Vec<(ComponentId, Objective)>,
    pub launcher: Launcher,
    pub steps: Steps,
    /// Components whose write-ahead log is received all the time.
    pub streams: Vec<ComponentId>,
    pub listen: Option<SocketAddr>,
    pub textfile: Option<PathBuf>,
    /// How long running work may go on after the request to stop.
    pub grace: Duration,
    /// Share of the file system that has to be free, in percent.
    pub min_free_percent: u8,
    pub free_space: Box<dyn Fn() -> Option<FreeSpace> + Send + Sync>,
    pub receivers: Vec<Receiver>,
    /// Receivers that want a digest, with the times they want it at.
    pub digests: Vec<(String, rekindle_core::schedule::Schedule)>,
    pub manager: Manager,
    pub clock: Arc<dyn Clock>,
    pub random: fn() -> u32,
}

/// The request to stop.
#[derive(Debug, Clone)]
pub struct Stop(pub watch::Receiver<bool>);

impl Stop {
    /// Ends when it was asked.
    pub async fn asked(&mut self) {
        stopped(&mut self.0).await;
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }
}
