#!/usr/bin/env bash
# A rewind of many files that is killed again and again: the command, the daemon, the server. Run once more
# to its end it has done what it would have done at once.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

two_devices
RANDOM=${SEED:-7}

for folder in $(seq 30); do
    mkdir -p "$A/work/$folder"
    for file in $(seq 60); do echo "$folder $file" >"$A/work/$folder/$file"; done
done
both
cp -a "$A/work" "$T/before"
before=$(date -u +%FT%T.%NZ)
for folder in $(seq 10); do rm -r "$B/work/$folder"; done
for folder in $(seq 11 20); do
    for file in "$B/work/$folder"/*; do echo bob >"$file"; done
done
mkdir "$B/work/elsewhere"
for folder in $(seq 21 25); do mv "$B/work/$folder" "$B/work/elsewhere/x$folder"; done
for folder in $(seq 26 30); do
    for file in 1 2 3 4 5; do mv "$B/work/$folder/$file" "$B/work/new $folder $file"; done
done
both

kills=0
for victim in command daemon server command server daemon command; do
    as alice drivefs rewind "$A" --to "$before" >"$T/rewind.out" 2>&1 &
    rewind=$!
    HELPERS+=("$rewind")
    sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
    ! kill -0 "$rewind" 2>/dev/null || kills=$((kills + 1))
    case $victim in
        command) kill -KILL "$rewind" 2>/dev/null || true ;;
        daemon)
            kill_client alice
            mount_device alice
            ;;
        server)
            kill_server
            online
            ;;
    esac
    # Ended with an error, or went on: both is right.
    wait "$rewind" 2>/dev/null || true
done
note "the rewind was under way at $kills of 7 kills"
at_least "a rewind was killed" "$kills" 1
sync_device alice
check "the rewind, to its end" as alice drivefs rewind "$A" --to "$before"
check "everything is as it was" diff -r "$T/before" "$A/work"
both
check "on the other device, too" diff -r "$T/before" "$B/work"
check "once more finds nothing to do" as alice drivefs rewind "$A" --to "$before" --json
same "nothing was done" "$(jq -c '[.reverted, .restored, .removed, .moved, (.left | length)]' "$T/.check")" '[0,0,0,0,0]'
