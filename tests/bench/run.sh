#!/usr/bin/env bash
# The benchmark: the same work on a plain folder, bindfs, sshfs, rclone, s3fs and drivefs, in turns,
# everything on this machine. Prints one table: medians, ratios, and whether each bar is met.
#
#   tests/bench/run.sh [WORK...]       create untar list stream random cold small mount idle [all]
#
#   ROUNDS=3       how often every work is done on every peer
#   SCALE=1        a fraction makes everything smaller, for a quick look
#   PEERS="..."    ext4 bindfs sshfs rclone s3fs drivefs [all]
#   DRIVEFS_BIN=   folder of the programs [target/release]
#   TMPDIR=        where everything lies: the disk that is measured [/tmp]
#   RESULTS=FILE   keeps the single results there, as tab-separated values
#
# Exit code 0 when all was measured, whether bars are met or not. docs/BENCHMARKS.md explains the works.
cd "$(dirname "$0")" || exit 1
BENCH_DIR=$PWD
# shellcheck source=../shell/lib.sh
. ../shell/lib.sh
# The language is that of the shell tests; their way to count and to end is not.
trap - ERR
set +e
SUPERSEDED=1
# shellcheck source=peers.sh
. "$BENCH_DIR/peers.sh"
# shellcheck source=works.sh
. "$BENCH_DIR/works.sh"

ROUNDS=${ROUNDS:-3}
SCALE=${SCALE:-1}
ALL_PEERS="ext4 bindfs sshfs rclone s3fs drivefs"
read -r -a peers <<<"${PEERS:-$ALL_PEERS}"
works=("$@")
[ $# -gt 0 ] || read -r -a works <<<"$ALL_WORKS"
for work in "${works[@]}"; do
    [[ " $ALL_WORKS " == *" $work "* ]] || { echo "no work is called $work; there are: $ALL_WORKS" >&2; exit 2; }
done
for peer in "${peers[@]}"; do
    [[ " $ALL_PEERS " == *" $peer "* ]] || { echo "no peer is called $peer; there are: $ALL_PEERS" >&2; exit 2; }
done
results=$T/results.tsv
: >"$results"

# shellcheck disable=SC2317
finish() {
    local rc=$?
    set +e
    cd /
    for peer in "${peers[@]}"; do "down_$peer"; done >/dev/null 2>&1
    [ -z "${RESULTS:-}" ] || cp "$results" "$RESULTS"
    (exit "$rc")
    clean_up
}
trap finish EXIT

# ---- what is needed ----------------------------------------------------------------------------

install_peers
cc -O2 -Wall -Wextra -o "$T/bench" "$BENCH_DIR/bench.c" || exit 1
BENCH=$T/bench
here=()
for peer in "${peers[@]}"; do
    if why=$("has_$peer"); then here+=("$peer"); else echo "$peer: $why"; fi
done
peers=(${here[@]+"${here[@]}"})

describe() {
    local cpu disk
    cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
    disk=$(df --output=fstype "$T" | tail -1)
    echo "$(date -u +%Y-%m-%d), SCALE=$SCALE, $ROUNDS rounds, load before $(cut -d' ' -f1 /proc/loadavg)"
    echo "$(nproc) x ${cpu:-cpu}, $(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB, Linux $(uname -r), $disk"
    echo "$(drivefs --version), $(versions "${peers[@]}")"
}
describe

# ---- in turns ----------------------------------------------------------------------------------

wrong=0
for work in "${works[@]}"; do
    "prepare_$work" || { echo "$work: cannot be prepared" >&2; wrong=$((wrong + 1)); continue; }
    read -r -a takers <<<"$("peers_of_$work")"
    for round in $(seq 1 "$ROUNDS"); do
        for peer in "${peers[@]}"; do
            [[ " ${takers[*]} " == *" $peer "* ]] || continue
            from=$SECONDS
            before=$(wc -l <"$results")
            if "up_$peer"; then
                # A subshell, so that a work ends at its first error and the others go on.
                (
                    set -euo pipefail
                    "work_$work" "$peer" "$("folder_of_$peer")"
                ) 2>"$T/work.err"
                rc=$?
            else
                rc=1
            fi
            if [ "$rc" != 0 ]; then
                wrong=$((wrong + 1))
                echo "$work on $peer failed (round $round, exit code $rc):" >&2
                tail -n 5 "$T/work.err" | sed 's/^/    /' >&2
            fi
            "down_$peer"
            tail -n "+$((before + 1))" "$results" | awk -F'\t' -v r="$round" -v s="$((SECONDS - from))" '
                { out = out "  " $1 " " $3 } END { printf "round %s  %-8s%s  [%d s]\n", r, p ? p : "", out, s }' p="$peer"
        done
    done
    "finish_$work"
done

echo
python3 "$BENCH_DIR/table.py" "$BENCH_DIR/bars.tsv" "$results" "${peers[@]}"
[ "$wrong" = 0 ] || { echo "$wrong works failed" >&2; exit 1; }
exit 0
