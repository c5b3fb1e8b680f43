#!/usr/bin/env bash
# pjdfstest, the whole of it: what each file system call must do and which error it must give.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_tool pjdfstest

start_server
add_user me@example.org
new_device alice
# Its tests become other users, who have to reach the mount.
chmod 755 "$T"
mount_device alice --allow-other
mkdir -m 777 "$T/second"

run() {
    pjdfstest -c "$HERE/pjdfstest.toml" -p "$T/alice" -s "$T/second" >"$T/out" 2>&1
    ! grep -q FAILED "$T/out"
}
check "no test of pjdfstest fails" run
grep FAILED "$T/out" || true
summary=$(grep '^Summary: ' "$T/out" | tail -n 1)
note "$summary"
passed=$(sed -n 's/.* \([0-9]*\) passed.*/\1/p' <<<"$summary")
skipped=$(sed -n 's/.* \([0-9]*\) skipped.*/\1/p' <<<"$summary")
at_least "tests passed" "${passed:-0}" 384
# 13 remount the file system read-only, as on ext4; one needs a limit of hard links.
at_most "tests that do not apply" "${skipped:-99}" 14
same "nothing is left in the drive" "$(find "$T/alice" -mindepth 1 | wc -l)" 0
check "and it is in sync" sync_device alice
