#!/usr/bin/env bash
# Runs the shell tests, or those whose name contains one of the given words.
#
#   tests/shell/run.sh [WORD...]
#
# The programs under test lie in $DRIVEFS_BIN [default: target/release]. KEEP=1 keeps the files of
# each test. The last line is `N passed, N failed`, counted in checks.
set -u
cd "$(dirname "$0")" || exit 1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
names=()
for file in [0-9]*.sh; do
    [ $# = 0 ] && names+=("$file")
    for word in "$@"; do
        if [[ $file == *"$word"* ]]; then
            names+=("$file")
            break
        fi
    done
done
[ ${#names[@]} -gt 0 ] || { echo "no test is called like that" >&2; exit 2; }
failed_tests=()
begin=$SECONDS
for file in "${names[@]}"; do
    # A test that hangs is a failed test.
    timeout --kill-after=30 "${TEST_TIMEOUT:-600}" bash "./$file" 2>&1 | tee -a "$log"
    rc=${PIPESTATUS[0]}
    if [ "$rc" != 0 ]; then
        failed_tests+=("$file")
        [ "$rc" -lt 124 ] || echo "FAIL  ${file%.sh}: ended by exit code $rc (124: too slow)" | tee -a "$log"
    fi
done
passed=$(grep -c '^ok    ' "$log")
failed=$(grep -c '^FAIL  ' "$log")
echo
[ ${#failed_tests[@]} = 0 ] || echo "failed: ${failed_tests[*]}"
echo "shell tests took $((SECONDS - begin)) s"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ ${#failed_tests[@]} = 0 ]
