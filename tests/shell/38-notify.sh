#!/usr/bin/env bash
# Messages on the desktop, on a session bus of the test's own: a conflict made here, a mass change
# by another device, a change that is refused; none with --no-notify, and none without a bus.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# All content that the server has was written ten minutes ago. It is stopped.
let_time_pass() {
    sqlite3 "$SERVER_DATA/metadata.db" "DROP TRIGGER IF EXISTS file_version_is_immutable;
        UPDATE file_version SET committed_ns = committed_ns - 600000000000;"
}

# ---- a session bus, and who listens on it
cat >"$T/bus.conf" <<END
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=$T/bus</listen>
  <policy context="default"><allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
END
dbus-daemon --config-file="$T/bus.conf" --nofork --nopidfile 2>"$T/bus.log" &
HELPERS+=($!)
wait_until 20 test -S "$T/bus" || die "no session bus: $(cat "$T/bus.log")"
export DBUS_SESSION_BUS_ADDRESS="unix:path=$T/bus"
dbus-monitor "interface='org.freedesktop.Notifications'" >"$T/heard" 2>&1 &
HELPERS+=($!)
say() { dbus-send --session --type=signal / "org.freedesktop.Notifications.$1"; }
# What is sent before the monitor listens is lost.
listens() { say Begin && grep -q member=Begin "$T/heard"; }
wait_until 20 listens || die "nobody listens: $(cat "$T/heard")"
heard() { wait_until 60 grep -qi -- "$1" "$T/heard"; }
connections() {
    dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames |
        grep -c '":'
}
told() { grep -c member=Notify "$T/heard" || true; }
alone=$(connections)

start_server
add_user me@example.org
device alice
new_device bob
mount_device bob --no-notify
A=$T/alice
B=$T/bob

# torn FILE: bob, then alice, write it without the server. Both are unmounted, the server is stopped.
torn() {
    offline
    echo bob >"$B/$1"
    echo alice >"$A/$1"
    umount_device bob >/dev/null
    umount_device alice >/dev/null
}

# ---- a conflict made here
echo base >"$A/plan.txt"
mkdir "$A/many"
for n in $(seq 80); do echo "$n" >"$A/many/$n"; done
both
same "work alone is no reason for a message" "$(told)" 0
torn plan.txt
let_time_pass
online
mount_device bob --no-notify
sync_device bob
mount_device alice
sync_device alice
check "the desktop hears of a conflict made here" heard 'Two devices changed the same file'
check "and which file it is" heard "plan (alice's conflicted copy"

# ---- a mass change by another device
both
rm -r "$B/many"
sync_device bob
check "it hears of a mass change" heard 'Another device changed very many files'
check "and of the command against it" heard "drivefs rewind $A.* --to .* --device bob"
same "each in one message" "$(told)" 2
nobody_more() { [ "$(connections)" = "$alone" ]; }
check "the daemon keeps no connection to the bus" wait_until 30 nobody_more

# ---- off by flag
echo base >"$A/other.txt"
mkdir "$A/more"
for n in $(seq 80); do echo "$n" >"$A/more/$n"; done
both
torn other.txt
let_time_pass
before=$(told)
online
mount_device alice --no-notify
sync_device alice
mount_device bob --no-notify
sync_device bob
wait_until 30 compgen -G "$B/other*conflicted*" || die "there is no conflict"
sync_device alice
rm -r "$A/more"
sync_device alice
check "with --no-notify status has a mass change" wait_until 60 bash -c \
    "DRIVEFS_HOME='$T/bob.home' drivefs status --json | jq -e '.mass_changes[0].device == \"alice\"'"
say End
wait_until 20 grep -q member=End "$T/heard" || die "nobody listens any more"
same "and the desktop nothing, neither of it nor of a conflict" "$(told)" "$before"

# ---- a change that the server refuses for long
add_user poor@example.org --quota 1MiB
device poor poor@example.org
random_file "$T/poor/large.bin" 2
wait_until 60 bash -c "DRIVEFS_HOME='$T/poor.home' drivefs status --json | jq -e '.queue[0].error'" ||
    die "it is not refused"
umount_device poor >/dev/null
sqlite3 "$T/poor.home/state.db" "UPDATE base_node SET at = at - 660000000000;"
mount_device poor
check "the desktop hears of what is refused for long" heard 'The server does not take changes'
check "and why" heard 'large.bin: .*quota'

# ---- without a bus
export DBUS_SESSION_BUS_ADDRESS="unix:path=$T/no-such-bus"
remount poor
echo more >"$T/poor/more.txt"
check "without a bus everything else works" wait_until 60 bash -c \
    "[ \"\$(getfattr --absolute-names --only-values -n user.drivefs.state '$T/poor/more.txt')\" = synced ]"
check "quietly" bash -c "! grep -i -e notif -e dbus -e panic '$T/poor.home/drivefs.log'"
