#!/usr/bin/env bash
# Kills wal-archive backup and restore at random moments, so often each: scripts/backup_kills.sh COUNT
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[[ ${1:-} =~ ^[0-9]+$ && $# -eq 1 ]] || {
    echo "usage: scripts/backup_kills.sh COUNT" >&2
    exit 2
}

export WAL_ARCHIVE_BACKUP_KILLS=$1
exec scripts/test.sh --test postgres -- --nocapture backup_kills::
