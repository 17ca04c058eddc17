#!/usr/bin/env bash
# Makes a bare Debian (debootstrap's minbase) in a directory, from this machine's own mirror, and gives it this machine's way
# to the network. What is there already stays. As root.
#
#   scripts/bare_root.sh SUITE DIRECTORY [PACKAGE,PACKAGE...]
set -euo pipefail

die() {
    printf 'bare_root.sh: %s\n' "$*" >&2
    exit 1
}

suite=${1:?SUITE, such as bookworm} root=${2:?DIRECTORY} packages=${3:-}
[ "$(id -u)" -eq 0 ] || die "run it as root: it makes a root file system"
command -v debootstrap >/dev/null || die "\"debootstrap\" is missing: apt-get install debootstrap"

if [ ! -e "$root/etc/debian_version" ]; then
    # From either form of apt's sources; debootstrap knows one itself where they name none of Debian's.
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m 1 '/debian/*$' || true)
    printf '==> a bare Debian %s\n' "$suite"
    mkdir -p "$root"
    debootstrap --variant=minbase ${packages:+--include="$packages"} "$suite" "$root" ${mirror:+"$mirror"} \
        >"$root.log" 2>&1 || die "debootstrap failed, see \"$root.log\""
    rm -f "$root.log"
    # The machine's way to its mirrors: proxies, credentials.
    cp -a /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
fi
# A directory made by mktemp would be root's alone.
chmod 0755 "$root"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
