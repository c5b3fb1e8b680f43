//! Stories of what comes back: from the trash, from old versions, from the past of a folder.

use std::collections::BTreeMap;
use std::time::Duration;

use drivefs::history::History;
use drivefs::history::HistoryError;
use drivefs::history::PastDone;
use drivefs::history::Pick;
use drivefs::history::Revived;
use drivefs::state::ROOT;
use drivefs_core::id::NodeId;
use drivefs_core::name::Name;
use drivefs_core::wire::Place;
use drivefs_core::wire::Which;

use crate::story::Device;
use crate::story::World;
use crate::story::all_sync;
use crate::story::same_files;

fn history(device: &Device<'_>) -> History {
    let ns = device.fs().tree().node(ROOT).expect("a root").ns;
    History::new(device.remote().clone(), ns, "2026-11-22")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn at(path: &str) -> Which {
    Which::Path(path.split('/').map(name).collect())
}

fn id(device: &Device<'_>, path: &str) -> NodeId {
    device.fs().tree().node(device.nid(path)).expect(path).id
}

fn revive(device: &Device<'_>, path: &str) -> Revived {
    let done = device.wait_for(history(device).revive(&at(path), false, |_| {})).expect(path);
    assert!(done.failed.is_empty(), "{:?}", done.failed);
    done
}

fn past(device: &Device<'_>, folder: &str, time: i64) -> PastDone {
    let done = device.wait_for(history(device).restore_past(id(device, folder), time, |_| {}));
    let done = done.expect(folder);
    assert!(done.failed.is_empty(), "{:?}", done.failed);
    done
}

/// Makes a version the newest again.
fn restore(device: &Device<'_>, path: &str, pick: Pick) -> Option<u64> {
    let history = history(device);
    device
        .wait_for(async {
            let (file, version) = history.version(&at(path), pick).await?;
            history.restore_version(file.row.node, &version).await
        })
        .expect(path)
}

/// A moment between what was done before and what is done next, as the server tells time.
fn moment() -> i64 {
    let now = || std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as i64;
    std::thread::sleep(Duration::from_millis(3));
    let time = now();
    std::thread::sleep(Duration::from_millis(3));
    time
}

fn remove_all(device: &Device<'_>, folder: &str) {
    let names: Vec<String> = device.names().into_iter().filter(|n| n.starts_with(folder)).collect();
    // What is deeper sorts behind its folder.
    for name in names.iter().rev() {
        device.remove(name.trim_end_matches('/'));
    }
}

/// A folder with something of each kind that a story needs.
fn a_tree(device: &Device<'_>) {
    device.mkdir("d");
    device.write("d/a.txt", b"a");
    device.mkdir("d/sub");
    device.write("d/sub/deep.bin", &vec![7; 300_000]);
    device.mkdir("d/empty");
}

#[test]
fn a_folder_that_one_removed_the_other_brings_back_with_all_its_nodes() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    a_tree(&alice);
    all_sync(&[&alice, &bob]);
    let before = same_files(&[&alice, &bob]);
    let ids: Vec<NodeId> = ["d", "d/a.txt", "d/sub/deep.bin"].map(|p| id(&alice, p)).to_vec();
    remove_all(&bob, "d");
    all_sync(&[&bob, &alice]);
    assert!(same_files(&[&alice, &bob]).is_empty());
    let done = revive(&alice, "d");
    assert_eq!((done.nodes, done.renamed), (5, false));
    all_sync(&[&alice, &bob]);
    assert_eq!(same_files(&[&alice, &bob]), before);
    for device in [&alice, &bob] {
        let now = ["d", "d/a.txt", "d/sub/deep.bin"].map(|p| id(device, p));
        assert_eq!(ids, now, "the same nodes on {}", device.name());
    }
    bob.write("d/a.txt", b"and goes on");
    all_sync(&[&bob, &alice]);
    assert_eq!(alice.read("d/a.txt"), b"and goes on");
    let versions = alice.wait_for(history(&alice).versions(&at("d/a.txt"), None, 9)).expect("some");
    let devices: Vec<_> = versions.versions.iter().map(|v| v.device.as_str()).collect();
    assert_eq!(devices, ["bob", "alice"], "one history");
}

#[test]
fn a_device_that_was_away_finds_it_as_if_nothing_had_been() {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.device("bob"));
    a_tree(&alice);
    all_sync(&[&alice, &bob]);
    let before = same_files(&[&alice, &bob]);
    bob.go_offline();
    remove_all(&alice, "d");
    alice.sync();
    revive(&alice, "d");
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    assert_eq!(same_files(&[&alice, &bob]), before);
}

#[test]
fn what_is_open_while_it_goes_and_comes_is_read_on() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.write("a.txt", b"text");
    all_sync(&[&alice, &bob]);
    let nid = alice.nid("a.txt");
    let handle = alice.fs().open(nid, false).expect("opens");
    alice.remove("a.txt");
    alice.sync();
    revive(&bob, "a.txt");
    all_sync(&[&bob, &alice]);
    assert_eq!(alice.read_handle(nid, handle, 0, 100).as_deref(), Ok(&b"text"[..]));
    alice.fs().release(handle).expect("closes");
    assert_eq!(alice.read("a.txt"), b"text");
    alice.write("a.txt", b"new text");
    all_sync(&[&alice, &bob]);
    assert_eq!(same_files(&[&alice, &bob]), BTreeMap::from([("a.txt".into(), "new text".into())]));
}

#[test]
fn what_was_written_into_a_removed_file_does_not_come_back_with_it() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.write("a.txt", b"text");
    all_sync(&[&alice, &bob]);
    let nid = alice.nid("a.txt");
    let handle = alice.fs().open(nid, true).expect("opens");
    alice.remove("a.txt");
    alice.sync();
    alice.fs().write(nid, handle, 0, b"scratch", false).expect("writes");
    revive(&bob, "a.txt");
    all_sync(&[&bob, &alice]);
    assert_eq!(alice.read("a.txt"), b"text");
    assert_eq!(alice.read_handle(nid, handle, 0, 100).as_deref(), Ok(&b"scratch"[..]));
    alice.fs().write(nid, handle, 7, b"!", false).expect("writes on");
    alice.fs().release(handle).expect("closes");
    all_sync(&[&alice, &bob]);
    assert_eq!(same_files(&[&alice, &bob]), BTreeMap::from([("a.txt".into(), "text".into())]));
}

#[test]
fn a_name_that_is_taken_meanwhile_is_left_alone() {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.device("bob"));
    a_tree(&alice);
    alice.write("b.txt", b"old");
    all_sync(&[&alice, &bob]);
    remove_all(&alice, "d");
    alice.remove("b.txt");
    alice.sync();
    alice.write("b.txt", b"new");
    alice.write("d", b"a file now");
    all_sync(&[&alice, &bob]);
    let file = revive(&alice, "b.txt");
    assert_eq!((file.renamed, file.place.name), (true, name("b (restored 2026-11-22).txt")));
    let folder = revive(&alice, "d");
    assert!(folder.renamed);
    all_sync(&[&alice, &bob]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files["b.txt"], "new");
    assert_eq!(files["b (restored 2026-11-22).txt"], "old");
    assert_eq!(files["d"], "a file now");
    assert_eq!(files["d (restored 2026-11-22)/a.txt"], "a");
    // What was made here meanwhile and is not sent yet meets it as any new name does.
    alice.remove("b.txt");
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    bob.write("b.txt", b"by bob");
    let back = revive(&alice, "b.txt");
    assert!(!back.renamed);
    bob.come_back();
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files["b.txt"], "new");
    assert_eq!(files.values().filter(|text| *text == "by bob").count(), 1, "{files:?}");
}

#[test]
fn a_lone_file_brings_the_folders_above_it_back_and_nothing_else() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    a_tree(&alice);
    all_sync(&[&alice, &bob]);
    remove_all(&bob, "d");
    all_sync(&[&bob, &alice]);
    let done = revive(&alice, "d/sub/deep.bin");
    assert_eq!(done.nodes, 3);
    all_sync(&[&alice, &bob]);
    let names: Vec<String> = same_files(&[&alice, &bob]).into_keys().collect();
    assert_eq!(names, ["d/", "d/sub/", "d/sub/deep.bin"]);
    // The rest follows into the folder that is there again.
    revive(&alice, "d/a.txt");
    all_sync(&[&alice, &bob]);
    assert_eq!(bob.read("d/a.txt"), b"a");
    let again = alice.wait_for(history(&alice).revive(&at("d/a.txt"), false, |_| {}));
    assert!(again.is_err_and(|e| e.is_not_found()), "it is there");
}

#[test]
fn a_folder_of_more_than_one_commit_comes_back_whole() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.mkdir("big");
    for i in 0..1_300 {
        alice.write(&format!("big/{i:04}"), b"x");
    }
    all_sync(&[&alice, &bob]);
    let before = same_files(&[&alice, &bob]);
    remove_all(&alice, "big");
    alice.sync();
    let mut told = Vec::new();
    let done = alice.wait_for(history(&alice).revive(&at("big"), false, |nodes| told.push(nodes)));
    assert_eq!(done.expect("all").nodes, 1_301);
    assert_eq!(told, [1_000, 1_301]);
    all_sync(&[&alice, &bob]);
    assert_eq!(same_files(&[&alice, &bob]), before);
}

#[test]
fn an_old_version_becomes_the_newest_and_nothing_of_the_history_goes() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    let big = vec![1; 700_000];
    alice.write("a.bin", &big);
    alice.sync();
    let early = moment();
    alice.write("a.bin", b"spoiled");
    all_sync(&[&alice, &bob]);
    assert_eq!(restore(&bob, "a.bin", Pick::Number(1)), Some(3));
    all_sync(&[&bob, &alice]);
    assert_eq!((alice.read("a.bin"), bob.read("a.bin")), (big.clone(), big.clone()));
    assert_eq!(restore(&bob, "a.bin", Pick::At(early)), None, "it is that already");
    assert_eq!(restore(&bob, "a.bin", Pick::Previous), Some(4));
    all_sync(&[&bob, &alice]);
    assert_eq!(alice.read("a.bin"), b"spoiled");
    let history = history(&alice);
    let all = alice.wait_for(history.versions(&at("a.bin"), None, 9)).expect("versions");
    let sizes: Vec<u64> = all.versions.iter().map(|v| v.size).collect();
    assert_eq!(sizes, [7, 700_000, 7, 700_000]);
    for (version, bytes) in all.versions.iter().zip([&b"spoiled"[..], &big]) {
        let read = alice.wait_for(history.read(&version.content, 1 << 20)).expect("reads");
        assert_eq!(read, bytes);
    }
    let small = alice.wait_for(history.read(&all.versions[1].content, 1000));
    assert!(matches!(small, Err(HistoryError::TooLarge(700_000))));
    for pick in [Pick::Number(9), Pick::Number(0), Pick::At(0)] {
        let none = alice.wait_for(history.version(&at("a.bin"), pick));
        assert!(none.is_err_and(|e| e.is_not_found()), "{pick:?}");
    }
    let copy = alice.wait_for(async {
        let (file, version) = history.version(&at("a.bin"), Pick::Number(1)).await?;
        let parent = id(&alice, "");
        let ns = alice.fs().tree().node(ROOT).expect("a root").ns;
        history.copy_version(&file, &version, (ns, Place { parent, name: name("copy") })).await
    });
    copy.expect("copies");
    all_sync(&[&alice, &bob]);
    assert_eq!(bob.read("copy"), big);
}

#[test]
fn a_local_edit_that_meets_a_restored_version_is_not_lost() {
    let world = World::new();
    let (alice, mut bob) = (world.device("alice"), world.device("bob"));
    alice.write("a.txt", b"one");
    alice.sync();
    alice.write("a.txt", b"two");
    all_sync(&[&alice, &bob]);
    bob.go_offline();
    bob.write("a.txt", b"by bob");
    assert_eq!(restore(&alice, "a.txt", Pick::Number(1)), Some(3));
    alice.sync();
    bob.come_back();
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files["a.txt"], "one");
    assert_eq!(files.values().filter(|text| *text == "by bob").count(), 1, "{files:?}");
}

#[test]
fn a_folder_becomes_as_it_was_then() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    a_tree(&alice);
    alice.write("d/gone.txt", b"gone");
    alice.write("d/replaced.txt", b"first");
    alice.mkdir("d/remade");
    alice.write("d/remade/x", b"x");
    alice.mkdir("d/lost");
    alice.mkdir("d/lost/er");
    alice.write("d/lost/er/y", b"y");
    alice.write("outside", b"before");
    all_sync(&[&alice, &bob]);
    let before = same_files(&[&alice, &bob]);
    let early = moment();
    bob.write("d/a.txt", b"changed");
    bob.write("d/sub/deep.bin", b"small now");
    bob.write("d/lost/er/y", b"changed before it went");
    bob.sync();
    bob.remove("d/gone.txt");
    bob.remove("d/replaced.txt");
    bob.remove("d/remade/x");
    bob.remove("d/remade");
    remove_all(&bob, "d/lost");
    bob.sync();
    bob.write("d/replaced.txt", b"second");
    bob.mkdir("d/remade");
    bob.write("d/remade/z", b"newer");
    bob.write("d/newer", b"newer");
    bob.write("outside", b"after");
    all_sync(&[&bob, &alice]);
    let late = same_files(&[&alice, &bob]);
    let undo = moment();
    let done = past(&alice, "d", early);
    // a.txt, deep.bin, replaced.txt; gone.txt, remade/x, lost, lost/er, lost/er/y.
    assert_eq!((done.files, done.revived), (3, 5));
    all_sync(&[&alice, &bob]);
    let mut expected = before;
    for (path, text) in [("d/newer", "newer"), ("d/remade/z", "newer"), ("outside", "after")] {
        expected.insert(path.into(), text.into());
    }
    assert_eq!(same_files(&[&alice, &bob]), expected);
    assert_eq!(past(&alice, "d", early), PastDone { files: 0, revived: 0, failed: vec![] });
    // It is undone in the same way; what came back stays, with the content that it had last.
    past(&alice, "d", undo);
    all_sync(&[&alice, &bob]);
    let files = same_files(&[&alice, &bob]);
    for (path, text) in late {
        assert_eq!(files.get(&path), Some(&text), "{path}");
    }
}
