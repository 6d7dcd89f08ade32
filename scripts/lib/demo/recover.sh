# shellcheck shell=bash
# The demo's second half: PostgreSQL by base backup and log, everything lost, and back to a chosen second. Sourced,
# never run.

# From now on the cluster is saved as a whole, and every commit is in the repository about a second later.
keep_log() {
    cat >>"$WORK/rekindle.toml" <<EOF
[component.cluster]
kind = "postgres"
method = "physical"
wal = "stream"
url = "postgres://postgres@127.0.0.1:$PG_PORT/shop"
password = "file:$WORK/pg-password"
data-dir = "$WORK/postgres/data"
bin-dir = "$PG_BIN"
objective = { rto = "10m" }
checks = ["SELECT count(*) > 0 FROM orders"]
EOF
    "$BINARY" --config "$WORK/rekindle.toml" wal stream cluster --no-backup >"$WORK/receiver.log" 2>&1 &
    RECEIVER_PID=$!
    local tries=0
    until [ "$(query shop -At -c 'SELECT count(*) FROM pg_replication_slots WHERE active')" = 1 ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || die "the receiver does not connect; see $WORK/receiver.log"
        sleep 0.1
    done
    rekindle backup
}

stop_receiver() {
    [ -n "${RECEIVER_PID:-}" ] || return 0
    kill -KILL "$RECEIVER_PID" 2>/dev/null || true
    wait "$RECEIVER_PID" 2>/dev/null || true
    RECEIVER_PID=
}

# Waits until the repository holds everything that was committed.
received() {
    local wanted tries=0
    wanted=$(query shop -At -c 'SELECT pg_current_wal_flush_lsn()')
    until [ "$(query shop -At -c "SELECT coalesce(min(flush_lsn), '0/0') >= '$wanted' FROM pg_stat_replication")" = t ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || die "the log does not reach $wanted; see $WORK/receiver.log"
        sleep 0.1
    done
}

# The stack goes on: rows that are in no backup, only in the log; then the moment, then what must not come back.
change_stack() {
    query shop -c "INSERT INTO made_before_the_moment SELECT generate_series(1, 1000)" >/dev/null
    fingerprints before
    sleep 1.1
    MOMENT=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    sleep 1.1
    query shop -c "CREATE TABLE made_after_the_moment (n int); DROP TABLE made_before_the_moment" >/dev/null
    redis set made:after:the:moment 1 >/dev/null
    echo later >"$WORK/files/made-after-the-moment"
    rekindle backup
    received
    say "1000 rows are in no backup, only in the log; a later point holds what came after $MOMENT"
}

# The base backup and the log behind it, replayed to its end in a sandbox beside the running server.
drill_cluster() {
    rekindle drill cluster
    [ -z "$(ls -A "$WORK/sandboxes")" ] || die "the drill left something behind"
}

# Nothing is left but the repository, its key, and the secrets of the servers.
destroy_all() {
    stop_receiver
    destroy
    rm -f -- "$WORK/rekindle.toml"
    say "removed the configuration as well"
}

recover_all() {
    mkdir -p "$WORK/bare" "$WORK/postgres"
    if [ "$(id -u)" -eq 0 ]; then chown postgres "$WORK/postgres"; fi
    local bare=(env -i "PATH=$PATH" "HOME=$WORK/bare" "XDG_STATE_HOME=$WORK/bare/state" "$BINARY" --no-progress recover
        --from "file://$WORK/repository" --password-file "$WORK/repository-key" --at "$MOMENT"
        --only cluster --only cache --only files --only settings --only metrics --only dashboards)
    "${bare[@]}" --dry-run
    "${bare[@]}"
    [ -f "$WORK/rekindle.toml" ] || die "the configuration is not back"
    run_postgres
    start_redis
    start_prometheus
}

compare_recovered() {
    compare
    [ ! -e "$WORK/files/made-after-the-moment" ] || die "a file that is younger than the moment came back"
    [ "$(query shop -At -c 'SELECT count(*) FROM made_before_the_moment')" = 1000 ] || die "rows of the log are missing"
    say "PostgreSQL stands exactly at $MOMENT: 1000 rows of the log are there, what came later is not"
}
