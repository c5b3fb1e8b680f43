#!/usr/bin/env bash
# What operators do, with devices that are mounted: check, backup, damage, another master key, restore,
# a full and a failing disk of the backup.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

server() { drivefs-server "$@" --data "$SERVER_DATA"; }
clean() { server fsck --json "$@" | jq -e '.clean and (.findings | length) == 0'; }
code() {
    local rc=0
    "$@" >"$T/.out" 2>&1 || rc=$?
    echo "$rc"
}

two_devices
mkdir "$A/folder"
for i in $(seq 40); do random_file "$A/folder/$i.bin" 1; done
head -c 300000 /dev/zero | tr '\0' 'x' >"$A/text.txt"
sync_device alice
check "a server in use is clean" clean
note "$(server fsck | tail -n 2 | head -n 1)"

# ---- backups while somebody writes
(for i in $(seq 60); do printf '%s' "$i" >"$A/folder/small $i"; done) &
writer=$!
check "a backup while somebody writes" server backup "$T/backup"
wait "$writer"
sync_device alice
check "a second one" server backup "$T/backup" --json
note "it copied $(jq -r '"\(.packs_copied) of \(.packs) packs"' "$T/.check")"
check "it is what was written" server backup "$T/backup" --verify
same "a third one copies nothing" "$(server backup "$T/backup" --json | jq .packs_copied)" 0
refused "a backup within the data" 'inside' server backup "$SERVER_DATA/backup"

# ---- a bad block
pack=$(find "$SERVER_DATA/blocks" -type f -size +500k | head -n 1)
printf '\377\376\375' | dd of="$pack" bs=1 seek=100000 conv=notrunc status=none
same "fsck of a bad block fails" "$(code server fsck)" 1
check "it names the pack" grep -q "$(basename "$pack")" "$T/.out"
check "and the file" grep -q '^note: hit: ' "$T/.out"
same "so does scrub" "$(code server scrub)" 1
same "and scrub --status" "$(code server scrub --status)" 1
cp "$T/backup/blocks/${pack#"$SERVER_DATA"/blocks/}" "$pack"
check "the pack put back from the backup is good" clean
check "scrub agrees" server scrub

# ---- another master key under mounted devices
before=$(cat "$SERVER_DATA/master.key")
check "another master key" server rotate-key
check "the old one is kept aside" grep -q "$before" "$SERVER_DATA/master.key.retired"
same "the file holds one key" "$(wc -l <"$SERVER_DATA/master.key")" 1
printf 'after' >"$A/after.txt"
both
check "who was mounted goes on" cmp "$A/folder/7.bin" "$T/bob/folder/7.bin"
check "all is well under the new key" clean
offline
printf '%064d\n' 7 >"$T/wrong"
rc=0
DRIVEFS_MASTER_KEY=$(cat "$T/wrong") server serve --listen 127.0.0.1:0 >"$T/.out" 2>&1 || rc=$?
same "a wrong key is refused" "$rc" 1
check "in clear words" grep -q 'master key is not the one' "$T/.out"
online

# ---- restore
server backup "$T/backup" >/dev/null
printf 'lost on the server' >"$A/late.txt"
sync_device alice
kill_server
refused "a restore over the data" 'not empty' server restore "$T/backup"
refused "a restore without the key" 'master key' \
    drivefs-server restore "$T/backup" --data "$T/restored"
printf '%s\n' "$before" >"$T/old.key"
refused "a restore with the key from before" 'master key' \
    drivefs-server restore "$T/backup" --data "$T/restored" --key "$T/old.key"
rm -f "$T/restored/master.key"
refused "half a restore is not served" 'cut off' \
    drivefs-server serve --listen 127.0.0.1:0 --data "$T/restored"
check "a restore" drivefs-server restore "$T/backup" --data "$T/restored" --key "$SERVER_DATA/master.key"
SERVER_DATA=$T/restored
check "what was restored is clean" clean
online
check "devices go on with it" both
check "and send what it lacked" cmp "$A/late.txt" "$T/bob/late.txt"
same_tree "both see the same" "$A" "$T/bob"
check "still clean" clean

# ---- what was done to keys and devices
check "a lost device is locked out" server devices revoke --email me@example.org bob
check "the audit list tells of it" \
    bash -c "drivefs-server audit --data '$SERVER_DATA' | grep -q 'token_revoked .*device bob'"
check "and of the key" \
    bash -c "drivefs-server audit --data '$SERVER_DATA' --json | jq -e 'any(.kind == \"key_rotated\")'"

# ---- disks that fail under a backup
if command -v strace >/dev/null; then
    for n in 1 2 3 5 9 17 40; do
        rc=$(code strace -f -qq -o /dev/null -e trace=fsync -e "inject=fsync:error=EIO:when=$n" \
            drivefs-server backup "$T/failing" --data "$SERVER_DATA")
        # Each thread counts its own: the later ones may not come to pass.
        if [ "$rc" = 0 ]; then
            server backup "$T/failing" --verify >/dev/null || fail "not whole after fsync $n"
            rm -r "$T/failing"
        elif [ -e "$T/failing/backup.json" ]; then
            fail "there is a backup although fsync $n failed"
        fi
    done
    ok "a backup whose disk fails is none"
    check "and the next run is whole" server backup "$T/failing"
    check "as it says" server backup "$T/failing" --verify
    for n in 1 2 3 5 9 17 40; do
        rc=$(code strace -f -qq -o /dev/null -e trace=fsync -e "inject=fsync:error=EIO:when=$n" \
            drivefs-server restore "$T/failing" --data "$T/again" --key "$SERVER_DATA/master.key")
        # Each thread counts its own: the later ones may not come to pass.
        if [ "$rc" = 0 ]; then
            drivefs-server fsck --data "$T/again" >/dev/null || fail "not clean after fsync $n"
            rm -r "$T/again"
        elif [ -e "$T/again/metadata.db" ] && [ ! -e "$T/again/restoring" ]; then
            fail "it looks restored although fsync $n failed"
        fi
    done
    ok "a restore whose disk fails is none"
    check "and the next run goes on" \
        drivefs-server restore "$T/failing" --data "$T/again" --key "$SERVER_DATA/master.key"
    check "to what is clean" drivefs-server fsck --data "$T/again"
    for call in fsync rename; do
        for n in 1 2 3 4; do
            strace -f -qq -o /dev/null -e "trace=$call" -e "inject=$call:error=ENOSPC:when=$n" \
                drivefs-server rotate-key --data "$T/again" >/dev/null 2>&1 || true
            drivefs-server fsck --data "$T/again" >"$T/.out" 2>&1 ||
                { fail "not clean after $call $n of a rotation failed" && cat "$T/.out"; }
        done
    done
    ok "a rotation on a full disk loses nothing"
    check "and the next one is done" drivefs-server rotate-key --data "$T/again"
    check "to what is clean" drivefs-server fsck --data "$T/again"
fi
if [ "$(id -u)" = 0 ] && mkdir "$T/small" && mount -t tmpfs -o size=8m tmpfs "$T/small"; then
    refused "a full disk of the backup" 'disk|space|full' server backup "$T/small/backup"
    check "leaves no backup" test ! -e "$T/small/backup/backup.json"
    mount -o remount,size=200m "$T/small"
    check "with room the next run goes on" server backup "$T/small/backup"
    check "and is whole" server backup "$T/small/backup" --verify
    cp -a "$T/small/backup/backup.json" "$T/kept.json"
    for i in 1 2 3 4 5 6 7 8; do random_file "$A/more $i" 8; done
    sync_device alice
    mount -o remount,size=60m "$T/small"
    refused "a disk that is full half-way" 'disk|space|full' server backup "$T/small/backup"
    check "leaves the one before" cmp "$T/kept.json" "$T/small/backup/backup.json"
    check "as it was" server backup "$T/small/backup" --verify
    umount "$T/small"
fi
