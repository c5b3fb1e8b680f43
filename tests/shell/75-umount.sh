#!/usr/bin/env bash
# umount tells what is not uploaded; it arrives after the next mount.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

start_server
add_user me@example.org
device alice
printf 'sent' >"$T/alice/sent.txt"
sync_device alice
check "umount of a drive that is in sync" umount_device alice
same "says nothing" "$(cat "$T/.check")" ""
mount_device alice
offline
random_file "$T/big.bin" 5
cp "$T/big.bin" "$T/alice/big.bin"
mkdir "$T/alice/sub"
for n in 1 2 3; do printf '%s' "$n" >"$T/alice/sub/$n"; done
umount_device alice >"$T/out"
check "umount says what is not uploaded" grep -Eq '^[0-9]+ change\(s\) are not on the server' "$T/out"
note "it says: $(cat "$T/out")"
at_least "status counts it without a mount" "$(status alice .queue_files)" 5
same "status says that nothing is mounted" "$(status alice .mounted)" false
online
same "nothing goes up by itself" "$(status alice .mounted)" false
mount_device alice
check "it is sent after the next mount" sync_device alice 60
device bob
check "and arrives" cmp "$T/big.bin" "$T/bob/big.bin"
check "all of it" diff -r "$T/alice" "$T/bob"

# Straight through mount, write, umount, without a sync: nothing is forgotten.
for n in 1 2 3 4 5; do
    head -c 100000 /dev/urandom >"$T/alice/round$n"
    cp "$T/alice/round$n" "$T/keep$n"
    umount_device alice >/dev/null
    mount_device alice
    check "bytes written just before an umount are here (round $n)" cmp "$T/keep$n" "$T/alice/round$n"
done
check "and are sent" sync_device alice 60
sync_device bob
check "and arrive" diff -r "$T/alice" "$T/bob"

# logout keeps what is not uploaded.
offline
printf 'precious' >"$T/alice/precious.txt"
umount_device alice >/dev/null
refused "logout refuses to drop what is not uploaded" 'not on the server' as alice drivefs logout
online
mount_device alice
sync_device alice
umount_device alice >/dev/null
check "logout when all is sent" as alice drivefs logout
check "the token is gone from the disk" test ! -e "$T/alice.home/account.json"
same "what was kept is on the second device" "$(wait_until 5 test -e "$T/bob/precious.txt"; cat "$T/bob/precious.txt")" precious
