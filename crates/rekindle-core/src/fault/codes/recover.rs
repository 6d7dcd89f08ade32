//! Codes of recovery: the tripwire, whole stacks, bare machines, the kit.

codes! {
    RECOVER_SUSPICIOUS = "RK-RC-001", Negative, AfterFix, "the newest point is suspicious";
    RECOVER_UNFINISHED = "RK-RC-002", Refused, AfterFix, "an earlier recovery is not finished";
    RECOVER_NOTHING = "RK-RC-003", Usage, AfterFix, "there is nothing to recover from";
    RECOVER_OCCUPIED = "RK-RC-004", Refused, AfterFix, "something stands where the stack is to be recovered";
    RECOVER_JOURNAL = "RK-RC-005", Failed, AfterFix, "the journal of a recovery cannot be used";
    RECOVER_CHECK = "RK-RC-006", Negative, AfterFix, "a recovered component is not what the point holds";
    RECOVER_NEEDS = "RK-RC-007", Unreachable, AfterFix, "this host lacks what the recovery needs";
    RECOVER_START = "RK-RC-009", Failed, AfterFix, "a service did not start";
    RECOVER_CONFIG = "RK-RC-010", Config, AfterFix, "the configuration in the point cannot be used";
    KIT_SHARES = "RK-KT-001", Usage, AfterFix, "the shares do not give a key";
    KIT_FILE = "RK-KT-002", Failed, AfterFix, "a file of the kit cannot be read or written";
    KIT_EXISTS = "RK-KT-003", Refused, AfterFix, "a kit stands there already";
}
