//! Stories of conflicts: which there are, one file each, and how they end. What must never happen:
//! a byte that somebody wrote is gone, or a conflict that is none.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use drivefs::control::Keep;
use drivefs::tree::Mark;

use crate::network::Weather;
use crate::story::Device;
use crate::story::World;
use crate::story::all_sync;
use crate::story::same_files;

const BASE: &[u8] = b"one\ntwo\nthree\nfour\nfive\n";
const THEIRS: &[u8] = b"ONE\ntwo\nthree\nfour\nfive\n";
const MINE: &[u8] = b"one\ntwo\nthree\nfour\nFIVE\n";
const MERGED: &str = "ONE\ntwo\nthree\nfour\nFIVE\n";

/// Alice and Bob share `path`; both changed it while Bob was offline. Bob's is the conflict file.
fn torn<'w>(world: &'w World, path: &str) -> (Device<'w>, Device<'w>, String) {
    let (alice, mut bob) = (world.device("alice"), world.far_device("bob"));
    alice.write(path, BASE);
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    bob.write(path, MINE);
    alice.write(path, THEIRS);
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    let all = bob.conflicts();
    let [(file, origin)] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(origin.as_deref(), Some(path));
    assert_eq!(alice.conflicts(), all);
    let file = file.clone();
    (alice, bob, file)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn only(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn version(device: &Device<'_>, path: &str) -> u64 {
    device.fs().tree().node(device.nid(path)).expect(path).version
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

// ---- how they end

#[test]
fn theirs_leaves_what_has_the_name() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    // Either device may say it, by either name.
    let done = alice.resolve("a.txt", Keep::Theirs).expect("resolves");
    assert_eq!((done.path.as_str(), done.removed), ("a.txt", Some(file)));
    all_sync(&[&alice, &bob]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", &text(THEIRS))]));
    assert_eq!((alice.conflicts(), bob.conflicts()), (vec![], vec![]));
    assert_eq!(version(&bob, "a.txt"), 2);
}

#[test]
fn mine_is_the_newest_version_of_the_same_file() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    let before = bob.fs().tree().node(bob.nid("a.txt")).expect("a.txt").id;
    bob.resolve(&file, Keep::Mine).expect("resolves");
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", &text(MINE))]));
    for device in [&alice, &bob] {
        let after = device.fs().tree().node(device.nid("a.txt")).expect("a.txt");
        assert_eq!((after.id, after.version), (before, 3));
        assert_eq!(device.conflicts(), vec![]);
    }
}

#[test]
fn mine_of_a_large_file_moves_no_content() {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.far_device("bob"));
    let mut bytes: Vec<u8> = (0..6_000_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    alice.write("big", &bytes);
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    bob.patch("big", 9_000_000, b"BOB");
    alice.write("big", b"short");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    // Alice has not read a byte of it.
    let (sent, _) = alice.remote().link().bytes();
    alice.resolve("big", Keep::Mine).expect("resolves");
    alice.sync();
    let (after, _) = alice.remote().link().bytes();
    assert!(after - sent < 100_000, "{} bytes", after - sent);
    all_sync(&[&alice, &bob]);
    bytes[9_000_000..9_000_003].copy_from_slice(b"BOB");
    for device in [&alice, &bob] {
        assert!(device.read("big") == bytes);
        assert_eq!(device.conflicts(), vec![]);
    }
}

#[test]
fn both_makes_it_an_ordinary_file_on_all_devices() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    assert_eq!(bob.resolve("a.txt", Keep::Both).expect("resolves").path, file);
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files, only(&[("a.txt", &text(THEIRS)), (&file, &text(MINE))]));
    assert_eq!((alice.conflicts(), bob.conflicts()), (vec![], vec![]));
    let why = bob.resolve("a.txt", Keep::Both).expect_err("there is none");
    assert!(why.contains("has no conflict"), "{why}");
}

#[test]
fn a_merge_has_the_changes_of_both() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    alice.resolve(&file, Keep::Merge).expect("merges");
    all_sync(&[&alice, &bob]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", MERGED)]));
    assert_eq!((version(&alice, "a.txt"), version(&bob, "a.txt")), (3, 3));
}

#[test]
fn what_cannot_be_merged_stays_and_is_told() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    let unchanged = same_files(&[&alice, &bob]);
    // The same lines on both sides.
    bob.write(&file, b"Uno\ntwo\nthree\nfour\nfive\n");
    all_sync(&[&bob, &alice]);
    let why = bob.resolve("a.txt", Keep::Merge).expect_err("overlaps");
    assert!(why.contains("1 place") && why.contains("--keep theirs"), "{why}");
    bob.write(&file, b"one\0");
    all_sync(&[&bob, &alice]);
    let why = bob.resolve("a.txt", Keep::Merge).expect_err("binary");
    assert!(why.contains("not a text"), "{why}");
    bob.write(&file, &vec![b'x'; 5 << 20]);
    all_sync(&[&bob, &alice]);
    let why = bob.resolve("a.txt", Keep::Merge).expect_err("large");
    assert!(why.contains("larger than 4 MiB"), "{why}");
    bob.write(&file, MINE);
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), unchanged);
    assert_eq!(bob.conflicts().len(), 1);
    bob.resolve(&file, Keep::Merge).expect("merges at last");
}

#[test]
fn an_open_reader_sees_what_was_resolved_and_a_writer_is_not_overrun() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    let (nid, handle) = bob.hold_open("a.txt");
    bob.resolve(&file, Keep::Mine).expect("resolves");
    assert_eq!(bob.read_handle(nid, handle, 0, 100).expect("reads"), MINE);
    bob.fs().write(nid, handle, 0, b"ONE", false).expect("writes");
    bob.fs().release(handle).expect("closes");
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", MERGED)]));
}

// ---- offline, crashes

#[test]
fn without_the_server_nothing_is_dropped_that_it_does_not_have() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    bob.cut();
    let why = bob.resolve(&file, Keep::Merge).expect_err("offline");
    assert!(why.contains("cannot be fetched"), "{why}");
    bob.write(&file, b"newer");
    let why = bob.resolve(&file, Keep::Theirs).expect_err("not sent");
    assert!(why.contains("not on the server yet") && why.contains("offline"), "{why}");
    // Its content goes on in the origin: that needs no server.
    bob.resolve(&file, Keep::Mine).expect("resolves");
    assert_eq!(bob.read("a.txt"), b"newer");
    assert_eq!(bob.conflicts(), vec![]);
    bob.heal();
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", "newer")]));
    assert_eq!(version(&alice, "a.txt"), 3);
}

#[test]
fn without_the_server_an_unsent_origin_is_not_overwritten() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    bob.cut();
    bob.write("a.txt", b"only here");
    let why = bob.resolve(&file, Keep::Mine).expect_err("not sent");
    assert!(why.contains("a.txt is not on the server yet"), "{why}");
    assert_eq!(bob.read("a.txt"), b"only here");
    bob.resolve(&file, Keep::Both).expect("needs no server");
    bob.heal();
    all_sync(&[&bob, &alice]);
    assert_eq!(alice.conflicts(), vec![]);
    assert_eq!(alice.read("a.txt"), b"only here");
}

#[test]
fn a_conflict_kept_offline_and_never_sent_is_resolved_with_all_its_bytes() {
    late_writer(true);
}

#[test]
fn a_conflict_kept_offline_over_bytes_that_are_not_here_stays() {
    late_writer(false);
}

fn late_writer(is_read: bool) {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.far_device("bob"));
    alice.write("a.txt", BASE);
    all_sync(&[&alice, &bob]);
    if is_read {
        assert_eq!(bob.read("a.txt"), BASE);
    }
    let (nid, handle) = bob.hold_open("a.txt");
    alice.write("a.txt", THEIRS);
    all_sync(&[&alice, &bob]);
    bob.cut();
    // The writer's file lost its name: what it writes becomes a conflict file.
    bob.fs().write(nid, handle, 0, b"LATE", false).expect("writes");
    bob.fs().release(handle).expect("closes");
    let all = bob.conflicts();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].1.as_deref(), Some("a.txt"));
    if !is_read {
        // What lies under the four bytes never was on this device.
        let why = bob.resolve("a.txt", Keep::Mine).expect_err("not here");
        assert!(why.contains("not on this device") && why.contains("nothing was changed"), "{why}");
        assert_eq!(bob.conflicts(), all);
        return;
    }
    bob.resolve("a.txt", Keep::Mine).expect("resolves");
    assert_eq!(text(&bob.read("a.txt")), text(BASE).replacen("one\n", "LATE", 1));
    bob.heal();
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]).len(), 1);
}

#[test]
fn a_crash_between_the_two_steps_leaves_both_and_the_same_command_ends_it() {
    let world = World::new();
    let (alice, mut bob, file) = torn(&world, "a.txt");
    // The first step of `mine` alone.
    let (from, to) = (bob.nid(&file), bob.nid("a.txt"));
    let (from, to) =
        (bob.fs().tree().node(from).expect("node"), bob.fs().tree().node(to).expect("node"));
    bob.fs().replace_by_reference(&from, &to).expect("replaces");
    bob.restart();
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files, only(&[("a.txt", &text(MINE)), (&file, &text(MINE))]));
    bob.resolve(&file, Keep::Mine).expect("resolves");
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", &text(MINE))]));
    // The same content made no new version.
    assert_eq!(version(&alice, "a.txt"), 3);
}

#[test]
fn a_conflict_file_that_changed_after_it_was_taken_stays() {
    let world = World::new();
    let (_alice, bob, file) = torn(&world, "a.txt");
    let tree = bob.fs().tree();
    let nid = bob.nid(&file);
    let taken = tree.node(nid).expect("node").content.expect("content");
    bob.write(&file, b"changed again");
    assert!(tree.drop_conflict(nid, Some(&taken)).is_err());
    assert!(tree.drop_conflict(nid, None).is_err());
    assert_eq!(bob.read(&file), b"changed again");
    bob.sync();
    tree.drop_conflict(nid, None).expect("it is on the server");
}

// ---- odd places

#[test]
fn an_origin_that_was_renamed_is_found() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    alice.mkdir("d");
    alice.rename("a.txt", "d/b.txt");
    bob.rename(&file, "it's $(mine); \"really\" `yes`.txt");
    all_sync(&[&alice, &bob]);
    let odd = "it's $(mine); \"really\" `yes`.txt";
    assert_eq!(alice.conflicts(), [(odd.to_owned(), Some("d/b.txt".to_owned()))]);
    alice.resolve(odd, Keep::Mine).expect("resolves");
    all_sync(&[&alice, &bob]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("d/", ""), ("d/b.txt", &text(MINE))]));
}

#[test]
fn when_the_origin_is_gone_mine_puts_it_back_and_nothing_else_drops_the_last_copy() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    alice.remove("a.txt");
    all_sync(&[&alice, &bob]);
    assert_eq!(bob.conflicts(), [(file.clone(), None)]);
    for keep in [Keep::Theirs, Keep::Merge] {
        let why = bob.resolve(&file, keep).expect_err("nothing is left");
        assert!(why.contains("a.txt was removed") && why.contains("--keep mine"), "{why}");
    }
    // Another file has the name by now.
    bob.write("a.txt", b"another");
    let why = bob.resolve(&file, Keep::Mine).expect_err("taken");
    assert!(why.contains("another file is called a.txt"), "{why}");
    bob.remove("a.txt");
    bob.rename(&file, "elsewhere.txt");
    let done = bob.resolve("elsewhere.txt", Keep::Mine).expect("resolves");
    assert_eq!((done.path.as_str(), done.removed), ("a.txt", None));
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", &text(MINE))]));
    assert_eq!((alice.conflicts(), bob.conflicts()), (vec![], vec![]));
}

#[test]
fn a_conflict_of_a_conflict_is_resolved_first() {
    let world = World::new();
    let (alice, mut bob, file) = torn(&world, "a.txt");
    bob.go_offline();
    bob.write(&file, b"bob again");
    alice.write(&file, b"alice again");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    let all = bob.conflicts();
    assert_eq!(all.len(), 2, "{all:?}");
    let nested = all.iter().find(|c| c.1.as_deref() == Some(file.as_str())).expect("nested");
    let why = bob.resolve("a.txt", Keep::Theirs).expect_err("nested");
    assert!(why.contains(&nested.0), "{why}");
    bob.resolve(&nested.0, Keep::Mine).expect("resolves");
    bob.resolve("a.txt", Keep::Mine).expect("resolves");
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", "bob again")]));
}

#[test]
fn an_origin_with_several_conflicts_asks_which() {
    let world = World::new();
    let (alice, mut bob, file) = torn(&world, "a.txt");
    bob.go_offline();
    bob.write("a.txt", b"bob");
    alice.write("a.txt", b"alice");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    let all = bob.conflicts();
    assert_eq!(all.len(), 2);
    let why = bob.resolve("a.txt", Keep::Theirs).expect_err("which?");
    assert!(all.iter().all(|c| why.contains(&c.0)), "{why}");
    bob.resolve(&file, Keep::Theirs).expect("resolves");
    bob.resolve("a.txt", Keep::Theirs).expect("resolves");
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", "alice")]));
}

#[test]
fn files_made_apart_under_one_name_are_a_conflict_without_a_base() {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.far_device("bob"));
    bob.go_offline();
    bob.write("new.txt", b"bob");
    alice.write("new.txt", b"alice");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    let all = alice.conflicts();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].1.as_deref(), Some("new.txt"));
    assert_eq!(all, bob.conflicts());
    let why = alice.resolve("new.txt", Keep::Merge).expect_err("no base");
    assert!(why.contains("made separately"), "{why}");
    alice.resolve("new.txt", Keep::Mine).expect("resolves");
    all_sync(&[&alice, &bob]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("new.txt", "bob")]));
}

#[test]
fn moving_the_conflict_file_over_its_origin_ends_the_conflict() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    bob.rename(&file, "a.txt");
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", &text(MINE))]));
    assert_eq!((alice.conflicts(), bob.conflicts()), (vec![], vec![]));
}

#[test]
fn an_editors_save_leaves_the_conflict_one() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    bob.write(".swp", b"edited");
    bob.rename(".swp", &file);
    all_sync(&[&bob, &alice]);
    assert_eq!(alice.conflicts(), [(file.clone(), Some("a.txt".to_owned()))]);
    assert_eq!(alice.read(&file), b"edited");
}

#[test]
fn the_mark_tells_who_when_and_what() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    let node = alice.fs().tree().node(alice.nid(&file)).expect("node");
    let mark = Mark::of(&node.xattrs).expect("a mark");
    assert_eq!(mark.device.as_deref(), Some("bob"));
    assert_eq!(mark.name.map(|n| n.to_string()).as_deref(), Some("a.txt"));
    assert_eq!(mark.version, 1);
    assert_eq!(mark.node, bob.fs().tree().node(bob.nid("a.txt")).expect("node").id);
    assert!(mark.at.is_some_and(|at| at > node.attrs.btime));
}

// ---- no conflict that is none, and one file a conflict

#[test]
fn the_same_content_is_no_conflict_written_or_not_sent_or_in_pieces() {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.far_device("bob"));
    let long: Vec<u8> = (0..600_000u32).flat_map(u32::to_le_bytes).collect();
    for path in ["small", "long", "patched"] {
        alice.write(path, &long);
    }
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    for device in [&alice, &bob] {
        device.write("small", b"same");
        device.write("long", &long[1..]);
        device.patch("patched", 1_000_000, b"SAME");
        device.write("made", b"new");
    }
    alice.sync();
    bob.restart();
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["long", "made", "patched", "small"]);
}

#[test]
fn a_put_whose_answer_was_lost_is_no_conflict_with_what_is_written_on_top() {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.far_device("bob"));
    alice.write("a.txt", BASE);
    all_sync(&[&alice, &bob]);
    for round in 0..6 {
        bob.network().set(Weather::LosesAnswers);
        let lost = bob.network().lost();
        bob.write("a.txt", format!("first {round}").as_bytes());
        wait_until("an answer is lost", || bob.network().lost() > lost);
        bob.write("a.txt", format!("second {round}").as_bytes());
        if round % 2 == 0 {
            bob.restart();
        }
        bob.write("made", format!("made {round}").as_bytes());
        std::thread::sleep(Duration::from_millis(10 * round));
        bob.network().set(Weather::Fair);
        all_sync(&[&bob, &alice]);
        let files = same_files(&[&alice, &bob]);
        let second = format!("second {round}");
        assert_eq!(files, only(&[("a.txt", &second), ("made", &format!("made {round}"))]));
    }
}

#[test]
fn a_put_that_arrives_late_is_no_conflict_with_the_next_one() {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.far_device("bob"));
    alice.write("a.txt", BASE);
    all_sync(&[&alice, &bob]);
    bob.network().set(Weather::HoldsCommits);
    bob.write("a.txt", b"late");
    wait_until("a commit is held", || bob.network().held() > 0);
    // The process dies, and the next one sees the old version: its own put is still on the way.
    let held = bob.network().held();
    bob.restart();
    bob.write("a.txt", b"next");
    wait_until("the next commit is held", || bob.network().held() > held);
    bob.network().set(Weather::Fair);
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", "next")]));
}

#[test]
fn a_conflict_is_one_file_whatever_answers_are_lost_and_whoever_dies() {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.far_device("bob"));
    alice.write("a.txt", BASE);
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    bob.write("a.txt", MINE);
    alice.write("a.txt", THEIRS);
    alice.sync();
    bob.network().set(Weather::LosesAnswers);
    bob.restart();
    for _ in 0..4 {
        let lost = bob.network().lost();
        let until = Instant::now() + Duration::from_secs(2);
        while bob.network().lost() == lost && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        bob.restart();
    }
    bob.network().set(Weather::Fair);
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files.len(), 2, "{files:?}");
    assert_eq!(alice.conflicts().len(), 1);
    let texts: Vec<String> = files.into_values().collect();
    assert!(texts.contains(&text(MINE)) && texts.contains(&text(THEIRS)));
}

#[test]
fn a_resolution_whose_answers_are_lost_happens_once() {
    let world = World::new();
    let (alice, bob, file) = torn(&world, "a.txt");
    bob.network().set(Weather::LosesAnswers);
    std::thread::scope(|scope| {
        let resolved = scope.spawn(|| bob.resolve(&file, Keep::Mine));
        wait_until("an answer is lost", || bob.network().lost() > 0);
        bob.network().set(Weather::Fair);
        // It waited until the server had it, or found it offline and left it to the engine.
        resolved.join().expect("no panic").expect("resolves");
    });
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", &text(MINE))]));
    assert_eq!(version(&alice, "a.txt"), 3);
}

#[test]
fn both_devices_resolve_at_once_and_nothing_is_lost() {
    let world = World::new();
    let (alice, mut bob, file) = torn(&world, "a.txt");
    bob.go_offline();
    alice.resolve("a.txt", Keep::Theirs).expect("resolves");
    alice.sync();
    // Bob's own resolution, made without knowing: the steps as `resolve` takes them.
    let (from, to) = (bob.nid(&file), bob.nid("a.txt"));
    let tree = bob.fs().tree();
    let (from, to) = (tree.node(from).expect("node"), tree.node(to).expect("node"));
    let taken = bob.fs().replace_by_reference(&from, &to).expect("replaces");
    tree.drop_conflict(from.nid, Some(&taken)).expect("drops");
    bob.come_back();
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), only(&[("a.txt", &text(MINE))]));
}
