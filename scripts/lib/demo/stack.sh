# shellcheck shell=bash
# The demo's private stack: PostgreSQL, Redis and a file tree below $WORK. Sourced, never run.

PG_BIN=/usr/lib/postgresql/15/bin
PG_PASSWORD=demo-postgres-password
REDIS_PASSWORD=demo-redis-password

# PostgreSQL refuses to run as root.
as_postgres() {
    if [ "$(id -u)" -eq 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

free_port() {
    perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport'
}

query() { # database, then psql's arguments
    PGPASSWORD=$PG_PASSWORD psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$PG_PORT" -U postgres -d "$@"
}

start_postgres() {
    local data=$WORK/postgres/data
    mkdir -p "$WORK/postgres"
    printf '%s' "$PG_PASSWORD" >"$WORK/postgres/password"
    if [ "$(id -u)" -eq 0 ]; then chown -R postgres "$WORK/postgres"; fi
    as_postgres "$PG_BIN/initdb" -D "$data" -U postgres -A scram-sha-256 -E UTF8 --locale=C.UTF-8 \
        --pwfile="$WORK/postgres/password" >"$WORK/initdb.log"
    run_postgres
}

# Starts the server on the cluster that is there.
run_postgres() {
    local data=$WORK/postgres/data
    as_postgres "$PG_BIN/pg_ctl" -D "$data" -l "$WORK/postgres/log" -w start \
        -o "-c port=$PG_PORT -c listen_addresses=127.0.0.1 -c unix_socket_directories=" >/dev/null
}

stop_postgres() {
    [ ! -f "$WORK/postgres/data/postmaster.pid" ] ||
        as_postgres "$PG_BIN/pg_ctl" -D "$WORK/postgres/data" -m immediate -w stop >/dev/null
}

fill_postgres() {
    query postgres -f "$DEMO/roles.sql" >/dev/null
    query shop -f "$DEMO/shop.sql" >/dev/null
    query billing -f "$DEMO/billing.sql" >/dev/null
}

fingerprint_postgres() {
    local database
    for database in shop billing; do
        query "$database" -f "$DEMO/fingerprint.sql"
        # Schema, owners, grants, policies, settings; the random restriction key of newer clients is not data.
        PGPASSWORD=$PG_PASSWORD "$PG_BIN/pg_dump" -h 127.0.0.1 -p "$PG_PORT" -U postgres -s -C "$database" |
            grep -v '^\\\(un\)\?restrict '
    done
    PGPASSWORD=$PG_PASSWORD "$PG_BIN/pg_dumpall" -h 127.0.0.1 -p "$PG_PORT" -U postgres --roles-only |
        grep -v -e '^\\\(un\)\?restrict ' -e '^ALTER ROLE postgres '
}

redis() { REDISCLI_AUTH=$REDIS_PASSWORD redis-cli -p "$REDIS_PORT" "$@"; }

start_redis() {
    mkdir -p "$WORK/redis"
    cat >"$WORK/redis.conf" <<EOF
bind 127.0.0.1
port $REDIS_PORT
dir $WORK/redis
requirepass $REDIS_PASSWORD
appendonly yes
save ""
daemonize no
logfile $WORK/redis.log
EOF
    chmod 600 "$WORK/redis.conf"
    redis-server "$WORK/redis.conf" >/dev/null &
    REDIS_PID=$!
    local tries=0
    until [ "$(redis ping 2>/dev/null)" = PONG ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || die "Redis did not start; see $WORK/redis.log"
        sleep 0.1
    done
}

stop_redis() {
    [ -n "${REDIS_PID:-}" ] || return 0
    kill -KILL "$REDIS_PID" 2>/dev/null || true
    wait "$REDIS_PID" 2>/dev/null || true
    REDIS_PID=
}

fill_redis() {
    redis --eval "$DEMO/redis-fill.lua" , 0 5000 >/dev/null
    redis --eval "$DEMO/redis-fill.lua" , 3 500 >/dev/null
}

fingerprint_redis() {
    local database
    for database in 0 1 3; do redis --eval "$DEMO/redis-fingerprint.lua" , "$database"; done
}

fill_files() {
    mkdir -p "$WORK/files"
    perl "$DEMO/files.pl" "$WORK/files"
    setfattr -n user.origin -v 'upload form' "$WORK/files/uploads/0/file-0.txt" 2>/dev/null ||
        echo "  (this file system has no user attributes; they are left out)"
}

fingerprint_files() {
    (
        cd "$WORK/files"
        # Type, mode, owner, size, time, link count, link target, name.
        find . -printf '%y %m %U:%G %s %T@ %n %l %p\0' | LC_ALL=C sort -z | tr '\0\n' '\n '
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum -z | tr '\0\n' '\n '
        getfattr -R -d -m - . 2>/dev/null || true
    )
}
