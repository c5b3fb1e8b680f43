#!/usr/bin/env bash
# Versions, restore, keep, diff and trash on real mounts of two devices: what a person sees.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

two_devices

versions() { as alice drivefs versions "$1" --json; }

# ---- versions of a file
printf 'one\ntwo\nthree\n' >"$A/plan.txt"
sync_device alice
printf 'one\n2\nthree\n' >"$A/plan.txt"
both
printf 'one\n2\nthree\nfour\n' >"$B/plan.txt"
both
same "three versions, newest first" "$(versions "$A/plan.txt" | jq -c '[.versions[].version]')" '[3,2,1]'
same "by whom" "$(versions "$A/plan.txt" | jq -c '[.versions[].device]')" '["bob","alice","alice"]'
same "their sizes" "$(versions "$A/plan.txt" | jq -c '[.versions[].size]')" '[17,12,14]'
same "the newest is the current one" "$(versions "$A/plan.txt" | jq -c '[.versions[].current]')" '[true,false,false]'
same "no more than asked" "$(as alice drivefs versions "$A/plan.txt" --limit 2 --json | jq -c '[.versions[].version, .more]')" '[3,2,true]'
check "people get lines" as alice drivefs versions "$A/plan.txt"
same "one a version" "$(grep -c . "$T/.check")" 3
check "from inside the mount by a relative path" bash -c "cd '$A' && DRIVEFS_HOME='$T/alice.home' drivefs versions plan.txt"
refused "a folder has none" 'only files' as alice drivefs versions "$A"
refused "nor has what never was" 'no such file' as alice drivefs versions "$A/never.txt"
refused "outside of the drive is outside" 'not in the drive' as alice drivefs versions /etc/passwd

# ---- differences
check "a difference as diff(1) writes it" as alice drivefs diff "$A/plan.txt" --from 1 --to 2
cp "$T/.check" "$T/plan.diff"
printf 'one\ntwo\nthree\n' >"$T/plan.txt"
check "that patch(1) takes" patch -s "$T/plan.txt" "$T/plan.diff"
same "to the newer version" "$(cat "$T/plan.txt")" $'one\n2\nthree'
check "the last change by default" as alice drivefs diff "$A/plan.txt"
same "is one line" "$(grep -c '^[+-][^+-]' "$T/.check")" 1
head -c 5000 /dev/urandom >"$A/noise.bin"
sync_device alice
head -c 6000 /dev/urandom >"$A/noise.bin"
sync_device alice
check "binary files" as alice drivefs diff "$A/noise.bin"
check "are told apart by size" grep -q '5000 bytes.*6000 bytes.*binary' "$T/.check"
refused "a version that is not there" 'no version 9' as alice drivefs diff "$A/plan.txt" --from 9

# ---- an old version becomes the newest
check "restore version 1" as alice drivefs restore "$A/plan.txt" --version 1
same "it is in the mount at once" "$(cat "$A/plan.txt")" $'one\ntwo\nthree'
sync_device bob
same "and on the other device" "$(cat "$B/plan.txt")" $'one\ntwo\nthree'
same "as a version of its own" "$(versions "$A/plan.txt" | jq -c '[.versions[].version]')" '[4,3,2,1]'
check "restore without a number is the one before" as bob drivefs restore "$B/plan.txt"
same "it undoes that" "$(cat "$B/plan.txt")" $'one\n2\nthree\nfour'
random_file "$A/large.bin" 20
sync_device alice
cp "$A/large.bin" "$T/large.bin"
printf 'x' | dd of="$A/large.bin" bs=1 seek=9000000 conv=notrunc status=none
sync_device alice
before=$(sent_bytes alice)
check "a large file" as alice drivefs restore "$A/large.bin" --version 1
check "has its old bytes" cmp "$T/large.bin" "$A/large.bin"
at_most "bytes that this sent" "$(($(sent_bytes alice) - before))" 40000
check "a version that the file holds already" as alice drivefs restore "$A/large.bin" --version 1
check "is nothing to do" grep -q 'nothing to do' "$T/.check"
refused "a version that never was" 'no version 99' as alice drivefs restore "$A/plan.txt" --version 99
refused "two ways at once" 'cannot be used with' as alice drivefs restore "$A/plan.txt" --version 1 --at 2h
refused "what is no time" 'is not a time' as alice drivefs restore "$A/plan.txt" --at soon
refused "a time before the file" 'younger' as alice drivefs restore "$A/plan.txt" --at 3d

# ---- a copy beside
mkdir "$A/copies"
check "a copy of version 2" as alice drivefs restore "$A/plan.txt" --version 2 --to "$A/copies/old plan.txt"
same "has its text" "$(cat "$A/copies/old plan.txt")" $'one\n2\nthree'
same "and the file is as it was" "$(cat "$A/plan.txt")" $'one\n2\nthree\nfour'
check "into a folder" as alice drivefs restore "$A/plan.txt" --version 1 --to "$A/copies"
same "under its own name" "$(cat "$A/copies/plan.txt")" $'one\ntwo\nthree'
refused "not over a file" 'exists' as alice drivefs restore "$A/plan.txt" --version 1 --to "$A/copies/plan.txt"

# ---- changes that are not sent yet
printf 'not sent\n' >"$A/plan.txt"
check "restore over unsent changes" as alice drivefs restore "$A/plan.txt" --version 1
same "restores" "$(cat "$A/plan.txt")" $'one\ntwo\nthree'
check "and what was not sent is a version" as alice drivefs restore "$A/plan.txt"
same "with its bytes" "$(cat "$A/plan.txt")" 'not sent'

# ---- keep
check "keep a version" as alice drivefs keep "$A/plan.txt" --version 2
same "it is marked" "$(versions "$A/plan.txt" | jq -c '[.versions[] | select(.kept) | .version]')" '[2]'
check "let it go again" as alice drivefs keep "$A/plan.txt" --version 2 --release
same "it is not marked any more" "$(versions "$A/plan.txt" | jq -c '[.versions[] | select(.kept)]')" '[]'
refused "not what is not there" 'no version 77' as alice drivefs keep "$A/plan.txt" --version 77

# ---- the trash
mkdir -p "$A/docs/sub"
printf 'a\n' >"$A/docs/a.txt"
chmod 0751 "$A/docs/sub"
printf 'deep\n' >"$A/docs/sub/deep.txt"
ln -s a.txt "$A/docs/link"
both
listing "$A/docs" >"$T/docs.list"
node=$(getfattr --absolute-names --only-values -n user.drivefs.node "$A/docs/sub/deep.txt")
rm -r "$B/docs"
rm "$B/noise.bin"
both
trash() { as alice drivefs trash list --json | jq -c "$1"; }
same "a folder is one line, with who deleted it" "$(trash '[.trash[] | [.path, .kind, .device, .below]] | sort')" \
    '[["docs","folder","bob",4],["noise.bin","file","bob",0]]'
check "trash alone lists, too" as alice drivefs trash
check "for people" grep -q 'docs/ *(4 in it)' "$T/.check"
same "versions of what is gone" "$(versions "$A/docs/sub/deep.txt" | jq -c '[.deleted, .versions[].version]')" '[true,1]'
check "restore the folder" as alice drivefs trash restore docs
listing "$A/docs" >"$T/docs.back"
check "it is as it was, with times and modes" diff "$T/docs.list" "$T/docs.back"
same "the same node" "$(getfattr --absolute-names --only-values -n user.drivefs.node "$A/docs/sub/deep.txt")" "$node"
sync_device bob
same_tree "the other device shows the same" "$A" "$B"
check "with the same bytes" diff -r --no-dereference "$A" "$B"
same "only the file is left in it" "$(trash '[.trash[].path]')" '["noise.bin"]'

printf 'another\n' >"$A/noise.bin"
sync_device alice
check "a taken name" as alice drivefs trash restore "$A/noise.bin"
same "gets one beside" "$(stat -c %s "$A/noise.bin" "$A"/noise\ \(restored*\).bin | tr '\n' ' ')" '8 6000 '
refused "what is not in the trash" 'not in the trash' as alice drivefs trash restore "$A/plan.txt"

rm -r "$A/docs"
sync_device alice
check "a lone file of a removed folder" as alice drivefs trash restore "$A/docs/sub/deep.txt"
same "comes with the folders above it alone" "$(cd "$A/docs" && find . | sort | tr '\n' ' ')" '. ./sub ./sub/deep.txt '
check "restore of a file that is gone" as alice drivefs restore "$A/docs/a.txt"
same "is one way, too" "$(cat "$A/docs/a.txt")" a

# ---- a folder as it was
mkdir -p "$A/work/in"
printf 'first\n' >"$A/work/edited"
printf 'gone\n' >"$A/work/in/gone"
both
sleep 1.1
time=$(date '+%Y-%m-%d %H:%M:%S')
sleep 1.1
printf 'second\n' >"$B/work/edited"
both
rm -r "$B/work/in"
printf 'newer\n' >"$B/work/newer"
both
refused "a folder needs a time" 'say with --at' as alice drivefs restore "$A/work"
check "a folder as of a time" as alice drivefs restore "$A/work" --at "$time"
same "an edited file is as it was" "$(cat "$A/work/edited")" first
same "a deleted one is back" "$(cat "$A/work/in/gone")" gone
same "a newer one stays" "$(cat "$A/work/newer")" newer
sync_device bob
same_tree "the other device shows the same" "$A" "$B"
rm -r "$A/work"
sync_device alice
check "a folder that is gone, as of a time" as alice drivefs restore "$A/work" --at "$time"
same "has what it had then" "$(cd "$A/work" && find . -type f | sort | tr '\n' ' ')" './edited ./in/gone '

# ---- empty
rm -r "$A/work" "$A/plan.txt"
sync_device alice
check "empty the trash" as alice drivefs trash empty --json </dev/null
at_least "what was in it is told" "$(jq .emptied "$T/.check")" 5
same "nothing is listed" "$(trash .trash)" '[]'
refused "nothing comes back" 'not in the trash' as alice drivefs trash restore "$A/plan.txt"
refused "by no way" 'no such file' as alice drivefs restore "$A/plan.txt"
both
same_tree "both show the same at the end" "$A" "$B"
same "and no conflict came up" "$(status alice '.conflicts | length')$(status bob '.conflicts | length')" 00

# ---- without the server
offline
refused "offline it says so" 'cannot reach' as alice drivefs versions "$A/docs/a.txt"
refused "and restores nothing" 'cannot reach' as alice drivefs restore "$A/docs/a.txt" --version 1
same "the file is as it was" "$(cat "$A/docs/a.txt")" a
