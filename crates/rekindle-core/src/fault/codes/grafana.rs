//! Codes of Grafana.

codes! {
    GRAFANA_CONNECT = "RK-GR-001", Unreachable, Backoff, "Grafana cannot be reached";
    GRAFANA_AUTH = "RK-GR-002", Unreachable, AfterFix, "Grafana refuses the login";
    GRAFANA_TLS = "RK-GR-003", Unreachable, AfterFix, "TLS with Grafana could not be agreed on";
    GRAFANA_ANSWER = "RK-GR-004", Failed, Backoff, "Grafana gave an unexpected answer";
    GRAFANA_CONFIG = "RK-GR-005", Config, AfterFix, "the configuration of Grafana cannot be read";
    GRAFANA_OTHER_DATABASE = "RK-GR-006", Config, AfterFix, "Grafana keeps its data in another database server";
    GRAFANA_DATABASE = "RK-GR-007", Unreachable, AfterFix, "the database of Grafana cannot be read";
    GRAFANA_DAMAGED = "RK-GR-008", Failed, AfterFix, "the database of Grafana is damaged";
    GRAFANA_STAGE = "RK-GR-009", Failed, AfterFix, "there is no room or right to stage the database";
    GRAFANA_FILES = "RK-GR-010", Unreachable, AfterFix, "a file of Grafana cannot be read";
    GRAFANA_TARGET_NOT_EMPTY = "RK-GR-011", Refused, AfterFix, "the target holds data already";
    GRAFANA_TARGET_RUNNING = "RK-GR-012", Refused, AfterFix, "a server uses the target database";
    GRAFANA_TARGET = "RK-GR-013", Failed, AfterFix, "the target directory cannot be used";
    GRAFANA_VERSION = "RK-GR-014", Refused, AfterFix, "the installed Grafana is another version";
}
