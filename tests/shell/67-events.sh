#!/usr/bin/env bash
# Events and rewind on real mounts of two devices: who did what, and how it is taken back.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

two_devices

# A time between what is on the server now and what comes.
moment() { date -u +%FT%T.%NZ; }
events() { as "$1" drivefs events --json "${@:2}"; }
# tree DIR: names and contents.
tree() { (cd "$1" && find . -mindepth 1 -type d -printf '%p/\n' -o -type f -print0 | sort -z | tr '\0' '\n' &&
    find . -type f -print0 | sort -z | xargs -0r sha256sum); }

# ---- events
mkdir "$A/docs"
echo one >"$A/docs/a.txt"
echo keep >"$A/docs/k.txt"
both
echo two >"$B/docs/a.txt"
sync_device bob
mv "$B/docs/a.txt" "$B/moved.txt"
sync_device bob
rm "$B/docs/k.txt"
both
told=$(events alice)
same "what happened, in order" \
    "$(jq -c '[.events[] | [.kind, .path]]' <<<"$told")" \
    '[["added","docs"],["added","docs/a.txt"],["added","docs/k.txt"],["edited","docs/a.txt"],["moved","moved.txt"],["deleted","docs/k.txt"]]'
same "from which device" "$(jq -c '[.events[].device]' <<<"$told")" '["alice","alice","alice","bob","bob","bob"]'
same "by whom" "$(jq -c '[.events[].user] | unique' <<<"$told")" '["me@example.org"]'
same "from where it was moved" "$(jq -r '.events[4].from' <<<"$told")" docs/a.txt
same "no more than asked" "$(events alice --limit 2 | jq -c '[(.events | length), .more]')" '[2,true]'
same "of one folder" "$(events alice "$A/docs" | jq -c '[.events[].kind]')" \
    '["added","added","added","edited","moved","deleted"]'
same "of one file, whatever it was called" "$(events alice "$A/moved.txt" | jq -c '[.events[].kind]')" '["added","edited","moved"]'
check "people get lines" as alice drivefs events
same "one an event" "$(grep -c 'by me@example.org' "$T/.check")" 6
DRIVEFS_HOME=$T/alice.home drivefs events --follow --json --limit 1 >"$T/followed" 2>/dev/null &
HELPERS+=($!)
wait_until 30 grep -q deleted "$T/followed" || die "--follow tells nothing"
echo new >"$B/new.txt"
sync_device bob
check "--follow hears of a remote change" wait_until 30 grep -q '"path":"new.txt"' "$T/followed"
same "by which device" "$(jq -r 'select(.path == "new.txt") | .device' "$T/followed" | head -1)" bob

# ---- rewind of everything
before=$(moment)
tree "$A" >"$T/before"
mkdir -p "$B/new/sub"
echo x >"$B/new/sub/x"
echo three >"$B/moved.txt"
mv "$B/moved.txt" "$B/new/sub/m.txt"
rm "$B/new.txt"
both
mv "$A/docs" "$A/new/papers"
echo other >"$A/moved.txt"
both
tree "$A" >"$T/after"
after=$(moment)
check "a dry run" as alice drivefs rewind "$A" --to "$before" --dry-run --json
same "tells what it would do" "$(jq -c '[.reverted, .restored, .removed, .moved]' "$T/.check")" '[1,1,4,2]'
sync_device bob
tree "$B" >"$T/now"
check "and changes nothing" cmp "$T/after" "$T/now"
check "rewind of the mount" as alice drivefs rewind "$A" --to "$before"
tree "$A" >"$T/now"
check "edits, deletions, additions and moves are taken back" diff "$T/before" "$T/now"
sync_device bob
tree "$B" >"$T/now"
check "on the other device, too" diff "$T/before" "$T/now"
check "once more finds nothing to do" as alice drivefs rewind "$A" --to "$before" --json
same "nothing was done" "$(jq -c '[.reverted, .restored, .removed, .moved, (.left | length)]' "$T/.check")" '[0,0,0,0,0]'
check "a rewind to before the rewind" as bob drivefs rewind "$B" --to "$after"
tree "$B" >"$T/now"
check "gets back what was" diff "$T/after" "$T/now"
both

# ---- of one device
mkdir "$A/work"
for n in 1 2 3 4; do echo "$n" >"$A/work/$n"; done
both
before=$(moment)
echo bob >"$B/work/1"
rm "$B/work/2"
mv "$B/work/3" "$B/work/drei"
echo bob >"$B/work/4"
echo bob >"$B/work/5"
both
echo alice >"$A/work/4"
echo alice >"$A/work/6"
both
refused "what another device changed since is told" '4: changed since by me@example.org \(alice\)' \
    as alice drivefs rewind "$A/work" --to "$before" --device bob
same "the rest is taken back, alice's work stays" "$(cd "$A/work" && grep -r . . | sort)" \
    $'./1:1\n./2:2\n./3:3\n./4:alice\n./6:alice'
check "a device that did nothing" as alice drivefs rewind "$A/work" --to "$before" --device nobody
check "is told of" grep -q 'nothing was done' "$T/.check"
refused "a time that is none" 'is not a time' as alice drivefs rewind "$A" --to soon
both

# ---- a mass change
mkdir -p "$A/photos/old"
for n in $(seq 120); do echo "$n" >"$A/photos/old/$n"; done
both
offline
sqlite3 "$SERVER_DATA/metadata.db" "DROP TRIGGER file_version_is_immutable;
    UPDATE file_version SET committed_ns = committed_ns - 600000000000;"
online
both
tree "$A/photos" >"$T/before"
rm -r "$B/photos/old"
echo fine >"$A/fine.txt"
both
told=$(events alice | jq -c '[.events[] | select(.kind == "mass_change")]')
same "a mass change is told, once" "$(jq -c '[.[] | [.device, .path]]' <<<"$told")" '[["bob","photos/old"]]'
command=$(jq -r '.[0].command' <<<"$told")
note "$command"
check "status tells of it" wait_until 30 bash -c "DRIVEFS_HOME='$T/alice.home' drivefs status --json |
    jq -e '.mass_changes[0] | .device == \"bob\" and .deleted >= 60'"
same "but not on the device itself" "$(status bob '.mass_changes | length')" 0
check "that very command" as alice bash -c "$command"
tree "$A/photos" >"$T/now"
check "gets everything back" diff "$T/before" "$T/now"
same "what the other device did stays" "$(cat "$A/fine.txt")" fine

# ---- without the server
offline
refused "events need the server" 'cannot reach' as alice drivefs events
refused "rewind does, too" 'cannot reach' as alice drivefs rewind "$A" --to 1h
