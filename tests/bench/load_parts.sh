# shellcheck shell=bash
# Parts of load.sh: the server with its accounts, what processes and kernel use, the disk alone.

# ---- what is needed ------------------------------------------------------------------------------

install_wrk() {
    local root=()
    command -v wrk >/dev/null && return 0
    command -v apt-get >/dev/null || die "apt-get is not here; please install wrk"
    [ "$(id -u)" = 0 ] || root=(sudo)
    echo "installing wrk"
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq wrk >/dev/null || die "wrk cannot be installed"
}

# fresh_server N: an empty server with N accounts, a line `token ns seq` of each in $T/accounts.
fresh_server() {
    rm -rf --one-file-system "${SERVER_DATA:?}"
    PORT=0
    start_server --default-quota 1TiB
    seq 1 "$1" | PASSWORD=$PASSWORD xargs -P 2 -I N sh -c \
        'printf "%s\n" "$PASSWORD" | drivefs-server user add --email "userN@example.org" --password-stdin --data "$1" >/dev/null' \
        sh "$SERVER_DATA" || die "accounts cannot be made"
    python3 "$BENCH_DIR/load.py" accounts "$URL" "$PASSWORD" 1 "$1" >"$T/accounts"
}

forget_helper() {
    local pid kept=()
    for pid in "${HELPERS[@]}"; do [ "$pid" = "$1" ] || kept+=("$pid"); done
    HELPERS=("${kept[@]}")
}

# ---- what is used --------------------------------------------------------------------------------

# state_of PID: user and system time (ticks of 10 ms), bytes written to the disk, resident KiB.
state_of() {
    local line
    line=$(cat "/proc/$1/stat")
    read -r -a line <<<"${line##*) }"
    # shellcheck disable=SC2128
    echo "${line[11]} ${line[12]} $(awk '$1 == "write_bytes:" { print $2 }' "/proc/$1/io")" \
        "$(awk '$1 == "VmRSS:" { print $2 }' "/proc/$1/status")"
}

kernel_kib() { awk -v what="$1:" '$1 == what { print $2 }' /proc/meminfo; }

tcp_kib() { awk '$1 == "TCP:" { print $11 * 4 }' /proc/net/sockstat; }

# ---- the disk alone ------------------------------------------------------------------------------

# The same bytes written to one file, by dd.
disk_alone() {
    find "$SERVER_DATA/blocks" -type f -exec cat {} + | LC_ALL=C dd of="$T/dd" bs=1M iflag=fullblock conv=fsync 2>"$T/dd.out" ||
        die "dd failed"
    rm -f "$T/dd"
    echo "the disk alone, the same bytes as one file (dd conv=fsync): $(tail -n 1 "$T/dd.out" | sed 's/.*, //')"
}

# So many writes of 4 KiB that wait for the disk, one after the other, by dd.
small_syncs_alone() {
    LC_ALL=C dd if=/dev/zero of="$T/dd" bs=4k count=1000 oflag=dsync 2>"$T/dd.out" || die "dd failed"
    rm -f "$T/dd"
    tail -n 1 "$T/dd.out" | awk -F', ' '{
        printf "the disk alone, 4 KiB and then fsync, one after the other (dd oflag=dsync): %.0f a second\n", 1000 / $(NF - 1)
    }'
}
