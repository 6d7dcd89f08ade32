# shellcheck shell=bash
# The demo's Prometheus, the files of its Grafana, and the stack's settings, below $WORK. Sourced, never run.

start_prometheus() {
    mkdir -p "$WORK/prometheus/etc/rules" "$WORK/prometheus/data"
    if [ ! -f "$WORK/prometheus/etc/prometheus.yml" ]; then
        cat >"$WORK/prometheus/etc/prometheus.yml" <<EOF
global:
  scrape_interval: 1s
rule_files: ["rules/*.yml"]
scrape_configs:
- job_name: self
  static_configs: [{targets: ["127.0.0.1:$PROMETHEUS_PORT"]}]
EOF
        cat >"$WORK/prometheus/etc/rules/load.yml" <<EOF
groups:
- name: load
  rules:
  - record: up:sum
    expr: sum(up)
EOF
        make_history
    fi
    prometheus --config.file="$WORK/prometheus/etc/prometheus.yml" --storage.tsdb.path="$WORK/prometheus/data" \
        --web.listen-address="127.0.0.1:$PROMETHEUS_PORT" --web.enable-admin-api \
        --storage.tsdb.min-block-duration=2h --storage.tsdb.max-block-duration=2h \
        >"$WORK/prometheus.log" 2>&1 &
    PROMETHEUS_PID=$!
    local tries=0
    until grep -q 'Server is ready to receive web requests' "$WORK/prometheus.log"; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || die "Prometheus did not start; see $WORK/prometheus.log"
        sleep 0.1
    done
}

stop_prometheus() {
    [ -n "${PROMETHEUS_PID:-}" ] || return 0
    kill -TERM "$PROMETHEUS_PID" 2>/dev/null || true
    wait "$PROMETHEUS_PID" 2>/dev/null || true
    PROMETHEUS_PID=
}

# A day of 20 series in blocks of two hours that ended some hours ago.
make_history() {
    local end=$(($(date +%s) / 7200 * 7200 - 4 * 3600))
    echo "$end" >"$WORK/history-end"
    perl -e '
        my $end = shift;
        print "# TYPE history gauge\n";
        for my $series (0 .. 19) {
            for (my $time = $end - 86400; $time < $end; $time += 15) {
                print "history{series=\"$series\"} ", ($time * 7 + $series * 13) % 1009, " $time\n";
            }
        }
        print "# EOF\n";' "$end" >"$WORK/history.txt"
    promtool tsdb create-blocks-from openmetrics "$WORK/history.txt" "$WORK/prometheus/data" >/dev/null
    rm -f -- "$WORK/history.txt"
}

# Waits until it has scraped itself.
fill_prometheus() {
    local tries=0 now
    until now=$(date +%s) && ask_prometheus 'count_over_time(up[1h])' "$now" | grep -q '"job":"self"'; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || die "Prometheus does not scrape itself; see $WORK/prometheus.log"
        sleep 0.1
    done
    echo "$now" >"$WORK/scraped-until"
}

count_blocks() { find "$WORK/prometheus/data" -mindepth 2 -maxdepth 2 -name meta.json | wc -l; }

# An instant query at a fixed moment: the answer does not depend on when it is asked.
ask_prometheus() { # query, time
    perl -MIO::Socket::INET -e '
        my ($port, $query, $time) = @ARGV;
        $query =~ s/([^A-Za-z0-9])/sprintf "%%%02X", ord $1/ge;
        my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") or die "connect: $!";
        my $at = $time ? "&time=$time" : "";
        print $socket "GET /api/v1/query?query=$query$at HTTP/1.0\r\nHost: localhost\r\n\r\n";
        local $/; (my $answer = <$socket>) =~ s/^.*?\r\n\r\n//s; print $answer, "\n";' "$PROMETHEUS_PORT" "$@"
}

# An answer with data in it: two equal errors would prove nothing.
answer_of_prometheus() { # query, time
    local answer
    answer=$(ask_prometheus "$@")
    [[ $answer == *'"status":"success"'*'"result":[{'* ]] || die "Prometheus answers $1 with: $answer"
    printf '%s\n' "$answer"
}

fingerprint_prometheus() {
    local end
    end=$(cat "$WORK/history-end")
    answer_of_prometheus 'sort(count_over_time(history[1d]))' "$end"
    answer_of_prometheus 'sort(sum_over_time(history[1d]))' "$end"
    answer_of_prometheus 'sort(stddev_over_time(history[1d]))' "$end"
    # What it scraped itself up to the backup.
    answer_of_prometheus 'sum(count_over_time(up[1h]))' "$(cat "$WORK/scraped-until")"
    (cd "$WORK/prometheus/etc" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
}

grafana_sql() { sqlite3 -batch -bail "$WORK/grafana/data/grafana.db" "$@"; }

fill_grafana() {
    # What the package of Grafana installs: not part of what is lost.
    mkdir -p "$WORK/grafana-home" "$WORK"/grafana/{data/plugins/clock,etc/provisioning/datasources}
    printf '11.6.0\n' >"$WORK/grafana-home/VERSION"
    printf '{"id": "clock"}\n' >"$WORK/grafana/data/plugins/clock/plugin.json"
    printf 'apiVersion: 1\ndatasources:\n- name: Prometheus\n  type: prometheus\n' >"$WORK/grafana/etc/provisioning/datasources/main.yaml"
    (umask 077
     cat >"$WORK/grafana/etc/grafana.ini" <<EOF
[paths]
data = $WORK/grafana/data
provisioning = $WORK/grafana/etc/provisioning
[database]
wal = true
[security]
secret_key = demo-secret-key
EOF
    )
    {
        echo 'PRAGMA journal_mode = WAL;'
        cat "$ROOT/crates/rekindle-testkit/src/fixtures/grafana.sql"
        cat <<'EOF'
INSERT INTO migration_log (migration_id, success) VALUES ('create migration_log table', 1), ('add uid column to star', 1);
INSERT INTO org (version, name) VALUES (0, 'Main Org.');
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
INSERT INTO dashboard (uid, org_id, version, title, slug, data) SELECT 'uid-' || i, 1, 1, 'Board ' || i, 'board-' || i, hex(randomblob(1000)) FROM n;
INSERT INTO data_source (org_id, version, type, name, uid) VALUES (1, 1, 'prometheus', 'Prometheus', 'prom');
EOF
    } | sqlite3 -batch -bail "$WORK/grafana/data/grafana.db" >/dev/null
}

fingerprint_grafana() {
    grafana_sql 'SELECT id, uid, title, data FROM dashboard ORDER BY id' 'SELECT * FROM data_source' 'SELECT * FROM migration_log'
    (cd "$WORK/grafana" && find etc data/plugins -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
    (cd "$WORK/grafana" && find etc data/plugins -printf '%y %m %U:%G %p\n' | LC_ALL=C sort)
}

fill_settings() {
    mkdir -p "$WORK/settings/nginx"
    printf 'services:\n  backend:\n    image: example/backend:1\n' >"$WORK/settings/docker-compose.prod.yml"
    printf 'events {}\nhttp { server { listen 443 ssl; } }\n' >"$WORK/settings/nginx/nginx.conf"
    (umask 077 && printf 'POSTGRES_PASSWORD=demo\n' >"$WORK/settings/.env")
}

fingerprint_settings() {
    (
        cd "$WORK/settings"
        find . -printf '%y %m %U:%G %s %T@ %p\n' | LC_ALL=C sort
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    )
}
