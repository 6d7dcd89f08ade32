//! The receiver: WAL straight from the server into the log, to the second.
//!
//! One thread reads the stream and tells the server how far everything is *durable in the
//! repository*; another one ships. Between them is a short queue, so memory is bounded by one
//! segment and the queue. Nothing is kept on this host's disk: what is not durable yet is still on
//! the server, whose slot keeps it.
//!
//! After anything that goes wrong the session is given up and a new one begins where the log ends.

mod prepare;
mod resume;
mod stream;
mod watch;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rekindle_core::port::Clock;
use rekindle_core::wal::{Gap, Lsn, Owner, SlotName, Timeline, WalArchive};
use rekindle_core::{Cancel, Class, Fault, Result, codes};

use super::replication::{ReplicationOptions, server_error};

pub use watch::{ArchiverFacts, ServerFacts, SlotFacts, left_timeline, server_facts, warnings};

/// Tries to get a busy slot before a receiver that has just been started gives up.
const BUSY_TRIES_MAX: u32 = 4;
/// Sessions that end without having moved anything before a receiver gives up: the server says
/// something that makes no sense.
const IDLE_TURNS_MAX: u32 = 20;
/// As the server's own `wal_receiver_timeout`.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// How often a waiting thread looks whether it should stop.
const LOOK: Duration = Duration::from_millis(50);

/// What to receive, and how.
#[derive(Debug, Clone)]
pub struct ReceiverOptions {
    pub server: ReplicationOptions,
    pub slot: SlotName,
    /// An open segment is shipped this long after its first new byte, at the latest.
    pub tail_every: Duration,
    /// Or when so many new bytes are there.
    pub tail_bytes: u32,
    /// The server hears of us at least this often; it hangs up after `wal_sender_timeout`.
    pub status_every: Duration,
    /// A session ends when no whole message came for so long, although one was asked for.
    pub silence_max: Duration,
    /// How often the server is asked about the slot and its disk.
    pub watch_every: Duration,
    /// Pause after a failure; doubles up to the longest.
    pub pause_first: Duration,
    pub pause_max: Duration,
}

impl ReceiverOptions {
    /// The defaults for a server and a slot.
    pub fn new(server: ReplicationOptions, slot: SlotName) -> Self {
        Self {
            server,
            slot,
            tail_every: Duration::from_secs(1),
            tail_bytes: 1 << 20,
            status_every: Duration::from_secs(10),
            silence_max: SILENCE_MAX,
            watch_every: Duration::from_secs(30),
            pause_first: Duration::from_millis(250),
            pause_max: Duration::from_secs(30),
        }
    }
}

/// Who is told how it goes. Called from several threads; must not block for long.
pub trait Listener: Send + Sync {
    /// A stream has begun.
    fn streaming(&self, timeline: Timeline, from: Lsn);
    /// Everything before this position is durable in the repository.
    fn durable(&self, upto: Lsn);
    /// WAL was lost, and recorded as lost: only a new base backup makes later moments recoverable.
    fn gap(&self, gap: &Gap);
    /// A session failed; another one begins by itself.
    fn problem(&self, fault: &Fault);
    /// Somebody should know.
    fn warning(&self, text: &str);
}

/// Receives the WAL of one server into the log of one component.
pub struct Receiver {
    pub options: ReceiverOptions,
    pub archive: Arc<dyn WalArchive>,
    pub owner: Owner,
    pub listener: Arc<dyn Listener>,
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("owner", &self.owner).field("options", &self.options).finish_non_exhaustive()
    }
}

/// How a session ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Somebody asked for it; everything received is durable.
    Stopped,
    /// There is something to go on with at once: the next timeline, a new slot.
    Again,
}

/// What sessions leave behind for the next one.
#[derive(Debug, Default)]
struct Memory {
    /// A stream has been running in this process.
    served: bool,
    /// The last session moved something.
    moved: bool,
    /// What was said last about timelines: once is enough.
    warned: Option<String>,
}

impl Receiver {
    /// Receives until `cancel` is raised; then everything received is shipped first. Blocking.
    ///
    /// `Err` when going on makes no sense or is not safe: another cluster, a conflict, damage, no
    /// right to the server, another receiver on the slot.
    pub fn run(&self, cancel: &Cancel) -> Result<()> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| watch::watch(self, &over));
            let result = self.sessions(cancel);
            over.store(true, Ordering::Relaxed);
            result
        })
    }

    /// How the server is reached: nothing that it is asked before a stream takes long.
    fn impatient(&self) -> ReplicationOptions {
        let longest = self.options.silence_max;
        let mut server = self.options.server.clone();
        server.connect_timeout = server.connect_timeout.min(longest);
        server.idle_timeout = server.idle_timeout.min(longest);
        server
    }

    fn sessions(&self, cancel: &Cancel) -> Result<()> {
        let mut memory = Memory::default();
        let (mut failures, mut idle) = (0_u32, 0_u32);
        loop {
            memory.moved = false;
            let ended = prepare::session(self, cancel, &mut memory);
            if memory.moved {
                (failures, idle) = (0, 0);
            }
            match ended {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(Ended::Again) if idle < IDLE_TURNS_MAX => idle += 1,
                Ok(Ended::Again) => {
                    return Err(Fault::new(codes::WAL_STREAM, "receive WAL")
                        .because("the server starts and ends streams without sending anything")
                        .hint("look at the server's log"));
                }
                Err(_) if cancel.is_cancelled() => return Ok(()),
                Err(fault) if is_final(&fault, &memory, failures) => return Err(fault),
                Err(fault) => {
                    self.listener.problem(&fault);
                    let doubled = self.options.pause_first.saturating_mul(2_u32.saturating_pow(failures));
                    pause(doubled.min(self.options.pause_max), || cancel.is_cancelled());
                    failures = failures.saturating_add(1);
                }
            }
        }
    }
}

/// Whether a new session would fail in the same way, or must not be tried.
fn is_final(fault: &Fault, memory: &Memory, failures: u32) -> bool {
    if fault.is(codes::WAL_SLOT_BUSY) {
        // Our own connection that broke may take `wal_sender_timeout` to be noticed.
        return !memory.served && failures >= BUSY_TRIES_MAX;
    }
    let never = [
        codes::WAL_CONFLICT,
        codes::WAL_OTHER_CLUSTER,
        codes::WAL_DAMAGED,
        codes::WAL_NOT_WAL,
        codes::PG_VERSION,
        codes::RUN_BUG,
    ];
    let by_class = matches!(fault.class(), Class::Config | Class::WrongKey | Class::NoRepository | Class::Bug);
    let at_first = [codes::PG_AUTH, codes::PG_PRIVILEGE, codes::PG_REPLICATION];
    let denied = !memory.served && at_first.iter().any(|code| fault.is(code));
    // A repository on a disk that is not mounted for a while is waited for, once it was there.
    let waited_for = memory.served && fault.class() == Class::NoRepository;
    (never.iter().any(|code| fault.is(code)) || by_class || denied) && !waited_for
}

/// Puts our own code on what the server says about slots.
fn slot_fault(fault: Fault, slot: &SlotName) -> Fault {
    let busy = server_error(&fault).is_some_and(super::replication::ServerError::is_in_use);
    if !busy {
        return fault;
    }
    Fault::new(codes::WAL_SLOT_BUSY, format!("use the replication slot `{slot}`")).because(fault.chain()).hint(
        "stop the other receiver (SELECT active_pid FROM pg_replication_slots), or give this component another `slot`",
    )
}

/// Waits, but not longer than somebody wants.
fn pause(longest: Duration, stop: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < longest && !stop() {
        thread::sleep(LOOK.min(longest));
    }
}
