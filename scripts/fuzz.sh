#!/usr/bin/env bash
# Runs each fuzz target for so many seconds, from the committed seeds and what earlier runs have found.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly SECONDS_EACH=${1:?usage: scripts/fuzz.sh SECONDS [TARGET...]}
shift
# cargo-fuzz instruments the build with flags that the stable compiler keeps for this variable.
export RUSTC_BOOTSTRAP=1

if (($# > 0)); then
    targets=("$@")
else
    mapfile -t targets < <(cargo fuzz list)
fi
((${#targets[@]} > 0)) || {
    echo "fuzz: there is no target" >&2
    exit 1
}
cargo fuzz build --sanitizer none

for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    log=$(mktemp)
    if cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$SECONDS_EACH" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1; then
        printf 'fuzz: %s: %s inputs, nothing found\n' "$target" \
            "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
        rm -f "$log"
    else
        tail -n 40 "$log" >&2
        echo "fuzz: $target failed; the whole output is in $log" >&2
        exit 1
    fi
done
