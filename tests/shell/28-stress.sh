#!/usr/bin/env bash
# stress-ng: its file system stressors, several at once, without an error and without leaving
# anything behind.
#
# LONG=1: 60 s each group, instead of a few.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

secs=4
[ -z "${LONG:-}" ] || secs=60

start_server
add_user me@example.org
device alice
A=$T/alice
pid=$(client_pid alice)
descriptors() { find "/proc/$pid/fd" -mindepth 1 | wc -l; }
before=$(descriptors)
mkdir "$A/s"

# Not: chattr, inode-flags, verity, fiemap (ioctls that FUSE does not have), bind-mount, binderfs,
# fanotify, dnotify, inotify, procfs, eventfd, ioprio (nothing of the mounted file system).
groups=(
    "access chdir chmod chown dentry dir dirdeep dirmany filename getdent"
    "copy-file fallocate fpunch hdd io iomix fsize sync-file"
    "flock lease locka lockf lockofd fcntl dup open handle file-ioctl"
    "fstat link mknod rename symlink touch utime xattr"
)
for group in "${groups[@]}"; do
    args=()
    for stressor in $group; do args+=("--$stressor" 1); done
    check "stress-ng $group" stress-ng "${args[@]}" --hdd-bytes 16M --iomix-bytes 16M \
        --fallocate-bytes 64M --copy-file-bytes 128M \
        --timeout "$secs" --temp-path "$A/s" --metrics-brief
    grep -Ei 'fail|error' "$T/.check" || true
done

rm -rf "$A/s"
check "sync" sync_device alice
same "no change is left to be sent" "$(status alice '.queue | length')" 0
same "nothing is left in the drive" "$(find "$A" -mindepth 1 | wc -l)" 0
quiet() { [ "$(descriptors)" -le $((before + 16)) ]; }
check "the daemon keeps no files open" wait_until 10 quiet
spooled() { [ "$(find "$T/alice.home/data" -name '*.map' | wc -l)" = 0 ]; }
check "no layer of a deleted file is left" wait_until 10 spooled
at_most "memory of the daemon (KiB)" "$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")" 262144
