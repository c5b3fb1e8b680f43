#!/usr/bin/env bash
# TLS: a device logs in and works over it, a renewed certificate is taken up, bad files are refused.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# pair NAME: a certificate for localhost and its key.
pair() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
        -keyout "$T/$1.key" -out "$T/$1.pem" -subj "/CN=$1" \
        -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -addext 'basicConstraints=critical,CA:FALSE' 2>/dev/null
}
served() { openssl s_client -connect "127.0.0.1:$PORT" </dev/null 2>/dev/null | openssl x509 -noout -subject; }
serves() { served | grep -q "$1"; }

pair one
pair two
cat "$T/one.pem" "$T/two.pem" >"$T/trusted.pem"
export SSL_CERT_FILE=$T/trusted.pem
cp "$T/one.pem" "$T/cert.pem"
cp "$T/one.key" "$T/key.pem"
start_server --tls-cert "$T/cert.pem" --tls-key "$T/key.pem"
case $URL in https://*) ok "it says https" ;; *) fail "it says $URL" ;; esac
add_user me@example.org
device alice
A=$T/alice
printf 'over TLS' >"$A/file"
check "a device works over TLS" sync_device alice
check "plain HTTP is not answered" bash -c "! curl -sf http://127.0.0.1:$PORT/healthz"
check "HTTP/2 and 1.1 are" bash -c "curl -skf --http2 https://localhost:$PORT/healthz &&
    curl -skf --http1.1 https://localhost:$PORT/healthz"

# A renewal, half of it first.
cp "$T/two.pem" "$T/cert.pem"
sleep 3
check "half a renewal leaves the old one" serves one
check "the log says why" grep -q 'old TLS certificate stays' "$T/server.log"
cp "$T/two.key" "$T/key.pem"
check "a renewed certificate is taken up" wait_until 20 serves two
printf 'after the renewal' >"$A/file"
check "the device goes on" sync_device alice
device bob
check "and a new one comes in" cmp "$A/file" "$T/bob/file"

offline
refused "a key that is not the certificate's" 'not the key of the certificate' \
    drivefs-server serve --listen 127.0.0.1:0 --data "$SERVER_DATA" --tls-cert "$T/one.pem" --tls-key "$T/two.key"
refused "a file that is no PEM" 'no certificate' \
    drivefs-server serve --listen 127.0.0.1:0 --data "$SERVER_DATA" --tls-cert "$T/server.log" --tls-key "$T/two.key"
rc=0
drivefs-server serve --data "$SERVER_DATA" --tls-cert "$T/one.pem" 2>/dev/null || rc=$?
same "a certificate without its key is a wrong command line" "$rc" 2
online
check "it comes back" sync_device alice
