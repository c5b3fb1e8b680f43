#!/usr/bin/env bash
# The official Dropbox SDK for Python, from the package index, works with the file API.
# It speaks TLS alone, so a small proxy ends TLS before the server.
set -u
# shellcheck source=tests/api/lib.sh
. "$(dirname "$0")/lib.sh"

python=$(python_with dropbox) || exit 1
start_server
add_account alice@example.com
token=$(token_of alice@example.com)
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null ||
    fail "no certificate"
mkfifo "$work/tls.port"
python3 "$here/tls.py" "$work/cert.pem" "$work/key.pem" 0 "$port" >"$work/tls.port" &
extra_pids+=($!)
read -r tls_port <"$work/tls.port"
export DROPBOX_API_HOST=localhost:$tls_port
export DROPBOX_API_CONTENT_HOST=localhost:$tls_port
# Where it is set, this comes before what the SDK is told.
export REQUESTS_CA_BUNDLE=$work/cert.pem
export DROPBOX_API_NOTIFY_HOST=localhost:$tls_port
"$python" "$here/dropbox_sdk.py" "$token" "$work/cert.pem" || fail "the SDK's calls"
echo "ok    dropbox"
