//! Codes of the repository (`rekindle-repo`).

codes! {
    REPO_ABSENT = "RK-RP-001", NoRepository, AfterFix, "there is no repository at this place";
    REPO_EXISTS = "RK-RP-002", Refused, Never, "there is already a repository at this place";
    REPO_WRONG_KEY = "RK-RP-003", WrongKey, AfterFix, "the key does not open the repository";
    REPO_LOCKED = "RK-RP-004", Locked, Backoff, "the repository is locked by another run";
    REPO_DAMAGED = "RK-RP-005", Damaged, Never, "an object of the repository is damaged";
    REPO_VERSION = "RK-RP-006", NoRepository, AfterFix, "the repository has an unsupported format version";
    REPO_ORDER = "RK-RP-007", Bug, Never, "a source gave its entries in the wrong order";
    REPO_NO_POINT = "RK-RP-008", Usage, AfterFix, "there is no such recovery point";
    REPO_LOST_LOCK = "RK-RP-009", Locked, Backoff, "the lock of this run was removed or expired";
    REPO_MANIFEST = "RK-RP-010", Damaged, Never, "the manifest of a point cannot be read";
    REPO_NO_ENTRY = "RK-RP-011", Usage, AfterFix, "there is no such path in the recovery point";
    REPO_RESTORE_INCOMPLETE = "RK-RP-012", Damaged, Never, "some entries could not be restored";
    REPO_TARGET_IO = "RK-RP-013", Failed, AfterFix, "the restore target reported an I/O error";
    REPO_TARGET_FULL = "RK-RP-014", Failed, AfterFix, "the restore target has no space left";
    REPO_LEDGER = "RK-RP-015", Damaged, Never, "the ledger of points does not fit the repository";
    REPO_PRUNE_REFUSED = "RK-RP-016", Refused, AfterFix, "prune refused: the view of the repository is doubtful";
    REPO_ENGINE = "RK-RP-017", Failed, AfterFix, "the repository engine reported an error";
    REPO_UNSAFE_NAME = "RK-RP-018", Refused, Never, "a stored name would leave the restore target";
    REPO_PROOFS = "RK-RP-020", Damaged, Never, "the chain of proofs was changed";
    REPO_AUDIT = "RK-RP-021", Damaged, Never, "the audit log was changed";
    REPO_WEAK_PASSWORD = "RK-RP-030", Refused, AfterFix, "the repository password is too weak";
    REPO_UNFIT_STORE = "RK-RP-031", Refused, AfterFix, "the storage does not keep what a repository needs";
    REPO_KEY_IN_USE = "RK-RP-032", Refused, AfterFix, "this key must not be removed";
    REPO_NO_KEY = "RK-RP-033", Usage, AfterFix, "there is no such key";
    REPO_RECORDS_THERE = "RK-RP-034", Refused, AfterFix, "the signed records are not to be begun anew";
}
