#!/usr/bin/env bash
# Damaged files on the client: cached content is fetched again, a damaged state database is told
# clearly and made anew, with what was not uploaded yet.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

start_server
add_user me@example.org
device alice
random_file "$T/big.bin" 6
cp "$T/big.bin" "$T/alice/big.bin"
for n in $(seq 1 50); do printf 'small file %s\n' "$n" >"$T/alice/$n.txt"; done
sync_device alice

# damage NAME: flips a byte in every data file of a device, also at its front and end.
damage() {
    find "$T/$1.home/data" -type f -size +0 -print0 | python3 -c '
import os, sys
for path in sys.stdin.buffer.read().split(b"\0")[:-1]:
    with open(path, "r+b") as f:
        size = os.fstat(f.fileno()).st_size
        for at in {0, size // 2, size - 1}:
            f.seek(at)
            byte = f.read(1)
            f.seek(at)
            f.write(bytes([byte[0] ^ 0x55]))
'
}

# ---- cached content
device bob
sync_device bob
cat "$T/bob/big.bin" "$T/bob/"*.txt >"$T/first"
umount_device bob >/dev/null
damage bob
mount_device bob
check "damaged cache files are fetched again" cmp "$T/big.bin" "$T/bob/big.bin"
check "small ones too" diff -r "$T/alice" "$T/bob"
umount_device bob >/dev/null
find "$T/bob.home/data" -type f -size +100k -exec truncate -s 5000 {} +
mount_device bob
check "cut-off cache files are fetched again" cmp "$T/big.bin" "$T/bob/big.bin"
umount_device bob >/dev/null
find "$T/bob.home/data" -type f -delete
mount_device bob
check "deleted cache files are fetched again" diff -r "$T/alice" "$T/bob"
printf 'after\n' >"$T/bob/after.txt"
check "the device works on" sync_device bob
# The device that wrote them: its data files are cache as well, once they are uploaded.
umount_device alice >/dev/null
damage alice
mount_device alice
sync_device alice
check "the same on the device that wrote them" diff -r "$T/bob" "$T/alice"

# ---- the state database
offline
printf 'only here\n' >"$T/bob/unsent.txt"
random_file "$T/unsent.bin" 3
cp "$T/unsent.bin" "$T/bob/unsent.bin"
printf 'changed here\n' >"$T/bob/7.txt"
umount_device bob >/dev/null
online
: >"$T/bob.home/state.db-wal"
dd if=/dev/urandom of="$T/bob.home/state.db" bs=4096 count=3 conv=notrunc status=none
refused "a damaged state database is told, with what to do" 'doctor --rebuild' mount_device bob
refused "drivefs doctor finds it" 'doctor --rebuild' as bob drivefs doctor
check "nothing is mounted" bash -c "! grep -q ' $T/bob ' /proc/self/mountinfo"
check "drivefs doctor --rebuild" as bob drivefs doctor --rebuild
note "$(tr '\n' ' ' <"$T/.check")"
check "the drive mounts again" mount_device bob
check "and syncs" sync_device bob
recovered=$(find "$T/bob" -mindepth 1 -maxdepth 1 -name 'Recovered*')
check "what was not uploaded is in a folder of its own" test -d "$recovered"
found() { find "$recovered" -type f -exec cmp -s {} "$1" \; -print | grep -q .; }
printf 'only here\n' >"$T/unsent.txt"
printf 'changed here\n' >"$T/7.txt"
check "the unsent small file is found again" found "$T/unsent.txt"
check "the unsent large file is found again" found "$T/unsent.bin"
check "the unsent change is found again" found "$T/7.txt"
at_most "files recovered (no others)" "$(find "$recovered" -type f | wc -l)" 3
mv "$recovered" "$T/bob/recovered"
sync_device bob
sync_device alice
check "it arrives on the other device" diff -r "$T/alice" "$T/bob"
same "the synced files are all there" "$(find "$T/alice" -maxdepth 1 -name '[0-9]*.txt' | wc -l)" 50

# Damaged in the middle only, where opening does not look.
umount_device bob >/dev/null
size=$(stat -c %s "$T/bob.home/state.db")
dd if=/dev/urandom of="$T/bob.home/state.db" bs=1024 seek=$((size / 2048)) count=$((size / 4096)) conv=notrunc status=none
if mount_device bob >"$T/out" 2>&1; then
    check "damage in the middle: the mount still lists" ls -lR "$T/bob"
    umount_device bob >/dev/null || true
else
    check "damage in the middle is told" grep -q 'doctor --rebuild' "$T/out"
fi
check "rebuilt once more" as bob drivefs doctor --rebuild
mount_device bob
check "every byte is there" diff -r "$T/alice" "$T/bob"

# ---- other files of the home
umount_device bob >/dev/null
printf '{ "url": ' >"$T/bob.home/account.json"
refused "a damaged account file says what to do" 'log in' mount_device bob
printf '%s\n' "$PASSWORD" | as bob drivefs login "$URL" --email me@example.org --device bob --password-stdin >/dev/null
check "a login mends it" mount_device bob
