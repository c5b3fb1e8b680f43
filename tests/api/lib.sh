# Shared by the tests of the file API: a server of its own with two accounts, on loopback.
# Sets data, url, token, other_token; everything is gone when the script ends.
# shellcheck shell=bash

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
data=$work/server
password='correct horse battery'
server_pid=''
extra_pids=()

cleanup() {
    local pid
    for pid in "$server_pid" "${extra_pids[@]}"; do
        [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
    done
    wait 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT

fail() {
    echo "FAIL  $*" >&2
    [ ! -s "$work/server.log" ] || tail -20 "$work/server.log" >&2
    exit 1
}

# program: the server's binary; DRIVEFS_SERVER names another than the checked build.
program() {
    local target
    if [ -n "${DRIVEFS_SERVER:-}" ]; then
        echo "$DRIVEFS_SERVER"
    else
        target=$(cd "$top" && cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)
        echo "$target/checked/drivefs-server"
    fi
}
server=$(program)
[ -x "$server" ] || fail "$server is not built"

# start_server: serves; sets url and port.
start_server() {
    local line=''
    : >"$work/out"
    RUST_LOG=warn "$server" serve --data "$data" --listen 127.0.0.1:0 --max-file 12GiB \
        --min-free 1MiB >"$work/out" 2>>"$work/server.log" &
    server_pid=$!
    for _ in $(seq 300); do
        line=$(cat "$work/out")
        [ -z "$line" ] || break
        kill -0 "$server_pid" 2>/dev/null || fail "the server ended"
        sleep 0.1
    done
    url=${line#listening on }
    # shellcheck disable=SC2034 # for the scripts that source this
    port=${url##*:}
}

add_account() {
    "$server" user add --data "$data" --email "$1" --password-stdin --quota 100GiB <<<"$password" >/dev/null ||
        fail "cannot add $1"
}

# token_of EMAIL
token_of() {
    curl -sf -H 'x-drivefs-wire: 1' -d "{\"email\":\"$1\",\"password\":\"$password\",\"device\":\"script\"}" \
        "$url/auth/v1/login" | jq -r .token
}

# python: one with the packages named, in a folder that is kept between runs.
python_with() {
    local package venv=${XDG_CACHE_HOME:-$HOME/.cache}/drivefs-tests/api-venv
    mkdir -p "$(dirname "$venv")"
    [ -x "$venv/bin/pip" ] || python3 -m venv "$venv" || fail "no place for Python packages"
    for package in "$@"; do
        "$venv/bin/pip" show -qq "$package" 2>/dev/null ||
            "$venv/bin/pip" install -q --disable-pip-version-check "$package" >&2 ||
            fail "cannot install $package"
    done
    echo "$venv/bin/python"
}
