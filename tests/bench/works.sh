# shellcheck shell=bash
# The works. Each has:
#
#   peers_of_W      on which peers it makes sense
#   prepare_W       made once: templates, in $T
#   work_W PEER DIR on a fresh mount; tells numbers by `put METRIC VALUE`; ends at its first error
#   finish_W        takes the templates away
#
# Every metric has a line in bars.tsv.

ALL_WORKS="create untar list stream random cold small mount idle"

# put PEER METRIC VALUE [DEVICE]: one result; for drivefs with the peak of memory since the last one.
put() {
    local memory='' device=${4:-one}
    if [ "$1" = drivefs ]; then
        memory=$(memory "$device" VmHWM)
        mem_reset "$device"
    fi
    printf '%s\t%s\t%s\t%s\n' "$2" "$1" "$3" "$memory" >>"$results"
}

# n COUNT [LEAST]: the count at this scale.
n() { awk -v n="$1" -v s="$SCALE" -v least="${2:-1}" 'BEGIN { v = int(n * s); print v < least ? least : v }'; }

# secs CMD...: how long it took, in seconds. What it prints goes away.
secs() {
    local from=$EPOCHREALTIME rc=0
    $MINUTES_10 "$@" >/dev/null || rc=$?
    awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.4f\n", b - a }'
    return "$rc"
}

per_second() { awk -v n="$1" -v s="$2" 'BEGIN { printf "%.0f\n", n / s }'; }

# ---- create: small files by one process ----------------------------------------------------------

peers_of_create() { echo ext4 bindfs sshfs rclone s3fs drivefs; }
prepare_create() { :; }
work_create() {
    local speed
    speed=$($MINUTES_10 "$BENCH" create "$2/new" "$(n 10000 100)" 4096)
    put "$1" create "$speed"
}
finish_create() { :; }

# ---- untar: a source tree, and away with it ------------------------------------------------------

peers_of_untar() { echo ext4 bindfs sshfs rclone s3fs drivefs; }
prepare_untar() {
    "$BENCH" tree "$T/tree" "$(n 10000 100)" 65536 >/dev/null || return 1
    tar -C "$T" -cf "$T/tree.tar" tree || return 1
    # For rclone, which has no symlinks, and sshfs, which sets times of their targets.
    find "$T/tree" -type l -delete
    tar -C "$T" -cf "$T/tree-nolinks.tar" tree || return 1
    rm -rf "${T:?}/tree"
}
work_untar() {
    local tar=$T/tree.tar entries took
    case $1 in rclone | sshfs) tar=$T/tree-nolinks.tar ;; esac
    entries=$(tar -tf "$tar" | wc -l)
    cat "$tar" >/dev/null
    took=$(secs tar -C "$2" --no-same-owner -xf "$tar")
    put "$1" untar "$(per_second "$entries" "$took")"
    "settle_$1"
    took=$(secs rm -rf "$2/tree")
    put "$1" rm "$(per_second "$entries" "$took")"
}
finish_untar() { rm -f "$T/tree.tar" "$T/tree-nolinks.tar"; }

# ---- list: a large repository, for the first and for the second time -------------------------------

peers_of_list() { echo ext4 bindfs drivefs; }
prepare_list() {
    "$BENCH" tree "$T/repository" "$(n 100000 500)" 2048 >/dev/null || return 1
    (
        cd "$T/repository" || exit 1
        git init -q -b main . || exit 1
        # So the copies of the tree need no new index, on any peer.
        git config core.checkStat minimal
        git config core.trustctime false
        git config gc.auto 0
        # All blobs into one pack.
        git -c core.bigFileThreshold=1 add . && git commit -q -m all || exit 1
        touch -d '2020-10-01' .git/index
    )
}
list_all() { secs ls -lR "$1"; }
list_status() {
    GIT_OPTIONAL_LOCKS=0 secs git -c safe.directory='*' -C "$1" status --porcelain
}
work_list() {
    local dir=$2/repository entries took
    cp -a "$T/repository" "$2/"
    "settle_$1"
    entries=$(find "$T/repository" -name .git -prune -o -print | wc -l)
    "warm_$1"
    "cold_$1"
    took=$(list_all "$dir")
    put "$1" ls-first "$(per_second "$entries" "$took")"
    took=$(list_all "$dir")
    put "$1" ls-second "$(per_second "$entries" "$took")"
    "cold_$1"
    took=$(list_status "$dir")
    put "$1" git-first "$(per_second "$entries" "$took")"
    took=$(list_status "$dir")
    put "$1" git-second "$(per_second "$entries" "$took")"
    # A tree that git finds changed would be another work.
    [ -z "$(git -c safe.directory='*' -C "$dir" status --porcelain)" ]
}
finish_list() { rm -rf "${T:?}/repository"; }

# ---- stream: one large file, written and read again ------------------------------------------------

peers_of_stream() { echo ext4 bindfs sshfs rclone s3fs drivefs; }
prepare_stream() { :; }
work_stream() {
    local mib speed from
    mib=$(n 2048 16)
    from=$EPOCHREALTIME
    speed=$($MINUTES_10 "$BENCH" write "$2/big" "$mib")
    put "$1" write "$speed"
    "settle_$1"
    if [ "$1" = drivefs ]; then
        # From the first byte written until all is durable on the server.
        put "$1" drain "$(awk -v a="$from" -v b="$EPOCHREALTIME" -v m="$mib" 'BEGIN { printf "%.1f\n", m * 1.048576 / (b - a) }')"
    fi
    # Nothing cached in the mount; the bytes behind it are in memory.
    "cold_$1"
    "warm_$1"
    speed=$($MINUTES_10 "$BENCH" read "$2/big")
    put "$1" read-cached "$speed"
    speed=$($MINUTES_10 "$BENCH" read "$2/big")
    put "$1" read-warm "$speed"
    # Nothing cached at all: from the disk.
    "cold_$1"
    forget 3
    speed=$($MINUTES_10 "$BENCH" read "$2/big")
    put "$1" read-disk "$speed"
}
finish_stream() { :; }

# ---- random: 4 KiB reads, one and four jobs --------------------------------------------------------

peers_of_random() { echo ext4 bindfs sshfs rclone s3fs drivefs; }
prepare_random() { :; }
work_random() {
    local jobs iops mib
    mib=$(n 1024 16)
    "$BENCH" write "$2/big" "$mib" >/dev/null
    "settle_$1"
    for jobs in 1 4; do
        "cold_$1"
        "warm_$1"
        iops=$($MINUTES_10 fio --name=random --filename="$2/big" --rw=randread --bs=4k --ioengine=psync --invalidate=0 \
            --numjobs="$jobs" --group_reporting --time_based --runtime="$(n 10 2)" --output-format=json | jq '.jobs[0].read.iops | round')
        put "$1" "random-$jobs" "$iops"
    done
}
finish_random() { :; }

# ---- cold: a large file that only the server has ---------------------------------------------------

peers_of_cold() { echo sshfs rclone s3fs drivefs; }
prepare_cold() { :; }
# A second device of the account, just mounted.
second_device() {
    device two
    mem_reset two
}
work_cold() {
    local speed
    "$BENCH" write "$2/big" "$(n 2048 16)" >/dev/null
    "settle_$1"
    if [ "$1" = drivefs ]; then
        second_device
        sync_device two 600
        mem_reset two
        speed=$($MINUTES_10 "$BENCH" read "$T/two/big")
        put drivefs cold "$speed" two
    else
        "empty_$1"
        speed=$($MINUTES_10 "$BENCH" read "$2/big")
        put "$1" cold "$speed"
    fi
}
finish_cold() { :; }

# ---- small: many small files, until the server has them --------------------------------------------

peers_of_small() { echo rclone drivefs; }
prepare_small() { :; }
work_small() {
    local files from flags
    files=$(n 10000 100)
    if [ "$1" = rclone ]; then
        "$BENCH" create "$T/rclone/small" "$files" 4096 >/dev/null
        read -r -a flags <<<"$(rclone_flags)"
        from=$EPOCHREALTIME
        $MINUTES_10 rclone copy "${flags[@]}" "$T/rclone/small" :webdav:small
    else
        from=$EPOCHREALTIME
        "$BENCH" create "$2/small" "$files" 4096 >/dev/null
        sync_device one 600
    fi
    put "$1" small "$(awk -v a="$from" -v b="$EPOCHREALTIME" -v n="$files" 'BEGIN { printf "%.0f\n", n / (b - a) }')"
}
finish_small() { :; }

# ---- mount: a drive of a million nodes -------------------------------------------------------------

peers_of_mount() { echo drivefs; }
# Filling takes longer than measuring: the server's data is made once and copied for each round.
prepare_mount() {
    [[ " ${peers[*]} " == *" drivefs "* ]] || return 0
    up_drivefs || return 1
    # Contents for the nodes to share: blocks reach the server by a mount alone.
    "$BENCH" create "$T/one/.contents" 64 4096 >/dev/null && sync_device one 60 || return 1
    printf '%s\n' "$PASSWORD" | python3 "$BENCH_DIR/fill.py" "$URL" me@example.org "$(n 1000000 1000)" || return 1
    umount_device one >/dev/null
    kill -TERM "$SERVER_PID" && wait "$SERVER_PID"
    rm -rf "${T:?}/filled"
    mv "$SERVER_DATA" "$T/filled"
    down_drivefs
}
work_mount() {
    local took
    # The fresh server goes; the filled one comes, at the same address.
    umount_device one >/dev/null
    stop_process "$T/drivefs.server.pid"
    rm -rf "${SERVER_DATA:?}" "${T:?}/one.home"
    cp -a "$T/filled" "$SERVER_DATA"
    online
    echo "$SERVER_PID" >"$T/drivefs.server.pid"
    new_device one
    # A device that has never seen the drive.
    from=$EPOCHREALTIME
    mount_device one
    ls -l "$T/one" >/dev/null
    put drivefs mount-new "$(awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }')"
    sync_device one 600
    put drivefs replica "$(awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }')"
    put drivefs replica-rss "$(memory one VmRSS)"
    # The same device again.
    umount_device one >/dev/null
    from=$EPOCHREALTIME
    mount_device one
    ls -l "$T/one" >/dev/null
    put drivefs mount-known "$(awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }')"
    took=$(secs find "$T/one")
    put drivefs find-all "$(per_second "$(n 1000000 1000)" "$took")"
}
finish_mount() { rm -rf "${T:?}/filled"; }

# ---- idle: what the daemon costs when nothing happens ----------------------------------------------

peers_of_idle() { echo drivefs; }
prepare_idle() { :; }
cpu_ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$(client_pid one)/stat"; }
work_idle() {
    local before after wait_secs
    wait_secs=$(n 30 5)
    "$BENCH" create "$2/some" 1000 4096 >/dev/null
    cold_drivefs
    ls -lR "$2" >/dev/null
    # What a mount sets going comes to rest.
    sleep 5
    before=$(cpu_ticks)
    sleep "$wait_secs"
    after=$(cpu_ticks)
    put drivefs idle-cpu "$(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v s="$wait_secs" 'BEGIN { printf "%.2f\n", 100 * t / hz / s }')"
    put drivefs idle-rss "$(memory one VmRSS)"
}
finish_idle() { :; }
