//! Codes of containers.

codes! {
    CT_SOCKET = "RK-CT-001", Unreachable, AfterFix, "the container engine cannot be reached";
    CT_ABSENT = "RK-CT-002", Unreachable, AfterFix, "there is no such container";
    CT_STOPPED = "RK-CT-003", Unreachable, AfterFix, "the container does not run";
    CT_EXEC = "RK-CT-004", Failed, Backoff, "a program inside a container did not run to its end";
    CT_VOLUME = "RK-CT-005", Failed, AfterFix, "a path of a container cannot be reached from this host";
    CT_COMPOSE = "RK-CT-006", Config, AfterFix, "the compose file cannot be used";
    CT_SERVICE = "RK-CT-007", Failed, AfterFix, "a service could not be stopped or started";
    CT_UNHEALTHY = "RK-CT-008", Negative, AfterFix, "a service did not become healthy";
    CT_ANSWER = "RK-CT-009", Failed, Backoff, "the container engine answered with an error";
}
