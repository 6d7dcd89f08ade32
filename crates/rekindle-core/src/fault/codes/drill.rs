//! Codes of drills and proofs.

codes! {
    DRILL_FAILED = "RK-DR-001", Negative, Never, "a drill failed: the data did not come back as it should";
    DRILL_UNPROVED = "RK-DR-002", Negative, AfterFix, "a drill could not prove the data";
    DRILL_NO_ENGINE = "RK-DR-003", Negative, AfterFix, "the engine for a drill is not available";
    DRILL_ENGINE = "RK-DR-004", Negative, Never, "the engine did not start on the restored data";
    DRILL_TIMEOUT = "RK-DR-005", Negative, AfterFix, "a drill took longer than its limit";
    DRILL_SPACE = "RK-DR-006", Negative, AfterFix, "a drill needs more space than there is";
    DRILL_SANDBOX = "RK-DR-007", Failed, AfterFix, "the sandbox cannot be made or removed";
    PROOF_ABSENT = "RK-DR-008", Usage, AfterFix, "there is no such proof";
}
