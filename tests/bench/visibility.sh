#!/usr/bin/env bash
# How soon is on device B what was closed on device A? Idle, and while a third device uploads 10,000 files;
# everything on this machine. Prints one table; bars: 99 % within 150 ms idle, 500 ms under load.
#
#   tests/bench/visibility.sh
#   SAMPLES=200 FILES=10000 tests/bench/visibility.sh
#
# On a quiet machine only. Exit code 0 when all was measured, whether bars are met or not.
# shellcheck source=../shell/lib.sh
. "$(dirname "$0")/../shell/lib.sh"
SUPERSEDED=1
BENCH_DIR=$HERE/../bench
SAMPLES=${SAMPLES:-200}
FILES=${FILES:-10000}

# row TEXT FILE BAR: median, 99 %, worst of the samples in FILE.
row() {
    sort -n "$2" | awk -v text="$1" -v bar="$3" '{ ms[NR] = $1 } END {
        if (!NR) { printf "%-28s no sample\n", text; exit }
        at = int(NR * 0.99 + 0.999999)
        printf "%-28s %8d %8.1f %8.1f %8.1f %8d  %s\n", text, NR, ms[int((NR + 1) / 2)], ms[at], ms[NR], bar,
            ms[at] < bar ? "met" : "missed"
    }'
}

start_server
add_user me@example.org
device alice
device bob
device carol
mkdir "$T/alice/ab" "$T/alice/load"
for name in alice bob carol; do sync_device "$name"; done
python3 "$BENCH_DIR/visibility.py" "$T/alice/ab" "$T/bob/ab" "$SAMPLES" >"$T/idle"
mkdir "$T/tree"
python3 - "$T/tree" "$FILES" <<'PY'
import os, sys
for i in range(int(sys.argv[2])):
    folder = f"{sys.argv[1]}/{i // 200}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{i}", "wb") as f:
        f.write(os.urandom(4096))
PY
begin=$(now_ms)
{
    cp -r "$T/tree" "$T/carol/load/"
    sync_device carol 1200
    touch "$T/loaded"
} &
loader=$!
python3 "$BENCH_DIR/visibility.py" "$T/alice/ab" "$T/bob/ab" 100000 "$T/loaded" >"$T/busy"
wait "$loader"
took=$(($(now_ms) - begin))
echo "$(date -u +%Y-%m-%d), $(nproc) cores, Linux $(uname -r), $(drivefs --version), load now $(cut -d' ' -f1 /proc/loadavg)"
printf '%-28s %8s %8s %8s %8s %8s\n' "close() on A to read on B" samples "median" "99 %" "worst" "bar ms"
row "idle" "$T/idle" 150
row "third device: $FILES files" "$T/busy" 500
echo "the upload took $((took / 1000)).$((took % 1000 / 100)) s"
