#!/usr/bin/env bash
# Asks every route of the OpenAPI document for what it promises and for what it does not, with cases that
# schemathesis makes up: with a valid token, with an invalid one, without any. No answer may be a 5xx, or
# another than the document says.
#
#   tests/api/schema.sh                     some 12,000 cases, most of them at the edges of what is allowed
#   EXAMPLES=40 tests/api/schema.sh         more at random: so many for each route and token
#   SEED=7 tests/api/schema.sh              others
set -u
# shellcheck source=tests/api/lib.sh
. "$(dirname "$0")/lib.sh"
examples=${EXAMPLES:-2}
seed=${SEED:-1}
python=$(python_with schemathesis==4.32.5) || exit 1
tool=$(dirname "$python")/schemathesis
checks=not_a_server_error,status_code_conformance,content_type_conformance
checks+=,response_headers_conformance,response_schema_conformance

start_server
add_account script@example.org
token=$(token_of script@example.org)
[ -n "$token" ] || fail "no token"
call() { curl -sf -H "Authorization: Bearer $token" "$@" || fail "cannot prepare: $*"; }
rpc() { call -H 'Content-Type: application/json' -d "$2" "$url/files/$1"; }
# Something to be found: a file with two versions, one that is deleted.
rev=$(call --data-binary one "$url/files/upload?uploadType=media&path=/a/b.txt" | jq -r .rev)
file=$(call --data-binary two "$url/files/upload?uploadType=media&path=/a/b.txt" | jq -r .id)
call --data-binary gone "$url/files/upload?uploadType=media&path=/gone.txt" >/dev/null
rpc delete_v2 '{"path":"/gone.txt"}' >/dev/null
folder=$(rpc get_metadata '{"path":"/a"}' | jq -r .id)
cursor=$(rpc list_folder '{"path":""}' | jq -r .cursor)
# `id:` and then namespace and node, as the sync protocol writes them.
node_of() { sed -E 's/^id:.{16}(.{8})(.{4})(.{4})(.{4})(.{12})$/\1-\2-\3-\4-\5/' <<<"$1"; }
SCHEMA_KNOWN=$(jq -n --arg rev "$rev" --arg cursor "$cursor" --arg file "$(node_of "$file")" \
    --arg folder "$(node_of "$folder")" --arg ns "$(cut -c 4-19 <<<"$file")" '{
        path: ["", "/a", "/a/b.txt", "/gone.txt"], from_path: ["/a/b.txt", "/a"], rev: [$rev], cursor: [$cursor, 0, 1],
        ns: [$ns], node: [$file, $folder], parent: [$folder], folder: [$folder], version: [1, 2], uploadType: ["media"]}')
export SCHEMA_KNOWN SCHEMA_SEED=$seed
curl -sf "$url/openapi.json" >"$work/openapi.json" || fail "no document"

cases=0
# asked NAME TOKEN [OPTION...]: one run with that token.
asked() {
    local name=$1 header=() n
    [ -z "$2" ] || header=(-H "Authorization: Bearer $2")
    shift 2
    # It keeps notes in the folder that it runs in.
    (cd "$work" && SCHEMATHESIS_HOOKS=$here/schema_hooks.py "$tool" run "$work/openapi.json" --url "$url" ${header[@]+"${header[@]}"} \
        --max-examples "$examples" --seed "$seed" --phases examples,coverage,fuzzing --continue-on-failure \
        --request-timeout 60 --suppress-health-check all --checks "$checks" --warnings off --no-color \
        "$@") >"$work/$name.out" 2>&1 || {
        tail -n 200 "$work/$name.out" >&2
        fail "$name: schemathesis found something"
    }
    n=$(sed -n 's/^ *\([0-9,]*\) generated.*/\1/p' "$work/$name.out" | tr -d ,)
    [ -n "$n" ] || fail "$name: no case ran"
    echo "ok    $name: $n cases"
    cases=$((cases + n))
}
# A token that logs out is none any more, so that route has a run of its own; as have those that hold.
asked valid "$token" --exclude-path /auth/v1/logout --exclude-path-regex longpoll
asked held "$token" --include-path-regex longpoll --max-examples 3 --workers 2
asked logout "$(token_of script@example.org)" --include-path /auth/v1/logout
asked invalid dfs_0000000000000000000000000000000000000000000
asked none ''
curl -sf "$url/readyz" >/dev/null || fail "the server is not ready any more"
# Was anything let in? So many of the answers were no refusal, of so many routes.
curl -sf "$url/metrics" | sed -n 's/^drivefs_requests_total{route="\([^"]*\)",status="[23].*} \([0-9]*\)$/\1 \2/p' |
    awk '{ n += $2; routes[$1] = 1 } END { for (r in routes) k++; print n, k }' >"$work/let-in"
read -r answers routes <"$work/let-in"
echo "let in: $answers requests, on $routes routes"
[ "$routes" -ge 40 ] || fail "most routes refused all that they were asked"
[ "$cases" -ge 10000 ] || fail "only $cases cases"
echo "$cases cases, seed $seed"
