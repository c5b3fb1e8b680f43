#!/usr/bin/env bash
# Programs that watch a folder with inotify hear of what other devices do, in the same words as of
# what is done here; and a file that is open keeps the version it opened.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

two_devices
mkdir -p "$A/seen/sub" "$A/unseen"
for name in edited.txt removed.txt moved.txt touched.txt over.txt; do echo base >"$A/seen/$name"; done
echo base >"$A/unseen/edited.txt"
mkdir "$A/seen/old folder"
in_step() { sync_device alice && sync_device bob; }
in_step
find "$B" -type f -exec cat {} + >/dev/null

# watch NAME PATH...: one program that writes what it hears to $T/NAME.
watch() {
    local name=$1
    shift
    inotifywait -m -q --format '%w%f %e' "$@" >>"$T/$name" 2>"$T/$name.err" &
    WATCHER=$!
    HELPERS+=("$WATCHER")
    wait_until 10 watches "$WATCHER" $# || die "inotifywait does not begin"
}
# What was on its way when a watcher began it may hear, too: from here on only what is new.
afresh() {
    echo x >"$A/$2/begin $1"
    wait_until 20 heard "$1" "$2/begin $1 CLOSE_WRITE,CLOSE" || die "no event comes ($1)"
    : >"$T/$1"
}
watches() { [ "$(cat "/proc/$1/fdinfo/"* 2>/dev/null | grep -c '^inotify')" -ge "$2" ]; }
helpers() { pgrep -fc "raise-events $B " || true; }
heard() { grep -qxF -- "$B/$2" "$T/$1"; }
# hears TEXT NAME LINE: within some seconds.
hears() { check "$1" wait_until 20 heard "$2" "$3"; }
events() { grep -F -- "$B/$1 " "$T/folder" | sed 's/.* //' | tr '\n' ' '; }

echo quiet >"$A/seen/before.txt"
in_step
same "without a watcher there is no helper" "$(helpers)" 0

watch folder "$B/seen"
afresh folder seen
echo new >"$A/seen/new.txt"
hears "a new file is created" folder "seen/new.txt CREATE"
hears "and written" folder "seen/new.txt CLOSE_WRITE,CLOSE"
same "in the words of a local one" "$(events seen/new.txt)" "CREATE OPEN MODIFY CLOSE_WRITE,CLOSE "
same "and it is there" "$(cat "$B/seen/new.txt")" new
mkdir "$A/seen/folder"
hears "a new folder" folder "seen/folder CREATE,ISDIR"
ln -s nowhere "$A/seen/link"
hears "a new symlink" folder "seen/link CREATE"
same "it leads where it should" "$(readlink "$B/seen/link")" nowhere
mkfifo "$A/seen/fifo"
hears "a new pipe" folder "seen/fifo CREATE"
echo changed >"$A/seen/edited.txt"
hears "an edit" folder "seen/edited.txt MODIFY"
hears "and its end" folder "seen/edited.txt CLOSE_WRITE,CLOSE"
same "the content is the new one" "$(cat "$B/seen/edited.txt")" changed
echo saved >"$A/seen/.over.txt.tmp" && mv "$A/seen/.over.txt.tmp" "$A/seen/over.txt"
hears "a save by rename" folder "seen/over.txt CLOSE_WRITE,CLOSE"
chmod 600 "$A/seen/touched.txt"
hears "a mode" folder "seen/touched.txt ATTRIB"
rm "$A/seen/removed.txt"
hears "a removal" folder "seen/removed.txt DELETE"
check "it is gone" test ! -e "$B/seen/removed.txt"
rmdir "$A/seen/old folder"
hears "a removal of a folder" folder "seen/old folder DELETE,ISDIR"
mv "$A/seen/moved.txt" "$A/seen/moved here.txt"
hears "a rename, from" folder "seen/moved.txt MOVED_FROM"
hears "and to" folder "seen/moved here.txt MOVED_TO"
same "it is there" "$(cat "$B/seen/moved here.txt")" base
check "only there" test ! -e "$B/seen/moved.txt"
mv "$A/seen/sub" "$A/unseen/sub"
hears "a folder that leaves" folder "seen/sub MOVED_FROM,ISDIR"
mv "$A/unseen/sub" "$A/seen/sub"
hears "and comes back" folder "seen/sub MOVED_TO,ISDIR"
echo x >"$A/unseen/edited.txt"
echo x >"$A/seen/mark"
hears "a folder that is not watched is not told of" folder "seen/mark CLOSE_WRITE,CLOSE"
same "nor looked at" "$(grep -c unseen "$T/folder")" 0
same "one helper does it" "$(helpers)" 1

# ---- a file that is watched by itself
watch file "$B/seen/edited.txt"
exec 7<"$B/seen/edited.txt"
echo "changed again" >"$A/seen/edited.txt"
hears "the folder hears of it" folder "seen/edited.txt MODIFY"
wait_until 10 grep -q again "$B/seen/edited.txt" || fail "the change does not arrive"
same "who has the file open reads on what it opened" "$(cat <&7)" changed
same "opening it again gives the newest" "$(cat "$B/seen/edited.txt")" "changed again"
exec 7<&-
hears "who watches the file hears that this one is gone" file "seen/edited.txt DELETE_SELF"
tail -n +1 -F "$B/seen/over.txt" >"$T/tail" 2>/dev/null &
HELPERS+=($!)
wait_until 10 grep -q saved "$T/tail" || fail "tail does not begin"
echo "saved again" >"$A/seen/over.txt"
check "tail -F follows" wait_until 20 grep -q 'saved again' "$T/tail"

# ---- many at once, and what is done here meanwhile
mkdir "$A/many"
in_step
watch many "$B/many"
afresh many many
for n in $(seq 1 300); do echo "$n" >"$A/many/a$n"; done
for n in $(seq 1 300); do echo "$n" >"$B/many/b$n"; done
all_heard() { [ "$(grep -c 'many/a[0-9]* CLOSE_WRITE' "$T/many")" -ge 300 ]; }
check "of 300 new files each is told" wait_until 60 all_heard
same "once" "$(grep -c 'many/a[0-9]* CREATE' "$T/many")" 300
in_step && sync_device alice
same_tree "nothing of it changed the drive" "$A" "$B"
same "and nothing waits to be sent" "$(status bob .queue_files)" 0
same "and there are no conflicts" "$(status bob '.conflicts | length')" 0

# ---- the end of the daemon is not held up
pid=$(pgrep -f "raise-events $B ")
for n in $(seq 1 200); do echo "$n" >"$A/many/c$n"; done
kill_client bob
check "the helper ends with its daemon" wait_until 10 bash -c "! kill -0 $pid"
check "and the drive mounts again" mount_device bob
in_step
same_tree "with all that is there" "$A" "$B"
kill "${HELPERS[@]}" 2>/dev/null || true
check "a drive that was watched is unmounted as ever" umount_device bob
