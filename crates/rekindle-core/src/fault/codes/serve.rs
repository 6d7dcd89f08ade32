//! Codes of the service.

codes! {
    SERVE_CHILD = "RK-SV-001", Failed, Backoff, "a run of the service did not end by itself";
    SERVE_LISTEN = "RK-SV-002", Failed, AfterFix, "the port for metrics cannot be opened";
    SERVE_TEXTFILE = "RK-SV-003", Failed, AfterFix, "the metrics could not be written";
    SERVE_LEFT_OVER = "RK-SV-004", Locked, AfterFix, "a run of an earlier service does not end";
    SERVE_NOTIFY = "RK-SV-005", Negative, AfterFix, "a message did not arrive";
    SERVE_INSTALL = "RK-SV-006", Failed, AfterFix, "units or crontab lines could not be written";
    SERVE_NO_JOB = "RK-SV-007", Config, AfterFix, "nothing is scheduled";
}
