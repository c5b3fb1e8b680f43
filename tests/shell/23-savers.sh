#!/usr/bin/env bash
# How programs save and copy: lock files, temporary files, backups, swap files, tar, rsync, dd.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

two_devices
M=$T/alice
node() { getfattr --absolute-names --only-values -n user.drivefs.node "$1"; }

# ---- office programs and editors
cat >"$T/save.py" <<'PY'
"""save.py HOW PATH TEXT: saves as office programs and editors do."""
import os, sys

how, path, text = sys.argv[1:]
folder, name = os.path.split(path)


def write(to, flags, data):
    fd = os.open(to, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    os.write(fd, data.encode())
    os.fsync(fd)
    os.close(fd)


def sync_folder():
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


if how == "office":
    # LibreOffice: a lock file, a backup, a temporary file beside it, renamed over.
    lock = f"{folder}/.~lock.{name}#"
    write(lock, os.O_EXCL, ",user,host,22.11.2026 10:00,file:///;")
    temp, backup = f"{folder}/lu{os.getpid()}.tmp", f"{folder}/{name}.bak"
    write(temp, os.O_EXCL, text)
    if os.path.exists(path):
        with open(path) as old:
            write(backup, os.O_TRUNC, old.read())
        os.chmod(temp, os.stat(path).st_mode & 0o7777)
    os.rename(temp, path)
    sync_folder()
    os.unlink(lock)
elif how == "gnome":
    # GLib: a temporary file with an odd name, the old one stays as a link, renamed over.
    temp, backup = f"{folder}/.goutputstream-{os.getpid()}", f"{path}~"
    write(temp, os.O_EXCL, text)
    if os.path.exists(path):
        if os.path.exists(backup):
            os.unlink(backup)
        os.link(path, backup)
    os.rename(temp, path)
elif how == "swap":
    # Saving under a new name and changing both names at once.
    temp = f"{path}.new"
    write(temp, os.O_EXCL, text)
    if os.path.exists(path):
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(-100, os.fsencode(temp), -100, os.fsencode(path), 2) != 0:
            sys.exit(os.strerror(ctypes.get_errno()))
        os.unlink(temp)
    else:
        os.rename(temp, path)
elif how == "inplace":
    write(path, os.O_TRUNC, text)
PY
mkdir "$M/saved"
for how in office gnome swap inplace; do
    file=$M/saved/$how.odt
    for n in 1 2 3 4 5 6; do
        python3 "$T/save.py" "$how" "$file" "$how $n" || die "saving the way of $how"
        same "saved the way of $how ($n)" "$(cat "$file")" "$how $n"
        # Some saves find the last one sent, some on its way, some not begun.
        case $n in
            1) sync_device alice && first=$(node "$file") ;;
            3) sleep 0.03 ;;
            5) sync_device alice && sync_device bob ;;
        esac
    done
    sync_device alice
    [ "$how" != inplace ] || same "the file is still the same node ($how)" "$(node "$file")" "$first"
    sync_device bob
    same "the second device has the last save ($how)" "$(cat "$T/bob/saved/$how.odt")" "$how 6"
done
same "no lock and no temporary file is left" "$(find "$M/saved" "$T/bob/saved" -name '.~lock*' -o -name '*.tmp' -o -name '*.new' -o -name '.gout*' | wc -l)" 0
same_tree "both devices show the same" "$M/saved" "$T/bob/saved"
same "no conflicts came up" "$(status alice '.conflicts | length')$(status bob '.conflicts | length')" 00

# ---- vim, with its swap files
vim() { vim.tiny -N -u NONE -i NONE -e -s "$@"; }
for mode in yes no; do
    printf 'one\ntwo\n' >"$M/vim.txt"
    chmod 640 "$M/vim.txt"
    vim -c "set backup writebackup backupskip= backupcopy=$mode" -c '%s/two/2/' -c 'wq' "$M/vim.txt" || true
    same "vim saves, backupcopy=$mode" "$(paste -sd, "$M/vim.txt")" "one,2"
    same "and keeps the mode" "$(stat -c %a "$M/vim.txt")" 640
    same "its backup has the old text" "$(paste -sd, "$M/vim.txt~")" "one,two"
    rm "$M/vim.txt~"
done
mkfifo "$T/keys"
vim "$M/vim.txt" <"$T/keys" >/dev/null 2>&1 &
editor=$!
HELPERS+=("$editor")
exec 7>"$T/keys"
printf 'a\nnot saved\n.\npreserve\n' >&7
check "vim has a swap file" wait_until 10 grep -qa 'not saved' "$M/.vim.txt.swp"
kill -KILL "$(pgrep -P "$editor" || echo "$editor")"
wait "$editor" 2>/dev/null || true
exec 7>&-
check "it outlives vim" test -s "$M/.vim.txt.swp"
vim -r -c 'wq!' "$M/vim.txt" >/dev/null 2>&1 || true
check "and vim recovers from it" grep -q 'not saved' "$M/vim.txt"
rm -f "$M/.vim.txt.swp"

# ---- a tree with everything in it
from=$T/from
mkdir -p "$from/deep/er/est" "$from/empty"
for i in $(seq 1 300); do
    head -c $((i * i)) /dev/urandom >"$from/deep/file$i"
done
random_file "$from/deep/large" 6
printf 'hard' >"$from/hard1"
ln "$from/hard1" "$from/deep/hard2"
ln -s ../hard1 "$from/deep/link"
ln -s /nowhere "$from/dangling"
mkfifo "$from/pipe"
truncate -s 3000000 "$from/sparse"
printf 'end' >>"$from/sparse"
chmod 4755 "$from/deep/file7"
chmod 0400 "$from/deep/file8"
setfattr -n user.color -v red "$from/hard1"
setfattr -n user.binary -v 0x00ff10 "$from/deep"
touch -d '2001-02-03 04:05:06.123456789' "$from/deep/file9" "$from/empty"
touch -h -d '1999-01-01 00:00:00.5' "$from/dangling"

# ---- tar, both ways
mkdir "$M/tar" "$T/back"
check "tar into the mount" bash -c "set -o pipefail; tar --format=posix --xattrs --sparse -C '$from' -cf - . | tar --xattrs -C '$M/tar' -xpf -"
same_tree "it is the same tree" "$from" "$M/tar"
check "tar out of the mount" bash -c "set -o pipefail; tar --format=posix --xattrs -C '$M/tar' -cf - . | tar --xattrs -C '$T/back' -xpf -"
same_tree "it is the same tree" "$from" "$T/back"
same "with its attributes" "$(getfattr --absolute-names --only-values -n user.color "$T/back/deep/hard2")" red
check "and its bytes" diff -r --no-dereference "$from/deep" "$T/back/deep"

# ---- rsync with everything
moved() { sed -n 's/^Number of regular files transferred: //p' "$T/.check"; }
changed() { grep -c '^[<>ch.*]\S* ' "$T/.check" || true; }
# Without -1 it leaves a symlink that was made in the second that it is to have, on any file system.
check "rsync -aHAX" rsync -aHAX --modify-window=-1 --stats "$from/" "$M/rsync/"
same_tree "it is the same tree" "$from" "$M/rsync"
check "again" rsync -aHAX --itemize-changes --stats "$from/" "$M/rsync/"
same "moves nothing" "$(moved)" 0
same "changes nothing" "$(changed)" 0
check "again, by checksum" rsync -aHAX --checksum --itemize-changes --stats "$from/" "$M/rsync/"
same "moves nothing" "$(moved)" 0
same "changes nothing" "$(changed)" 0
sync_device alice
remount alice
check "again, after another mount" rsync -aHAX --checksum --itemize-changes --stats "$from/" "$M/rsync/"
same "moves nothing" "$(moved)" 0
same "changes nothing" "$(changed)" 0
printf 'more' >>"$from/deep/large"
check "rsync --inplace of one change" rsync -aHAX --inplace --no-whole-file --stats "$from/" "$M/rsync/"
same "moves one file" "$(moved)" 1
check "rsync --delete" bash -c "rm -r '$from/deep/er' && rsync -aHAX --delete '$from/' '$M/rsync/'"
# It takes the entry away after it has set the time of the folder, and compares whole seconds, on
# any file system.
check "and once more, for the folder's time" rsync -aHAX --modify-window=-1 "$from/" "$M/rsync/"
same_tree "it is the same tree" "$from" "$M/rsync"

# ---- dd
random_file "$T/data" 8
check "dd conv=fsync" dd if="$T/data" of="$M/dd" bs=64k conv=fsync
check "its bytes" cmp "$T/data" "$M/dd"
cp "$T/data" "$T/wanted"
for at in 3 70 127; do
    dd if=/dev/urandom of="$T/piece" bs=64k count=1 status=none
    dd if="$T/piece" of="$T/wanted" bs=64k seek=$at conv=notrunc status=none
    check "dd conv=notrunc,fdatasync at $at" dd if="$T/piece" of="$M/dd" bs=64k seek=$at conv=notrunc,fdatasync
done
check "dd oflag=append" dd if="$T/piece" of="$M/dd" bs=4k oflag=append conv=notrunc
cat "$T/piece" >>"$T/wanted"
check "dd oflag=direct" dd if="$T/piece" of="$M/dd" bs=4k seek=100 oflag=direct conv=notrunc
dd if="$T/piece" of="$T/wanted" bs=4k seek=100 conv=notrunc status=none
check "dd iflag=direct" dd if="$M/dd" of="$T/read" bs=64k iflag=direct
check "reads the same bytes" cmp "$T/wanted" "$T/read"
check "all are right" cmp "$T/wanted" "$M/dd"
check "dd conv=sparse" dd if="$from/sparse" of="$M/sparse" bs=4k conv=sparse
check "is right too" cmp "$from/sparse" "$M/sparse"

# ---- all of it on the second device
check "sync" sync_device alice
check "the second device has it" sync_device bob
same_tree "everything is the same there" "$M" "$T/bob"
find "$M" -type p -delete && sync_device alice && sync_device bob
check "every byte is" diff -r --no-dereference "$M" "$T/bob"
same "attributes too" "$(getfattr --absolute-names --only-values -n user.color "$T/bob/rsync/hard1")" red
