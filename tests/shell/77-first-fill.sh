#!/usr/bin/env bash
# A new device against a large drive: it is in use at once, folders come when they are asked for, the
# daemon may die in the middle, and in the end all is there.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

NODES=${NODES:-20000}

start_server
add_user me@example.org
device alice
mkdir "$T/alice/.contents"
for i in 1 2 3; do printf 'content %s\n' "$i" >"$T/alice/.contents/$i"; done
sync_device alice
umount_device alice >/dev/null
note "$(printf '%s\n' "$PASSWORD" |
    python3 "$HERE/../bench/fill.py" "$URL" me@example.org "$NODES")"
albums=$(((NODES * 100 / 101 + 99) / 100))
files=$((NODES * 100 / 101))
deep="year-$(printf '%04d' $(((albums - 1) / 100)))/album $(printf '%06d' $((albums - 1)))"
first_deep="year-0000/album 000000"

# Pages come slowly: the fill lasts as long as this test needs it to.
python3 "$HERE/proxy.py" "$PORT" "$T/counts" /sync/v1/changes 1500 >"$T/proxy.port" &
PROXY=$!
HELPERS+=("$PROXY")
wait_until 10 test -s "$T/proxy.port" || die "the proxy does not start"
LOGIN_URL="http://127.0.0.1:$(cat "$T/proxy.port")"
new_device bob

begin=$(now_ms)
mount_device bob
at_most "ms until the drive is mounted" $(($(now_ms) - begin)) 6000
same "status tells that it is filling" "$(status bob .filling)" true
check "in words too" bash -c "DRIVEFS_HOME='$T/bob.home' drivefs status | grep -q 'still coming in'"
same "a deep folder that is not here yet lists" "$(find "$T/bob/$deep" -type f | wc -l)" \
    $((files - (albums - 1) * 100))
name=$(find "$T/bob/$deep" -type f | head -1)
check "a file in it reads" grep -q '^content ' "$name"
check "a name that is not there is not there" test ! -e "$T/bob/$deep/nothing"
refused "a folder that is not here yet is not taken for empty" 'not empty' \
    rmdir "$T/bob/$first_deep"
printf 'made meanwhile\n' >"$T/bob/$deep/new.txt"
same "it fills still" "$(status bob .filling)" true

kill_client bob
# The mount of a dead daemon is replaced.
begin=$(now_ms)
check "the drive mounts again" mount_device bob
at_most "ms until it is" $(($(now_ms) - begin)) 6000
same "and goes on filling" "$(status bob .filling)" true
check "what was made before the kill is there" grep -q 'made meanwhile' "$T/bob/$deep/new.txt"
same "the deep folder lists again" "$(find "$T/bob/$deep" -type f | wc -l)" \
    $((files - (albums - 1) * 100 + 1))

check "sync waits for the fill" sync_device bob 240
same "and then it is all here" "$(status bob .filling)" false
check "which the words do not deny" bash -c \
    "! DRIVEFS_HOME='$T/bob.home' drivefs status | grep -q 'still coming in'"
same "no conflicts" "$(status bob '.conflicts | length')" 0
kill "$PROXY"
same "every file is listed, without the server" \
    "$(find "$T/bob" -name 'photo-*.jpg' | wc -l)" "$files"
mount_device alice
sync_device alice
same_tree "both devices show one tree" "$T/alice" "$T/bob"
