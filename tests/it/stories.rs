//! Stories of two devices. What must never happen: a byte that somebody wrote is gone.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use drivefs::fs::DriveFs;

use crate::story::Device;
use crate::story::World;
use crate::story::all_sync;
use crate::story::same_files;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn conflict_of(files: &BTreeMap<String, String>, stem: &str) -> Vec<String> {
    files
        .iter()
        .filter(|(name, _)| name.starts_with(stem) && name.contains("conflicted copy"))
        .map(|(_, text)| text.clone())
        .collect()
}

/// Alice and Bob share `a.txt` with the text `base`; Bob is offline then.
fn shared_base(world: &World) -> (Device<'_>, Device<'_>) {
    let alice = world.device("alice");
    let mut bob = world.device("bob");
    alice.write("a.txt", b"base");
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    (alice, bob)
}

#[test]
fn what_one_device_writes_the_other_reads() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.mkdir("d");
    alice.write("d/a.txt", b"hello");
    alice.write("empty", b"");
    all_sync(&[&alice, &bob]);
    assert_eq!(
        same_files(&[&alice, &bob]),
        map(&[("d/", ""), ("d/a.txt", "hello"), ("empty", "")])
    );
    bob.rename("d/a.txt", "b.txt");
    bob.remove("d");
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), map(&[("b.txt", "hello"), ("empty", "")]));
}

/// Whatever is under way when a sync begins: an upload, a commit, its answer.
#[test]
fn sync_waits_for_what_was_written_over_something_on_its_way() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    for round in 0..40u64 {
        let path = format!("f{}", round % 4);
        alice.write(&path, format!("first {round}").as_bytes());
        std::thread::sleep(std::time::Duration::from_millis(15 + round));
        let last = format!("last {round}");
        alice.write(&path, last.as_bytes());
        alice.sync();
        bob.sync();
        assert_eq!(String::from_utf8_lossy(&bob.read(&path)), last, "round {round}");
    }
}

#[test]
fn both_edit_while_bob_is_offline() {
    let world = World::new();
    let (alice, mut bob) = shared_base(&world);
    bob.write("a.txt", b"bob");
    alice.write("a.txt", b"alice");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files.get("a.txt").map(String::as_str), Some("alice"));
    assert_eq!(conflict_of(&files, "a"), ["bob"], "{files:?}");
    assert_eq!(files.len(), 2);
}

#[test]
fn both_write_the_same_and_there_is_no_conflict() {
    let world = World::new();
    let (alice, mut bob) = shared_base(&world);
    bob.write("a.txt", b"same");
    bob.restart();
    bob.go_offline();
    alice.write("a.txt", b"same");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), map(&[("a.txt", "same")]));
}

#[test]
fn an_edit_survives_a_delete_on_either_side() {
    let world = World::new();
    let (alice, mut bob) = shared_base(&world);
    bob.write("a.txt", b"edited");
    alice.remove("a.txt");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), map(&[("a.txt", "edited")]));

    bob.go_offline();
    bob.remove("a.txt");
    alice.write("a.txt", b"edited again");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), map(&[("a.txt", "edited again")]));
}

#[test]
fn a_rename_and_an_edit_both_apply() {
    let world = World::new();
    let (alice, mut bob) = shared_base(&world);
    bob.rename("a.txt", "renamed.txt");
    alice.write("a.txt", b"edited");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), map(&[("renamed.txt", "edited")]));
}

#[test]
fn new_folders_of_one_name_merge_and_files_of_one_name_are_both_kept() {
    let world = World::new();
    let (alice, mut bob) = shared_base(&world);
    for (device, text) in [(&alice, "alice"), (&bob, "bob")] {
        device.mkdir("d");
        device.write(&format!("d/{text}"), text.as_bytes());
        device.write("d/both", text.as_bytes());
        device.mkdir("d/deep");
        device.write("d/deep/same", b"no conflict");
    }
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(conflict_of(&files, "d/deep/same"), [""; 0], "the same content is no conflict");
    assert_eq!(files["d/alice"], "alice");
    assert_eq!(files["d/bob"], "bob");
    assert_eq!(files["d/both"], "alice");
    assert_eq!(conflict_of(&files, "d/both"), ["bob"], "{files:?}");
}

#[test]
fn a_folder_that_got_a_new_child_survives_its_removal() {
    let world = World::new();
    let (alice, mut bob) = shared_base(&world);
    alice.mkdir("d");
    bob.come_back();
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    bob.write("d/new", b"kept");
    alice.remove("d");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files["d/new"], "kept");
}

#[test]
fn folders_moved_into_each_other_do_not_vanish() {
    let world = World::new();
    let (alice, mut bob) = shared_base(&world);
    alice.mkdir("x");
    alice.mkdir("y");
    alice.write("x/in-x", b"1");
    alice.write("y/in-y", b"2");
    bob.come_back();
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    alice.rename("x", "y/x");
    alice.sync();
    bob.rename("y", "x/y");
    bob.come_back();
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files["y/x/in-x"], "1", "{files:?}");
    assert_eq!(files["y/in-y"], "2");
}

/// The server tells the newest state of each entry, so a move may come before the one that made
/// room for it. `between` files put the two on different pages.
fn a_folder_moved_below_its_own_child(between: usize) {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.device("bob"));
    alice.mkdir("a");
    alice.mkdir("a/b");
    alice.write("a/b/f", b"deep");
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    for (from, to) in [("a/b", "b"), ("a", "b/a")] {
        alice.rename(from, to);
        alice.sync();
    }
    for i in 0..between {
        alice.write(&format!("b/a/{i}"), b"x");
    }
    alice.sync();
    alice.write("b/a/b", b"file");
    alice.sync();
    alice.rename("b", "c");
    alice.sync();
    bob.come_back();
    all_sync(&[&alice, &bob]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files["c/f"], "deep");
    assert_eq!(files["c/a/b"], "file");
    assert_eq!(files.len(), 4 + between);
}

#[test]
fn a_folder_moved_below_its_own_child_arrives_whatever_changed_last() {
    a_folder_moved_below_its_own_child(0);
}

#[test]
fn a_folder_moved_below_its_own_child_arrives_over_several_pages() {
    a_folder_moved_below_its_own_child(700);
}

#[test]
fn a_move_that_is_undone_finds_its_place_taken() {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.device("bob"));
    for name in ["x", "y"] {
        alice.mkdir(name);
        alice.write(&format!("{name}/in {name}"), b"1");
    }
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    bob.rename("x", "y/x");
    bob.mkdir("x");
    bob.write("x/new", b"2");
    alice.rename("y", "x/y");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    for (end, text) in [("/in x", "1"), ("/y/in y", "1"), ("x/new", "2")] {
        let found = files.iter().any(|(name, t)| name.ends_with(end) && t == text);
        assert!(found, "{end} in {files:?}");
    }
}

#[test]
fn an_editors_save_is_one_new_version_of_the_same_file() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.write("a.txt", b"one");
    all_sync(&[&alice, &bob]);
    let before = alice.fs().tree().node(alice.nid("a.txt")).expect("a.txt").id;
    alice.write(".a.txt.swp", b"two");
    alice.rename(".a.txt.swp", "a.txt");
    all_sync(&[&alice, &bob]);
    let after = alice.fs().tree().node(alice.nid("a.txt")).expect("a.txt");
    assert_eq!(before, after.id);
    assert_eq!(after.version, 2);
    assert_eq!(same_files(&[&alice, &bob]), map(&[("a.txt", "two")]));
}

#[test]
fn a_slow_save_whose_new_file_was_sent_before_its_rename_is_one_new_version_too() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.write("a.txt", b"one");
    all_sync(&[&alice, &bob]);
    let before = alice.fs().tree().node(alice.nid("a.txt")).expect("a.txt").id;
    alice.write("lu123.tmp", b"two");
    all_sync(&[&alice, &bob]);
    alice.rename("lu123.tmp", "a.txt");
    all_sync(&[&alice, &bob]);
    for device in [&alice, &bob] {
        let after = device.fs().tree().node(device.nid("a.txt")).expect("a.txt");
        assert_eq!((before, 2), (after.id, after.version));
    }
    assert_eq!(same_files(&[&alice, &bob]), map(&[("a.txt", "two")]));
}

#[test]
fn an_open_file_keeps_what_it_opened_and_a_write_to_it_is_never_lost() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.write("a.txt", b"old");
    all_sync(&[&alice, &bob]);
    let nid = bob.nid("a.txt");
    let reader = bob.fs().open(nid, false).expect("opens");
    let writer = bob.fs().open(nid, true).expect("opens");
    alice.write("a.txt", b"new");
    all_sync(&[&alice, &bob]);
    assert_eq!(bob.read("a.txt"), b"new");
    assert_eq!(bob.read_handle(nid, reader, 0, 100).expect("reads"), b"old");
    bob.fs().write(nid, writer, 0, b"BOB", false).expect("writes");
    bob.fs().release(writer).expect("closes");
    bob.fs().release(reader).expect("closes");
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files["a.txt"], "new");
    assert_eq!(conflict_of(&files, "a"), ["BOB"], "{files:?}");
}

/// A close moves the time of the last write from memory into the database: whoever asks in that
/// moment gets neither an older time nor an older length.
#[test]
fn what_is_asked_of_a_file_while_it_is_saved_is_as_new_as_before() {
    let world = World::new();
    let alice = world.device("alice");
    let fs = alice.fs();
    alice.write("a", b"");
    let nid = alice.nid("a");
    let known = Mutex::new((0, 0));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for ask in [|fs: &DriveFs, nid| fs.getattr(nid), |fs: &DriveFs, _| fs.lookup(1, b"a")] {
            let (known, is_over) = (&known, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let known = *known.lock().expect("no panic");
                    let attr = ask(fs, nid).expect("is there");
                    assert!((attr.size, attr.mtime) >= known, "{attr:?}, known {known:?}");
                }
            });
        }
        let writing = scope.spawn(|| {
            for len in 1..3_000 {
                let writer = fs.open(nid, true).expect("opens");
                fs.write(nid, writer, 0, &vec![1; len], false).expect("writes");
                let attr = fs.getattr(nid).expect("is there");
                assert_eq!(attr.size, len as u64);
                *known.lock().expect("no panic") = (attr.size, attr.mtime);
                // So that somebody who knows it asks while it is saved.
                for _ in 0..10 {
                    fs.getattr(nid).expect("is there");
                }
                fs.release(writer).expect("closes");
            }
        });
        let written = writing.join();
        is_over.store(true, Ordering::Relaxed);
        written.expect("writes");
    });
}

#[test]
fn what_was_written_before_a_crash_is_sent_after_it() {
    let world = World::new();
    let (mut alice, bob) = (world.device("alice"), world.device("bob"));
    alice.write("synced", &vec![7; 3_000_000]);
    all_sync(&[&alice, &bob]);
    alice.go_offline();
    alice.write("new", b"written offline");
    alice.patch("synced", 1_000_000, b"PATCH");
    // Open and unsaved at the moment of the crash.
    let (attr, handle) = alice.fs().create(1, b"open", crate::story::ME, 0o600).expect("creates");
    alice.fs().write(attr.nid, handle, 0, b"not closed", false).expect("writes");
    alice.restart();
    all_sync(&[&alice, &bob]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files["new"], "written offline");
    assert_eq!(files["open"], "not closed");
    let mut patched = vec![7; 3_000_000];
    patched[1_000_000..1_000_005].copy_from_slice(b"PATCH");
    assert_eq!(bob.read("synced"), patched);
}

#[test]
fn a_file_made_and_removed_again_never_reaches_the_server() {
    let world = World::new();
    let (mut alice, bob) = (world.device("alice"), world.device("bob"));
    alice.go_offline();
    alice.write("gone", b"gone");
    alice.remove("gone");
    alice.mkdir("d");
    alice.remove("d");
    let (nodes, names) = alice.fs().tree().ahead().expect("counts");
    assert_eq!(names, 0);
    assert!(nodes <= 1, "only the root folder's time may be ahead");
    alice.come_back();
    all_sync(&[&alice, &bob]);
    assert_eq!(same_files(&[&alice, &bob]), map(&[]));
}

#[test]
fn a_removed_tree_is_gone_on_every_device() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    for dir in ["t", "t/a", "t/a/b", "t/c"] {
        alice.mkdir(dir);
        for i in 0..20 {
            alice.write(&format!("{dir}/{i}"), dir.as_bytes());
        }
    }
    all_sync(&[&alice, &bob]);
    for dir in ["t/a/b", "t/a", "t/c", "t"] {
        for i in 0..20 {
            alice.remove(&format!("{dir}/{i}"));
        }
        alice.remove(dir);
    }
    all_sync(&[&alice, &bob]);
    assert_eq!(same_files(&[&alice, &bob]), map(&[]));
    assert_eq!(bob.fs().tree().ahead().expect("counts"), (0, 0));
}

#[test]
fn a_folder_removed_over_several_pages_leaves_nothing_behind() {
    let world = World::new();
    let (alice, mut bob) = shared_base(&world);
    alice.mkdir("d");
    for i in 0..700 {
        alice.write(&format!("d/{i}"), b"x");
    }
    alice.sync();
    bob.come_back();
    bob.sync();
    bob.go_offline();
    for i in 0..700 {
        alice.remove(&format!("d/{i}"));
        if i % 100 == 0 {
            alice.sync();
        }
    }
    alice.remove("d");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), map(&[("a.txt", "base")]));
    assert_eq!(bob.fs().tree().ahead().expect("counts"), (0, 0));
}

#[test]
fn removed_here_while_open_and_edited_there_shows_the_edit() {
    let world = World::new();
    let (alice, mut bob) = shared_base(&world);
    let nid = bob.nid("a.txt");
    assert_eq!(bob.read("a.txt"), b"base");
    let handle = bob.fs().open(nid, true).expect("opens");
    bob.remove("a.txt");
    alice.write("a.txt", b"edited");
    alice.sync();
    // The engine comes back under the same open file.
    bob.go_online();
    all_sync(&[&bob, &alice]);
    assert_eq!(bob.read("a.txt"), b"edited");
    assert_eq!(bob.read_handle(nid, handle, 0, 100).expect("reads"), b"base");
    bob.fs().write(nid, handle, 0, b"LATE", false).expect("writes");
    bob.fs().release(handle).expect("closes");
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files["a.txt"], "edited");
    assert!(files.values().any(|text| text == "LATE"), "{files:?}");
}

/// Bytes that look random.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed | 1;
    let mut byte = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(|_| byte()).collect()
}

#[test]
fn a_copy_by_reference_is_a_file_of_its_own() {
    const MIB: usize = 1 << 20;
    let world = World::new();
    let (mut alice, bob) = (world.device("alice"), world.device("bob"));
    let mut base = noise(1, 24 * MIB);
    alice.write("base", &base);
    alice.write("copy", b"");
    // Not sent yet: it is cut into blocks for it.
    assert_eq!(alice.copy(("base", 0), ("copy", 0), base.len() as u64), 1);
    let mut copy = base.clone();
    all_sync(&[&alice, &bob]);
    assert!(bob.read("copy") == copy);
    // Either goes on alone, and the death of the process loses nothing of it.
    alice.patch("base", 5_000_000, b"BASE");
    base[5_000_000..5_000_004].copy_from_slice(b"BASE");
    alice.patch("copy", 5_000_000, b"COPY");
    copy[5_000_000..5_000_004].copy_from_slice(b"COPY");
    alice.restart();
    assert!(alice.read("base") == base);
    assert!(alice.read("copy") == copy);
    // A range, over and behind what is there, with changes on both sides that are not sent.
    let (from, to, len) = (3 * MIB + 17, 20 * MIB - 5, 15 * MIB + 3);
    alice.copy(("base", from as u64), ("copy", to as u64), len as u64);
    copy.resize(to + len, 0);
    copy[to..].copy_from_slice(&base[from..from + len]);
    assert!(alice.read("copy") == copy);
    // Within one file, and behind its end.
    let to = copy.len() + MIB;
    alice.copy(("copy", 9), ("copy", to as u64), 10 * MIB as u64);
    copy.resize(to + 10 * MIB, 0);
    copy.copy_within(9..9 + 10 * MIB, to);
    alice.restart();
    assert!(alice.read("copy") == copy);
    all_sync(&[&alice, &bob]);
    assert!(bob.read("copy") == copy);
    assert!(bob.read("base") == base);
}

#[test]
fn a_copy_needs_neither_the_bytes_nor_the_server() {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.device("bob"));
    let bytes = noise(2, 6 << 20);
    alice.write("far", &bytes);
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    bob.write("near", b"");
    bob.copy(("far", 0), ("near", 0), bytes.len() as u64);
    bob.come_back();
    all_sync(&[&bob, &alice]);
    assert!(alice.read("near") == bytes);
}

#[test]
fn a_folder_takes_the_name_of_a_removed_file() {
    let world = World::new();
    let (mut alice, bob) = (world.device("alice"), world.device("bob"));
    alice.write("b", b"a file");
    alice.mkdir("d");
    alice.write("d/x", b"below");
    all_sync(&[&alice, &bob]);
    alice.go_offline();
    alice.remove("b");
    alice.rename("d", "b");
    alice.go_online();
    all_sync(&[&alice, &bob]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["b/", "b/x"]);
}

/// What a third device removes, two others have moved: one file, where the later one put it.
fn moved_away_by_two_and_removed_by_a_third(together: bool) {
    let world = World::new();
    let (mut alice, mut bob) = shared_base(&world);
    let cyd = world.device("cyd");
    cyd.sync();
    alice.go_offline();
    alice.rename("a.txt", "alices.txt");
    bob.rename("a.txt", "bobs.txt");
    cyd.remove("a.txt");
    cyd.sync();
    alice.come_back();
    if !together {
        alice.sync();
    }
    bob.come_back();
    all_sync(&[&alice, &bob, &cyd]);
    let files = same_files(&[&alice, &bob, &cyd]);
    assert_eq!(files.values().collect::<Vec<_>>(), ["base"], "{files:?}");
    if !together {
        assert!(files.contains_key("bobs.txt"), "{files:?}");
    }
}

#[test]
fn moved_away_at_once_and_removed_by_a_third_device_is_one_file() {
    moved_away_by_two_and_removed_by_a_third(true);
}

#[test]
fn moved_away_in_turn_and_removed_by_a_third_device_is_one_file() {
    moved_away_by_two_and_removed_by_a_third(false);
}

/// Both wrote other things over it: that is two files, and no name is lost.
#[test]
fn edited_by_two_and_removed_by_a_third_device_is_two_files() {
    let world = World::new();
    let (mut alice, mut bob) = shared_base(&world);
    let cyd = world.device("cyd");
    cyd.sync();
    alice.go_offline();
    alice.write("a.txt", b"alice");
    bob.write("a.txt", b"bob");
    cyd.remove("a.txt");
    cyd.sync();
    alice.come_back();
    alice.sync();
    bob.come_back();
    all_sync(&[&alice, &bob, &cyd]);
    let files = same_files(&[&alice, &bob, &cyd]);
    assert_eq!(files.get("a.txt").map(String::as_str), Some("alice"), "{files:?}");
    assert_eq!(conflict_of(&files, "a"), ["bob"], "{files:?}");
    assert_eq!(files.len(), 2, "{files:?}");
}
