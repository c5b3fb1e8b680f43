#!/usr/bin/env bash
# Resumable uploads: by curl, by a client that others wrote, and cut at random points with the server
# killed at some of them. How much memory the server took is checked at the end.
#
#   SIZE=5368709120 PART=8388608 CUTS=100 KILLS=10 tests/api/resumable.sh
set -u
# shellcheck source=tests/api/lib.sh
. "$(dirname "$0")/lib.sh"

size=${SIZE:-100000003} part=${PART:-4194304} cuts=${CUTS:-20} kills=${KILLS:-4}
memory_max_kib=${MEMORY_MAX_KIB:-98304}

python=$(python_with google-resumable-media requests) || exit 1
start_server
add_account alice@example.com
token=$(token_of alice@example.com)
auth="Authorization: Bearer $token"

# ---- curl ----------------------------------------------------------------------------------------
head -c 1000000 /dev/urandom >"$work/file"
location=$(curl -sf -D - -o "$work/begun" -H "$auth" -d '{"path": "/by curl/file", "size": 1000000}' \
    "$url/files/upload?uploadType=resumable" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
[ -n "$location" ] || fail "no Location"
[ "$(jq -r .location "$work/begun")" = "$location" ] || fail "another location in the body"
put() { # RANGE [FILE]: sets status, range
    local body=(--data-binary "@${2:-/dev/null}")
    status=$(curl -s -X PUT -H "$auth" -H "Content-Range: bytes $1" "${body[@]}" -D "$work/heads" \
        -o "$work/answer" -w '%{http_code}' "$location")
    range=$(tr -d '\r' <"$work/heads" | sed -n 's/^[Rr]ange: //p')
}
put '*/1000000'
[ "$status,$range" = "308," ] || fail "nothing sent: $status $range"
head -c 524288 "$work/file" >"$work/part"
put 0-524287/1000000 "$work/part"
[ "$status,$range" = "308,bytes=0-524287" ] || fail "one part: $status $range"
put 0-524287/1000000 "$work/part"
[ "$status,$range" = "308,bytes=0-524287" ] || fail "the same part again: $status $range"
put 524288-600000/1000000 <(tail -c +524289 "$work/file" | head -c 75713)
[ "$status" = 400 ] || fail "a part that is no multiple of 256 KiB: $status"
put 786432-999999/1000000 <(tail -c 213568 "$work/file")
[ "$status,$range" = "308,bytes=0-524287" ] || fail "a part that leaves a hole: $status $range"
tail -c +524289 "$work/file" >"$work/part"
put 524288-999999/1000000 "$work/part"
[ "$status" = 200 ] || fail "the last part: $status"
[ "$(jq .size "$work/answer")" = 1000000 ] || fail "no metadata: $(cat "$work/answer")"
cp "$work/answer" "$work/first"
put '*/1000000'
[ "$status" = 200 ] || fail "its result again: $status"
cmp -s "$work/answer" "$work/first" || fail "another result"
curl -sf -H "$auth" -d '{"path": "/by curl/file"}' "$url/files/download" | cmp - "$work/file" || fail "other bytes"
curl -sf -H "$auth" -r 100-199 "$url/files/download?path=/by%20curl/file" |
    cmp - <(tail -c +101 "$work/file" | head -c 100) || fail "a range"
location=$url/files/upload/00000000-0000-4000-8000-000000000000
put '*/5'
[ "$status" = 404 ] || fail "an unknown session: $status"
echo "ok    curl"

# ---- a client of others --------------------------------------------------------------------------
"$python" "$here/google_client.py" "$url" "$token" || fail "google-resumable-media"
echo "ok    google-resumable-media"

# ---- cuts and kills ------------------------------------------------------------------------------
echo "$server_pid" >"$work/pid"
cat >"$work/restart" <<EOF
#!/bin/sh
kill -9 "\$(cat "$work/pid")"
while kill -0 "\$(cat "$work/pid")" 2>/dev/null; do sleep 0.05; done
RUST_LOG=warn "$server" serve --data "$data" --listen 127.0.0.1:$port --max-file 12GiB --min-free 1MiB \
    >"$work/out" 2>>"$work/server.log" &
echo \$! >"$work/pid"
EOF
chmod +x "$work/restart"
watch_memory() {
    local kib
    while sleep 0.2; do
        kib=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(cat "$work/pid")/status" 2>/dev/null)
        [ -z "$kib" ] || echo "$kib" >>"$work/memory"
    done
}
watch_memory &
watcher=$!
extra_pids+=("$watcher")
"$python" "$here/cuts.py" "$url" "$token" "$size" "$part" "$cuts" "$kills" "$work/restart" ||
    { extra_pids+=("$(cat "$work/pid")"); fail "cuts"; }
kill "$watcher"
server_pid=$(cat "$work/pid")
peak=$(sort -n "$work/memory" | tail -1)
idle=$(sort -n "$work/memory" | head -1)
echo "the server took $idle KiB of memory at first and $peak KiB at most"
[ $((peak - idle)) -le "$memory_max_kib" ] || fail "more than $memory_max_kib KiB for an upload and a download"
echo "ok    cuts"
