//! Codes of recovery to a moment.

codes! {
    PITR_TARGET = "RK-PT-001", Refused, AfterFix, "the recovery target cannot be used";
    PITR_NO_BASE = "RK-PT-002", Refused, AfterFix, "there is no base backup to recover from";
    PITR_BEFORE = "RK-PT-003", Refused, AfterFix, "the target is before everything that can be recovered";
    PITR_AFTER = "RK-PT-004", Refused, AfterFix, "the target is beyond the end of the log";
    PITR_HOLE = "RK-PT-005", Refused, AfterFix, "a segment of the log is missing before the target";
    PITR_GAP = "RK-PT-006", Refused, AfterFix, "WAL was lost before the target";
    PITR_TIMELINE = "RK-PT-007", Refused, AfterFix, "no base backup leads to that timeline";
    PITR_HISTORY = "RK-PT-008", Refused, AfterFix, "the history of a timeline is missing";
    PITR_SYSTEM = "RK-PT-009", Refused, Never, "this is another cluster";
    PITR_NOT_FOUND = "RK-PT-010", Refused, AfterFix, "the transaction or restore point is not in the log";
    PITR_PLACE = "RK-PT-011", Refused, AfterFix, "the place for the restored cluster cannot be used";
    PITR_SERVER = "RK-PT-012", Failed, AfterFix, "the recovering server failed";
    PITR_WAL = "RK-PT-013", Damaged, Never, "WAL that recovery needs could not be read";
    PITR_UNPROVED = "RK-PT-014", Negative, Never, "the recovery did not stop where it was told to";
    PITR_IO = "RK-PT-015", Failed, AfterFix, "a file of the restored cluster could not be read or written";
}
