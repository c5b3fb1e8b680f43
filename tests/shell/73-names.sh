#!/usr/bin/env bash
# Any name that POSIX has travels; what cannot be is refused with the errno of ext4.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

two_devices
n255=$(printf 'n%.0s' {1..255})

check "a name of 255 bytes" touch "$A/$n255"
check "a folder's too" mkdir "$A/d"
check "inside it" touch "$A/d/$n255"
refused "a name of 256 bytes is ENAMETOOLONG" 'too long' touch "$A/${n255}n"
refused "for folders" 'too long' mkdir "$A/${n255}n"
refused "for symlinks" 'too long' ln -s x "$A/${n255}n"
refused "for rename targets" 'too long' mv "$A/$n255" "$A/${n255}n"
refused "for hard links" 'too long' ln "$A/$n255" "$A/${n255}n"
refused "for look-ups" 'too long' stat "$A/${n255}n"
long=$(printf 'ü%.0s' {1..127})
check "255 bytes in 128 characters" touch "$A/${long}x"
target=$(printf 't%.0s' {1..4095})
check "a symlink to 4,095 bytes" ln -s "$target" "$A/long-link"
same "is read back" "$(readlink "$A/long-link")" "$target"

# .versions is the drive's own.
refused ".versions cannot be made as a folder" 'exists' mkdir "$A/.versions"
refused "nor as a file" 'read-only' touch "$A/.versions"
refused "nor by rename" 'read-only' mv "$A/d" "$A/.versions"
refused "nor as a link" 'read-only' ln -s x "$A/d/.versions"
check "other names with dots are ordinary" touch "$A/.version" "$A/..versions" "$A/.versions.txt" "$A/..."

# Names that are not UTF-8, and bytes that others stumble over.
python3 - "$A" <<'PY'
import os, sys
top = os.fsencode(sys.argv[1])
os.mkdir(top + b"/odd")
names = [b"latin1-\xe4\xf6\xfc", b"\xff\xfe", b"cut-\xf0\x9f\x8e", b"new\nline", b"tab\tand\x7f\x01", b"back\\slash", b'quote"\'`$(x)',
         b" lead and trail ", b"-n", b"*?[x]", b"%41%2f", b"a:b|c<d>e", b"CON", b"x.txt.", "e\u0301".encode(), "\u00e9".encode(), b"Case", b"case"]
for i, name in enumerate(names):
    path = top + b"/odd/" + name
    with open(path, "wb") as f:
        f.write(b"%d " % i + name)
    os.symlink(name + b"\xff", top + b"/odd/link%d" % i)
os.mkdir(top + b"/odd/dir\xff")
with open(top + b"/odd/dir\xff/inside\xfe", "wb") as f:
    f.write(b"inside")
os.setxattr(top + b"/odd/case", b"user.bytes", b"\x00\xff\x01")
os.rename(top + b"/odd/\xff\xfe", top + b"/odd/\xfe\xff renamed")
PY
check "all of it is sent" sync_device alice
check "and taken in" sync_device bob
listing "$A" >"$T/a" && listing "$B" >"$T/b"
check "odd names are the same on the second device" cmp "$T/a" "$T/b"
check "with their bytes" diff -r --no-dereference "$A" "$B"
same "and extended attributes" "$(getfattr --absolute-names -e hex --only-values -n user.bytes "$B/odd/case" | xxd -p)" 00ff01
check "status survives odd names" bash -c "
    rm '$A/odd/'latin1*
    printf 1 >'$A/odd/'\$'\\xff.txt'
    DRIVEFS_HOME='$T/alice.home' drivefs status --json | jq . && DRIVEFS_HOME='$T/alice.home' drivefs status"
sync_device alice
remount bob
sync_device bob
same_tree "the same after another mount" "$A" "$B"
# Only the case of a name changes; and names that replace each other.
mv "$A/odd/Case" "$A/odd/cASE"
mv "$A/odd/case" "$A/odd/Case"
sync_device alice
sync_device bob
listing "$A" >"$T/a" && listing "$B" >"$T/b"
check "renames that differ in case" cmp "$T/a" "$T/b"
# Deep paths.
deep=$A
for n in $(seq 1 60); do deep=$deep/level-$n-of-a-deep-tree; done
check "a deep tree" mkdir -p "$deep"
printf 'deep\n' >"$deep/file"
sync_device alice
sync_device bob
same "is there on the second device" "$(cat "${deep/#"$A"/$B}/file")" deep
