#!/usr/bin/env bash
# The roles api and blocks as two processes over the same data: uploads whose bytes go to the one are
# ended by the other. Each is killed at a bad moment; another block server takes an upload over.
set -u
# shellcheck source=tests/api/lib.sh
. "$(dirname "$0")/lib.sh"

DRIVEFS_MASTER_KEY=$(head -c 32 /dev/urandom | xxd -p -c 64)
export DRIVEFS_MASTER_KEY

# serve NAME PORT ARG...: sets pid_NAME and url_NAME
serve() {
    local name=$1 at=127.0.0.1:$2 line=''
    shift 2
    : >"$work/out.$name"
    RUST_LOG=warn "$server" serve --data "$work/$name" --metadata "$work/shared/metadata.db" \
        --blocks "$work/shared/blocks" --listen "$at" --min-free 1MiB "$@" \
        >"$work/out.$name" 2>>"$work/server.log" &
    local pid=$!
    extra_pids+=("$pid")
    for _ in $(seq 300); do
        line=$(cat "$work/out.$name")
        [ -z "$line" ] || break
        kill -0 "$pid" 2>/dev/null || fail "$name ended"
        sleep 0.1
    done
    printf -v "pid_$name" %s "$pid"
    printf -v "url_$name" %s "${line#listening on }"
}

# stop NAME: kill -9
stop() {
    local pid=pid_$1
    kill -9 "${!pid}"
    wait "${!pid}" 2>/dev/null
}

mkdir -p "$work/shared"
url_api='' url_blocks='' url_other=''
serve api 0 --roles api,notify
url=$url_api port=${url_api##*:}
"$server" user add --data "$work/api" --metadata "$work/shared/metadata.db" --email alice@example.com \
    --password-stdin --quota 1GiB <<<"$password" >/dev/null || fail "cannot add an account"
token=$(token_of alice@example.com)
auth="Authorization: Bearer $token"
serve blocks 0 --roles blocks --api-url "$url_api"
serve other 0 --roles blocks --api-url "$url_api"

"$server" serve --data "$work/x" --api-url http://127.0.0.1:1 2>"$work/refused"
[ $? = 2 ] || fail "--api-url beside the role api"
grep -q 'role api' "$work/refused" || fail "it does not say why"

# ---- the usual way -------------------------------------------------------------------------------
head -c 3000000 /dev/urandom >"$work/file"
rpc() { curl -s -H "$auth" -d "$2" "$url_api/files/$1"; }
code() { curl -s -o /dev/null -w '%{http_code}' -H "$auth" "$@"; }
[ "$(code -d '{"path":""}' "$url_blocks/files/list_folder")" = 404 ] || fail "the block server lists"
[ "$(code --data-binary x "$url_api/files/upload?uploadType=media&path=/x")" = 404 ] || fail "the api takes bytes"
curl -sf -H "$auth" --data-binary @"$work/file" "$url_blocks/files/upload?uploadType=media&path=/whole" \
    -o "$work/answer" || fail "a whole upload"
[ "$(rpc get_metadata '{"path":"/whole"}' | jq .size)" = 3000000 ] || fail "it is not there"
curl -sf -H "$auth" "$url_blocks/files/download?path=/whole" | cmp - "$work/file" || fail "other bytes"
[ "$(code --data-binary x "$url_blocks/files/upload?uploadType=media&path=/whole/below")" = 409 ] ||
    fail "a refusal of the api does not come back"
echo "ok    the callback"

begin() { # PATH SIZE: sets location (a path)
    location=$(curl -sf -D - -o /dev/null -H "$auth" -d "{\"path\": \"$1\", \"size\": $2}" \
        "$url_blocks/files/upload?uploadType=resumable" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    [ -n "$location" ] || fail "no Location"
    location=/${location#*://*/}
}
part() { # URL RANGE [FILE]: sets status, range
    status=$(curl -s -X PUT -H "$auth" -H "Content-Range: bytes $2" --data-binary "@${3:-/dev/null}" \
        -D "$work/heads" -o "$work/answer" -w '%{http_code}' "$1$location")
    range=$(tr -d '\r' <"$work/heads" | sed -n 's/^[Rr]ange: //p')
}

# ---- others hear that it begins, and that it ends --------------------------------------------------
cursor=$(rpc list_folder/get_latest_cursor '{"path":"","recursive":true}' | jq -r .cursor)
poll() { curl -s -d "{\"cursor\":\"$cursor\",\"timeout\":30}" "$url_api/files/list_folder/longpoll" >"$work/poll"; }
poll &
waiting=$!
sleep 0.5
begin /large 3000000
wait "$waiting"
[ "$(cat "$work/poll")" = '{"changes":true}' ] || fail "nobody heard of the begin: $(cat "$work/poll")"
[ "$(rpc list_uploads '{"path":""}' | jq -r '.uploads[0].path')" = /large ] || fail "it is not pending"
cursor=$(rpc list_folder/continue "{\"cursor\":\"$cursor\"}" | jq -r .cursor)
echo "ok    pending"

# ---- the block server dies half-way, another takes over --------------------------------------------
head -c 1048576 "$work/file" >"$work/part"
part "$url_blocks" 0-1048575/3000000 "$work/part"
[ "$status,$range" = 308,bytes=0-1048575 ] || fail "the first part: $status $range"
stop blocks
part "$url_other" '*/3000000'
[ "$status,$range" = 308,bytes=0-1048575 ] || fail "the other knows: $status $range"

# ---- the api dies before the last part: the bytes are stored, and the file comes when it is back ---
stop api
tail -c +1048577 "$work/file" >"$work/part"
part "$url_other" 1048576-2999999/3000000 "$work/part"
[ "$status" = 503 ] || fail "without the api: $status"
serve api "$port" --roles api,notify
[ "$(rpc list_uploads '{"path":""}' | jq -r '.uploads[0].state')" = stored ] || fail "it is not stored"
poll &
waiting=$!
sleep 0.5
part "$url_other" '*/3000000'
[ "$status" = 200 ] || fail "its end: $status $(cat "$work/answer")"
wait "$waiting"
[ "$(cat "$work/poll")" = '{"changes":true}' ] || fail "nobody heard of the end"
curl -sf -H "$auth" "$url_other/files/download?path=/large" | cmp - "$work/file" || fail "other bytes"
echo "ok    taken over"

# ---- nobody asks again: the api ends it by itself ---------------------------------------------------
if [ "${PATIENT:-0}" = 1 ]; then
    begin_at=$url_other
    url_blocks=$url_other begin /left 10
    stop api
    part "$begin_at" 0-9/10 <(head -c 10 "$work/file")
    [ "$status" = 503 ] || fail "without the api: $status"
    serve api "$port" --roles api,notify
    for _ in $(seq 120); do
        [ "$(rpc get_metadata '{"path":"/left"}' | jq .size)" != 10 ] || break
        sleep 1
    done
    [ "$(rpc get_metadata '{"path":"/left"}' | jq .size)" = 10 ] || fail "it was forgotten"
    echo "ok    ended by itself"
fi

# ---- over TLS ---------------------------------------------------------------------------------------
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout "$work/key.pem" \
    -out "$work/cert.pem" -subj /CN=api -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' \
    -addext 'basicConstraints=critical,CA:FALSE' 2>/dev/null || fail "no certificate"
url_tls='' url_third=''
serve tls 0 --roles api --tls-cert "$work/cert.pem" --tls-key "$work/key.pem"
serve third 0 --roles blocks --api-url "https://localhost:${url_tls##*:}" --api-ca "$work/cert.pem"
put_tls() { code --data-binary @"$work/file" "$url_third/files/upload?uploadType=media&path=/$1"; }
[ "$(put_tls 'by%20tls')" = 200 ] || fail "an upload that is ended over TLS"
curl -sf -H "$auth" "$url_third/files/download?path=/by%20tls" | cmp - "$work/file" || fail "other bytes over TLS"
# Another one than it knows: it is told nothing.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout "$work/key.pem" \
    -out "$work/other.pem" -subj /CN=api -addext 'subjectAltName=DNS:localhost' 2>/dev/null || fail "no certificate"
stop third
serve third 0 --roles blocks --api-url "https://localhost:${url_tls##*:}" --api-ca "$work/other.pem"
[ "$(put_tls another)" = 503 ] || fail "it believes anybody"
echo "ok    over TLS"

# ---- a callback needs the mark ----------------------------------------------------------------------
[ "$(curl -s -o /dev/null -w '%{http_code}' -d '{}' "$url_api/internal/v1/uploads/stored")" = 401 ] ||
    fail "a callback without a mark"
echo "ok    roles"
