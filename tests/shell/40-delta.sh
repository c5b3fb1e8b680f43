#!/usr/bin/env bash
# Small changes of a large file are small on the wire. Heavy. Bytes are counted on the socket by a
# proxy between client and server; status must tell the same.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

start_server
add_user me@example.org
python3 "$HERE/proxy.py" "$PORT" "$T/counts" >"$T/proxy.port" &
HELPERS+=($!)
wait_until 10 test -s "$T/proxy.port" -a -s "$T/counts"
LOGIN_URL="http://127.0.0.1:$(cat "$T/proxy.port")"
device alice
M=$T/alice
SIZE=$((1 << 30))
random_file "$T/big.bin" 1024
cp "$T/big.bin" "$M/big.bin"
sync_device alice

# Waits until nothing moves, then tells the total.
socket_bytes() {
    local last=- now
    for _ in $(seq 1 100); do
        sleep 0.12
        now=$(cat "$T/counts")
        [ "$now" != "$last" ] || break
        last=$now
    done
    echo $((${now% *} + ${now#* }))
}

# costs TEXT LIMIT CMD...: bytes on the wire for CMD and the sync after it.
costs() {
    local text=$1 limit=$2 before told
    shift 2
    before=$(socket_bytes)
    told=$(wire_bytes alice)
    "$@"
    sync_device alice
    told=$(($(wire_bytes alice) - told))
    at_most "$text, bytes on the socket" "$(($(socket_bytes) - before))" "$limit"
    at_most "$text, bytes that status tells" "$told" "$limit"
}

# Idle: both stand still.
ratio=$(($(wire_bytes alice) * 1000 / $(socket_bytes)))
at_least "status counts what the socket counts, in thousandths" "$ratio" 990
at_most "and no more" "$ratio" 1010

overwrite() {
    head -c 4096 /dev/urandom >"$T/patch"
    dd if="$T/patch" of="$1" bs=4096 seek=$((SIZE / 8192)) conv=notrunc status=none
}
change_both() { overwrite "$M/big.bin" && dd if="$T/patch" of="$T/big.bin" bs=4096 seek=$((SIZE / 8192)) conv=notrunc status=none; }
costs "4 KiB overwritten in the middle of 1 GiB" 65536 change_both

insert_by_rename() {
    { printf 'x' && cat "$M/big.bin"; } >"$M/big.tmp"
    mv "$M/big.tmp" "$M/big.bin"
}
costs "one byte inserted at the front (new file, rename over)" 65536 insert_by_rename
{ printf 'x' && cat "$T/big.bin"; } >"$T/big.1" && mv "$T/big.1" "$T/big.bin"

insert_in_place() {
    { printf 'y' && cat "$T/big.bin"; } >"$T/big.1"
    cat "$T/big.1" >"$M/big.bin"
}
costs "one byte inserted at the front (rewritten in place)" 65536 insert_in_place
mv "$T/big.1" "$T/big.bin"

costs "a second copy of 1 GiB" 1048576 cp "$M/big.bin" "$M/copy.bin"
costs "a third copy, from outside" 1048576 cp "$T/big.bin" "$M/copy2.bin"
costs "a byte appended" 65536 bash -c "printf z >>'$M/big.bin'"
printf z >>"$T/big.bin"
costs "a rename" 65536 mv "$M/copy2.bin" "$M/moved.bin"
costs "a chmod" 65536 chmod 0600 "$M/moved.bin"

device bob
check "the second device reads the right bytes" cmp "$T/big.bin" "$T/bob/big.bin"
before=$(received_bytes bob)
overwrite "$M/big.bin"
dd if="$T/patch" of="$T/big.bin" bs=4096 seek=$((SIZE / 8192)) conv=notrunc status=none
sync_device alice
sync_device bob
check "the second device reads the change" cmp "$T/big.bin" "$T/bob/big.bin"
at_most "bytes that a reader of the change receives" "$(($(received_bytes bob) - before))" 4500000
