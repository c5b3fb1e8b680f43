#!/usr/bin/env bash
# The network of one device is cut and healed while both work: broken connections, and a network
# that swallows everything. Both end in the same tree, the server's order decides conflicts, nothing is lost.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

start_server
add_user me@example.org
device alice
CUT=$T/counts.cut
python3 "$HERE/proxy.py" "$PORT" "$T/counts" >"$T/proxy.port" &
HELPERS+=($!)
wait_until 10 test -s "$T/proxy.port"
LOGIN_URL=http://127.0.0.1:$(cat "$T/proxy.port") device bob
A=$T/alice
B=$T/bob
in_step() { sync_device alice && sync_device bob && sync_device alice && sync_device bob; }
is_online() { [ "$(status bob .online)" = true ]; }
is_offline() { [ "$(status bob .online)" = false ]; }
conflicts() { (cd "$A" && find . -name '*conflicted copy*' | sort); }
# Bytes of files that came beside, whatever their names.
has_copy() { grep -lqx -- "$2" "$A/${1%.txt} ("*"conflicted copy"*; }

mkdir "$A/deep"
for n in 1 2 3 4 5 6; do echo base >"$A/deep/f$n.txt"; done
echo base >"$A/moved.txt"
check "both begin in step" in_step
for how in refuse swallow; do
    printf '%s\n' "$how" >"$CUT"
    # Both go on. What one device alone changes is no conflict, whoever was cut off.
    echo "bob $how" >"$B/deep/f1.txt"
    echo "alice $how" >"$A/deep/f2.txt"
    echo "alice $how" >"$A/deep/f3.txt"
    echo "bob $how" >"$B/deep/f3.txt"
    rm "$A/deep/f4.txt"
    echo "edited $how" >"$B/deep/f4.txt"
    mv "$A/moved.txt" "$A/moved-$how.txt"
    echo "bob $how" >"$B/moved.txt"
    touch -d '2001-02-03 04:05:06.789' "$B/deep/f5.txt"
    mkdir -p "$A/new" "$B/new"
    echo same >"$A/new/same-$how"
    echo same >"$B/new/same-$how"
    echo alice >"$A/new/alice-$how"
    echo bob >"$B/new/bob-$how"
    head -c 3000000 /dev/urandom >"$B/new/large-$how"
    check "alice is in step alone ($how)" sync_device alice
    if [ "$how" = refuse ]; then
        check "bob knows that it is cut off" wait_until 60 is_offline
    else
        # It would find out when requests have got no answer for long enough.
        sleep 3
    fi
    rm "$CUT"
    check "bob finds back by itself ($how)" wait_until 60 is_online
    check "both come in step ($how)" in_step
    same_tree "both show the same ($how)" "$A" "$B"
    check "with the same bytes ($how)" diff -r "$A" "$B"
    same "an edit of one device only arrives ($how)" "$(cat "$A/deep/f1.txt" "$B/deep/f2.txt" | tr '\n' ' ')" "bob $how alice $how "
    same "of two edits the first that reached the server has the name ($how)" "$(cat "$A/deep/f3.txt")" "alice $how"
    check "and the other is beside it ($how)" has_copy deep/f3.txt "bob $how"
    same "an edit beats a removal ($how)" "$(cat "$A/deep/f4.txt")" "edited $how"
    same "an edit follows a rename ($how)" "$(cat "$A/moved-$how.txt")" "bob $how"
    same "a time that was set arrives ($how)" "$(stat -c %y "$A/deep/f5.txt" | cut -c 1-23)" '2001-02-03 04:05:06.789'
    same "what is new and the same is one ($how)" "$(find "$A/new" -name "same-$how*" | wc -l)" 1
    mv "$A/moved-$how.txt" "$A/moved.txt"
    check "and back ($how)" in_step
done
same "no other conflicts" "$(conflicts | grep -cv f3)" 0
same "one for each cut" "$(conflicts | wc -l)" 2

# ---- cut again and again in the middle of an upload and of a download
random_file "$T/up.bin" 60
random_file "$T/down.bin" 60
cp "$T/up.bin" "$B/up.bin"
cp "$T/down.bin" "$A/down.bin"
for n in 1 2 3 4; do
    sleep 0.3
    echo refuse >"$CUT"
    sleep 0.3
    rm "$CUT"
done
check "an upload that was cut again and again ends" sync_device bob
check "in step" in_step
check "with the right bytes" cmp "$T/up.bin" "$A/up.bin"
check "and so a download" cmp "$T/down.bin" "$B/down.bin"
same "without another conflict" "$(conflicts | wc -l)" 2
