# shellcheck shell=bash
# Distributed stores: Ceph comes from Debian; Garage is built once into $TOOLS/bin/garage.
# It is AGPL-3.0: a program that the tests talk to, no part of rekindle.

GARAGE=2.5.0

install_garage() {
    has garage "$GARAGE" && [ -x "$TOOLS/bin/garage" ] && return
    local built=${REKINDLE_GARAGE:-}
    if [ -z "$built" ]; then
        command -v cargo >/dev/null || die "cargo is needed to build Garage, or REKINDLE_GARAGE=/path/garage"
        say "building Garage $GARAGE (ten minutes with two free cores, half an hour on a busy machine)"
        quietly env -u CARGO_TARGET_DIR cargo install garage --version "$GARAGE" --locked --root "$TOOLS/garage" ||
            die "cargo install garage failed"
        built=$TOOLS/garage/bin/garage
    fi
    # Not under its name at once: a program that runs cannot be written over.
    install -m755 -- "$built" "$TOOLS/bin/.garage.new"
    mv -f -- "$TOOLS/bin/.garage.new" "$TOOLS/bin/garage"
    "$TOOLS/bin/garage" --version | grep -q "$GARAGE" || die "$built is not Garage $GARAGE"
    stamp garage "$GARAGE"
}

install_clusters() {
    mkdir -p "$TOOLS/bin" "$TOOLS/stamps"
    exec 9>"$TOOLS/.lock"
    flock -w 3600 9 || die "another set-up has been holding $TOOLS/.lock for an hour"
    local program
    for program in ceph ceph-mon ceph-osd ceph-authtool monmaptool radosgw radosgw-admin; do
        must_run "$program" --version
    done
    install_garage
}
