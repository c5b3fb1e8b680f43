#!/usr/bin/env bash
# How much does the server take? Uploads and small commits by many accounts, and very many long polls that wait;
# server and wrk (the load) on this machine. Prints a table for each.
#
#   tests/bench/load.sh [WORK...]      uploads commits polls [all]
#
#   CONNECTIONS="1 8 32"    connections that upload at once, in turns
#   SECONDS_EACH=20         how long each turn is
#   SIZE=500000             bytes of an upload; SMALL=1000 of a small file
#   USERS=64                accounts that upload; POLL_USERS=1000 accounts that wait
#   POLLS=100000            long polls that are held, spread over as many processes as ports and the limit of open files need
#   WAKES=20                commits while they are held
#   DRIVEFS_BIN=            folder of the programs [target/release]
#   TMPDIR=                 where everything lies: the disk that is measured [/tmp]; some 15 GiB
#
# On a quiet machine only. Exit code 0 when all was measured. docs/BENCHMARKS.md explains the works.
# shellcheck source=../shell/lib.sh
. "$(dirname "$0")/../shell/lib.sh"
SUPERSEDED=1
BENCH_DIR=$HERE/../bench
# shellcheck source=load_parts.sh
. "$BENCH_DIR/load_parts.sh"
CONNECTIONS=${CONNECTIONS:-1 8 32}
SECONDS_EACH=${SECONDS_EACH:-20}
SIZE=${SIZE:-500000}
SMALL=${SMALL:-1000}
USERS=${USERS:-64}
POLL_USERS=${POLL_USERS:-1000}
POLLS=${POLLS:-100000}
WAKES=${WAKES:-20}
ALL_WORKS="uploads commits polls"
# Open files that a process of the server keeps from connections, and then some.
FILES_RESERVED=1000
# Most connections from one client to one address: it has 28,000 ports, and once half of those are taken the kernel
# searches so long for the next that the first ones are given up meanwhile.
PORTS_USED=12500
# So long the bench waits until all polls are held (seconds).
HELD_WITHIN=300

works=("$@")
[ $# -gt 0 ] || read -r -a works <<<"$ALL_WORKS"
for work in "${works[@]}"; do
    [[ " $ALL_WORKS " == *" $work "* ]] || { echo "no work is called $work; there are: $ALL_WORKS" >&2; exit 2; }
done

# ---- uploads and commits -------------------------------------------------------------------------

# turn CONNECTIONS SIZE: one row: wrk uploads files of SIZE bytes for a while.
turn() {
    local connections=$1 size=$2 threads=$(($1 > 1 ? 2 : 1)) before after client load
    before=$(state_of "$SERVER_PID")
    client=$({ TIMEFORMAT='%U %S'; time wrk -t "$threads" -c "$connections" -d "${SECONDS_EACH}s" --timeout 60s \
        -s "$BENCH_DIR/upload.lua" "$URL" -- "$T/accounts" "$size" >"$T/wrk.out"; } 2>&1) || die "wrk failed: $client"
    after=$(state_of "$SERVER_PID")
    load=$(sed -n 's/^load //p' "$T/wrk.out")
    [ -n "$load" ] || die "wrk told no result: $(tail -3 "$T/wrk.out")"
    echo "$connections $size $load $client $before $after" | awk '{
        n = $3 ? $3 : 1
        printf "%11d %10.1f %8.1f %9.1f %9.1f %12.2f %12.2f %12.2f %11.0f %7d\n", $1, $3 / $4, $3 * $2 / $4 / 1e6, $5, $6,
            ($15 - $11) * 10 / n, ($16 - $12) * 10 / n, ($9 + $10) * 1000 / n, ($17 - $13) / n / 1000, $7 + $8
    }'
}

# head_of WHAT: the head of the rows of `turn`.
head_of() {
    printf '\n%s\n%11s %10s %8s %9s %9s %12s %12s %12s %11s %7s\n' "$1" connections "files/s" "MB/s" "p50 ms" "p99 ms" \
        "server user" "server sys" "client" "kB written" failed
}

uploads() {
    local connections stored bytes in
    fresh_server "$USERS"
    head_of "uploads of $SIZE bytes (wrk, closed loop, $USERS accounts); CPU in ms an upload"
    for connections in $CONNECTIONS; do turn "$connections" "$SIZE"; done
    in=$(python3 "$BENCH_DIR/load.py" gauge drivefs_block_bytes_in_total "$URL")
    stored=$(python3 "$BENCH_DIR/load.py" gauge drivefs_blocks_stored_total "$URL")
    bytes=$(find "$SERVER_DATA/blocks" -type f -printf '%s\n' | awk '{ n += $1 } END { printf "%.0f", n }')
    echo "the server took $((in / 1000000)) MB in and stored $stored blocks; its packs have $((bytes / 1000000)) MB"
    disk_alone
    offline
}

commits() {
    local connections jobs groups
    fresh_server "$USERS"
    head_of "commits: files of $SMALL bytes (wrk, closed loop, $USERS accounts); CPU in ms a file"
    for connections in $CONNECTIONS; do turn "$connections" "$SMALL"; done
    jobs=$(python3 "$BENCH_DIR/load.py" gauge drivefs_group_commit_jobs_sum "$URL")
    groups=$(python3 "$BENCH_DIR/load.py" gauge drivefs_group_commit_jobs_count "$URL")
    echo "$jobs writes to the database in $groups transactions"
    small_syncs_alone
    offline
}

# ---- polls ---------------------------------------------------------------------------------------

# serve_polls I: process I of those that hold polls, at the address that it had before.
serve_polls() {
    local i=$1
    : >"$T/notify$i.out"
    DRIVEFS_MASTER_KEY=$(paste -sd, "$SERVER_DATA/master.key") drivefs-server serve --roles notify --data "$T/notify$i" \
        --metadata "$SERVER_DATA/metadata.db" --blocks "$SERVER_DATA/blocks" --listen "127.0.0.1:${ports[i]:-0}" \
        --scrub-rate 0 >"$T/notify$i.out" 2>>"$T/server.log" &
    pids[i]=$!
    HELPERS+=("${pids[i]}")
}

await_polls() {
    wait_until 60 grep -q '^listening on' "$T/notify$1.out" || die "process $1 does not start"
    urls[$1]=$(sed -n 's/^listening on //p' "$T/notify$1.out")
    ports[$1]=${urls[$1]##*:}
}

# wait_held WHAT SINCE: prints how long it took from SINCE (ms) until all are held, but for those few that are
# between two polls.
wait_held() {
    local held least=$((POLLS - POLLS / 1000))
    held=$(python3 "$BENCH_DIR/load.py" await drivefs_polls_held "$least" "$HELD_WITHIN" "${urls[@]}")
    [ "$held" -ge "$least" ] || die "only $held of $POLLS polls are held: $(tail -n 1 "$T"/wrk*.out)"
    printf '%-58s %10.1f s\n' "$1" "$(($(now_ms) - $2))e-3"
}

cpu_of_all() {
    local pid
    for pid in "${pids[@]}"; do state_of "$pid"; done | awk '{ n += $1 + $2 } END { print n }'
}

# cpu_for TEXT SECONDS_BEGUN TICKS_BEFORE
cpu_since() {
    awk -v text="$1" -v from="$2" -v to="$(now_ms)" -v before="$3" -v after="$(cpu_of_all)" 'BEGIN {
        printf "%-58s %10.1f %% of a core\n", text, (after - before) * 1000 / (to - from)
    }'
}

rss_of_all() {
    local pid
    for pid in "${pids[@]}"; do awk '$1 == "VmRSS:" { print $2 }' "/proc/$pid/status"; done | awk '{ n += $1 } END { print n }'
}

polls() {
    local most n i begin before rss slab tcp pid
    local -a pids=() ports=() urls=() loads=()
    most=$(ulimit -Hn)
    ulimit -n "$most"
    [ "$most" != unlimited ] || most=1000000
    most=$((most - FILES_RESERVED > PORTS_USED ? PORTS_USED : most - FILES_RESERVED))
    [ "$most" -gt 0 ] || die "the limit of open files is too low"
    n=$(((POLLS + most - 1) / most))
    fresh_server "$((POLL_USERS + 1))"
    tail -n 1 "$T/accounts" >"$T/waker"
    head -n "$POLL_USERS" "$T/accounts" >"$T/waiters"
    for i in $(seq 0 $((n - 1))); do serve_polls "$i"; done
    for i in $(seq 0 $((n - 1))); do await_polls "$i"; done
    sleep 2
    printf '\n%s\n' "$POLLS long polls of $POLL_USERS accounts, held by $n processes (wrk)"
    rss=$(rss_of_all) slab=$(kernel_kib Slab) tcp=$(tcp_kib)
    begin=$(now_ms)
    for i in $(seq 0 $((n - 1))); do
        wrk -t 1 -c "$((POLLS / n + (i < POLLS % n)))" -d 7200s --timeout 600s -s "$BENCH_DIR/poll.lua" "${urls[i]}" -- \
            "$T/waiters" "$((i * 1009 % POLL_USERS))" >"$T/wrk$i.out" 2>&1 &
        loads[i]=$!
        HELPERS=("${loads[i]}" "${HELPERS[@]}")
    done
    wait_held "all are held, from nothing" "$begin"
    sleep 10
    awk -v n="$POLLS" -v rss="$(($(rss_of_all) - rss))" -v slab="$(($(kernel_kib Slab) - slab))" -v tcp="$(($(tcp_kib) - tcp))" 'BEGIN {
        printf "%-58s %10.1f KiB\n", "memory of the server (VmRSS), a connection", rss / n
        printf "%-58s %10.1f KiB\n", "of the kernel (slab), both ends of a connection", slab / n
        printf "%-58s %10.1f KiB\n", "of the kernel (TCP buffers), both ends", tcp / n
    }'
    begin=$(now_ms) before=$(cpu_of_all)
    sleep 30
    cpu_since "all processes together, nobody commits" "$begin" "$before"
    begin=$(now_ms) before=$(cpu_of_all)
    python3 "$BENCH_DIR/load.py" wake "$URL" "${urls[0]}" "$(cat "$T/waker")" "$WAKES" >"$T/wakes"
    cpu_since "the same, one commit a second" "$begin" "$before"
    sort -n "$T/wakes" | awk '{ ms[NR] = $1 } END {
        printf "%-58s %10.1f ms, worst %.1f ms\n", "from a commit to the answer of its poll, median", ms[int((NR + 1) / 2)], ms[NR]
    }'
    begin=$(now_ms)
    restart 0
    wait_held "all are held again: one process killed and started" "$begin"
    begin=$(now_ms)
    restart "${!pids[@]}"
    wait_held "all are held again: all processes killed and started" "$begin"
    for pid in "${loads[@]}"; do kill -INT "$pid"; done
    for pid in "${loads[@]}"; do wait "$pid" || die "wrk failed"; done
    sed -n 's/^load //p' "$T"/wrk*.out | awk '{ n += $1; bad += $2; lost += $3 } END {
        printf "%d polls were answered, %d with an error; %d times a connection was lost or refused (the restarts)\n", n, bad, lost
    }'
    # What went wrong in the processes, if anything did: with the count of each.
    sed -n 's/^[^ ]* *\(WARN\|ERROR\) .*}: /\1 /p' "$T/server.log" | sed 's/ ms=[0-9]*//' | sort | uniq -c | sort -rn | head -5
    for pid in "${pids[@]}"; do kill "$pid"; done
    for pid in "${pids[@]}"; do wait "$pid" || die "the end of a process was not clean"; done
    HELPERS=()
    offline
}

# restart I...: kills these processes and starts them again.
restart() {
    local i
    {
        for i in "$@"; do kill -KILL "${pids[i]}"; done
        for i in "$@"; do wait "${pids[i]}" || true; done
    } 2>/dev/null
    for i in "$@"; do
        forget_helper "${pids[i]}"
        serve_polls "$i"
    done
    for i in "$@"; do await_polls "$i"; done
}

install_wrk
echo "$(date -u +%Y-%m-%d), $(nproc) cores, Linux $(uname -r), $(drivefs-server --version), load now $(cut -d' ' -f1 /proc/loadavg)"
for work in "${works[@]}"; do "$work"; done
