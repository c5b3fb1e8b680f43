#!/usr/bin/env bash
# The main story: a real source tree and a large file go into the mount, and a second device shows
# the same. Heavy. 11-main-user.sh tells the same story as an ordinary user.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
[ -z "${AS_USER:-}" ] || become_user sources

note "as $(id -un)"
big_tree "$T/tree"
random_file "$T/big.bin" 1024
start_server
add_user me@example.org
device alice

begin=$(now_ms)
cp -a "$T/tree" "$T/alice/tree"
copied=$(now_ms)
cp "$T/big.bin" "$T/alice/big.bin"
note "copied the tree in $((copied - begin)) ms, 1 GiB in $(($(now_ms) - copied)) ms"
check "drivefs sync ends" sync_device alice 300
note "copy and sync took $(($(now_ms) - begin)) ms"
same "nothing is left in the queue" "$(status alice .queue_files)" 0
same "a synced file says so" "$(getfattr --absolute-names --only-values -n user.drivefs.state "$T/alice/big.bin")" synced
check "diff -r of the tree is clean" diff -r --no-dereference -x pipe "$T/tree" "$T/alice/tree"
check "the large file has the same bytes" cmp "$T/big.bin" "$T/alice/big.bin"
same_tree "names, types, modes, times and targets in the mount" "$T/tree" "$T/alice/tree"

begin=$(now_ms)
device bob
note "the second device's first mount took $(($(now_ms) - begin)) ms"
check "the second device is in sync" sync_device bob
before=$(received_bytes bob)
head -c 4096 "$T/bob/big.bin" >"$T/head"
check "head -c 4096 on a fresh device reads the right bytes" cmp -n 4096 "$T/head" "$T/big.bin"
at_most "bytes received for head -c 4096 of 1 GiB" "$(($(received_bytes bob) - before))" 5242880
at_most "bytes received by a fresh mount and that read" "$(received_bytes bob)" $((5242880 + 16777216))
same_tree "names, types, modes, times and targets on the second device" "$T/alice" "$T/bob"
check "every byte of the tree on the second device" diff -r --no-dereference -x pipe "$T/tree" "$T/bob/tree"
check "every byte of the large file on the second device" cmp "$T/big.bin" "$T/bob/big.bin"
same "hard links are links on the second device" \
    "$(stat -c %i "$T/bob/tree/odd/-rf")" "$(stat -c %i "$T/bob/tree/odd/hard link")"

rm -r "$T/alice/tree"
mv "$T/alice/big.bin" "$T/alice/renamed.bin"
check "removal and rename are sent" sync_device alice
check "removal and rename arrive" wait_until 10 test ! -e "$T/bob/tree" -a -e "$T/bob/renamed.bin"
check "the renamed file has the same bytes" cmp "$T/big.bin" "$T/bob/renamed.bin"
