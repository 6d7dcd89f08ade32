//! Ctrl-C and SIGTERM: the first asks to stop, the second stops.

use std::io::Write;

use rekindle_core::Cancel;
use rekindle_core::cancel::Reason;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

/// Raises `cancel` at the first signal and ends the process at the second.
pub(crate) fn watch(handle: &Handle, cancel: &Cancel) {
    for (kind, reason, code) in
        [(SignalKind::interrupt(), Reason::Interrupted, 130), (SignalKind::terminate(), Reason::Terminated, 143)]
    {
        let cancel = cancel.clone();
        handle.spawn(async move {
            let Ok(mut signals) = signal(kind) else { return };
            while signals.recv().await.is_some() {
                if cancel.is_cancelled() {
                    stop_now(code);
                }
                cancel.cancel(reason);
                let text = b"stopping; the same again stops at once\n";
                let _ = std::io::stderr().lock().write_all(text);
            }
        });
    }
}

/// Raises `cancel` when the standard input ends: whoever started this run has asked it to stop, or
/// is gone. (PR_SET_PDEATHSIG would follow the thread that started it, not the process.)
pub(crate) fn stop_at_end_of_input(cancel: &Cancel) {
    let cancel = cancel.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        cancel.cancel(Reason::Terminated);
    });
}

#[expect(clippy::exit, reason = "the second signal must work when everything else hangs")]
fn stop_now(code: i32) {
    std::process::exit(code)
}
