#!/usr/bin/env bash
# Runs all tests of drivefs: format, lints, licences, unit and story tests, then the shell tests on
# real mounts, both with programs built as for a release but with assertions. Installs what it needs.
# Under 40 minutes on two cores, from nothing. The last line is `N passed, N failed`.
#
#   tests/run.sh                everything
#   SKIP="deny shell" tests/run.sh     without these steps (fmt clippy scripts vendored deny cargo fuzz api shell)
set -u
cd "$(dirname "$0")/.." || exit 1
export CARGO_TERM_COLOR=never
begin=$SECONDS
passed=0
failed=0
wrong=()

# ---- what is needed ----------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# package for each program that is missing
declare -A package=(
    [fusermount3]=fuse3 [cc]=gcc [c++]=g++ [getfattr]=attr [sqlite3]=sqlite3 [rsync]=rsync [git]=git
    [shellcheck]=shellcheck [curl]=curl [python3]=python3 [jq]=jq [setpriv]=util-linux
    [useradd]=passwd [xxd]=xxd [mkfifo]=coreutils [find]=findutils [openssl]=openssl [cmp]=diffutils [ps]=procps
    [vim.tiny]=vim-tiny [tar]=tar [dbus-daemon]=dbus-daemon [dbus-monitor]=dbus-bin
    [setfacl]=acl [strace]=strace [stress-ng]=stress-ng [inotifywait]=inotify-tools [faketime]=faketime
)
missing=()
for program in "${!package[@]}"; do
    command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
if ! printf '#include <stdio.h>\nint main(void) { return 0; }\n' | cc -x c -o /dev/null - 2>/dev/null; then
    missing+=(gcc libc6-dev)
fi
# For clients of others, from the package index of Python.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
# Its programs are not in the PATH.
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
# Starts nothing, and leaves no database behind: the package makes a cluster of its own at once.
install_packages() {
    local policy=/usr/sbin/policy-rc.d made='' before rc=0
    before=$(ls -d /etc/postgresql/*/* 2>/dev/null)
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        made=1
    fi
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null || rc=$?
    [ -z "$made" ] || as_root rm -f "$policy"
    local cluster version
    for cluster in /etc/postgresql/*/*; do
        [ -d "$cluster" ] || continue
        [[ $before != *"$cluster"* ]] || continue
        version=${cluster#/etc/postgresql/}
        as_root pg_dropcluster --stop "${version%%/*}" "${cluster##*/}"
    done
    return "$rc"
}
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]}"
    if ! command -v apt-get >/dev/null; then
        echo "this script installs with apt-get alone; please install them and run it again" >&2
        exit 1
    fi
    install_packages "${missing[@]}" || exit 1
fi
command -v cargo >/dev/null || PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust 1.95 or later (https://rustup.rs), then run this again" >&2
    exit 1
fi
[ -e /dev/fuse ] || as_root modprobe fuse || true

# test_tools: programs that test file systems, pinned, in target/tools (where the shell tests look).
test_tools() {
    local tool root
    root=$(cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)/tools
    for tool in pjdfstest@0.2.2 fsx@0.3.2; do
        grep -qsF "\"${tool/@/ } " "$root/.crates2.json" && continue
        cargo install --quiet --locked --root "$root" --target-dir "$root/build" "$tool" || return 1
    done
    rm -rf "$root/build"
}

# ---- steps -------------------------------------------------------------------------------------

# step NAME CMD...: one step that passes or fails as a whole.
step() {
    local name=$1 from=$SECONDS
    shift
    [[ " ${SKIP:-} " != *" $name "* ]] || return 0
    echo "---- $name"
    if "$@"; then
        passed=$((passed + 1))
        echo "ok    $name ($((SECONDS - from)) s)"
    else
        failed=$((failed + 1))
        wrong+=("$name")
        echo "FAIL  $name ($((SECONDS - from)) s)"
    fi
}

scripts() {
    shellcheck -x tests/run.sh fuzz/run.sh vendor/check.sh .ci/run mount-scripts/quickstart.sh mount-scripts/mount.drivefs &&
        (cd tests/bench && shellcheck -x -a run.sh && shellcheck -x visibility.sh catchup.sh load.sh) &&
        (cd tests/api && shellcheck -x -P ../.. -- *.sh) &&
        (cd tests/soak && shellcheck -x -- *.sh) &&
        (cd tests/shell && shellcheck -x -- *.sh)
}

deny() {
    if ! command -v cargo-deny >/dev/null; then
        cargo install --quiet --locked cargo-deny || return 1
    fi
    # Advisories come from the network, apart from crates: without them the rest is checked.
    local what="bans licenses sources"
    if timeout 120 cargo deny fetch db >/dev/null 2>&1; then
        what="advisories $what"
    else
        echo "the database of advisories cannot be fetched: advisories are not checked"
    fi
    # shellcheck disable=SC2086
    cargo deny --log-level error check $what
}

# Adds up what `cargo test` or the shell runner said; $1 is their exit code.
count() {
    local rc=$1 name=$2 log=$3 p=$4 f=$5
    passed=$((passed + p))
    failed=$((failed + f))
    if [ "$rc" != 0 ]; then
        wrong+=("$name")
        # It failed without a failed test: it did not build, or ended early.
        [ "$f" != 0 ] || failed=$((failed + 1))
        echo "FAIL  $name"
    fi
    rm -f "$log"
}

cargo_tests() {
    local log rc p f
    [[ " ${SKIP:-} " != *" cargo "* ]] || return 0
    echo "---- cargo test"
    log=$(mktemp)
    cargo test --workspace --locked --profile checked --no-fail-fast 2>&1 | tee "$log" | grep -v '^test .* ok$'
    rc=${PIPESTATUS[0]}
    p=$(sed -n 's/^test result: .* \([0-9]*\) passed;.*/\1/p' "$log" | paste -sd+ | sed 's/^$/0/')
    f=$(sed -n 's/^test result: .*; \([0-9]*\) failed;.*/\1/p' "$log" | paste -sd+ | sed 's/^$/0/')
    count "$rc" "cargo test" "$log" "$((p))" "$((f))"
}

shell_tests() {
    local log rc p f target
    [[ " ${SKIP:-} " != *" shell "* ]] || return 0
    target=$(cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)
    echo "---- shell tests on real mounts"
    log=$(mktemp)
    DRIVEFS_BIN=$target/checked DRIVEFS_TOOLS=$target/tools tests/shell/run.sh 2>&1 | tee "$log"
    rc=${PIPESTATUS[0]}
    p=$(sed -n 's/^\([0-9]*\) passed, [0-9]* failed$/\1/p' "$log" | tail -n 1)
    f=$(sed -n 's/^[0-9]* passed, \([0-9]*\) failed$/\1/p' "$log" | tail -n 1)
    count "$rc" "shell tests" "$log" "${p:-0}" "${f:-0}"
}

step fmt cargo fmt --all --check
step scripts scripts
step clippy cargo clippy --workspace --all-targets --profile checked --locked --quiet -- -D warnings
step vendored vendor/check.sh
step deny deny
cargo_tests
[[ " ${SKIP:-} " == *" shell "* ]] || step tools test_tools
step build cargo build --profile checked --workspace --bins --locked --quiet
# A slice: five minutes each are `fuzz/run.sh`.
step fuzz fuzz/run.sh 5
# Clients of others, from the package index: the file API as they use it.
step api tests/api/run.sh
shell_tests

echo
[ ${#wrong[@]} = 0 ] || echo "failed: ${wrong[*]}"
echo "all tests took $((SECONDS - begin)) s"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ ${#wrong[@]} = 0 ]
