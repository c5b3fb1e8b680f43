#!/usr/bin/env bash
# Files over the limit: EFBIG, and nothing half-written anywhere.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

start_server --max-file 8MiB
add_user me@example.org
device alice
device bob
A=$T/alice

random_file "$T/fits.bin" 8
check "a file of exactly the limit" cp "$T/fits.bin" "$A/fits.bin"
check "is sent" sync_device alice
refused "one byte more by truncate is EFBIG" 'too large' truncate -s 8388609 "$A/grown.bin"
refused "a far seek is EFBIG" 'too large' \
    dd if=/dev/zero of="$A/far.bin" bs=1 count=1 seek=1000000000 conv=fsync status=none
refused "dd conv=fsync over the limit is EFBIG" 'too large' \
    dd if=/dev/urandom of="$A/large.bin" bs=1M count=12 conv=fsync status=none
refused "an append beyond the limit is EFBIG" 'too large' \
    dd if=/dev/urandom of="$A/fits.bin" bs=64k count=1 oflag=append conv=notrunc status=none
check "write itself says so, not a later call" python3 - "$A/fits.bin" <<'PY'
import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
try:
    os.write(fd, b"x" * 1000)
except OSError as e:
    os.close(fd)
    sys.exit(0 if e.errno == errno.EFBIG else str(e))
sys.exit("the write was taken")
PY
refused "fallocate over the limit is EFBIG" 'too large' fallocate -l 9M "$A/allocated.bin"
refused "cp over the limit is EFBIG" 'too large' bash -c "head -c 9000000 /dev/urandom >'$T/x' && cp '$T/x' '$A/copied.bin'"
check "the file at the limit is unharmed" cmp "$T/fits.bin" "$A/fits.bin"
small() { [ "$(stat -c %s "$1")" -le 8388608 ]; }
for name in grown far large allocated copied; do
    [ ! -e "$A/$name.bin" ] || check "$name.bin holds no more than was accepted" small "$A/$name.bin"
done
rm -f "$A"/{grown,far,large,allocated,copied}.bin
check "sync ends" sync_device alice 60
check "the second device is in sync" sync_device bob 60
check "it has only what fits" diff -r "$A" "$T/bob"
same "one file" "$(find "$T/bob" -type f | wc -l)" 1

# The limit was lowered while a file of the old size waits.
offline
random_file "$T/six.bin" 6
cp "$T/six.bin" "$A/six.bin"
SERVER_ARGS=(--max-file 4MiB)
online
refused "a file that waited while the limit shrank: sync says why" 'large|limit' sync_device alice 20
check "status says it per file" bash -c "DRIVEFS_HOME='$T/alice.home' drivefs status --json |
    jq -e '.queue[] | select(.path == \"six.bin\") | .error'"
note "it says: $(status alice '.queue[] | select(.path == "six.bin") | .error')"
same "and so does the file" "$(getfattr --absolute-names --only-values -n user.drivefs.error "$A/six.bin" | grep -Eic 'large|limit')" 1
check "it is whole here" cmp "$T/six.bin" "$A/six.bin"
sync_device bob
check "nothing of it is on the second device" test ! -s "$T/bob/six.bin"
printf 'x' >"$A/small.txt"
arrived() { [ "$(cat "$T/bob/small.txt")" = x ]; }
check "other files go on" wait_until 20 arrived
offline
SERVER_ARGS=(--max-file 8MiB)
online
check "with the old limit it goes up" sync_device alice 60
sync_device bob
check "and arrives whole" cmp "$T/six.bin" "$T/bob/six.bin"
