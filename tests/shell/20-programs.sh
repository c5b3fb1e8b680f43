#!/usr/bin/env bash
# Ordinary programs in the mount: git, cargo, sqlite3, rsync, editors' ways of saving.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

two_devices
M=$T/alice

# ---- git
mkdir "$T/origin"
git -C "$T/origin" init -q -b main
for i in $(seq 1 20); do
    mkdir -p "$T/origin/dir$i"
    for j in $(seq 1 25); do
        seq "$i" $((i * j)) >"$T/origin/dir$i/file$j.txt"
    done
    git -C "$T/origin" add . && git -C "$T/origin" commit -q -m "commit $i"
done
check "git clone" git clone -q "file://$T/origin" "$M/clone"
check "git status is clean" test -z "$(git -C "$M/clone" status --porcelain)"
printf 'changed\n' >>"$M/clone/dir1/file1.txt"
check "git commit" git -C "$M/clone" commit -q -a -m "in the mount"
check "git branch and merge" bash -e -c "
    cd '$M/clone'
    git checkout -q -b side HEAD~3
    echo side >side.txt
    git add side.txt
    git commit -q -m side
    git checkout -q main
    git merge -q --no-edit side"
check "git fsck" git -C "$M/clone" fsck --full --strict
check "git gc" git -C "$M/clone" gc -q --prune=now
check "git fsck after gc" git -C "$M/clone" fsck --full --strict
check "git log is whole" test "$(git -C "$M/clone" rev-list --count HEAD)" = 23
check "git push back" git -C "$M/clone" push -q origin main:from-mount

# ---- cargo
mkdir -p "$M/hello/src" "$M/hello/part/src"
cat >"$M/hello/Cargo.toml" <<'TOML'
[package]
name = "hello"
version = "0.1.0"
edition = "2021"
build = "build.rs"
[dependencies]
part = { path = "part" }
[workspace]
TOML
printf '[package]\nname = "part"\nversion = "0.1.0"\nedition = "2021"\n' >"$M/hello/part/Cargo.toml"
printf 'pub fn answer() -> u32 { 42 }\n' >"$M/hello/part/src/lib.rs"
printf 'fn main() { println!("cargo:rustc-env=WHEN=built"); }\n' >"$M/hello/build.rs"
printf 'fn main() { println!("{} {}", part::answer(), env!("WHEN")); }\n' >"$M/hello/src/main.rs"
build() { (cd "$M/hello" && env -u CARGO_TARGET_DIR cargo build --offline); }
check "cargo build with its target folder in the mount" build
same "the program runs from the mount" "$("$M/hello/target/debug/hello")" "42 built"
build >"$T/again" 2>&1
check "a second cargo build compiles nothing" bash -c "! grep -q Compiling '$T/again'"
printf 'pub fn answer() -> u32 { 43 }\n' >"$M/hello/part/src/lib.rs"
check "cargo build after a change" build
same "the changed program runs" "$("$M/hello/target/debug/hello")" "43 built"

# ---- sqlite3
rows() { seq 1 "$1" | sed "s/.*/INSERT INTO t(v) VALUES('row & of some text');/"; }
for mode in delete wal; do
    db=$M/$mode.db
    {
        printf 'PRAGMA journal_mode=%s;\nCREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);\nBEGIN;\n' "$mode"
        rows 10000
        printf 'COMMIT;\nCREATE INDEX i ON t(v);\n'
    } | sqlite3 "$db" >/dev/null
    same "sqlite3, journal mode $mode: 10,000 rows" "$(sqlite3 "$db" 'SELECT count(*) FROM t')" 10000
    same "sqlite3, journal mode $mode: integrity" "$(sqlite3 "$db" 'PRAGMA integrity_check')" ok
done
# A database that stays open, with a commit a row, while the drive syncs.
{
    printf 'CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);\n'
    rows 300
    printf '.shell drivefs sync --timeout 60 && echo synced >%s/synced\n' "$T"
    rows 300
    printf 'PRAGMA integrity_check;\n'
} | DRIVEFS_HOME=$T/alice.home sqlite3 "$M/open.db" >"$T/open.out"
same "sqlite3: integrity while the drive syncs" "$(tail -n 1 "$T/open.out")" ok
check "drivefs sync ends while a database is open" test -e "$T/synced"

# ---- rsync
from=$T/origin
check "rsync -a" rsync -a "$from/" "$M/rsync/"
rsync -a --itemize-changes --stats "$from/" "$M/rsync/" >"$T/rsync.out"
same "the second rsync -a moves nothing" \
    "$(sed -n 's/^Number of regular files transferred: //p' "$T/rsync.out")" 0
same "the second rsync -a changes nothing" "$(grep -c '^[<>ch.*]\S* ' "$T/rsync.out" || true)" 0
printf 'more\n' >>"$from/dir3/file3.txt"
rsync -a --stats "$from/" "$M/rsync/" >"$T/rsync.out"
same "rsync after one change moves one file" \
    "$(sed -n 's/^Number of regular files transferred: //p' "$T/rsync.out")" 1
check "rsync --delete" rsync -a --delete --checksum "$from/dir1/" "$M/rsync/"
check "the result of rsync is right" diff -r "$from/dir1" "$M/rsync"

# ---- editors
node() { getfattr --absolute-names --only-values -n user.drivefs.node "$1"; }
printf 'first\n' >"$M/report.txt"
sync_device alice
before=$(node "$M/report.txt")
cat >"$T/save.py" <<'PY'
import os, sys
path, text = sys.argv[1:3]
temp = path + ".tmp"
fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
os.write(fd, text.encode())
os.fsync(fd)
os.close(fd)
os.rename(temp, path)
PY
for n in 1 2 3; do
    python3 "$T/save.py" "$M/report.txt" "saved $n"
done
same "a file saved by temp, fsync, rename has its bytes" "$(cat "$M/report.txt")" "saved 3"
sync_device alice
same "and is still the same node" "$(node "$M/report.txt")" "$before"
# vim, backupcopy=no: the old file moves away, a new one is written, the backup goes.
mv "$M/report.txt" "$M/report.txt~" && printf 'vim' >"$M/report.txt" && rm "$M/report.txt~"
sync_device alice
same "saved the vim way" "$(cat "$M/report.txt")" vim
# In place: truncate and write.
printf 'in place' >"$M/report.txt"
sync_device alice
sync_device bob
same "the second device has the last save" "$(cat "$T/bob/report.txt")" "in place"
check "no temporary file is left there" test ! -e "$T/bob/report.txt.tmp" -a ! -e "$T/bob/report.txt~"
# A save after a sync, with the other device reading all the while, never shows a mixture.
head -c 300000 /dev/zero | tr '\0' a >"$T/a" && head -c 300000 /dev/zero | tr '\0' b >"$T/b"
cp "$T/a" "$M/mix.txt" && sync_device alice && sync_device bob
sums="$(md5sum <"$T/a")$(md5sum <"$T/b")"
for n in 1 2 3 4 5 6; do
    if [ $((n % 2)) = 0 ]; then src=$T/a; else src=$T/b; fi
    python3 - "$M/mix.txt" "$src" <<'PY'
import os, sys, shutil
path, src = sys.argv[1:3]
shutil.copyfile(src, path + ".tmp")
os.rename(path + ".tmp", path)
PY
    for _ in 1 2 3 4 5; do
        [[ $sums == *"$(md5sum <"$T/bob/mix.txt")"* ]] || die "a mixture of two versions was read"
    done
done
ok "a file that is replaced is read whole by the other device"

# ---- all of it on the second device
sync_device alice
sync_device bob
same_tree "everything is the same on the second device" "$M" "$T/bob"
check "every byte is" diff -r --no-dereference "$M" "$T/bob"
check "git fsck on the second device" git -C "$T/bob/clone" fsck --full --strict
for db in delete wal open; do
    same "integrity of $db.db on the second device" "$(sqlite3 "$T/bob/$db.db" 'PRAGMA integrity_check')" ok
done
same "no conflicts came up" "$(status alice '.conflicts | length')$(status bob '.conflicts | length')" 00
