#!/bin/sh
# Simulated drives without end, or as many as told: `tests/soak/sim.sh [FIRST [COUNT [CHUNK]]]`.
# Stops at the first chunk with a failure, whose seeds are printed and replay exactly:
# `DRIVEFS_SIM_SEEDS=17..18 cargo test --test it sim`. Tells how many ran.
set -eu
cd "$(dirname "$0")/../.."
first=${1:-2000}
count=${2:-1000000}
chunk=${3:-10000}
from=$first
end=$((first + count))
began=$(date +%s)
while [ "$from" -lt "$end" ]; do
    to=$((from + chunk))
    [ "$to" -le "$end" ] || to=$end
    if ! DRIVEFS_SIM_SEEDS="$from..$to" cargo test -q -p drivefs --test it sim:: -- --nocapture; then
        echo "a seed of $from..$to failed; $((from - first)) ran before without a failure" >&2
        exit 1
    fi
    from=$to
    echo "$((from - first)) seeds ran in $(($(date +%s) - began)) s, none failed"
done
