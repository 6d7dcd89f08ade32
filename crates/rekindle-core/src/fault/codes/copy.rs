//! Codes of copies: further repositories that hold the same points.

codes! {
    COPY_SOURCE = "RK-CP-001", Damaged, Never, "a point cannot be copied: the repository it is in has lost something";
    COPY_FAR = "RK-CP-002", Damaged, Backoff, "the copy does not hold what was written into it";
    COPY_UNKNOWN = "RK-CP-003", Usage, AfterFix, "no such copy is configured";
    COPY_SAME = "RK-CP-004", Config, AfterFix, "the copy is the repository itself";
    COPY_BEHIND = "RK-CP-005", Negative, AfterFix, "a copy is further behind than its schedule allows";
}
