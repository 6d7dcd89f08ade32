# shellcheck shell=bash
# Debian packages. Sourced by scripts/setup.

POLICY=/usr/sbin/policy-rc.d

# Prints those of the named packages that are not installed.
missing_packages() {
    local installed package
    installed=$(dpkg-query -W -f='${db:Status-Abbrev}:${Package}\n' "$@" 2>/dev/null || true)
    for package in "$@"; do
        grep -qx "ii :$package" <<<"$installed" || printf '%s\n' "$package"
    done
}

# Keeps the package scripts from starting the servers: the tests start their own, on free ports.
forbid_service_starts() {
    [ ! -e "$POLICY" ] || return 0
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
    at_exit "as_root rm -f -- $POLICY"
}

# Services of packages we have just installed stay off, also after the next boot.
leave_services_off() {
    [ -d /run/systemd/system ] || return 0
    local package
    for package in "$@"; do
        case $package in
            postgresql-15) quietly as_root systemctl disable --now postgresql.service || true ;;
            redis-server) quietly as_root systemctl disable --now redis-server.service || true ;;
            prometheus) quietly as_root systemctl disable --now prometheus.service || true ;;
            ceph-mon) quietly as_root systemctl disable --now ceph.target ceph-crash.service || true ;;
        esac
    done
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 \
        -o DPkg::Lock::Timeout=300 "$@"
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    quietly apt update || die "apt-get update failed"
    forbid_service_starts
    quietly apt install --no-install-recommends "${missing[@]}" || die "apt-get install failed: ${missing[*]}"
    leave_services_off "${missing[@]}"
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -eq 0 ] || die "still missing after apt-get install: ${missing[*]}"
}

# The Debian mirror this machine already uses.
debian_mirror() {
    # shellcheck disable=SC2016 # apt's own placeholders
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk '$3 == "main" && $2 !~ /-(security|updates|backports)/ && $1 !~ /security/ { print $1; exit }'
}

# fetch_newer_package PACKAGE SUITE... : downloads the package into the current directory from
# the first of these Debian suites that has it, without touching the machine's own apt. The
# signature is checked; the age of the package lists is not, because an old mirror will do.
fetch_newer_package() {
    local package=$1 base mirror suite
    shift
    base=$PWD/apt
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || return 1
    for suite in "$@"; do
        rm -rf -- "$base"
        mkdir -p "$base/state/lists/partial" "$base/cache/archives/partial"
        touch "$base/status"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$base/sources.list"
        printf '%s "%s";\n' Dir::State "$base/state" Dir::State::status "$base/status" Dir::Cache "$base/cache" \
            Dir::Etc::sourcelist "$base/sources.list" Dir::Etc::sourceparts - APT::Architecture amd64 \
            APT::Sandbox::User root Acquire::Languages none Acquire::Check-Valid-Until false >"$base/apt.conf"
        if APT_CONFIG=$base/apt.conf quietly apt-get -q update &&
            APT_CONFIG=$base/apt.conf quietly apt-get -q download "$package"; then
            return 0
        fi
    done
    return 1
}
