#!/usr/bin/env bash
# Measures wal-push and wal-fetch against other programs, in turn, in one run. See docs/performance.md.
#
#   scripts/bench.sh [CASE...] [--rounds N] [--long-rounds N] [--delays MS,MS] [--segments N]
#   scripts/bench.sh --judge benches/runs/FILE      only prints a file's tables again
#   scripts/bench.sh --install-peers                installs pgBackRest and barman-cloud (Debian)
#
# WALG=/path and WALRUS=/path add those programs, BEFORE=/folder another version of ours.
# WAL_ARCHIVE_BENCH_DIR (default /var/tmp/wal-archive-bench) is where everything happens: about 12 GB,
# on the file system measured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
    printf 'bench.sh: %s\n' "$*" >&2
    exit 1
}

if [ "${1-}" = --install-peers ]; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    exec "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends pgbackrest barman-cli-cloud </dev/null
fi
for argument in "$@"; do
    case $argument in --judge | --judge=* | -h | --help) exec python3 scripts/bench "$@" ;; esac
done

# One after the other: examples bring the tests' dependencies, whose features would change the programs.
cargo build --release --locked --bins
cargo build --release --locked --example floor
target=$(cargo metadata --locked --no-deps --format-version 1 | jq -r .target_directory)
revision=$(git describe --always --dirty 2>/dev/null || echo unknown)

# PostgreSQL refuses to run as root; everything runs as its own user, in a place it can reach.
work=${WAL_ARCHIVE_BENCH_DIR:-/var/tmp/wal-archive-bench}
mkdir -p "$work/bin" "$work/scripts"
rm -f "$work/run.jsonl"
install -m 0755 "$target/release/wal-push" "$target/release/wal-fetch" "$target/release/wal-archive" "$target/release/examples/floor" "$work/bin"
cc -O2 -Wall -Wextra -o "$work/bin/started" scripts/bench/started.c
install -m 0644 scripts/bench/*.py "$work/scripts"
if [ -x target/tools/bin/versitygw ]; then
    install -m 0755 target/tools/bin/versitygw "$work/bin"
fi
as_postgres=()
if [ "$(id -u)" -eq 0 ]; then
    chown postgres: "$work"
    as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups --)
fi
(
    cd "$work"
    # The system's Python: another one may stand where only its owner can go.
    PATH=/usr/local/bin:/usr/bin:/bin HOME=$work LC_ALL=C PYTHONDONTWRITEBYTECODE=1 "${as_postgres[@]}" python3 scripts \
        --work "$work" --versitygw "$work/bin/versitygw" --revision "$revision" "$@"
) || die "the run failed"

# Raw results are kept in the tree: date and kind of machine, never its name.
model=$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1 | tr -cs '[:alnum:]\n' - | tr '[:upper:]' '[:lower:]')
results=benches/runs/$(date -u +%Y-%m-%d)-${model%-}-$(nproc)-cores.jsonl
mkdir -p benches/runs
cat "$work/run.jsonl" >>"$results"
printf '\nraw results: added to %s\n' "$results"
