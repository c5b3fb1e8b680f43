#!/usr/bin/env bash
# The block cache: read-ahead, its bound, pins, evict, why, a disk that is nearly full.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

cache() { status "$1" ".cache.$2"; }
state_of() { getfattr --absolute-names --only-values -n "user.drivefs.$2" "$1"; }
why_of() { as "$1" drivefs why --json "$2" | jq -r "$3"; }

start_server
add_user me@example.org
device alice
A=$T/alice
random_file "$T/big.bin" 40
cp "$T/big.bin" "$A/big.bin"
cp "$T/big.bin" "$A/stream.bin"
printf 'x' >>"$A/stream.bin"
mkdir -p "$A/folder/sub"
for n in 1 2 3; do random_file "$A/folder/$n.bin" 2; done
random_file "$A/folder/sub/deep.bin" 2
for n in $(seq 1 200); do printf 'small %s\n' "$n" >"$A/folder/sub/$n.txt"; done
sync_device alice

# ---- random reads fetch what is read and nothing else; streams fetch ahead
device bob
B=$T/bob
sync_device bob
cat >"$T/random.py" <<'PY'
import os, random, sys
random.seed(4)
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
size = os.fstat(fd).st_size
for _ in range(int(sys.argv[2])):
    assert len(os.pread(fd, 4096, random.randrange(size // 4096 - 1) * 4096)) == 4096
PY
# The first read fetches the parts of the list of blocks, too.
python3 "$T/random.py" "$B/big.bin" 1
list=$(cache bob fetched_blocks)
note "the first read fetched $list block(s)"
python3 "$T/random.py" "$B/big.bin" 13
same "random reads fetch nothing ahead" "$(cache bob ahead_blocks) $(cache bob ahead_requests)" "0 0"
# Twelve blocks, and one more if a read lies across a border.
at_most "blocks for 12 random reads" "$(($(cache bob fetched_blocks) - list))" 13
before=$(cache bob fetched_blocks)
check "a stream" cmp -n $((40 << 20)) "$T/big.bin" "$B/stream.bin"
at_least "blocks fetched ahead of it" "$(cache bob ahead_blocks)" 5
at_most "requests for it, fewer than blocks" "$(cache bob requests)" "$(($(cache bob fetched_blocks) - 1))"
at_least "blocks in all" "$(cache bob fetched_blocks)" "$((before + 5))"
settled() { [ "$(cache bob bytes)" -ge $((40 << 20)) ]; }
check "what was fetched is in the cache" wait_until 10 settled
fetched=$(cache bob fetched_blocks)
umount_device bob >/dev/null
mount_device bob
# Small files that are read one after the other come many at a time.
check "200 small files" bash -c "cat '$B/folder/sub/'*.txt | sort -V | cmp - <(for n in \$(seq 1 200); do echo small \$n; done)"
at_most "requests for them" "$(cache bob requests)" 40
check "it is read again" cmp "$A/stream.bin" "$B/stream.bin"
same "without the network" "$(cache bob fetched_blocks)" 200
at_least "blocks before that" "$fetched" 10

# ---- pin
check "pin" as bob drivefs pin "$B/folder"
as bob drivefs cache --json >"$T/cache.json"
at_least "pinned bytes" "$(jq .pinned_bytes "$T/cache.json")" $((8 << 20))
same "its files are here" "$(state_of "$B/folder/1.bin" cached)" "2097152/2097152"
same "an attribute tells the pin" "$(state_of "$B/folder/sub/deep.bin" pinned)$(state_of "$B/big.bin" pinned)" yesno
same "why tells the pin" "$(why_of bob "$B/folder/sub" .pinned_by)" folder
refused "evict of what is pinned" 'unpin' as bob drivefs cache evict "$B/folder/1.bin"
refused "unpin below a pinned folder names the folder" 'folder' as bob drivefs unpin "$B/folder/1.bin"
refused "unpin of what is not pinned" 'not pinned' as bob drivefs unpin "$B/big.bin"
refused "pin of what is not there" 'no such' as bob drivefs pin "$B/nothing"
random_file "$A/folder/sub/new.bin" 2
sync_device alice
came() { [ "$(state_of "$B/folder/sub/new.bin" cached)" = 2097152/2097152 ]; }
check "a file that comes into a pinned folder is fetched" wait_until 20 came
umount_device bob >/dev/null
mount_device bob --cache-size 24MiB
bounded() { [ "$(cache bob bytes)" -le $((24 << 20)) ]; }
check "a smaller limit is kept to soon" wait_until 10 bounded
same "pins survive" "$(state_of "$B/folder/1.bin" pinned)" yes

# ---- the bound: what is pinned stays, the rest goes
# The limit and one window of read-ahead (a quarter of the limit), in bytes.
limit=$(((24 << 20) * 5 / 4))
worst=0
for n in 1 2 3; do
    for name in big stream; do
        cat "$B/$name.bin" >/dev/null &
        reader=$!
        while kill -0 "$reader" 2>/dev/null; do
            now=$(cache bob bytes)
            [ "$now" -le "$worst" ] || worst=$now
        done
        wait "$reader"
    done
done
at_most "most bytes in the cache while reading" "$worst" "$limit"
on_disk() { du -s --block-size=1 "$T/bob.home/data" | cut -f1; }
at_most "bytes on the disk" "$(on_disk)" "$((limit + (12 << 20)))"
at_least "evicted blocks" "$(cache bob evicted_blocks)" 20
offline
check "pinned files are read offline" bash -c "cat '$B/folder/'*.bin '$B/folder/sub/'* >/dev/null"
online
sync_device bob
check "unpin" as bob drivefs unpin "$B/folder"
same "nothing is pinned any more" "$(cache bob pinned_bytes)" 0
umount_device bob >/dev/null
mount_device bob

# ---- evict, and why
cat "$B/big.bin" >/dev/null
whole() { [ "$(why_of bob "$B/big.bin" '.here_bytes == .bytes')" = true ]; }
check "why: all here" wait_until 10 whole
check "evict" as bob drivefs cache evict "$B/big.bin"
same "why: nothing here" "$(why_of bob "$B/big.bin" .here_bytes)" 0
same "why: state" "$(why_of bob "$B/big.bin" .state)" synced
check "why, for people" as bob drivefs why "$B/big.bin"
check "says what to do" grep -q 'drivefs pin' "$T/.check"
check "it is read again from the server" cmp "$T/big.bin" "$B/big.bin"
offline
cp "$T/big.bin" "$B/unsent.bin"
printf 'more' >>"$B/folder/1.bin"
check "evict of what is not uploaded" as bob drivefs cache evict "$B/unsent.bin"
check "says that it stays" grep -q 'not on the server' "$T/.check"
check "it is still here" cmp "$T/big.bin" "$B/unsent.bin"
same "why of a folder counts what waits" "$(why_of bob "$B/folder" .waiting)" 1
same "and its state" "$(why_of bob "$B/folder" .state)" offline
check "why of the whole drive" as bob drivefs why "$B"
online
sync_device bob
same "its state afterwards" "$(why_of bob "$B/folder" .state)" synced

# ---- the state tells of an upload under way
random_file "$T/up.bin" 60
cp "$T/up.bin" "$B/up.bin"
uploading() { [ "$(state_of "$B/up.bin" state)" = uploading ]; }
check "state: uploading" wait_until 10 uploading
sync_device bob
same "state: synced" "$(state_of "$B/up.bin" state)" synced
same "version" "$(state_of "$B/up.bin" version)" 1

# ---- a disk that is nearly full: clean content makes room for what is written
if [ "$(id -u)" = 0 ] && mkdir "$T/carol.home" && mount -t tmpfs -o size=96m,mode=0700 tmpfs "$T/carol.home"; then
    trap 'as carol drivefs umount --lazy "$T/carol" >/dev/null 2>&1; umount -l "$T/carol.home"; clean_up' EXIT
    device carol
    C=$T/carol
    sync_device carol
    cat "$C/big.bin" "$C/stream.bin" >/dev/null
    free=$(df -B1 --output=avail "$T/carol.home" | tail -n 1)
    at_least "bytes that the cache left free" "$free" $((3 << 20))
    random_file "$T/new.bin" 70
    check "70 MiB are written where clean content was" cp "$T/new.bin" "$C/new.bin"
    check "they are there" cmp "$T/new.bin" "$C/new.bin"
    check "and get to the server" sync_device carol 90
    # Something else takes all that is left: still only a cache is in the way.
    fill() { cat /dev/zero >>"$T/carol.home/filler" 2>/dev/null || true; }
    touch "$C/a" "$C/b" "$C/c"
    mkdir "$C/sub"
    sync_device carol
    fill
    check "rename on a full disk" mv "$C/a" "$C/sub/a"
    fill
    check "link" ln "$C/b" "$C/sub/b"
    fill
    check "rm" rm "$C/c"
    fill
    check "chmod" chmod 0600 "$C/b"
    fill
    check "an attribute" setfattr -n user.note -v "$(head -c 3000 /dev/zero | tr '\0' x)" "$C/b"
    fill
    check "fallocate" fallocate -l 3000000 "$C/b"
    fill
    check "truncate" truncate -s 100000 "$C/new.bin"
    fill
    check "a copy" cp "$C/new.bin" "$C/sub/new.bin"
    fill
    check "rmdir" bash -c "rm '$C/sub/'* && rmdir '$C/sub'"
    rm "$T/carol.home/filler" "$C/b"
    cp "$T/new.bin" "$C/new.bin"
    sync_device carol
    offline
    refused "only what is not uploaded can fill it" 'No space' bash -c "head -c 120000000 /dev/urandom >'$C/too-much.bin'"
    rm "$C/too-much.bin"
    online
    check "it goes on" sync_device carol 60
    check "and reads" cmp "$T/big.bin" "$C/big.bin"
    # The kernel may still be ending the last reads.
    check "it unmounts" wait_until 10 umount_device carol
    umount "$T/carol.home"
    trap clean_up EXIT
fi
