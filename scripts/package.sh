#!/usr/bin/env bash
# Makes packages of the programs for this machine's architecture: .deb, .rpm and .tar.gz in target/package/out, with
# manual pages, completions, systemd units and an example of the configuration.
#
#   scripts/package.sh [--profile NAME]     by default: release
#
# cargo-deb and cargo-generate-rpm are installed into target/tools if they are missing. The time in the packages is
# that of the last commit, so the same source makes the same packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=release
case ${1:-} in
    --profile) profile=${2:?--profile NAME} ;;
    "") ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" && exit 2 ;;
esac

export PATH="$PWD/target/tools/bin:$PATH"
for tool in cargo-deb cargo-generate-rpm; do
    command -v "$tool" >/dev/null || cargo install --quiet --locked --root target/tools "$tool"
done
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

folder=$profile
[ "$profile" != dev ] || folder=debug
made=target/package
rm -rf "$made"
mkdir -p "$made/out" "$made/bin"

cargo build --locked --profile "$profile" --bins
for program in wal-push wal-fetch wal-archive; do
    install -s -m 0755 "target/$folder/$program" "$made/bin/"
done
cargo run --quiet --locked --package wal-archive-manual -- "$made"
gzip --best --no-name "$made"/man/*.1
# bash looks for a completion under the name of the command.
for file in "$made"/bash/*.bash; do
    mv "$file" "${file%.bash}"
done

cargo deb --no-build --no-strip --output "$made/out/"
cargo generate-rpm --output "$made/out/"

version=$(cargo pkgid | sed 's/.*[#@]//')
name=wal-archive-$version-$(uname -m)
tree=$made/$name
mkdir -p "$tree/systemd"
cp -r "$made/bin" "$made/man" "$made/bash" "$made/zsh" "$made/fish" docs contrib "$tree/"
cp packaging/systemd/* "$tree/systemd/"
cp packaging/etc/config.toml README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$tree/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$made" -c "$name" |
    gzip --best --no-name >"$made/out/$name.tar.gz"
rm -r "$tree"
ls -l "$made/out"
