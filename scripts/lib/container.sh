# shellcheck shell=bash
# The image of contrib/container, built and used. Sourced by scripts/package; uses DIST, ROOT of it.

# As crates/rekindle-testkit/src/podman.rs has it: some machines may not raise limits, and have no network plugin.
CONTAINERS_CONF_TEXT='[containers]
default_ulimits = ["nofile=1000:1000", "nproc=1000:1000"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
'

container_podman() {
    as_root env CONTAINERS_CONF="$CONTAINER_WORK/containers.conf" podman --root "$CONTAINER_WORK/store" \
        --runroot "$CONTAINER_WORK/run" --tmpdir "$CONTAINER_WORK/tmp" --storage-driver overlay "$@"
}

remove_containers() {
    container_podman rm -f -a -t 0 >/dev/null 2>&1 || true
    as_root umount -l "$CONTAINER_WORK/store/overlay" 2>/dev/null || true
    as_root rm -rf -- "$CONTAINER_WORK"
}

# A base image without any registry: Debian's own packages, as debian:bookworm-slim has them.
make_base() {
    local root=$CONTAINER_WORK/root
    quietly as_root debootstrap --variant=minbase --include=ca-certificates bookworm "$root" "$(debian_mirror)" ||
        die "debootstrap failed"
    as_root tar -C "$root" -cf "$CONTAINER_WORK/root.tar" .
    quietly container_podman import "$CONTAINER_WORK/root.tar" rekindle-base:1 || die "podman import failed"
    as_root rm -rf -- "$root" "$CONTAINER_WORK/root.tar"
}

# build_image NAME CLIENTS
build_image() {
    say "building the image $1 ($2)"
    quietly container_podman build --network host --build-arg "BASE=$CONTAINER_BASE" --build-arg "CLIENTS=$2" \
        -f "$ROOT/contrib/container/Containerfile" -t "$1" "$DIST" || die "podman build failed: $1"
}

# The image as it is meant to be run: its own user, no capability, nothing writable but a volume and /tmp.
# run_image IMAGE [OPTION...] -- [ARGUMENT...]
run_image() {
    local image=$1 options=()
    shift
    while [ "$1" != -- ]; do options+=("$1") && shift; done
    shift
    container_podman run --rm --network host --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges \
        --tmpfs /tmp:rw,mode=1777,size=600m -v rekindle-try:/var/lib/rekindle \
        -v "$ROOT/contrib/container/try.toml:/etc/rekindle/rekindle.toml:ro" "${options[@]}" "$image" "$@" >&2
}

try_container() {
    install_packages podman runc debootstrap
    CONTAINER_WORK=$(mktemp -d)
    at_exit remove_containers
    printf '%s' "$CONTAINERS_CONF_TEXT" >"$CONTAINER_WORK/containers.conf"
    CONTAINER_BASE=${BASE:-}
    if [ -z "$CONTAINER_BASE" ]; then
        say "making a base image with debootstrap (BASE=debian:bookworm-slim takes that one instead)"
        make_base
        CONTAINER_BASE=localhost/rekindle-base:1
    fi
    build_image rekindle postgresql-client
    run_image rekindle -- check-config || die "the image cannot read its configuration"
    build_image rekindle-drill "postgresql redis-server"
    say "backup, restore and drill as 7353 with a read-only root"
    run_image rekindle-drill -v "$ROOT/contrib/container/try:/try:ro" --entrypoint /try -- ||
        die "the image does not do what it is for"
}
