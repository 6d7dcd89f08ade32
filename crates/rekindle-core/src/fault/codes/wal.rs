//! Codes of the WAL log.

codes! {
    WAL_CONFLICT = "RK-WA-001", Refused, Never, "other WAL is stored under this name already";
    WAL_OTHER_CLUSTER = "RK-WA-002", Refused, AfterFix, "the WAL belongs to another cluster";
    WAL_NOT_WAL = "RK-WA-003", Refused, AfterFix, "this is not the WAL file that its name says";
    WAL_DAMAGED = "RK-WA-004", Damaged, Never, "an object of the WAL log is damaged";
    WAL_ABSENT = "RK-WA-005", Failed, Never, "the WAL log does not hold this file";
    WAL_GAP = "RK-WA-006", Negative, Never, "WAL is missing";
    WAL_STREAM = "RK-WA-007", Failed, Backoff, "the WAL stream of the server cannot be used";
    WAL_SLOT_BUSY = "RK-WA-008", Locked, Backoff, "another receiver uses the replication slot";
    WAL_SLOT_LOST = "RK-WA-009", Failed, AfterFix, "the server dropped WAL before it was received";
    WAL_FILE = "RK-WA-010", Failed, AfterFix, "a WAL file cannot be read or written on this host";
    WAL_RETENTION = "RK-WA-011", Refused, AfterFix, "WAL is not removed: what is needed is in doubt";
    WAL_HOLD = "RK-WA-012", Failed, Backoff, "a hold on the WAL log is gone";
    WAL_HISTORY = "RK-WA-013", Damaged, Never, "the history of a timeline is missing or damaged";
    WAL_UNBOUND = "RK-WA-014", Failed, AfterFix, "no WAL of this component is in the repository yet";
}
