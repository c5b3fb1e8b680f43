#!/usr/bin/env bash
# Two devices work on one drive while both daemons and the server are killed (kill -9) again and again.
# At the end both show the same tree, all that was acknowledged is there, no conflict came twice.
# The shell test 35-kills.sh runs ten of them.
#
#   tests/soak/kills.sh          200 kills, some ten minutes
#   KILLS=10 SEED=7 tests/soak/kills.sh
#
# DRIVEFS_BIN: folder of the programs [target/release]. KEEP=1 keeps all files.
# shellcheck source=../shell/lib.sh
. "$(dirname "$0")/../shell/lib.sh"

KILLS=${KILLS:-200}
SEED=${SEED:-$RANDOM}
WORKER=$HERE/../soak/worker.py
RANDOM=$SEED
note "$KILLS kills, SEED=$SEED"

two_devices
mkdir "$T/alice/own-alice" "$T/alice/own-bob" "$T/alice/shared" "$T/alice/both"
sync_device alice
sync_device bob

workers=()
for name in alice bob; do
    python3 "$WORKER" work "$T/$name" "$name" "$SEED$name" "$T/stop" "$T/$name.json" >"$T/$name.out" 2>&1 &
    workers+=($!)
    HELPERS+=($!)
done

# Somebody watches, so that the daemons' helpers take part. A watcher ends with the mount it is on.
watch() {
    until [ -e "$T/stop" ]; do
        inotifywait -m -r -q "$T/$1" >"$T/$1.watched" 2>/dev/null &
        echo $! >"$T/$1.watcher"
        wait $! || true
        sleep 0.1
    done
}
for name in alice bob; do
    watch "$name" 2>/dev/null &
    HELPERS+=($!)
done

# A daemon that is killed ends by itself (78-outlive.sh). One that stays is freed here all the same, so
# that the rest is tested.
stuck=0
kill_daemon() {
    local pid
    pid=$(client_pid "$1")
    kill -KILL "$pid"
    wait_until 10 client_is_gone "$1" && return
    stuck=$((stuck + 1))
    note "kill $n: the daemon of $1 stays until its connection is aborted"
    # It says "busy" and aborts all the same.
    umount -f "$T/$1" || true
    wait_until 10 client_is_gone "$1" || die "the daemon of $1 does not die"
}

declare -A count=([alice]=0 [bob]=0 [server]=0)
for n in $(seq "$KILLS"); do
    # From "in the middle of the start" to "after a while of work".
    sleep "$(printf '%d.%03d' $((RANDOM % 2)) $((RANDOM % 1000)))"
    case $((RANDOM % 5)) in
        0 | 1) victim=alice ;;
        2 | 3) victim=bob ;;
        *) victim=server ;;
    esac
    count[$victim]=$((count[$victim] + 1))
    if [ "$victim" = server ]; then
        kill_server
        sleep "0.$((RANDOM % 9))"
        online
    else
        kill_daemon "$victim"
        mount_device "$victim" >"$T/mount.out" 2>&1 || die "kill $n: $victim does not mount again: $(cat "$T/mount.out")"
    fi
    [ $((n % 20)) != 0 ] || note "$n kills"
done
note "killed alice ${count[alice]}, bob ${count[bob]}, the server ${count[server]} times"
touch "$T/stop"
kill "$(cat "$T/alice.watcher")" "$(cat "$T/bob.watcher")" 2>/dev/null || true
same "no daemon outlived its kill" "$stuck" 0
i=0
for name in alice bob; do
    check "$name kept what it acknowledged, right after each kill" wait "${workers[i]}"
    note "$(head -1 "$T/$name.out")"
    tail -n +2 "$T/$name.out"
    i=$((i + 1))
done

# Each may have something for the other until both have nothing more to say.
for round in 1 2; do
    check "alice is in step ($round)" sync_device alice 240
    check "bob is in step ($round)" sync_device bob 240
done
for name in alice bob; do
    same "the queue of $name is empty" "$(status "$name" '[.queue_files, .online] | @csv')" "0,true"
    check "all that was acknowledged is on $name" python3 "$WORKER" check "$T/$name" "$T/alice.json" "$T/bob.json"
    note "$(head -1 "$T/.check")"
done
same_tree "both devices show the same" "$T/alice" "$T/bob"
check "with the same bytes" diff -r --no-dereference "$T/alice" "$T/bob"
device carol
sync_device carol
same_tree "a device that is new shows it, too" "$T/alice" "$T/carol"
check "and all of it" python3 "$WORKER" check "$T/carol" "$T/alice.json" "$T/bob.json"
