//! Codes of the command line.

codes! {
    CLI_USAGE = "RK-CL-001", Usage, AfterFix, "the command line is wrong";
    CLI_OUTPUT = "RK-CL-002", Failed, AfterFix, "the output could not be written";
    CLI_DOCTOR = "RK-CL-003", Negative, AfterFix, "doctor found problems";
}
