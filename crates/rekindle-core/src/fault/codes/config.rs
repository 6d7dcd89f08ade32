//! Codes of the configuration.

codes! {
    CONFIG_ABSENT = "RK-CF-001", Config, AfterFix, "there is no configuration file";
    CONFIG_SYNTAX = "RK-CF-002", Config, AfterFix, "the configuration is not valid TOML";
    CONFIG_UNKNOWN_KEY = "RK-CF-003", Config, AfterFix, "the configuration has an unknown key";
    CONFIG_VALUE = "RK-CF-004", Config, AfterFix, "a value of the configuration is not valid";
    CONFIG_SECRET = "RK-CF-005", Config, AfterFix, "a secret cannot be read";
    CONFIG_OBJECTIVE = "RK-CF-006", Config, AfterFix, "the schedule cannot meet the objective";
    CONFIG_EXISTS = "RK-CF-007", Refused, AfterFix, "the configuration file exists already";
}
