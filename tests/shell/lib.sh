# shellcheck shell=bash
# The small language of the shell tests: servers, devices, checks. A test sources this file first.
#
#   start_server [flags of serve]     a server on loopback; sets URL
#   add_user EMAIL [flags]            an account (password: $PASSWORD)
#   device NAME [EMAIL]               a home of its own, logged in and mounted; $T/NAME is its mount
#   two_devices                       a server, an account, alice and bob; sets A and B, their mounts
#   both                              what either has done is on the other
#   as NAME CMD...                    runs CMD with the home of that device
#   offline / online                  stops the server / starts it again at the same address
#   check TEXT CMD...                 one checked thing: prints ok or FAIL
#
# Everything lives in the folder $T and ends with the test: mounts, servers, helpers, files.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TEST_NAME=$(basename "$0" .sh)
# Folder of the programs under test.
BIN=${DRIVEFS_BIN:-$HERE/../../target/release}
BIN=$(cd "$BIN" && pwd)
# Folder of the test programs that tests/run.sh installs.
TOOLS=${DRIVEFS_TOOLS:-$HERE/../../target/tools}
export PATH="$BIN:$TOOLS/bin:$PATH"
export GIT_AUTHOR_NAME=Test GIT_AUTHOR_EMAIL=test@example.org
export GIT_COMMITTER_NAME=Test GIT_COMMITTER_EMAIL=test@example.org
export GIT_CONFIG_NOSYSTEM=1
unset DRIVEFS_HOME
# Nothing shows up on the desktop of who runs the tests.
export DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent/bus

PASSWORD="correct horse battery"
T=$(mktemp -d "${TMPDIR:-/tmp}/drivefs-test.XXXXXX")
PASSED=0
FAILED=0
STARTED=$SECONDS
LAST=$SECONDS
DEVICES=()
HELPERS=()
SERVER_PID=
SERVER_DATA=$T/server
SERVER_ARGS=()
PORT=0
URL=

# ---- checks ------------------------------------------------------------------------------------

ok() {
    PASSED=$((PASSED + 1))
    printf 'ok    %s: %s%s\n' "$TEST_NAME" "$*" "$(slow)"
    LAST=$SECONDS
}

# How long it was since the last line, if it was long.
slow() {
    local took=$((SECONDS - LAST))
    [ "$took" -lt 5 ] || printf ' [%d s]' "$took"
}

fail() {
    FAILED=$((FAILED + 1))
    printf 'FAIL  %s: %s%s\n' "$TEST_NAME" "$*" "$(slow)"
    LAST=$SECONDS
}

note() { printf '      %s: %s\n' "$TEST_NAME" "$*"; }

# Ends the test as failed.
die() {
    fail "$*"
    exit 1
}

# check TEXT CMD...: the command succeeds.
check() {
    local text=$1
    shift
    if "$@" >"$T/.check.new" 2>&1; then
        ok "$text"
    else
        fail "$text"
        head -c 4000 "$T/.check.new" | sed 's/^/      | /'
    fi
    # What it said stays for the test to look at: $T/.check.
    mv "$T/.check.new" "$T/.check"
}

# refused TEXT PATTERN CMD...: the command fails, and says so in words that match PATTERN.
refused() {
    local text=$1 pattern=$2
    shift 2
    if "$@" >"$T/.check" 2>&1; then
        fail "$text (it was not refused)"
    elif grep -Eqi -- "$pattern" "$T/.check"; then
        ok "$text"
    else
        fail "$text (its words do not match /$pattern/)"
    fi
    if [ "${VERBOSE:-}" ] || ! grep -Eqi -- "$pattern" "$T/.check"; then
        head -c 2000 "$T/.check" | sed 's/^/      | /'
    fi
}

# same TEXT A B: two texts are equal.
same() {
    if [ "$2" = "$3" ]; then ok "$1"; else fail "$1 (found '$2', expected '$3')"; fi
}

# at_most TEXT VALUE LIMIT: whole numbers.
at_most() {
    if [ "$2" -le "$3" ]; then ok "$1: $2 (at most $3)"; else fail "$1: $2 (at most $3)"; fi
}

at_least() {
    if [ "$2" -ge "$3" ]; then ok "$1: $2 (at least $3)"; else fail "$1: $2 (at least $3)"; fi
}

# wait_until SECS CMD...: polls until the command succeeds; fails after SECS.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.05
    done
}

# need_tool NAME: a test program that tests/run.sh installs beside the build.
need_tool() {
    command -v "$1" >/dev/null || die "$1 is missing: tests/run.sh installs it into target/tools"
}

# Ends a test that only root can run.
need_root() {
    [ "$(id -u)" = 0 ] && return
    note "not run: it needs root"
    exit 0
}

now_ms() {
    local t=$EPOCHREALTIME
    printf '%s' "$((${t/./} / 1000))"
}

# ---- server ------------------------------------------------------------------------------------

# shellcheck disable=SC2120
start_server() {
    SERVER_ARGS=("$@")
    online
}

# Starts the server, at the address that it had before.
online() {
    : >"$T/server.out"
    drivefs-server serve --listen "127.0.0.1:$PORT" --data "$SERVER_DATA" \
        ${SERVER_ARGS[@]+"${SERVER_ARGS[@]}"} >"$T/server.out" 2>>"$T/server.log" &
    SERVER_PID=$!
    wait_until 20 grep -q '^listening on' "$T/server.out" || die "the server does not start"
    URL=$(sed -n 's/^listening on //p' "$T/server.out")
    PORT=${URL##*:}
}

# Stops the server in order.
offline() {
    kill -TERM "$SERVER_PID"
    wait "$SERVER_PID" || fail "the server's end was not clean"
    SERVER_PID=
}

kill_server() {
    kill -KILL "$SERVER_PID"
    wait "$SERVER_PID" 2>/dev/null || true
    SERVER_PID=
}

add_user() {
    local email=$1
    shift
    printf '%s\n' "$PASSWORD" |
        drivefs-server user add --email "$email" --password-stdin --data "$SERVER_DATA" "$@" >/dev/null
}

# ---- devices -----------------------------------------------------------------------------------

# as NAME CMD...
as() {
    local home=$T/$1.home
    shift
    DRIVEFS_HOME=$home "$@"
}

# new_device NAME [EMAIL]: a home, logged in, not mounted.
new_device() {
    local name=$1 email=${2:-me@example.org}
    mkdir -p "$T/$name" "$T/$name.home"
    chmod 700 "$T/$name.home"
    DEVICES+=("$name")
    printf '%s\n' "$PASSWORD" |
        as "$name" drivefs login "${LOGIN_URL:-$URL}" --email "$email" --device "$name" \
            --password-stdin >/dev/null
}

device() {
    new_device "$@"
    mount_device "$1"
}

# shellcheck disable=SC2034
two_devices() {
    start_server
    add_user me@example.org
    device alice
    device bob
    A=$T/alice
    B=$T/bob
}

both() {
    sync_device alice
    sync_device bob
    sync_device alice
}

# mount_device NAME [flags of mount]
mount_device() {
    local name=$1
    shift
    as "$name" drivefs mount "$T/$name" "$@"
}

umount_device() { as "$1" drivefs umount "$T/$1"; }

remount() {
    umount_device "$1" >/dev/null
    mount_device "$1"
}

sync_device() { as "$1" drivefs sync --timeout "${2:-90}"; }

# status NAME FILTER: a part of its status, by jq.
status() { as "$1" drivefs status --json | jq -r "$2"; }

# Bytes over the wire since the mount, both ways.
wire_bytes() { status "$1" '.bytes_sent + .bytes_received'; }

sent_bytes() { status "$1" .bytes_sent; }

received_bytes() { status "$1" .bytes_received; }

# Process id of the daemon: whoever holds the home's lock.
client_pid() {
    local inode
    inode=$(stat -c %i "$T/$1.home/lock")
    awk -v i="$inode" '$2 == "FLOCK" { n = split($6, f, ":"); if (f[n] == i) { print $5; exit } }' /proc/locks
}

client_is_gone() { [ -z "$(client_pid "$1")" ]; }

kill_client() {
    local pid
    pid=$(client_pid "$1")
    [ -n "$pid" ] || die "device $1 has no daemon"
    kill -KILL "$pid"
    wait_until 10 client_is_gone "$1" || die "the daemon of $1 does not die"
}

is_mount() { awk -v at="$1" '$5 == at { found = 1 } END { exit !found }' /proc/self/mountinfo; }

# Names, types, modes, times (ns), link counts, sizes and symlink targets of a tree, sorted.
listing() {
    (cd "$1" && find . -mindepth 1 \( -type d -printf '%y %m %T@ %P\0' \) -o \
        -printf '%y %m %n %s %T@ %P -> %l\0') | sort -z | tr '\0' '\n'
}

# same_tree TEXT A B: both trees agree in all of `listing`.
same_tree() {
    listing "$2" >"$T/.list1"
    listing "$3" >"$T/.list2"
    if cmp -s "$T/.list1" "$T/.list2"; then
        ok "$1 ($(wc -l <"$T/.list1") entries)"
    else
        fail "$1"
        { diff -a "$T/.list1" "$T/.list2" || true; } | head -10 | sed 's/^/      | /'
    fi
}

# random_file PATH MIB
random_file() { head -c "$(($2 << 20))" /dev/urandom >"$1"; }

# big_tree DIR: a real source tree of 10,000 files and more, from the unpacked dependencies, with
# symlinks, hard links, modes, old times and odd names on top.
big_tree() {
    local dir=$1 crate count=0 from=${SOURCES:-${CARGO_HOME:-$HOME/.cargo}/registry/src}
    mkdir -p "$dir"
    for crate in "$from"/*/*/; do
        cp -a "$crate" "$dir/"
        count=$((count + $(find "$crate" -type f | wc -l)))
        [ "$count" -lt 10500 ] || break
    done
    mkdir -p "$dir/odd/empty folder" "$dir/odd/private"
    printf 'x' >"$dir/odd/  spaces  and 'quotes' \"both\""
    printf 'x' >"$dir/odd/"$'line\nbreak'
    printf 'x' >"$dir/odd/-rf"
    printf 'x' >"$dir/odd/äöü 漢字 🎉"
    : >"$dir/odd/empty file"
    ln -s 'äöü 漢字 🎉' "$dir/odd/link"
    ln -s /nowhere/at/all "$dir/odd/dangling"
    ln -s .. "$dir/odd/up"
    ln "$dir/odd/-rf" "$dir/odd/hard link"
    mkfifo "$dir/odd/pipe"
    chmod 0400 "$dir/odd/empty file"
    chmod 0755 "$dir/odd/-rf"
    chmod 0700 "$dir/odd/private"
    touch -d '1999-12-31 23:59:59.123456789' "$dir/odd/empty file"
    touch -h -d '2001-02-03 04:05:06.000000007' "$dir/odd/dangling"
    touch -d '2033-05-18 03:33:20.999999999' "$dir/odd/empty folder"
    [ "$count" -ge 10000 ] || die "there are only $count source files below $from; cargo fetch first"
    note "the tree has $count source files, $(du -sm "$dir" | cut -f1) MiB"
}

# ---- who runs the test -------------------------------------------------------------------------

# become_user [sources]: goes on as an ordinary user, who mounts through fusermount3. Programs and
# tests, and the source tree if wanted, are copied where that user can read them.
become_user() {
    [ "$(id -u)" = 0 ] || return 0
    local user=drivefs-test place rc=0 made='' mode
    id "$user" >/dev/null 2>&1 || { useradd --no-create-home --shell /bin/sh "$user" && made=1; }
    # Without udev /dev/fuse is 0600 and fusermount3 refuses ordinary users: set what udev's rule
    # would set.
    mode=$(stat -c %a /dev/fuse)
    chmod 0666 /dev/fuse
    place=$(mktemp -d "${TMPDIR:-/tmp}/drivefs-user.XXXXXX")
    mkdir -p "$place/bin" "$place/home" "$place/sources/all"
    cp "$BIN/drivefs" "$BIN/drivefs-server" "$place/bin/"
    cp -r "$HERE" "$place/shell"
    [ "${1:-}" != sources ] || big_tree "$place/sources/all/tree" >/dev/null
    chown -R "$user" "$place"
    setpriv --reuid "$user" --regid "$user" --clear-groups env -u CARGO_HOME \
        HOME="$place/home" DRIVEFS_BIN="$place/bin" SOURCES="$place/sources" \
        bash "$place/shell/$(basename "$0")" || rc=$?
    rm -rf "$place"
    chmod "$mode" /dev/fuse
    [ -z "$made" ] || userdel "$user"
    SUPERSEDED=1
    exit "$rc"
}

# ---- the end -----------------------------------------------------------------------------------

show_logs() {
    local name file
    for file in "$T/server.log" ${DEVICES[@]+"${DEVICES[@]/%/.home}"}; do
        [ -d "$T/$file" ] && file=$T/$file/drivefs.log
        [ -s "$file" ] || continue
        printf '      ---- last lines of %s\n' "${file#"$T/"}"
        tail -n 15 "$file" | cut -c 1-400 | sed 's/^/      | /'
    done
}

clean_up() {
    local rc=$? name pid
    trap - EXIT INT TERM ERR
    set +e
    cd /
    if [ -z "${SUPERSEDED:-}" ]; then
        [ "$rc" = 0 ] || [ "$FAILED" -gt 0 ] || fail "ended early with exit code $rc"
        [ "$FAILED" = 0 ] || show_logs
    fi
    for pid in ${HELPERS[@]+"${HELPERS[@]}"}; do
        kill "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    for name in ${DEVICES[@]+"${DEVICES[@]}"}; do
        is_mount "$T/$name" || continue
        as "$name" timeout 20 drivefs umount --lazy "$T/$name" >/dev/null 2>&1
        is_mount "$T/$name" || continue
        umount -l "$T/$name" 2>/dev/null || fusermount3 -u -z "$T/$name"
    done
    for name in ${DEVICES[@]+"${DEVICES[@]}"}; do
        pid=$(client_pid "$name" 2>/dev/null)
        [ -z "$pid" ] || kill -KILL "$pid"
    done
    [ -z "$SERVER_PID" ] || { kill -KILL "$SERVER_PID" && wait "$SERVER_PID"; } 2>/dev/null
    if [ "${KEEP:-}" ]; then
        printf '      kept: %s\n' "$T"
    else
        rm -rf --one-file-system "$T"
    fi
    [ -n "${SUPERSEDED:-}" ] ||
        printf '#     %s: %d passed, %d failed, %d s\n' "$TEST_NAME" "$PASSED" "$FAILED" "$((SECONDS - STARTED))"
    [ "$rc" != 0 ] || [ "$FAILED" = 0 ] || rc=1
    exit "$rc"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
on_error() {
    [ "${BASH_SUBSHELL}" -gt 0 ] || fail "ended at line $2: $1"
}
trap 'on_error "$BASH_COMMAND" "$LINENO"' ERR
set -E
