#!/usr/bin/env bash
# Lives of an archive, simulated, for as long as asked: scripts/torture.sh --minutes N [--seed S] [--programs]
# A life that breaks a promise is printed, shrunk to its fewest steps, as a test for tests/life/known.rs.
# --programs: with the real programs, killed at random moments, instead of the library.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    echo "usage: scripts/torture.sh --minutes N [--seed S] [--programs]" >&2
    exit 2
}

minutes='' seed=$((RANDOM * 32768 + RANDOM)) test=no_life_breaks_a_promise
while [ $# -gt 0 ]; do
    case "$1" in
        --minutes) minutes=${2:-} && shift ;;
        --seed) seed=${2:-} && shift ;;
        --programs) test=no_life_of_the_real_programs_breaks_a_promise ;;
        *) usage ;;
    esac
    shift
done
[[ $minutes =~ ^[0-9]+$ && $seed =~ ^[0-9]+$ ]] || usage

export WAL_ARCHIVE_LIFE_SECONDS=$((minutes * 60)) WAL_ARCHIVE_LIFE_SEED=$seed WAL_ARCHIVE_LIFE_ALL=1
exec cargo test --locked --test life -- --nocapture "$test" </dev/null
