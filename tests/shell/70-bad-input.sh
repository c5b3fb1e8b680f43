#!/usr/bin/env bash
# Wrong passwords, expired and revoked tokens, another wire version, wrong command lines.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

start_server
add_user me@example.org
export DRIVEFS_HOME=$T/fresh.home
login() { printf "%s\n" "$1" | drivefs login "$URL" --email "$2" --password-stdin; }
refused "a wrong password" 'password' login "wrong password" me@example.org
refused "an unknown account gets the same words" 'password' login "$PASSWORD" nobody@example.org
refused "no password at all" 'password' login "" me@example.org
check "nothing was stored" test ! -e "$T/fresh.home/account.json"
refused "an address where nobody listens" 'connect|reach|refused' \
    bash -c "echo $PASSWORD | drivefs login http://127.0.0.1:9 --email me@example.org --password-stdin"
refused "an address that is none" 'address|url|http' \
    bash -c "echo $PASSWORD | drivefs login 'not a url' --email me@example.org --password-stdin"
rc=0
drivefs mount --nonsense 2>/dev/null || rc=$?
same "exit code of a wrong command line" "$rc" 2
rc=0
drivefs sync 2>/dev/null || rc=$?
same "exit code of a failure" "$rc" 1
refused "sync without a mount says what to do" 'drivefs mount' drivefs sync
refused "a server beyond loopback without TLS" 'insecure' \
    drivefs-server serve --listen 0.0.0.0:0 --data "$T/elsewhere"
unset DRIVEFS_HOME

# Guessing is slowed down.
guesses=0
for n in $(seq 1 30); do
    code=$(curl -s -o "$T/out" -w '%{http_code}' -H 'x-drivefs-wire: 1' -H 'content-type: application/json' \
        -d "{\"email\":\"me@example.org\",\"password\":\"guess $n\",\"device\":\"x\"}" "$URL/auth/v1/login")
    [ "$code" = 429 ] && break
    guesses=$n
done
at_most "guesses of a password until the server wants a pause" "$guesses" 25

# ---- tokens
add_user tokens@example.org
device alice tokens@example.org
printf 'here\n' >"$T/alice/file.txt"
sync_device alice
expired=$(as alice drivefs token create short --expires 1s 2>/dev/null | tail -n 1)
new_device bob tokens@example.org
bobs=$(jq -r .token "$T/bob.home/account.json")
mount_device bob
sync_device bob
use_token() { jq --arg t "$2" '.token = $t' "$T/$1.home/account.json" >"$T/account" && cat "$T/account" >"$T/$1.home/account.json"; }
umount_device bob >/dev/null
use_token bob "$expired"
sleep 1.1
check "a known drive mounts although its token has expired" mount_device bob
printf 'not lost\n' >"$T/bob/new.txt"
tells() { status bob '.reason // empty' | grep -Eiq 'token|log in|login|unauthor'; }
check "status says that the token is no longer good" wait_until 10 tells
note "it says: $(status bob .reason)"
refused "so does sync" 'token|log in|login' sync_device bob 5
same "what was written meanwhile waits" "$(status bob '.queue | map(.path) | contains(["new.txt"])')" true
umount_device bob >/dev/null
use_token bob "$bobs"
mount_device bob
check "with a good token it goes up" sync_device bob
wait_until 5 test -e "$T/alice/new.txt" || true
same "and arrives" "$(cat "$T/alice/new.txt")" "not lost"
# A device is revoked while it is mounted.
check "a token is revoked by name" as alice drivefs token revoke bob
printf 'after\n' >"$T/bob/after.txt"
check "the revoked device is told" wait_until 15 tells
check "reading what is here goes on" test "$(cat "$T/bob/after.txt")" = after
umount_device bob >/dev/null
check "a new login brings it back" bash -c \
    "echo '$PASSWORD' | DRIVEFS_HOME='$T/bob.home' drivefs login '$URL' --email tokens@example.org --device bob --password-stdin"
mount_device bob
check "and nothing was lost" sync_device bob
wait_until 5 test -e "$T/alice/after.txt" || true
same "on the other device" "$(cat "$T/alice/after.txt")" after
new_device fresh tokens@example.org
use_token fresh dfs_nonsense
refused "a first mount with a bad token" 'token|log in|login' mount_device fresh
check "a home of one account refuses another" bash -c \
    "! echo '$PASSWORD' | DRIVEFS_HOME='$T/bob.home' drivefs login '$URL' --email me@example.org --password-stdin"

# ---- another version of the wire format
ask() { curl -s -o "$T/out" -w '%{http_code}' "$@"; }
token=$(as alice drivefs token create script 2>/dev/null | tail -n 1)
code=$(ask -H "authorization: Bearer $token" -H 'x-drivefs-wire: 99' "$URL/sync/v1/account")
at_least "an unknown wire version is refused" "$code" 400
same "by its own code" "$(jq -r .error.code "$T/out")" unsupported_wire_version
check "with a hint" test -n "$(jq -r '.error.hint // empty' "$T/out")"
code=$(ask -H "authorization: Bearer $token" "$URL/sync/v1/account")
at_least "no wire version at all is refused" "$code" 400
code=$(ask -H 'x-drivefs-wire: 1' "$URL/sync/v1/account")
same "no token" "$code" 401
code=$(ask -H "authorization: Bearer $token" -H 'x-drivefs-wire: 1' "$URL/sync/v1/account")
same "the token works from a script" "$code" 200
code=$(ask -X POST -H "authorization: Bearer $token" -H 'x-drivefs-wire: 1' \
    -H 'content-type: application/json' -d '{nonsense' "$URL/sync/v1/commit")
same "a body that is nonsense" "$code" 400
check "the server is well after all that" curl -fsS "$URL/healthz"
# A client that meets a server of another version says so.
cat >"$T/other.py" <<'PY'
import http.server, sys
class Other(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b'{"error": {"code": "unsupported_wire_version", "message": "this server speaks version 99 of the sync protocol", "hint": "upgrade the client"}}'
        self.send_response(400)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Other)
print(server.server_port, flush=True)
server.serve_forever()
PY
python3 "$T/other.py" >"$T/other.port" &
HELPERS+=($!)
wait_until 10 test -s "$T/other.port"
refused "a server of another version" 'version 99' \
    bash -c "echo x | DRIVEFS_HOME='$T/x.home' drivefs login http://127.0.0.1:$(cat "$T/other.port") --email a@b.c --password-stdin"
