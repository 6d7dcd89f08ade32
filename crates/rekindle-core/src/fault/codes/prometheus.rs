//! Codes of Prometheus.

codes! {
    PROM_CONNECT = "RK-PM-001", Unreachable, Backoff, "Prometheus cannot be reached";
    PROM_AUTH = "RK-PM-002", Unreachable, AfterFix, "Prometheus refuses the login";
    PROM_TLS = "RK-PM-003", Unreachable, AfterFix, "TLS with Prometheus could not be agreed on";
    PROM_ANSWER = "RK-PM-004", Failed, Backoff, "Prometheus gave an unexpected answer";
    PROM_AGENT = "RK-PM-005", Failed, AfterFix, "Prometheus runs as an agent and keeps no blocks";
    PROM_DATA_DIR = "RK-PM-006", Unreachable, AfterFix, "the data directory is not that of the server";
    PROM_SNAPSHOT = "RK-PM-007", Failed, AfterFix, "Prometheus did not make a whole snapshot";
    PROM_ADMIN_API = "RK-PM-008", Refused, AfterFix, "the admin API of Prometheus is off";
    PROM_BLOCK = "RK-PM-009", Failed, AfterFix, "a block of Prometheus is not whole";
    PROM_FILES = "RK-PM-010", Unreachable, AfterFix, "a configured file of Prometheus cannot be read";
    PROM_TARGET_NOT_EMPTY = "RK-PM-011", Refused, AfterFix, "the target directory holds data already";
    PROM_TARGET_RUNNING = "RK-PM-012", Refused, AfterFix, "a server runs on the target directory";
}
