#!/usr/bin/env bash
# Runs all tests: with cargo-nextest where it is installed, else with cargo alone. What could not be shown on this
# machine is listed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

GUREUM_SKIPPED=$(mktemp)
export GUREUM_SKIPPED
trap 'rm -f "$GUREUM_SKIPPED"' EXIT

run() {
    if cargo nextest --version >/dev/null 2>&1; then
        # By variables, which versions that do not know them ignore.
        NEXTEST_STATUS_LEVEL=fail NEXTEST_SHOW_PROGRESS=none cargo nextest run --workspace --no-fail-fast "$@"
    else
        cargo test --workspace --tests --no-fail-fast --quiet "$@"
    fi
}

status=0
run "$@" || status=$?
if [[ -s "$GUREUM_SKIPPED" ]]; then
    {
        printf '\n!!! %d proofs did NOT run on this machine and show nothing:\n' "$(wc -l <"$GUREUM_SKIPPED")"
        sort "$GUREUM_SKIPPED" | sed 's/^/!!!   /'
        printf '!!! They need root, loop devices, network namespaces and the packages that `make setup` installs.\n\n'
    } >&2
fi
exit "$status"
