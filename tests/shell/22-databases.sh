#!/usr/bin/env bash
# Databases that live in the mount: sqlite3 in WAL mode under two writers, PostgreSQL under pgbench.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

start_server
add_user me@example.org
new_device alice
# The database server runs as another user.
if [ "$(id -u)" = 0 ]; then mount_device alice --allow-other; else mount_device alice; fi
device bob
M=$T/alice

# ---- sqlite3, WAL, two processes writing at once
ROWS=1500
db=$M/wal.db
sqlite3 "$db" 'PRAGMA journal_mode=wal; CREATE TABLE t(id INTEGER PRIMARY KEY, who TEXT, v TEXT); CREATE INDEX i ON t(v);' >/dev/null
writer() {
    {
        printf '.timeout 60000\n'
        seq 1 $ROWS | sed "s/.*/INSERT INTO t(who, v) VALUES('$1', hex(randomblob(200)));/"
    } | sqlite3 "$db"
}
writer a >"$T/a.out" 2>&1 &
first=$!
writer b >"$T/b.out" 2>&1 &
second=$!
check "sync while both write" sync_device alice
check "the first writer ends well" wait "$first"
check "the second writer ends well" wait "$second"
same "and neither had anything to say" "$(cat "$T/a.out" "$T/b.out")" ""
same "no row is lost" "$(sqlite3 "$db" "SELECT sum(who = 'a'), sum(who = 'b') FROM t")" "$ROWS|$ROWS"
same "integrity" "$(sqlite3 "$db" 'PRAGMA integrity_check')" ok
# A writer that dies leaves a database that recovers.
writer c >/dev/null 2>&1 &
victim=$!
wait_until 20 bash -c "[ \"\$(sqlite3 '$db' \"SELECT count(*) FROM t WHERE who = 'c'\")\" -gt 20 ]"
# The child of that subshell writes; it dies first.
pkill -KILL -P "$victim" || true
kill -KILL "$victim" 2>/dev/null || true
{ wait "$victim" || true; } 2>/dev/null
same "integrity after a killed writer" "$(sqlite3 -cmd '.timeout 60000' "$db" 'PRAGMA integrity_check')" ok
same "checkpoint" "$(sqlite3 -cmd '.timeout 60000' "$db" 'PRAGMA wal_checkpoint(TRUNCATE)' | cut -d'|' -f1)" 0
check "vacuum" sqlite3 "$db" VACUUM
rows=$(sqlite3 "$db" 'SELECT count(*) FROM t')

# ---- PostgreSQL, through a socket in the test's folder
pg=$(find /usr/lib/postgresql/*/bin -maxdepth 0 2>/dev/null | sort -V | tail -n 1)
[ -x "$pg/postgres" ] || die "PostgreSQL is not installed"
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid postgres --regid postgres --init-groups env HOME="$T/sock" "$@"
    else
        "$@"
    fi
}
mkdir "$T/sock" "$M/pg"
chmod 711 "$T"
if [ "$(id -u)" = 0 ]; then chown postgres: "$T/sock" "$M/pg"; fi
chmod 700 "$M/pg"
cd "$T/sock"
stop_postgres() { as_postgres "$pg/pg_ctl" -D "$M/pg" -m "${1:-fast}" -w -t 60 stop; }
start_postgres() {
    as_postgres "$pg/pg_ctl" -D "$M/pg" -l "$T/sock/log" -w -t 60 start \
        -o "-c listen_addresses='' -c unix_socket_directories='$T/sock' -c shared_buffers=16MB"
}
# It goes with the test, whatever happens.
trap 'stop_postgres immediate >/dev/null 2>&1; clean_up' EXIT
sql() { as_postgres "$pg/psql" -h "$T/sock" -d postgres -XAtq "$@"; }
check "initdb" as_postgres "$pg/initdb" -D "$M/pg" -U postgres --auth=trust --data-checksums --no-locale -E UTF8
check "start" start_postgres
export PGUSER=postgres
check "pgbench -i" as_postgres "$pg/pgbench" -h "$T/sock" -i -q -s 2 postgres
check "pgbench, four clients" as_postgres "$pg/pgbench" -h "$T/sock" -c 4 -j 2 -T 10 postgres
note "$(sed -n 's/^tps = /pgbench: transactions a second /p' "$T/.check" | head -1)"
check "sync while it runs" sync_device alice
history=$(sql -c 'SELECT count(*) FROM pgbench_history')
check "it did some work" test "$history" -gt 50
# As after the death of the machine's database: no checkpoint, recovery from the log.
check "immediate stop" stop_postgres immediate
check "start with recovery" start_postgres
same "no committed row is lost" "$(sql -c 'SELECT count(*) FROM pgbench_history')" "$history"
same "the balances agree" "$(sql -c 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)')" t
check "vacuum and reindex" sql -c 'VACUUM FULL' -c 'REINDEX DATABASE postgres'
dump=$(sql -c 'SELECT md5(string_agg(t::text, chr(10) ORDER BY aid)) FROM pgbench_accounts t')
check "stop" stop_postgres
trap clean_up EXIT
check "the checksums of all pages" as_postgres "$pg/pg_checksums" --check -D "$M/pg"

# ---- both on the second device
cd "$T"
check "sync" sync_device alice 120
check "the second device has it" sync_device bob 60
same "sqlite3 there: integrity" "$(sqlite3 "$T/bob/wal.db" 'PRAGMA integrity_check')" ok
same "and all rows" "$(sqlite3 "$T/bob/wal.db" 'SELECT count(*) FROM t')" "$rows"
sync_device bob
same_tree "the whole database cluster is the same there" "$M/pg" "$T/bob/pg"
check "every byte is" diff -r "$M/pg" "$T/bob/pg"
check "PostgreSQL's own checksums hold there" "$pg/pg_checksums" --check -D "$T/bob/pg"
check "the dump was of something" test -n "$dump"
