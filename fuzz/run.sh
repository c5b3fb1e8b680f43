#!/usr/bin/env bash
# Fuzzes the parsers of drivefs, each for so many seconds; the last line is `N passed, N failed`.
#
#   fuzz/run.sh [SECONDS [TARGET...]]        [default: 300, all]
#
# Needs the stable toolchain and a C++ compiler. What cargo-fuzz does, without its sanitizer: the targets are
# plain safe Rust. `cargo +nightly fuzz run TARGET` works in this folder, too. What is found lies in
# fuzz/artifacts/TARGET; what is new in the corpus, in target/fuzz/corpus/TARGET.
set -u
cd "$(dirname "$0")" || exit 1
seconds=${1:-300}
[ $# = 0 ] || shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    for file in fuzz_targets/*.rs; do
        file=${file##*/}
        targets+=("${file%.rs}")
    done
fi
work=${FUZZ_TARGET_DIR:-$PWD/../target/fuzz}
export CARGO_TARGET_DIR=$work/build
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target, so that the flags are not for build scripts.
cargo build --quiet --release --locked --target "$host" || exit 1
passed=0
failed=0
for target in "${targets[@]}"; do
    mkdir -p "$work/corpus/$target" "artifacts/$target" "corpus/$target"
    log=$work/$target.log
    "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
        -artifact_prefix="artifacts/$target/" -print_final_stats=1 \
        "$work/corpus/$target" "corpus/$target" >"$log" 2>&1
    rc=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ "$rc" = 0 ]; then
        echo "ok    fuzz $target: ${runs:-?} inputs in $seconds s"
        passed=$((passed + 1))
    else
        echo "FAIL  fuzz $target: exit code $rc; see $log and fuzz/artifacts/$target"
        tail -n 20 "$log"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
