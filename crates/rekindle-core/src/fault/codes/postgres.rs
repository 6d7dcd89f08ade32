//! Codes of PostgreSQL.

codes! {
    PG_CONNECT = "RK-PG-001", Unreachable, Backoff, "PostgreSQL cannot be reached";
    PG_AUTH = "RK-PG-002", Unreachable, AfterFix, "PostgreSQL refuses the login";
    PG_QUERY = "RK-PG-003", Failed, AfterFix, "a query failed";
    PG_NO_PROGRAM = "RK-PG-004", Unreachable, AfterFix, "no client program of the server's major version was found";
    PG_DUMP = "RK-PG-005", Failed, AfterFix, "pg_dump failed";
    PG_TRUNCATED = "RK-PG-006", Failed, Backoff, "a dump ended too early";
    PG_EMPTY = "RK-PG-007", Failed, AfterFix, "a dump is empty or lacks tables";
    PG_RESTORE = "RK-PG-008", Failed, AfterFix, "pg_restore failed";
    PG_TARGET_EXISTS = "RK-PG-009", Refused, AfterFix, "the target database exists already";
    PG_COUNTS = "RK-PG-010", Negative, Never, "restored rows differ from the manifest";
    PG_NO_DATABASE = "RK-PG-011", Unreachable, AfterFix, "a configured database does not exist";
    PG_PRIVILEGE = "RK-PG-012", Unreachable, AfterFix, "the backup role lacks a privilege";
    PG_ROLES = "RK-PG-013", Failed, AfterFix, "roles could not be restored";
    PG_SWAP = "RK-PG-014", Failed, AfterFix, "the restored database could not take the place of the old one";
    PG_RESTARTED = "RK-PG-015", Failed, Backoff, "the server restarted during the capture";
    PG_VERSION = "RK-PG-016", Refused, AfterFix, "the server's version does not fit";
    PG_LOCKED = "RK-PG-017", Failed, Backoff, "a table stayed locked for too long";
    PG_EXTENSION = "RK-PG-018", Refused, AfterFix, "the target server lacks an extension";
    PG_DETAILS = "RK-PG-019", Damaged, Never, "the manifest's record of PostgreSQL cannot be read";
    PG_TARGET = "RK-PG-020", Usage, AfterFix, "the target of the restore does not fit PostgreSQL";
    PG_PROTOCOL = "RK-PG-030", Failed, Backoff, "the server does not speak the replication protocol as expected";
    PG_BASE = "RK-PG-031", Failed, Backoff, "a base backup is not what its manifest says";
    PG_WAL_COVER = "RK-PG-032", Failed, AfterFix, "the WAL log does not hold what a base backup needs";
    PG_REPLICATION = "RK-PG-033", Unreachable, AfterFix, "the server is not set up for base backups or WAL streaming";
    PG_SPACE = "RK-PG-021", Failed, AfterFix, "a dump could not be put on disk for its restore";
}
