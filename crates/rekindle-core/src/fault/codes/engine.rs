//! Codes of the use cases.

codes! {
    ENGINE_MISMATCH = "RK-EN-001", Failed, Backoff, "the repository holds something else than the source gave";
    ENGINE_NOTHING = "RK-EN-002", Failed, AfterFix, "no component could be captured, so there is no point";
    ENGINE_PARTIAL = "RK-EN-003", Partial, AfterFix, "the point is partial";
    ENGINE_HOOK = "RK-EN-004", Failed, AfterFix, "a hook failed";
    ENGINE_SOFT_SKIP = "RK-EN-005", SoftSkip, Never, "a hook asked to skip the run";
    ENGINE_RUNNING = "RK-EN-006", Locked, Backoff, "another run of this stack is active";
    ENGINE_VERIFY = "RK-EN-007", Damaged, Never, "verification found damage";
    ENGINE_NO_COMPONENT = "RK-EN-008", Usage, AfterFix, "there is no such component";
    ENGINE_OBJECTIVE = "RK-EN-009", Negative, AfterFix, "an objective is missed";
    ENGINE_KEEP = "RK-EN-010", Refused, AfterFix, "retention refused to remove these points";
    ENGINE_STATE = "RK-EN-011", Failed, AfterFix, "the state directory cannot be used";
    ENGINE_CHECK = "RK-EN-014", Negative, Never, "what was restored is not what the point holds";
    ENGINE_SAFETY = "RK-EN-013", Refused, AfterFix, "the safety point before a restore in place could not be taken";
    ENGINE_TARGET = "RK-EN-012", Usage, AfterFix, "the restore target does not fit the component";
    ENGINE_MAINTENANCE = "RK-EN-015", Negative, AfterFix, "a task of the maintenance is not as it should be";
    ENGINE_WAITS = "RK-EN-016", SoftSkip, Never, "the same run waits already";
    ENGINE_ROLLED_BACK = "RK-EN-020", Negative, AfterFix, "the restore was rolled back to the state before";
    ENGINE_ROLL_BACK = "RK-EN-021", Failed, AfterFix, "the state before could not be brought back by itself";
}
