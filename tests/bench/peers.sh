# shellcheck shell=bash
# The peers. Each has:
#
#   has_P         is it here? else says why not
#   up_P          a fresh, empty mount; everything of it below $T/P
#   folder_of_P   the folder to work in
#   settle_P      waits until what was written is where it belongs, so that nothing goes on behind
#   warm_P        the bytes that lie behind the mount are in the page cache of the disk's file system
#   cold_P        a new mount of the same: kernel and peer have forgotten it, its disk has not
#   empty_P       like cold, and the peer's own cache on disk is gone
#   down_P        takes everything away; harmless when nothing is there

MINUTES_10="timeout --kill-after=10 600"

# ---- what they need ----------------------------------------------------------------------------

# Installs what is missing, without starting services that come with it.
install_peers() {
    local -A package=([bindfs]=bindfs [sshfs]=sshfs [/usr/sbin/sshd]=openssh-server [ssh-keygen]=openssh-client
        [rclone]=rclone [fio]=fio [git]=git [cc]=gcc [tar]=tar [python3]=python3 [jq]=jq [fusermount3]=fuse3)
    local program missing=() policy=/usr/sbin/policy-rc.d made=
    for program in "${!package[@]}"; do
        command -v "$program" >/dev/null || missing+=("${package[$program]}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "apt-get is not here; please install ${missing[*]}" >&2
        exit 1
    fi
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    echo "installing ${missing[*]}"
    "${root[@]}" apt-get update -qq
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
        "${root[@]}" chmod 755 "$policy"
        made=1
    fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
    local rc=$?
    [ -z "$made" ] || "${root[@]}" rm -f "$policy"
    [ "$rc" = 0 ] || exit 1
}

versions() {
    local peer
    for peer in "$@"; do
        case $peer in
            bindfs) bindfs --version | head -1 ;;
            sshfs) sshfs --version | sed -n 's/^SSHFS version/sshfs/p' ;;
            rclone) rclone version | head -1 ;;
            s3fs) s3fs --version | head -1 | cut -d' ' -f1-6 ;;
        esac
    done | paste -sd, | sed 's/,/, /g'
}

# ---- shared parts ------------------------------------------------------------------------------

# has PROGRAM...: all are here; says which is not.
has() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || { echo "$program is not installed"; return 1; }
    done
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# The kernel forgets clean pages (1), names and inodes (2) or both (3), where it is allowed.
forget() {
    sync
    if [ -w /proc/sys/vm/drop_caches ]; then echo "$1" >/proc/sys/vm/drop_caches; fi
}

# run_as_peer PEER NAME CMD...: a process of a peer, ended by stop_peer.
run_as_peer() {
    local peer=$1 name=$2
    shift 2
    "$@" >>"$T/$peer/$name.log" 2>&1 </dev/null &
    echo $! >"$T/$peer/$name.pid"
}

# Ends the process of a pid file and waits for it.
stop_process() {
    local pid i
    [ -s "$1" ] || return 0
    pid=$(cat "$1")
    rm -f "$1"
    kill "$pid" 2>/dev/null || true
    for i in $(seq 1 200); do
        kill -0 "$pid" 2>/dev/null || return 0
        [ "$i" != 150 ] || kill -KILL "$pid" 2>/dev/null
        sleep 0.05
    done
}

mounted_at() {
    wait_until 20 is_mount "$1" || { echo "$1 does not become a mount" >&2; return 1; }
}

unmount_at() {
    is_mount "$1" || return 0
    timeout 60 umount "$1" 2>/dev/null || timeout 60 fusermount3 -u "$1" 2>/dev/null ||
        umount -l "$1" 2>/dev/null || fusermount3 -u -z "$1"
}

fresh_folders() {
    rm -rf --one-file-system "${T:?}/$1"
    mkdir -p "$T/$1/data" "$T/$1/mnt"
}

take_away() {
    local peer=$1 pid_file
    [ -d "$T/$peer" ] || return 0
    unmount_at "$T/$peer/mnt"
    for pid_file in "$T/$peer"/*.pid; do
        [ ! -e "$pid_file" ] || stop_process "$pid_file"
    done
    rm -rf --one-file-system "${T:?}/$peer"
}

read_all() { find "$@" -type f -print0 2>/dev/null | xargs -0 -r cat >/dev/null; }

# ---- a plain folder of the disk ------------------------------------------------------------------

has_ext4() { :; }
up_ext4() { fresh_folders ext4; }
folder_of_ext4() { echo "$T/ext4/data"; }
settle_ext4() { sync; }
warm_ext4() { read_all "$T/ext4/data"; }
cold_ext4() { forget 2; }
empty_ext4() { cold_ext4; }
down_ext4() { take_away ext4; }

# ---- bindfs --------------------------------------------------------------------------------------

has_bindfs() { has bindfs; }
mount_bindfs() {
    run_as_peer bindfs mount bindfs -f "$T/bindfs/data" "$T/bindfs/mnt"
    mounted_at "$T/bindfs/mnt"
}
up_bindfs() { fresh_folders bindfs && mount_bindfs; }
folder_of_bindfs() { echo "$T/bindfs/mnt"; }
settle_bindfs() { sync; }
warm_bindfs() { read_all "$T/bindfs/data"; }
cold_bindfs() {
    unmount_at "$T/bindfs/mnt"
    stop_process "$T/bindfs/mount.pid"
    forget 2
    mount_bindfs
}
empty_bindfs() { cold_bindfs; }
down_bindfs() { take_away bindfs; }

# ---- sshfs, from a server of its own on loopback -------------------------------------------------

has_sshfs() { has sshfs /usr/sbin/sshd; }
mount_sshfs() {
    local p=$T/sshfs
    run_as_peer sshfs mount sshfs -f -p "$(cat "$p/port")" -F /dev/null -o "IdentityFile=$p/user" \
        -o "UserKnownHostsFile=$p/known" -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes \
        "$(id -un)@127.0.0.1:$p/data" "$p/mnt"
    mounted_at "$p/mnt"
}
up_sshfs() {
    local p=$T/sshfs port
    fresh_folders sshfs
    port=$(free_port)
    echo "$port" >"$p/port"
    ssh-keygen -q -t ed25519 -N '' -f "$p/host" && ssh-keygen -q -t ed25519 -N '' -f "$p/user" || return 1
    cp "$p/user.pub" "$p/authorized"
    echo "[127.0.0.1]:$port $(cut -d' ' -f1,2 "$p/host.pub")" >"$p/known"
    cat >"$p/sshd.conf" <<CONF
Port $port
ListenAddress 127.0.0.1
HostKey $p/host
AuthorizedKeysFile $p/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
CONF
    # A server that is not started by the system lacks the folder it shuts itself into.
    if [ "$(id -u)" = 0 ] && [ ! -d /run/sshd ]; then
        mkdir -m 755 /run/sshd && touch "$p/made-run-sshd"
    fi
    run_as_peer sshfs sshd /usr/sbin/sshd -D -e -f "$p/sshd.conf"
    wait_until 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" || return 1
    mount_sshfs
}
folder_of_sshfs() { echo "$T/sshfs/mnt"; }
settle_sshfs() { sync; }
warm_sshfs() { read_all "$T/sshfs/data"; }
cold_sshfs() {
    unmount_at "$T/sshfs/mnt"
    stop_process "$T/sshfs/mount.pid"
    forget 2
    mount_sshfs
}
empty_sshfs() { cold_sshfs; }
down_sshfs() {
    local made=
    [ ! -e "$T/sshfs/made-run-sshd" ] || made=1
    take_away sshfs
    [ -z "$made" ] || rmdir /run/sshd
}

# ---- rclone, WebDAV on loopback, full cache ------------------------------------------------------

has_rclone() { has rclone; }
rclone_flags() { echo --config "$T/rclone/conf" --webdav-url "http://127.0.0.1:$(cat "$T/rclone/port")" --webdav-vendor other; }
mount_rclone() {
    local flags
    read -r -a flags <<<"$(rclone_flags)"
    free_port >"$T/rclone/rc"
    run_as_peer rclone mount rclone mount :webdav: "$T/rclone/mnt" "${flags[@]}" --vfs-cache-mode full \
        --cache-dir "$T/rclone/cache" --rc --rc-no-auth --rc-addr "127.0.0.1:$(cat "$T/rclone/rc")"
    mounted_at "$T/rclone/mnt"
}
up_rclone() {
    fresh_folders rclone
    : >"$T/rclone/conf"
    free_port >"$T/rclone/port"
    run_as_peer rclone server rclone serve webdav "$T/rclone/data" --config "$T/rclone/conf" \
        --addr "127.0.0.1:$(cat "$T/rclone/port")"
    wait_until 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$(cat "$T/rclone/port")" || return 1
    mount_rclone
}
folder_of_rclone() { echo "$T/rclone/mnt"; }
rclone_is_idle() {
    rclone rc --config "$T/rclone/conf" --url "http://127.0.0.1:$(cat "$T/rclone/rc")" vfs/stats |
        jq -e '.diskCache | .uploadsInProgress + .uploadsQueued == 0'
}
settle_rclone() { wait_until 600 rclone_is_idle && sync; }
warm_rclone() { read_all "$T/rclone/cache" "$T/rclone/data"; }
umount_rclone() {
    settle_rclone
    unmount_at "$T/rclone/mnt"
    stop_process "$T/rclone/mount.pid"
}
cold_rclone() { umount_rclone && forget 2 && mount_rclone; }
empty_rclone() { umount_rclone && rm -rf "$T/rclone/cache" && forget 2 && mount_rclone; }
down_rclone() { take_away rclone; }

# ---- s3fs, where an S3 server is told ------------------------------------------------------------

# S3_URL, S3_BUCKET, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY name the server and an empty bucket.
has_s3fs() {
    if [ -z "${S3_URL:-}" ] || [ -z "${S3_BUCKET:-}" ]; then
        echo "no S3 server here"
        return 1
    fi
    has s3fs
}
mount_s3fs() {
    run_as_peer s3fs mount s3fs "$S3_BUCKET" "$T/s3fs/mnt" -f -o "url=$S3_URL" -o use_path_request_style \
        -o "use_cache=$T/s3fs/cache"
    mounted_at "$T/s3fs/mnt"
}
up_s3fs() { fresh_folders s3fs && mount_s3fs && mkdir "$T/s3fs/mnt/bench"; }
folder_of_s3fs() { echo "$T/s3fs/mnt/bench"; }
settle_s3fs() { sync; }
warm_s3fs() { read_all "$T/s3fs/cache"; }
cold_s3fs() {
    unmount_at "$T/s3fs/mnt"
    stop_process "$T/s3fs/mount.pid"
    forget 2
    mount_s3fs
}
empty_s3fs() {
    unmount_at "$T/s3fs/mnt"
    stop_process "$T/s3fs/mount.pid"
    rm -rf "$T/s3fs/cache"
    forget 2
    mount_s3fs
}
down_s3fs() {
    is_mount "$T/s3fs/mnt" && rm -rf "$T/s3fs/mnt/bench"
    take_away s3fs
}

# ---- drivefs, from a separate server on loopback -------------------------------------------------

# Devices `one` and `two` of one account, by the language of the shell tests.
has_drivefs() { has "$BIN/drivefs" "$BIN/drivefs-server"; }
serve_drivefs() {
    start_server --default-quota 1TiB
    add_user me@example.org
    echo "$SERVER_PID" >"$T/drivefs.server.pid"
}
up_drivefs() { serve_drivefs && device one && mem_reset one; }
folder_of_drivefs() { echo "$T/one"; }
settle_drivefs() { sync_device one 600 && sync; }
warm_drivefs() { read_all "$T/one.home" "$SERVER_DATA"; }
cold_drivefs() {
    settle_drivefs
    umount_device one >/dev/null
    forget 2
    mount_device one
    mem_reset one
}
down_drivefs() {
    local name
    for name in one two; do
        if is_mount "$T/$name"; then
            as "$name" timeout 60 drivefs umount "$T/$name" >/dev/null || unmount_at "$T/$name"
        fi
        rm -rf --one-file-system "${T:?}/$name" "${T:?}/$name.home"
    done
    [ ! -s "$T/drivefs.server.pid" ] || stop_process "$T/drivefs.server.pid"
    SERVER_PID=
    PORT=0
    rm -rf --one-file-system "${SERVER_DATA:?}"
}

# The peak of memory counts from here (device NAME).
mem_reset() {
    local pid
    pid=$(client_pid "$1")
    [ -z "$pid" ] || echo 5 >"/proc/$pid/clear_refs" 2>/dev/null || true
}

# memory NAME FIELD: VmHWM or VmRSS of its daemon, in MiB.
memory() { awk -v f="$2:" '$1 == f { printf "%.0f\n", $2 / 1024 }' "/proc/$(client_pid "$1")/status"; }
