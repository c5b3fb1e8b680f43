#!/usr/bin/env bash
# The server is away: mount, list, cached reads and writes work; an uncached read fails soon and
# says why; all of it catches up later.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

start_server
add_user me@example.org
device alice
mkdir -p "$T/alice/deep/er"
for n in $(seq 1 300); do printf 'file %s\n' "$n" >"$T/alice/deep/er/$n.txt"; done
random_file "$T/big.bin" 16
cp "$T/big.bin" "$T/alice/read.bin"
cp "$T/big.bin" "$T/alice/partly.bin"
head -c 5000000 /dev/urandom >"$T/unread.bin"
cp "$T/unread.bin" "$T/alice/unread.bin"
sync_device alice
device bob
B=$T/bob
sync_device bob
cmp "$T/big.bin" "$B/read.bin"
head -c 4096 "$B/partly.bin" >"$T/head"
listing "$T/alice" >"$T/before"

is_offline() { [ "$(status bob .online)" = false ]; }
offline
check "status says that it is offline" wait_until 15 is_offline
check "and why" test -n "$(status bob '.reason // empty')"
note "it says: $(status bob .reason)"
umount_device bob >"$T/umount.out"
begin=$(now_ms)
check "a known drive mounts offline" mount_device bob
at_most "ms to mount offline" "$(($(now_ms) - begin))" 2000
same "status says that it is offline after that mount too" "$(status bob .online)" false

begin=$(now_ms)
check "ls -lR" ls -lR "$B"
at_most "ms for it" "$(($(now_ms) - begin))" 2000
listing "$B" >"$T/after"
check "it lists what was there" cmp "$T/before" "$T/after"
check "df answers" timeout 2 df "$B"
check "a cached file is read" cmp "$T/big.bin" "$B/read.bin"
check "a cached part is read" cmp -n 4096 "$T/big.bin" "$B/partly.bin"

begin=$(now_ms)
refused "an uncached read fails with EIO" 'Input/output error' timeout 20 cat "$B/unread.bin"
at_most "ms until it failed" "$(($(now_ms) - begin))" 5000
check "status gives the reason" test -n "$(status bob '.last_read_error // empty')"
note "it says: $(status bob .last_read_error)"
same "the failed file counts as synced" "$(getfattr --absolute-names --only-values -n user.drivefs.state "$B/unread.bin")" synced

printf 'written offline\n' >"$B/new.txt"
printf 'more\n' >>"$B/deep/er/1.txt"
mkdir "$B/newdir" && mv "$B/deep/er/2.txt" "$B/newdir/moved.txt"
rm "$B/deep/er/3.txt"
chmod 0640 "$B/deep/er/4.txt"
ln -s ../new.txt "$B/newdir/link"
cp "$B/read.bin" "$B/copy.bin"
dd if="$T/head" of="$B/read.bin" bs=4096 seek=2 conv=notrunc status=none
dd if="$T/head" of="$T/big.bin" bs=4096 seek=2 conv=notrunc status=none
check "what was written offline is read" cmp "$T/big.bin" "$B/read.bin"
same "its state is told" "$(getfattr --absolute-names --only-values -n user.drivefs.state "$B/new.txt")" offline
# A write into a file whose bytes are not here needs none of them.
dd if="$T/head" of="$B/unread.bin" bs=4096 seek=10 count=1 conv=notrunc status=none
check "a page overwritten in an uncached file is read" \
    bash -c "dd if='$B/unread.bin' bs=4096 skip=10 count=1 status=none | cmp - '$T/head'"
check "three bytes in a page that is not here" dd if="$T/head" of="$B/unread.bin" bs=1 seek=1000001 count=3 conv=notrunc status=none
refused "drivefs sync times out and says that it is offline" offline sync_device bob 2
as bob drivefs umount "$B" >"$T/umount.out"
check "umount says what is not uploaded" grep -Eq '[0-9]+ change' "$T/umount.out"
mount_device bob
check "offline work is there after another mount" cmp "$T/big.bin" "$B/read.bin"
printf 'the other one\n' >"$T/alice/other.txt"

# The other device changed things meanwhile, too.
online
check "the first device catches up" sync_device alice 60
check "the second device catches up" sync_device bob 60
check "the first device takes it in" sync_device alice 60
same_tree "both show the same" "$T/alice" "$B"
check "with the same bytes" diff -r --no-dereference "$T/alice" "$B"
check "the overwritten file is right on the first device" cmp "$T/big.bin" "$T/alice/read.bin"
check "what could not be read can be now" cat "$B/unread.bin"
dd if="$T/head" of="$T/unread.bin" bs=4096 seek=10 count=1 conv=notrunc status=none
dd if="$T/head" of="$T/unread.bin" bs=1 seek=1000001 count=3 conv=notrunc status=none
check "with the old bytes around the new ones" cmp "$T/unread.bin" "$B/unread.bin"
check "on the first device, too" cmp "$T/unread.bin" "$T/alice/unread.bin"
same "the reason is gone from status" "$(status bob '.last_read_error // "none"')" none
same "the moved file" "$(cat "$T/alice/newdir/moved.txt")" "file 2"
same "the appended file" "$(cat "$T/alice/deep/er/1.txt")" $'file 1\nmore'
check "the removed file" test ! -e "$T/alice/deep/er/3.txt"
same "no conflicts came up" "$(status alice '.conflicts | length')$(status bob '.conflicts | length')" 00

# ---- the connection hangs instead of being refused: the server is stopped, not ended
head -c 3000000 /dev/urandom >"$T/alice/hanging.bin"
sync_device alice
sync_device bob
kill -STOP "$SERVER_PID"
head -c 100000 /dev/urandom >"$T/x"
begin=$(now_ms)
cp "$T/x" "$B/while-hanging.bin"
ls -lR "$B" >/dev/null
cmp "$T/big.bin" "$B/read.bin"
at_most "ms for write, list and cached read while the server hangs" "$(($(now_ms) - begin))" 1000
begin=$(now_ms)
refused "an uncached read fails then, too" 'Input/output error' timeout 60 cat "$B/hanging.bin"
at_most "ms until it failed" "$(($(now_ms) - begin))" 5000
cat "$B/hanging.bin" >/dev/null 2>&1 &
reader=$!
sleep 0.3
# It may have failed by then: the drive knows that the server is silent.
kill -KILL "$reader" 2>/dev/null || true
begin=$(now_ms)
wait "$reader" 2>/dev/null || true
at_most "a reader that was killed while it waits ends, ms" "$(($(now_ms) - begin))" 5000
kill -CONT "$SERVER_PID"
check "it catches up when the server goes on" sync_device bob 90

# ---- both edited the same file while apart: both contents survive on both
offline
printf 'from alice\n' >"$T/alice/new.txt"
printf 'from bob\n' >"$B/new.txt"
online
sync_device alice 60
sync_device bob 60
sync_device alice 60
same "one conflict on each device" "$(status alice '.conflicts | length')$(status bob '.conflicts | length')" 11
check "both contents are there" bash -c "cat '$T/alice/'new*.txt | sort | cmp - <(printf 'from alice\nfrom bob\n')"
same_tree "the same on both devices" "$T/alice" "$B"
note "the conflict file is $(status bob '.conflicts[0]')"
