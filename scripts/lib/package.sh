# shellcheck shell=bash
# The steps of scripts/package. Sourced; uses VERSION, ARCH, DIST, STAGE, TOOLS, ROOT of it.

# Zig's C compiler and linker know the symbols of every glibc: what is linked against an old one runs on all newer.
ZIGBUILD=0.24.1
ZIG=0.17.1
CYCLONEDX=0.5.9
GLIBC=2.28
TARGET=x86_64-unknown-linux-gnu
PROGRAM=

install_builders() {
    [ "$(uname -m)" = x86_64 ] || die "packages are built on x86_64 only; this is $(uname -m)"
    command -v dpkg-deb >/dev/null || die "dpkg-deb is needed: build on Debian"
    install_packages python3-venv
    if [ "$(cat "$TOOLS/stamps/zigbuild" 2>/dev/null)" != "$ZIGBUILD $ZIG" ]; then
        say "installing cargo-zigbuild $ZIGBUILD and zig $ZIG"
        mkdir -p "$TOOLS/stamps"
        quietly /usr/bin/python3 -m venv --clear "$TOOLS/zig"
        quietly "$TOOLS/zig/bin/pip" install --no-cache-dir --disable-pip-version-check --no-input \
            "cargo-zigbuild==$ZIGBUILD" "ziglang==$ZIG" || die "pip install failed"
        echo "$ZIGBUILD $ZIG" >"$TOOLS/stamps/zigbuild"
    fi
    if [ "$(cat "$TOOLS/stamps/cyclonedx" 2>/dev/null)" != "$CYCLONEDX" ]; then
        say "installing cargo-cyclonedx $CYCLONEDX"
        quietly cargo install --locked --root "$TOOLS/cargo" "cargo-cyclonedx@$CYCLONEDX" || die "cargo install failed"
        echo "$CYCLONEDX" >"$TOOLS/stamps/cyclonedx"
    fi
}

build_program() {
    install_builders
    say "building rekindle $VERSION for glibc $GLIBC (minutes)"
    # No path of this machine in the program: the same commit built elsewhere gives the same bytes.
    local flags="--remap-path-prefix=$ROOT=/rekindle --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    local target=${CARGO_TARGET_DIR:-$ROOT/target}
    PATH=$TOOLS/zig/bin:$PATH RUSTFLAGS=$flags CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=symbols \
        cargo zigbuild --locked --release --package rekindle --target "$TARGET.$GLIBC" --target-dir "$target/package" >&2
    PROGRAM=$target/package/$TARGET/release/rekindle
    local needs
    needs=$(objdump -T "$PROGRAM" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n1)
    [ "$(printf '%s\n' "$needs" "GLIBC_$GLIBC" | sort -V | tail -n1)" = "GLIBC_$GLIBC" ] ||
        die "the program needs $needs, more than glibc $GLIBC"
    say "the program needs $needs and $(objdump -p "$PROGRAM" | awk '/NEEDED/ { print $2 }' | xargs)"
}

# Everything below /, as both packages have it.
stage_files() {
    local doc=$STAGE/usr/share/doc/rekindle share=$STAGE/usr/share shell
    install -D -m755 "$PROGRAM" "$STAGE/usr/bin/rekindle"
    "$PROGRAM" man --out "$share/man/man1" >/dev/null
    gzip -9n "$share"/man/man1/*.1
    mkdir -p "$share/bash-completion/completions" "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
    for shell in bash:bash-completion/completions/rekindle zsh:zsh/vendor-completions/_rekindle \
        fish:fish/vendor_completions.d/rekindle.fish; do
        "$PROGRAM" completions "${shell%%:*}" >"$share/${shell#*:}"
    done
    # The rights of the widest stack: `rekindle install systemd` writes a narrower unit into /etc, which comes first.
    "$PROGRAM" --config contrib/debian/rekindle.toml install systemd --root "$STAGE" --program /usr/bin/rekindle \
        >/dev/null
    mkdir -p "$STAGE/usr/lib"
    mv "$STAGE/etc/systemd" "$STAGE/usr/lib/systemd"
    mv "$STAGE/etc/sysusers.d" "$STAGE/usr/lib/sysusers.d"
    rmdir "$STAGE/etc"
    sed -i "s#$ROOT/contrib/debian#/etc/rekindle#" "$STAGE/usr/lib/systemd/system/rekindle.service"
    sed -i 's/^\[Service\]/ConditionPathExists=\/etc\/rekindle\/rekindle.toml\n&/; 1s/.*/# Of the package; `rekindle install systemd` writes one that fits the stack./' \
        "$STAGE/usr/lib/systemd/system/rekindle.service"
    mkdir -p "$doc/examples"
    cp README.md "$doc/"
    gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
    { cat contrib/debian/copyright; printf '\n'; sed 's/^/ /; s/^ $/ ./' LICENSE-MIT; } >"$doc/copyright"
    cp examples/rekindle.toml contrib/prometheus/rekindle-alerts.yml contrib/grafana/rekindle.json "$doc/examples/"
    find "$STAGE" -type d -exec chmod 755 {} +
    find "$STAGE" -type f ! -path "$STAGE/usr/bin/*" -exec chmod 644 {} +
}

make_deb() {
    local control=$STAGE/DEBIAN size
    size=$(du -sk --apparent-size "$STAGE" | cut -f1)
    mkdir "$control"
    sed "s/@VERSION@/$VERSION/; s/@ARCH@/$ARCH/; s/@SIZE@/$size/; s/@GLIBC@/$GLIBC/" contrib/debian/control >"$control/control"
    install -m755 contrib/debian/{postinst,prerm,postrm} "$control/"
    (cd "$STAGE" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    dpkg-deb --root-owner-group -Zxz --build "$STAGE" "$DIST/rekindle_${VERSION}_$ARCH.deb" >/dev/null
    rm -rf -- "$control"
}

make_tar() {
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "$STAGE" -cf - usr |
        gzip -9n >"$DIST/rekindle-$VERSION-$ARCH.tar.gz"
}

make_sbom() {
    local made
    PATH=$TOOLS/cargo/bin:$PATH quietly cargo cyclonedx --manifest-path crates/rekindle/Cargo.toml --format json \
        --override-filename rekindle-sbom || die "cargo cyclonedx failed"
    made=$(find crates -name rekindle-sbom.json -path '*crates/rekindle/*')
    # The place of the checkout is of no interest to others, and differs between machines.
    sed "s#path+file://$ROOT#path+file:///rekindle#g" "$made" >"$DIST/rekindle-$VERSION.cdx.json"
    find crates xtask -name rekindle-sbom.json -delete
}

# A Debian that has never seen this program.
try_deb() {
    install_packages debootstrap
    local root
    root=$(mktemp -d)
    at_exit "as_root rm -rf -- '$root'"
    say "installing it in a fresh Debian root"
    quietly as_root debootstrap --variant=minbase --include=ca-certificates,systemd bookworm "$root" "$(debian_mirror)" ||
        die "debootstrap failed"
    as_root cp "$DIST/rekindle_${VERSION}_$ARCH.deb" contrib/debian/try "$root/tmp/"
    as_root chroot "$root" /bin/sh /tmp/try "/tmp/rekindle_${VERSION}_$ARCH.deb" >&2
    say "the package works in a fresh root"
}
