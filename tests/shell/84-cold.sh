#!/usr/bin/env bash
# A second store: packs go there when nobody reads them, and come back when somebody does, at once or, from
# a slow one, after a while in which everybody is told.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

server() { drivefs-server "$@" --data "$SERVER_DATA"; }
stores=(--cold "file://$T/cold")
packs_in() { find "$1" -type f -size +1k | wc -l; }
move_out() { server jobs --run cold --cold-after 0 "${stores[@]}" --json; }
is_back() { [ "$(packs_in "$SERVER_DATA/blocks")" -gt 0 ]; }
reads() { cmp "$T/alice/folder/a.bin" "$T/$1/folder/a.bin"; }

start_server "${stores[@]}"
add_user me@example.org
device alice
mkdir "$T/alice/folder"
random_file "$T/alice/folder/a.bin" 3
random_file "$T/alice/folder/b.bin" 3
sync_device alice
refused "without the second store nothing can go there" '--cold URL' server jobs --run cold
check "what was read lately stays" server jobs --run cold "${stores[@]}" --json
same "none went" "$(jq .out "$T/.check")" 0
check "all that was not read goes" move_out
at_least "packs went" "$(jq .out "$T/.check")" 1
same "none is in the first store" "$(packs_in "$SERVER_DATA/blocks")" 0
check "jobs shows it" grep -q '^cold ' <(server jobs)
check "the metrics, too" wait_until 1 grep -q '^drivefs_cold_packs' <(curl -sf "$URL/metrics")

# ---- a store that answers
device bob
check "another device reads from there" reads bob
check "what was read comes back" wait_until 60 is_back
check "fsck agrees" server fsck "${stores[@]}"

# ---- one that takes hours
offline
check "out again" move_out
start_server "${stores[@]}" --cold-slow
device carol
began=$SECONDS
refused "who reads is told at once" 'input/output error' cat "$T/carol/folder/b.bin"
at_most "seconds until then" "$((SECONDS - began))" 4
check "why says what goes on" grep -q 'brought back' <(as carol drivefs why "$T/carol/folder/b.bin" 2>&1)
check "a while later it can be read" wait_until 90 cmp "$T/alice/folder/b.bin" "$T/carol/folder/b.bin"
printf 'new\n' >"$T/carol/folder/c.txt"
sync_device carol
check "the server went on meanwhile" server fsck "${stores[@]}"

# ---- the second store is not named, or not there
check "out once more" move_out
offline
for command in fsck scrub "backup $T/backup" "gc --grace 0s" "serve --listen 127.0.0.1:0"; do
    # shellcheck disable=SC2086
    refused "${command%% *} does not take packs for lost" 'second store.*--cold' server $command
done
mv "$T/cold" "$T/unmounted"
refused "an empty folder is not the second store" 'is its disk mounted' server fsck "${stores[@]}"
rm -rf "$T/cold"
mv "$T/unmounted" "$T/cold"
check "all is well with it" server fsck "${stores[@]}"
check "a backup has both stores" server backup "$T/backup" "${stores[@]}"
check "it is whole" server backup "$T/backup" --verify
online
