#!/usr/bin/env bash
# From a fresh checkout to a mounted drive.
#
#   mount-scripts/quickstart.sh [DIR]           installs what is missing, builds, mounts on DIR
#   mount-scripts/quickstart.sh --stop [DIR]    unmounts; all data stays
#
# DIR is ~/Drive if not given. Running it twice is harmless. DRIVEFS_HOME chooses the folder of
# this device's data, CARGO_TARGET_DIR where it is built.
set -euo pipefail

say() { printf '%s\n' "$*"; }
fail() {
    printf 'quickstart: %s\n' "$*" >&2
    exit 1
}

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit "$1"
}

stop=
dir=
for arg in "$@"; do
    case $arg in
        --stop) stop=1 ;;
        -h | --help) usage 0 ;;
        -*) usage 2 >&2 ;;
        *)
            [ -z "$dir" ] || usage 2 >&2
            dir=$arg
            ;;
    esac
done

top=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$top/target}
# cargo takes a relative target folder from where it is run, which is the top.
[[ $target == /* ]] || target=$top/$target
drivefs=$target/release/drivefs
home=${DRIVEFS_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/drivefs}

# True if a drive is mounted on the folder, even one whose daemon has died.
is_mounted() {
    local at kind source
    # Octal escapes of mountinfo: a space is \040.
    while read -r at kind source; do
        [ "$(printf '%b' "${at//\\0/\\00}")" != "$1" ] || [[ $kind != fuse* ]] || [ "$source" != drivefs ] || return 0
    done < <(sed 's/^\([^ ]* \)\{4\}\([^ ]*\) .* - \([^ ]*\) \([^ ]*\) .*/\2 \3 \4/' /proc/self/mountinfo)
    return 1
}

# ---- --stop ------------------------------------------------------------------------------------

if [ -n "$stop" ]; then
    if [ -z "$dir" ] && [ -x "$drivefs" ]; then
        dir=$("$drivefs" status --json 2>/dev/null | sed -n 's/.*"mount":"\([^"]*\)".*/\1/p')
    fi
    dir=${dir:-$HOME/Drive}
    dir=$(realpath -ms "$dir")
    if is_mounted "$dir"; then
        [ -x "$drivefs" ] || fail "$drivefs is not there any more; use: fusermount3 -u '$dir'"
        "$drivefs" umount "$dir"
        say "unmounted $dir"
    else
        say "no drive is mounted on $dir: nothing to stop"
    fi
    # The folder was made for the mount; take it away again when nothing is in it.
    rmdir "$dir" 2>/dev/null || true
    say "the drive's data stays in $home; delete that folder to forget the drive for good"
    exit 0
fi

# ---- what is needed ----------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root, and there is no sudo; run as root: $*"
    fi
}

install() { # DEBIAN FEDORA ARCH SUSE ALPINE: package names
    if command -v apt-get >/dev/null; then
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null
    elif command -v dnf >/dev/null; then
        as_root dnf install -y -q "$2"
    elif command -v pacman >/dev/null; then
        as_root pacman -S --noconfirm --needed "$3"
    elif command -v zypper >/dev/null; then
        as_root zypper -q install -y "$4"
    elif command -v apk >/dev/null; then
        as_root apk add -q "$5"
    else
        fail "please install $1 with your package manager, then run this again"
    fi
}

[ "$(uname -s)" = Linux ] || fail "drivefs mounts on Linux only"
command -v fusermount3 >/dev/null || {
    say "installing fuse3"
    install fuse3 fuse3 fuse3 fuse3 fuse3
}
command -v cc >/dev/null || {
    say "installing a C compiler"
    install gcc gcc gcc gcc gcc
}
if ! printf '#include <stdio.h>\nint main(void) { return 0; }\n' | cc -x c -o /dev/null - 2>/dev/null; then
    say "installing the C library's headers"
    install libc6-dev glibc-devel glibc glibc-devel musl-dev
fi
[ -e /dev/fuse ] || as_root modprobe fuse || true
[ -e /dev/fuse ] || fail "/dev/fuse is not there; this kernel or container has no FUSE"
if [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
    fail "you may not open /dev/fuse; ordinary systems have it at mode 0666 (as root: chmod 666 /dev/fuse)"
fi
# Rust may be installed without being in this shell's PATH.
command -v cargo >/dev/null || PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
command -v cargo >/dev/null ||
    fail "cargo is missing. Install Rust 1.95 or later (https://rustup.rs, or your package manager), then run this again"

# ---- build and mount ---------------------------------------------------------------------------

say "building (a first build takes some minutes)"
(cd "$top" && cargo build --release --locked --quiet -p drivefs -p drivefs-server)

dir=${dir:-$HOME/Drive}
dir=$(realpath -ms "$dir")
# A mount whose daemon has died answers nothing; `drivefs mount` takes it away itself. (stat -f asks
# the daemon, stat alone might be answered by the kernel.)
is_mounted "$dir" || mkdir -p "$dir"
if is_mounted "$dir" && stat -f "$dir" >/dev/null 2>&1; then
    say "a drive is mounted on $dir already"
else
    "$drivefs" mount "$dir" >/dev/null
    say "mounted on $dir"
fi

say
say "  use it:         any program, any file in $dir"
say "  is it sent?     $drivefs status        (or wait for it: $drivefs sync)"
say "  stop:           $top/mount-scripts/quickstart.sh --stop '$dir'"
say "  your data:      $home"
if [ -e "$home/server/address" ]; then
    say "  second device:  (another folder on this machine, for a look)"
    say "      export DRIVEFS_HOME=\$HOME/second-device"
    say "      $drivefs login http://$(cat "$home/server/address") --email me@localhost --device second \\"
    say "          --password-stdin <'$home/server/password'"
    say "      mkdir -p ~/Drive2 && $drivefs mount ~/Drive2"
    say "  other machines: README.md, 'A server for several machines'"
else
    say "  second device:  drivefs login URL --email YOU, then drivefs mount DIR, on the other machine"
fi
