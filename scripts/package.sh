#!/usr/bin/env bash
# Makes packages of the programs for this machine's architecture in target/package/out: .deb, .rpm and .tar.gz with manual
# pages, completions, systemd units and an example of the configuration; beside them a bill of materials and the checksums.
#
#   scripts/package.sh            makes them
#   scripts/package.sh --twice    and again from a clone of the last commit in another directory: not one byte may differ
#
# The programs run with glibc 2.31 (Debian 11, RHEL 9) or newer, and name their dependencies (cargo-auditable). Zig is the
# linker and C compiler that knows old glibcs. The tools are installed into target/tools; it takes Rust, a C compiler for them, git
# and python3-venv. The time in the packages is that of the last commit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022

die() {
    printf 'package.sh: %s\n' "$*" >&2
    exit 1
}

twice=false
case ${1:-} in
    --twice) twice=true ;;
    "") ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" && exit 2 ;;
esac
! $twice || [ -z "$(git status --porcelain)" ] || die "what is not committed cannot be made again"

glibc=2.31
target=$(uname -m)-unknown-linux-gnu
made=target/package
cargo_home=${CARGO_HOME:-$HOME/.cargo}
unset RUSTFLAGS CFLAGS CARGO_TARGET_DIR CARGO_BUILD_TARGET
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# --- tools ------------------------------------------------------------------------------------

export PATH="$PWD/target/tools/bin:$PATH"
for tool in cargo-zigbuild@0.24.1 cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9 cargo-deb@3.8.0 cargo-generate-rpm@0.21.1; do
    # Unoptimised: they are built in a minute, and run for seconds.
    command -v "${tool%@*}" >/dev/null || cargo install --quiet --debug --locked --root target/tools "$tool"
done
zig() { find target/tools/zig/ -path '*/site-packages/ziglang/zig' 2>/dev/null; }
if [ -z "$(zig)" ]; then
    python3 -m venv target/tools/zig
    target/tools/zig/bin/pip install --quiet ziglang==0.15.2
fi
CARGO_ZIGBUILD_ZIG_PATH=$PWD/$(zig)
export CARGO_ZIGBUILD_ZIG_PATH

# --- the programs and what is said of them ----------------------------------------------------

rm -rf "$made"
mkdir -p "$made/out" "$made/bin"

# No path of this machine is in the programs.
RUSTFLAGS="--remap-path-prefix=$PWD=. --remap-path-prefix=$cargo_home=/cargo" CFLAGS="-ffile-prefix-map=$cargo_home=/cargo" \
    cargo auditable zigbuild --locked --release --bins --target "$target.$glibc"
for program in wal-push wal-fetch wal-archive; do
    install -m 0755 "target/$target/release/$program" "$made/bin/"
done

# Built as the tests are, which compile C without that variable.
env -u SOURCE_DATE_EPOCH cargo run --quiet --locked --package wal-archive-manual -- "$made"
gzip --best --no-name "$made"/man/*.1
# bash looks for a completion under the name of the command.
for file in "$made"/bash/*.bash; do
    mv "$file" "${file%.bash}"
done

# --- packages ---------------------------------------------------------------------------------

version=$(cargo pkgid | sed 's/.*[#@]//')
name=wal-archive-$version-$(uname -m)
# A .rpm has the time of each file, unless it is younger than the commit.
git ls-files -z docs contrib packaging README.md CHANGELOG.md 'LICENSE-*' | xargs -0 touch --date="@$SOURCE_DATE_EPOCH"
cargo deb --no-build --no-strip --output "$made/out/"
cargo generate-rpm --auto-req builtin --output "$made/out/"

tree=$made/$name
mkdir -p "$tree/systemd"
cp -r "$made/bin" "$made/man" "$made/bash" "$made/zsh" "$made/fish" docs contrib "$tree/"
cp packaging/systemd/* "$tree/systemd/"
cp packaging/etc/config.toml README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$tree/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" -C "$made" -c "$name" |
    gzip --best --no-name >"$made/out/$name.tar.gz"
rm -r "$tree"

# It is written beside each manifest of the workspace, and named by the place of the source.
cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --target "$target" --override-filename sbom
sed "s|path+file://$PWD|path+file:///wal-archive|g" sbom.json >"$made/out/$name.cdx.json"
rm sbom.json packaging/manual/sbom.json

(cd "$made/out" && sha256sum -- * >SHA256SUMS)
ls -l "$made/out"

# --- again ------------------------------------------------------------------------------------

if $twice; then
    again=$(mktemp -d)
    trap 'rm -rf "$again"' EXIT
    git clone --quiet --no-hardlinks . "$again/source"
    # The tools are the same, and so is what the manual pages are made with.
    mkdir "$again/source/target"
    ln -s "$PWD/target/tools" "$PWD/target/debug" "$again/source/target/"
    "$again/source/scripts/package.sh" >/dev/null
    diff -r "$made/out" "$again/source/$made/out" || die "made again, the packages differ"
    echo "package.sh: made twice, the packages are the same"
fi
