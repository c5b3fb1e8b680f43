#!/usr/bin/env bash
# `.versions` on real mounts of two devices: old versions and deleted files as folders that any
# program reads, found by name only, and never changed.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

two_devices

# Names in a folder, one a line.
names() { (cd "$1" && find . -mindepth 1 -maxdepth 1 -printf '%f\n' | sort); }
# The names of versions without their times.
plain() { names "$1" | sed -E 's/ [0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}\.[0-9]{2}\.[0-9]{2}Z//'; }
attribute() { getfattr --absolute-names --only-values -n "user.drivefs.$2" "$1"; }

# ---- versions of a file
mkdir "$A/docs"
printf 'one\n' >"$A/docs/plan.txt"
both
printf 'two\n' >"$B/docs/plan.txt"
both
printf 'three\n' >"$A/docs/plan.txt"
chmod 0640 "$A/docs/plan.txt"
both
P=$A/docs/.versions/plan.txt
same "one file a version" "$(plain "$P" | tr '\n' ',')" '0001 alice.txt,0002 bob.txt,0003 alice.txt,'
check "called by number, time and device" bash -c "ls '$P' | grep -Eqx '0002 20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}\.[0-9]{2}\.[0-9]{2}Z bob\.txt'"
same "each has its bytes" "$(cat "$P"/*)" $'one\ntwo\nthree'
same "on the other device too" "$(cat "$B/docs/.versions/plan.txt"/*)" $'one\ntwo\nthree'
same "size and mode" "$(stat -c '%s %a' "$P"/0003*)" '6 440'
listed=$(as alice drivefs versions "$A/docs/plan.txt" --json | jq -r '.versions[] | select(.version == 2) | .time[0:19]')
same "its time is that of the version" "$(TZ=UTC date -r "$(echo "$P"/0002*)" +%Y-%m-%dT%H:%M:%S)" "$listed"
same "which version it is, for programs" "$(attribute "$(echo "$P"/0002*)" version) $(attribute "$(echo "$P"/0002*)" device)" '2 bob'
same "the node is the file's" "$(attribute "$(echo "$P"/0001*)" node)" "$(attribute "$A/docs/plan.txt" node)"
printf 'four\n' >"$A/docs/plan.txt"
sync_device alice
same "a new version is there at once" "$(cat "$P"/0004*)" four
printf 'five\n' >"$B/docs/plan.txt"
both
same "one of another device as soon as it is known" "$(cat "$P"/0005*)" five
diff "$P"/0001* "$P"/0002* >"$T/diff" || true
same "any program compares them" "$(cat "$T/diff")" $'1c1\n< one\n---\n> two'
same "names below the top have it all" "$(cat "$A/.versions/docs/plan.txt"/0002*)" two

# ---- found by name alone
mkdir "$A/docs/empty"
same "not listed" "$(ls -A "$A") $(ls -A -m "$A/docs") $(find "$A" -name .versions | wc -l)" 'docs empty, plan.txt 0'
check "an empty folder has it" test -d "$A/docs/empty/.versions"
check "and goes all the same" rmdir "$A/docs/empty"
check "cp -a does not take it along" cp -a "$A/docs" "$T/copy"
same "it is a copy of what is there" "$(cd "$T/copy" && find . | sort | tr '\n' ' ')" '. ./plan.txt '
refused "it has none itself" 'no such file' ls "$A/.versions/.versions"
refused "nor has what never was" 'no such file' ls "$A/.versions/never.txt"
refused "a version that never was" 'no such file' cat "$P/0009 2026-11-22T07.46.00Z alice.txt"
same "nor is a number enough" "$(cat "$P/0001" 2>/dev/null || echo none)" none

# ---- nothing changes
V=$(echo "$P"/0002*)
only='read-only'
refused "no write" "$only|denied" bash -c "echo x >>'$V'"
refused "no truncation" "$only|denied" truncate -s 0 "$V"
refused "no new file" "$only|denied" touch "$P/new"
refused "no folder" "$only|denied" mkdir "$A/.versions/new"
refused "no removal" "$only|denied" rm -f "$V"
refused "of a folder neither" "$only|denied|not empty" rmdir "$P"
refused "nor of .versions" "$only|denied|busy|not empty" rmdir "$A/.versions"
refused "no rename" "$only|denied" mv "$V" "$P/other"
refused "no move into it" "$only|denied" mv "$A/docs/plan.txt" "$P/"
refused "no link" "$only|denied" ln -s x "$P/link"
refused "out of it by a copy only" 'cross-device' ln "$V" "$A/hard"
refused "no mode" "$only|denied|not permitted" chmod 0777 "$V"
refused "no time" "$only|denied|not permitted" touch -d yesterday "$V"
refused "no attribute" "$only|denied|not permitted" setfattr -n user.x -v y "$V"
same "all is as it was" "$(cat "$P"/0002*) $(cat "$A/docs/plan.txt")" 'two five'

# ---- a copy brings it back
check "cp over the file" cp "$P"/0001* "$A/docs/plan.txt"
same "restores it" "$(cat "$A/docs/plan.txt")" one
both
same "everywhere" "$(cat "$B/docs/plan.txt")" one
same "as a version of its own" "$(plain "$P" | tail -1)" '0006 alice.txt'
random_file "$A/large.bin" 24
sync_device alice
cp "$A/large.bin" "$T/large.bin"
printf 'x' | dd of="$A/large.bin" bs=1 seek=9000000 conv=notrunc status=none
sync_device alice
before=$(sent_bytes alice)
check "a large one" cp "$A/.versions/large.bin"/0001* "$A/large.bin"
check "with its bytes" cmp "$T/large.bin" "$A/large.bin"
sync_device alice
at_most "bytes that this sent" "$(($(sent_bytes alice) - before))" 60000

# ---- bytes come when they are read
sync_device bob
before=$(received_bytes bob)
check "a look at all versions" ls -l "$B/.versions/large.bin"
check "and the head of one" bash -c "head -c 4096 '$B/.versions/large.bin/'0002* | cmp - <(head -c 4096 '$T/large.bin')"
at_most "bytes that this fetched" "$(($(received_bytes bob) - before))" $((9 << 20))
check "a mapping of it" python3 - "$(echo "$B/.versions/large.bin"/0001*)" "$T/large.bin" <<'PY'
import mmap, sys
with open(sys.argv[1], "rb") as old, open(sys.argv[2], "rb") as here:
    with mmap.mmap(old.fileno(), 0, access=mmap.ACCESS_READ) as m:
        assert m[20_000_000:20_100_000] == here.read()[20_000_000:20_100_000]
PY
check "all of it" cmp "$T/large.bin" "$B/.versions/large.bin"/0001*
cp "$(type -P true)" "$A/program"
sync_device alice
check "a program of the past runs" "$A/.versions/program"/0001*

# ---- what was deleted
mkdir -p "$A/work/sub"
printf 'deep\n' >"$A/work/sub/deep.txt"
printf 'gone\n' >"$A/work/gone.txt"
both
rm "$A/work/gone.txt"
same "a deleted file is there at once" "$(cat "$A/work/.versions/gone.txt"/0001*)" gone
both
same "and when all know" "$(cat "$B/work/.versions/gone.txt"/0001*)" gone
same "names of what is there and what was" "$(names "$B/work/.versions" | tr '\n' ' ')" 'gone.txt sub '
check "cp brings it back" cp "$B/work/.versions/gone.txt"/0001* "$B/work/gone.txt"
both
same "as a new file" "$(plain "$A/work/.versions/gone.txt" | tr '\n' ',')" '0001 bob.txt,deleted,'
check "what had the name before it is beside" bash -c "grep -qx gone '$A/work/.versions/gone.txt/deleted '*/0001*"
rm -r "$A/work"
both
refused "a folder is gone" 'no such file' ls "$B/work"
same "its files are found" "$(cat "$B/.versions/work/sub/deep.txt"/0001*)" deep
same "by find, too" "$(cd "$B/.versions/work" && find . -type f -name '0001*' | wc -l)" 3

# ---- odd names
printf 'x' >"$A/no-extension"
printf 'x' >"$A/"$'line\nbreak.t x'
long=$(printf 'n%.0s' {1..250}).txt
printf 'x' >"$A/$long"
ln "$A/no-extension" "$A/second.name"
printf 'y' >"$A/second.name"
sync_device alice
for name in no-extension $'line\nbreak.t x' "$long" second.name; do
    same "versions of ${name:0:20}" "$(cat "$A/.versions/$name"/* | tr -d xy | wc -c)" 0
    at_least "in a folder of its own" "$(find "$A/.versions/$name" -type f | wc -l)" 1
done
check "the extension is last" bash -c "test -f '$A/.versions/$long/'0001*.txt"
check "that of the name it is found by" bash -c "test -f '$A/.versions/second.name/'0001*.name"

# ---- many
mkdir "$A/many"
for n in $(seq 1 600); do printf '%s\n' "$n" >"$A/many/$n.log"; done
sync_device alice
rm "$A/many/"*.log
both
same "600 deleted files" "$(find "$A/many/.versions" -mindepth 1 -maxdepth 1 | wc -l)" 600
same "have their bytes" "$(cat "$A/many/.versions/"[1-9]*.log/0001* | sort -n | uniq | wc -l)" 600

# ---- a folder of another account, and a strict mount
add_user eve@example.org
device eve eve@example.org
printf 'mine\n' >"$T/eve/own.txt"
drivefs-server mount add --email me@example.org --with eve@example.org --path /team --data "$SERVER_DATA" >"$T/.out"
check "a shared folder" wait_until 20 test -d "$A/team"
check "at both" wait_until 20 test -d "$T/eve/team"
printf 'first\n' >"$A/team/note.txt"
sync_device alice
sync_device eve
rm "$T/eve/team/note.txt"
sync_device eve
sync_device alice
same "has a past of its own" "$(cat "$A/team/.versions/note.txt"/0001*)" first
same "for all members" "$(cat "$T/eve/.versions/team/note.txt"/0001*)" first
check "a copy into another folder" cp "$T/eve/team/.versions/note.txt"/0001* "$T/eve/note.txt"
same "has its bytes" "$(cat "$T/eve/note.txt")" first
umount_device eve >/dev/null
mount_device eve --strict
same "a strict mount has it, too" "$(cat "$T/eve/.versions/team/note.txt"/0001*)" first
same "and its own" "$(cat "$T/eve/.versions/own.txt"/0001*)" mine
umount_device eve >/dev/null

# ---- without the server
same "what is known and here" "$(cat "$B/.versions/docs/plan.txt"/*)" $'one\ntwo\nthree\nfour\nfive\none'
offline
same "is there without the server" "$(cat "$B/.versions/docs/plan.txt"/* 2>&1)" $'one\ntwo\nthree\nfour\nfive\none'
began=$SECONDS
refused "what is not known is an error" 'input/output error' ls "$B/.versions/program"
at_most "in time (s)" "$((SECONDS - began))" 9
same "and the reason is told" "$(status bob .reason | grep -c 'cannot reach')" 1
check "the drive goes on" touch "$B/offline.txt"
online
check "with it all is there again" wait_until 30 ls "$B/.versions/program/"

# ---- the trash is emptied
as alice drivefs trash empty >/dev/null </dev/null
check "what is out of the trash is out of the past" wait_until 30 bash -c "! ls '$A/.versions/work'"
both
same_tree "both show the same at the end" "$A" "$B"
