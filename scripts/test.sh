#!/usr/bin/env bash
# Installs what is missing and runs every test, those with a real PostgreSQL included.
# Arguments go to "cargo test".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh

# No test may pass by skipping itself.
export WAL_ARCHIVE_REQUIRE_ALL=1

# Messages are compared with their snapshots, which only a person writes.
export INSTA_UPDATE=no INSTA_WORKSPACE_ROOT="$PWD"

# Some tests mount small file systems, and servers are started as the user "postgres": root does
# that. Cargo itself never runs through sudo.
runner=()
if [ "$(id -u)" -ne 0 ]; then
    through="'sudo', 'env'"
    for variable in ${!WAL_ARCHIVE_@} ${!INSTA_@}; do
        through+=", '$variable=${!variable}'"
    done
    runner=(--config "target.'cfg(unix)'.runner = [$through]")
fi

exec cargo test --locked --no-fail-fast "${runner[@]}" "$@" </dev/null
