#!/usr/bin/env bash
# Asks every route of the OpenAPI document for what it promises and for what it does not, with cases that schemathesis makes up: with
# a valid token, with an invalid one, and without any. No answer may be a 5xx or another than the document says.
#
#   tests/api/schema.sh                         a slice, a minute or two
#   EXAMPLES=400 tests/api/schema.sh            10,000 cases and more
#   SEED=7 tests/api/schema.sh                  other cases
set -u
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
examples=${EXAMPLES:-10}
seed=${SEED:-1}
python=$(python_with schemathesis==4.32.5) || exit 1
tool=$(dirname "$python")/schemathesis


start_server
add_account script@example.org
token=$(token_of script@example.org)
[ -n "$token" ] || fail "no token"
as_script=(-H "Authorization: Bearer $token")
# Something to be found: a file with two versions, one that is deleted, folders.
for content in one two; do
    curl -sf "${as_script[@]}" --data-binary "$content" "$url/files/upload?uploadType=media&path=/a/b.txt" >/dev/null || fail "upload"
done
curl -sf "${as_script[@]}" --data-binary gone "$url/files/upload?uploadType=media&path=/gone.txt" >/dev/null || fail "upload"
curl -sf "${as_script[@]}" -H 'Content-Type: application/json' -d '{"path":"/gone.txt"}' "$url/files/delete_v2" >/dev/null || fail "delete"
curl -sf "$url/openapi.json" >"$work/openapi.json" || fail "no document"

cases=0
# asked NAME TOKEN [OPTION...]: one run with that token.
asked() {
    local name=$1 as=$2 n
    local header=()
    shift 2
    [ -z "$as" ] || header=(-H "Authorization: Bearer $as")
    # What a run finds is told in full; its own report counts the cases.
    SCHEMATHESIS_HOOKS=$here/schema_hooks.py "$tool" run "$work/openapi.json" --url "$url" "${header[@]}" --max-examples "$examples" --seed "$seed" \
        --phases examples,coverage,fuzzing --continue-on-failure --request-timeout 60 --suppress-health-check all \
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance \
        --warnings off --no-color --report ndjson --report-ndjson-path "$work/$name.ndjson" "$@" >"$work/$name.out" 2>&1 || {
        tail -n 200 "$work/$name.out" >&2
        cp "$work/$name.out" /tmp/st/; fail "$name: schemathesis found something"
    }
    n=$(sed -n 's/^ *\([0-9,]*\) generated.*/\1/p' "$work/$name.out" | tr -d ,)
    echo "ok    $name: ${n:?} cases"
    cases=$((cases + n))
}
# A token that logs out is none any more, so that route has a run of its own; as have those that hold.
asked valid "$token" --exclude-path /auth/v1/logout --exclude-path-regex longpoll
asked held "$token" --include-path-regex longpoll --max-examples 3 --workers 2
asked logout "$(token_of script@example.org)" --include-path /auth/v1/logout
asked invalid dfs_0000000000000000000000000000000000000000000
asked none ''
curl -sf "$url/readyz" >/dev/null || fail "the server is not ready any more"
echo "$cases cases, seed $seed"
