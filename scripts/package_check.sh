#!/usr/bin/env bash
# Installs the package that scripts/package.sh made into a bare Debian root, uses it there and removes it again. As root.
#
#   scripts/package_check.sh ROOT     ROOT: debootstrap's, for example; it is not changed (an overlay takes what is written)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
    printf 'package_check.sh: %s\n' "$*" >&2
    exit 1
}

root=${1:?ROOT, the directory of a bare Debian}
[ "$(id -u)" -eq 0 ] || die "run it as root: it mounts an overlay"
[ -e "$root/etc/debian_version" ] || die "\"$root\" is no Debian root"
deb=$(ls target/package/out/*.deb) || die "no package: run scripts/package.sh"

# The mounts below are this process's own, and end with it.
if [ -z "${PACKAGE_CHECK_INSIDE:-}" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf --one-file-system "$scratch"' EXIT
    PACKAGE_CHECK_INSIDE=$scratch unshare --mount --propagation private scripts/package_check.sh "$root"
    exit
fi

scratch=$PACKAGE_CHECK_INSIDE
mount -t tmpfs none "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" none "$scratch/root"
bare=$scratch/root
mount -t proc proc "$bare/proc" # the worker of a call is /proc/self/exe
inside() { chroot "$bare" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }
files() { (cd "$bare" && find etc usr -path '*wal-*' -o -path '*wal_*' | sort); }

files >"$scratch/before"
cp "$deb" "$bare/tmp/package.deb"
inside dpkg -i /tmp/package.deb
for program in wal-push wal-fetch wal-archive; do
    inside "$program" --version
    inside test -e "/usr/share/man/man1/$program.1.gz" || die "no manual page of $program"
done
inside wal-archive config --archive /tmp/archive >/dev/null || die "the example of the configuration is not understood"

mkdir -p "$bare/tmp/archive" "$bare/tmp/data/pg_wal"
vectors=tests/vectors/wal/postgresql-15
for name in 00000001000000000000001A 00000001000000000000001B.partial; do
    zstd -qd "$vectors/$name.zst" -o "$bare/tmp/data/pg_wal/$name"
done
inside wal-archive init --system-id 7710362819239716105 --segment-size 1MB /tmp/archive
for name in 00000001000000000000001A 00000001000000000000001B.partial; do
    inside wal-push --archive /tmp/archive "/tmp/data/pg_wal/$name"
    inside wal-fetch --archive /tmp/archive "$name" /tmp/fetched
    cmp "$bare/tmp/fetched" "$bare/tmp/data/pg_wal/$name"
    rm "$bare/tmp/fetched"
done
inside wal-archive verify --archive /tmp/archive

if command -v systemd-analyze >/dev/null; then
    # A bare root has no systemd to compare with, so this machine's is asked, of the programs in the root.
    mkdir "$scratch/units"
    for unit in "$bare"/usr/lib/systemd/system/wal-archive-*; do
        sed "s|/usr/bin/wal-archive|$bare/usr/bin/wal-archive|" "$unit" >"$scratch/units/${unit##*/}"
    done
    systemd-analyze verify --man=no "$scratch"/units/* >"$scratch/objections" 2>&1 || true
    ! grep wal-archive "$scratch/objections" || die "systemd-analyze objects to a unit"
else
    echo "SKIPPED: no systemd-analyze, so the units were not verified"
fi

inside dpkg -r wal-archive
files | comm -13 "$scratch/before" - >"$scratch/left"
[ "$(grep -v '^etc/wal-archive$' "$scratch/left")" = etc/wal-archive/config.toml ] ||
    die "removal leaves more than the configuration: $(cat "$scratch/left")"
inside dpkg -P wal-archive
files | diff "$scratch/before" - || die "purging leaves files"

if command -v rpm >/dev/null; then
    rpm -qp --qf '%{name} %{version} %{arch}\n' target/package/out/*.rpm
    rpm -qpl target/package/out/*.rpm | grep '^/usr/bin/wal-push$' >/dev/null || die "the .rpm has no wal-push"
else
    echo "SKIPPED: no rpm, so the .rpm was not looked at"
fi
tar -tzf target/package/out/*.tar.gz | grep '/bin/wal-push$' >/dev/null || die "the .tar.gz has no wal-push"
echo "package_check.sh: all is well"
