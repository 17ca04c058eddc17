#!/usr/bin/env bash
# Runs the two commands of the README on a really fresh machine: a bare Debian (debootstrap minbase,
# a compiler, git, this machine's Rust) in a mount and PID namespace of its own. What a test needs and
# scripts/setup.sh does not install shows here. To be run as root before each release.
#
#   scripts/fresh.sh [COMMAND...]     by default: scripts/demo.sh, then scripts/test.sh
#
# FRESH_ROOT: where the root is made (default: a new directory below $TMPDIR, removed at the end; a
# named one is kept and used again). FRESH_SUITE: the Debian release (default: this machine's).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
    printf 'fresh.sh: %s\n' "$*" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || die "run it as root: it makes a root file system and mounts"
for program in debootstrap unshare git rustc; do
    command -v "$program" >/dev/null || die "\"$program\" is missing: apt-get install debootstrap util-linux git"
done

# shellcheck source=/dev/null
. /etc/os-release
suite=${FRESH_SUITE:-${VERSION_CODENAME:?no VERSION_CODENAME in /etc/os-release}}
if [ -n "${FRESH_ROOT:-}" ]; then
    root=$FRESH_ROOT
    mkdir -p "$root"
else
    root=$(mktemp -d "${TMPDIR:-/tmp}/wal-fresh.XXXXXX")
    trap 'rm -rf --one-file-system "$root"' EXIT
fi

scripts/bare_root.sh "$suite" "$root" ca-certificates,build-essential,git
if [ ! -e "$root/opt/rust" ]; then
    mkdir -p "$root/opt/rust"
    cp -a "$(rustc --print sysroot)/." "$root/opt/rust/"
fi
# Its own certificate authority, too.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
rm -rf "$root/src"
git clone --quiet --no-hardlinks . "$root/src"

[ $# -gt 0 ] || set -- sh -c 'scripts/demo.sh && scripts/test.sh'
printf '==> %s\n' "$*"

passed=(HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
for variable in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    [ -z "${!variable:-}" ] || passed+=("$variable=${!variable}")
done

# The root is a mount of its own, as every root is; all ends with the namespace.
# shellcheck disable=SC2016
inside='
    set -e
    mount --bind "$1" "$1"
    mount -t proc proc "$1/proc"
    mount -t sysfs sysfs "$1/sys"
    mount --rbind /dev "$1/dev"
    root=$1
    shift
    exec chroot "$root" "$@"
'
unshare --mount --pid --fork --kill-child --propagation private \
    sh -c "$inside" fresh "$root" /usr/bin/env -i "${passed[@]}" sh -c 'cd /src && exec "$@"' fresh "$@" </dev/null
