#!/usr/bin/env bash
# Servers that cannot go on from where a device stands: a restored backup, a revoked device, another
# server at the same address. Nothing that a device has is lost.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

two_devices
mkdir "$T/alice/docs"
for n in $(seq 1 40); do printf 'file %s, first\n' "$n" >"$T/alice/docs/$n.txt"; done
random_file "$T/alice/big.bin" 6
sync_device alice
sync_device bob
cat "$T/bob/big.bin" "$T/bob/docs/"* >/dev/null

# ---- a backup of the server's folder, and work that it does not have
offline
cp -a "$SERVER_DATA" "$T/backup"
online
for n in $(seq 1 10); do printf 'file %s, second\n' "$n" >"$T/alice/docs/$n.txt"; done
mkdir -p "$T/alice/new/deep"
random_file "$T/alice/new/deep/blob" 3
mv "$T/alice/docs/20.txt" "$T/alice/new/moved.txt"
rm "$T/alice/docs/30.txt"
printf 'patched' | dd of="$T/alice/big.bin" bs=1 seek=3000000 conv=notrunc status=none
sync_device alice
sync_device bob
cat "$T/bob/big.bin" "$T/bob/docs/"* "$T/bob/new/deep/blob" >/dev/null
cp -a "$T/alice" "$T/before"

offline
printf 'written while the server was away\n' >"$T/alice/offline.txt"
rm -rf "$SERVER_DATA"
cp -a "$T/backup" "$SERVER_DATA"
online
# One client dies in the middle of it.
kill_client bob
as bob drivefs umount "$T/bob" >/dev/null 2>&1 || true
mount_device bob
check "after a restored backup devices get in step again" sync_device alice
check "both do" sync_device bob
sync_device alice
sync_device bob
same "what was removed in the lost time is back" "$(cat "$T/alice/docs/30.txt")" "file 30, first"
same "what was written offline arrives" "$(cat "$T/bob/offline.txt")" "written while the server was away"
rm "$T/alice/docs/30.txt" "$T/alice/offline.txt"
sync_device alice
sync_device bob
check "all else is as it was before" diff -r "$T/before" "$T/alice"
check "on the other device too" diff -r "$T/before" "$T/bob"
same "without a conflict" "$(as alice drivefs conflicts --json | jq '.conflicts // . | length')" 0
at_least "status tells how much was sent again" "$(status alice '.restored.sent_again')" 1
check "in words, too" bash -c "DRIVEFS_HOME='$T/alice.home' drivefs status | grep -q 'restored from a backup'"
device carol
sync_device carol
check "a new device gets all of it from the server" diff -r "$T/before" "$T/carol"
umount_device carol >/dev/null

# ---- a revoked device
check "devices are listed" bash -c "DRIVEFS_HOME='$T/alice.home' drivefs devices | grep -q '^bob '"
same "as JSON" "$(as alice drivefs devices --json | jq -r 'map(.name) | join(" ")')" "alice bob carol"
refused "one that is not there cannot be revoked" 'no device' as alice drivefs devices revoke nobody
check "a device is revoked" as alice drivefs devices revoke bob
printf 'after the end\n' >"$T/bob/after.txt"
is_out() { [ "$(status bob .locked_out)" = true ]; }
check "it is told" wait_until 30 is_out
note "it says: $(status bob .reason)"
check "with what to do" bash -c "DRIVEFS_HOME='$T/bob.home' drivefs status | grep -q 'drivefs login'"
check "why says it too" bash -c "DRIVEFS_HOME='$T/bob.home' drivefs why '$T/bob/after.txt' | grep -q 'drivefs login'"
same "what is here can be read" "$(cat "$T/bob/docs/1.txt")" "file 1, second"
check "login brings it back while it is mounted" bash -c \
    "echo '$PASSWORD' | DRIVEFS_HOME='$T/bob.home' drivefs login '$URL' --email me@example.org --password-stdin"
is_in() { [ "$(status bob .locked_out)" = false ]; }
check "the mounted drive takes the new login" wait_until 30 is_in
check "what was waiting goes up" sync_device bob
sync_device alice
same "and arrives" "$(cat "$T/alice/after.txt")" "after the end"
add_user other@example.org
refused "a login of another account is refused" 'another account' bash -c \
    "echo '$PASSWORD' | DRIVEFS_HOME='$T/bob.home' drivefs login '$URL' --email other@example.org --password-stdin"
drivefs-server user passwd --email me@example.org --password-stdin --data "$SERVER_DATA" \
    <<<"another good password" >/dev/null
printf 'x\n' >"$T/bob/after-passwd.txt"
check "a changed password does not end what is logged in" sync_device bob

# ---- another server at the same address
printf 'not sent\n' >"$T/bob/unsent.txt"
offline
printf 'not sent either\n' >"$T/bob/unsent2.txt"
mv "$SERVER_DATA" "$T/server.first"
online
add_user me@example.org
check "another server at the address is no server of this drive" wait_until 60 is_out
same "the drive shows all that it has" "$(cat "$T/bob/unsent2.txt" "$T/bob/docs/2.txt")" \
    "not sent either
file 2, second"
refused "a login there is refused for this home" 'another account or server' bash -c \
    "echo '$PASSWORD' | DRIVEFS_HOME='$T/bob.home' drivefs login '$URL' --email me@example.org --password-stdin"
check "the home can be mounted again" remount bob
same "with what was not sent" "$(cat "$T/bob/unsent2.txt")" "not sent either"
device dave
check "a new home takes the other server, and the files are copied over" \
    cp "$T/bob/unsent2.txt" "$T/dave/"
check "and sent" sync_device dave
offline
rm -rf "$SERVER_DATA"
mv "$T/server.first" "$SERVER_DATA"
online
check "when the first server is back, all goes on" sync_device bob
sync_device alice
same "nothing is lost" "$(cat "$T/alice/unsent.txt" "$T/alice/unsent2.txt")" "not sent
not sent either"
