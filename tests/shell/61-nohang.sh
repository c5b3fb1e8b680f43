#!/usr/bin/env bash
# The server is silent, or the network swallows everything: nothing that needs no bytes waits, a
# read that needs them fails in time, and a reader that is killed is gone at once.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# ms CMD...: how long it takes, whatever its result.
ms() {
    local begin
    begin=$(now_ms)
    "$@" >/dev/null 2>&1 || true
    printf '%s' "$(($(now_ms) - begin))"
}

# Nothing of this may wait for the network.
instant() {
    at_most "$1: ms for df" "$(ms timeout 20 df "$B")" 500
    at_most "$1: ms for ls -lR" "$(ms timeout 20 ls -lR "$B")" 1000
    at_most "$1: ms for stat" "$(ms timeout 20 stat "$B/one.bin")" 500
    at_most "$1: ms for a shell that looks around" "$(ms timeout 20 bash -c "cd '$B/deep' && echo * && test -e ../one.bin && pwd")" 500
    at_most "$1: ms for a cached read" "$(ms timeout 20 cat "$B/cached.bin")" 1000
    at_most "$1: ms for a write" "$(ms timeout 20 cp "$T/small" "$B/written.$2")" 1000
    at_most "$1: ms for status" "$(ms as bob timeout 20 drivefs status)" 1500
    at_most "$1: ms for why" "$(ms as bob timeout 20 drivefs why "$B/one.bin")" 1500
    check "$1: a cached read works" cmp "$T/cached.bin" "$B/cached.bin"
}

# killed TEXT SIGNAL FILE READER...: a reader that waits for the network ends within a second of the signal.
killed() {
    local reader begin
    # Not the shell's own choice of signals: it lets background jobs ignore Ctrl-C.
    env --default-signal=INT "${@:4}" "$B/$3" >/dev/null 2>&1 &
    reader=$!
    sleep 0.5
    if ! kill -0 "$reader" 2>/dev/null; then
        fail "$1 (the reader did not wait)"
        return
    fi
    begin=$(now_ms)
    kill "-$2" "$reader"
    wait "$reader" 2>/dev/null || true
    at_most "$1: ms until it is gone" "$(($(now_ms) - begin))" 1000
}

start_server
add_user me@example.org
device alice
random_file "$T/cached.bin" 3
head -c 100000 /dev/urandom >"$T/small"
cp "$T/cached.bin" "$T/alice/cached.bin"
for n in one two three four five; do random_file "$T/alice/$n.bin" 3; done
mkdir -p "$T/alice/deep/er"
for n in $(seq 1 50); do echo "$n" >"$T/alice/deep/er/$n"; done
sync_device alice
device bob
B=$T/bob
sync_device bob
cat "$B/cached.bin" >/dev/null

# ---- the server is stopped: connections stand, nothing answers
kill -STOP "$SERVER_PID"
killed "SIGKILL of a waiting reader" KILL one.bin cat
# Single pages, without the kernel's read-ahead: it waits for the answer itself then.
pages=(python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
os.pread(fd, 4096, 1 << 20)')
mapped=(python3 -c 'import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
m.madvise(mmap.MADV_RANDOM)
print(m[1 << 20])')
killed "SIGKILL of a reader of single pages" KILL two.bin "${pages[@]}"
killed "SIGTERM of a reader of single pages" TERM two.bin "${pages[@]}"
killed "Ctrl-C of a waiting reader" INT three.bin cat
instant "silent server" 1
begin=$(now_ms)
refused "an uncached read fails" 'Input/output error' timeout 60 cat "$B/four.bin"
at_most "ms until it failed" "$(($(now_ms) - begin))" 5000
begin=$(now_ms)
refused "the next one as well" 'Input/output error' timeout 60 cat "$B/five.bin"
at_most "ms until it failed" "$(($(now_ms) - begin))" 5000
check "why says that the server is away" bash -c "DRIVEFS_HOME='$T/bob.home' drivefs why '$B/four.bin' | grep -q offline"
refused "pin says that it cannot" 'pinned' as bob timeout 30 drivefs pin "$B/four.bin"

# ---- umount while readers wait
cat "$B/one.bin" >/dev/null 2>&1 &
reader=$!
sleep 0.3
at_most "ms for umount --lazy while a reader waits" "$(ms as bob timeout 20 drivefs umount --lazy "$B")" 5000
check "the folder is free" bash -c "! grep -q ' $B ' /proc/self/mountinfo"
begin=$(now_ms)
wait "$reader" 2>/dev/null || true
at_most "the reader ends, ms" "$(($(now_ms) - begin))" 6000
wait_until 15 client_is_gone bob || fail "the daemon does not end"
begin=$(now_ms)
check "a known drive mounts with a silent server" mount_device bob
at_most "ms for it" "$(($(now_ms) - begin))" 3000
at_most "ms for umount" "$(ms as bob timeout 20 drivefs umount "$B")" 5000
kill -CONT "$SERVER_PID"
mount_device bob
check "everything is read when the server is back" bash -c "for n in one two three four five; do cmp '$T/alice/'\$n.bin '$B/'\$n.bin || exit 1; done"
check "what was written meanwhile gets there" sync_device bob 60

# ---- a black hole: packets go and nothing comes back, not even a refusal
if [ "$(id -u)" = 0 ] && command -v iptables >/dev/null && iptables -w 5 -L -n >/dev/null 2>&1; then
    for n in six seven; do random_file "$T/alice/$n.bin" 3; done
    sync_device alice
    sync_device bob
    rule=(INPUT -i lo -p tcp --sport "$PORT" -j DROP)
    iptables -w 5 -I "${rule[@]}"
    trap 'iptables -w 5 -D "${rule[@]}" 2>/dev/null; clean_up' EXIT
    killed "SIGKILL of a reader before a black hole" KILL six.bin cat
    killed "SIGKILL of a reader of mapped pages" KILL six.bin "${mapped[@]}"
    killed "SIGTERM of a waiting reader" TERM six.bin cat
    instant "black hole" 2
    begin=$(now_ms)
    refused "an uncached read fails" 'Input/output error' timeout 60 cat "$B/seven.bin"
    at_most "ms until it failed" "$(($(now_ms) - begin))" 5000
    iptables -w 5 -D "${rule[@]}"
    trap clean_up EXIT
    readable() { cmp "$T/alice/seven.bin" "$B/seven.bin"; }
    check "it is read when the network is back" wait_until 60 readable
else
    note "no iptables here: the black hole is left out"
fi

# ---- the daemon dies under programs that are in the mount
exec 7<"$B/cached.bin"
cd "$B/deep"
kill_client bob
refused "a dead mount" 'not connected' ls "$B"
check "mount repairs it while a file is open and a shell is inside" mount_device bob
check "the new mount works" cmp "$T/cached.bin" "$B/cached.bin"
refused "the old working folder says so at once" 'not connected|No such file|Transport' timeout 5 ls .
cd /
exec 7<&-
check "it unmounts" umount_device bob

# ---- session threads that followed a caller to its core do not stay of the least importance
policies() { for task in "/proc/$(client_pid alice)"/task/*; do
    case $(cat "$task/comm") in fuser-[0-9]*) chrt -p "${task##*/}" | grep -c SCHED_IDLE ;; esac
done; }
none_is_idle() { [ "$(policies | grep -c 1)" = 0 ]; }
for n in $(seq 1 300); do : >"$T/alice/$n"; done
check "session threads are back when nothing is asked" wait_until 2 none_is_idle
