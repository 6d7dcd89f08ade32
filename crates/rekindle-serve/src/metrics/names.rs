//! The names of all metrics. Alert rules, the dashboard and the documentation use these and are
//! compared with them by tests.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    /// Its samples end in `_total`.
    Counter,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// With `_total` for counters.
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:ident, $help:literal;)*) => {
        $(pub const $constant: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };)*
        /// Every metric, in the order of the output.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    UP = "rekindle_up", Gauge, "1 while the program tells about itself.";
    BUILD = "rekindle_build_info", Gauge, "1, labelled with the version.";
    WRITTEN = "rekindle_metrics_timestamp_seconds", Gauge, "When these metrics were put together.";
    ATTEMPT_TIME = "rekindle_last_attempt_timestamp_seconds", Gauge, "When the newest run that has ended was started.";
    ATTEMPT_GOOD = "rekindle_last_attempt_success", Gauge, "Whether the newest run that has ended was good.";
    SUCCESS_TIME = "rekindle_last_success_timestamp_seconds", Gauge, "The moment the newest good result stands for.";
    DURATION = "rekindle_run_duration_seconds", Gauge, "How long the newest run that has ended took.";
    INTERVAL = "rekindle_schedule_interval_seconds", Gauge, "The longest time between two occurrences of the schedule.";
    OVERDUE = "rekindle_overdue", Gauge, "Whether a good result is missing for longer than the schedule allows.";
    RUNNING = "rekindle_running", Gauge, "Whether it runs now.";
    QUEUED = "rekindle_queued", Gauge, "Whether it is due and waits.";
    RUNS = "rekindle_runs_total", Counter, "Runs that have ended, by result.";
    MISSED = "rekindle_missed_occurrences_total", Counter, "Occurrences without a run of their own, because the service was down or the run before took too long.";
    DATA_TIME = "rekindle_data_timestamp_seconds", Gauge, "The newest moment that can be restored from the repository.";
    DATA_BYTES = "rekindle_data_bytes", Gauge, "Bytes of the newest complete capture.";
    STORED_BYTES = "rekindle_stored_bytes", Gauge, "Bytes that the newest good backup added to the repository.";
    VERDICT = "rekindle_objective_verdict", Gauge, "0 met, 1 at risk, 2 missed.";
    RPO_TARGET = "rekindle_rpo_target_seconds", Gauge, "Greatest acceptable age of the newest capture.";
    RPO_CURRENT = "rekindle_rpo_current_seconds", Gauge, "Age of the newest moment that can be restored.";
    RTO_TARGET = "rekindle_rto_target_seconds", Gauge, "Greatest acceptable duration of a restore.";
    RTO_MEASURED = "rekindle_rto_measured_seconds", Gauge, "Duration of the newest proved restore.";
    PROOF_TARGET = "rekindle_proof_target_seconds", Gauge, "Greatest acceptable age of the newest proof.";
    PROOF_TIME = "rekindle_last_proof_timestamp_seconds", Gauge, "When a restore was last proved.";
    POINTS = "rekindle_points", Gauge, "Recovery points of this stack.";
    NEWEST_COMPLETE = "rekindle_newest_point_complete", Gauge, "Whether the newest point holds everything that was asked for.";
    REPOSITORY_READ = "rekindle_repository_read_timestamp_seconds", Gauge, "When the repository was last read.";
    REPOSITORY_REACHABLE = "rekindle_repository_reachable", Gauge, "Whether the newest look at the repository worked.";
    REPOSITORY_FREE = "rekindle_repository_free_bytes", Gauge, "Room left on the file system of the repository.";
    COPY_LAG = "rekindle_copy_lag_seconds", Gauge, "Age of the oldest point or piece of the log that the copy does not have yet; 0: it has everything.";
    COPY_DATA_TIME = "rekindle_copy_data_timestamp_seconds", Gauge, "The newest point in the copy.";
    COPY_POINTS = "rekindle_copy_points", Gauge, "Points in the copy.";
    COPY_REACHABLE = "rekindle_copy_reachable", Gauge, "Whether the newest look at the copy worked.";
    COPY_OVERDUE = "rekindle_copy_overdue", Gauge, "Whether the copy is further behind than its schedule allows.";
    WAL_LAG = "rekindle_wal_lag_seconds", Gauge, "Age of the newest commit that the kept write-ahead log brings back.";
    WAL_UP = "rekindle_wal_stream_up", Gauge, "Whether the process that receives the write-ahead log runs.";
    WAL_RESTARTS = "rekindle_wal_stream_restarts_total", Counter, "How often that process had to be started again.";
    NOTIFICATIONS = "rekindle_notifications_total", Counter, "Messages, by receiver and result.";
    NOTIFICATIONS_WAITING = "rekindle_notifications_waiting", Gauge, "Messages that have not arrived yet.";
}
