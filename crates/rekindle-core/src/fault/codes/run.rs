//! Codes of a run as a whole.

codes! {
    /// SIGINT.
    RUN_INTERRUPTED = "RK-RUN-001", Interrupted, Never, "the run was interrupted";
    /// SIGTERM or a deadline.
    RUN_TERMINATED = "RK-RUN-002", Terminated, Never, "the run was terminated";
    /// A part stopped because another part failed.
    RUN_SIBLING = "RK-RUN-003", Failed, Never, "stopped because another part of the run failed";
    /// A broken invariant of our own.
    RUN_BUG = "RK-RUN-004", Bug, Never, "an internal invariant is broken";
}
