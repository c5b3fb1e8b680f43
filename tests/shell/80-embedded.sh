#!/usr/bin/env bash
# `drivefs mount` without an account runs a server of its own, as long as the mount lives.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

mkdir "$T/own" "$T/own.home" "$T/second" "$T/second.home"
chmod 700 "$T/own.home" "$T/second.home"
DEVICES+=(own second)
embedded_pid() { cat "$T/own.home/server/pid"; }
server_is_gone() { ! kill -0 "$1" 2>/dev/null; }

mount_device own >"$T/out"
sed 's/^/      | /' "$T/out"
check "it says where the server's data lies" grep -qF "$T/own.home/server" "$T/out"
second=$(sed -n 's/^second device: drivefs //p' "$T/out")
check "it says how to add a second device" test -n "$second"
printf 'mine\n' >"$T/own/file.txt"
check "sync" sync_device own
key=$(find "$T/own.home/server" -type f -name '*key*' | head -1)
check "there is a master key file" test -n "$key"
same "nobody else can read it" "$(stat -c %a "$key")" 600
same "nor the password" "$(stat -c %a "$T/own.home/server/password")" 600
same "nor the folder" "$(stat -c %a "$T/own.home/server")" 700
same "nor the account file" "$(stat -c %a "$T/own.home/account.json")" 600
pid=$(embedded_pid)
port=$(sed 's/.*://' "$T/own.home/server/address")
check "it listens on loopback alone" python3 - "$port" <<'PY'
import sys
want = "%04X" % int(sys.argv[1])
seen = []
for path in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(path).read().splitlines()[1:]:
        words = line.split()
        address, at = words[1].rsplit(":", 1)
        if words[3] == "0A" and at == want:
            seen.append(address)
sys.exit(0 if seen == ["0100007F"] else str(seen))
PY

check "the printed command adds a second device" bash -c "DRIVEFS_HOME='$T/second.home' drivefs $second --device second"
mount_device second
same "which sees the file" "$(cat "$T/second/file.txt")" mine
printf 'from the second\n' >"$T/second/other.txt"
check "and whose file arrives" wait_until 10 test -e "$T/own/other.txt"
same "both ways" "$(cat "$T/own/other.txt")" "from the second"

# The server dies: the mount starts it again.
kill -KILL "$pid"
check "a killed server is started again" wait_until 15 bash -c "[ \"\$(cat '$T/own.home/server/pid')\" != $pid ]"
printf 'after\n' >"$T/own/after.txt"
check "and the mount goes on" sync_device own 30
# The client dies: the next mount takes over the server it left.
kill_client own
check "a killed client mounts again" mount_device own
printf 'again\n' >"$T/own/again.txt"
check "and goes on" sync_device own 30

pid=$(embedded_pid)
check "umount" umount_device own
check "ends the server" wait_until 15 server_is_gone "$pid"
offline_now() { [ "$(status second .online)" = false ]; }
check "the second device is offline then" wait_until 20 offline_now
mount_device own >"$T/out"
same "another mount says nothing" "$(cat "$T/out")" ""
same "everything is still there" "$(cat "$T/own/again.txt" "$T/own/other.txt" | tr '\n' ' ')" "again from the second "
printf 'more\n' >"$T/second/more.txt"
check "the second device finds the server again" sync_device second 60
check "and its file arrives" wait_until 10 test -e "$T/own/more.txt"
umount_device second >/dev/null
kill -TERM "$(client_pid own)"
check "SIGTERM ends mount and server" wait_until 20 server_is_gone "$(embedded_pid)"
check "the folder is free" bash -c "! grep -q ' $T/own ' /proc/self/mountinfo"
mkdir "$T/alone" && cp "$BIN/drivefs" "$T/alone/"
refused "without a server beside it, it says so" 'drivefs-server' \
    env PATH=/usr/bin:/bin DRIVEFS_HOME="$T/third.home" "$T/alone/drivefs" mount "$T/second"
