#!/usr/bin/env bash
# Mount points that are missing, not empty, busy, taken, or left by a dead daemon.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
[ -z "${AS_USER:-}" ] || become_user
note "as $(id -un)"

start_server
add_user me@example.org
new_device alice
mount_at() { as alice drivefs mount "$@"; }

refused "a missing folder" 'mkdir' mount_at "$T/missing"
: >"$T/file"
refused "a file" 'not a folder' mount_at "$T/file"
mkdir "$T/full" && : >"$T/full/something"
refused "a folder that is not empty" 'not empty' mount_at "$T/full"
if [ "$(id -u)" = 0 ]; then
    mkdir "$T/taken"
    mount -t tmpfs tmpfs "$T/taken"
    refused "another file system's mount point" 'mount point of something else' mount_at "$T/taken"
    umount "$T/taken"
fi
same "nothing of that left a daemon" "$(client_pid alice 2>/dev/null || true)" ""

check "a folder that is not empty, on request" mount_at "$T/full" -o nonempty
check "umount" as alice drivefs umount "$T/full"
check "its file is back" test -e "$T/full/something"

mount_device alice
refused "the same folder twice" 'already' mount_device alice
mkdir "$T/second"
refused "the same home twice" 'already mounted' mount_at "$T/second"
new_device bob
refused "another device on a taken folder" 'already a mounted drivefs' as bob drivefs mount "$T/alice"
check "the first mount is not disturbed" touch "$T/alice/file"

# ---- in use
exec 7>"$T/alice/open"
refused "umount while a file is open" 'in use' umount_device alice
printf 'still written\n' >&7
check "--lazy takes it away" as alice drivefs umount --lazy "$T/alice"
check "the folder is free" bash -c "! grep -q ' $T/alice ' /proc/self/mountinfo"
exec 7>&-
wait_until 15 client_is_gone alice || die "the daemon does not end after the last close"
mount_device alice
same "what was written after it is there" "$(cat "$T/alice/open")" "still written"
refused "umount of what is not mounted" 'not a mounted drivefs' as alice drivefs umount "$T/second"
refused "umount of what does not exist" 'does not exist' as alice drivefs umount "$T/missing"

# ---- the daemon dies
kill_client alice
refused "the dead mount" 'not connected' ls "$T/alice"
check "status works without a daemon" as alice drivefs status
refused "sync without a daemon" 'drivefs mount' sync_device alice
check "mount repairs it" mount_device alice
same "and everything is there" "$(cat "$T/alice/open")" "still written"
kill_client alice
check "umount takes a dead mount away" umount_device alice
check "the folder is an ordinary one again" rmdir "$T/alice"
mkdir "$T/alice"

# ---- SIGTERM ends in order
mount_device alice
printf 'last words\n' >"$T/alice/last"
kill -TERM "$(client_pid alice)"
check "SIGTERM unmounts and ends" wait_until 15 client_is_gone alice
check "the folder is free then" bash -c "! grep -q ' $T/alice ' /proc/self/mountinfo"
mount_device alice
same "nothing was lost" "$(cat "$T/alice/last")" "last words"
umount_device alice >/dev/null

# ---- in the foreground, and options
as alice drivefs mount -f "$T/alice" 2>"$T/foreground.log" &
HELPERS+=($!)
check "-f mounts too" wait_until 15 test -e "$T/alice/last"
check "and ends with umount" umount_device alice
check "as a process" wait "${HELPERS[-1]}"
mount_device alice --read-only
refused "--read-only refuses writes" 'read-only' touch "$T/alice/x"
refused "and files without a name" 'read-only' \
    python3 -c 'import os, sys; os.open(sys.argv[1], os.O_TMPFILE | os.O_RDWR)' "$T/alice"
umount_device alice >/dev/null
mount_device alice -o ro
refused "-o ro refuses writes" 'read-only' touch "$T/alice/x"
umount_device alice >/dev/null
mkdir -p "$T/with space/and (odd) \\ name"
check "a folder with an odd name" mount_at "$T/with space/and (odd) \\ name"
check "shows the files" test -e "$T/with space/and (odd) \\ name/last"
refused "twice is found out there too" 'already' as bob drivefs mount "$T/with space/and (odd) \\ name"
check "is unmounted" as alice drivefs umount "$T/with space/and (odd) \\ name"
(cd "$T" && mount_at alice && as alice drivefs umount alice) >/dev/null
check "a relative path" test ! -e "$T/alice/last"
deep=$T/$(printf 'a%.0s' {1..100})/$(printf 'b%.0s' {1..100})
mkdir -p "$deep"
check "a home with a long path" bash -c "
    echo '$PASSWORD' | DRIVEFS_HOME='$deep' drivefs login '$URL' --email me@example.org --device deep --password-stdin &&
    DRIVEFS_HOME='$deep' drivefs mount '$T/alice' &&
    DRIVEFS_HOME='$deep' drivefs sync &&
    DRIVEFS_HOME='$deep' drivefs umount '$T/alice'"
