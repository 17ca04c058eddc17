#!/usr/bin/env bash
# Makes a report of an archive with everything in it and looks at it in Chromium, wide and narrow, light and
# dark; checks that it is valid HTML (vnu), and its contrast and labels (axe). Installs what is missing.
#   --sample   makes docs/report-sample.html and its picture anew
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1-}" in
"" | --sample) ;;
*)
    printf 'usage: scripts/browser.sh [--sample]\n' >&2
    exit 2
    ;;
esac

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

packages=()
command -v chromium >/dev/null || packages+=(chromium fonts-dejavu-core)
command -v java >/dev/null || packages+=(default-jre-headless)
command -v npm >/dev/null || packages+=(nodejs npm)
if [ ${#packages[@]} -gt 0 ]; then
    printf '==> installing: %s\n' "${packages[*]}"
    as_root apt-get -qq update >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y install --no-install-recommends \
        "${packages[@]}" </dev/null >/dev/null
fi

tools=$PWD/target/tools/browser
wanted="puppeteer-core@24.8.2 axe-core@4.14.1 vnu-jar@26.9.27"
if [ "$(cat "$tools/complete" 2>/dev/null)" != "$wanted" ]; then
    printf '==> installing: %s\n' "$wanted"
    rm -rf "$tools"
    mkdir -p "$tools"
    # shellcheck disable=SC2086 # three words
    npm install --prefix "$tools" --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --silent $wanted </dev/null
    echo "$wanted" >"$tools/complete"
fi

report=$PWD/target/report
rm -rf "$report"
mkdir -p "$report"
WAL_ARCHIVE_REPORT_SAMPLE=$report/sample.html \
    cargo test --locked --quiet --test cli -- --exact report::a_report_of_an_archive_with_everything_in_it_shows_everything </dev/null
[ -s "$report/sample.html" ] || {
    printf 'browser.sh: no report was made\n' >&2
    exit 1
}
java -jar "$tools/node_modules/vnu-jar/build/dist/vnu.jar" --Werror --stdout --format gnu "$report/sample.html"
BROWSER_TOOLS=$tools node scripts/browser/report.mjs "$report/sample.html" "$report"

if [ "${1-}" = --sample ]; then
    cp "$report/sample.html" docs/report-sample.html
    cp "$report/report-top.png" docs/report-sample.png
    ls -l docs/report-sample.html docs/report-sample.png
fi
