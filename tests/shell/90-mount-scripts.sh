#!/usr/bin/env bash
# quickstart.sh, the fstab helper and the systemd unit.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

TOP=$(cd "$HERE/../.." && pwd)
quickstart() { "$TOP/mount-scripts/quickstart.sh" "$@"; }

# ---- quickstart, with a home of its own. It builds what is built already, where that lies.
export DRIVEFS_HOME=$T/me.home
CARGO_TARGET_DIR=$(dirname "$BIN")
export CARGO_TARGET_DIR
DEVICES+=(me second)
mkdir -p "$T/second" "$T/second.home"
M=$T/me
if [ "$(basename "$BIN")" = release ] && [ -d "$BIN/deps" ]; then
    check "quickstart.sh DIR makes the folder and mounts" quickstart "$M"
    sed 's/^/      | /' "$T/.check"
    cp "$T/.check" "$T/first"
    check "it says how to stop" grep -q -- '--stop' "$T/first"
    check "and how to add a second device" grep -q 'login http://127.0.0.1' "$T/first"
    printf 'hello\n' >"$M/file.txt"
    check "running it twice is harmless" quickstart "$M"
    check "and says that it is mounted already" grep -q 'already' "$T/.check"
    same "the file is there" "$(cat "$M/file.txt")" hello
    check "sync" drivefs sync --timeout 60
    # What it prints for a second device works as it is printed (but for the place of the mount).
    sed -n '/export DRIVEFS_HOME/,/mkdir -p/p' "$T/first" |
        sed "s#\$HOME/second-device#$T/second.home#; s#~/Drive2#$T/second#g" >"$T/second.sh"
    check "the printed commands add a second device" bash -e "$T/second.sh"
    same "which sees the file" "$(cat "$T/second/file.txt")" hello
    DRIVEFS_HOME=$T/second.home drivefs umount "$T/second"
    kill_client me
    check "it repairs the mount of a dead daemon" quickstart "$M"
    same "and the file is there" "$(cat "$M/file.txt")" hello
    check "--stop unmounts" quickstart --stop "$M"
    check "and takes the empty folder away" test ! -e "$M"
    check "--stop twice is harmless" quickstart --stop "$M"
    check "another start" quickstart "$M"
    same "has the file" "$(cat "$M/file.txt")" hello
    check "--stop without a folder finds the mount" quickstart --stop
    check "which is gone" test ! -e "$M"
    mkdir "$T/full" && : >"$T/full/something"
    refused "a folder with files in it is refused" 'not empty' quickstart "$T/full"
    check "and left alone" test -e "$T/full/something"
    mkdir -p "$T/with space"
    check "a folder with a space in its name" quickstart "$T/with space/drive"
    check "shows the file" test -e "$T/with space/drive/file.txt"
    check "running it twice is harmless there too" quickstart "$T/with space/drive"
    check "and is stopped" quickstart --stop "$T/with space/drive"
    check "the data stays" test -e "$DRIVEFS_HOME/state.db"
    mkdir "$T/bin"
    for program in bash sh env awk sed grep cat stat realpath dirname basename id uname mkdir rmdir cc as ld fusermount3; do
        ln -s "$(type -P "$program")" "$T/bin/$program"
    done
    refused "without cargo it says what to do" 'cargo is missing' \
        env PATH="$T/bin" CARGO_HOME="$T/nowhere" bash "$TOP/mount-scripts/quickstart.sh" "$M"
else
    note "the programs do not lie in a cargo target folder: quickstart.sh is not run"
fi
unset DRIVEFS_HOME CARGO_TARGET_DIR

# ---- the fstab helper
start_server
add_user me@example.org
new_device alice
DRIVEFS=$BIN/drivefs
export DRIVEFS
helper() { sh "$TOP/mount-scripts/mount.drivefs" "$@"; }
check "mount.drivefs HOME DIR with options of mount(8)" \
    helper "$T/alice.home" "$T/alice" -o rw,noauto,_netdev,user=someone,x-systemd.automount,nofail,cache_size=1GiB
printf 'by fstab\n' >"$T/alice/file.txt"
check "sync" sync_device alice
same "cache_size is taken" "$(status alice .cache.limit_bytes)" $((1 << 30))
check "umount(8) unmounts" umount "$T/alice"
check "and the daemon ends" wait_until 20 client_is_gone alice
check "read-only by its options" helper "$T/alice.home" "$T/alice" -n -o ro,nodev -o nosuid
refused "refuses writes" 'read-only' touch "$T/alice/x"
check "the kernel has the options" bash -c "grep ' $T/alice ' /proc/self/mountinfo | grep -q nosuid"
umount_device alice >/dev/null
refused "a source that is no home" 'home' helper "$T/nowhere" "$T/alice"
check "-f only looks" helper "$T/alice.home" "$T/alice" -f
check "and mounts nothing" test ! -e "$T/alice/file.txt"
check "the source drivefs is the default home" env DRIVEFS_HOME="$T/alice.home" sh "$TOP/mount-scripts/mount.drivefs" drivefs "$T/alice"
same "with the file" "$(cat "$T/alice/file.txt")" "by fstab"
umount_device alice >/dev/null
if [ "$(id -u)" = 0 ] && [ ! -e /sbin/mount.drivefs ]; then
    trap 'rm -f /sbin/mount.drivefs; clean_up' EXIT
    ln -s "$TOP/mount-scripts/mount.drivefs" /sbin/mount.drivefs
    check "mount -t drivefs" mount -t drivefs -o noauto,ro "$T/alice.home" "$T/alice"
    same "shows the file" "$(cat "$T/alice/file.txt")" "by fstab"
    check "umount" umount "$T/alice"
    rm /sbin/mount.drivefs
    trap clean_up EXIT
    wait_until 20 client_is_gone alice
fi

# ---- the systemd unit
unit="$TOP/mount-scripts/drivefs@.service"
if command -v systemd-analyze >/dev/null; then
    mkdir "$T/unit"
    sed "s#=drivefs #=$BIN/drivefs #" "$unit" >"$T/unit/drivefs@.service"
    check "the systemd unit is well-formed" systemd-analyze verify --man=no "$T/unit/drivefs@-tmp-x.service"
else
    check "the systemd unit mounts and unmounts its folder" \
        bash -c "grep -q '^ExecStart=drivefs mount -- %I$' '$unit' && grep -q '^ExecStop=drivefs umount -- %I$' '$unit'"
fi
