#!/usr/bin/env bash
# Installs what the tests and the demonstration need on a Debian machine that has Rust.
# Nothing that is there already is installed again. Called by the other scripts; safe to repeat.
set -euo pipefail

say() { printf '==> %s\n' "$*"; }

die() {
    printf 'setup.sh: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "not root and no sudo: run as root: $*"
    fi
}

has() { command -v "$1" >/dev/null; }

# The server programs stand below /usr/lib/postgresql/VERSION/bin, outside of PATH.
has_postgresql() {
    local postgres bin program
    for postgres in /usr/lib/postgresql/*/bin/postgres; do
        [ -x "$postgres" ] || continue
        bin=${postgres%/*}
        for program in initdb pg_ctl psql pgbench pg_basebackup pg_rewind pg_waldump; do
            [ -x "$bin/$program" ] || continue 2
        done
        return 0
    done
    return 1
}

packages=()
has cc || packages+=(build-essential) # for the C library of zstd
has strace || packages+=(strace)
has jq || packages+=(jq)
has zstd || packages+=(zstd)
has age || packages+=(age) # reads what is encrypted here
has lz4 || packages+=(lz4) # the plain archives of other tools
has openssl || packages+=(openssl) # certificates for the TLS test
{ has setpriv && has mount && has flock; } || packages+=(util-linux mount)

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 -qq -y "$@" </dev/null >/dev/null
}

updated=
install_packages() {
    say "installing: $*"
    has apt-get || die "no apt-get here: install these by hand: $*"
    if [ -z "$updated" ]; then
        apt update
        updated=yes
    fi
    apt install --no-install-recommends "$@"
}

if ! has_postgresql; then
    # The server package would create a cluster "main" and start it.
    if ! dpkg-query -W -f '${Status}' 'postgresql-[0-9]*' 2>/dev/null | grep -q 'ok installed'; then
        settings=/etc/postgresql-common/createcluster.conf
        [ -e "$settings" ] || install_packages postgresql-common
        if ! grep -Eq '^create_main_cluster *= *false' "$settings"; then
            as_root sed -i -E '/^#? *create_main_cluster *=/d' "$settings"
            echo 'create_main_cluster = false' | as_root tee -a "$settings" >/dev/null
        fi
    fi
    packages+=(postgresql postgresql-contrib)
fi

[ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
has_postgresql || die "PostgreSQL's server programs are not below /usr/lib/postgresql/*/bin"

# Its jobs must not run in a rehearsed copy.
newest=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)
newest=${newest%/bin/postgres}
[ -e "$newest/lib/pg_cron.so" ] || install_packages "postgresql-${newest##*/}-cron"
has cargo || die "no cargo: install Rust with rustup (https://rustup.rs), then run this again"

# A real S3-compatible server for the tests: versitygw where Go is present, else moto. Of a version
# that is known to behave, so what else may be on the machine does not count.
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/tools
if ! { [ -x "$tools/bin/versitygw" ] || [ -x "$tools/bin/moto_server" ]; }; then
    mkdir -p "$tools/bin"
    if has go; then
        say "installing: versitygw (Go)"
        GOBIN="$tools/bin" go install github.com/versity/versitygw/cmd/versitygw@v1.8.0 </dev/null 2>&1 | tail -n 5
    fi
    if [ ! -x "$tools/bin/versitygw" ]; then
        say "installing: moto (Python)"
        python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
        python3 -m venv "$tools/moto" </dev/null
        "$tools/moto/bin/pip" install --quiet 'moto[server,s3]==5.2.5' </dev/null
        ln -sf ../moto/bin/moto_server "$tools/bin/moto_server"
    fi
fi

# promtool checks the alert rules. Only it is taken of the package, which would start a server.
if ! { has promtool || [ -x "$tools/bin/promtool" ]; } && has apt-get; then
    say "unpacking: promtool (of the package prometheus)"
    mkdir -p "$tools/bin"
    scratch=$(mktemp -d)
    download() { (cd "$scratch" && apt-get -qq download prometheus >/dev/null 2>&1); }
    # Without this machine's lists of packages, or with old ones, the second attempt has new ones.
    if download || { as_root apt-get -qq update >/dev/null 2>&1 && download; }; then
        dpkg-deb --fsys-tarfile "$scratch"/prometheus_*.deb | tar -x -C "$scratch" ./usr/bin/promtool
        mv "$scratch/usr/bin/promtool" "$tools/bin/promtool"
    else
        say "no promtool: the alert rules are not checked"
    fi
    rm -r "$scratch"
fi
