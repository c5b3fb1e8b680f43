#!/usr/bin/env bash
# Conflicts on two mounts: which there are, and the four ways to end one.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

conflicts() { as "$1" drivefs conflicts --json | jq -r "$2"; }
resolve() { as "$1" drivefs resolve "$2" --keep "$3"; }
in_step() { sync_device alice && sync_device bob && sync_device alice; }
attr() { getfattr --absolute-names --only-values -n "user.drivefs.$2" "$1"; }

two_devices

# torn NAME ALICE BOB [BASE]: both changed it while bob's client was away; bob's is the conflict.
torn() {
    printf '%b' "${4:-one\ntwo\nthree\nfour\nfive\n}" >"$A/$1"
    in_step
    umount_device bob >/dev/null
    printf '%b' "$2" >"$A/$1"
    sync_device alice
    offline
    mount_device bob
    printf '%b' "$3" >"$B/$1"
    online
    sync_device bob 60
    in_step
    FILE=$(conflicts bob ".conflicts[] | select(.origin == \"$1\") | .path")
}

same "no conflicts" "$(as alice drivefs conflicts)" "no conflicts"

# ---- the list
torn list.txt 'ONE\ntwo\nthree\nfour\nfive\n' 'one\ntwo\nthree\nfour\nFIVE\n'
same "both devices list it" "$(conflicts alice '.conflicts | length')$(conflicts bob '.conflicts | length')" 11
same "with path, origin, device and base" \
    "$(conflicts alice '.conflicts[0] | [.path, .origin, .device, .base_version, .bytes, .origin_bytes] | @csv')" \
    "\"$FILE\",\"list.txt\",\"bob\",1,24,24"
same "and the date" "$(conflicts alice '.conflicts[0].date | test("^20[0-9-]{8}$")')" true
check "for people" as bob drivefs conflicts
check "it says what to do" grep -q 'drivefs resolve' "$T/.check"
same "status lists the same" "$(status alice '.conflicts[0]')" "$FILE"
same "the state of the file" "$(attr "$A/$FILE" state)" conflict
check "why" as bob drivefs why "$B/$FILE"
check "says what to do" grep -q 'drivefs resolve' "$T/.check"
refused "programs cannot forge the mark" 'not permitted' setfattr -n user.drivefs.conflict-of -v x "$A/list.txt"

# ---- words that are wrong change nothing
refused "a file without a conflict" 'has no conflict' resolve alice "$A" theirs
refused "a file that is not there" 'no such file' resolve alice "$A/nothing" theirs
refused "a file outside of the drive" 'not in the drive' resolve alice /etc/passwd theirs
refused "another word" 'mine.*theirs.*both.*merge' resolve alice "$A/list.txt" yours
same "usage errors are exit code 2" "$(resolve alice "$A/list.txt" yours >/dev/null 2>&1 || echo $?)" 2

# ---- merge
cat "$A/list.txt" >/dev/null
check "merge" resolve alice "$A/list.txt" merge
same "it has the changes of both, at once, also through the kernel's cache" "$(tr '\n' ' ' <"$A/list.txt")" "ONE two three four FIVE "
in_step
same "on the other device too" "$(tr '\n' ' ' <"$B/list.txt")" "ONE two three four FIVE "
check "the conflict file is gone" test ! -e "$A/$FILE" -a ! -e "$B/$FILE"
same "it is version 3 of the same file" "$(attr "$B/list.txt" version)" 3

torn clash.txt 'alice\n' 'bob\n'
refused "overlapping changes are not merged" 'same lines' resolve bob "$B/clash.txt" merge
same "and nothing changed" "$(cat "$B/clash.txt") $(cat "$B/$FILE")" "alice bob"
torn bin.dat '\0alice' '\0bob' '\0base'
refused "what is no text is not merged" 'not a text' resolve bob "$B/$FILE" merge

# ---- mine, theirs, both
exec 7<"$B/bin.dat"
check "mine" resolve bob "$B/$FILE" mine
same "who has the origin open sees it" "$(tr -d '\0' <&7)" bob
exec 7<&-
check "theirs" as alice drivefs resolve "$A/clash.txt" --keep theirs --json
same "it tells what it did, in JSON" "$(jq -r '[.kept, .path, (.removed | length > 0)] | @csv' "$T/.check")" '"theirs","clash.txt",true'
in_step
same "theirs, on both" "$(cat "$A/clash.txt")$(cat "$B/clash.txt")" alicealice
same "mine, on both" "$(tr -d '\0' <"$A/bin.dat")$(tr -d '\0' <"$B/bin.dat")" bobbob
same "no conflict is left" "$(conflicts alice '.conflicts | length')$(conflicts bob '.conflicts | length')" 00
torn both.txt 'alice\n' 'bob\n'
check "both" resolve alice "$A/both.txt" both
in_step
same "both stay" "$(cat "$B/both.txt")$(cat "$B/$FILE")" alicebob
same "and are no conflict, on both devices" "$(conflicts alice '.conflicts | length')$(conflicts bob '.conflicts | length')$(attr "$B/$FILE" state)" 00synced

# ---- names with characters that a shell knows
odd="it's \$(touch pwned) \`id\`; * \"q\" & co.txt"
mkdir "$T/here"
cd "$T/here" || exit
torn odd.txt 'alice\n' 'bob\n'
mv "$B/$FILE" "$B/$odd"
mv "$B/odd.txt" "$B/-rf *"
in_step
same "they are listed" "$(conflicts alice '.conflicts[0] | .path + "|" + .origin')" "$odd|-rf *"
check "and resolved" resolve alice "$A/$odd" mine
same "the renamed origin has it" "$(cat "$A/-rf *")" bob
check "nothing was run" test ! -e "$T/here/pwned"
cd /
in_step

# ---- without the server
torn off.txt 'alice\n' 'bob\n'
offline
printf 'unsent\n' >"$B/off.txt"
refused "what is not sent is not overwritten" 'not on the server yet.*offline' resolve bob "$B/$FILE" mine
refused "a merge needs the server" 'not on the server|cannot be fetched' resolve bob "$B/$FILE" merge
same "nothing changed" "$(cat "$B/off.txt")$(cat "$B/$FILE")" unsentbob
online
check "with it, the same command waits and works" resolve bob "$B/$FILE" mine
in_step
same "the result" "$(cat "$A/off.txt")" bob
same "what was overwritten is a version" "$(attr "$A/off.txt" version)" 4

# ---- killed in the middle: both are there, or it is done; the same command again ends it
for round in 1 2 3 4; do
    head -c 3000000 /dev/urandom >"$T/alice.bin"
    head -c 3000000 /dev/urandom >"$T/bob.bin"
    printf 'base' >"$A/kill.bin"
    in_step
    umount_device bob >/dev/null
    cp "$T/alice.bin" "$A/kill.bin"
    sync_device alice
    offline
    mount_device bob
    cp "$T/bob.bin" "$B/kill.bin"
    online
    sync_device bob 60
    FILE=$(conflicts bob '.conflicts[0].path')
    resolve bob "$B/$FILE" mine >/dev/null 2>&1 &
    resolver=$!
    sleep "0.00$((round * 2))"
    kill_client bob
    wait "$resolver" 2>/dev/null || true
    umount_device bob >/dev/null 2>&1 || true
    mount_device bob
    if cmp -s "$T/bob.bin" "$B/kill.bin"; then
        ok "round $round: the origin has the new content"
    else
        check "round $round: the origin has the old content" cmp "$T/alice.bin" "$B/kill.bin"
        check "round $round: the conflict file is there" cmp "$T/bob.bin" "$B/$FILE"
    fi
    [ ! -e "$B/$FILE" ] || resolve bob "$B/$FILE" mine >/dev/null
    in_step
    check "round $round: it ends on both" bash -c "cmp '$T/bob.bin' '$A/kill.bin' && cmp '$T/bob.bin' '$B/kill.bin'"
    same "round $round: no conflict is left" "$(conflicts alice '.conflicts | length')$(conflicts bob '.conflicts | length')" 00
done

# ---- a folder that is shared for reading only
add_user guest@example.org
drivefs-server mount add --email me@example.org --with guest@example.org --path /shared \
    --role viewer --data "$SERVER_DATA" >/dev/null
in_step
printf 'base' >"$A/shared/s.txt"
in_step
offline
printf 'alice' >"$A/shared/s.txt"
printf 'bob' >"$B/shared/s.txt"
online
sync_device alice 60
sync_device bob 60
in_step
device carol guest@example.org
sync_device carol
same "a guest sees the conflict" "$(conflicts carol '.conflicts | length')" 1
C=$T/carol
FILE=$(conflicts carol '.conflicts[0].path')
for what in mine theirs both merge; do
    refused "and may not resolve it ($what)" 'reading only' resolve carol "$C/$FILE" "$what"
done
check "an owner may" resolve alice "$A/$FILE" both
sync_device alice
sync_device carol
same "the guest sees that" "$(conflicts carol '.conflicts | length')" 0

umount_device bob >/dev/null
refused "without a mount it says what to do" 'drivefs mount' as bob drivefs conflicts
