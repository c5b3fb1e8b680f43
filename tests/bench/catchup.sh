#!/usr/bin/env bash
# What does a device pay that was away? B is unmounted while A makes CHANGES changes on NODES files; then B
# comes back. The same with one change a file: catching up costs by files that changed, not by changes.
#
#   tests/bench/catchup.sh
#   CHANGES=100000 NODES=5000 tests/bench/catchup.sh
#
# Prints one table. A takes some minutes for the changes.
# shellcheck source=../shell/lib.sh
. "$(dirname "$0")/../shell/lib.sh"
SUPERSEDED=1
CHANGES=${CHANGES:-100000}
NODES=${NODES:-5000}

cat >"$T/change.py" <<'PY'
import os, subprocess, sys
folder, nodes, rounds, home = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
for r in range(rounds):
    for i in range(nodes):
        with open(f"{folder}/{i // 100}/{i}", "wb") as f:
            f.write(f"{r} {i} ".encode() * 40)
    # Each round is on the server before the next one: none of the changes is skipped.
    subprocess.run(["drivefs", "sync", "--timeout", "1200"], check=True, env=dict(os.environ, DRIVEFS_HOME=home))
PY

start_server
add_user me@example.org --quota 100GiB
device alice
device bob
for i in $(seq 0 $(((NODES - 1) / 100))); do mkdir -p "$T/alice/d/$i"; done
python3 "$T/change.py" "$T/alice/d" "$NODES" 1 "$T/alice.home"
sync_device bob 1200
echo "$(date -u +%Y-%m-%d), $(nproc) cores, Linux $(uname -r), $(drivefs --version), load now $(cut -d' ' -f1 /proc/loadavg)"
printf '%10s %10s %14s %16s %16s\n' changes files "A's minutes" "B's seconds" "B received KiB"
for rounds in 1 $((CHANGES / NODES)); do
    umount_device bob >/dev/null
    begin=$(now_ms)
    python3 "$T/change.py" "$T/alice/d" "$NODES" "$rounds" "$T/alice.home"
    made=$(($(now_ms) - begin))
    begin=$(now_ms)
    mount_device bob
    sync_device bob 1200
    took=$(($(now_ms) - begin))
    printf '%10d %10d %14s %16s %16d\n' $((rounds * NODES)) "$NODES" "$((made / 60000)).$((made % 60000 / 6000))" \
        "$((took / 1000)).$((took % 1000 / 100))" "$(($(received_bytes bob) / 1024))"
    [ "$(cat "$T/bob/d/0/7")" = "$(cat "$T/alice/d/0/7")" ] || die "B does not have the newest"
done
same_tree "both show the same" "$T/alice" "$T/bob"
