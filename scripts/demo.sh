#!/usr/bin/env bash
# Archives a real PostgreSQL into a local directory, base backup included, destroys it, and recovers it: to a
# point in time, and to the end. Installs what is missing, ends by itself, leaves nothing behind.
#
#   scripts/demo.sh             a plain archive
#   scripts/demo.sh --encrypt   an encrypted one; the server that archives holds a public key only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }

die() {
    printf 'demo.sh: %s\n' "$*" >&2
    exit 1
}

encrypt=false
case "${1-}" in
    '') ;;
    --encrypt) encrypt=true ;;
    *) die "unknown argument: $1" ;;
esac

# --- programs ---------------------------------------------------------------------------------

scripts/setup.sh

say "building"
cargo build --release --locked --bins
target=$(cargo metadata --locked --no-deps --format-version 1 | jq -r .target_directory)

postgres=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)
bin=${postgres%/*}

# --- a scratch place ----------------------------------------------------------------------------

# PostgreSQL refuses to run as root; its own user needs a place it can reach, programs included.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/wal-demo.XXXXXX")
data="$scratch/data"
archive="$scratch/archive"

as_postgres=()
if [ "$(id -u)" -eq 0 ]; then
    as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups --)
fi

pg() {
    (cd "$scratch" && HOME=$scratch PATH="$bin:$PATH" LC_ALL=C "${as_postgres[@]}" "$@" </dev/null)
}

finish() {
    local status=$? directory
    trap - EXIT
    for directory in "$data" "$scratch/to-a-time" "$scratch/to-the-end"; do
        [ -e "$directory/postmaster.pid" ] || continue
        pg pg_ctl stop -D "$directory" -m immediate -w >/dev/null 2>&1 || true
    done
    if [ "$status" -ne 0 ]; then
        for directory in "$scratch"/*.log; do
            [ -e "$directory" ] || continue
            printf '\n--- the end of %s\n' "${directory##*/}" >&2
            tail -n 25 "$directory" >&2
        done
    fi
    rm -rf "$scratch"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir "$scratch/bin" "$archive"
install -m 0755 "$target/release/wal-push" "$target/release/wal-fetch" "$target/release/wal-archive" "$scratch/bin"
if [ "$(id -u)" -eq 0 ]; then
    chown postgres: "$scratch" "$archive"
fi
chmod 0755 "$scratch"

# The settings of this machine's own archive, if it has one, are none of the demonstration's.
for variable in ${!WAL_ARCHIVE@} ${!WALG_@} ${!PG@}; do
    unset "$variable"
done
printf 'archive = ["%s"]\n' "$archive" >"$scratch/wal-archive.toml"
cp "$scratch/wal-archive.toml" "$scratch/restore.toml"
if $encrypt; then
    recipient=$(pg "$scratch/bin/wal-archive" keygen "$scratch/identity")
    printf '[encryption]\nrecipients = ["%s"]\n' "$recipient" >>"$scratch/wal-archive.toml"
    printf '[encryption]\nidentity_file = "%s"\n' "$scratch/identity" >>"$scratch/restore.toml"
fi
archive_command="$scratch/bin/wal-push --config $scratch/wal-archive.toml %p"

# --- helpers --------------------------------------------------------------------------------------

start() { # DIRECTORY
    pg pg_ctl start -D "$1" -w -t 120 -l "$scratch/${1##*/}.log" -o "-k $scratch" >/dev/null ||
        die "the server in $1 did not start"
}

sql() { pg psql -h "$scratch" -U postgres -d postgres -X -q -A -t -v ON_ERROR_STOP=1 -c "$1"; }

count() { sql 'select count(*) from pgbench_history'; }

load() { # TRANSACTIONS
    pg pgbench -h "$scratch" -U postgres -n -c 2 -j 2 -t "$(($1 / 2))" postgres >"$scratch/pgbench.log" 2>&1 ||
        die "pgbench failed: $(cat "$scratch/pgbench.log")"
}

until_true() { # SECONDS QUERY
    local end=$((SECONDS + $1))
    until [ "$(sql "$2" 2>/dev/null)" = t ]; do
        [ $SECONDS -lt $end ] || die "waited $1 s in vain for: $2"
        sleep 0.2
    done
}

recover() { # DIRECTORY [OPTION]
    pg "$scratch/bin/wal-archive" restore --config "$scratch/restore.toml" "$1" "${@:2}" >"$scratch/restore.log" 2>&1 ||
        die "nothing was restored: $(cat "$scratch/restore.log")"
    start "$1"
    until_true 120 'select not pg_is_in_recovery()'
}

# --- the demonstration ------------------------------------------------------------------------------

say "starting a scratch PostgreSQL $("$postgres" --version | awk '{print $3}'), which archives into a local directory"
pg initdb -D "$data" -U postgres -A trust --no-sync >/dev/null
cat >>"$data/postgresql.conf" <<END
listen_addresses = ''
archive_mode = on
archive_command = '$archive_command'
log_min_messages = warning
END
note "wal-archive init"
pg "$scratch/bin/wal-archive" init --config "$scratch/wal-archive.toml" --pgdata "$data" || die "no archive was made"
start "$data"
note "archive_command = 'wal-push %p'"
if $encrypt; then note "recipients = [\"$recipient\"], and no private key"; fi

say "writing WAL with pgbench"
pg pgbench -h "$scratch" -U postgres -i -q -s 5 postgres >/dev/null 2>&1 || die "pgbench -i failed"
load 2000
note "$(count) rows in pgbench_history"

say "taking a base backup into the archive"
note "wal-archive backup"
pg "$scratch/bin/wal-archive" backup --config "$scratch/wal-archive.toml" --checkpoint fast --label demo \
    --connection "host=$scratch user=postgres dbname=postgres" || die "no backup was taken"

say "writing more"
load 2000
rows_at_time=$(count)
sleep 1
time=$(sql 'select clock_timestamp()')
sleep 1
note "$rows_at_time rows at $time"

say "writing still more, after that time"
load 2000
rows_at_end=$(count)
last=$(sql 'select pg_walfile_name(pg_switch_wal())')
until_true 120 "select last_archived_wal >= '$last' from pg_stat_archiver where last_archived_wal !~ '[.]'"
failed=$(sql 'select failed_count from pg_stat_archiver')
note "$rows_at_end rows at the end; everything up to $last is archived, $failed failures"

say "destroying the server: stopped without a checkpoint, data directory deleted"
pg pg_ctl stop -D "$data" -m immediate -w >/dev/null
rm -rf "$data"

say "recovering the base backup to $time"
note "wal-archive restore DIRECTORY --target-time '$time' --target-action promote"
recover "$scratch/to-a-time" --target-time "$time" --target-action promote
found_at_time=$(count)
pg pg_ctl stop -D "$scratch/to-a-time" -m fast -w >/dev/null
note "$found_at_time rows"

say "recovering the same base backup to the end of the archive"
note "wal-archive restore DIRECTORY"
recover "$scratch/to-the-end"
found_at_end=$(count)
pg pg_ctl stop -D "$scratch/to-the-end" -m fast -w >/dev/null
note "$found_at_end rows"

say "the archive"
(cd "$archive" && ls -l . wal_005 backups/*)
object="$archive/wal_005/$last.zst"
say "one object, read with stock tools"
if $encrypt; then
    sealed="$archive/wal_005/$last.age"
    note "without the key: sed -n 2p | cut -d' ' -f3 | jq"
    sed -n 2p "$sealed" | cut -d ' ' -f 3 | jq .
    note "age -d -i identity"
    object="$scratch/object.zst"
    age -d -i "$scratch/identity" "$sealed" >"$object"
fi
note "zstd -l"
zstd -l "$object"
note "tail -c 248 | jq"
tail -c 248 "$object" | jq .
note "zstd -dc | sha256sum"
sum=$(zstd -dc "$object" | sha256sum | cut -d ' ' -f 1)
echo "$sum"
[ "$sum" = "$(tail -c 248 "$object" | jq -r .sha256)" ] || die "the trailer says another sha256"

say "rows in pgbench_history"
printf '    %-28s %10s %10s\n' 'recovered to' expected found
printf '    %-28s %10s %10s\n' 'the time' "$rows_at_time" "$found_at_time"
printf '    %-28s %10s %10s\n' 'the end' "$rows_at_end" "$found_at_end"
[ "$rows_at_time $rows_at_end" = "$found_at_time $found_at_end" ] || die "the numbers differ"
say "done: both are exact"
