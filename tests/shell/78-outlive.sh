#!/usr/bin/env bash
# A daemon that is killed while it tells the kernel of a remote change, and while a program waits for
# its answer in the same folder: neither outlives it.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root

two_devices
mkdir "$T/alice/folder"
: >"$T/alice/folder/file"
sync_device alice
sync_device bob

waits_in() { grep -qs "$2" "/proc/$1/task/"*/stack; }
watcher() { pgrep -f "watch-daemon $T/bob "; }
has_watcher() { watcher >/dev/null; }
has_none() { ! has_watcher; }

# Brings bob's daemon to where it cannot end, and kills it. A program holds the lock of the folder while
# nobody reads its request, and the daemon wants that lock to tell what alice did.
kill_bob_in_the_act() {
    local pid freezer
    ls "$T/bob/folder" >/dev/null
    pid=$(client_pid bob)
    : >"$T/frozen"
    python3 "$HERE/freeze.py" "$pid" fuser- >"$T/frozen" &
    freezer=$!
    HELPERS+=("$freezer")
    wait_until 20 grep -q frozen "$T/frozen" || die "the session threads do not stop"
    mkdir "$T/bob/folder/$1" 2>/dev/null &
    program=$!
    HELPERS+=("$program")
    wait_until 20 waits_in "$program" request_wait_answer || die "the program does not wait"
    echo "$1" >>"$T/alice/folder/file"
    : >"$T/alice/folder/made $1"
    rm -f "$T/alice/folder/file"
    sync_device alice
    wait_until 20 waits_in "$pid" fuse_reverse_inval_entry || die "the daemon does not tell the kernel"
    kill -KILL "$pid"
    # Who traces a thread is told of its death first.
    kill -KILL "$freezer"
    wait "$freezer" 2>/dev/null || true
}
has_ended() { ! kill -0 "$1"; }

wait_until 10 has_watcher || die "nobody watches the daemon of bob"
kill_bob_in_the_act one
check "a killed daemon ends all the same" wait_until 20 client_is_gone bob
check "and what waited for it" wait_until 20 has_ended "$program"
check "its watcher is gone, too" wait_until 20 has_none
check "it mounts again" mount_device bob
sync_device bob
check "with what it missed" test -e "$T/bob/folder/made one"

# Without the watcher it stays, until somebody comes.
for command in mount umount; do
    : >"$T/alice/folder/file"
    sync_device alice
    sync_device bob
    wait_until 10 has_watcher || die "nobody watches the daemon of bob"
    kill -KILL "$(watcher)"
    kill_bob_in_the_act "$command"
    check "$command frees what was killed with its watcher" timeout 60 bash -c "
        DRIVEFS_HOME='$T/bob.home' drivefs '$command' '$T/bob'"
    check "the program goes on" wait_until 20 has_ended "$program"
    [ "$command" = mount ] || mount_device bob
    sync_device bob
    check "nothing is missing" test -e "$T/bob/folder/made $command"
done
check "it is unmounted" as bob drivefs umount "$T/bob"
check "umount ends the watcher" wait_until 20 has_none
