#!/usr/bin/env bash
# kill -9 of the client and of the server in mid-copy: nothing that was acknowledged is lost,
# nothing comes twice. Heavy.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

big_tree "$T/tree"
start_server
add_user me@example.org
device alice
M=$T/alice

lines() { [ "$(wc -l <"$1")" -ge "$2" ]; }
copy() { python3 "$HERE/writer.py" "$T/tree" "$M/$1" "$T/$1.log" >"$T/$1.out" 2>&1; }

# ---- the client dies, twice: early, and while uploads are under way
for round in one two; do
    copy "$round" &
    writer=$!
    wait_until 60 test -s "$T/$round.log"
    if [ "$round" = one ]; then wait_until 60 lines "$T/one.log" 500; else wait_until 60 lines "$T/two.log" 4000; fi
    kill_client alice
    wait "$writer"
    note "$(cat "$T/$round.out")"
    check "the writer was stopped by the kill ($round)" grep -q stopped "$T/$round.out"
    check "the drive mounts again over the dead mount ($round)" mount_device alice
    check "every file that was closed is here ($round)" python3 "$HERE/verify.py" "$T/tree" "$M/$round" "$T/$round.log"
done
# A large file that is open and written while the client dies: every write that returned is there.
cat >"$T/stream.py" <<'PY'
import os, random, sys
path, log = sys.argv[1:3]
rng = random.Random(7)
f = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
with open(log, "w") as out:
    written = synced = 0
    try:
        while written < 1 << 30:
            os.write(f, rng.randbytes(1 << 20))
            written += 1 << 20
            if written % (16 << 20) == 0:
                os.fsync(f)
                synced = written
            print(written, synced, file=out, flush=True)
    except OSError:
        pass
PY
cat >"$T/prefix.py" <<'PY'
import os, random, sys
path, written, synced = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(7)
size = os.path.getsize(path)
good = 0
with open(path, "rb") as f:
    while good + (1 << 20) <= size and f.read(1 << 20) == rng.randbytes(1 << 20):
        good += 1 << 20
print(f"write acknowledged {written}, fsync {synced}; {good} of {size} bytes are right")
sys.exit(0 if written >= synced > 0 and good >= written and size <= written + (1 << 20) else 1)
PY
python3 "$T/stream.py" "$M/stream.bin" "$T/stream.log" &
writer=$!
wait_until 60 lines "$T/stream.log" 100
kill_client alice
wait "$writer"
mount_device alice
read -r written synced <<<"$(tail -n 1 "$T/stream.log")"
check "every write that returned is there, in an open file too" python3 "$T/prefix.py" "$M/stream.bin" "$written" "$synced"
note "$(cat "$T/.check")"
check "all of it reaches the server" sync_device alice
device bob
for round in one two; do
    check "every file that was closed is on the second device ($round)" \
        python3 "$HERE/verify.py" "$T/tree" "$T/bob/$round" "$T/$round.log"
done
same_tree "both devices show the same" "$M" "$T/bob"
check "with the same bytes" diff -r --no-dereference "$M" "$T/bob"

# ---- the server dies, three times in one copy
copy three &
writer=$!
for n in 500 2500 5000; do
    wait_until 120 lines "$T/three.log" "$n" || die "the copy does not go on ($n)"
    kill_server
    wait_until 60 lines "$T/three.log" $((n + 300)) ||
        fail "the mount does not go on while the server is dead"
    online
done
wait "$writer"
check "the copy never noticed" grep -q '^all ' "$T/three.out"
check "the mount catches up when the server is back" sync_device alice
check "every file is here" python3 "$HERE/verify.py" "$T/tree" "$M/three" "$T/three.log"
check "the second device takes it in" sync_device bob
same_tree "nothing doubled, nothing lost" "$M" "$T/bob"
check "and every byte is right" python3 "$HERE/verify.py" "$T/tree" "$T/bob/three" "$T/three.log"
same "no conflicts came up" "$(status alice '.conflicts | length')$(status bob '.conflicts | length')" 00

# ---- the server dies while a large file goes up
random_file "$T/big.bin" 300
cp "$T/big.bin" "$M/big.bin"
as alice drivefs sync --timeout 100 >"$T/sync.out" 2>&1 &
syncing=$!
before=$(sent_bytes alice)
sent_some() { [ "$(sent_bytes alice)" -gt $((before + 20000000)) ]; }
wait_until 30 sent_some || note "the upload was too quick to be cut"
kill_server
sleep 0.3
online
check "sync ends after the server's death in an upload" wait "$syncing"
check "the second device takes the large file in" sync_device bob
check "the large file is right on the second device" cmp "$T/big.bin" "$T/bob/big.bin"

# ---- a server whose data was copied while it ran dead is whole
kill_server
online
check "the server starts after kill -9 and serves" sync_device alice
umount_device alice >/dev/null
rm -rf "$T/alice.home/state.db"* "$T/alice.home/data"
mount_device alice
same_tree "a replica made anew shows the same" "$M" "$T/bob"
