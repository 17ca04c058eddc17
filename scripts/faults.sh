#!/usr/bin/env bash
# Injects N failing system calls into wal-push and N into wal-fetch: EIO, ENOSPC, EINTR, ENOMEM and
# others, each once, in every call that they make. By default all there are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh
export WAL_ARCHIVE_FAULTS=${1:-1000000} WAL_ARCHIVE_REQUIRE_ALL=1
exec cargo test --locked --test cli faults -- --nocapture </dev/null
