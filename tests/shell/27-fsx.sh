#!/usr/bin/env bash
# fsx: random reads, writes, mappings, truncations, holes and copies of one file, each compared
# with what it must be. Also while the server comes and goes, and with a small cache.
#
# LONG=1: ten seeds of 100,000 operations, or those of $SEEDS.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_tool fsx

if [ "${LONG:-}" ]; then
    read -r -a seeds <<<"${SEEDS:-1 2 3 4 5 6 7 8 9 10}"
    ops=100000
else
    seeds=(1 2)
    ops=8000
fi

two_devices
A=$T/alice

# fsx_run NAME SEED: prints its last words; a mismatch leaves the file's history there.
fsx_run() { fsx -f "$HERE/fsx.toml" -N "$ops" -S "$2" -P "$T" "$A/$1"; }

for seed in "${seeds[@]}"; do
    check "fsx, seed $seed, $ops operations" fsx_run "plain-$seed" "$seed"
done

# ---- the server is cut off and comes back, again and again
fsx_run cut 11 >"$T/cut.out" 2>&1 &
fsx=$!
HELPERS+=("$fsx")
cuts=0
while kill -0 "$fsx" 2>/dev/null; do
    kill_server
    sleep 0.7
    online
    sleep 1.5
    cuts=$((cuts + 1))
done
check "fsx while the server was killed $cuts times" wait "$fsx"
[ "$FAILED" = 0 ] || tail -n 40 "$T/cut.out"

# ---- a cache much smaller than what is worked on
umount_device alice
mount_device alice --cache-size 64MiB
random_file "$A/large" 96
sync_device alice
pass_by() { cat "$A/large" >"$T/large"; }
pass_by &
reader=$!
check "fsx with a cache of 64 MiB" fsx_run small 12
check "a file larger than the cache is read meanwhile" wait "$reader"
check "and is right" cmp "$T/large" "$A/large"

check "sync" sync_device alice
sync_device bob
for name in "${seeds[@]/#/plain-}" cut small; do
    check "$name is the same on the second device" cmp "$A/$name" "$T/bob/$name"
done
same "no conflicts" "$(status alice '.conflicts | length')$(status bob '.conflicts | length')" 00
