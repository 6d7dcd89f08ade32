//! Codes of object storage (`rekindle-store`).

codes! {
    STORE_URL = "RK-ST-001", Config, AfterFix, "the repository URL is not usable";
    STORE_UNREACHABLE = "RK-ST-002", Unreachable, Backoff, "the storage cannot be reached";
    STORE_DENIED = "RK-ST-003", Unreachable, AfterFix, "the storage refuses the credentials or the operation";
    STORE_NOT_FOUND = "RK-ST-004", Damaged, Never, "an object is missing from the storage";
    STORE_EXISTS = "RK-ST-005", Failed, Never, "an object exists already with other content";
    STORE_FULL = "RK-ST-006", Failed, AfterFix, "the storage has no space left";
    STORE_TIMEOUT = "RK-ST-007", Unreachable, Backoff, "the storage did not answer in time";
    STORE_SHORT = "RK-ST-008", Damaged, Backoff, "the storage gave another number of bytes than it holds";
    STORE_LIST = "RK-ST-009", Unreachable, Backoff, "the storage could not be listed completely";
    STORE_IO = "RK-ST-010", Failed, AfterFix, "the local storage reported an I/O error";
    STORE_SERVER = "RK-ST-011", Unreachable, Backoff, "the storage answered with an error of its own";
    STORE_KEY = "RK-ST-012", Failed, Never, "the name of an object is not usable";
    STORE_CREDENTIALS = "RK-ST-013", Config, AfterFix, "the credentials for the storage are missing or incomplete";
    STORE_ROOT = "RK-ST-014", NoRepository, AfterFix, "the place of the repository does not exist";
    STORE_TLS = "RK-ST-015", Unreachable, AfterFix, "the certificate of the storage is not trusted";
    STORE_CHANGED = "RK-ST-016", Damaged, Never, "the storage gave other bytes back than were written";
    STORE_RETENTION = "RK-ST-017", Unreachable, AfterFix, "the retention of an object could not be extended";
}
