# "just" lists these.
_default:
    @just --list --unsorted

# What CI runs: format, clippy, every test, documentation
check:
    .ci/run

# Format the source
fmt:
    cargo fmt

# Clippy and shellcheck, warnings are errors
lint:
    cargo clippy --all-targets --locked -- -D warnings
    shellcheck .ci/run scripts/*.sh

# Every test, real PostgreSQL included; arguments go to "cargo test"
test *args:
    scripts/test.sh {{args}}

# Simulated lives of an archive: just torture --minutes 10
torture *args:
    scripts/torture.sh {{args}}

# Documentation of the library, warnings are errors
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

# Licences, bans and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny --locked check licenses bans sources

# Archive, destroy and recover a scratch PostgreSQL
demo:
    scripts/demo.sh
