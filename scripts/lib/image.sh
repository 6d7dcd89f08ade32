# shellcheck shell=bash
# The container image of the tests: Debian with PostgreSQL and Redis, made of Debian's packages, in an image
# store of its own ($TOOLS/containers/store). Tests read that store and write into private ones.

IMAGE=rekindle-test-stack:1
IMAGE_PACKAGES=postgresql-15,redis-server

# As crates/rekindle-testkit/src/podman.rs has it.
image_podman() {
    as_root env CONTAINERS_CONF="$1/containers.conf" podman --root "$TOOLS/containers/store" --runroot "$1/run" \
        --tmpdir "$1/tmp" --storage-driver overlay "${@:2}"
}

# The packages start nothing in a chroot, and what no test reads is left out.
image_root() {
    local root=$1
    as_root debootstrap --variant=minbase --include="$IMAGE_PACKAGES" bookworm "$root" "$(debian_mirror)" || return 1
    as_root rm -rf -- "$root"/var/cache/apt "$root"/var/lib/apt/lists "$root"/usr/share/{doc,man,locale,info} \
        "$root"/usr/lib/*/libLLVM* "$root"/usr/lib/llvm*
}

install_image() {
    has container-image "$IMAGE" && return
    say "building the container image $IMAGE (Debian with PostgreSQL and Redis)"
    local work
    work=$(mktemp -d "$TOOLS/.image.XXXXXX")
    at_exit "as_root rm -rf -- '$work'"
    printf '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n' >"$work/containers.conf"
    quietly image_root "$work/root" || die "debootstrap failed"
    as_root rm -rf -- "$TOOLS/containers"
    mkdir -p "$TOOLS/containers"
    as_root tar -C "$work/root" -cf "$work/root.tar" .
    quietly image_podman "$work" import "$work/root.tar" "$IMAGE" || die "podman import failed"
    # Podman leaves its store mounted on itself.
    as_root umount "$TOOLS/containers/store/overlay" 2>/dev/null || true
    stamp container-image "$IMAGE"
}
