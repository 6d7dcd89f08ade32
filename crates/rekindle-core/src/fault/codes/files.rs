//! Codes of file trees.

codes! {
    FILES_ROOT = "RK-FS-001", Unreachable, AfterFix, "a configured path cannot be read";
    FILES_PATTERN = "RK-FS-002", Config, AfterFix, "an exclude pattern is not valid";
    FILES_READ = "RK-FS-003", Failed, AfterFix, "a file could not be read";
    FILES_TARGET_NOT_EMPTY = "RK-FS-004", Refused, AfterFix, "the target directory is not empty";
    FILES_TARGET = "RK-FS-005", Failed, AfterFix, "the target directory cannot be used";
    FILES_SWAP = "RK-FS-006", Failed, AfterFix, "the restored tree could not take the place of the old one";
    FILES_CHECK = "RK-FS-007", Negative, Never, "restored files differ from the manifest";
    FILES_LAYOUT = "RK-FS-008", Failed, Never, "the stored layout does not fit the configured paths";
    FILES_PATH = "RK-FS-009", Config, AfterFix, "a configured path is not usable";
    FILES_SELECT = "RK-FS-010", Usage, AfterFix, "a selected path is not in the recovery point";
    FILES_SPACE = "RK-FS-011", Refused, AfterFix, "there is not enough room at the target";
    FILES_INCOMPLETE = "RK-FS-012", Refused, AfterFix, "not every file could be restored, so nothing was swapped";
}
