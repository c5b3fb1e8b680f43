#!/usr/bin/env bash
# --strict: what was closed on one device is seen by whoever opens it afterwards on another.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

start_server
add_user me@example.org
for name in alice bob; do
    device "$name"
    umount_device "$name" >/dev/null
    check "$name mounts with --strict" mount_device "$name" --strict
done
A=$T/alice
B=$T/bob

# ---- one after the other: no sync, no waiting
printf 'first' >"$A/a.txt"
same "what was closed is read at once" "$(cat "$B/a.txt")" first
printf 'second' >"$B/a.txt"
same "also where it was read before" "$(cat "$A/a.txt")" second
test ! -e "$B/new.txt"
printf 'here' >"$A/new.txt"
same "a name that was not there a moment ago" "$(cat "$B/new.txt")" here
cp "$A/new.txt" "$A/.tmp"
printf ' and more' >>"$A/.tmp"
mv "$A/.tmp" "$A/new.txt"
sync -f "$A/new.txt"
printf 'x' >"$A/barrier"
same "a file that was replaced" "$(cat "$B/new.txt")" "here and more"
random_file "$T/large" 20
cp "$T/large" "$A/large"
check "a large one" cmp "$T/large" "$B/large"
mkdir -p "$A/deep/er"
printf 'x' >"$A/deep/er/f"
same "in a folder that was made with it" "$(cat "$B/deep/er/f")" x

# ---- two writers that take turns by a lock in a third place
printf 0 >"$A/count"
add() {
    local mount=$1 n
    for _ in $(seq 1 40); do
        (
            flock 9
            n=$(cat "$mount/count")
            printf '%s' "$((n + 1))" >"$mount/count"
        ) 9>"$T/lock" || return 1
    done
}
add "$A" &
one=$!
add "$B" &
two=$!
check "the first writer ends" wait "$one"
check "the second writer ends" wait "$two"
same "no turn is lost, on the first device" "$(cat "$A/count")" 80
same "nor on the second" "$(cat "$B/count")" 80
sync_device alice
sync_device bob
same "no conflicts came up" "$(status alice '.conflicts | length')$(status bob '.conflicts | length')" 00

# ---- without the server it cannot keep its word, and says so
offline
begin=$(now_ms)
refused "open fails" 'Input/output error' cat "$B/a.txt"
at_most "ms until it failed" "$(($(now_ms) - begin))" 6000
refused "open for writing, too" 'Input/output error' dd if=/dev/null of="$A/a.txt" conv=notrunc
check "what is not opened works" ls -l "$B"
online
check "with the server it goes on" wait_until 15 cat "$B/a.txt"
check "on the other device, too" wait_until 15 cat "$A/a.txt"
same "with what is there" "$(cat "$B/a.txt")" second

# ---- the server goes away between open and close
cat >"$T/away.py" <<'PY'
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, b"kept")
print("written", flush=True)
sys.stdin.readline()
try:
    os.close(fd)
except OSError as e:
    print("close:", os.strerror(e.errno))
PY
coproc AWAY { python3 "$T/away.py" "$A/while-away"; }
read -r said <&"${AWAY[0]}"
offline
printf '\n' >&"${AWAY[1]}"
read -r said <&"${AWAY[0]}"
same "close tells" "$said" "close: Input/output error"
online
check "what was written is not lost" sync_device alice 60
sync_device bob
same "and arrives" "$(cat "$B/while-away")" kept
