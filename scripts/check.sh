#!/usr/bin/env bash
# Runs all tests: with cargo-nextest where it is installed, else with cargo alone.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo nextest --version >/dev/null 2>&1; then
    # By variables, which versions that do not know them ignore.
    export NEXTEST_STATUS_LEVEL=fail NEXTEST_SHOW_PROGRESS=none
    exec cargo nextest run --workspace --no-fail-fast "$@"
fi
exec cargo test --workspace --tests --no-fail-fast --quiet "$@"
