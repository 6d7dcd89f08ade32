# shellcheck shell=bash
# The demo's second half: a later point, everything lost, and back to the moment before it. Sourced, never run.

# The stack goes on: what is recovered must be the state before this.
change_stack() {
    MOMENT=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    sleep 1.1
    query shop -c "CREATE TABLE made_after_the_moment (n int)" >/dev/null
    redis set made:after:the:moment 1 >/dev/null
    echo later >"$WORK/files/made-after-the-moment"
    rekindle backup
    say "a later point holds a new table, a new key and a new file"
}

# Nothing is left but the repository, its key, and the secrets of the servers.
destroy_all() {
    destroy
    rm -f -- "$WORK/rekindle.toml"
    say "removed the configuration as well"
}

recover_all() {
    start_postgres
    mkdir -p "$WORK/bare"
    local bare=(env -i "PATH=$PATH" "HOME=$WORK/bare" "XDG_STATE_HOME=$WORK/bare/state" "$BINARY" --no-progress recover
        --from "file://$WORK/repository" --password-file "$WORK/repository-key" --at "$MOMENT")
    "${bare[@]}" --dry-run
    "${bare[@]}"
    [ -f "$WORK/rekindle.toml" ] || die "the configuration is not back"
    start_redis
    start_prometheus
}

compare_recovered() {
    compare
    [ ! -e "$WORK/files/made-after-the-moment" ] || die "a file that is younger than the moment came back"
}
