#!/usr/bin/env bash
# The clocks of two devices are an hour off, either way: the order of the server decides, times of
# files travel as they are, nothing is lost, and nothing goes round for ever.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

FAKETIME_LIB=$(find /usr/lib -name libfaketime.so.1 2>/dev/null | head -1)
[ "$FAKETIME_LIB" ] || die "libfaketime is missing: apt-get install faketime (tests/run.sh does it)"
declare -A hours=([ahead]=+1h [behind]=-1h)

# mount_skewed NAME: its daemon lives at another time; how fast time goes it knows.
mount_skewed() {
    as "$1" env LD_PRELOAD="$FAKETIME_LIB" FAKETIME="${hours[$1]}" FAKETIME_DONT_FAKE_MONOTONIC=1 \
        drivefs mount "$T/$1"
}
start_server
add_user me@example.org
for name in ahead behind; do
    new_device "$name"
    mount_skewed "$name"
done
F=$T/ahead
L=$T/behind
in_step() { sync_device ahead && sync_device behind && sync_device ahead && sync_device behind; }
age() { printf '%s' "$(($(date +%s) - $(stat -c %Y "$1")))"; }
wire() { printf '%s' "$(($(wire_bytes ahead) + $(wire_bytes behind)))"; }

# The clock of a daemon shows in the times that it sets by itself.
echo base >"$F/a.txt"
echo base >"$L/b.txt"
at_most "a write on the device that is ahead has its time" "$(age "$F/a.txt")" -3500
at_least "a write on the one behind, too" "$(age "$L/b.txt")" 3500
check "in step" in_step
same_tree "both show the same, times included" "$F" "$L"

# ---- an edit is an edit, whatever its time
echo "later, with an older time" >"$L/a.txt"
check "in step" in_step
same "a later edit with an older time wins over what it was made from" "$(cat "$F/a.txt")" "later, with an older time"
at_least "and its time came along" "$(age "$F/a.txt")" 3500
echo "later, with a newer time" >"$F/b.txt"
check "in step" in_step
same "and so one with a newer time" "$(cat "$L/b.txt")" "later, with a newer time"
touch -d '1999-12-31 23:59:59.123456789' "$L/b.txt"
check "in step" in_step
same "a time that was set travels as it is" "$(stat -c %.9Y "$F/b.txt")" "$(stat -c %.9Y "$L/b.txt")"

# ---- both edit: whoever reached the server first has the name, whatever the clocks say
for first in ahead behind; do
    other=$([ "$first" = ahead ] && echo behind || echo ahead)
    echo base >"$F/both-$first.txt"
    check "in step" in_step
    offline
    echo "$first" >"$T/$first/both-$first.txt"
    echo "$other" >"$T/$other/both-$first.txt"
    umount_device "$other" >/dev/null
    online
    check "$first is in step alone" sync_device "$first"
    mount_skewed "$other"
    check "in step" in_step
    same "$first was first and has the name" "$(cat "$F/both-$first.txt")" "$first"
    same "the other is beside it" "$(cat "$F/both-$first ("*"conflicted copy"*)" "$other"
done
same "no other conflicts" "$(find "$L" -name '*conflicted copy*' | wc -l)" 2
same_tree "both show the same" "$F" "$L"

# ---- nothing goes round
before=$(wire)
sleep 3
at_most "bytes on the wire in three quiet seconds" "$(($(wire) - before))" 20000
same "the queues are empty" "$(status ahead .queue_files)$(status behind .queue_files)" 00
check "versions are told in the order of the server" as behind drivefs versions "$L/a.txt"
