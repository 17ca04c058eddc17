#!/usr/bin/env bash
# Tries the packages of scripts/package.sh where no Rust is, and no more of Debian than debootstrap makes. As root.
#
#   scripts/package_check.sh
#
# In Debian 12 and in 11, the oldest that is promised: the .deb installs, its programs archive and fetch, and its purge leaves
# nothing. In 12 also: the commands of docs/guides/quick-start.md, as they are written there, recover a lost cluster; removal
# leaves configuration and archive alone; systemd accepts the units; bash completes by TAB; rpm reads the .rpm.
#
# PACKAGE_ROOTS: the directory of the two roots (default: target/roots); one that is missing is made. They are not changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n==> %s\n' "$*"; }

die() {
    printf 'package_check.sh: %s\n' "$*" >&2
    exit 1
}

roots=${PACKAGE_ROOTS:-target/roots}
out=target/package/out
[ "$(id -u)" -eq 0 ] || die "run it as root: it mounts overlays"
[ -e "$out/SHA256SUMS" ] || die "no packages: run scripts/package.sh"

# What is mounted and started below ends with this process, whatever becomes of it.
if [ -z "${PACKAGE_CHECK_SCRATCH:-}" ]; then
    for suite in bookworm bullseye; do
        scripts/bare_root.sh "$suite" "$roots/$suite"
    done
    PACKAGE_CHECK_SCRATCH=$(mktemp -d)
    export PACKAGE_CHECK_SCRATCH
    trap 'rmdir "$PACKAGE_CHECK_SCRATCH"' EXIT
    unshare --mount --pid --fork --kill-child --propagation private scripts/package_check.sh </dev/null
    exit
fi
scratch=$PACKAGE_CHECK_SCRATCH
mount -t tmpfs none "$scratch"

# --- helpers ----------------------------------------------------------------------------------

# Sets $bare: the root of a suite, below what is written here.
enter() { # SUITE
    bare=$scratch/$1/root
    mkdir -p "$scratch/$1/upper" "$scratch/$1/work" "$bare"
    mount -t overlay -o "lowerdir=$roots/$1,upperdir=$scratch/$1/upper,workdir=$scratch/$1/work" none "$bare"
    mount -t proc proc "$bare/proc"
    mount --rbind /dev "$bare/dev"
    cp "$out"/*.deb "$bare/tmp/package.deb"
    cp "$out"/*.rpm "$bare/tmp/package.rpm"
    ! inside which cargo rustc || die "this root has Rust"
}

inside() { # COMMAND...
    chroot "$bare" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

packages() { inside apt-get -qq -y install --no-install-recommends "$@" >"$scratch/apt.log" 2>&1 || die "$(cat "$scratch/apt.log")"; }

# Everything but what dpkg keeps for itself, and what the trial makes.
files() { (cd "$bare" && find . -xdev \( -path ./tmp -o -path ./var/lib/dpkg -o -path ./var/log \) -prune -o -print | sort); }

only_the_configuration() { # BEFORE
    files | comm -13 "$1" - >"$scratch/left"
    printf './etc/wal-archive\n./etc/wal-archive/config.toml\n' | diff - "$scratch/left" || die "removal leaves more than the configuration"
}

# --- the programs, in a bare Debian -----------------------------------------------------------

use() {
    local name vectors=tests/vectors/wal/postgresql-15
    for name in wal-push wal-fetch wal-archive; do
        inside "$name" --version
        inside test -e "/usr/share/man/man1/$name.1.gz" || die "no manual page of $name"
    done
    inside wal-archive config --archive /tmp/archive >/dev/null || die "the example of the configuration is not understood"
    mkdir -p "$bare/tmp/archive" "$bare/tmp/data/pg_wal"
    inside wal-archive init --system-id 7710362819239716105 --segment-size 1MB /tmp/archive
    for name in 00000001000000000000001A 00000001000000000000001B.partial; do
        zstd -qd "$vectors/$name.zst" -o "$bare/tmp/data/pg_wal/$name"
        inside wal-push --archive /tmp/archive "/tmp/data/pg_wal/$name"
        inside wal-fetch --archive /tmp/archive "$name" /tmp/fetched
        cmp "$bare/tmp/fetched" "$bare/tmp/data/pg_wal/$name"
    done
    inside wal-archive verify --archive /tmp/archive
}

for suite in bullseye bookworm; do
    say "a bare Debian $suite: $(cat "$roots/$suite/etc/debian_version")"
    enter "$suite"
    files >"$scratch/before"
    inside dpkg -i /tmp/package.deb
    use
    inside dpkg -r wal-archive
    only_the_configuration "$scratch/before"
    inside dpkg -P wal-archive
    files | diff "$scratch/before" - || die "the purge leaves files"
done

# --- the quick start, literally ---------------------------------------------------------------

say "docs/guides/quick-start.md"
inside apt-get -qq update
packages sudo
inside useradd --create-home --shell /bin/bash dba
echo 'dba ALL=(ALL) NOPASSWD: ALL' >"$bare/etc/sudoers.d/dba"
packages postgresql /tmp/package.deb
# What Debian does where an init system runs; this machine may have a server at the usual port, but not at this socket.
inside pg_conftool 15 main set port 5432
inside pg_conftool 15 main set listen_addresses ''
inside pg_ctlcluster 15 main start
inside pg_lsclusters
# shellcheck disable=SC2016
{
    echo 'set -euxo pipefail'
    sed -nE '/^ *```sh$/,/^ *```$/{/^ *```/!{s/^   //;p}}' docs/guides/quick-start.md
} >"$bare/home/dba/quick-start"
inside su --login dba -c 'bash quick-start' || die "the quick start failed"

say "removal, with an archive in use"
inside apt-get -qq -y remove wal-archive >/dev/null
for place in /usr/bin/wal-push /usr/share/doc/wal-archive /usr/lib/systemd/system/wal-archive-check@.service; do
    inside test ! -e "$place" || die "removal leaves $place"
done
for place in /etc/wal-archive/config.toml /mnt/backup/main/archive.json; do
    inside test -e "$place" || die "removal took $place"
done

# --- what was packed --------------------------------------------------------------------------

say "units, completions, .rpm"
packages systemd bash-completion rpm /tmp/package.deb
# shellcheck disable=SC2016
# Of a value that it does not know it only speaks, and ends with 0.
inside sh -c 'systemd-analyze verify --man=no /usr/lib/systemd/system/wal-archive-* || echo "ended with $?"' >"$scratch/objections" 2>&1
[ ! -s "$scratch/objections" ] || die "systemd objects to a unit: $(cat "$scratch/objections")"
# As typed: a command and an option, completed by TAB.
printf '. /usr/share/bash-completion/bash_completion\nwal-archive expla\t 224\nwal-archive config --arch\t/typed\nexit\n' >"$bare/tmp/typed"
inside script --quiet --command 'bash --norc -i' /dev/null <"$bare/tmp/typed" >"$scratch/output"
grep -q '^wal-fetch 24 / 224: ' "$scratch/output" || die "bash does not complete a command: $(cat "$scratch/output")"
grep -q '^archive .*/typed' "$scratch/output" || die "bash does not complete an option: $(cat "$scratch/output")"
inside rpm -qp --qf '%{name} %{version} %{arch}\n' /tmp/package.rpm
inside rpm -K /tmp/package.rpm
inside rpm -qpl /tmp/package.rpm >"$scratch/files"
grep -qx /usr/bin/wal-push "$scratch/files" || die "the .rpm has no wal-push"

say "checksums, .tar.gz, dependencies"
(cd "$out" && sha256sum --check SHA256SUMS)
tar -tzf "$out"/*.tar.gz >"$scratch/files"
grep -q '/bin/wal-push$' "$scratch/files" || die "the .tar.gz has no wal-push"
for name in wal-push wal-fetch wal-archive; do
    objcopy -O binary --only-section=.dep-v0 --set-section-flags .dep-v0=alloc "target/package/bin/$name" "$scratch/named"
    python3 - "$scratch/named" "$out"/*.cdx.json <<'END' || die "the bill of materials lacks what is in $name"
import json, sys, zlib
named = json.loads(zlib.decompress(open(sys.argv[1], "rb").read()))["packages"]
listed = {(one["name"], one["version"]) for one in json.load(open(sys.argv[2]))["components"]}
inside = {(one["name"], one["version"]) for one in named if one.get("kind") != "build" and not one.get("root")}
print(len(inside), "crates are named in the program,", len(listed), "in the bill of materials")
sys.exit(len(inside) < 100 or not inside <= listed)
END
done
say "package_check.sh: all is well"
