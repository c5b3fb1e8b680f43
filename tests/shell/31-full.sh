#!/usr/bin/env bash
# A full server disk and a used-up quota: a clear error in status, nothing lost, goes on later.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

reason_says() { { status alice '.reason // empty'; status alice '.queue[].error // empty'; } | grep -Eiq "$1"; }

# ---- the disk of the server is full (as far as --min-free goes)
start_server
add_user me@example.org
device alice
M=$T/alice
printf 'before' >"$M/before.txt"
sync_device alice
offline
free=$(df -B1 --output=avail "$T" | tail -n 1)
SERVER_ARGS=(--min-free "$((free + (1 << 40)))")
online
random_file "$T/one.bin" 20
cp "$T/one.bin" "$M/one.bin"
printf 'small' >"$M/small.txt"
check "status tells of the full disk" wait_until 30 reason_says 'space|full|free|507|storage'
note "it says: $(status alice '[.reason // empty, .queue[].error // empty] | unique | join(" | ")')"
refused "drivefs sync fails and says why" 'space|full|free|storage' sync_device alice 5
check "the file is read here all the same" cmp "$T/one.bin" "$M/one.bin"
check "removal works on a full server" bash -c "rm '$M/before.txt'"
same "the queue holds the files" "$(status alice '[.queue[].path] | contains(["one.bin", "small.txt"])')" true
kill_client alice
mount_device alice
check "nothing is lost by a crash meanwhile" cmp "$T/one.bin" "$M/one.bin"
offline
SERVER_ARGS=()
online
check "it goes on when there is room" sync_device alice 60
device bob
check "the second device has it" cmp "$T/one.bin" "$T/bob/one.bin"
same "status is clean again" "$(status alice '[.queue_files, (.queue | length)] | join(" ")')" "0 0"

# ---- the disk of the server is really full: its data on a small file system of its own
if [ "$(id -u)" = 0 ] && mkdir "$T/small" && mount -t tmpfs -o size=48m tmpfs "$T/small"; then
    trap 'umount_device carol >/dev/null 2>&1; umount -l "$T/small"; clean_up' EXIT
    SERVER_DATA=$T/small/server
    offline
    PORT=0
    online
    add_user carol@example.org
    # The server keeps 256 MiB free by default, which this disk never had.
    offline
    SERVER_ARGS=(--min-free 0)
    online
    device carol carol@example.org
    random_file "$T/big.bin" 60
    for n in 1 2 3; do
        head -c $((n * 1000000)) "$T/big.bin" >"$T/carol/file$n"
    done
    sync_device carol
    cp "$T/big.bin" "$T/carol/big.bin"
    full() { { status carol '.reason // empty'; status carol '.queue[].error // empty'; } | grep -Eiq 'space|full|free|storage'; }
    check "status tells of a disk that is really full" wait_until 30 full
    note "it says: $(status carol '[.reason // empty, .queue[].error // empty] | unique | join(" | ")')"
    check "the server still answers" curl -fsS "$URL/healthz"
    check "files from before are read" cmp -n 3000000 "$T/carol/file3" "$T/big.bin"
    kill_server
    online
    check "the server starts on a full disk" curl -fsS "$URL/healthz"
    mount -o remount,size=400m "$T/small"
    check "it goes on when the disk has grown" sync_device carol 90
    device dave carol@example.org
    check "the second device has every byte" cmp "$T/big.bin" "$T/dave/big.bin"
    check "and the files from before" cmp -n 3000000 "$T/dave/file3" "$T/big.bin"
    umount_device carol >/dev/null
    umount_device dave >/dev/null
    offline
    umount "$T/small"
    trap clean_up EXIT
    SERVER_DATA=$T/server
    SERVER_ARGS=()
    PORT=0
    online
fi

# ---- the quota is used up
add_user poor@example.org --quota 3MiB
device poor poor@example.org
P=$T/poor
random_file "$T/two.bin" 2
cp "$T/two.bin" "$P/two.bin"
sync_device poor
same "df tells the quota" "$(df -B1 --output=size "$P" | tail -n 1 | tr -d ' ')" 3145728
cp "$T/one.bin" "$P/one.bin"
over() { status poor '.queue[] | select(.path == "one.bin") | .error // empty' | grep -Eiq 'quota'; }
check "status tells that the quota is used up" wait_until 30 over
note "it says: $(status poor '.queue[].error // empty' | head -1)"
refused "drivefs sync fails and says why" quota sync_device poor 5
printf 'x' >"$P/small.txt"
sent() { [ "$(getfattr --absolute-names --only-values -n user.drivefs.state "$P/small.txt")" = synced ]; }
check "small files still go up past the large one" wait_until 30 sent
check "the large file is read here" cmp "$T/one.bin" "$P/one.bin"
rm "$P/two.bin"
check "it does not fit even so: still refused" over
mv "$P/one.bin" "$T/kept.bin"
check "moved away, nothing waits any more" sync_device poor 30
cp "$T/two.bin" "$P/three.bin"
check "and there is room again" sync_device poor 30
device poor2 poor@example.org
check "which arrives" cmp "$T/two.bin" "$P/../poor2/three.bin"
