#!/usr/bin/env bash
# Runs all tests: with cargo-nextest where it is installed, else with cargo alone.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --workspace --no-fail-fast --status-level fail --show-progress none "$@"
fi
exec cargo test --workspace --tests --no-fail-fast --quiet "$@"
