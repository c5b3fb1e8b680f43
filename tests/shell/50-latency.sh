#!/usr/bin/env bash
# A file closed on one device is readable on the other within 200 ms (median of 100).
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

two_devices
cat >"$T/latency.py" <<'PY'
import os, statistics, sys, time
a, b = sys.argv[1:3]
times = []
for i in range(100):
    data = os.urandom(2000 + 37 * i)
    with open(f"{a}/file{i}", "wb") as f:
        f.write(data)
    closed = time.monotonic()
    # Looks by name, as a program would: the kernel may have cached that it is not there.
    while True:
        try:
            with open(f"{b}/file{i}", "rb") as f:
                if f.read() == data:
                    break
        except FileNotFoundError:
            pass
        if time.monotonic() - closed > 10:
            sys.exit(f"file{i} does not arrive")
        time.sleep(0.001)
    times.append((time.monotonic() - closed) * 1000)
    time.sleep(0.02)
times.sort()
print(round(statistics.median(times)), round(times[94]), round(times[-1]))
PY
measure() {
    local text=$1 out
    shift
    if ! out=$(python3 "$T/latency.py" "$@"); then
        fail "$text: $out"
        return
    fi
    read -r median p95 worst <<<"$out"
    at_most "$text, median ms (95 %: $p95, worst: $worst)" "$median" 200
}
measure "from the first device to the second" "$T/alice" "$T/bob"
mkdir "$T/bob/sub"
wait_until 5 test -d "$T/alice/sub"
measure "from the second to the first" "$T/bob/sub" "$T/alice/sub"
# A change of a file that the other device has read and cached.
printf 1 >"$T/alice/seen" && wait_until 5 test -s "$T/bob/seen"
begin=$(now_ms)
for n in 2 3 4 5 6 7 8 9 10 11; do
    printf '%s' "$n" >"$T/alice/seen"
    until [ "$(cat "$T/bob/seen")" = "$n" ]; do
        [ $(($(now_ms) - begin)) -lt 20000 ] || die "a change of a cached file does not arrive"
        sleep 0.005
    done
done
at_most "a change of a cached file, mean ms" "$((($(now_ms) - begin) / 10))" 300

# A listing that the kernel has kept shows what is new, even in a folder whose own time stays.
mkdir "$T/alice/kept"
touch -d @1000 "$T/alice/kept"
sync_device alice
sync_device bob
for n in $(seq 1 20); do
    find "$T/bob/kept" -type f >"$T/before"
    : >"$T/alice/kept/$n"
    touch -d @1000 "$T/alice/kept"
    sync_device alice
    sync_device bob
    same "names that a kept listing shows after sync" "$(find "$T/bob/kept" -type f | wc -l)" "$n"
done
