# shellcheck shell=bash
# Words on the terminal and a place for temporary files. Sourced, never run.

# One line of progress. Everything goes to stderr: stdout belongs to the caller.
say() { printf '%s: %s\n' "${SETUP:-setup}" "$*" >&2; }

# A line nobody should overlook; the set-up goes on.
warn() { printf '\n%s: WARNING: %s\n\n' "${SETUP:-setup}" "$*" >&2; }

die() {
    printf '%s: error: %s\n' "${SETUP:-setup}" "$*" >&2
    exit 1
}

# Clean-up commands, run in reverse order however the script ends.
CLEANUP=()
at_exit() { CLEANUP+=("$*"); }
run_cleanup() {
    local i
    for ((i = ${#CLEANUP[@]} - 1; i >= 0; i--)); do eval "${CLEANUP[i]}" || true; done
}
trap run_cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command as root, asking sudo only when we are not root.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        die "root is needed for: $* (run this as root, or install sudo)"
    fi
}

# Runs a command silently; shows all it said when it fails.
quietly() {
    local log
    log=$(mktemp)
    if "$@" >"$log" 2>&1 </dev/null; then
        rm -f -- "$log"
    else
        local rc=$?
        cat -- "$log" >&2
        rm -f -- "$log"
        return "$rc"
    fi
}
