#!/usr/bin/env bash
# A folder that two accounts share: one tree in both mounts; moves across its border carry
# references, not bytes.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

start_server
add_user alice@example.org
add_user bob@example.org
device alice alice@example.org
printf 'alone\n' >"$T/alice/own.txt"
sync_device alice
check "the operator makes a shared folder while the server runs" \
    drivefs-server mount add --email alice@example.org --with bob@example.org --path /team --data "$SERVER_DATA"
device bob bob@example.org
check "it appears in the mount that was there" wait_until 20 test -d "$T/alice/team"
check "and in the other account's" wait_until 20 test -d "$T/bob/team"
check "own files stay own" test ! -e "$T/bob/own.txt"

printf 'hello\n' >"$T/alice/team/a.txt"
check "a file arrives" wait_until 10 test -s "$T/bob/team/a.txt"
same "with its bytes" "$(cat "$T/bob/team/a.txt")" hello
check "a file without a name gets one in the shared folder, and none in another" python3 - "$T/alice" "$HERE" <<'PY'
import errno, os, sys
sys.path.insert(0, sys.argv[2])
sys.dont_write_bytecode = True
import syscalls
syscalls.DIR = sys.argv[1]
fd = syscalls.unnamed(within="team")
os.write(fd, b"unnamed")
syscalls.refused(errno.EXDEV, syscalls.link_fd, fd, "outside")
syscalls.link_fd(fd, "team/named.txt")
PY
check "it arrives" wait_until 10 test -s "$T/bob/team/named.txt"
mkdir "$T/bob/team/sub"
printf 'hi\n' >"$T/bob/team/sub/b.txt"
check "and the other way" wait_until 10 test -s "$T/alice/team/sub/b.txt"
refused "the shared folder cannot be removed like a folder" 'busy|not permitted|denied|not empty|cross' rmdir "$T/bob/team"

# ---- moves across the border
random_file "$T/big.bin" 64
mkdir -p "$T/alice/project/part"
cp "$T/big.bin" "$T/alice/project/part/big.bin"
printf 'note\n' >"$T/alice/project/note.txt"
touch -d '2011-11-11 11:11:11.123456789' "$T/alice/project/note.txt"
chmod 0640 "$T/alice/project/note.txt"
ln -s note.txt "$T/alice/project/link"
sync_device alice
before=$(wire_bytes alice)
check "a folder moves from the own tree into the shared one" mv "$T/alice/project" "$T/alice/team/project"
check "by rename, not by copy" python3 - "$T/alice" <<'PY'
import os, sys
os.chdir(sys.argv[1])
with open("probe", "w") as f:
    f.write("x")
os.rename("probe", "team/probe")
PY
check "is sent" sync_device alice
at_most "bytes on the wire for moving 64 MiB in" "$(($(wire_bytes alice) - before))" 65536
check "the other account sees it" wait_until 10 test -s "$T/bob/team/project/part/big.bin"
check "with the same bytes" cmp "$T/big.bin" "$T/bob/team/project/part/big.bin"
sync_device bob
same_tree "names, modes, times and targets are the same" "$T/alice/team" "$T/bob/team"
check "it is gone from the own tree" test ! -e "$T/alice/project"

before=$(wire_bytes bob)
check "the other account moves it into its own tree" mv "$T/bob/team/project" "$T/bob/mine"
check "is sent" sync_device bob
at_most "bytes on the wire for moving 64 MiB out" "$(($(wire_bytes bob) - before))" 65536
check "it leaves the shared folder" wait_until 10 test ! -e "$T/alice/team/project"
check "it has its bytes" cmp "$T/big.bin" "$T/bob/mine/part/big.bin"
new_device bob2 bob@example.org
mount_device bob2
check "also on a fresh device" cmp "$T/big.bin" "$T/bob2/mine/part/big.bin"
same "mode and time went with it" "$(stat -c '%a %y' "$T/bob2/mine/note.txt" | cut -c 1-33)" "640 2011-11-11 11:11:11.123456789"
same "and the symlink" "$(readlink "$T/bob2/mine/link")" note.txt

# ---- copies inside the account that owns the shared folder cost nothing either
cp "$T/big.bin" "$T/alice/again.bin"
sync_device alice
before=$(wire_bytes alice)
cp "$T/alice/again.bin" "$T/alice/team/again.bin"
sync_device alice
at_most "bytes on the wire for a copy into the shared folder" "$(($(wire_bytes alice) - before))" 1048576
check "which the other account reads" wait_until 10 cmp "$T/big.bin" "$T/bob/team/again.bin"

# ---- moves while offline, both directions
offline
mv "$T/alice/again.bin" "$T/alice/team/offline.bin"
mv "$T/alice/team/again.bin" "$T/alice/back.bin"
printf 'offline\n' >"$T/bob/team/from-bob.txt"
online
check "offline moves catch up" sync_device alice 60
sync_device bob 60
check "moved in" cmp "$T/big.bin" "$T/bob/team/offline.bin"
check "moved out" test ! -e "$T/bob/team/again.bin"
check "and is whole" cmp "$T/big.bin" "$T/alice/back.bin"
sync_device alice
same "the file of the other account arrived" "$(cat "$T/alice/team/from-bob.txt")" offline
same_tree "both show the same" "$T/alice/team" "$T/bob/team"
same "no conflicts came up" "$(status alice '.conflicts | length')$(status bob '.conflicts | length')" 00

# ---- a viewer reads only
add_user carol@example.org
drivefs-server mount add --email alice@example.org --with carol@example.org --path /readable --role viewer \
    --data "$SERVER_DATA" >/dev/null
device carol carol@example.org
wait_until 20 test -d "$T/alice/readable" || die "the folder does not appear"
printf 'look\n' >"$T/alice/readable/file.txt"
check "a viewer sees the file" wait_until 10 test -s "$T/carol/readable/file.txt"
if { printf 'scribble\n' >"$T/carol/readable/file.txt"; } 2>/dev/null; then
    refused "a viewer's change is refused by the server" 'view|role|permission|denied|forbidden' sync_device carol 10
else
    ok "a viewer's change is refused in the mount"
fi
sync_device alice
same "and never reaches the owner" "$(cat "$T/alice/readable/file.txt")" look

# ---- what is kept of the past is set for each folder
versions() { as alice drivefs versions "$T/alice/$1" --json | jq -c '[.versions[].version]'; }
policy() { drivefs-server policy --email alice@example.org --data "$SERVER_DATA" "$@"; }
for i in 1 2 3 4; do
    printf '%s\n' "$i" | tee "$T/alice/team/past.txt" >"$T/alice/past.txt"
    sync_device alice
done
check "at most two versions in the shared folder" policy --path /team --versions 2
same "not in the account's own" "$(policy --json | jq .versions)" 100
check "the job that removes them runs" drivefs-server jobs --run prune --data "$SERVER_DATA"
same "two are left" "$(versions team/past.txt)" '[4,3]'
same "of the other file all" "$(versions past.txt)" '[4,3,2,1]'
refused "a folder that is not shared has none of its own" 'no shared folder /team2' policy --path /team2 --versions 2
refused "nor has nobody's" 'no account' drivefs-server policy --email x@example.org --data "$SERVER_DATA"
refused "forever is a century" 'not in 0..=36500' policy --trash-days 999999
refused "the newest version always stays" 'not in 1' policy --versions 0
check "it is on record" grep -q 'policy_set.*alice@example.org' <(drivefs-server audit --data "$SERVER_DATA")
