//! Codes of Redis.

codes! {
    REDIS_CONNECT = "RK-RD-001", Unreachable, Backoff, "Redis cannot be reached";
    REDIS_AUTH = "RK-RD-002", Unreachable, AfterFix, "Redis refuses the login or a command";
    REDIS_PROTOCOL = "RK-RD-003", Failed, Backoff, "Redis gave an unexpected answer";
    REDIS_SYNC = "RK-RD-004", Failed, Backoff, "Redis did not start a full synchronisation";
    REDIS_TRUNCATED = "RK-RD-005", Failed, Backoff, "the RDB stream ended too early";
    REDIS_RDB = "RK-RD-006", Failed, Never, "the RDB stream is not valid";
    REDIS_CHECKSUM = "RK-RD-007", Failed, Backoff, "the RDB stream's checksum does not fit";
    REDIS_TARGET_NOT_EMPTY = "RK-RD-008", Refused, AfterFix, "the target holds data already";
    REDIS_VERSION = "RK-RD-009", Refused, AfterFix, "the target Redis is too old for this data";
    REDIS_RESTORE = "RK-RD-010", Failed, AfterFix, "keys could not be restored";
    REDIS_TARGET_RUNNING = "RK-RD-011", Refused, AfterFix, "a Redis server runs on the target directory";
    REDIS_COUNTS = "RK-RD-012", Negative, Never, "restored keys differ from the manifest";
    REDIS_LOADING = "RK-RD-013", Unreachable, Backoff, "Redis is not ready to serve";
    REDIS_TLS = "RK-RD-014", Unreachable, AfterFix, "TLS with Redis could not be agreed on";
    REDIS_TARGET = "RK-RD-015", Failed, AfterFix, "the data directory of Redis cannot be written";
}
