#!/usr/bin/env bash
# What the mount does for system calls beyond pjdfstest and fsx: see docs/SEMANTICS.md.
#
# LONG=1: larger files, longer runs.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root

start_server
add_user me@example.org --quota 64GiB
new_device alice
device bob
chmod 755 "$T"
mount_device alice --allow-other
A=$T/alice
W=$A/work
mkdir -m 777 "$W"

posix() { timeout 120 python3 "$HERE/syscalls.py" "$@"; }

check "O_TMPFILE: files without a name, and how they get one" posix tmpfile "$W"
check "O_TMPFILE: owner, group, modes" posix tmpfile_rights "$W"
check "O_TMPFILE: what has no name is not sent" as alice posix tmpfile_sent "$W"
check "a file that was unlinked or replaced while open goes on" posix unlinked "$W"
check "two processes append to one file" posix append "$W"
check "shared mappings, also after a truncation" posix mapped "$W"
check "O_DIRECT, coherent with the page cache" posix direct "$W"
check "fallocate: allocate, keep size, punch, zero" posix fallocate "$W"
check "SEEK_HOLE and SEEK_DATA" posix holes "$W"
check "flock between processes" posix flock "$W"
check "record locks between processes" posix records "$W"
check "extended attributes: limits, sizes, name spaces, no ACLs" posix xattrs "$W"
check "privileges go with a write by others, and with chown" posix privileges "$W"
check "link counts of folders" posix folders "$W"
check "times: nanoseconds, now, omit, before 1970" posix times "$W"
check "names, kinds, flags of open" posix names "$W"
check "FICLONE is refused" posix clone "$W"
check "statfs tells the quota" posix space "$W" $((64 << 30))

# ---- tools that look at ACLs get along without
printf 'x' >"$W/plain"
check "cp -a" cp -a "$W/plain" "$W/plain2"
check "rsync -aX" rsync -aX "$W/plain" "$W/plain3"
check "tar with attributes" bash -c "tar --xattrs --acls -C '$W' -cf - plain | tar --xattrs --acls -C '$T' -xf -"
refused "setfacl says that it is not supported" 'not supported' setfacl -m u:daemon:r "$W/plain"
same "getfacl shows the mode" "$(getfacl -cp "$W/plain" 2>/dev/null | grep -c '^user::rw-$')" 1

# ---- copies by reference
check "copy_file_range: ends, gaps, layers, one file, mappings" posix copy_ranges "$W"
ops=60
[ -z "${LONG:-}" ] || ops=1000
for seed in 1 2; do
    check "$ops random copies, writes, holes and truncations, seed $seed" \
        timeout 3000 python3 "$HERE/copies.py" "$W" "$seed" "$ops" 24 "$T/model-$seed-"
done
mib=256
[ -z "${LONG:-}" ] || mib=1024
random_file "$A/large" "$mib"
printf 'a small file\n' >"$A/small"
check "sync" sync_device alice 600
check "what was written sparse is still known as holes" posix holes_synced "$W"
before=$(sent_bytes alice)
begin=$(now_ms)
cp "$A/large" "$A/large copy"
took=$(($(now_ms) - begin))
at_most "cp of $mib MiB (ms)" "$took" 1000
cp "$A/small" "$A/small copy"
sync_device alice
at_most "bytes sent for the copies" "$(($(sent_bytes alice) - before))" $((128 * 1024))
check "the copy is the same" cmp "$A/large" "$A/large copy"
check "so is the small one" cmp "$A/small" "$A/small copy"

# A range in the middle: whole blocks by reference, the edges copied.
before=$(sent_bytes alice)
python3 - "$A/large" "$A/middle" <<'PY'
import os, sys
src, dst = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
os.pwrite(dst, b"head", 0)
at, to, left = 12345, 777, 100 << 20
while left:
    n = os.copy_file_range(src, dst, left, at, to)
    at, to, left = at + n, to + n, left - n
os.pwrite(dst, b"tail", to)
PY
sync_device alice
at_most "bytes sent for 100 MiB out of the middle" "$(($(sent_bytes alice) - before))" $((20 << 20))
middle() {
    [ "$(head -c 4 "$1")" = head ] && [ "$(tail -c 4 "$1")" = tail ] &&
        cmp <(tail -c +778 "$1" | head -c $((100 << 20))) <(tail -c +12346 "$A/large" | head -c $((100 << 20)))
}
check "and it is right" middle "$A/middle"

# Across the largest request of the kernel (4 GiB): nothing but zeros and a few written places.
python3 - "$A/huge" <<'PY'
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, (4 << 30) + (300 << 20) + 5)
for at in (0, (4 << 30) - 4100, (4 << 30) - 10, (4 << 30) + (300 << 20)):
    os.pwrite(fd, b"mark!", at)
PY
check "a file over 4 GiB is sent" sync_device alice 300
before=$(sent_bytes alice)
begin=$(now_ms)
python3 - "$A/huge" "$A/huge copy" <<'PY'
import os, sys
src, dst = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
done, size = 0, os.fstat(src).st_size
while done < size:
    n = os.copy_file_range(src, dst, size - done)
    assert n > 0
    done += n
for at in (0, (4 << 30) - 4100, (4 << 30) - 10, (4 << 30) + (300 << 20)):
    assert os.pread(dst, 5, at) == b"mark!", at
assert os.fstat(dst).st_size == size
PY
at_most "copy of a file over 4 GiB (ms)" "$(($(now_ms) - begin))" 3000
sync_device alice
at_most "bytes sent for it" "$(($(sent_bytes alice) - before))" $((512 * 1024))

# ---- files without a name vanish with their last close, or with the client
nameless() { [ "$(sqlite3 -readonly "$T/alice.home/state.db" 'SELECT count(*) FROM node WHERE links=0')" = "$1" ]; }
check "nothing is left of files without a name" wait_until 10 nameless 0
python3 "$HERE/syscalls.py" tmpfile_held "$A" &
holder=$!
HELPERS+=("$holder")
check "some are open" wait_until 30 test -e "$A/tmp ready"
check "and known to the client alone" wait_until 10 nameless 3
kill_client alice
kill -KILL "$holder"
wait "$holder" 2>"$T/killed" || true
mount_device alice --allow-other
check "they are gone after kill -9 of the client" wait_until 10 nameless 0
same "what got a name is there" "$(cat "$A/tmp survivor")" "named just before the end"

# ---- the death of the client right behind a copy, a punch, a truncation
cp "$A/large" "$A/survivor"
PYTHONDONTWRITEBYTECODE=1 python3 - "$HERE" "$A/survivor" <<'PY'
import os, sys
sys.path.insert(0, sys.argv[1])
import syscalls
fd = os.open(sys.argv[2], os.O_RDWR)
syscalls.allocate(fd, syscalls.PUNCH | syscalls.KEEP, 1000, 5 << 20)
os.pwrite(fd, b"written", 2 << 20)
PY
kill_client alice
mount_device alice --allow-other
survivor() {
    python3 - "$A/large" "$A/survivor" <<'PY'
import sys
want = bytearray(open(sys.argv[1], "rb").read())
want[1000 : 1000 + (5 << 20)] = bytes(5 << 20)
want[2 << 20 : (2 << 20) + 7] = b"written"
sys.exit(0 if open(sys.argv[2], "rb").read() == want else 1)
PY
}
check "a copy with a hole survives kill -9 of the client" survivor

# ---- offline: copies need neither the bytes nor the server
random_file "$A/far" 8
sync_device alice
sync_device bob
kill_server
check "files get their first name, offline" posix tmpfile_saved "$A"
check "bob copies a file whose bytes are not here, offline" cp "$T/bob/far" "$T/bob/far copy"
online
received=$(received_bytes bob)
check "sync of that" sync_device bob 120
at_most "bytes received for it" "$(($(received_bytes bob) - received))" $((64 * 1024))
sync_device alice
check "alice has it" cmp "$A/far" "$A/far copy"

# ---- the second device
rm "$W/socket"
sync_device alice
sync_device bob
same "files that got their names offline" "$(cat "$T/bob"/tmp\ offline\ ?)" \
    "$(for i in 0 1 2 3 4; do printf 'offline %d!' "$i"; done)"
same "what was written before and after the first name" "$(head -c 8 "$T/bob/work/tmp sent" | tail -c 5)" after
check "bytes on the second device" diff -r --no-dereference "$A/work" "$T/bob/work"
check "copies on the second device" cmp "$A/large copy" "$T/bob/large copy"
for seed in 1 2; do
    check "what random copies left (seed $seed) is right on the second device" bash -c "
        cmp '$T/model-$seed-0' '$T/bob/work/copy-$seed-a' && cmp '$T/model-$seed-1' '$T/bob/work/copy-$seed-b'"
done
same "no conflicts" "$(status alice '.conflicts | length')$(status bob '.conflicts | length')" 00
